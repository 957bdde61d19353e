//! The virtual machine of a simulated host: the toy machine, led by the host or by a log, in steps of one entry.
//!
//! Between two steps it stands anywhere: in a HLT, behind a synchronous exit, between two. A machine that was led by a log goes on
//! from there as one that the host leads.

use std::collections::VecDeque;
use std::fmt;

use replay::landing::{Action, Cause, Seen};
use replay::log::buffer::LogBuffer;
use replay::log::codec::{Frames, Mark};
use replay::log::entry::{Correction, Entry, Event};
use replay::log::error::Error;
use replay::log::header::Header;
use replay::log::stream::{Stream, TooSmall};
use replay::log::writer::Writer;
use replay::point::RegistersHash;
use replay::recorder::{self, Recorder};
use replay::replayer::{Moment, Order, Replayer, Run};
use toy::computer::RATE;
use toy::cpu::{Enter, Exit, Silicon};
use toy::machine::{Machine, Packet, reason};
use toy::program::{Op, Program};

/// Bytes that one step adds to the log at most.
pub const STEP_BYTES: usize = 2048;

/// A clock that is ahead of the host's by more than this is slowed down, nanoseconds.
const AHEAD: u64 = 50_000;
/// The most that a correction steps forward, nanoseconds.
const STEP_MAX: u64 = 1_000_000;
/// As in the kernel: an armed overflow stays while software has completed no more instructions than these since.
const DRIFT: u64 = 16;
/// The watchdog of a guest that is led by a log, instructions.
const WATCHDOG: u64 = 3000;

/// What comes in from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A frame.
    Frame(Vec<u8>),
    /// Bytes at the console.
    Console(Vec<u8>),
    /// The power button.
    Button,
}

impl Arrival {
    fn event(&self) -> Event<'_> {
        match self {
            Self::Frame(frame) => Event::Frame { device: 0, frame: frame[..].into() },
            Self::Console(bytes) => Event::Console(bytes),
            Self::Button => Event::PowerButton,
        }
    }
}

/// The recording half of a host: what the kernel calls its tape.
pub struct Tape<'m> {
    recorder: Recorder,
    writer: Writer<&'m mut [u8]>,
    /// The log that has not been sent.
    pub log: LogBuffer<'m>,
}

impl<'m> Tape<'m> {
    /// A tape with nothing on it but the header.
    pub fn new(buffer: &'m mut [u8], log: &'m mut [u8]) -> Self {
        let writer = Writer::new(buffer).expect("a large buffer");
        let mut writer = writer.with_frames(Frames::Plain);
        let mut log = LogBuffer::new(log);
        log.push(writer.begin(&Header::default()).expect("a short header")).expect("room for the header");
        Self { recorder: Recorder::new(), writer, log }
    }

    /// Whether a step may be made.
    pub const fn has_room(&self) -> bool {
        self.log.free() >= self.writer.pending_bytes() + STEP_BYTES
    }

    /// Whether entries wait in a block that is not closed.
    pub const fn is_pending(&self) -> bool {
        !self.writer.is_empty()
    }
}

/// What a step of a guest that the host leads has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Led {
    /// It has executed so much.
    Ran(u64),
    /// It is halted until this moment of its own time, or until something comes.
    Halted(u64),
}

/// What a step of a guest that is led by a log has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed {
    /// It has executed so much.
    Ran(u64),
    /// The log has no more yet.
    Waits,
    /// The log has ended.
    Ended,
    /// This is not the recorded execution.
    Diverged(String),
}

/// What was applied before an entry.
enum Applied {
    Run,
    Stop(Followed),
}

/// The virtual machine.
pub struct Guest {
    machine: Machine,
    /// In the HLT that is the last synchronous exit, which is not dealt with yet.
    halted: bool,
    /// The last exit was a synchronous one; nothing was done since.
    exit: bool,
    host_exit: bool,
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpu = &self.machine.cpu;
        f.debug_struct("Guest")
            .field("n", &self.machine.n())
            .field("now", &self.machine.now())
            .field("halted", &self.halted)
            .field("interrupts", &cpu.interrupts_enabled())
            .field("due", &self.machine.devices.due())
            .field("pending", &self.machine.devices.pending())
            .finish()
    }
}

impl Guest {
    /// A machine at power-on, on this host.
    pub fn new(program: &Program, silicon: Silicon, host: u64, slower: u32) -> Self {
        let machine = Machine::slower(program.clone(), silicon, host, slower);
        Self { machine, halted: false, exit: true, host_exit: false }
    }

