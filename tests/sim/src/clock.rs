//! A host's clock: never backward, but faster or slower than time itself, and at times it jumps.

/// The clock of a host, nanoseconds.
#[derive(Clone, Debug)]
pub struct Clock {
    /// The true moment, and what the clock showed then.
    since: u64,
    shown: u64,
    /// Parts per million that it is too fast.
    drift: i64,
}

impl Clock {
    /// A clock that shows `shown` at the beginning of time.
    pub const fn new(shown: u64, drift: i64) -> Self {
        Self { since: 0, shown, drift }
    }

    /// What it shows at a true moment, which is none before the last [`jump`](Self::jump).
    pub const fn at(&self, now: u64) -> u64 {
        let passed = (now - self.since) as i128;
        self.shown + (passed + passed * self.drift as i128 / 1_000_000) as u64
    }

    /// The first true moment at which it shows this, or more.
    pub fn when(&self, shows: u64) -> u64 {
        let Some(ahead) = shows.checked_sub(self.shown) else { return self.since };
        let ahead = i128::from(ahead);
        let factor = i128::from(1_000_000 + self.drift);
        // Rounded, so look from a little earlier on.
        let mut when = self.since + ((ahead * 1_000_000 / factor) as u64).saturating_sub(3);
        while self.at(when) < shows {
            when += 1;
        }
        when
    }

    /// It jumps ahead.
    pub const fn jump(&mut self, now: u64, by: u64) {
        self.shown = self.at(now) + by;
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_drifts_and_jumps_but_not_back() {
        for drift in [-100_000, -300, 0, 7, 100_000] {
            let mut clock = Clock::new(500, drift);
            let mut last = clock.at(0);
            for now in (0..10_000).step_by(37) {
                if now % 2000 == 0 {
                    clock.jump(now, 100);
                }
                let shows = clock.at(now);
                assert!(shows >= last);
                last = shows;
                let ahead = shows + 991;
                let when = clock.when(ahead);
                assert!(clock.at(when) >= ahead && clock.at(when - 1) < ahead, "{drift} {now}");
            }
        }
    }
}
