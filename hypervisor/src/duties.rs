//! What the host has to do beside the guest: flags that interrupt handlers raise and the loop serves at its next exit.
//! Pure.
//!
//! A handler never does the work itself: it may run between any two instructions of the loop. The flags are one word,
//! so asking costs one load.

use core::sync::atomic::{AtomicU32, Ordering};

/// The serial port has received something, or the shell's line was disturbed.
pub const SERIAL: u32 = 1 << 0;
/// A network card has frames, room, or a changed link.
pub const NETWORK: u32 = 1 << 1;
/// The deadline of the loop itself has passed.
pub const DEADLINE: u32 = 1 << 2;
/// The logging channel has frames, or something is due.
pub const LOG: u32 = 1 << 3;
/// The host was interrupted for nothing, by a test.
pub const VARIATION: u32 = 1 << 4;

/// What wakes a loop that serves everything while no guest runs: [`VARIATION`] is there for a running one.
pub const ALL: u32 = SERIAL | NETWORK | LOG;

/// What may concern a halted guest.
pub const OF_GUEST: u32 = SERIAL | NETWORK;

/// A set of duties. The kernel has one, [`HOST`].
#[derive(Debug, Default)]
pub struct Duties(AtomicU32);

/// The host's duties; the boot processor serves them.
pub static HOST: Duties = Duties::new();

impl Duties {
    /// Nothing to do.
    pub const fn new() -> Self {
        Duties(AtomicU32::new(0))
    }

    /// There is something to do. From any handler, also an NMI's.
    pub fn raise(&self, which: u32) {
        self.0.fetch_or(which, Ordering::Release);
    }

    /// What there is to do; stays so until it is taken.
    pub fn pending(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    /// Takes those of `which` that are pending, to do them now. What is raised while they are done is pending again.
    pub fn take(&self, which: u32) -> u32 {
        self.0.fetch_and(!which, Ordering::AcqRel) & which
    }
}

/// What the host has to do now: one load.
pub fn pending() -> u32 {
    HOST.pending()
}

/// Takes some of the host's duties; see [`Duties::take`].
pub fn take(which: u32) -> u32 {
    HOST.take(which)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_raised_stays_until_it_is_taken() {
        let duties = Duties::new();
        assert_eq!(duties.pending(), 0);
        duties.raise(SERIAL);
        duties.raise(NETWORK | SERIAL);
        assert_eq!(duties.pending(), SERIAL | NETWORK);
        assert_eq!(duties.take(NETWORK | DEADLINE), NETWORK);
        assert_eq!(duties.pending(), SERIAL);
        assert_eq!(duties.take(!0), SERIAL);
        assert_eq!((duties.take(!0), duties.pending()), (0, 0));
    }
}
