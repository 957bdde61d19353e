//! The guest of a pair: what the primary lets out and when, what the backup waits for, and how either goes on alone.

use super::board::{Board, reason};
use super::replaying::Ended;
use super::tape::{Here, Tape};
use crate::arch::time;
use crate::network::service;
use crate::pair::{Ends, Link, Turn};
use crate::vcpu::Active;
use crate::{duties, machine_line};
use ft::pair::Event as PairEvent;
use replay::log::entry::Event;

/// While the guest stands still, the pair is looked at at least as often, nanoseconds.
const STANDS_NS: u64 = 1_000_000;

/// Standing still for less than this is only what sending has cost, nanoseconds.
const STOOD_NS: u64 = 100_000;

/// How long the last words to the peer may take, nanoseconds.
const FAREWELL_NS: u64 = 50_000_000;

/// What the backup's wait for its log has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// There is more of it.
    More,
    /// There will be no more, and this host goes on alone.
    Live,
    /// There will be no more.
    Over,
}

/// Waits for an interrupt while the guest does not run. Cards that are held back for the guest's sake are looked at first.
pub fn idle(until: Option<u64>) {
    if !service::call_held() {
        time::wait_for_interrupt(duties::ALL, until);
    }
}

impl Board {
    /// Lends the link what it reaches of the guest. Nothing where there is no pair.
    pub fn with_link<R>(
        &mut self,
        drained: bool,
        act: impl FnOnce(&mut Link, &mut Ends<'_>) -> R,
    ) -> Option<R> {
        // Out of its place while it looks at the board.
        let mut link = self.pair.take()?;
        let (virtual_ns, ran_ns) = (self.busy_ns(), self.ran_ns());
        let halted = self.here == Here::Halted;
        let (journal, stream) = match &mut self.tape {
            Tape::Off => (None, None),
            Tape::Recording(recording) => (Some(recording.journal_mut()), None),
            Tape::Replaying(replaying) => (None, replaying.replayer.source_mut().channel()),
        };
        let outside = Some(&mut self.outside);
        let result =
            act(&mut link, &mut Ends { journal, stream, outside, virtual_ns, ran_ns, drained, halted });
        self.pair = Some(link);
        Some(result)
    }

    /// Serves the pair; what it tells. `drained`: the guest has executed all of the log that there is.
    fn take_turn(&mut self, drained: bool) -> Option<Turn> {
        duties::take(duties::LOG);
        let turn = self.with_link(drained, Link::serve).flatten();
        self.note_ordered();
        turn
    }

    /// Does what is due for the pair: lets bytes and heartbeats come and go, and follows what comes of it. Says why the guest
    /// cannot go on, if so.
    pub fn serve_pair(&mut self) -> Option<&'static str> {
        match self.take_turn(false)? {
            Turn::Solo => {
                self.go_solo();
                None
            }
            // The backup asks for this itself, where its log has ended.
            Turn::Live | Turn::Ended => None,
            Turn::Halted => Some(reason::LOST),
        }
    }

    /// Serves the pair if it has something to do.
    pub fn look_at_pair(&mut self) {
        if self.pair.is_some()
            && duties::pending() & duties::LOG != 0
            && let Some(why) = self.serve_pair()
        {
            self.stop(why);
        }
    }

    /// What the guest has sent and no entry covers yet gets one, if it is time for it; `now`: it is. To be called where
    /// something can be recorded.
    #[cold]
    pub fn cover_outputs(&mut self, now: bool) {
        if !now && !self.outside.is_urgent(time::now_ns()) {
            return;
        }
        if !matches!(self.tape, Tape::Recording(_)) {
            return;
        }
        let frame = self.outside.has_open_frame();
        self.record(&Event::Output);
        let mark = self.mark();
        let Tape::Recording(recording) = &mut self.tape else { return };
        let position = recording.journal_mut().flush(&mark);
        self.outside.cover(position);
        // The log first: all that can wait does.
        let on_wire = self.with_link(false, |link, ends| link.hurry(ends)).flatten();
        if frame {
            self.outside.to_wire.end(on_wire.unwrap_or(0));
        }
    }

