//! What can be wrong with a log: every way has its own name.

use super::block::VERSION;
use super::bytes::Malformed;
use super::codec::CodecError;
use super::header::BadHeader;
use core::fmt;

/// Bytes of a [`Label`].
const LABEL_MAX: usize = 24;

/// A short name by value; longer ones are cut.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Label {
    bytes: [u8; LABEL_MAX],
    length: usize,
}

impl Label {
    /// The beginning of `text`, as far as there is room.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let length = text.floor_char_boundary(LABEL_MAX);
        let mut bytes = [0; LABEL_MAX];
        bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
        Self { bytes, length }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.bytes.get(..self.length).and_then(|bytes| core::str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Why a log cannot be used, or not to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// These bytes are no log.
    NotALog,
    /// A log of another version of the format.
    Version(u16),
    /// The header cannot be understood, although its checksum is right.
    Header(BadHeader),
    /// The guest was recorded with another processor profile.
    Profile {
        /// As recorded.
        recorded: (Label, u64),
        /// What the guest would have here.
        own: (Label, u64),
    },
    /// The log ends within a block.
    Truncated {
        /// The block's number.
        block: u64,
        /// Where the block begins: so many bytes are whole.
        at: usize,
        /// So many bytes are missing at least.
        missing: usize,
    },
    /// A block is damaged.
    Corrupt {
        /// Its number.
        block: u64,
        /// Where the damage was seen, bytes from the log's beginning. A wrong checksum is seen at the block's beginning.
        at: usize,
        /// How.
        damage: Damage,
    },
    /// All blocks are whole, but the last is not the end: the recording was cut off.
    NoEnd {
        /// How many blocks there are.
        blocks: u64,
        /// How many bytes.
        bytes: usize,
    },
}

/// What is wrong with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// It does not begin as a block does.
    Prefix,
    /// It says that it is longer than blocks are, bytes.
    Length(usize),
    /// Its checksum is another.
    Checksum,
    /// Nothing that is known.
    Kind(u8),
    /// Its body is not what its kind has.
    Body(Malformed),
    /// It has this number instead of its own.
    Sequence(u64),
    /// It is no header where a header must be, or one where none may be.
    Misplaced,
    /// It comes behind the end.
    AfterEnd,
    /// An entry cannot be read: its number in the log from 0 on, and why.
    Entry(u64, CodecError),
    /// The end says that there are so many entries, and there are not.
    Entries(u64),
    /// A note is not UTF-8.
    Text,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix => f.write_str("it does not begin as a block does"),
            Self::Length(bytes) => write!(f, "a length of {bytes} bytes, more than a block has"),
            Self::Checksum => f.write_str("its checksum is wrong"),
            Self::Kind(kind) => write!(f, "no kind of block has the number {kind}"),
            Self::Body(Malformed::Short) => f.write_str("its body is too short"),
            Self::Body(Malformed::Varint) => f.write_str("a number of more than 64 bits"),
            Self::Sequence(found) => {
                write!(f, "it has the number {found}: blocks are missing, doubled or reordered")
            }
            Self::Misplaced => f.write_str("the header must be the first block, and no other"),
            Self::AfterEnd => f.write_str("it comes behind the end"),
            Self::Entry(number, error) => write!(f, "entry {number} cannot be read: {error}"),
            Self::Entries(said) => write!(f, "the end says that there are {said} entries, and there are not"),
            Self::Text => f.write_str("a note that is not UTF-8"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotALog => f.write_str("this is no log of Lockstep"),
            Self::Version(found) => {
                write!(f, "a log of version {found} of the format; this reads version {VERSION}")
            }
            Self::Header(bad) => write!(f, "the log's header cannot be understood: {bad}"),
            Self::Profile { recorded, own } => write!(
                f,
                "recorded with the processor profile {} ({:016x}); here the guest would have {} ({:016x})",
                recorded.0.as_str(),
                recorded.1,
                own.0.as_str(),
                own.1
            ),
            Self::Truncated { block, at, missing } => {
                write!(
                    f,
                    "the log is truncated: it ends within block {block}, which begins at byte {at} and "
                )?;
                write!(f, "lacks at least {missing} bytes")
            }
            Self::Corrupt { block, at, damage } => {
                write!(f, "the log is corrupt at byte {at}, block {block}: {damage}")
            }
            Self::NoEnd { blocks, bytes } => {
                write!(f, "the recording was cut off: {blocks} whole blocks ({bytes} bytes), but no end")
            }
        }
    }
}

impl core::error::Error for Error {}
