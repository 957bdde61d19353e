//! Opens a log: checks all of it, then walks over it.

use super::block::{Bad, Block, Kind, MAGIC, PREAMBLE, Reader, VERSION};
use super::codec::{Codec, Mark};
use super::entry::Entry;
use super::error::{Damage, Error, Label};
use super::header::{Header, Profile};
use crate::replayer::Source;

/// A log that was checked from its beginning to its end.
#[derive(Clone, Copy, Debug)]
pub struct Log<'l> {
    bytes: &'l [u8],
    header: Header<'l>,
    blocks: u64,
    entries: u64,
    end: Option<Mark>,
}

impl<'l> Log<'l> {
    /// Opens a log that must be sound and complete.
    ///
    /// # Errors
    /// It is not.
    pub fn open(bytes: &'l [u8]) -> Result<Self, Error> {
        match Self::salvage(bytes)? {
            (log, None) => Ok(log),
            (_, Some(error)) => Err(error),
        }
    }

    /// Opens what is sound of a log: the whole blocks before the first damage, and the damage.
    ///
    /// # Errors
    /// Not even the header can be read.
    pub fn salvage(bytes: &'l [u8]) -> Result<(Self, Option<Error>), Error> {
        let (header, mut at) = open_header(bytes)?;
        let mut log = Self { bytes: &[], header, blocks: 1, entries: 0, end: None };
        let mut codec = Codec::new();
        let wrong = loop {
            match log.add(bytes, at, &mut codec) {
                Ok(Some(length)) => at += length,
                Ok(None) if log.end.is_none() => break Some(Error::NoEnd { blocks: log.blocks, bytes: at }),
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        log.bytes = bytes.get(..at).unwrap_or_default();
        Ok((log, wrong))
    }

    /// Checks the block that begins at this byte. Gives its length; nothing at the log's end.
    fn add(&mut self, bytes: &'l [u8], at: usize, codec: &mut Codec) -> Result<Option<usize>, Error> {
        let number = self.blocks;
        let corrupt = |at, damage| Error::Corrupt { block: number, at, damage };
        let block = Block::at(bytes, at, true).map_err(|bad| name(bad, number, at))?;
        let Some(block) = block else { return Ok(None) };
        if block.sequence != number {
            return Err(corrupt(at, Damage::Sequence(block.sequence)));
        }
        if self.end.is_some() && block.kind != Kind::Note {
            return Err(corrupt(at, Damage::AfterEnd));
        }
        let entry = |at, number, error| corrupt(at, Damage::Entry(number, error));
        match block.kind {
            Kind::Header => return Err(corrupt(at, Damage::Misplaced)),
            Kind::Note => {
                core::str::from_utf8(block.body).map_err(|_| corrupt(block.body_at, Damage::Text))?;
            }
            Kind::Entries => {
                let mut reader = block
                    .entries(core::mem::take(codec))
                    .map_err(|error| entry(block.body_at, self.entries, error))?;
                let mut count = 0;
                while let Some(next) = reader.next() {
                    next.map_err(|error| entry(block.body_at + reader.at(), self.entries + count, error))?;
                    count += 1;
                }
                self.entries += count;
                *codec = reader.into_codec();
            }
            Kind::End => {
                let mark = block.mark().map_err(|error| entry(block.body_at, self.entries, error))?;
                let total = block.total().map_err(|error| entry(block.body_at, self.entries, error))?;
                if total != self.entries {
                    return Err(corrupt(block.body_at, Damage::Entries(total)));
                }
                self.end = Some(mark);
            }
        }
        self.blocks += 1;
        Ok(Some(block.length))
    }

    /// The header.
    #[must_use]
    pub const fn header(&self) -> &Header<'l> {
        &self.header
    }

    /// How many blocks it has, the header's included.
    #[must_use]
    pub const fn blocks(&self) -> u64 {
        self.blocks
    }

    /// How many entries.
    #[must_use]
    pub const fn entries(&self) -> u64 {
        self.entries
    }

    /// How far the recorded execution went, if the log says so at its end.
    #[must_use]
    pub const fn end(&self) -> Option<Mark> {
        self.end
    }

    /// The sound bytes.
    #[must_use]
    pub const fn bytes(&self) -> &'l [u8] {
        self.bytes
    }

