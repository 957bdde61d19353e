//! A log that arrives piece by piece, and is read while it does: the backup's side of the logging channel.
//!
//! Bytes are pushed into a ring; whole blocks are checked and read out of it. Nothing is read from a block before all of it is
//! there. An entry's payload is kept in one of two buffers until the entry after the next is read, so that the replayer may look
//! one entry ahead.

use super::block::{BLOCK_MAX, BODY_MAX, Bad, Block, Kind, MAGIC, PREAMBLE, PREFIX, VERSION};
use super::buffer::{Full, LogBuffer};
use super::bytes::In;
use super::codec::Codec;
use super::entry::Entry;
use super::error::{Damage, Error};
use super::header::Header;
use crate::replayer::Source;

/// Bytes of memory that a stream needs beside its ring.
pub const WORKING_BYTES: usize = SCRATCH + 2 * BODY_MAX;

/// The longest piece that is looked at in one: the preamble with the header, or a block.
const SCRATCH: usize = PREAMBLE + BLOCK_MAX;

/// The memory is smaller than [`WORKING_BYTES`], or the ring is smaller than a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSmall;

/// The payload of an entry, in memory that goes with it.
#[derive(Debug, Default)]
pub struct Payload<'m> {
    memory: &'m mut [u8],
    length: usize,
}

impl Payload<'_> {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.memory.get(..self.length).unwrap_or_default()
    }

    /// Keeps a copy. No payload is longer than a block's body.
    fn keep(&mut self, [first, second]: [&[u8]; 2]) {
        self.length = first.len() + second.len();
        if let Some(place) = self.memory.get_mut(..self.length) {
            let (near, far) = place.split_at_mut(first.len());
            near.copy_from_slice(first);
            far.copy_from_slice(second);
        }
    }
}

/// A log that arrives.
#[derive(Debug)]
pub struct Stream<'m> {
    arrived: LogBuffer<'m>,
    /// The block that is being read, whole.
    block: &'m mut [u8],
    /// Where its next entry begins, and where its entries end.
    at: usize,
    end: usize,
    codec: Codec,
    payloads: [Payload<'m>; 2],
    /// Blocks that were taken out of the ring.
    blocks: u64,
    /// Entries that were read.
    entries: u64,
    /// Bytes of the blocks of which every entry was asked for the next of.
    executed: u64,
    /// The log's end was read.
    complete: bool,
}

impl<'m> Stream<'m> {
    /// An empty log. `ring`: where what has arrived waits; `working`: [`WORKING_BYTES`].
    ///
    /// # Errors
    /// One of them is too small.
    pub fn new(ring: &'m mut [u8], working: &'m mut [u8]) -> Result<Self, TooSmall> {
        if ring.len() < SCRATCH {
            return Err(TooSmall);
        }
        let (block, payloads) = working.split_at_mut_checked(SCRATCH).ok_or(TooSmall)?;
        let (first, second) = payloads.split_at_mut_checked(BODY_MAX).ok_or(TooSmall)?;
        let second = second.get_mut(..BODY_MAX).ok_or(TooSmall)?;
        Ok(Self {
            arrived: LogBuffer::new(ring),
            block,
            at: 0,
            end: 0,
            codec: Codec::new(),
            payloads: [Payload { memory: first, length: 0 }, Payload { memory: second, length: 0 }],
            blocks: 0,
            entries: 0,
            executed: 0,
            complete: false,
        })
    }

