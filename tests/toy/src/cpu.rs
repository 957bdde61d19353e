//! The toy processor: instructions, VM entries and exits, a counter with an interrupt that comes late.

use replay::point::{RFLAGS_RF, Registers};
use replay::seed::Seed;

use crate::program::{DEBUG, INVALID, Op, Program, SOFTWARE, WORDS, WRITABLE};

/// The address of the first instruction, and the bytes of one.
pub const CODE: u64 = 0xFFFF_FFFF_8100_0000;
/// Words of a page.
const PAGE: u64 = 32;
/// Pages: of data, then of code, then the stack.
const DATA_PAGES: usize = (WORDS / PAGE) as usize;
const CODE_PAGES: usize = 2;
const STACK: usize = DATA_PAGES + CODE_PAGES;
const PAGES: usize = STACK + 1;
/// The deepest stack of frames; what would go deeper is a reset of the stack.
const DEEPEST: usize = 64;

/// What an event's delivery leaves on the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Frame {
    ip: usize,
    interrupts: bool,
    trap: bool,
    rf: bool,
}

/// Everything that a guest can see of itself, but for RF, which is the host's business as well.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The general registers.
    pub registers: [u64; 16],
    /// Memory, words.
    pub memory: Vec<u64>,
    ip: usize,
    interrupts: bool,
    trap: bool,
    sti: bool,
    mov_ss: bool,
    stack: Vec<Frame>,
    /// The guest's own breakpoint.
    watch: Option<usize>,
    /// An event that is delivered before anything else.
    event: Option<u8>,
}

impl State {
    fn reset() -> Self {
        Self {
            registers: [0; 16],
            memory: (0..WORDS).map(|word| word.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect(),
            ip: 0,
            interrupts: false,
            trap: false,
            sti: false,
            mov_ss: false,
            stack: Vec::new(),
            watch: None,
            event: None,
        }
    }
}

/// How the guest is entered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Enter {
    /// The host's breakpoint.
    pub breakpoint: Option<u64>,
    /// RF = 1 on entry.
    pub resume: bool,
    /// Exit after one instruction.
    pub step: bool,
    /// Exit when an interrupt could be taken.
    pub window: bool,
    /// The preemption timer, instructions.
    pub timer: Option<u64>,
    /// An interrupt of the host, after so many instructions.
    pub interrupt: Option<u64>,
}

/// Why the guest stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// An instruction that is emulated.
    Emulate(Op),
    /// The guest can take an interrupt.
    Window,
    /// Memory that was not mapped, and is now.
    Fill,
    /// A store to a page that the host protects.
    Protected,
    /// The counter has overflowed.
    Overflow,
    /// The host's breakpoint.
    Breakpoint,
    /// One instruction was executed.
    Step,
    /// The preemption timer.
    Timer,
    /// An interrupt of the host.
    Interrupt,
    /// A debug exception of the guest's own while the host uses the breakpoint.
    Reflected,
}

impl Exit {
    /// Every execution has it at the same place.
    pub const fn is_synchronous(self) -> bool {
        matches!(self, Self::Emulate(_) | Self::Window)
    }
}

/// How this host's processor differs from others.
#[derive(Clone, Copy, Debug)]
pub struct Silicon {
    /// How late the overflow interrupt comes, instructions.
    pub skid: (u64, u64),
    /// One instruction too many is counted at one in so many exits; 0: never. Such a host must not be trusted.
    pub overcounts: u64,
}

/// The processor with its guest.
#[derive(Clone)]
pub struct Cpu {
    program: Program,
    /// What the guest can see.
    pub state: State,
    rf: bool,
    /// The counter.
    counted: u64,
    armed: Option<u64>,
    /// Instructions until the overflow interrupt comes.
    late: Option<u64>,
    mapped: [bool; PAGES],
    protected: [bool; DATA_PAGES],
    silicon: Silicon,
    rng: Seed,
}

impl Cpu {
    /// A processor at its reset, with nothing mapped.
    pub fn new(program: Program, silicon: Silicon, rng: Seed) -> Self {
        Self {
            program,
            state: State::reset(),
            rf: false,
            counted: 0,
            armed: None,
            late: None,
            mapped: [false; PAGES],
            protected: [false; DATA_PAGES],
            silicon,
            rng,
        }
    }

