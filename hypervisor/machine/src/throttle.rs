//! How often a network card may interrupt its host, and a driver notify its device: as often as they like while they do so seldom, and at
//! even distances under load, so that one time brings what several would have.
//!
//! A bucket of [`BURST`] interrupts that refills by one each [`GAP_NS`] (the generic cell rate algorithm of ITU-T I.371): a
//! request and its answer, or some dozens of them, are not delayed at all.

use serde::{Deserialize, Serialize};

/// Under load one interrupt in so many nanoseconds.
const GAP_NS: u64 = 200_000;

/// So many interrupts may come at once after a while of rest.
const BURST: u64 = 16;

/// How much may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Under load one in so many nanoseconds.
    pub gap_ns: u64,
    /// So many at once after a while of rest.
    pub burst: u64,
}

impl Pace {
    /// Of a card's interrupts, and of a driver's notifications.
    pub const CARD: Self = Self { gap_ns: GAP_NS, burst: BURST };
}

/// The bucket of one card.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttle {
    /// When the bucket is full again, nanoseconds.
    full_at: u64,
}

impl Throttle {
    /// An interrupt has come, or a notification, and brought something. When the next one may, nanoseconds; `None`: at once.
    pub const fn next(&mut self, now: u64) -> Option<u64> {
        self.next_at(now, Pace::CARD)
    }

    /// The same at another pace; a bucket has one.
    pub const fn next_at(&mut self, now: u64, pace: Pace) -> Option<u64> {
        let Pace { gap_ns, burst } = pace;
        let from = if self.full_at > now { self.full_at } else { now };
        // However many have come, the next one waits for one gap at most.
        let most = now.saturating_add((burst + 1) * gap_ns);
        let full_at = from.saturating_add(gap_ns);
        self.full_at = if full_at < most { full_at } else { most };
        let at = self.full_at.saturating_sub(burst * gap_ns);
        if at <= now {
            return None;
        }
        // All cards at the same times: one exit of a guest serves them all.
        let early = at % gap_ns;
        Some(if at - early > now { at - early } else { (at - early).saturating_add(gap_ns) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn what_is_seldom_never_waits() {
        let mut throttle = Throttle::default();
        assert!((0..1000).all(|n| throttle.next(n * GAP_NS).is_none()));
    }

    #[test]
    fn a_burst_passes_and_what_follows_keeps_its_distance() {
        let mut throttle = Throttle::default();
        let mut now = 5_000_000;
        assert!((0..BURST).all(|_| throttle.next(now).is_none()));
        let mut times = Vec::new();
        for _ in 0..100 {
            let at = throttle.next(now).expect("the bucket is empty");
            assert!(at > now);
            // It is looked at a little late.
            now = at + 1_000;
            times.push(at);
        }
        let mean = (times[99] - times[0]) / 99;
        assert!((GAP_NS - GAP_NS / 50..=GAP_NS + GAP_NS / 50).contains(&mean), "{mean}");
    }

    #[test]
    fn another_pace_has_another_gap_and_burst() {
        let (mut throttle, pace) = (Throttle::default(), Pace { gap_ns: 3 * GAP_NS, burst: 4 });
        let mut now = 5_000_000;
        assert!((0..4).all(|_| throttle.next_at(now, pace).is_none()));
        for _ in 0..20 {
            let at = throttle.next_at(now, pace).expect("the bucket is empty");
            assert!(at > now && at <= now + 3 * GAP_NS && at.is_multiple_of(3 * GAP_NS), "{now}: {at}");
            now = at;
        }
    }

    #[test]
    fn rest_fills_the_bucket_again_and_no_further() {
        let mut throttle = Throttle::default();
        for _ in 0..40 {
            throttle.next(0);
        }
        assert_eq!(throttle.next(1_000), Some(GAP_NS), "no longer than a gap");
        let now = 1_000_000_000;
        assert_eq!((0..100).take_while(|_| throttle.next(now).is_none()).count() as u64, BURST);
        assert!(throttle.next(u64::MAX).is_none(), "no overflow");
    }
}
