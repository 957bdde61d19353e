//! A simulated processor with a guest, VM exits and performance counters, honest or faulty by request.
#![allow(dead_code)]

pub mod program;

use replay::landing::Counter;
use replay::point::Registers;
use replay::proof::{Entry, Exit, Machine, Stub, Why};
use replay::repeat::Repeat;
use replay::seed::Seed;

use program::{Op, Program, When, program};

const CODE: u64 = 0x10000;
const PAGES: usize = 8;
const STACK_PAGE: usize = 0;

/// What is wrong with the hardware.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// PMI skid in instructions, smallest and largest.
    pub skid: (u64, u64),
    /// One count too many every so many exits; 0: never.
    pub overcount_every: u32,
    /// A REP that was interrupted by an exit does not count.
    pub undercount_rep: bool,
    /// Every so many overflows raises no interrupt; 0: never.
    pub lost_pmi_every: u32,
    /// Branches not taken do not count (C4/01 on Ice Lake).
    pub taken_only: bool,
    /// Faulting instructions count.
    pub count_faults: bool,
    /// Event deliveries count.
    pub count_deliveries: bool,
    /// The PMI does not mask its LVT entry.
    pub no_mask: bool,
    /// Counters hold this many bits on write (0: all).
    pub narrow: u32,
    /// The general counter misses one instruction in so many.
    pub general_misses: u64,
    /// The guest executes something else after so many instructions (a divergence, for landings).
    pub diverge_at: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Frame {
    ip: usize,
    interrupts: bool,
    trap: bool,
    resume: bool,
}

/// Everything a guest can see of itself.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct State {
    ip: usize,
    rax: u64,
    rbx: u64,
    rcx: u64,
    rdi: u64,
    r12: u64,
    frames: Vec<Frame>,
    calls: Vec<usize>,
    interrupts: bool,
    trap: bool,
    resume: bool,
    sti: bool,
    mov_ss: bool,
    present: bool,
    iterations: u64,
    guest_breakpoint: Option<usize>,
    event: Option<u8>,
}

pub struct Sim {
    program: Program,
    pub state: State,
    /// True instructions retired, emulated ones included.
    pub retired: u64,
    pub faults: Faults,
    rng: Seed,
    n: u64,
    general: u64,
    c: u64,
    soft: u64,
    mapped: [bool; PAGES],
    exits: u32,
    overflows: u32,
    armed: Option<(Counter, u64)>,
    due: Option<u64>,
    overflowed: bool,
    lvt_masked: bool,
    rep_interrupted: bool,
    stepping: bool,
    /// Faults exit before they are delivered.
    catch_faults: bool,
}

impl Sim {
    pub fn new(seed: u64, faults: Faults) -> Self {
        Self {
            program: Program::default(),
            state: State::default(),
            retired: 0,
            faults,
            rng: Seed::new(seed),
            n: 0,
            general: 0,
            c: 0,
            soft: 0,
            mapped: [true; PAGES],
            exits: 0,
            overflows: 0,
            armed: None,
            due: None,
            overflowed: false,
            lvt_masked: true,
            rep_interrupted: false,
            stepping: false,
            catch_faults: false,
        }
    }

    /// Begins a program.
    pub fn load(&mut self, program: Program, count: u64) -> Exit {
        let exit = self.reset(Stub::Nothing, count);
        self.program = program;
        exit
    }

    /// Enters the guest for so many iterations of the REP that it is at, as a host does: see [`replay::repeat`]. None: it is at
    /// no REP, or its iterations are traps.
    pub fn iterate(&mut self, iterations: u64, entry: &Entry) -> Option<Exit> {
        let (at, trap) = (self.state.ip, self.state.trap);
        if trap || !matches!(self.program.code[at], Op::Rep(u64::MAX) | Op::RepTouch(_)) {
            return None;
        }
        let address = |ip: usize| CODE + 4 * ip as u64;
        let (repeat, rcx) = Repeat::new(address(at), address(at + 1), 8, self.state.rcx, iterations)?;
        let made = self.state.iterations + rcx;
        self.state.rcx = rcx;
        self.catch_faults = true;
        let exit = self.enter(&Entry { breakpoint: Some(repeat.behind()), ..*entry });
        self.catch_faults = false;
        let settled = repeat.settle(exit.registers.rip, exit.registers.rcx(), false);
        self.state.rcx = settled.rcx;
        if settled.uncount {
            let s = &mut self.state;
            (s.ip, s.iterations, s.resume) = (at, made, true);
            self.soft = self.soft.wrapping_sub(1);
            self.retired -= 1;
        }
        Some(Exit { why: exit.why, ..self.exit(exit.why) })
    }

