//! The local APIC's timer (SDM 3A, 12.5.4): one-shot, periodic and TSC-deadline.
//!
//! It counts the 25 MHz crystal that CPUID 15h tells of: exactly 40 ns of virtual time. Nothing ticks: the timer is the moment at which
//! it will expire.

use serde::{Deserialize, Serialize};

use crate::context::Instant;

/// Nanoseconds of a crystal tick.
pub const CRYSTAL: u64 = 40;
/// Periodic expiries that come closer than this are one, nanoseconds: more interrupts than that no guest can take.
const TOGETHER: u64 = 10_000;

/// Modes (LVT timer register, bits 18:17).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Once.
    OneShot,
    /// Again and again.
    Periodic,
    /// At a value of the time-stamp counter.
    Deadline,
    /// The reserved encoding: nothing happens.
    Reserved,
}

impl Mode {
    /// The mode in this LVT entry.
    pub const fn of(entry: u32) -> Self {
        match entry >> 17 & 3 {
            0 => Self::OneShot,
            1 => Self::Periodic,
            2 => Self::Deadline,
            _ => Self::Reserved,
        }
    }
}

/// The timer's registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Initial count.
    pub initial: u32,
    /// Divide configuration register.
    pub divide: u32,
    /// When it expires next.
    pub expiry: Option<Instant>,
}

impl State {
    /// Nanoseconds of a count as a shift: bits 3, 1 and 0 of the register; 7 is 1, else 2, 4, ... 128.
    fn shift(&self) -> u32 {
        let value = self.divide & 3 | self.divide >> 1 & 4;
        (value + 1) & 7
    }

    fn nanoseconds(&self, counts: u32) -> u64 {
        (u64::from(counts) * CRYSTAL) << self.shift()
    }

    /// The current count.
    pub fn current(&self, now: Instant) -> u32 {
        let left = self.expiry.map_or(0, |expiry| expiry.saturating_sub(now));
        let counts = left.div_ceil(CRYSTAL);
        counts.div_ceil(1 << self.shift()) as u32
    }

    /// Writes the initial count: the timer starts, or stops for 0.
    pub fn set_initial(&mut self, initial: u32, now: Instant) {
        self.initial = initial;
        self.expiry = (initial != 0).then(|| now.saturating_add(self.nanoseconds(initial)));
    }

    /// A new divisor: what is left of the count goes on at the new pace.
    pub fn set_divide(&mut self, divide: u32, now: Instant, mode: Mode) {
        let left = self.current(now);
        self.divide = divide;
        if mode != Mode::Deadline && self.expiry.is_some() {
            self.expiry = Some(now.saturating_add(self.nanoseconds(left)));
        }
    }

    /// Whether it has expired by now, in this mode; sets up the next period.
    pub fn expired(&mut self, now: Instant, mode: Mode) -> bool {
        let Some(expiry) = self.expiry.filter(|expiry| *expiry <= now) else { return false };
        let period = self.nanoseconds(self.initial);
        self.expiry = match mode {
            Mode::Periodic if period >= TOGETHER && now - expiry < period => expiry.checked_add(period),
            Mode::Periodic if period != 0 => {
                // Several periods at once: the next is the first one that is far enough away.
                let passed = (now - expiry).saturating_add(TOGETHER.saturating_sub(period)) / period + 1;
                expiry.checked_add(passed.saturating_mul(period))
            }
            _ => None,
        };
        true
    }
}