    /// Its own time, nanoseconds.
    pub const fn now(&self) -> u64 {
        self.machine.now()
    }

    /// What it has sent since this was asked last.
    pub fn take_sent(&mut self) -> impl Iterator<Item = Packet> + '_ {
        self.machine.sent.drain(..)
    }

    /// Whether it has sent something.
    pub const fn has_sent(&self) -> bool {
        !self.machine.sent.is_empty()
    }

    fn mark(&self, tape: &Tape<'_>) -> Mark {
        Mark { n: self.machine.n(), exits: tape.recorder.exits(), virtual_ns: self.machine.now() }
    }

    /// Closes the block. Gives the position then reached.
    pub fn close(&self, tape: &mut Tape<'_>) -> u64 {
        let mark = self.mark(tape);
        if let Some(block) = tape.writer.close(&mark) {
            tape.log.push(block).expect("a step begins with room");
        }
        tape.log.pushed()
    }

    /// Whether it stands where something can be recorded; if not, it soon will.
    pub const fn stands_well(&self) -> bool {
        self.exit || self.halted || !self.machine.cpu.delivering() && !self.machine.opens()
    }

    /// Ends the log, where the guest [stands well](Self::stands_well). Gives its length.
    pub fn end(&mut self, tape: &mut Tape<'_>, why: &str) -> u64 {
        let mut tape = Some(tape);
        self.take_in(&mut tape, &Event::End(why));
        let Some(tape) = tape else { return 0 };
        self.close(tape);
        let mark = self.mark(tape);
        tape.log.push(tape.writer.end(&mark)).expect("a step begins with room");
        tape.log.pushed()
    }

    /// One step of a guest that the host leads, at this moment of the host's own time. Without a tape: unprotected.
    pub fn lead(
        &mut self,
        mut tape: Option<&mut Tape<'_>>,
        host_now: u64,
        arrived: &mut VecDeque<Arrival>,
    ) -> Led {
        let before = self.machine.count();
        if self.halted {
            if let Some(until) = self.wait(&mut tape, host_now, arrived) {
                return Led::Halted(until);
            }
        } else {
            self.enter(&mut tape, host_now, arrived);
        }
        Led::Ran(self.machine.count() - before)
    }

    fn enter(&mut self, tape: &mut Option<&mut Tape<'_>>, host_now: u64, arrived: &mut VecDeque<Arrival>) {
        let mut enter = Enter::default();
        if self.exit {
            self.note_exit(tape);
        }
        if self.host_exit || self.exit {
            if !self.exit && self.machine.cpu.delivering() {
                enter.timer = Some(1);
            } else if self.exit || !self.machine.opens() {
                self.host_exit = false;
                self.work(tape, host_now, arrived);
            }
        }
        self.machine.settle();
        if enter.timer.is_none() {
            enter.timer = Some(self.machine.host.between(1, 400));
        }
        let exit = self.machine.enter(enter);
        self.exit = false;
        if !exit.is_synchronous() {
            self.machine.serve(exit);
            self.host_exit |= matches!(exit, Exit::Timer | Exit::Interrupt);
            return;
        }
        if let Some(tape) = tape {
            tape.recorder.begin_exit();
            tape.recorder.note(|to| *to = self.machine.registers());
        }
        match exit {
            Exit::Emulate(Op::Halt) => {
                self.halted = true;
                return;
            }
            Exit::Emulate(op) => self.machine.emulate(op),
            _ => {}
        }
        self.end_exit(tape, exit);
    }

    fn end_exit(&mut self, tape: &mut Option<&mut Tape<'_>>, exit: Exit) {
        self.machine.end_exit();
        self.exit = true;
        if let Some(tape) = tape {
            let (n, registers) = (self.machine.n(), self.machine.registers());
            tape.recorder.end_exit(|hash| hash.fold(reason(exit), n, &registers));
            tape.recorder.note(|to| *to = registers);
        }
        if self.has_sent() {
            self.take_in(tape, &Event::Output);
        }
    }

    fn note_exit(&mut self, tape: &mut Option<&mut Tape<'_>>) {
        let Some(tape) = tape else { return };
        if let Some(entry) = tape.recorder.hash_due() {
            write(tape, &entry);
        }
        if self.machine.host.one_in(200) {
            let digest = self.machine.digest().to_le_bytes();
            self.take_in(&mut Some(tape), &Event::Checkpoint(&digest));
        }
    }

    /// What the host does beside the guest.
    fn work(&mut self, tape: &mut Option<&mut Tape<'_>>, host_now: u64, arrived: &mut VecDeque<Arrival>) {
        let due = self.machine.now() >= self.machine.devices.due();
        let correction = if self.machine.host.one_in(16) { self.correction(host_now) } else { None };
        if correction.is_some() || due {
            self.take_in(tape, &Event::Look(correction));
        }
        if let Some(arrival) = arrived.pop_front() {
            self.take_in(tape, &arrival.event());
        }
    }

    /// The clock follows the host's.
    fn correction(&self, host_now: u64) -> Option<Correction> {
        let now = self.machine.now();
        let full = RATE * u64::from(self.machine.slower);
        let ahead = now > host_now + AHEAD;
        let rate = if ahead { full / 2 } else { full };
        let step = host_now.saturating_sub(now).min(STEP_MAX) as u32;
        (rate != self.machine.clock.rate || u64::from(step) > AHEAD).then_some(Correction { rate, step })
    }

    /// HLT. Gives the moment that it waits for, unless it is over.
    fn wait(
        &mut self,
        tape: &mut Option<&mut Tape<'_>>,
        host_now: u64,
        arrived: &mut VecDeque<Arrival>,
    ) -> Option<u64> {
        self.machine.advance();
        let due = self.machine.devices.due();
        let now = self.machine.now();
        if !self.machine.wakes() {
            if host_now >= due {
                let late = if self.machine.host.one_in(2) { 0 } else { host_now - due };
                self.take_in(tape, &Event::WakeAfterDue(late));
            } else if let Some(arrival) = arrived.pop_front() {
                if host_now > now {
                    self.take_in(tape, &Event::Wake(host_now - now));
                }
                self.take_in(tape, &arrival.event());
            } else {
                return Some(due);
            }
        }
        if self.machine.wakes() {
            self.leave_halt();
            self.end_exit(tape, Exit::Emulate(Op::Halt));
        }
        None
    }

    fn leave_halt(&mut self) {
        self.halted = false;
        self.machine.charge();
        self.machine.skip();
    }

    fn take_in(&mut self, tape: &mut Option<&mut Tape<'_>>, event: &Event<'_>) {
        if let Some(tape) = tape {
            let registers = self.machine.registers();
            let moment = if self.halted {
                recorder::Moment::Halted
            } else if self.exit {
                recorder::Moment::AfterExit
            } else {
                let mov_ss = self.machine.cpu.mov_ss();
                recorder::Moment::Between { n: self.machine.n(), registers: &registers, mov_ss }
            };
            let entry = tape.recorder.entry(moment, *event);
            write(tape, &entry);
        }
        self.machine.apply(event);
    }

    /// One step of a guest that is led by a log.
    pub fn follow(&mut self, track: &mut Track<'_>) -> Followed {
        let before = self.machine.count();
        if self.halted {
            self.machine.advance();
            if let Applied::Stop(stop) = track.apply_due(&mut self.machine, Moment::Halted) {
                return stop;
            }
            if !self.machine.wakes() {
                return Followed::Diverged("it sleeps where the recorded guest did not".to_owned());
            }
            self.leave_halt();
            self.followed_exit(track, Exit::Emulate(Op::Halt));
            return Followed::Ran(self.machine.count() - before);
        }
        if self.exit {
            if let Applied::Stop(stop) = track.apply_due(&mut self.machine, Moment::AfterExit) {
                return stop;
            }
            self.exit = false;
            self.machine.settle();
        }
        loop {
            // More may be to be applied right here: what follows from it comes after all of it.
            if let Applied::Stop(stop) = track.apply_due(&mut self.machine, Moment::Between) {
                return stop;
            }
            if !self.machine.has_changed() {
                break;
            }
            self.machine.settle();
        }
        self.go(track);
        Followed::Ran(self.machine.count() - before)
    }

    fn go(&mut self, track: &mut Track<'_>) {
        let timer = if self.machine.host.one_in(8) { self.machine.host.below(300) } else { WATCHDOG };
        let exit = self.machine.enter(Enter { timer: Some(timer), ..track.enter });
        track.cause = match exit {
            Exit::Overflow => Cause::Overflow,
            Exit::Breakpoint => Cause::Breakpoint,
            Exit::Step => Cause::Step,
            Exit::Timer => Cause::Timer,
            _ => Cause::Other,
        };
        if exit == Exit::Overflow {
            track.armed = None;
        }
        if !exit.is_synchronous() {
            return self.machine.serve(exit);
        }
        track.replayer.begin_exit();
        track.replayer.note(|to| *to = self.machine.registers());
        match exit {
            Exit::Emulate(Op::Halt) => {
                self.halted = true;
                return;
            }
            Exit::Emulate(op) => self.machine.emulate(op),
            _ => {}
        }
        self.followed_exit(track, exit);
    }

    fn followed_exit(&mut self, track: &mut Track<'_>, exit: Exit) {
        self.machine.end_exit();
        self.exit = true;
        let (n, registers) = (self.machine.n(), self.machine.registers());
        track.replayer.end_exit(|hash| hash.fold(reason(exit), n, &registers));
        track.replayer.note(|to| *to = registers);
    }

    /// From here on this host leads.
    pub fn go_live(&mut self) {
        self.machine.cpu.arm(None);
        self.host_exit = true;
    }
}

