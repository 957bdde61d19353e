//! The guest runs by this host's time and takes in what comes to this host: unprotected, or recorded. Everything that comes in
//! passes [`Board::take_in`].

use super::board::Board;
use super::operator::Desk;
use super::pairing::idle;
use super::tape::{Here, Tape};
use crate::arch::time;
use crate::vcpu::{Active, Verdict};
use crate::{duties, terminal};
use machine::context::Instant;
use replay::log::entry::{Correction, Event};

/// A halted guest that is woken by time goes on at the moment that it waited for, unless it is later by more than this,
/// nanoseconds: a record that says "then" is the shortest.
const PUNCTUAL: u64 = 50_000;

/// Within so many ticks of the preemption timer the guest gets behind a delivery, or through a window. With 1 it might never: a
/// single-step trap behind MOV SS is delivered after the next instruction only, and a timer that has run out at the entry comes before
/// that.
const AFTER_DELIVERY: u32 = 1000;

/// How long the clock's correction waits for something that is due, nanoseconds.
const LONE_CORRECTION: u64 = 16_000_000;

/// How long something that has come waits for the end of a repeated instruction, nanoseconds: behind it is the better place, where a
/// replay has a breakpoint to land by. In the midst of it the replay steps through what it arms its overflow interrupt early by.
const PATIENCE: u64 = 1_000_000;

impl Board {
    /// The primary's part before an entry. `exit`: the last exit was a synchronous one.
    pub fn lead(&mut self, on: &mut Active<'_>, exit: bool) -> Verdict {
        if self.host_exit || self.late {
            self.do_host_work(on, exit);
        }
        if self.computer.due() < self.alarm {
            self.set_alarm(on, self.time.now());
        }
        if exit {
            self.note_exit(on);
            if self.outside.is_open() {
                self.here = Here::AfterExit;
                self.cover_outputs(false);
            }
        }
        if let Some(verdict) = self.stop_verdict() {
            return verdict;
        }
        self.settle(on);
        Verdict::Resume
    }

    /// What came for the host, and the look at the clock.
    #[cold]
    fn do_host_work(&mut self, on: &mut Active<'_>, exit: bool) {
        self.look_at_pair();
        let left_behind = self.end_leaving(on);
        if matches!(self.tape, Tape::Recording(_)) && !self.stands_well(on, exit, left_behind) {
            self.host_exit = true;
            return;
        }
        if let Tape::Recording(recording) = &self.tape {
            self.here = if exit { Here::AfterExit } else { recording.here(on, self.time.instructions()) };
        }
        let timer = core::mem::take(&mut self.timer);
        self.host_exit = false;
        if timer || self.late {
            self.look_at_clock(on);
        }
        if duties::pending() != 0 {
            self.serve_duties(on);
        }
        if self.outside.is_open() {
            self.cover_outputs(false);
        }
        if let Some(why) = self.send_log() {
            self.stop(why);
        }
    }

    /// Whether the guest is where something can be recorded. If not, it will exit soon. `left_behind`: until when it is to wait for
    /// a repeated instruction's end, if it does.
    fn stands_well(&mut self, on: &mut Active<'_>, exit: bool, left_behind: Option<u64>) -> bool {
        if exit {
            return true;
        }
        if on.delivery_is_due() {
            // The delivery goes on with the next entry; this place is one that only this host has been at.
            on.arm_preemption_timer(Some(AFTER_DELIVERY));
            return false;
        }
        let opens = self.computer.interrupts.pending() && on.can_take_interrupt()
            || self.nmi_due && on.can_take_nmi();
        if self.window && opens {
            // The window that was asked for opens right here: a replay is at that exit before it could stop for this entry. A
            // preemption timer that has run out comes before it (SDM vol. 3C, "VMX-Preemption Timer"): it would, at each entry.
            on.arm_preemption_timer(Some(AFTER_DELIVERY));
            return false;
        }
        let unfinished = self.paging.is_unfinished(self.time.instructions(), on);
        if !on.repeats() && !unfinished {
            return true;
        }
        // Within a REP, its end is the better place.
        let now = time::now_ns();
        let until = left_behind.unwrap_or(now + PATIENCE);
        // Where a bit was set for an instruction that is not through, there is no choice.
        if now >= until && !unfinished {
            return true;
        }
        self.leaves_rep = Some(until);
        self.leave_repeated(on, until.saturating_sub(now));
        false
    }

    /// Takes something in, where the guest is now: records it, applies it. Returns how much of it was taken.
    pub fn take_in(&mut self, event: Event<'_>) -> usize {
        if let Tape::Recording(_) = self.tape {
            if self.here == Here::Halted {
                self.catch_up();
            }
            self.record(&event);
        }
        self.apply(&event)
    }

    /// A halted guest's time goes on to the host's before something comes in.
    fn catch_up(&mut self) {
        let now = self.time.now();
        let to = self.time.real().min(self.computer.due());
        if self.time.follows_host() && to > now {
            self.put(&Event::Wake(to - now));
        }
    }

