//! Some iterations of a REP, exactly so many: RCX is shortened to them, a breakpoint stands behind the instruction, and what the
//! guest must not see of it is taken back at the next VM exit, whatever its cause.
//!
//! A REP counts once, at its end (see [`crate::point::Point`]). One that has made all the iterations it was left with has ended and was
//! counted, and its guest is behind it; taken back means RIP on the instruction again, RCX what it would be there, RF set as between
//! two iterations, and one instruction less by software. The caller sees to it that nothing but the breakpoint, an exit of the host's
//! and the instruction's own faults can end such a run: faults exit before they are delivered, and single-stepping guests are
//! not run like that, as each iteration is a trap for them.

/// A run through some iterations of a REP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeat {
    rip: u64,
    behind: u64,
    /// The bits of RCX that count.
    counter: u64,
    /// Iterations that RCX was shortened by.
    held: u64,
}

/// What the guest's registers are to be after the exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// RIP.
    pub rip: u64,
    /// RCX.
    pub rcx: u64,
    /// The instruction has retired though it is not through: one is to be taken from the count, and RF is to be set.
    pub uncount: bool,
}

impl Repeat {
    /// A run of the REP at `rip`, behind which is `behind`, through so many iterations at most; all that are left if there are no
    /// more. `address_bytes`: its address size, 2, 4 or 8, which is how much of RCX counts. Comes with what RCX is to be at the
    /// entry. None: there is no iteration to make, or bits of RCX above those that count would be lost.
    #[must_use]
    pub const fn new(
        rip: u64,
        behind: u64,
        address_bytes: u8,
        rcx: u64,
        iterations: u64,
    ) -> Option<(Self, u64)> {
        let counter = match address_bytes {
            2 => 0xffff,
            // An iteration clears the upper half in 64-bit mode.
            4 if rcx >> 32 == 0 => 0xffff_ffff,
            8 => u64::MAX,
            _ => return None,
        };
        let left = rcx & counter;
        if left == 0 || iterations == 0 {
            return None;
        }
        let held = left.saturating_sub(iterations);
        Some((Self { rip, behind, counter, held }, rcx - held))
    }

    /// RIP behind the instruction.
    #[must_use]
    pub const fn behind(&self) -> u64 {
        self.behind
    }

    /// The registers as they are to be after an exit with this RIP and RCX. `ended`: a comparison ends the instruction, by the
    /// flags that it has left.
    #[must_use]
    pub const fn settle(&self, rip: u64, rcx: u64, ended: bool) -> Settled {
        let through = rip == self.behind && rcx & self.counter == 0;
        let uncount = through && self.held != 0 && !ended;
        Settled { rip: if uncount { self.rip } else { rip }, rcx: rcx.wrapping_add(self.held), uncount }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn all_that_are_left_end_the_instruction() {
        let (repeat, rcx) = Repeat::new(0x10, 0x12, 8, 5, 5).unwrap();
        assert_eq!((rcx, repeat.behind()), (5, 0x12));
        assert_eq!(repeat.settle(0x12, 0, false), Settled { rip: 0x12, rcx: 0, uncount: false });
        assert_eq!(Repeat::new(0x10, 0x12, 8, 5, u64::MAX).unwrap(), (repeat, 5));
        assert_eq!(repeat.settle(0x10, 2, false), Settled { rip: 0x10, rcx: 2, uncount: false });
    }

    #[test]
    fn a_comparison_that_ends_it_is_no_iteration_less() {
        let (repeat, rcx) = Repeat::new(0x10, 0x12, 8, 100, 40).unwrap();
        assert_eq!(rcx, 40);
        // Ended early, and ended in the last iteration it was left.
        assert_eq!(repeat.settle(0x12, 3, true), Settled { rip: 0x12, rcx: 63, uncount: false });
        assert_eq!(repeat.settle(0x12, 0, true), Settled { rip: 0x12, rcx: 60, uncount: false });
        assert_eq!(repeat.settle(0x12, 0, false), Settled { rip: 0x10, rcx: 60, uncount: true });
    }

    #[test]
    fn what_cannot_be_run() {
        assert_eq!(Repeat::new(0, 2, 8, 0, 1), None);
        assert_eq!(Repeat::new(0, 2, 8, 1, 0), None);
        assert_eq!(Repeat::new(0, 2, 2, 0x7000_0000, 1), None);
        assert_eq!(Repeat::new(0, 2, 4, 1 << 32 | 5, 1), None);
        assert_eq!(Repeat::new(0, 2, 1, 5, 1), None);
    }

    proptest! {
        /// Stopped after any number of iterations, RCX is what it would be without having been shortened.
        #[test]
        fn rcx_is_what_it_would_be(
            size in prop_oneof![Just(2_u8), Just(4), Just(8)],
            rcx: u64,
            iterations in 1_u64..1 << 40,
            part in 0_u64..1 << 40,
        ) {
            let counter = u64::MAX >> (64 - 8 * u32::from(size));
            let rcx = if size == 4 { rcx & counter } else { rcx };
            prop_assume!(rcx & counter != 0);
            let (repeat, entered) = Repeat::new(0x100, 0x103, size, rcx, iterations).unwrap();
            let most = iterations.min(rcx & counter);
            prop_assert_eq!(entered & counter, most);
            prop_assert_eq!(entered & !counter, rcx & !counter);
            let made = part % (most + 1);
            let rip = if made == most { 0x103 } else { 0x100 };
            let settled = repeat.settle(rip, entered - made, false);
            prop_assert_eq!(settled.rcx, rcx - made);
            let over = made == rcx & counter;
            prop_assert_eq!(settled.uncount, made == most && !over);
            prop_assert_eq!(settled.rip, if over { 0x103 } else { 0x100 });
        }
    }
}
