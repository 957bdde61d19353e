//! The guest's one virtual clock: a function of instructions retired and of recorded corrections.
//!
//! Between two records the clock is linear in the count of retired instructions (plus a charge for each emulated exit, which
//! the caller adds). A record changes the slope and may step the clock forward, never back. Whoever has the same records has the
//! same clock at every count: integers only, and nothing of the host.
//!
//! [`steering`] is the primary's part: it looks at the real time and makes the records.

mod steering;
pub mod ticks;

use serde::{Deserialize, Serialize};

use crate::context::Instant;
use crate::devices::BadState;
use steering::Steering;

/// One nanosecond per count, as a rate: 32.32 fixed point.
pub const NANOSECOND: u64 = 1 << 32;
/// The smallest rate: 64 counts per nanosecond.
pub const MIN_RATE: u64 = NANOSECOND / 64;
/// The greatest rate: a microsecond per count.
pub const MAX_RATE: u64 = NANOSECOND * 1000;
/// The most that one record may step the clock forward, nanoseconds.
pub const MAX_STEP: u32 = 10_000_000;

/// A correction of the clock, recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Correction {
    /// Nanoseconds per counted instruction from now on, 32.32 fixed point, [`MIN_RATE`] to [`MAX_RATE`].
    pub rate: u64,
    /// Nanoseconds by which the clock steps forward now, at most [`MAX_STEP`].
    pub step: u32,
}

/// What the clock is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The count at the last record.
    pub count: u64,
    /// The virtual time at the last record, nanoseconds...
    pub nanoseconds: Instant,
    /// ...and 2^-32 nanoseconds.
    pub fraction: u32,
    /// Nanoseconds per count, 32.32 fixed point.
    pub rate: u64,
}

/// The virtual clock.
#[derive(Clone, Debug)]
pub struct VirtualClock {
    state: State,
    steering: Steering,
}

impl VirtualClock {
    /// A clock at 0 that takes a nanosecond per count until it is corrected.
    pub const fn new() -> Self {
        Self::with(State { count: 0, nanoseconds: 0, fraction: 0, rate: NANOSECOND })
    }

    /// A clock at 0 on a host whose processor takes about this long for a count: nanoseconds, 32.32 fixed point. It goes at
    /// that rate until it is corrected, and steering reckons with it.
    pub const fn expecting(pace: u64) -> Self {
        let rate = if pace < MIN_RATE { MIN_RATE } else { pace };
        let rate = if rate > MAX_RATE { MAX_RATE } else { rate };
        let state = State { count: 0, nanoseconds: 0, fraction: 0, rate };
        Self { state, steering: Steering::expecting(rate) }
    }

    const fn with(state: State) -> Self {
        Self { state, steering: Steering::new() }
    }

    /// The deterministic state: what the primary knows about real time is not part of it.
    pub fn save(&self) -> State {
        self.state.clone()
    }

    /// The clock that was saved.
    ///
    /// # Errors
    /// [`BadState`] for a rate out of bounds.
    pub fn restore(state: State) -> Result<Self, BadState> {
        if !(MIN_RATE..=MAX_RATE).contains(&state.rate) {
            return Err(BadState("the clock's rate is out of bounds"));
        }
        Ok(Self::with(state))
    }

    /// Virtual time at this count: instructions that the guest has retired plus the charges of its exits. The count never
    /// goes back; a count before the last record gets the time of the record.
    #[inline]
    pub const fn now(&self, count: u64) -> Instant {
        let State { count: base, nanoseconds, fraction, rate } = self.state;
        let passed = count.saturating_sub(base) as u128 * rate as u128 + fraction as u128;
        nanoseconds.saturating_add((passed >> 32) as u64)
    }

    /// The first count at which [`now`](Self::now) has reached the deadline, as long as nothing is recorded.
    pub fn count_at(&self, deadline: Instant) -> u64 {
        let State { count, nanoseconds, fraction, rate } = self.state;
        let Some(ahead) = deadline.checked_sub(nanoseconds) else { return count };
        let counts = match u32::try_from(ahead) {
            // One division; everything within four seconds of the last record.
            Ok(near) => (u64::from(near) << 32).saturating_sub(u64::from(fraction)).div_ceil(rate),
            Err(_) => {
                let exact = ((u128::from(ahead) << 32) - u128::from(fraction)).div_ceil(u128::from(rate));
                u64::try_from(exact).unwrap_or(u64::MAX)
            }
        };
        count.saturating_add(counts)
    }

    /// The primary only, at an exit, with the nanoseconds of real time that the guest should have seen since its power-on: the
    /// record, if one is due, that brings virtual time back to it. The caller logs it and gives it to
    /// [`apply`](Self::apply), as the backup does. Call it every few milliseconds while the guest runs; calls that come sooner
    /// than half a millisecond after the last cost a comparison.
    #[inline]
    pub fn correct(&mut self, count: u64, real: u64) -> Option<Correction> {
        if !self.steering.due(real) {
            return None;
        }
        let now = self.now(count);
        self.steering.correct(count, now, real, self.state.rate)
    }

    /// Takes a record at this count. A record that no primary makes is brought within bounds.
    pub fn apply(&mut self, count: u64, correction: &Correction) {
        self.rebase(count);
        self.state.rate = correction.rate.clamp(MIN_RATE, MAX_RATE);
        let step = correction.step.min(MAX_STEP);
        self.state.nanoseconds = self.state.nanoseconds.saturating_add(u64::from(step));
    }

    /// A halted guest goes on at this virtual time, or now if that has passed. Returns the time.
    pub fn jump(&mut self, count: u64, to: Instant) -> Instant {
        self.rebase(count);
        if let Some(idle) = to.checked_sub(self.state.nanoseconds) {
            self.steering.idled(idle);
            self.state.nanoseconds = to;
        }
        self.state.nanoseconds
    }

    /// Makes this count the one from which the time is reckoned, exactly.
    fn rebase(&mut self, count: u64) {
        let state = &mut self.state;
        let passed = u128::from(count.saturating_sub(state.count)) * u128::from(state.rate)
            + u128::from(state.fraction);
        state.nanoseconds = state.nanoseconds.saturating_add((passed >> 32) as u64);
        state.fraction = passed as u32;
        state.count = state.count.max(count);
    }
}

impl Default for VirtualClock {
    fn default() -> Self {
        Self::new()
    }
}
