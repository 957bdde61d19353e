//! Lag control: how much of its time the primary's guest may run, so that the backup's execution stays close behind.
//!
//! The backup can execute only what the primary has logged: it lags by what the primary's guest has run between where the backup is and where
//! the last closed block of the log ends (the primary's own time: [`timeline`](crate::timeline)). While
//! that is well below the target the guest has all of its time. Else its share is what the backup is seen to execute per time,
//! corrected in proportion to what the lag is off its target. Speed is measured only while the backup has something to execute, so it
//! is no function of the share, and nothing is left that could swing but the delay of the acknowledgements.
//!
//! A backup that is as fast as its primary never catches up by itself: what it fell behind once, a takeover much later would have to
//! execute first. While it is further behind than what comes of the log's way to it, the guest therefore has a little less of its time.

use crate::histogram::Histogram;

/// All of the time.
pub const FULL: u32 = 1024;

/// The guest always has this share: it goes on however slow the backup is, until the log buffer is full. Large enough that a slice
/// of some milliseconds is not followed by a pause that the guest's users would take for a failure.
pub const LEAST: u32 = FULL / 8;

/// What the share changes by, in 1/1024, when the lag is off by the whole target.
const GAIN: i64 = 1536;

/// Over so much time the backup's speed is averaged, nanoseconds.
const MEMORY_NS: u64 = 50_000_000;

/// The speed is measured over no less than this, nanoseconds.
const SPAN_NS: u64 = 2_000_000;

/// Acknowledgements further apart say nothing about speed: the guest was halted, or nothing was sent.
const LONG_NS: u64 = 500_000_000;

/// A backup that is no further behind than this has waited for the log, nanoseconds: blocks are closed so often.
const WAITED_NS: u64 = 4_000_000;

/// What a backup may be behind at no cost to the guest, nanoseconds. The way of the log alone is half of it: the age of a block, twice
/// its way, a landing.
const NEAR_NS: u64 = 7_000_000;

/// The guest's share at most while its backup is to catch up.
const CATCH_UP: u32 = FULL - FULL / 32;

/// The fastest speed that counts, in 1/1024 of the host's time.
const FASTEST: i64 = 4 * FULL as i64;

/// The controller.
#[derive(Clone, Debug)]
pub struct Lag {
    target: u64,
    share: u32,
    /// What the backup executes, in 1/1024 nanoseconds of the primary per nanosecond of the host.
    speed: i64,
    /// When the speed was measured last, what was executed then, and whether there was more to execute.
    since: Option<(u64, u64, bool)>,
    lag: u64,
    lags: Histogram,
    slowed: u64,
}

impl Lag {
    /// A controller with a target in nanoseconds.
    #[must_use]
    pub fn new(target_ns: u64) -> Self {
        Self {
            target: target_ns.max(1),
            share: FULL,
            speed: i64::from(FULL),
            since: None,
            lag: 0,
            lags: Histogram::default(),
            slowed: 0,
        }
    }

    /// An acknowledgement has come now: the host's clock; how long the guest had run where the log ends, and where the backup is, all in
    /// nanoseconds.
    pub fn acked(&mut self, now: u64, logged_ns: u64, executed_ns: u64) {
        self.lag = logged_ns.saturating_sub(executed_ns);
        self.lags.record(self.lag);
        self.measure(now, executed_ns);
        self.share = self.decide();
        self.slowed = self.slowed.saturating_add(u64::from(self.share < FULL));
    }

    fn measure(&mut self, now: u64, executed: u64) {
        let busy = self.lag > WAITED_NS;
        let Some((at, before, was_busy)) = self.since else {
            self.since = Some((now, executed, busy));
            return;
        };
        let passed = now.saturating_sub(at);
        if passed < SPAN_NS {
            return;
        }
        self.since = Some((now, executed, busy));
        if passed > LONG_NS {
            return;
        }
        let done = executed.saturating_sub(before).min(u64::MAX / u64::from(FULL));
        let seen = (done * u64::from(FULL) / passed).min(FASTEST as u64) as i64;
        // One that had to wait has executed less than it could: it is no slower than the primary.
        let speed = if busy && was_busy { seen } else { seen.max(FULL.into()) };
        let weight = passed.min(MEMORY_NS) as i64;
        self.speed += (speed - self.speed) * weight / MEMORY_NS as i64;
    }

