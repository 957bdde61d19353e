//! The two hosts of a pair, and the paths between them.

use core::fmt;

/// One of the two hosts. Which one is primary is another question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The host that listens on the logging channel.
    A,
    /// The host that connects.
    B,
}

impl Side {
    /// The peer's side.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// 0 or 1.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::A => 0,
            Self::B => 1,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "a",
            Self::B => "b",
        })
    }
}

/// A way that heartbeats take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Path {
    /// The logging card.
    Logging,
    /// The card that the guest's frames use too.
    Guest,
}

/// How many paths there are.
pub const PATHS: usize = 2;

impl Path {
    /// All of them, in the order of [`index`](Self::index).
    pub const ALL: [Self; PATHS] = [Self::Logging, Self::Guest];

    /// 0 or 1.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Logging => 0,
            Self::Guest => 1,
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Logging => "logging card",
            Self::Guest => "guest's card",
        })
    }
}
