//! Differences between this host and others, made on purpose by seed: whatever they do, a replay must not see them.

use crate::arch::alarm::{self, Alarm};
use crate::arch::time;
use replay::seed::Seed;

/// The longest time until the host interrupts a guest for nothing, nanoseconds.
const LONGEST_PAUSE: u64 = 3_000_000;

/// The shortest time that the preemption timer is set for, nanoseconds.
const SHORTEST_RUN: u64 = 5_000;

/// What makes this host different.
pub struct Variation {
    seed: Seed,
}

impl Variation {
    /// The differences of this seed.
    pub const fn new(seed: u64) -> Self {
        Self { seed: Seed::new(seed) }
    }

    /// The time that the preemption timer is set for instead of `ahead`, nanoseconds: shorter, now and then much shorter.
    pub fn timer(&mut self, ahead: u64) -> u64 {
        let longest = if self.seed.below(4) == 0 { ahead.min(50_000) } else { ahead };
        SHORTEST_RUN + self.seed.below(longest.max(1))
    }

    /// Has an interrupt of the host come soon: none of the guest's business.
    pub fn interrupt_soon(&mut self) {
        let after = 1_000 + self.seed.below(LONGEST_PAUSE);
        alarm::set(Alarm::Variation, Some(time::now_ns() + after));
    }

    /// The page of the guest's memory, of so many, that is to be taken out of its reach now, if any.
    pub fn page_to_take(&mut self, pages: u64) -> Option<u64> {
        self.seed.one_in(2).then(|| self.seed.below(pages))
    }
}