    fn retire(&mut self) {
        self.retired += 1;
        self.count_instruction();
    }

    fn count_instruction(&mut self) {
        self.n += 1;
        let misses = self.faults.general_misses;
        if misses == 0 || !self.n.is_multiple_of(misses) {
            self.general += 1;
        }
        if let Some(left) = &mut self.due {
            *left = left.saturating_sub(1);
        }
        self.check_overflow();
    }

    fn check_overflow(&mut self) {
        let Some((counter, at)) = self.armed else { return };
        let count = if counter == Counter::Instructions { self.n } else { self.c };
        if count < at {
            return;
        }
        self.armed = None;
        self.overflowed = true;
        self.overflows += 1;
        let every = self.faults.lost_pmi_every;
        if every == 0 || !self.overflows.is_multiple_of(every) {
            let (low, high) = self.faults.skid;
            self.due = Some(self.rng.between(low, high));
        }
    }

    fn exit(&mut self, why: Why) -> Exit {
        self.exits += 1;
        let every = self.faults.overcount_every;
        if every != 0 && self.exits.is_multiple_of(every) && why != Why::Reset {
            self.n += 1;
            self.general += 1;
        }
        if self.state.iterations > 0 {
            self.rep_interrupted = true;
        }
        let s = &self.state;
        let mut general = [0; 16];
        general[0] = s.rax;
        general[1] = s.rcx;
        general[3] = s.rbx;
        general[4] = 0x9000 - 40 * s.frames.len() as u64 - 8 * s.calls.len() as u64;
        general[7] = s.rdi;
        general[12] = s.r12;
        let bit = |on: bool, at: u32| u64::from(on) << at;
        // An EPT violation saves RF as 1, whatever it is.
        let resume = s.resume || why == Why::EptViolation;
        Exit {
            why,
            n: self.n.wrapping_add(self.soft),
            n_general: self.general.wrapping_add(self.soft),
            c: self.c,
            registers: Registers {
                general,
                rip: CODE + 4 * s.ip as u64,
                rflags: 2 | bit(s.interrupts, 9) | bit(s.trap, 8) | bit(resume, 16),
            },
            sti: s.sti,
            mov_ss: s.mov_ss,
            delivering: s.event.is_some(),
            breakpoint_free: s.guest_breakpoint.is_none(),
            overflowed: self.overflowed,
            lvt_masked: self.lvt_masked,
        }
    }

    fn violates(&mut self, page: usize) -> bool {
        !std::mem::replace(&mut self.mapped[page], true)
    }

    /// Delivers the pending event. An exit when its frame cannot be written.
    fn deliver(&mut self) -> Option<Why> {
        if self.violates(STACK_PAGE) {
            return Some(Why::EptViolation);
        }
        let vector = self.state.event.take()?;
        let s = &mut self.state;
        let resume = s.resume || matches!(vector, 0 | 6 | 13 | 14);
        s.frames.push(Frame { ip: s.ip, interrupts: s.interrupts, trap: s.trap, resume });
        (s.interrupts, s.trap, s.resume, s.sti, s.mov_ss) = (false, false, false, false, false);
        s.ip = self.program.handlers[&vector];
        if self.faults.count_deliveries {
            self.count_instruction();
        }
        None
    }

    /// The instruction's own accesses.
    fn access(&mut self, op: Op) -> bool {
        let code = 1 + (self.state.ip / 8) % 2;
        let data = 3
            + (match op {
                Op::Rep(_) | Op::RepTouch(_) => self.state.rdi / 16,
                _ => self.state.rbx,
            } % (PAGES as u64 - 3)) as usize;
        if self.violates(code) {
            return true;
        }
        matches!(op, Op::Memory | Op::Rep(_) | Op::RepTouch(_)) && self.violates(data)
    }

    fn branch(&mut self, taken: bool) {
        if taken || !self.faults.taken_only {
            self.c += 1;
            self.check_overflow();
        }
    }

