//! The replaying host of the toy machine.

use replay::landing::{Action, Cause, Seen};
use replay::log::entry::{Entry, Event};
use replay::log::error::Error;
use replay::point::RegistersHash;
use replay::replayer::{Divergence, Moment, Order, Replayer, Run, Source};
use replay::seed::Seed;

use crate::cpu::{Enter, Exit, Silicon};
use crate::machine::{Machine, reason};
use crate::program::{Op, Program};

/// As in the kernel: an armed overflow stays while software has completed no more instructions than these since.
const DRIFT: u64 = 16;
/// Entries into the guest after which a replay is given up.
const PATIENCE: u64 = 300_000;
/// The watchdog, instructions.
const WATCHDOG: u64 = 5000;

/// What is changed in the replaying machine, to see that it is noticed.
#[derive(Clone, Copy, Debug)]
pub enum Plant {
    /// A bit of a register.
    Register(usize, u32),
    /// A bit of a word of memory.
    Memory(usize, u32),
    /// A bit of the devices' state.
    Device(u32),
}

/// Why a replay is no replay.
#[derive(Clone, Debug)]
pub enum Failed {
    /// The replayer has noticed.
    Diverged(Divergence<Error>),
    /// A checkpoint's digest, or that after an entry, is another; the entry.
    Unequal(u64),
    /// The log's end was missed.
    Exhausted,
    /// HLT without end.
    Asleep,
    /// It takes too long.
    Stuck,
}

/// What a replay has cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Landings.
    pub landings: u64,
    /// Exits that they took.
    pub exits: u64,
    /// The most that one took.
    pub most: u32,
    /// Packets that the guest has sent.
    pub sent: u64,
}

/// The replaying host. A clone of it is a position to which a debugger could go back.
#[derive(Clone)]
pub struct Track<'l, S: Source<'l, Error = Error>> {
    machine: Machine,
    replayer: Replayer<'l, S>,
    /// The digests after each entry, where they are known.
    digests: &'l [u64],
    cause: Cause,
    enter: Enter,
    armed: Option<(u64, u64)>,
    ended: Option<Result<(), Failed>>,
    /// The last exit was a synchronous one.
    exit: bool,
    plant: Option<(u64, Plant)>,
}