    /// Back to the first instruction; the counter goes on, and memory stays.
    pub fn reset(&mut self) {
        let memory = std::mem::take(&mut self.state.memory);
        (self.state, self.rf) = (State { memory, ..State::reset() }, false);
    }

    /// Instructions that the counter has counted.
    pub const fn counted(&self) -> u64 {
        self.counted
    }

    /// The instruction pointer.
    pub const fn rip(&self) -> u64 {
        CODE + 4 * self.state.ip as u64
    }

    /// The registers as recorder and replayer see them.
    pub fn registers(&self) -> Registers {
        let State { interrupts, trap, .. } = self.state;
        let mut rflags = 2 | u64::from(interrupts) << 9 | u64::from(trap) << 8;
        if self.rf {
            rflags |= RFLAGS_RF;
        }
        Registers { general: self.state.registers, rip: self.rip(), rflags }
    }

    /// RFLAGS.RF.
    pub const fn rf(&self) -> bool {
        self.rf
    }

    /// Whether MOV SS blocks events.
    pub const fn mov_ss(&self) -> bool {
        self.state.mov_ss
    }

    /// Whether STI blocks interrupts.
    pub const fn sti(&self) -> bool {
        self.state.sti
    }

    /// Whether the guest steps through itself.
    pub const fn traps(&self) -> bool {
        self.state.trap
    }

    /// Whether the guest has a breakpoint.
    pub const fn watches(&self) -> bool {
        self.state.watch.is_some()
    }

    /// Whether the guest is in a handler.
    pub const fn in_handler(&self) -> bool {
        !self.state.stack.is_empty()
    }

    /// In the midst of a REP, or right before one.
    pub fn at_rep(&self) -> bool {
        matches!(self.program.code[self.state.ip], Op::Rep(_) | Op::RepIn(_))
    }

    /// Whether an event is being delivered.
    pub const fn delivering(&self) -> bool {
        self.state.event.is_some()
    }

    /// RFLAGS.IF.
    pub const fn interrupts_enabled(&self) -> bool {
        self.state.interrupts
    }

    /// Whether an interrupt can be injected.
    pub const fn can_take(&self) -> bool {
        let State { interrupts, sti, mov_ss, event, .. } = &self.state;
        *interrupts && !*sti && !*mov_ss && event.is_none()
    }

    /// RF ends: what is on the stack afterwards is a function of the guest alone.
    pub const fn inject(&mut self, vector: u8) {
        assert!(self.can_take(), "injected where it cannot be taken");
        (self.state.event, self.rf) = (Some(vector), false);
    }

    /// Arms the overflow interrupt, or disarms it; one that is on its way comes all the same.
    pub const fn arm(&mut self, ahead: Option<u64>) {
        self.armed = match ahead {
            Some(ahead) => Some(self.counted + if ahead == 0 { 1 } else { ahead }),
            None => None,
        };
    }

    /// Takes memory away, or protects it: the host's business.
    pub fn disturb(&mut self) {
        let page = self.rng.below(PAGES as u64) as usize;
        self.mapped[page] = false;
        let page = self.rng.below(DATA_PAGES as u64) as usize;
        self.protected[page] = self.rng.one_in(2);
    }

    /// Nothing is protected where the guest has just stored.
    pub fn unprotect(&mut self) {
        self.protected = [false; DATA_PAGES];
    }

    fn count(&mut self) {
        self.counted += 1;
        if let Some(late) = &mut self.late {
            *late = late.saturating_sub(1);
        }
        if self.armed.is_some_and(|at| self.counted >= at) {
            self.armed = None;
            let (low, high) = self.silicon.skid;
            self.late = Some(self.rng.between(low, high));
        }
    }

    fn fills(&mut self, page: usize) -> bool {
        !std::mem::replace(&mut self.mapped[page], true)
    }

