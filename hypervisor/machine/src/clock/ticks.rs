//! Counters that run at a fixed frequency, as integer functions of the one virtual clock, so that all of them agree.

use crate::context::Instant;

/// Nanoseconds of a second.
pub const SECOND: u64 = 1_000_000_000;

/// How often a counter of `HZ` hertz, at 0 at power-on, has ticked by then. Divides by constants only.
#[inline]
pub const fn ticks<const HZ: u32>(now: Instant) -> u64 {
    // The second product is below 2^32 * 10^9 < 2^62; the first wraps only for absurd instants (beyond 4 years at 4 GHz
    // times 2^32), and a counter wraps then as well.
    (now / SECOND).wrapping_mul(HZ as u64).wrapping_add(now % SECOND * HZ as u64 / SECOND)
}

/// The first instant at which [`ticks`] is at least `tick`; the far end of time where that lies beyond it.
#[inline]
pub const fn instant_of<const HZ: u32>(tick: u64) -> Instant {
    let hz = HZ as u64;
    (tick / hz).saturating_mul(SECOND).saturating_add((tick % hz * SECOND).div_ceil(hz))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PIT: u32 = 1_193_182;

    #[test]
    fn a_second_has_as_many_ticks_as_the_frequency_says() {
        assert_eq!(ticks::<PIT>(SECOND), 1_193_182);
        assert_eq!(ticks::<PIT>(SECOND - 1), 1_193_181);
        assert_eq!(ticks::<3_579_545>(3600 * SECOND), 3600 * 3_579_545);
        assert_eq!(instant_of::<1_000_000_000>(77), 77);
        assert_eq!(instant_of::<PIT>(u64::MAX), u64::MAX, "saturates");
    }

    proptest! {
        #[test]
        fn the_instant_of_a_tick_is_the_first_that_has_it(tick in 1_u64..1 << 54) {
            let at = instant_of::<PIT>(tick);
            prop_assert_eq!(ticks::<PIT>(at), tick);
            prop_assert_eq!(ticks::<PIT>(at - 1), tick - 1);
        }

        #[test]
        fn ticks_are_exact(now in any::<u64>()) {
            let exact = (u128::from(now) * u128::from(PIT) / u128::from(SECOND)) as u64;
            prop_assert_eq!(ticks::<PIT>(now), exact);
        }
    }
}
