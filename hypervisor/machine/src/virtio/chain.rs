//! Descriptor chains: what a driver lends to a device for one request, checked to lie in RAM.

use crate::output::SECTOR;
use crate::ram::{NotRam, Ram};

/// Descriptors of the longest chain. It is the largest queue's size, which the specification has as the limit (2.7.5.3.1);
/// an indirect table may be that long even in a smaller queue, since Linux makes such.
pub const CHAIN: usize = 256;

/// The driver broke the rules: the device stops until it is reset (DEVICE_NEEDS_RESET).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

impl From<NotRam> for Broken {
    fn from(_: NotRam) -> Self {
        Self
    }
}

/// A piece of guest memory, all of it RAM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Guest-physical address.
    pub address: u64,
    /// Bytes.
    pub length: u32,
}

/// A chain: first what the device may read, then what it may write (2.7.4.2).
#[derive(Clone, Debug)]
pub struct Chain {
    segments: [Segment; CHAIN],
    count: usize,
    readable: usize,
    /// The index of the first descriptor, by which the chain is given back.
    pub head: u16,
}

impl Chain {
    /// A chain of nothing.
    pub const fn new() -> Self {
        Self { segments: [Segment { address: 0, length: 0 }; CHAIN], count: 0, readable: 0, head: 0 }
    }

    /// Begins the chain with this head.
    pub(super) fn begin(&mut self, head: u16) {
        (self.count, self.readable, self.head) = (0, 0, head);
    }

    /// Adds a descriptor.
    ///
    /// # Errors
    /// [`Broken`] if it is not RAM, is to be read but follows one to be written, or is one too many.
    pub(super) fn push(&mut self, ram: &Ram<'_>, segment: Segment, writable: bool) -> Result<(), Broken> {
        ram.layout().place(segment.address, segment.length as usize).ok_or(Broken)?;
        *self.segments.get_mut(self.count).ok_or(Broken)? = segment;
        if !writable {
            if self.readable != self.count {
                return Err(Broken);
            }
            self.readable += 1;
        }
        self.count += 1;
        Ok(())
    }

    /// What the device may read.
    pub fn readable(&self) -> Cursor<'_> {
        Cursor { segments: &self.segments[..self.readable], offset: 0 }
    }

    /// What the device may write.
    pub fn writable(&self) -> Cursor<'_> {
        Cursor { segments: &self.segments[self.readable..self.count], offset: 0 }
    }
}

impl Default for Chain {
    fn default() -> Self {
        Self::new()
    }
}

/// A place in a list of segments, which are consumed from the front. How the driver cut its data into segments does not
/// matter (2.7.4.1).
#[derive(Clone, Debug)]
pub struct Cursor<'c> {
    segments: &'c [Segment],
    /// Bytes of the first segment that are consumed.
    offset: u32,
}

impl Cursor<'_> {
    /// Bytes that are left.
    pub fn left(&self) -> u64 {
        let all: u64 = self.segments.iter().map(|segment| u64::from(segment.length)).sum();
        all - u64::from(self.offset)
    }

    /// Consumes the next piece that lies together, at most so many bytes of it; `None` when nothing is left. Never empty, if
    /// `most` is not 0.
    pub fn piece(&mut self, most: u32) -> Option<Segment> {
        loop {
            let (first, rest) = self.segments.split_first()?;
            let left = first.length - self.offset;
            if left == 0 {
                (self.segments, self.offset) = (rest, 0);
                continue;
            }
            let length = left.min(most);
            let piece = Segment { address: first.address + u64::from(self.offset), length };
            self.offset += length;
            return Some(piece);
        }
    }

    /// Bytes of whole sectors at the front of the next piece, of so many that are wanted; 0 if a sector is cut there.
    pub(super) fn whole_sectors(&self, wanted: u64) -> u32 {
        let mut offset = self.offset;
        for segment in self.segments {
            let left = segment.length - offset;
            if left != 0 {
                let sectors = u64::from(left).min(wanted) / SECTOR as u64;
                return sectors as u32 * SECTOR as u32;
            }
            offset = 0;
        }
        0
    }

    /// Reads as much as there is, up to all of `out`; answers how much.
    ///
    /// # Errors
    /// None that a checked chain could give.
    pub fn read(&mut self, ram: &Ram<'_>, out: &mut [u8]) -> Result<usize, Broken> {
        let mut done = 0;
        while done < out.len() {
            let Some(piece) = self.piece(most(out.len() - done)) else { break };
            let length = piece.length as usize;
            out[done..done + length].copy_from_slice(ram.slice(piece.address, length)?);
            done += length;
        }
        Ok(done)
    }

    /// Reads exactly an array.
    ///
    /// # Errors
    /// [`Broken`] if there is less.
    pub fn read_array<const N: usize>(&mut self, ram: &Ram<'_>) -> Result<[u8; N], Broken> {
        let mut out = [0; N];
        if self.read(ram, &mut out)? == N { Ok(out) } else { Err(Broken) }
    }

    /// Writes as much as there is room for; answers how much.
    ///
    /// # Errors
    /// None that a checked chain could give.
    pub fn write(&mut self, ram: &mut Ram<'_>, bytes: &[u8]) -> Result<usize, Broken> {
        let mut done = 0;
        while done < bytes.len() {
            let Some(piece) = self.piece(most(bytes.len() - done)) else { break };
            let length = piece.length as usize;
            ram.write(piece.address, &bytes[done..done + length])?;
            done += length;
        }
        Ok(done)
    }

    /// Skips so many bytes, or all that is left.
    pub fn skip(&mut self, bytes: u64) {
        let mut left = bytes;
        while left != 0 {
            let Some(piece) = self.piece(u32::try_from(left).unwrap_or(u32::MAX)) else { break };
            left -= u64::from(piece.length);
        }
    }
}

/// A length as a descriptor has it.
fn most(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
