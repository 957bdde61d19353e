//! One direction of one cable: delay, rate, and its faults, drawn from its own stream.

use serde::Serialize;

use super::rng::Rng;
use super::time::{Ns, Ppm};

/// Bytes that a frame costs on the wire beyond its own: preamble 8, FCS 4, gap 12 (IEEE 802.3).
const WIRE_OVERHEAD: u64 = 24;
/// Shortest frame on the wire without FCS; shorter ones are padded.
const WIRE_MIN: u64 = 60;
/// Latest that a duplicate follows its original where the cable has no jitter and reorders nothing.
const DUPLICATE_GAP: Ns = 10_000;

/// How a cable behaves; the same for both directions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CableConfig {
    /// Time from one end to the other.
    pub latency: Ns,
    /// Up to this much more, drawn for each frame; frames still arrive in order.
    pub jitter: Ns,
    /// Share of frames that vanish.
    pub loss: Ppm,
    /// Share of frames that arrive twice.
    pub duplicate: Ppm,
    /// Share of frames that are held back and overtaken.
    pub reorder: Ppm,
    /// Longest time that such a frame is held back.
    pub reorder_by: Ns,
    /// Bits per second; 0 for no limit.
    pub rate: u64,
    /// Bytes that may wait for the wire; what comes then is dropped. Of no meaning without a rate.
    pub queue: u64,
}

impl Default for CableConfig {
    fn default() -> Self {
        Self {
            latency: 50_000,
            jitter: 0,
            loss: Ppm(0),
            duplicate: Ppm(0),
            reorder: Ppm(0),
            reorder_by: 1_000_000,
            rate: 1_000_000_000,
            queue: 1 << 20,
        }
    }
}

/// What a cable did to frames in one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CableCounters {
    /// Frames put on the wire.
    pub frames: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Frames lost by chance.
    pub lost: u64,
    /// Frames that arrived twice.
    pub duplicated: u64,
    /// Frames held back.
    pub reordered: u64,
    /// Frames dropped because the queue was full.
    pub overflowed: u64,
}

/// One direction of a cable.
#[derive(Clone, Debug)]
pub struct Cable {
    config: CableConfig,
    rng: Rng,
    /// When the wire is free again.
    free: Ns,
    /// Latest arrival so far of a frame that was not held back.
    last: Ns,
    counters: CableCounters,
}

impl Cable {
    /// A cable whose chances come from the stream `name` of `seed`.
    pub fn new(config: CableConfig, seed: u64, name: &str) -> Self {
        Self { config, rng: Rng::new(seed, name), free: 0, last: 0, counters: CableCounters::default() }
    }

    /// Counters so far.
    pub fn counters(&self) -> &CableCounters {
        &self.counters
    }

    /// Puts a frame of `len` bytes on the wire at `at`; gives when it arrives: never, once or twice. Never earlier than
    /// `at` + latency.
    pub fn pass(&mut self, at: Ns, len: usize) -> [Option<Ns>; 2] {
        // Each frame draws the same number of times whatever becomes of it, so that a changed chance (say, more loss)
        // leaves the other draws as they were.
        let lost = self.chance(self.config.loss);
        let twice = self.chance(self.config.duplicate);
        let held = self.chance(self.config.reorder);
        let jitter = self.rng.below(self.config.jitter + 1);
        let hold = 1 + self.rng.below(self.config.reorder_by.max(1));
        let gap = 1 + self.rng.below(self.config.jitter.max(DUPLICATE_GAP));
        self.counters.frames += 1;
        self.counters.bytes += len as u64;
        let Some(sent) = self.transmit(at, len) else {
            self.counters.overflowed += 1;
            return [None, None];
        };
        if lost {
            self.counters.lost += 1;
            return [None, None];
        }
        let mut arrival = sent + self.config.latency + jitter;
        if held {
            self.counters.reordered += 1;
            arrival += hold;
        } else {
            arrival = arrival.max(self.last);
            self.last = arrival;
        }
        self.counters.duplicated += u64::from(twice);
        [Some(arrival), twice.then_some(arrival + gap)]
    }

    fn chance(&mut self, share: Ppm) -> bool {
        self.rng.below(u64::from(Ppm::ONE.0)) < u64::from(share.0)
    }