    /// Records an event if there is a recording, and applies it.
    fn put(&mut self, event: &Event<'_>) {
        self.record(event);
        self.apply(event);
    }

    /// Looks at the clock: corrects it, does what is due, and sets the preemption timer for what is due next.
    pub fn look_at_clock(&mut self, on: &mut Active<'_>) {
        let wanted = self.time.now() >= self.computer.due() || self.keeps_backup_waiting();
        let real = self.time.real();
        // A correction that comes with something that is due costs no place in the log of its own.
        let mut correction = None;
        if wanted || real.saturating_sub(self.corrected) >= LONE_CORRECTION {
            correction = self.time.correction().map(|c| Correction { rate: c.rate, step: c.step });
            self.corrected = real;
        }
        if correction.is_some() || wanted {
            self.put(&Event::Look(correction));
        }
        self.set_alarm(on, self.time.now());
    }

    /// Whether the backup can only go on if something is recorded.
    fn keeps_backup_waiting(&self) -> bool {
        matches!(&self.tape, Tape::Recording(recording) if recording.journal().keeps_waiting())
    }

    /// In how long the backup needs a block to go on by, nanoseconds of the host.
    pub fn backup_due(&self) -> Option<u64> {
        let Tape::Recording(recording) = &self.tape else { return None };
        Some(recording.journal().look_due()?.saturating_sub(time::now_ns()))
    }

    /// HLT: waits in real time until something comes that the processor takes. If the loop is to stop before that, the
    /// instruction is executed again afterwards: a guest never leaves HLT without a cause of its own.
    pub fn wait(&mut self, on: &mut Active<'_>) -> Verdict {
        self.here = Here::Halted;
        self.note_registers(on);
        let since = self.time.real();
        self.stands = Some(since);
        let verdict = self.wait_for_cause(on);
        self.stands = None;
        self.slept += self.time.real().saturating_sub(since);
        verdict
    }

    fn wait_for_cause(&mut self, on: &mut Active<'_>) -> Verdict {
        loop {
            self.advance();
            if self.wakes(on) {
                self.time.charge();
                return Verdict::Skip;
            }
            if self.stop_verdict().is_some() {
                (self.exit, self.halt_again) = (false, true);
                return Verdict::Resume;
            }
            if self.outside.is_open() {
                self.cover_outputs(true);
            }
            if let Some(why) = self.send_log() {
                self.stop(why);
            }
            let due = self.computer.due();
            if duties::pending() & duties::OF_GUEST == 0 {
                let until = (due != Instant::MAX).then(|| self.time.host_time_of(due));
                if self.time.follows_host() || until.is_none() {
                    idle(until);
                }
            }
            if due != Instant::MAX {
                self.wake_if_due(due);
            }
            self.serve_duties(on);
        }
    }

    /// The halted guest's time jumps to what it waits for, if that has come.
    fn wake_if_due(&mut self, due: Instant) {
        if !self.time.follows_host() {
            self.put(&Event::WakeAfterDue(0));
        } else if let Some(late) = self.time.real().checked_sub(due) {
            self.put(&Event::WakeAfterDue(if late < PUNCTUAL { 0 } else { late }));
        }
    }

    /// Does what the host has to do beside the guest.
    fn serve_duties(&mut self, on: &mut Active<'_>) {
        let pending = duties::pending();
        if pending & duties::SERIAL != 0 {
            self.obey_peer(on);
            let (exits, cycles) = on.costs();
            terminal::serve(Some(&mut Desk { board: self, exits: &exits, cycles: &cycles }));
        }
        if pending & duties::NETWORK != 0 {
            duties::take(duties::NETWORK);
            self.bring_frames();
        }
    }

    /// Brings in what has arrived on the cards, as far as the guest takes it.
    fn bring_frames(&mut self) {
        for device in 0..self.outside.bridges.len() {
            // Out of its place while it hands frames over: what comes in does not make the guest send at once.
            let Some(mut bridge) = self.outside.bridges[device].take() else { continue };
            let number = device as u8;
            bridge.poll(&mut |frame| self.bring_frame(number, frame));
            if let Some(up) = bridge.link_change() {
                self.take_in(Event::Link { device: number, up });
            }
            self.outside.bridges[device] = Some(bridge);
        }
    }

    /// Brings in a frame. False: the guest has no buffer for it now, and was asked to tell when it has.
    fn bring_frame(&mut self, device: u8, frame: &[u8]) -> bool {
        if self.is_heartbeat(frame) {
            return true;
        }
        // What the guest does not want is no input.
        if !self.computer.pci.wants_frame(device, frame) {
            return true;
        }
        let bit = 1 << (device & 7);
        if !self.has_buffer(device, frame.len()) {
            if self.starved & bit == 0 {
                self.starved |= bit;
                self.take_in(Event::Starved { device });
            }
            return false;
        }
        self.starved &= !bit;
        self.take_in(Event::Frame { device, frame: frame.into() });
        true
    }
}