    /// Executes one instruction, or one iteration of a REP, or raises its fault.
    fn execute(&mut self, op: Op) -> Option<Why> {
        let trap = self.state.trap;
        let s = &mut self.state;
        let mut next = s.ip + 1;
        let (mut sti, mut mov_ss, mut resume) = (false, false, false);
        let diverge = self.faults.diverge_at;
        if diverge != 0 && self.retired == diverge {
            s.rax ^= 1;
            s.rbx += 2;
        }
        match op {
            Op::Plain | Op::Memory => s.rax = s.rax.wrapping_mul(31).wrapping_add(s.rbx),
            Op::DecRbx => s.rbx -= 1,
            Op::DecR12 => s.r12 -= 1,
            Op::SetR12 => s.r12 = s.rbx,
            Op::Branch(when, to) => {
                let taken = match when {
                    When::Always => true,
                    When::Never => false,
                    When::RbxNonZero => s.rbx != 0,
                    When::RbxEven => s.rbx.is_multiple_of(2),
                    When::R12NonZero => s.r12 != 0,
                };
                if taken {
                    next = to;
                }
                self.branch(taken);
            }
            Op::Computed(again, end) => next = if s.rbx == 0 { end } else { again },
            Op::Call(to) => {
                s.calls.push(next);
                next = to;
            }
            Op::Return => next = s.calls.pop().expect("a caller"),
            Op::LeaRcx => s.rcx = s.rbx - 1,
            Op::Rcx(value) => s.rcx = value,
            Op::Rep(most) => {
                if s.rcx > 0 {
                    s.rcx -= 1;
                    s.rdi += 1;
                    s.iterations += 1;
                }
                if s.rcx > 0 && s.iterations < most {
                    (s.sti, s.mov_ss) = (false, false);
                    return None;
                }
                s.iterations = 0;
                if std::mem::take(&mut self.rep_interrupted) && self.faults.undercount_rep {
                    self.n -= 1;
                    self.general -= 1;
                }
            }
            Op::RepTouch(every) => {
                if s.rcx > 0 {
                    let boundary = s.rdi.is_multiple_of(every);
                    if boundary && !s.present {
                        s.iterations = 0;
                        return self.fault(14);
                    }
                    s.present &= !boundary;
                    s.rcx -= 1;
                    s.rdi += 1;
                    s.iterations += 1;
                }
                if s.rcx > 0 {
                    (s.sti, s.mov_ss) = (false, false);
                    return None;
                }
                s.iterations = 0;
                self.rep_interrupted = false;
            }
            Op::Int(vector) => {
                s.event = Some(vector);
                s.resume = false;
            }
            Op::Fault(vector) => return self.fault(vector),
            Op::Touch if !s.present => return self.fault(14),
            Op::Touch => {}
            Op::MapPage => s.present = true,
            Op::UnmapPage => s.present = false,
            Op::SkipFaulting => s.frames.last_mut().expect("a frame").ip += 1,
            Op::FrameRf => s.frames.last_mut().expect("a frame").resume = true,
            Op::Iret => {
                let frame = s.frames.pop().expect("a frame");
                next = frame.ip;
                (s.interrupts, s.trap, resume) = (frame.interrupts, frame.trap, frame.resume);
            }
            Op::Emulated => return self.emulated(Why::Emulated),
            Op::Halt => return self.emulated(Why::Halt),
            Op::BreakpointOn(at) => {
                s.guest_breakpoint = Some(at);
                return self.emulated(Why::Emulated);
            }
            Op::BreakpointOff => {
                s.guest_breakpoint = None;
                return self.emulated(Why::Emulated);
            }
            Op::Sti => {
                sti = !s.interrupts;
                s.interrupts = true;
            }
            Op::Cli => s.interrupts = false,
            Op::MovSs => mov_ss = true,
            Op::TrapOn => s.trap = true,
            Op::TrapOff => s.trap = false,
            Op::VmCall => return Some(Why::Done),
        }
        let s = &mut self.state;
        (s.ip, s.sti, s.mov_ss, s.resume) = (next, sti, mov_ss, resume);
        if trap && op != Op::Iret {
            s.event = Some(1);
        }
        self.retire();
        None
    }

    fn fault(&mut self, vector: u8) -> Option<Why> {
        self.state.event = Some(vector);
        if self.faults.count_faults {
            self.count_instruction();
        }
        None
    }

    fn emulated(&mut self, why: Why) -> Option<Why> {
        let s = &mut self.state;
        s.ip += 1;
        (s.sti, s.mov_ss, s.resume) = (false, false, false);
        self.soft = self.soft.wrapping_add(1);
        self.retired += 1;
        Some(why)
    }

