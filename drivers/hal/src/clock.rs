//! Time, as a driver may see it.

/// A monotonic clock. Drivers use it for time-outs and device delays only, never to decide what a guest sees.
pub trait Clock {
    /// Nanoseconds since some fixed moment before the first call. Never goes back.
    fn now_ns(&self) -> u64;

    /// One polite iteration of a busy wait (`PAUSE` on the machine; a step of time in a fake).
    fn relax(&self) {
        core::hint::spin_loop();
    }

    /// Waits at least `ns` nanoseconds.
    fn delay_ns(&self, ns: u64) {
        let start = self.now_ns();
        while self.now_ns().saturating_sub(start) < ns {
            self.relax();
        }
    }

    /// Polls `done` until it returns true (then true) or `timeout_ns` has passed (then false). `done` is always
    /// asked after the last look at the clock, so a long interruption of the waiter is no time-out.
    fn wait_until(&self, timeout_ns: u64, mut done: impl FnMut() -> bool) -> bool
    where
        Self: Sized,
    {
        let start = self.now_ns();
        loop {
            let expired = self.now_ns().saturating_sub(start) >= timeout_ns;
            if done() {
                return true;
            }
            if expired {
                return false;
            }
            self.relax();
        }
    }
}

impl<C: Clock + ?Sized> Clock for &C {
    fn now_ns(&self) -> u64 {
        (**self).now_ns()
    }
    fn relax(&self) {
        (**self).relax();
    }
}

#[cfg(test)]
mod tests {
    use super::Clock;
    use crate::fake::FakeClock;

    #[test]
    fn delay_waits_at_least_that_long() {
        let clock = FakeClock::new(7);
        clock.delay_ns(100);
        assert!(clock.now_ns() >= 100);
    }

    #[test]
    fn wait_until_returns_on_success_and_on_timeout() {
        let clock = FakeClock::new(10);
        let mut polls = 0;
        assert!(clock.wait_until(1_000, || {
            polls += 1;
            polls == 3
        }));
        assert_eq!(polls, 3);
        let before = clock.now_ns();
        assert!(!clock.wait_until(1_000, || false));
        assert!(clock.now_ns() - before >= 1_000);
    }

    #[test]
    fn a_condition_that_became_true_while_we_were_away_is_no_timeout() {
        // One question to this clock already takes longer than the whole time-out.
        let clock = FakeClock::new(1_000_000);
        assert!(clock.wait_until(10, || true));
    }
}