    fn decide(&self) -> u32 {
        // At three times off the bounds decide long since; so limited, nothing overflows.
        let target = self.target.min(i64::MAX as u64 / 8192) as i64;
        let off = target - self.lag.min(4 * target as u64) as i64;
        let share = self.speed + GAIN * off / target;
        let most = if self.lag > NEAR_NS { CATCH_UP } else { FULL };
        share.clamp(i64::from(LEAST), i64::from(most)) as u32
    }

    /// The guest's share of the time, [`LEAST`] to [`FULL`], in 1/1024.
    #[must_use]
    pub const fn share(&self) -> u32 {
        self.share
    }

    /// The lag at the last acknowledgement, nanoseconds.
    #[must_use]
    pub const fn lag_ns(&self) -> u64 {
        self.lag
    }

    /// The target, nanoseconds.
    #[must_use]
    pub const fn target_ns(&self) -> u64 {
        self.target
    }

    /// The lags at all acknowledgements, nanoseconds.
    #[must_use]
    pub const fn lags(&self) -> &Histogram {
        &self.lags
    }

    /// Acknowledgements after which the guest had less than all of the time.
    #[must_use]
    pub const fn slowed(&self) -> u64 {
        self.slowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    const MS: u64 = 1_000_000;
    const TARGET: u64 = 100 * MS;

    /// A pair: the primary runs at its share, the backup executes what has arrived at a speed of its own, and acknowledges.
    struct Simulated {
        lag: Lag,
        now: u64,
        primary: u64,
        backup: u64,
        /// Virtual time logged, by when it arrives; and executed, by when the primary knows.
        log: VecDeque<(u64, u64)>,
        acks: VecDeque<(u64, u64)>,
        arrived: u64,
        one_way: u64,
        /// Between two acknowledgements.
        interval: u64,
    }

    impl Simulated {
        fn new(one_way: u64, interval: u64) -> Self {
            let (log, acks) = (VecDeque::new(), VecDeque::new());
            let lag = Lag::new(TARGET);
            Self { lag, now: 0, primary: 0, backup: 0, log, acks, arrived: 0, one_way, interval }
        }

        /// Half a millisecond. The backup's speed is in thousandths of the primary's at full speed.
        fn step(&mut self, speed: u64) {
            const STEP: u64 = MS / 2;
            self.now += STEP;
            self.primary += STEP * u64::from(self.lag.share()) / u64::from(FULL);
            self.log.push_back((self.now + self.one_way, self.primary));
            while self.log.front().is_some_and(|(at, _)| *at <= self.now) {
                self.arrived = self.log.pop_front().unwrap().1;
            }
            self.backup = (self.backup + STEP * speed / 1000).min(self.arrived);
            if self.now.is_multiple_of(self.interval) {
                self.acks.push_back((self.now + self.one_way, self.backup));
            }
            while self.acks.front().is_some_and(|(at, _)| *at <= self.now) {
                let executed = self.acks.pop_front().unwrap().1;
                self.lag.acked(self.now, self.primary, executed);
            }
        }

        /// The smallest and the largest share and lag while it runs for so long.
        fn run(&mut self, ms: u64, speed: u64) -> (u32, u32, u64, u64) {
            let mut seen = (FULL, 0, u64::MAX, 0);
            for _ in 0..2 * ms {
                self.step(speed);
                let (share, lag) = (self.lag.share(), self.primary - self.backup);
                seen = (seen.0.min(share), seen.1.max(share), seen.2.min(lag), seen.3.max(lag));
            }
            seen
        }
    }

    #[test]
    fn a_fast_backup_costs_nothing() {
        let mut pair = Simulated::new(MS / 10, MS);
        let (least, _, _, lag) = pair.run(5000, 1300);
        assert_eq!((least, pair.lag.slowed()), (FULL, 0));
        assert!(lag < 5 * MS, "{lag}");
    }

    #[test]
    fn a_backup_that_stands_slows_down_to_the_least() {
        let mut pair = Simulated::new(MS / 10, MS);
        pair.run(1000, 1300);
        pair.run(2000, 0);
        assert_eq!(pair.lag.share(), LEAST);
        // Its speed counts again at once, and the lag goes down to nothing: it is the faster one.
        pair.run(2000, 1300);
        assert_eq!(pair.lag.share(), FULL);
        assert!(pair.primary - pair.backup < 5 * MS);
    }

    /// A guest that is halted most of the time: the backup executes little because there is little.
    #[test]
    fn a_backup_that_waits_is_not_slow() {
        let mut lag = Lag::new(TARGET);
        let mut busy = 0;
        for n in 1..1000 {
            busy += MS / 100;
            lag.acked(n * MS, busy, busy - MS / 200);
            assert_eq!(lag.share(), FULL);
        }
        // Then much to execute comes at once: the speed from before says nothing, and the backup is as fast as the primary.
        busy += TARGET / 2;
        lag.acked(1000 * MS, busy, busy - TARGET / 2);
        assert_eq!(lag.share(), CATCH_UP);
    }

    /// Nothing could be logged for a second, then all of it was: the guest goes on, slowly, until the backup is near again.
    #[test]
    fn a_second_at_once_is_made_up_for() {
        let mut lag = Lag::new(TARGET);
        let (mut logged, mut executed, mut took) = (1000 * MS, 0, 0);
        for n in 1..3000 {
            logged += MS * u64::from(lag.share()) / u64::from(FULL);
            executed = (executed + MS).min(logged);
            lag.acked(n * MS, logged, executed);
            took = if lag.lag_ns() > TARGET * 11 / 10 { n } else { took };
        }
        // It is as fast as the primary: from there on the lag stays.
        assert!((900..1300).contains(&took), "{took} ms");
        assert!(lag.share() > FULL * 9 / 10, "{}", lag.share());
    }

    /// As fast as the primary, and once fallen behind: it is near again after 32 times what it has to make up for, and stays there.
    #[test]
    fn an_equal_backup_catches_up() {
        let mut pair = Simulated::new(MS / 10, MS);
        pair.run(500, 1300);
        pair.run(50, 400);
        let behind = pair.primary - pair.backup;
        assert!(behind > 25 * MS, "{behind}");
        let (least, ..) = pair.run(1000, 1000);
        assert!(least >= CATCH_UP, "{least}");
        let (least, _, _, most) = pair.run(1000, 1000);
        assert!(most <= NEAR_NS + MS, "{most}");
        assert!(least >= CATCH_UP, "{least}");
    }

    #[test]
    fn odd_numbers_do_no_harm() {
        let mut lag = Lag::new(0);
        for (now, primary, executed) in
            [(0, 0, 0), (1, u64::MAX, 0), (u64::MAX, 0, u64::MAX), (5, 3, u64::MAX), (5 + SPAN_NS, 9, 0)]
        {
            lag.acked(now, primary, executed);
            assert!((LEAST..=FULL).contains(&lag.share()));
        }
        let mut lag = Lag::new(u64::MAX);
        lag.acked(0, u64::MAX, 0);
        lag.acked(SPAN_NS, 0, u64::MAX);
        assert!((LEAST..=FULL).contains(&lag.share()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// A slower backup: after a second and a half the lag stays within a quarter of its target, and the share within a tenth of the
        /// backup's speed.
        #[test]
        fn a_slow_backup_is_followed_without_swings(
            speed in 300u64..930, one_way in 50_000u64..2 * MS, interval in 1u64..5,
        ) {
            let mut pair = Simulated::new(one_way, interval * MS);
            pair.run(500, 1200);
            // The steady way there never leads far beyond the target.
            let (_, _, _, most) = pair.run(3000, speed);
            prop_assert!(most < TARGET * 3 / 2, "{most} on the way");
            let (least, share, low, high) = pair.run(3000, speed);
            let wanted = speed as u32 * FULL / 1000;
            prop_assert!(least > wanted * 9 / 10 && share < wanted * 11 / 10, "{least}..{share} for {wanted}");
            prop_assert!(low > TARGET * 3 / 4 && high < TARGET * 5 / 4, "{low}..{high}");
        }

        /// A faster one is not held back, however it comes and goes.
        #[test]
        fn it_recovers(slow in 300u64..900, fast in 1050u64..2000, one_way in 50_000u64..2 * MS) {
            let mut pair = Simulated::new(one_way, MS);
            for _ in 0..3 {
                pair.run(1500, slow);
                pair.run(4000, fast);
                let (least, ..) = pair.run(500, fast);
                prop_assert_eq!(least, FULL);
            }
        }

        /// A speed that itself swings: the lag stays bounded.
        #[test]
        fn any_speed_is_bounded(speeds in proptest::collection::vec(300u64..2000, 1..30)) {
            let mut pair = Simulated::new(MS, MS);
            for speed in speeds {
                let (_, _, _, most) = pair.run(200, speed);
                prop_assert!(most < 2 * TARGET, "{most}");
            }
        }
    }
}