    /// Sends the log to the backup, and has the guest stand still where it must. Says why the guest cannot go on, if so.
    pub fn send_to_backup(&mut self) -> Option<&'static str> {
        let halted = self.here == Here::Halted;
        let before = time::now_ns();
        let mut stands = false;
        loop {
            let mark = self.mark();
            let Tape::Recording(recording) = &mut self.tape else {
                // Alone: only heartbeats are left.
                self.look_at_pair();
                break;
            };
            if !recording.journal_mut().send(&mark, halted) {
                return Some(reason::NO_LOG);
            }
            let pushed = recording.journal().bytes().0;
            if stands || duties::pending() & duties::LOG != 0 {
                if let Some(why) = self.serve_pair() {
                    return Some(why);
                }
            } else if self.pair.as_ref().is_some_and(|link| link.is_behind(pushed)) {
                self.with_link(false, Link::hurry);
            }
            let Tape::Recording(recording) = &self.tape else { break };
            if recording.journal().has_room() && self.outside.has_room() {
                break;
            }
            stands = true;
            idle(Some(time::now_ns() + STANDS_NS));
        }
        let stood = time::now_ns() - before;
        if stands && !halted && stood > STOOD_NS {
            self.time.stand(stood);
        }
        if halted { None } else { self.keep_pace() }
    }

    /// The backup's guest has executed all that has arrived: it waits for more.
    pub fn await_log(&mut self, on: &mut Active<'_>) -> Awaited {
        loop {
            if self.pair.is_none() {
                return Awaited::Over;
            }
            let before = self.received();
            match self.take_turn(true) {
                Some(Turn::Live) => {
                    self.go_live(on);
                    return Awaited::Live;
                }
                Some(Turn::Halted) => {
                    self.stop(reason::LOST);
                    return Awaited::Over;
                }
                Some(Turn::Ended) => return Awaited::Over,
                Some(Turn::Solo) | None => {}
            }
            if self.received() != before {
                return Awaited::More;
            }
            self.serve_aside(on);
            if self.stop_verdict().is_some() {
                return Awaited::Over;
            }
            idle(None);
        }
    }

    /// Bytes of the log that have arrived on the channel.
    fn received(&mut self) -> u64 {
        let Tape::Replaying(replaying) = &mut self.tape else { return 0 };
        replaying.replayer.source_mut().channel().map_or(0, |stream| stream.received())
    }

    /// The backup is the virtual machine from here on: clock, devices, processor.
    fn go_live(&mut self, on: &mut Active<'_>) {
        self.leave_log(on);
        self.time.take_over();
        self.corrected = self.time.real();
        // What the cards have received meanwhile was the primary's to take.
        self.discard_frames();
        self.outside.go_out(time::now_ns());
        self.set_alarm(on, self.time.now());
        self.changed = true;
        duties::HOST.raise(duties::NETWORK | duties::LOG);
        self.keep_paused();
        self.tell_alone("live");
    }

    /// The primary has no backup any more, and nothing waits for one.
    fn go_solo(&mut self) {
        self.tape = Tape::Off;
        self.outside.go_out(time::now_ns());
        self.tell_alone("alone");
    }

    fn tell_alone(&self, how: &str) {
        let (n, now, out) = (self.time.instructions(), self.time.now(), self.outside.counters);
        machine_line!(
            "pair event=guest-{how} instructions={n} virtual-ns={now} console={} frames={} ns={}",
            out.console,
            out.frames,
            time::now_ns()
        );
    }

    /// What has come to the guest's cards is not for it; heartbeats are taken out.
    pub fn discard_frames(&mut self) {
        duties::take(duties::NETWORK);
        let Self { outside, pair, .. } = self;
        for bridge in outside.bridges.iter_mut().flatten() {
            bridge.poll(&mut |frame| {
                if let Some(link) = pair
                    && link.takes(frame)
                {
                    duties::HOST.raise(duties::LOG);
                }
                true
            });
        }
    }

    /// Whether a frame from outside is a heartbeat, and nothing for the guest.
    pub fn is_heartbeat(&mut self, frame: &[u8]) -> bool {
        let ours = self.pair.as_mut().is_some_and(|link| link.takes(frame));
        if ours {
            duties::HOST.raise(duties::LOG);
        }
        ours
    }

    /// The primary's guest has ended, and the log's last entry says so: the backup has to know before this host may leave.
    pub fn end_on_both(&mut self) {
        let mark = self.mark();
        let Tape::Recording(recording) = &mut self.tape else { return };
        let Some(position) = recording.journal_mut().close_log(&mark) else { return };
        self.outside.cover(position);
        self.with_link(false, |link, ends| {
            link.tell(PairEvent::GuestEnded, ends);
            link.tell(PairEvent::LogClosed(position), ends);
        });
        while self.pair.as_ref().is_some_and(|link| !link.is_over()) {
            self.take_turn(false);
            time::wait_for_interrupt(duties::ALL, Some(time::now_ns() + STANDS_NS));
            // Nobody serves them any more.
            duties::take(!0);
        }
        // Only who has won, or whose backup knows, lets its last words out.
        if self.pair.as_ref().is_some_and(|link| link.halted().is_none()) {
            self.outside.go_out(time::now_ns());
        }
    }

    /// The run is over: the peer is told what is left to be told.
    pub fn leave_pair(&mut self) {
        let event = match &self.tape {
            Tape::Replaying(replaying) => match replaying.ended {
                Some(Ended::Equal(_)) => PairEvent::LogEnded,
                _ => PairEvent::Trouble,
            },
            Tape::Off | Tape::Recording(_) => PairEvent::GuestEnded,
        };
        self.with_link(true, |link, ends| {
            if !link.is_over() {
                link.tell(event, ends);
            }
        });
        let until = time::now_ns() + FAREWELL_NS;
        while self.pair.is_some() && time::now_ns() < until {
            self.take_turn(true);
            duties::take(!0);
            time::wait_for_interrupt(duties::ALL, Some(time::now_ns() + STANDS_NS));
        }
    }
}