impl<'l, S: Source<'l, Error = Error>> Track<'l, S> {
    /// A host that has replayed nothing. `digests`: those after each entry, as far as they are known.
    pub fn new(program: &Program, silicon: Silicon, host: u64, source: S, digests: &'l [u64]) -> Self {
        let margin = silicon.skid.1 + DRIFT + 8;
        Self {
            machine: Machine::new(program.clone(), silicon, host),
            replayer: Replayer::new(source, margin).expect("a log"),
            digests,
            cause: Cause::Start,
            enter: Enter::default(),
            armed: None,
            ended: None,
            exit: false,
            plant: None,
        }
    }

    /// Changes something at this synchronous exit.
    pub const fn plant(&mut self, exit: u64, plant: Plant) {
        self.plant = Some((exit, plant));
    }

    /// Replays to the end.
    pub fn run(mut self) -> Result<Cost, Failed> {
        self.enter_up_to(PATIENCE).unwrap_or(Err(Failed::Stuck))
    }

    /// Enters the guest at most so many times. Nothing: the end is not reached yet.
    pub fn enter_up_to(&mut self, times: u64) -> Option<Result<Cost, Failed>> {
        for _ in 0..times {
            let exit = std::mem::take(&mut self.exit);
            self.prepare(exit);
            if let Some(ended) = self.ended.take() {
                let landings = self.replayer.landings();
                let sent = self.machine.devices.sent();
                let cost =
                    Cost { landings: landings.count, exits: landings.exits, most: landings.most, sent };
                return Some(ended.map(|()| cost));
            }
            self.exit = self.go();
        }
        None
    }

    /// Has the host do everything else from here on.
    pub const fn vary(&mut self, host: u64) {
        self.machine.host = Seed::new(host);
    }

    /// Enters the guest once and deals with the exit. True: a synchronous one.
    fn go(&mut self) -> bool {
        let timer = if self.machine.host.one_in(3) { self.machine.host.below(300) } else { WATCHDOG };
        let exit = self.machine.enter(Enter { timer: Some(timer), ..self.enter });
        self.cause = match exit {
            Exit::Overflow => Cause::Overflow,
            Exit::Breakpoint => Cause::Breakpoint,
            Exit::Step => Cause::Step,
            Exit::Timer => Cause::Timer,
            _ => Cause::Other,
        };
        if exit == Exit::Overflow {
            self.armed = None;
        }
        if !exit.is_synchronous() {
            self.machine.serve(exit);
            return false;
        }
        self.replayer.begin_exit();
        match exit {
            Exit::Emulate(Op::Halt) => self.wait(),
            Exit::Emulate(op) => self.machine.emulate(op),
            _ => {}
        }
        if self.ended.is_none() {
            self.machine.end_exit();
            self.spoil();
            let (n, registers) = (self.machine.n(), self.machine.registers());
            self.replayer.end_exit(|hash| hash.fold(reason(exit), n, &registers));
            self.replayer.note(|to| *to = registers);
        }
        true
    }

    fn spoil(&mut self) {
        let Some((at, plant)) = self.plant else { return };
        if self.replayer.exits() == at {
            match plant {
                Plant::Register(number, bit) => self.machine.cpu.state.registers[number] ^= 1 << bit,
                Plant::Memory(word, bit) => self.machine.cpu.state.memory[word] ^= 1 << bit,
                Plant::Device(bit) => self.machine.devices.sum ^= 1 << bit,
            }
        }
    }

    fn wait(&mut self) {
        self.replayer.note(|to| *to = self.machine.registers());
        self.machine.advance();
        self.apply_due(Moment::Halted);
        if self.ended.is_none() && !self.machine.wakes() {
            self.ended = Some(Err(Failed::Asleep));
        }
        self.machine.charge();
        self.machine.skip();
    }

    fn prepare(&mut self, exit: bool) {
        if exit {
            self.apply_due(Moment::AfterExit);
        }
        self.machine.settle();
        if !self.replayer.is_landing() {
            return self.run_as(Run::Free);
        }
        loop {
            self.apply_due(Moment::Between);
            if self.ended.is_some() || !self.machine.has_changed() {
                return;
            }
            self.machine.settle();
        }
    }

    fn apply_due(&mut self, moment: Moment) {
        while self.ended.is_none() {
            let seen = self.seen();
            match self.replayer.order(moment, || seen, || self.machine.registers()) {
                Order::Apply(entry) => self.act(&entry),
                Order::Run(run) => {
                    if moment == Moment::Between {
                        self.run_as(run);
                    }
                    return;
                }
                Order::Exhausted => self.ended = Some(Err(Failed::Exhausted)),
                Order::Diverged(divergence) => self.ended = Some(Err(Failed::Diverged(divergence))),
            }
        }
    }

    fn act(&mut self, entry: &Entry<'l>) {
        let number = self.replayer.position() - 1;
        let unequal = Some(Err(Failed::Unequal(number)));
        if let Event::Checkpoint(digest) = entry.event
            && digest != self.machine.digest().to_le_bytes()
        {
            self.ended = unequal;
            return;
        }
        self.machine.apply(&entry.event);
        if self.digests.get(number as usize).is_some_and(|digest| *digest != self.machine.digest()) {
            self.ended = unequal;
        } else if let Event::End(_) = entry.event {
            self.ended = Some(Ok(()));
        }
    }

    fn seen(&self) -> Seen {
        Seen {
            n: self.machine.n(),
            c: 0,
            rip: self.machine.cpu.rip(),
            rcx: self.machine.cpu.state.registers[1],
            registers: RegistersHash::default(),
            cause: self.cause,
            delivering: self.machine.cpu.delivering(),
            breakpoint_free: !self.machine.cpu.watches(),
        }
    }

    fn run_as(&mut self, run: Run) {
        self.enter = Enter::default();
        let overflow = match run {
            Run::Free => None,
            Run::Landing(Action::RunToOverflow { at, .. }) => Some(at),
            Run::Landing(Action::RunToBreakpoint { rip, resume, guard, .. }) => {
                (self.enter.breakpoint, self.enter.resume) = (Some(rip), resume);
                Some(guard)
            }
            Run::Landing(_) => {
                self.enter.step = true;
                None
            }
        };
        let emulated = self.machine.emulated;
        let same = match (self.armed, overflow) {
            (None, None) => true,
            (Some((armed, since)), Some(at)) => armed == at && emulated - since <= DRIFT,
            _ => false,
        };
        if !same {
            let n = self.machine.n();
            self.machine.cpu.arm(overflow.map(|at| at.saturating_sub(n)));
            self.armed = overflow.map(|at| (at, emulated));
        }
    }
}