    fn deliver(&mut self) -> Option<Exit> {
        if self.fills(STACK) {
            return Some(Exit::Fill);
        }
        let vector = self.state.event.take()?;
        let State { ip, interrupts, trap, .. } = self.state;
        if self.state.stack.len() >= DEEPEST {
            self.state.stack.clear();
        }
        let rf = self.rf || vector == INVALID;
        let s = &mut self.state;
        s.stack.push(Frame { ip, interrupts, trap, rf });
        (s.interrupts, s.trap, s.sti, s.mov_ss) = (false, false, false, false);
        s.ip = self.program.handler(vector);
        self.rf = false;
        None
    }

    fn boundary(&mut self, enter: &Enter, time: u64) -> Option<Exit> {
        if enter.timer.is_some_and(|at| time >= at) {
            return Some(Exit::Timer);
        }
        if enter.window && self.can_take() {
            return Some(Exit::Window);
        }
        if self.state.mov_ss {
            return None;
        }
        if self.late == Some(0) {
            self.late = None;
            return Some(Exit::Overflow);
        }
        enter.interrupt.is_some_and(|at| time >= at).then_some(Exit::Interrupt)
    }

    fn breakpoints(&mut self, enter: &Enter) -> Option<Exit> {
        if self.rf || self.state.mov_ss {
            return None;
        }
        if self.state.watch == Some(self.state.ip) {
            self.state.event = Some(DEBUG);
            return None;
        }
        (enter.breakpoint == Some(self.rip())).then_some(Exit::Breakpoint)
    }

    /// Runs the guest until it exits.
    pub fn enter(&mut self, enter: &Enter) -> Exit {
        self.rf |= enter.resume;
        let exit = self.run(enter);
        if self.silicon.overcounts != 0 && self.rng.one_in(self.silicon.overcounts) {
            self.counted += 1;
        }
        exit
    }

    fn run(&mut self, enter: &Enter) -> Exit {
        let mut time = 0;
        loop {
            if self.state.event.is_some() {
                if time > 0 && self.state.event == Some(DEBUG) && enter.breakpoint.is_some() {
                    return Exit::Reflected;
                }
                if let Some(exit) = self.deliver() {
                    return exit;
                }
                if enter.step {
                    return Exit::Step;
                }
            }
            if let Some(exit) = self.boundary(enter, time) {
                return exit;
            }
            if let Some(exit) = self.breakpoints(enter) {
                return exit;
            }
            if self.state.event.is_some() {
                continue;
            }
            let op = self.program.code[self.state.ip];
            let before = self.state.event;
            if let Some(exit) = self.execute(op) {
                return exit;
            }
            time += 1;
            // The trap flag's exception is pending behind the instruction; a fault is delivered first.
            if enter.step && (self.state.event == before || self.state.event == Some(DEBUG)) {
                return Exit::Step;
            }
        }
    }

    /// The pages that an instruction needs.
    fn access(&mut self, op: Op) -> Option<Exit> {
        let code = DATA_PAGES + self.state.ip / 16 % CODE_PAGES;
        let registers = &self.state.registers;
        let data = match op {
            Op::Load(_, b) => Some((registers[b] % WORDS, false)),
            Op::Store(_, b) => Some((registers[b] % WRITABLE, true)),
            Op::Rep(_) if registers[1] > 0 => Some((registers[7] % WRITABLE, true)),
            _ => None,
        };
        let data = data.map(|(word, write)| ((word / PAGE) as usize, write));
        if self.fills(code) || data.is_some_and(|(page, _)| self.fills(page)) {
            self.rf = true;
            return Some(Exit::Fill);
        }
        data.is_some_and(|(page, write)| write && self.protected[page]).then(|| {
            self.rf = true;
            Exit::Protected
        })
    }

    /// Executes an instruction, or one iteration, or raises its fault.
    fn execute(&mut self, op: Op) -> Option<Exit> {
        if let Some(exit) = self.access(op) {
            return Some(exit);
        }
        match op {
            Op::Halt
            | Op::In(..)
            | Op::Out(..)
            | Op::Time(_)
            | Op::Random(_)
            | Op::Watch(_)
            | Op::Unwatch => {
                return Some(Exit::Emulate(op));
            }
            Op::Invalid => {
                self.state.event = Some(INVALID);
                return None;
            }
            _ => {}
        }
        if self.effect(op) {
            self.count();
        }
        None
    }

