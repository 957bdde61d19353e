//! The checkers: they see both hosts at once, and say which rule is broken.

use toy::machine::Packet;

use crate::observer::{Absurd, Observer};

/// A rule that is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// What was seen outside has no explanation by one execution: the output requirement.
    Outputs(Absurd),
    /// An output left before the peer had the log that led to it: the output rule.
    Early {
        /// The host.
        host: usize,
        /// The position that the output waits for, and how much of the log the peer has had.
        position: u64,
        /// Bytes.
        received: u64,
    },
    /// Two hosts are live.
    TwoLive {
        /// The host that was.
        first: usize,
        /// The one that became so too.
        second: usize,
    },
    /// A host sent what the other one, which is live, does not know of.
    Stale {
        /// The host.
        host: usize,
        /// The packet's number.
        number: u64,
    },
    /// A host went live though the virtual machine had been switched off.
    Risen(usize),
    /// A host went live without all that it had received.
    Unread {
        /// The host.
        host: usize,
        /// Bytes that it had executed, and received.
        executed: u64,
        /// Bytes.
        received: u64,
    },
    /// A host went live that was never told by the arbiter that it may.
    Usurped(usize),
    /// Nothing goes wrong any more, but nothing goes on either.
    Stuck(String),
    /// A replay is none.
    Diverged(usize, String),
    /// A buffer was full where it must not be.
    Overflow(usize, &'static str),
    /// A host has come to a state that nothing has led to.
    Astray(usize, String),
}

/// What the checkers remember.
#[derive(Debug, Default)]
pub struct God {
    /// The outside world.
    pub observer: Observer,
    /// How much of the log each host has ever had.
    pub received: [u64; 2],
    /// The host that went on alone, and the last packet that it had computed then.
    pub winner: Option<(usize, u64)>,
    /// What the arbiter's record says: the host that has consumed the generation.
    pub owner: Option<usize>,
    /// The virtual machine was switched off, and somebody was told so.
    pub off: bool,
}

impl God {
    /// A packet leaves a host. `position`: what it waited for; none of a host that goes on alone.
    ///
    /// # Errors
    /// A rule is broken.
    pub fn released(&mut self, host: usize, packet: Packet, position: Option<u64>) -> Result<(), Broken> {
        if let Some(position) = position
            && self.received[1 - host] < position
        {
            return Err(Broken::Early { host, position, received: self.received[1 - host] });
        }
        if let Some((winner, computed)) = self.winner
            && winner != host
            && packet.number > computed
        {
            return Err(Broken::Stale { host, number: packet.number });
        }
        self.observer.see(host, packet).map_err(Broken::Outputs)
    }

    /// A host goes on alone. `computed`: the number of the last packet that its guest has sent.
    ///
    /// # Errors
    /// A rule is broken.
    pub fn alone(&mut self, host: usize, computed: u64) -> Result<(), Broken> {
        if let Some((first, _)) = self.winner.filter(|(first, _)| *first != host) {
            return Err(Broken::TwoLive { first, second: host });
        }
        if self.owner != Some(host) {
            return Err(Broken::Usurped(host));
        }
        if self.off {
            return Err(Broken::Risen(host));
        }
        self.winner = Some((host, computed));
        Ok(())
    }
}
