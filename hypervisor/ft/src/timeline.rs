//! When the primary was where: for how long its guest had run, by the host's clock, when it had reached a virtual time.
//!
//! Virtual time does not pass as the host's does: what the hypervisor does for a guest is none of its instructions, and the clock is put
//! right afterwards, by some milliseconds at once if need be. A backup passes such a step in no time. So how far it is behind is told in the
//! primary's own time: what the primary has run since it was where the backup is now.

use heapless::Deque;

/// Moments remembered.
const MARKS: usize = 256;

/// Between two of them there is so much virtual time at least, nanoseconds; in between, both go evenly.
const GRAIN_NS: u64 = 500_000;

/// A moment of the primary's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mark {
    /// Busy virtual time, nanoseconds.
    virtual_ns: u64,
    /// How long the guest had run, nanoseconds of the host.
    ran_ns: u64,
}

/// The primary's last moments.
#[derive(Clone, Debug)]
pub struct Timeline {
    /// Earlier ones first; never empty, and both times never go back.
    marks: Deque<Mark, MARKS>,
}

impl Default for Timeline {
    fn default() -> Self {
        Self::new()
    }
}

impl Timeline {
    /// That of a guest that has not run.
    #[must_use]
    pub fn new() -> Self {
        let mut timeline = Self { marks: Deque::new() };
        timeline.begin(Mark::default());
        timeline
    }

    fn begin(&mut self, mark: Mark) {
        self.marks.clear();
        // There is room for one.
        let _ = self.marks.push_back(mark);
    }

    /// The log has reached this busy virtual time, and the guest has run for so long, both in nanoseconds.
    pub fn note(&mut self, virtual_ns: u64, ran_ns: u64) {
        let last = self.last();
        let mark = Mark { virtual_ns, ran_ns: ran_ns.max(last.ran_ns) };
        if virtual_ns < last.virtual_ns {
            // Another guest's: nothing follows from before.
            return self.begin(mark);
        }
        let mut earlier = self.marks.iter().rev().skip(1);
        let near = earlier.next().is_some_and(|earlier| virtual_ns - earlier.virtual_ns < GRAIN_NS);
        if near || self.marks.is_full() {
            self.marks.pop_back();
        }
        // There is room: one has gone if there was none.
        let _ = self.marks.push_back(mark);
    }

    fn last(&self) -> Mark {
        self.marks.back().copied().unwrap_or_default()
    }

    /// How long the guest had run when the log was noted last, nanoseconds.
    #[must_use]
    pub fn ran_ns(&self) -> u64 {
        self.last().ran_ns
    }

    /// How long it had run at this busy virtual time, nanoseconds. What was before it is forgotten: a backup goes on, never back.
    pub fn ran_at(&mut self, virtual_ns: u64) -> u64 {
        while self.marks.iter().nth(1).is_some_and(|next| next.virtual_ns <= virtual_ns) {
            self.marks.pop_front();
        }
        let mut marks = self.marks.iter().copied();
        let from = marks.next().unwrap_or_default();
        let Some(to) = marks.next() else { return from.ran_ns };
        let (part, whole) = (virtual_ns.saturating_sub(from.virtual_ns), to.virtual_ns - from.virtual_ns);
        let ran = u128::from(to.ran_ns - from.ran_ns) * u128::from(part) / u128::from(whole.max(1));
        from.ran_ns + ran as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_step_of_the_clock_is_no_lag() {
        let mut timeline = Timeline::new();
        timeline.note(4 * MS, 4 * MS);
        // The clock was behind, and is put right: 8 ms of virtual time in one of the host's.
        timeline.note(12 * MS, 5 * MS);
        timeline.note(16 * MS, 9 * MS);
        assert_eq!(timeline.ran_at(4 * MS), 4 * MS);
        assert_eq!(timeline.ran_at(8 * MS), 4 * MS + MS / 2);
        assert_eq!(timeline.ran_at(12 * MS), 5 * MS);
        assert_eq!((timeline.ran_at(16 * MS), timeline.ran_ns()), (9 * MS, 9 * MS));
        // Nobody has executed what is not logged.
        assert_eq!(timeline.ran_at(u64::MAX), 9 * MS);
    }

    #[test]
    fn a_guest_that_begins_again_begins_anew() {
        let mut timeline = Timeline::new();
        timeline.note(100 * MS, 100 * MS);
        timeline.note(MS, 130 * MS);
        assert_eq!((timeline.ran_at(0), timeline.ran_ns()), (130 * MS, 130 * MS));
        timeline.note(2 * MS, 131 * MS);
        assert_eq!(timeline.ran_at(MS + MS / 2), 130 * MS + MS / 2);
    }

    #[test]
    fn what_is_too_much_is_told_more_coarsely() {
        let mut timeline = Timeline::new();
        for n in 1..=10 * MARKS as u64 {
            timeline.note(n * MS, n * MS);
        }
        assert_eq!(timeline.ran_ns(), 10 * MARKS as u64 * MS);
        let at = 5 * MARKS as u64 * MS;
        assert_eq!(timeline.ran_at(at), at);
    }

    proptest! {
        /// Between the moments that were noted, never back, and exact where no more than a grain was left out.
        #[test]
        fn is_monotonic(
            steps in proptest::collection::vec((0u64..3 * MS, 0u64..3 * MS), 1..100),
            asked in proptest::collection::vec(0u64..300 * MS, 1..30),
        ) {
            let mut timeline = Timeline::new();
            let (mut at, mut all) = ((0, 0), vec![(0, 0)]);
            for (virtual_ns, ran) in steps {
                at = (at.0 + virtual_ns, at.1 + ran);
                timeline.note(at.0, at.1);
                all.push(at);
            }
            let mut asked = asked;
            asked.sort_unstable();
            let mut last = 0;
            for virtual_ns in asked {
                let ran = timeline.ran_at(virtual_ns);
                prop_assert!(ran >= last && ran <= timeline.ran_ns());
                last = ran;
                let before = all.iter().rev().find(|(at, _)| at + GRAIN_NS <= virtual_ns);
                let behind = all.iter().find(|(at, _)| *at >= virtual_ns + GRAIN_NS);
                prop_assert!(before.is_none_or(|(_, least)| ran >= *least));
                prop_assert!(behind.is_none_or(|(_, most)| ran <= *most));
            }
        }
    }
}
