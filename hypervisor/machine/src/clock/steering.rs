//! How the primary keeps virtual time at real time: it measures how long a count takes and makes records for the clock.
//!
//! The rate follows the measured pace of the guest. It is kept within [`SPREAD`] of the fastest pace seen lately, so that
//! a guest that suddenly retires much faster cannot run its clock far ahead before the next look: a clock that is ahead can only be
//! slowed, one that is behind can step. What is missing for that reason, and what a stall of the host has cost, is caught up
//! by steps, at most as much as real time passes: twice the speed of real time.

use super::{Correction, MAX_RATE, MAX_STEP, MIN_RATE, NANOSECOND};

/// Real time between two looks, nanoseconds.
const LOOK: u64 = 500_000;
/// An error that needs no record, nanoseconds.
const TOLERANCE: u64 = 100_000;
/// Errors below this are worked off gently, within [`GENTLE`], nanoseconds.
const SMALL: u64 = 400_000;
/// The time in which a small error goes away, nanoseconds: long, so that the rate need not be put back at once.
const GENTLE: u64 = 64_000_000;
/// From this error on steps help (behind), or the clock is at its slowest (ahead), nanoseconds.
const HORIZON: u64 = 2_000_000;
/// A rate is at most this many times the fastest pace seen lately.
const SPREAD: u64 = 8;
/// A shorter time of execution measures no pace, nanoseconds.
const MEASURABLE: u64 = 200_000;
/// A longer time between two looks was a stall of the host and measures no pace, nanoseconds.
const STALL: u64 = 50_000_000;
/// The fastest pace is forgotten in about this time, nanoseconds.
const MEMORY: u64 = 8_000_000_000;
/// How much faster than its clock a processor may turn out to be: instructions per cycle.
const QUICKER: u64 = 4;
/// The fastest pace that is reckoned with where nothing is known of the host: 4 counts per nanosecond.
const GUESS: u64 = NANOSECOND / 4;

/// Binary digits of a rate and of a step: records are short then, and what is rounded off is made up for by the next.
const RATE_DIGITS: u32 = 12;
const STEP_DIGITS: u32 = 9;

/// The number, rounded down to so many binary digits.
const fn rounded(number: u64, digits: u32) -> u64 {
    let excess = (u64::BITS - number.leading_zeros()).saturating_sub(digits);
    number >> excess << excess
}

/// What the primary knows about real time.
#[derive(Clone, Debug)]
pub struct Steering {
    /// The real time before which a look is pointless, nanoseconds.
    next: u64,
    /// The last look.
    last: Option<Look>,
    /// Virtual nanoseconds skipped by a halted guest since the last look.
    idle: u64,
    /// Smoothed pace, nanoseconds per count, 32.32 fixed point; 0: not known.
    pace: u64,
    /// The fastest pace seen lately, same unit.
    fastest: u64,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    count: u64,
    now: u64,
    real: u64,
}

impl Steering {
    pub const fn new() -> Self {
        Self { next: 0, last: None, idle: 0, pace: 0, fastest: GUESS }
    }

    /// For a host whose processor takes about this long for a count: 32.32 fixed point. It may be [`QUICKER`] times as fast.
    pub const fn expecting(pace: u64) -> Self {
        let fastest = pace / QUICKER;
        Self { fastest: if fastest < MIN_RATE { MIN_RATE } else { fastest }, ..Self::new() }
    }

    #[inline]
    pub const fn due(&self, real: u64) -> bool {
        real >= self.next
    }

    pub const fn idled(&mut self, nanoseconds: u64) {
        self.idle = self.idle.saturating_add(nanoseconds);
    }

    /// One look at real time.
    pub fn correct(&mut self, count: u64, now: u64, real: u64, rate: u64) -> Option<Correction> {
        let look = Look { count, now, real };
        self.next = real.saturating_add(LOOK);
        let last = self.last.replace(look)?;
        let idle = core::mem::take(&mut self.idle);
        let elapsed = real.saturating_sub(last.real);
        self.measure(count.saturating_sub(last.count), elapsed, idle);
        if self.pace == 0 {
            return None;
        }

        let wanted = self.wanted_rate(now, real, elapsed);
        let behind = real.saturating_sub(now);
        let step = if behind < HORIZON {
            0
        } else {
            // No more than makes virtual time pass twice as fast as real time.
            let room = elapsed.saturating_mul(2).saturating_sub(now.saturating_sub(last.now));
            rounded(behind.min(room).min(u64::from(MAX_STEP)), STEP_DIGITS) as u32
        };
        // What the step adds is no progress of the time after it.
        self.last = Some(Look { now: now.saturating_add(u64::from(step)), ..look });
        let close = real.abs_diff(now) <= TOLERANCE && rate.abs_diff(wanted) <= rate / 16;
        let same = rate == wanted;
        (step != 0 || !close && !same).then_some(Correction { rate: wanted, step })
    }

    /// How long a count took since the last look.
    fn measure(&mut self, counts: u64, elapsed: u64, idle: u64) {
        let busy = elapsed.saturating_sub(idle);
        if busy < MEASURABLE || elapsed > STALL {
            return;
        }
        // Busy time is at most STALL here, so the shift keeps it.
        let pace = (busy << 32).checked_div(counts).unwrap_or(MAX_RATE).clamp(MIN_RATE, MAX_RATE);
        self.pace = match self.pace {
            0 => pace,
            old if pace < old / 2 => pace,
            // Faster is believed sooner than slower: a clock that is ahead is worse than one that is behind.
            old if pace < old => old - (old - pace) / 2,
            old => old + (pace - old) / 4,
        };
        // A rate is below 2^42 and an unstalled time below 2^26: no product overflows.
        let forgotten = self.fastest / 1024 * elapsed / (MEMORY / 1024);
        self.fastest = (self.fastest + forgotten).min(pace).min(MAX_RATE);
    }

    /// The rate until the next look, which is expected after as long as this one came after the last.
    fn wanted_rate(&self, now: u64, real: u64, elapsed: u64) -> u64 {
        // A large error goes away until the next look, and no sooner: the clock would swing about real time.
        let span = elapsed.clamp(HORIZON, STALL);
        let (behind, error) = (real >= now, real.abs_diff(now).min(span));
        // Per 65536 of the pace: at most a quarter faster, or an eighth of it.
        let share = match behind {
            _ if error < SMALL => {
                let part = 65_536 * error / GENTLE;
                if behind { 65_536 + part } else { 65_536 - part }
            }
            true => 65_536 + (32_768 * error / span).min(16_384),
            false => 65_536 - (65_536 * error / span).min(57_344),
        };
        let limit = self.fastest.saturating_mul(SPREAD).min(MAX_RATE);
        rounded((self.pace * share / 65_536).min(limit).max(MIN_RATE), RATE_DIGITS)
    }
}
