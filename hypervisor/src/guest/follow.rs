//! The guest is led through a log: what comes in comes from there, at exactly the places that the log names. The host's time
//! and what comes to this host play no part.

use super::board::{Board, reason};
use super::feed::ahead;
use super::operator::Desk;
use super::pairing::Awaited;
use super::repeats::Iterating;
use super::replaying::{Ended, Whereabouts};
use super::tape::Tape;
use crate::vcpu::{Active, Stop, Verdict};
use crate::{duties, terminal};
use replay::landing::{Action, Seen};
use replay::log::entry::{Entry, Event, Place};
use replay::log::error::Label;
use replay::point::RegistersHash;
use replay::replayer::{Moment, Order, Run};
use vmx::fields::{self, VmcsRead};

/// DR7: DR0 enabled globally, as an instruction breakpoint; bit 10 is always one.
pub const DR7_FIRST: u64 = 1 << 10 | 2;

/// Any of the four breakpoints is enabled in DR7.
pub const DR7_ENABLES: u64 = 0xFF;

/// An armed overflow stays as it is while no more instructions than these were completed by software since: each makes it come
/// later by one, and margins have that much room.
const DRIFT: u64 = 16;

/// Entries that are looked at for one that the guest has passed.
const LOOKAHEAD: usize = 64;

/// So many looks of the watchdog's make one for an entry that the guest has passed: each reads entries ahead.
const LOOKS: u8 = 64;

/// How the guest is entered while it is led.
#[derive(Debug, Default)]
pub struct Gear {
    /// Looks of the watchdog's since the last one ahead.
    looks: u8,
    /// The overflow interrupt is armed: at this count, when so many instructions had been completed by software.
    armed: Option<(u64, u64)>,
    /// The guest exits after each instruction.
    steps: bool,
    /// There is a breakpoint.
    pub breakpoint: bool,
    /// Exits on the way need no look as long as software has completed fewer instructions than this since it had completed so many.
    quiet: u64,
    since: u64,
    /// It runs through some iterations of a repeated instruction.
    pub iterating: Option<Iterating>,
}

impl Gear {
    /// Whether the guest's next stop on its way will come by itself, in time, whatever exits there are before.
    #[inline(always)]
    pub const fn is_quiet(&self, emulated: u64) -> bool {
        emulated.wrapping_sub(self.since) < self.quiet
    }
}

impl Board {
    /// The backup's part before an entry. `exit`: the last exit was a synchronous one.
    pub fn follow(&mut self, on: &mut Active<'_>, exit: bool) -> Verdict {
        if self.host_exit {
            self.do_host_work_aside(on);
        }
        if exit && !(self.go_along() && self.apply_due(on, Moment::AfterExit)) {
            return Verdict::Stop(Stop::Named(reason::REPLAY));
        }
        if let Some(verdict) = self.stop_verdict() {
            return verdict;
        }
        self.settle(on);
        let Tape::Replaying(replaying) = &self.tape else { return Verdict::Resume };
        if replaying.replayer.upcoming().is_none() {
            // A reset does not wait for what comes after it; the guest does not run before that is known.
            return self.approach(on);
        }
        if replaying.replayer.is_landing() {
            return if self.gear.is_quiet(on.emulated()) { Verdict::Resume } else { self.approach(on) };
        }
        self.run_as(on, Run::Free);
        Verdict::Resume
    }

    /// The next entry lies between two synchronous exits: lands on it, or says how to go on.
    fn approach(&mut self, on: &mut Active<'_>) -> Verdict {
        loop {
            // The guest was not entered with what was set up last.
            self.end_iterating(on);
            if !self.apply_due(on, Moment::Between) {
                return Verdict::Stop(Stop::Named(reason::REPLAY));
            }
            if let Some(verdict) = self.stop_verdict() {
                self.end_iterating(on);
                return verdict;
            }
            if !self.changed {
                return Verdict::Resume;
            }
            // Something was applied: what follows from it changes how the guest goes on.
            self.settle(on);
        }
    }

    /// Applies the entries that are due now, and leaves the processor set up for the way to the next. False: the replay ends
    /// here.
    fn apply_due(&mut self, on: &mut Active<'_>, moment: Moment) -> bool {
        loop {
            if let Tape::Replaying(replaying) = &self.tape
                && moment != Moment::Between
                && (replaying.replayer.is_ahead() || replaying.replayer.is_landing())
            {
                // Most exits have no entry.
                return true;
            }
            let seen = self.seen(on);
            let Tape::Replaying(replaying) = &mut self.tape else { return true };
            match replaying.replayer.order(moment, || seen, || on.place_registers()) {
                Order::Apply(entry) => {
                    // What comes next is another way.
                    self.gear.quiet = 0;
                    if !self.act_whole(on, entry) {
                        return false;
                    }
                }
                Order::Run(run) => {
                    replaying.approach.write((seen, run));
                    if moment == Moment::Between {
                        self.run_as(on, run);
                    }
                    return true;
                }
                Order::Exhausted if replaying.replayer.source_mut().channel().is_some() => {
                    match self.await_log(on) {
                        Awaited::More => {}
                        Awaited::Live => return true,
                        Awaited::Over => return false,
                    }
                }
                Order::Exhausted => {
                    replaying.end(Ended::Exhausted);
                    return false;
                }
                Order::Diverged(divergence) => {
                    replaying.end(Ended::Diverged(divergence));
                    return false;
                }
            }
        }
    }