fn write(tape: &mut Tape<'_>, entry: &Entry<'_>) {
    tape.writer.entry(entry).expect("blocks are closed long before they are full");
}

/// The replaying half of a host: a log that arrives, and who leads the guest through it.
pub struct Track<'m> {
    replayer: Replayer<'static, Stream<'m>>,
    cause: Cause,
    enter: Enter,
    armed: Option<(u64, u64)>,
    open: bool,
}

impl<'m> Track<'m> {
    /// A log of which nothing has arrived, for a host with this silicon.
    ///
    /// # Errors
    /// The memory is too small.
    pub fn new(ring: &'m mut [u8], working: &'m mut [u8], silicon: Silicon) -> Result<Self, TooSmall> {
        let stream = Stream::new(ring, working)?;
        let replayer = Replayer::new(stream, silicon.skid.1 + DRIFT + 8).map_err(|_| TooSmall)?;
        Ok(Self { replayer, cause: Cause::Start, enter: Enter::default(), armed: None, open: false })
    }

    /// The log that arrives.
    pub const fn stream(&mut self) -> &mut Stream<'m> {
        self.replayer.source_mut()
    }

    /// Whether the header has arrived; the guest may start.
    ///
    /// # Errors
    /// It is none.
    pub fn is_open(&mut self) -> Result<bool, Error> {
        if !self.open {
            self.open = self.stream().header()?.is_some();
        }
        Ok(self.open)
    }

    fn apply_due(&mut self, machine: &mut Machine, moment: Moment) -> Applied {
        loop {
            if moment != Moment::Between && (self.replayer.is_ahead() || self.replayer.is_landing()) {
                return Applied::Run;
            }
            let seen = seen(machine, self.cause);
            match self.replayer.order(moment, || seen, || machine.registers()) {
                Order::Apply(entry) => {
                    if let Some(stop) = self.act(machine, &entry) {
                        return Applied::Stop(stop);
                    }
                }
                Order::Run(run) => {
                    if moment == Moment::Between {
                        self.run_as(machine, run);
                    }
                    return Applied::Run;
                }
                Order::Exhausted => return Applied::Stop(Followed::Waits),
                Order::Diverged(divergence) => {
                    return Applied::Stop(Followed::Diverged(format!("{divergence:?}")));
                }
            }
        }
    }

    fn act(&mut self, machine: &mut Machine, entry: &Entry<'static>) -> Option<Followed> {
        let number = self.replayer.position() - 1;
        let payload = self.stream().lend(number);
        let event = entry.event.with_payload(payload.bytes());
        let stop = match event {
            Event::Checkpoint(digest) if digest != machine.digest().to_le_bytes() => {
                Some(Followed::Diverged(format!("entry {number}: the checkpoint differs")))
            }
            Event::End(_) => Some(Followed::Ended),
            _ => None,
        };
        if stop.is_none() {
            machine.apply(&event);
        }
        self.stream().give_back(number, payload);
        stop
    }

    fn run_as(&mut self, machine: &mut Machine, run: Run) {
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
        let emulated = machine.emulated;
        let same = match (self.armed, overflow) {
            (None, None) => true,
            (Some((armed, since)), Some(at)) => armed == at && emulated - since <= DRIFT,
            _ => false,
        };
        if !same {
            let n = machine.n();
            machine.cpu.arm(overflow.map(|at| at.saturating_sub(n)));
            self.armed = overflow.map(|at| (at, emulated));
        }
    }
}

fn seen(machine: &Machine, cause: Cause) -> Seen {
    Seen {
        n: machine.n(),
        c: 0,
        rip: machine.cpu.rip(),
        rcx: machine.cpu.state.registers[1],
        registers: RegistersHash::default(),
        cause,
        delivering: machine.cpu.delivering(),
        breakpoint_free: !machine.cpu.watches(),
    }
}
