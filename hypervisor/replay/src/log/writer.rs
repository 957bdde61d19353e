//! The writer of a log: packs entries into blocks in a buffer of its own. It does not allocate.

use super::block::{BLOCK_MAX, BODY_MAX, CHECKSUM, Kind, MAGIC, PREAMBLE, PREFIX, VERSION, prefix};
use super::bytes::{NoRoom, Out};
use super::checksum;
use super::codec::{Codec, Frames, Mark};
use super::entry::Entry;
use super::flows::FRAME_MAX;
use super::header::{BadHeader, Header};

/// Bytes that the writer's buffer must have.
pub const BUFFER: usize = PREAMBLE + BLOCK_MAX;
/// Bytes of the longest payload that always fits into a block of its own.
pub const PAYLOAD_MAX: usize = FRAME_MAX;

/// The writer's buffer is smaller than [`BUFFER`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSmall;

/// Why an entry was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The block is full: [`close`](Writer::close) it and come again.
    Full,
    /// It does not fit into any block.
    TooLong,
}

/// Writes a log.
#[derive(Debug)]
pub struct Writer<B> {
    buffer: B,
    /// Bytes of the block so far, with its prefix; 0: no block is begun.
    used: usize,
    /// The number of the next block that is closed.
    sequence: u64,
    /// Where the block begins.
    start: Mark,
    codec: Codec,
    /// Entries in the block so far.
    pending: u32,
    /// Entries so far.
    entries: u64,
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Writer<B> {
    /// A writer with this buffer, of an execution that has not begun.
    ///
    /// # Errors
    /// The buffer has fewer than [`BUFFER`] bytes.
    pub fn new(buffer: B) -> Result<Self, TooSmall> {
        if buffer.as_ref().len() < BUFFER {
            return Err(TooSmall);
        }
        let start = Mark { n: 0, exits: 0, virtual_ns: 0 };
        Ok(Self { buffer, used: 0, sequence: 0, start, codec: Codec::new(), pending: 0, entries: 0 })
    }

    /// A writer that writes frames like this.
    #[must_use]
    pub fn with_frames(self, frames: Frames) -> Self {
        Self { codec: self.codec.with_frames(frames), ..self }
    }

    /// What the log begins with: magic, version and the block of the header. To be called once, first.
    ///
    /// # Errors
    /// The header is too long.
    pub fn begin(&mut self, header: &Header<'_>) -> Result<&[u8], BadHeader> {
        self.sequence = 0;
        let buffer = self.buffer.as_mut();
        let (preamble, block) = buffer.split_at_mut(PREAMBLE);
        preamble[..MAGIC.len()].copy_from_slice(&MAGIC);
        preamble[MAGIC.len()..].copy_from_slice(&VERSION.to_le_bytes());
        let mut out = Out::new(&mut block[PREFIX..PREFIX + BODY_MAX]);
        out.varint(0).map_err(|NoRoom| BadHeader::TooLong)?;
        header.emit(&mut out)?;
        let used = PREFIX + out.used();
        let length = seal(block, Kind::Header, used);
        self.sequence = 1;
        Ok(&self.buffer.as_ref()[..PREAMBLE + length])
    }

    /// Adds an entry to the block.
    ///
    /// # Errors
    /// It does not fit; then nothing is changed.
    pub fn entry(&mut self, entry: &Entry<'_>) -> Result<(), Refused> {
        let buffer = self.buffer.as_mut();
        if self.used == 0 {
            let mut out = Out::new(&mut buffer[PREFIX..PREFIX + BODY_MAX]);
            begin_body(&mut out, self.sequence, &self.start).map_err(|NoRoom| Refused::TooLong)?;
            self.used = PREFIX + out.used();
            self.pending = 0;
        }
        let mut out = Out::new(&mut buffer[self.used..PREFIX + BODY_MAX]);
        match self.codec.emit(entry, &mut out) {
            Ok(()) => {
                self.used += out.used();
                self.pending += 1;
                self.entries += 1;
                Ok(())
            }
            Err(NoRoom) if self.pending == 0 => Err(Refused::TooLong),
            Err(NoRoom) => Err(Refused::Full),
        }
    }

    /// Entries so far, all blocks.
    pub const fn entries(&self) -> u64 {
        self.entries
    }

    /// Entries in the block that is not closed.
    pub const fn pending(&self) -> u32 {
        self.pending
    }

    /// Bytes that the block would have if it were closed now; 0 when it has no entry.
    pub const fn pending_bytes(&self) -> usize {
        if self.pending == 0 { 0 } else { self.used + CHECKSUM }
    }

    /// Whether the block has no entry.
    pub const fn is_empty(&self) -> bool {
        self.pending == 0
    }

    /// Blocks so far, the header included.
    pub const fn blocks(&self) -> u64 {
        self.sequence
    }

    /// Ends the block; the next begins at `now`. Gives the whole block's bytes, or nothing if it has no entry.
    pub fn close(&mut self, now: &Mark) -> Option<&[u8]> {
        self.start = *now;
        let used = core::mem::take(&mut self.used);
        if core::mem::take(&mut self.pending) == 0 {
            return None;
        }
        let length = seal(self.buffer.as_mut(), Kind::Entries, used);
        self.sequence += 1;
        self.buffer.as_ref().get(..length)
    }

    /// Ends the log: the last block. Entries that were not [`close`](Self::close)d are lost.
    pub fn end(&mut self, now: &Mark) -> &[u8] {
        (self.used, self.pending) = (0, 0);
        let (sequence, entries) = (self.sequence, self.entries);
        let buffer = self.buffer.as_mut();
        let mut out = Out::new(&mut buffer[PREFIX..PREFIX + BODY_MAX]);
        // Five numbers always fit.
        let _ = begin_body(&mut out, sequence, now).and_then(|()| out.varint(entries));
        let used = PREFIX + out.used();
        let length = seal(buffer, Kind::End, used);
        self.sequence += 1;
        &self.buffer.as_ref()[..length]
    }
}

/// A block of text for readers of the log, to be put behind one with `sequence` blocks. Gives its length in `buffer`.
///
/// # Errors
/// It does not fit into a block, or not into `buffer`.
pub fn note(sequence: u64, text: &str, buffer: &mut [u8]) -> Result<usize, NoRoom> {
    let room = buffer.len().checked_sub(PREFIX + CHECKSUM).ok_or(NoRoom)?.min(BODY_MAX);
    let mut out = Out::new(&mut buffer[PREFIX..PREFIX + room]);
    out.varint(sequence)?;
    out.raw(text.as_bytes())?;
    let used = PREFIX + out.used();
    Ok(seal(buffer, Kind::Note, used))
}

/// What the body of entries and that of the end begin with.
fn begin_body(out: &mut Out<'_>, sequence: u64, start: &Mark) -> Result<(), NoRoom> {
    out.varint(sequence)?;
    out.varint(start.n)?;
    out.varint(start.exits)?;
    out.varint(start.virtual_ns)
}

/// Writes prefix and checksum around a body that ends at `used`. Gives the block's length.
fn seal(block: &mut [u8], kind: Kind, used: usize) -> usize {
    block[..PREFIX].copy_from_slice(&prefix(kind, used - PREFIX));
    let sum = checksum::block(&block[..used]);
    block[used..used + CHECKSUM].copy_from_slice(&sum.to_le_bytes());
    used + CHECKSUM
}