    /// Applies an entry with its payload, wherever that is. False: the replay ends with it.
    fn act_whole(&mut self, on: &mut Active<'_>, entry: Entry<'static>) -> bool {
        let Tape::Replaying(replaying) = &mut self.tape else { return true };
        let number = replaying.replayer.position() - 1;
        let Some(stream) = replaying.replayer.source_mut().channel() else {
            return self.act_from_file(on, &entry);
        };
        let payload = stream.lend(number);
        let goes_on = self.act(on, &Entry { event: entry.event.with_payload(payload.bytes()), ..entry });
        if let Tape::Replaying(replaying) = &mut self.tape
            && let Some(stream) = replaying.replayer.source_mut().channel()
        {
            stream.give_back(number, payload);
        }
        goes_on
    }

    /// Applies an entry of a file: its frame is put together from what it was rebuilt of. False: the replay ends with it.
    fn act_from_file(&mut self, on: &mut Active<'_>, entry: &Entry<'_>) -> bool {
        let (Event::Frame { device, frame }, Tape::Replaying(replaying)) = (entry.event, &mut self.tape)
        else {
            return self.act(on, entry);
        };
        let mut memory = core::mem::take(&mut replaying.frame);
        let frame = frame.assemble(&mut memory).unwrap_or_default();
        let goes_on = self.act(on, &Entry { event: Event::Frame { device, frame: frame.into() }, ..*entry });
        if let Tape::Replaying(replaying) = &mut self.tape {
            replaying.frame = memory;
        }
        goes_on
    }

    /// Applies an entry. False: the replay ends with it.
    fn act(&mut self, on: &mut Active<'_>, entry: &Entry<'_>) -> bool {
        match entry.event {
            Event::Checkpoint(packed) => self.compare(on, packed),
            Event::End(why) => {
                let Tape::Replaying(replaying) = &mut self.tape else { return true };
                replaying.end(Ended::Equal(Label::new(why)));
                false
            }
            Event::Output => {
                self.cover_kept();
                true
            }
            _ => {
                self.apply(&entry.event);
                self.may_go_on(on)
            }
        }
    }

    /// HLT, led: everything that came while the guest was halted comes now.
    pub fn halt_along(&mut self, on: &mut Active<'_>) -> Verdict {
        self.note_registers(on);
        self.advance();
        if !self.apply_due(on, Moment::Halted) {
            return Verdict::Stop(Stop::Named(reason::REPLAY));
        }
        if self.stop_verdict().is_some() {
            (self.exit, self.halt_again) = (false, true);
            return Verdict::Resume;
        }
        if !matches!(self.tape, Tape::Replaying(_)) {
            // It has gone live in this HLT.
            return self.wait(on);
        }
        if self.wakes(on) {
            self.time.charge();
            return Verdict::Skip;
        }
        let at = self.whereabouts(on);
        let Tape::Replaying(replaying) = &mut self.tape else { return Verdict::Resume };
        replaying.end(Ended::Asleep(at));
        Verdict::Stop(Stop::Named(reason::REPLAY))
    }

    /// What came for the host, which is none of the guest's business.
    #[cold]
    fn do_host_work_aside(&mut self, on: &mut Active<'_>) {
        self.host_exit = false;
        if core::mem::take(&mut self.timer) {
            self.set_watchdog(on);
            self.tell_progress();
            // An overflow interrupt that was lost is noticed here.
            self.gear.quiet = 0;
            self.gear.looks = (self.gear.looks + 1) % LOOKS;
            if self.gear.looks == 0 {
                self.check_way();
            }
        }
        self.look_at_pair();
        self.serve_aside(on);
    }

    /// The terminal, and cards whose frames are not for the guest.
    pub fn serve_aside(&mut self, on: &mut Active<'_>) {
        let pending = duties::pending();
        if pending & duties::SERIAL != 0 {
            let (exits, cycles) = on.costs();
            terminal::serve(Some(&mut Desk { board: self, exits: &exits, cycles: &cycles }));
        }
        if pending & duties::NETWORK != 0 {
            self.discard_frames();
        }
    }

    /// The guest leaves its log, and runs freely from here on.
    pub fn leave_log(&mut self, on: &mut Active<'_>) {
        self.run_as(on, Run::Free);
        self.tape = Tape::Off;
    }

    /// What the guest has sent up to here is kept until the primary has let it out.
    fn cover_kept(&mut self) {
        let Tape::Replaying(replaying) = &mut self.tape else { return };
        // The primary closes the block behind this entry.
        if let Some(stream) = replaying.replayer.source_mut().channel() {
            let position = stream.executed();
            self.outside.cover(position);
        }
    }

