//! The pace of a primary's guest: it stands still for a part of the time while the backup is too far behind.

use super::board::Board;
use super::pairing::idle;
use super::tape::Tape;
use crate::arch::time;
use crate::machine_line;
use ft::histogram::Histogram;
use ft::lag::FULL;

/// What the guest has run since it stood last counts for no more than this, nanoseconds.
const RAN_NS: u64 = 8_000_000;

/// It stands for no longer than this at a time, nanoseconds: what is in a hurry on the guest's network does not notice it.
const STAND_NS: u64 = 20_000_000;

/// While it has to stand now and then, so often that is said, nanoseconds.
const SAY_NS: u64 = 1_000_000_000;

/// While it stands, the pair is looked at at least as often, nanoseconds.
const LOOK_NS: u64 = 1_000_000;

/// When a guest stood still, and for how long.
#[derive(Default)]
pub struct Pace {
    /// Its busy virtual time when it was looked at last, nanoseconds.
    ran: u64,
    /// How long it stood each time, nanoseconds.
    stands: Histogram,
    total: u64,
    /// When that was said last, nanoseconds of the host.
    said: u64,
}

impl Board {
    /// Virtual time without what the halted guest has skipped, nanoseconds: what there was to be executed.
    pub fn busy_ns(&self) -> u64 {
        self.time.now().saturating_sub(self.idle)
    }

    /// How long the guest has run, nanoseconds of the host: neither halted nor held back.
    pub fn ran_ns(&self) -> u64 {
        self.stands.unwrap_or(self.time.real()).saturating_sub(self.slept)
    }

    /// The guest's share of the time if it is not all of it, in 1/1024.
    fn small_share(&self) -> Option<u64> {
        let share = self.pair.as_ref().filter(|_| matches!(self.tape, Tape::Recording(_)))?.share();
        (share < FULL).then_some(share.into())
    }

    /// Has a running guest stand still as long as it has to after what it has run. Says why it cannot go on, if so.
    pub fn keep_pace(&mut self) -> Option<&'static str> {
        let busy = self.busy_ns();
        let ran = busy.saturating_sub(core::mem::replace(&mut self.pace.ran, busy)).min(RAN_NS);
        self.small_share()?;
        let since = time::now_ns();
        self.stands = Some(self.time.real());
        let mut why = None;
        while let Some(share) = self.small_share() {
            let until = since.saturating_add((ran * (u64::from(FULL) - share) / share).min(STAND_NS));
            let now = time::now_ns();
            if now >= until {
                break;
            }
            idle(Some(until.min(now + LOOK_NS)));
            why = self.serve_pair();
            if why.is_some() {
                break;
            }
        }
        let now = time::now_ns();
        let stood = now - since;
        self.time.stand(stood);
        self.stands = None;
        self.pace.stands.record(stood);
        self.pace.total += stood;
        if now.saturating_sub(self.pace.said) >= SAY_NS {
            self.pace.said = now;
            self.tell_pace();
        }
        why
    }

    /// Says how far the backup was behind, and what the guest stood still for it.
    pub fn tell_pace(&self) {
        let Some(link) = &self.pair else { return };
        let (lags, stands) = (link.lags(), &self.pace.stands);
        machine_line!(
            "pair-lag target-ns={} lag-ns={} share={} acks={} median-ns={} p99-ns={} most-ns={} stands={} stood-ns={} longest-ns={}",
            link.lag_target_ns(),
            link.lag_ns(),
            link.share(),
            lags.count(),
            lags.quantile(500),
            lags.quantile(990),
            lags.most(),
            stands.count(),
            self.pace.total,
            stands.most()
        );
    }
}