    /// When the last bit is on the wire; `None` if the queue is full.
    fn transmit(&mut self, at: Ns, len: usize) -> Option<Ns> {
        if self.config.rate == 0 {
            return Some(at);
        }
        let bits_to_ns = |bytes: u64| (bytes * 8).saturating_mul(1_000_000_000) / self.config.rate;
        let start = at.max(self.free);
        if start - at > bits_to_ns(self.config.queue) {
            return None;
        }
        self.free = start + bits_to_ns((len as u64).max(WIRE_MIN) + WIRE_OVERHEAD);
        Some(self.free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ideal() -> CableConfig {
        CableConfig { rate: 0, ..CableConfig::default() }
    }

    fn run(config: CableConfig, seed: u64, n: u64) -> (Vec<Ns>, CableCounters) {
        let mut cable = Cable::new(config, seed, "test");
        let mut all: Vec<Ns> = (0..n).flat_map(|i| cable.pass(i * 10_000, 100)).flatten().collect();
        all.dedup();
        (all, cable.counters().clone())
    }

    #[test]
    fn an_ideal_cable_only_delays() {
        let (arrivals, counters) = run(ideal(), 1, 3);
        assert_eq!(arrivals, [50_000, 60_000, 70_000]);
        assert_eq!(counters, CableCounters { frames: 3, bytes: 300, ..Default::default() });
    }

    #[test]
    fn the_rate_spaces_frames_and_the_queue_is_bounded() {
        let config = CableConfig { rate: 1_000_000_000, queue: 3_000, latency: 0, ..ideal() };
        let mut cable = Cable::new(config, 1, "");
        // 976 + 24 bytes at 1 Gbit/s: 8 us each.
        let arrivals: Vec<_> = (0..6).map(|_| cable.pass(0, 976)[0]).collect();
        assert_eq!(arrivals, [Some(8_000), Some(16_000), Some(24_000), Some(32_000), None, None]);
        assert_eq!(cable.counters().overflowed, 2);
    }

    #[test]
    fn short_frames_are_padded_on_the_wire() {
        let config = CableConfig { rate: 1_000_000_000, latency: 0, ..ideal() };
        assert_eq!(Cable::new(config, 1, "").pass(0, 14)[0], Some(84 * 8));
    }

    #[test]
    fn shares_come_out_about_right() {
        let config =
            CableConfig { loss: Ppm(50_000), duplicate: Ppm(20_000), reorder: Ppm(30_000), ..ideal() };
        let (_, c) = run(config, 7, 100_000);
        assert!((4_500..5_500).contains(&c.lost), "{c:?}");
        assert!((1_600..2_400).contains(&c.duplicated), "{c:?}");
        assert!((2_500..3_500).contains(&c.reordered), "{c:?}");
    }

    #[test]
    fn all_or_nothing() {
        assert!(run(CableConfig { loss: Ppm::ONE, ..ideal() }, 1, 100).0.is_empty());
        let (arrivals, c) = run(CableConfig { duplicate: Ppm::ONE, ..ideal() }, 1, 100);
        assert_eq!((arrivals.len(), c.duplicated), (200, 100));
    }

    #[test]
    fn more_loss_leaves_the_survivors_times_alone() {
        let with_loss = |loss| {
            let config = CableConfig { jitter: 30_000, loss: Ppm(loss), ..ideal() };
            let mut cable = Cable::new(config, 9, "test");
            (0..1_000).flat_map(|i| cable.pass(i * 100_000, 100)).flatten().collect::<Vec<Ns>>()
        };
        let (all, survivors) = (with_loss(0), with_loss(200_000));
        assert!(survivors.len() < all.len());
        assert!(survivors.iter().all(|t| all.contains(t)));
    }

    proptest! {
        /// Nothing comes early, and what is not held back comes in order.
        #[test]
        fn never_early_and_in_order(
            seed in any::<u64>(), latency in 0u64..1_000_000, jitter in 0u64..500_000,
            loss in 0u32..500_000, rate in prop_oneof![Just(0u64), 1_000_000u64..10_000_000_000],
            frames in proptest::collection::vec((0u64..100_000, 14usize..9_000), 1..100),
        ) {
            let config = CableConfig { latency, jitter, loss: Ppm(loss), rate, ..CableConfig::default() };
            let mut cable = Cable::new(config, seed, "p");
            let (mut at, mut last) = (0, 0);
            for (step, len) in frames {
                at += step;
                if let Some(arrival) = cable.pass(at, len)[0] {
                    prop_assert!(arrival >= at + latency);
                    prop_assert!(arrival >= last);
                    last = arrival;
                }
            }
        }
    }
}
