//! Blocks: what a log is cut into. Each has a checksum.
//!
//! A block is a prefix of five bytes, a body, and the CRC-32C of both. The body begins with the block's number.

use super::bytes::In;
use super::checksum;
use super::codec::{Codec, CodecError, Mark};
use super::entry::Entry;
use super::error::Damage;

/// What a log begins with, before its first block.
pub const MAGIC: [u8; 8] = *b"LOCKSTEP";
/// The version of the format, which follows as 16 bits, little-endian.
pub const VERSION: u16 = 6;
/// Bytes before the first block: magic and version.
pub const PREAMBLE: usize = MAGIC.len() + 2;
/// The first byte of every block.
pub const START: u8 = 0xB7;
/// Bytes of a block before its body.
pub const PREFIX: usize = 5;
/// Bytes of a block behind its body.
pub const CHECKSUM: usize = 4;
/// The longest body, bytes.
pub const BODY_MAX: usize = 32 * 1024;
/// The longest block, bytes.
pub const BLOCK_MAX: usize = PREFIX + BODY_MAX + CHECKSUM;

/// What is in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The [`super::header`]; the first block and no other.
    Header,
    /// Entries.
    Entries,
    /// The recording is complete.
    End,
    /// Text that is no part of the recording; readers may skip it.
    Note,
}

impl Kind {
    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Header => 1,
            Self::Entries => 2,
            Self::End => 3,
            Self::Note => 4,
        }
    }

    /// The kind with this number.
    #[must_use]
    pub const fn of(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Header),
            2 => Some(Self::Entries),
            3 => Some(Self::End),
            4 => Some(Self::Note),
            _ => None,
        }
    }
}

/// The prefix of a block. `length`: bytes of the body, at most [`BODY_MAX`].
#[must_use]
pub fn prefix(kind: Kind, length: usize) -> [u8; PREFIX] {
    let [low, high] = (length as u16).to_le_bytes();
    sealed([START, kind.number(), low, high])
}

/// The first four bytes of a prefix with their check: no changed byte goes unseen, so a length can be believed.
const fn sealed([start, kind, low, high]: [u8; 4]) -> [u8; PREFIX] {
    let sum = start.wrapping_add(kind).wrapping_add(low).wrapping_add(high);
    [start, kind, low, high, !sum]
}

/// A block, checked.
#[derive(Clone, Copy, Debug)]
pub struct Block<'l> {
    /// Its number, from 0 on.
    pub sequence: u64,
    /// What is in it.
    pub kind: Kind,
    /// Where it begins, bytes from the log's beginning.
    pub at: usize,
    /// Its length with prefix and checksum, bytes.
    pub length: usize,
    /// The body behind the block's number.
    pub body: &'l [u8],
    /// Where the body begins, bytes from the log's beginning.
    pub body_at: usize,
}

/// Whether a block is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// The log goes no further than into this block: so many bytes are missing at least.
    Short(usize),
    /// It is damaged at this byte of the log.
    Damaged(usize, Damage),
}

impl<'l> Block<'l> {
    /// The block that begins at this byte of a log; none at its end. `verify`: the checksum is looked at, too.
    ///
    /// # Errors
    /// There is no whole and sound block.
    pub fn at(log: &'l [u8], at: usize, verify: bool) -> Result<Option<Self>, Bad> {
        let here = log.get(at..).unwrap_or_default();
        if here.is_empty() {
            return Ok(None);
        }
        let Some((head, behind)) = here.split_first_chunk::<PREFIX>() else {
            return Err(Bad::Short(PREFIX - here.len()));
        };
        let [start, number, low, high, _] = *head;
        if *head != sealed([start, number, low, high]) || start != START {
            return Err(Bad::Damaged(at, Damage::Prefix));
        }
        let length = usize::from(u16::from_le_bytes([low, high]));
        if length > BODY_MAX {
            return Err(Bad::Damaged(at, Damage::Length(length)));
        }
        let Some((body, behind)) = behind.split_at_checked(length) else {
            return Err(Bad::Short(length + CHECKSUM - behind.len()));
        };
        let Some(sum) = behind.first_chunk::<CHECKSUM>() else {
            return Err(Bad::Short(CHECKSUM - behind.len()));
        };
        let covered = here.get(..PREFIX + length).unwrap_or_default();
        if verify && checksum::block(covered) != u32::from_le_bytes(*sum) {
            return Err(Bad::Damaged(at, Damage::Checksum));
        }
        let kind = Kind::of(number).ok_or(Bad::Damaged(at, Damage::Kind(number)))?;
        let mut input = In::new(body);
        let sequence = input.varint().map_err(|bad| Bad::Damaged(at + PREFIX, Damage::Body(bad)))?;
        let body_at = at + PREFIX + input.at();
        let length = PREFIX + length + CHECKSUM;
        Ok(Some(Self { sequence, kind, at, length, body: input.rest(), body_at }))
    }

    /// The execution at the beginning of a block of entries, or at the end.
    ///
    /// # Errors
    /// The body is too short.
    pub fn mark(&self) -> Result<Mark, CodecError> {
        Ok(read_mark(&mut In::new(self.body))?)
    }

    /// Bytes of the mark that a block of entries begins with.
    pub(super) fn mark_bytes(&self) -> Result<usize, CodecError> {
        let mut input = In::new(self.body);
        read_mark(&mut input)?;
        Ok(input.at())
    }

    /// The entries of a block of entries. `codec`: what the entries of all blocks before it have made of it.
    ///
    /// # Errors
    /// The body is too short for the mark that it begins with.
    pub fn entries(&self, codec: Codec) -> Result<Reader<'l>, CodecError> {
        let mut input = In::new(self.body);
        read_mark(&mut input)?;
        Ok(Reader { input, codec, ended: false })
    }

    /// How many entries the log has, in the block of the end.
    ///
    /// # Errors
    /// The body is too short.
    pub fn total(&self) -> Result<u64, CodecError> {
        let mut input = In::new(self.body);
        read_mark(&mut input)?;
        Ok(input.varint()?)
    }
}

fn read_mark(input: &mut In<'_>) -> Result<Mark, super::bytes::Malformed> {
    Ok(Mark { n: input.varint()?, exits: input.varint()?, virtual_ns: input.varint()? })
}

/// Reads the entries of one block.
#[derive(Clone, Debug)]
pub struct Reader<'l> {
    input: In<'l>,
    codec: Codec,
    ended: bool,
}

impl<'l> Reader<'l> {
    /// No entries.
    #[must_use]
    pub fn nothing() -> Self {
        Self { input: In::new(&[]), codec: Codec::new(), ended: true }
    }

    /// What is needed to read the next block, when all of this one was read.
    #[must_use]
    pub fn into_codec(self) -> Codec {
        self.codec
    }

    /// Bytes read, from the beginning of the block's body behind its number.
    #[must_use]
    pub const fn at(&self) -> usize {
        self.input.at()
    }
}

impl<'l> Iterator for Reader<'l> {
    type Item = Result<Entry<'l>, CodecError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended || self.input.is_empty() {
            return None;
        }
        let mut input = self.input;
        let entry = self.codec.parse(&mut input);
        // Behind a bad entry nothing can be read; `at` stays where it begins.
        match entry {
            Ok(_) => self.input = input,
            Err(_) => self.ended = true,
        }
        Some(entry)
    }
}
