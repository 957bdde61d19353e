//! What differs between two digests, for people: each finding is a sentence.

use super::memory::BUCKETS;
use super::parts::Part;
use super::registers::Register;
use core::fmt;

/// Findings that are kept; of more, only the number is.
pub const MAX_FINDINGS: usize = 24;

/// One thing that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A register's value.
    Register {
        /// Which.
        register: Register,
        /// As recorded.
        recorded: u64,
        /// Of this execution.
        found: u64,
    },
    /// The state of a device or the like.
    Part(Part),
    /// A page.
    Page {
        /// Its number: guest-physical address / 4096.
        number: u64,
        /// If one word alone differs: its offset in the page, what was recorded, and what is there.
        word: Option<(u16, u64, u64)>,
    },
    /// More than one page of those whose index is this modulo [`BUCKETS`].
    Pages {
        /// The remainder.
        bucket: usize,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Register { register, recorded, found } => {
                write!(f, "{register}: recorded {recorded:#x}, here {found:#x}")
            }
            Self::Part(part) => write!(f, "the state of {part} is another"),
            Self::Page { number, word: None } => {
                write!(f, "memory: page {:#x} differs in more than one word", number << 12)
            }
            Self::Page { number, word: Some((offset, recorded, found)) } => write!(
                f,
                "memory: the word at {:#x} (page {:#x}): recorded {recorded:#018x}, here {found:#018x}",
                (number << 12) + u64::from(offset),
                number << 12
            ),
            Self::Pages { bucket } => {
                write!(
                    f,
                    "memory: several pages differ among those whose number is {bucket} modulo {BUCKETS}"
                )
            }
        }
    }
}

/// What differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings {
    list: [Option<Finding>; MAX_FINDINGS],
    count: usize,
}

impl Default for Findings {
    fn default() -> Self {
        Self::new()
    }
}

impl Findings {
    /// Nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { list: [None; MAX_FINDINGS], count: 0 }
    }

    /// One more.
    pub const fn add(&mut self, finding: Finding) {
        if self.count < MAX_FINDINGS {
            self.list[self.count] = Some(finding);
        }
        self.count += 1;
    }

    /// Nothing differs.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many there are; [`MAX_FINDINGS`] of them are kept.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Those that are kept.
    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.list.iter().flatten()
    }
}