    /// Events at an instruction boundary, highest priority first.
    fn boundary(&mut self, entry: &Entry, time: u64) -> Option<Why> {
        if entry.timer.is_some_and(|at| time >= at) {
            return Some(Why::Timer);
        }
        let s = &self.state;
        let injectable = s.interrupts && !s.sti && !s.mov_ss;
        if entry.window && injectable {
            return Some(Why::Window);
        }
        if s.mov_ss {
            return None;
        }
        if self.due == Some(0) {
            self.due = None;
            self.lvt_masked = !self.faults.no_mask;
            return Some(Why::Overflow);
        }
        entry.host_interrupt.is_some_and(|at| time >= at).then_some(Why::HostInterrupt)
    }

    /// Breakpoints on the next instruction: the host's exits, the guest's becomes an event.
    fn breakpoints(&mut self, entry: &Entry) -> Option<Why> {
        let s = &mut self.state;
        if s.resume || s.mov_ss {
            return None;
        }
        if s.guest_breakpoint == Some(s.ip) {
            s.event = Some(1);
            return None;
        }
        (entry.breakpoint == Some(CODE + 4 * s.ip as u64)).then_some(Why::Breakpoint)
    }

    fn run(&mut self, entry: &Entry) -> Why {
        let mut time = 0;
        let mut in_rep = false;
        loop {
            if self.state.event.is_some() {
                // The host intercepts debug exceptions only while it uses the breakpoint itself.
                let intercepted = time > 0 && self.state.event == Some(1) && entry.breakpoint.is_some();
                if intercepted || time > 0 && self.catch_faults {
                    return Why::Reflected;
                }
                if let Some(why) = self.deliver() {
                    return why;
                }
                if entry.step {
                    return Why::Step;
                }
            }
            if let Some(why) = self.boundary(entry, time) {
                return why;
            }
            if !in_rep && let Some(why) = self.breakpoints(entry) {
                return why;
            }
            if self.state.event.is_some() {
                continue;
            }
            let op = self.program.code[self.state.ip];
            if self.access(op) {
                return Why::EptViolation;
            }
            time += 1;
            if let Some(why) = self.execute(op) {
                return why;
            }
            in_rep = self.state.iterations > 0;
            let trapped = self.state.event == Some(1);
            if entry.step && (self.state.event.is_none() || trapped) {
                return Why::Step;
            }
        }
    }
}

impl Machine for Sim {
    fn reset(&mut self, stub: Stub, count: u64) -> Exit {
        self.program = program(stub);
        self.state = State { rbx: count, rcx: 77, ..State::default() };
        (self.retired, self.n, self.general, self.c, self.soft) = (0, 0, 0, 0, 0);
        self.mapped = [true; PAGES];
        (self.armed, self.due, self.overflowed, self.rep_interrupted) = (None, None, false, false);
        let exits = self.exits;
        let exit = self.exit(Why::Reset);
        self.exits = exits;
        exit
    }

    fn enter(&mut self, entry: &Entry) -> Exit {
        self.armed = None;
        if let Some((counter, ahead)) = entry.arm {
            assert!(ahead >= 1, "armed in the past");
            let now = if counter == Counter::Instructions { self.n } else { self.c };
            self.armed = Some((counter, now + ahead));
            self.overflowed = false;
            self.lvt_masked = false;
        }
        if let Some(vector) = entry.inject {
            assert!(self.state.event.is_none() && self.state.interrupts, "injected where it cannot be taken");
            assert!(!self.state.sti && !self.state.mov_ss, "injected into a shadow");
            self.state.event = Some(vector);
        }
        if entry.resume {
            assert!(entry.breakpoint.is_some() && entry.inject.is_none() && self.state.event.is_none());
            self.state.resume = true;
        }
        let why = self.run(entry);
        self.exit(why)
    }

    fn pages(&self) -> u32 {
        PAGES as u32
    }

    fn unmap(&mut self, page: u32) {
        self.mapped[page as usize] = false;
    }

    fn width(&self, _: Counter) -> u32 {
        48
    }

    fn write_read(&mut self, _: Counter, value: u64) -> u64 {
        if self.faults.narrow == 0 { value } else { value & (u64::MAX >> (64 - self.faults.narrow)) }
    }
}
