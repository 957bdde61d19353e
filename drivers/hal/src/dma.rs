//! Memory that a device reads and writes by itself.

use core::fmt;

/// A block of memory shared with a device: contiguous in device addresses, pinned as long as the value lives.
///
/// The content can change under the driver at any time, so it is never lent as a slice: accesses are volatile and
/// copy. Offsets are bytes from the start. An access outside the block, or one not aligned to its width, is a bug
/// of the driver: implementors assert, so that it stops here and not in somebody else's memory. Values are
/// little-endian in memory, as PCI devices have them.
///
/// Order: an implementor keeps the program order of all calls on this trait and on [`Registers`](crate::Registers)
/// of the same driver as far as the device can see (on x86 with write-back memory: volatile accesses and compiler
/// fences). A driver therefore writes a descriptor, then its doorbell, and needs no fence of its own.
pub trait DmaBuffer {
    /// Address of the first byte as the device must be told it (host-physical: there is no IOMMU in the way).
    fn physical(&self) -> u64;

    /// Length in bytes.
    fn len(&self) -> usize;

    /// Copies `out.len()` bytes from `offset` on.
    fn read_bytes(&self, offset: usize, out: &mut [u8]);

    /// Copies `bytes` to `offset` on.
    fn write_bytes(&mut self, offset: usize, bytes: &[u8]);

    /// Reads the aligned 64-bit word at `offset` in one access.
    fn read_u64(&self, offset: usize) -> u64;

    /// Writes the aligned 64-bit word at `offset` in one access.
    fn write_u64(&mut self, offset: usize, value: u64);

    /// Reads the aligned 32-bit word at `offset` in one access.
    fn read_u32(&self, offset: usize) -> u32;

    /// Writes the aligned 32-bit word at `offset` in one access.
    fn write_u32(&mut self, offset: usize, value: u32);

    /// True for a block of no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sets all bytes to zero.
    fn clear(&mut self) {
        const CHUNK: usize = 64;
        let zeroes = [0u8; CHUNK];
        let mut offset = 0;
        while offset < self.len() {
            let step = CHUNK.min(self.len() - offset);
            self.write_bytes(offset, &zeroes[..step]);
            offset += step;
        }
    }
}

/// What a driver wants of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaRequest {
    /// Length in bytes, not 0.
    pub len: usize,
    /// Alignment of the first byte in bytes, a power of two.
    pub align: usize,
    /// Highest device address that the last byte may have (devices with fewer address bits).
    pub highest: u64,
}

impl DmaRequest {
    /// `len` bytes, aligned to `align`, anywhere.
    pub const fn new(len: usize, align: usize) -> Self {
        Self { len, align, highest: u64::MAX }
    }
}

/// Gives out DMA memory, zeroed. Called while a driver starts, never later.
pub trait DmaAllocator {
    /// What it gives.
    type Buffer: DmaBuffer;

    /// A zeroed block as asked for.
    fn allocate(&mut self, request: DmaRequest) -> Result<Self::Buffer, DmaError>;
}

/// A block could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmaError {
    /// The request itself is wrong: length 0, or an alignment that is not a power of two.
    Invalid(DmaRequest),
    /// No memory left that fits.
    Exhausted(DmaRequest),
}

impl fmt::Display for DmaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(r) => {
                write!(f, "a DMA block of {} bytes aligned to {} cannot exist", r.len, r.align)
            }
            Self::Exhausted(r) => write!(
                f,
                "no DMA memory left for {} bytes aligned to {} below {:#x}: give the host more memory",
                r.len, r.align, r.highest
            ),
        }
    }
}

impl core::error::Error for DmaError {}