    /// A guest that runs freely to its next exit, and has lost its way, may never come to it: then it is beyond a place that
    /// comes later in the log.
    fn check_way(&mut self) {
        let n = self.time.instructions();
        let Tape::Replaying(replaying) = &mut self.tape else { return };
        let places = ahead(&replaying.replayer).take(LOOKAHEAD).map(|entry| entry.place);
        let passed =
            places.into_iter().find(|place| matches!(place, Place::Between { point, .. } if point.n < n));
        if let Some(place) = passed {
            let divergence = replaying.replayer.lost(place);
            replaying.end(Ended::Diverged(divergence));
            self.stop(reason::REPLAY);
        }
    }

    fn whereabouts(&self, on: &Active<'_>) -> Whereabouts {
        let (n, rip) = (self.time.instructions(), on.vmcs().read(fields::GUEST_RIP));
        let (entry, exits) = match &self.tape {
            Tape::Replaying(replaying) => (replaying.replayer.position(), replaying.replayer.exits()),
            _ => (0, 0),
        };
        Whereabouts { entry, exits, n, rip }
    }

    fn seen(&self, on: &Active<'_>) -> Seen {
        let registers = on.registers();
        Seen {
            n: self.time.instructions(),
            c: 0,
            rip: on.vmcs().read(fields::GUEST_RIP),
            rcx: registers.gpr[1],
            registers: RegistersHash::default(),
            cause: self.cause,
            delivering: on.delivery_is_due(),
            breakpoint_free: on.dr7() & DR7_ENABLES == 0,
        }
    }

    /// Sets the processor up for a run.
    fn run_as(&mut self, on: &mut Active<'_>, run: Run) {
        self.set_up(on, run);
        (self.gear.quiet, self.gear.since) = match (run, self.gear.armed) {
            (Run::Free, _) => (u64::MAX, on.emulated()),
            (Run::Landing(Action::RunToOverflow { .. }), Some((_, since))) => (DRIFT + 1, since),
            _ => (0, 0),
        };
    }

    fn set_up(&mut self, on: &mut Active<'_>, run: Run) {
        let (overflow, breakpoint, step) = match run {
            Run::Free => (None, None, false),
            Run::Landing(Action::RunToOverflow { at, .. }) => (Some(at), None, false),
            Run::Landing(Action::RunToBreakpoint { rip, resume, guard, .. }) => {
                (Some(guard), Some((rip, resume)), false)
            }
            Run::Landing(Action::RunBriefly { cycles }) => (None, None, !self.run_briefly(on, cycles)),
            Run::Landing(Action::Iterate { iterations }) => return self.iterate_or_step(on, iterations),
            Run::Landing(_) => (None, None, true),
        };
        self.enter_with(on, overflow, breakpoint, step);
    }

    /// Sets the processor up for so many iterations of a repeated instruction, or for one.
    fn iterate_or_step(&mut self, on: &mut Active<'_>, iterations: u64) {
        // Nothing of the last run's is to stay.
        self.enter_with(on, None, None, false);
        if !self.iterate(on, iterations) {
            self.enter_with(on, None, None, true);
        }
    }

    fn enter_with(
        &mut self,
        on: &mut Active<'_>,
        overflow: Option<u64>,
        breakpoint: Option<(u64, bool)>,
        step: bool,
    ) {
        self.arm(on, overflow);
        if core::mem::replace(&mut self.gear.steps, step) != step {
            on.trap_instructions(step);
        }
        match breakpoint {
            Some((rip, resume)) => {
                on.set_breakpoints([rip, 0, 0, 0], DR7_FIRST);
                self.gear.breakpoint = true;
                if resume {
                    on.resume_over_breakpoint();
                }
            }
            None if core::mem::take(&mut self.gear.breakpoint) => on.clear_breakpoints(),
            None => {}
        }
    }

    fn arm(&mut self, on: &Active<'_>, at: Option<u64>) {
        let emulated = on.emulated();
        let same = match (self.gear.armed, at) {
            (None, None) => true,
            (Some((armed, since)), Some(at)) => armed == at && emulated.wrapping_sub(since) <= DRIFT,
            _ => false,
        };
        if !same {
            let now = self.time.instructions();
            self.time.arm(at.map(|at| at.saturating_sub(now)));
            self.gear.armed = at.map(|at| (at, emulated));
        }
    }

    /// The overflow interrupt has come: nothing is armed any more.
    pub fn overflow_came(&mut self) {
        (self.gear.armed, self.gear.quiet) = (None, 0);
    }

    /// The guest has come to its end in a replay: what the log has for this moment is the recording's end, if they are alike.
    pub fn end_replay(&mut self, on: &mut Active<'_>) {
        let Tape::Replaying(replaying) = &self.tape else { return };
        if replaying.ended.is_none() {
            self.note_registers(on);
            self.apply_due(on, Moment::AfterExit);
        }
        let at = self.whereabouts(on);
        if let Tape::Replaying(replaying) = &mut self.tape {
            replaying.end(Ended::Early(at));
        }
        // Nothing of a landing stays behind.
        self.run_as(on, Run::Free);
    }
}
