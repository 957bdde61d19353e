//! Who decides which host goes on alone: questions and answers, without I/O.
//!
//! The lock is "who consumes generation G". It is never released; each redundancy period has a new generation.
//!
//! How arbiters of the storage world will map onto [`Arbiter`]:
//!
//! | | SCSI persistent reservation | SCSI COMPARE AND WRITE | NVMe reservation |
//! |---|---|---|---|
//! | [`Arm`](Ask::Arm) | both register their key for G; the owner reserves (write exclusive, registrants only) and writes the [record](record::Record) | the record is compared with what was read and written | both register their key; the owner acquires; the record is written |
//! | [`Contend`](Ask::Contend) | PREEMPT (AND ABORT) of the peer's key, ORDERED: GOOD = won, RESERVATION CONFLICT = lost | {Protected, G} is compared and {Solo, G, own nonce} written: MISCOMPARE is read back before it is believed | Reservation Acquire, preempt and abort |
//! | [`ReadBack`](Ask::ReadBack) | on a new session READ KEYS: own key alone = won, own key gone = lost, both = free | the record is read: own nonce = won | Reservation Report |
//! | [`Fence`](Ask::Fence) | nothing: the preemption was the fence | the peer's access is cut by other means before this is answered | nothing |
//!
//! Time-outs and lost sessions of `Contend` are [`Unknown`](Answer::Unknown), never a guess.

pub mod lock;
pub mod record;

use crate::keys::Incarnation;
use core::fmt;
use record::Record;

/// A question to the arbiter. All of them may be repeated: what was done stays done, and is answered as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The generation begins: the primary, its owner, and this peer may contend for it. Asked by the primary alone, before the
    /// peer is told.
    Arm {
        /// Its number.
        generation: u64,
        /// The backup's incarnation.
        peer: Incarnation,
    },
    /// Test-and-set: this host consumes the generation, unless the other one has.
    Contend {
        /// Its number.
        generation: u64,
        /// The log position that this host has reached: kept in the record for people.
        position: u64,
    },
    /// What has become of [`Contend`](Self::Contend)? Of generation 0: nothing, but [`record`](Arbiter::record) is known then.
    ReadBack {
        /// The generation's number.
        generation: u64,
    },
    /// The loser is kept from the shared disk from here on. Asked by the winner.
    Fence {
        /// The generation's number.
        generation: u64,
    },
}

impl Ask {
    /// The generation in question.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        match *self {
            Self::Arm { generation, .. }
            | Self::Contend { generation, .. }
            | Self::ReadBack { generation }
            | Self::Fence { generation } => generation,
        }
    }

    /// One word.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Arm { .. } => "arm",
            Self::Contend { .. } => "contend",
            Self::ReadBack { .. } => "read-back",
            Self::Fence { .. } => "fence",
        }
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} generation {}", self.name(), self.generation())
    }
}

/// The arbiter's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To `Arm`: the generation can be contended for.
    Armed,
    /// To `Contend` and `ReadBack`: this host has consumed the generation. For good.
    Won,
    /// To `Contend` and `ReadBack`: the other host has. For good.
    Lost,
    /// To `ReadBack`: nobody has consumed it yet.
    Free,
    /// To `Fence`: it is done.
    Fenced,
    /// It may or may not have been done: read back.
    Unknown,
    /// The arbiter is out of reach, and nothing was done.
    Unreachable,
    /// It makes no sense to the arbiter: another generation, another host, a record that is damaged.
    Refused,
}

impl Answer {
    /// One word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Armed => "armed",
            Self::Won => "won",
            Self::Lost => "lost",
            Self::Free => "free",
            Self::Fenced => "fenced",
            Self::Unknown => "unknown",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An arbiter, as a host sees it. Sans-I/O: how its bytes travel is each one's own matter.
pub trait Arbiter {
    /// What it is, for people.
    fn name(&self) -> &'static str;

    /// Whether its decisions outlast everything that may happen to the hosts and to itself. The console says UNSAFE if not.
    fn is_safe(&self) -> bool;

    /// Asks at this time, nanoseconds. A question that is under way is given up: no answer to it comes any more.
    fn ask(&mut self, ask: Ask, now: u64);

    /// The answer, once, when there is one.
    fn poll(&mut self, now: u64) -> Option<Answer>;

    /// The record as the last answer has shown it, if there is one: for a host that starts, and for people.
    fn record(&self) -> Option<Record>;

    /// When [`poll`](Self::poll) is to be called, or bytes are to be sent, though nothing has arrived: nanoseconds.
    fn next_deadline(&self) -> Option<u64>;
}