    /// A store to a protected page, done by the host: it counts as if it had retired. False: it is an iteration of a REP that
    /// goes on.
    pub fn complete(&mut self) -> bool {
        let op = self.program.code[self.state.ip];
        self.effect(op)
    }

    /// What an instruction does. False: it has not retired.
    fn effect(&mut self, op: Op) -> bool {
        let trap = self.state.trap;
        let s = &mut self.state;
        let mut next = s.ip + 1;
        let (mut sti, mut mov_ss, mut rf) = (false, false, false);
        match op {
            Op::Mix(a, b, k) => {
                s.registers[a] = (s.registers[a] ^ k).wrapping_mul(31).wrapping_add(s.registers[b])
            }
            Op::Load(a, b) => s.registers[a] ^= s.memory[(s.registers[b] % WORDS) as usize],
            Op::Store(a, b) => s.memory[(s.registers[b] % WRITABLE) as usize] = s.registers[a],
            Op::Set(a, value) => s.registers[a] = value,
            Op::Loop(a, to) => {
                s.registers[a] = s.registers[a].saturating_sub(1);
                if s.registers[a] != 0 {
                    next = to;
                }
            }
            Op::JumpIfOdd(a, to) if s.registers[a] % 2 == 1 => next = to,
            Op::Jump(to) => next = to,
            Op::Rep(early) if s.registers[1] > 0 => {
                let word = &mut s.memory[(s.registers[7] % WRITABLE) as usize];
                let ends = early != 0 && word.is_multiple_of(early);
                *word = word.wrapping_add(s.registers[1]);
                s.registers[1] -= 1;
                s.registers[7] = s.registers[7].wrapping_add(1);
                if s.registers[1] > 0 && !ends {
                    (s.sti, s.mov_ss, self.rf) = (false, false, true);
                    if trap {
                        s.event = Some(DEBUG);
                    }
                    return false;
                }
            }
            Op::Sti => {
                sti = !s.interrupts;
                s.interrupts = true;
            }
            Op::Cli => s.interrupts = false,
            Op::MovSs => mov_ss = true,
            Op::TrapOn => s.trap = true,
            Op::TrapOff => s.trap = false,
            Op::Int => s.event = Some(SOFTWARE),
            Op::SkipFaulting => {
                if let Some(frame) = s.stack.last_mut() {
                    frame.ip += 1;
                }
            }
            Op::FrameRf => {
                if let Some(frame) = s.stack.last_mut() {
                    frame.rf = true;
                }
            }
            Op::Note => {
                let place = s.stack.last().map_or(0, |frame| frame.ip as u64 ^ u64::from(frame.rf) << 32);
                let seen = s.registers.iter().fold(place, |sum, register| sum.rotate_left(7) ^ register);
                s.registers[15] = s.registers[15].wrapping_mul(0x100_0000_01B3).wrapping_add(seen);
            }
            Op::Iret => {
                // A stack that was too deep starts the program anew.
                let start = Frame { ip: 0, interrupts: false, trap: false, rf: false };
                let frame = s.stack.pop().unwrap_or(start);
                (next, s.interrupts, s.trap, rf) = (frame.ip, frame.interrupts, frame.trap, frame.rf);
            }
            _ => {}
        }
        (s.ip, s.sti, s.mov_ss, self.rf) = (next, sti, mov_ss, rf);
        // MOV SS holds a trap back, and so does what has just begun.
        if trap && !matches!(op, Op::Iret | Op::Int) {
            s.event = Some(DEBUG);
        }
        true
    }

    /// An iteration of the repeated instruction that has exited is done, by software; there are more.
    pub const fn iterate(&mut self) {
        let s = &mut self.state;
        (s.sti, s.mov_ss, self.rf) = (false, false, true);
        if s.trap {
            s.event = Some(DEBUG);
        }
    }

    /// The instruction that has exited is done, by software.
    pub const fn skip(&mut self) {
        let s = &mut self.state;
        s.ip += 1;
        (s.sti, s.mov_ss, self.rf) = (false, false, false);
        if s.trap {
            s.event = Some(DEBUG);
        }
    }

    /// Sets the guest's breakpoint.
    pub const fn watch(&mut self, at: Option<usize>) {
        self.state.watch = at;
    }
}