    /// Compares the processor profile with that of this host's guest.
    ///
    /// # Errors
    /// [`Error::Profile`].
    pub fn require_profile(&self, own: &Profile<'_>) -> Result<(), Error> {
        let recorded = &self.header.profile;
        if recorded == own {
            return Ok(());
        }
        let label = |profile: &Profile<'_>| (Label::new(profile.name), profile.hash);
        Err(Error::Profile { recorded: label(recorded), own: label(own) })
    }

    /// All blocks in their order, the header first.
    #[must_use]
    pub const fn walk(&self) -> Blocks<'l> {
        Blocks { bytes: self.bytes, at: PREAMBLE }
    }

    /// All entries in their order.
    #[must_use]
    pub fn read(&self) -> Entries<'l> {
        Entries { blocks: self.walk(), reader: Reader::nothing() }
    }

    /// The texts that were added to the recording.
    pub fn notes(&self) -> impl Iterator<Item = &'l str> + use<'l> {
        self.walk()
            .filter(|block| block.kind == Kind::Note)
            .filter_map(|block| core::str::from_utf8(block.body).ok())
    }
}

/// The header, and where the next block begins.
fn open_header(bytes: &[u8]) -> Result<(Header<'_>, usize), Error> {
    let begins = bytes.len().min(MAGIC.len());
    if begins == 0 || bytes.get(..begins) != MAGIC.get(..begins) {
        return Err(Error::NotALog);
    }
    let Some((preamble, _)) = bytes.split_at_checked(PREAMBLE) else {
        return Err(Error::Truncated { block: 0, at: 0, missing: PREAMBLE - bytes.len() });
    };
    let version = preamble.last_chunk().map_or(0, |version| u16::from_le_bytes(*version));
    if version != VERSION {
        return Err(Error::Version(version));
    }
    let block = match Block::at(bytes, PREAMBLE, true).map_err(|bad| name(bad, 0, PREAMBLE))? {
        Some(block) => block,
        None => return Err(Error::Truncated { block: 0, at: PREAMBLE, missing: 1 }),
    };
    let damage = match (block.kind, block.sequence) {
        (Kind::Header, 0) => None,
        (Kind::Header, other) => Some(Damage::Sequence(other)),
        _ => Some(Damage::Misplaced),
    };
    if let Some(damage) = damage {
        return Err(Error::Corrupt { block: 0, at: PREAMBLE, damage });
    }
    let header = Header::parse(block.body).map_err(Error::Header)?;
    Ok((header, PREAMBLE + block.length))
}

/// What a bad block means for the log.
const fn name(bad: Bad, block: u64, begins: usize) -> Error {
    match bad {
        Bad::Short(missing) => Error::Truncated { block, at: begins, missing },
        Bad::Damaged(at, damage) => Error::Corrupt { block, at, damage },
    }
}

/// The blocks of a log that was checked.
#[derive(Clone, Copy, Debug)]
pub struct Blocks<'l> {
    bytes: &'l [u8],
    at: usize,
}

impl<'l> Iterator for Blocks<'l> {
    type Item = Block<'l>;

    fn next(&mut self) -> Option<Block<'l>> {
        // The checksums were looked at when the log was opened.
        let block = Block::at(self.bytes, self.at, false).ok()??;
        self.at += block.length;
        Some(block)
    }
}

/// The entries of a log that was checked. A clone is a position in it.
#[derive(Clone, Debug)]
pub struct Entries<'l> {
    blocks: Blocks<'l>,
    reader: Reader<'l>,
}

impl<'l> Iterator for Entries<'l> {
    type Item = Entry<'l>;

    fn next(&mut self) -> Option<Entry<'l>> {
        loop {
            if let Some(entry) = self.reader.next() {
                return entry.ok();
            }
            let block = self.blocks.find(|block| block.kind == Kind::Entries)?;
            let codec = core::mem::replace(&mut self.reader, Reader::nothing()).into_codec();
            self.reader = block.entries(codec).ok()?;
        }
    }
}

impl<'l> Source<'l> for Entries<'l> {
    type Error = Error;

    fn next(&mut self) -> Result<Option<Entry<'l>>, Error> {
        Ok(Iterator::next(self))
    }
}