    /// Takes in what has arrived.
    ///
    /// # Errors
    /// There is no room: nothing was taken.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Full> {
        self.arrived.push(bytes)
    }

    /// Bytes that can be pushed.
    #[must_use]
    pub const fn room(&self) -> usize {
        self.arrived.free()
    }

    /// Bytes that have arrived, ever.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.arrived.pushed()
    }

    /// Bytes up to the end of the last block of which every entry was executed.
    #[must_use]
    pub const fn executed(&self) -> u64 {
        self.executed
    }

    /// The most bytes that have waited.
    #[must_use]
    pub const fn most(&self) -> usize {
        self.arrived.most()
    }

    /// Whether the log's end was read: nothing comes any more.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.complete
    }

    /// Reads the header, which comes first. `None`: it has not arrived whole.
    ///
    /// # Errors
    /// This is no log of this version, or the header is damaged.
    pub fn header(&mut self) -> Result<Option<Header<'_>>, Error> {
        if self.blocks != 0 || !self.look(PREAMBLE) {
            return Ok(None);
        }
        if self.block[..MAGIC.len()] != MAGIC {
            return Err(Error::NotALog);
        }
        let version = u16::from_le_bytes([self.block[MAGIC.len()], self.block[MAGIC.len() + 1]]);
        if version != VERSION {
            return Err(Error::Version(version));
        }
        let Some(length) = self.fetch(PREAMBLE)? else { return Ok(None) };
        if self.whole(PREAMBLE, length, 0)?.kind != Kind::Header {
            return Err(damage(0, PREAMBLE, Damage::Misplaced));
        }
        self.arrived.consume(PREAMBLE + length);
        self.executed = self.arrived.consumed();
        self.blocks = 1;
        let block = self.whole(PREAMBLE, length, 0)?;
        Header::parse(block.body).map(Some).map_err(Error::Header)
    }

    /// The payload of the entry of this number, from 0 on: one of the last two that were read. It is to be given back before the
    /// entry after the next is read.
    pub fn lend(&mut self, entry: u64) -> Payload<'m> {
        core::mem::take(&mut self.payloads[(entry & 1) as usize])
    }

    /// Gives back what was lent for that entry.
    pub fn give_back(&mut self, entry: u64, payload: Payload<'m>) {
        self.payloads[(entry & 1) as usize] = payload;
    }

    /// Reads the next entry, without its payload.
    fn read(&mut self) -> Result<Option<Entry<'static>>, Error> {
        while self.at == self.end {
            // Who asks for more has executed what there was.
            self.executed = self.arrived.consumed();
            if self.complete || !self.next_block()? {
                return Ok(None);
            }
        }
        let mut input = In::new(&self.block[self.at..self.end]);
        let entry = self.codec.parse(&mut input).map_err(|error| Error::Corrupt {
            block: self.blocks - 1,
            at: self.executed as usize + self.at,
            damage: Damage::Entry(self.entries, error),
        })?;
        self.payloads[(self.entries & 1) as usize].keep(entry.event.payload());
        self.at += input.at();
        self.entries += 1;
        Ok(Some(Entry { place: entry.place, check: entry.check, event: entry.event.with_payload(&[]) }))
    }

    /// Takes the next block out of the ring. False: it is not there yet.
    fn next_block(&mut self) -> Result<bool, Error> {
        let begins = self.arrived.consumed() as usize;
        if self.blocks == 0 {
            return Ok(false);
        }
        let Some(length) = self.fetch(0)? else { return Ok(false) };
        let number = self.blocks;
        let block = self.whole(0, length, begins)?;
        if block.sequence != number {
            return Err(damage(number, begins, Damage::Sequence(block.sequence)));
        }
        let bad = |error| damage(number, begins, Damage::Entry(0, error));
        let (mut at, mut end, mut complete) = (0, 0, false);
        match block.kind {
            Kind::Header => return Err(damage(number, begins, Damage::Misplaced)),
            Kind::Note => {}
            Kind::Entries => {
                let mark = block.mark_bytes().map_err(bad)?;
                (at, end) = (block.body_at + mark, block.body_at + block.body.len());
            }
            Kind::End => {
                let total = block.total().map_err(bad)?;
                if total != self.entries {
                    return Err(damage(number, begins, Damage::Entries(total)));
                }
                complete = true;
            }
        }
        (self.at, self.end) = (at, end);
        self.complete |= complete;
        self.blocks += 1;
        self.arrived.consume(length);
        Ok(true)
    }

    /// Copies the first `count` bytes of the ring to the block's place. False: there are not so many.
    fn look(&mut self, count: usize) -> bool {
        let (near, far) = self.arrived.readable();
        if near.len() + far.len() < count || count > self.block.len() {
            return false;
        }
        let (first, second) = self.block[..count].split_at_mut(count.min(near.len()));
        first.copy_from_slice(&near[..first.len()]);
        second.copy_from_slice(&far[..second.len()]);
        true
    }

    /// Copies the block that begins `skip` bytes into the ring, and what is before it, to the block's place. Gives the block's
    /// length; `None`: it has not arrived whole.
    fn fetch(&mut self, skip: usize) -> Result<Option<usize>, Error> {
        let begins = self.arrived.consumed() as usize + skip;
        if !self.look(skip + PREFIX) {
            return Ok(None);
        }
        let missing = match Block::at(&self.block[..skip + PREFIX], skip, false) {
            Err(Bad::Short(missing)) => missing,
            Err(Bad::Damaged(_, damage)) => return Err(self::damage(self.blocks, begins, damage)),
            // A prefix alone is no block.
            Ok(_) => return Ok(None),
        };
        let length = PREFIX + missing;
        Ok(self.look(skip + length).then_some(length))
    }

    /// The block of this length at this place of the scratch memory, checked. `begins`: where that place is in the log.
    fn whole(&self, at: usize, length: usize, begins: usize) -> Result<Block<'_>, Error> {
        match Block::at(&self.block[..at + length], at, true) {
            Ok(Some(block)) => Ok(block),
            Err(Bad::Damaged(place, damage)) => {
                Err(self::damage(self.blocks, (begins + place).saturating_sub(at), damage))
            }
            _ => Err(damage(self.blocks, begins, Damage::Prefix)),
        }
    }
}

const fn damage(block: u64, at: usize, damage: Damage) -> Error {
    Error::Corrupt { block, at, damage }
}

impl Source<'static> for Stream<'_> {
    type Error = Error;

    fn next(&mut self) -> Result<Option<Entry<'static>>, Error> {
        self.read()
    }
}
