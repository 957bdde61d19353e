//! A descriptor ring with one buffer of its own for each descriptor.

use crate::descriptor::DESCRIPTOR_BYTES;
use hal::{DmaAllocator, DmaBuffer, DmaError, DmaRequest};

/// Bytes of a buffer: the receive buffer size that RCTL's zeros select.
pub const BUFFER_BYTES: usize = 2048;
/// The device wants rings aligned to 16 bytes; a page also keeps them from straddling one.
const ALIGN: usize = 4096;

/// Descriptors and buffers.
pub struct Ring<D> {
    descriptors: D,
    buffers: D,
    count: usize,
}

impl<D: DmaBuffer> Ring<D> {
    pub fn new(memory: &mut impl DmaAllocator<Buffer = D>, count: usize) -> Result<Self, DmaError> {
        let descriptors = memory.allocate(DmaRequest::new(count * DESCRIPTOR_BYTES, ALIGN))?;
        let buffers = memory.allocate(DmaRequest::new(count * BUFFER_BYTES, ALIGN))?;
        Ok(Self { descriptors, buffers, count })
    }

    /// Device address of the ring.
    pub fn base(&self) -> u64 {
        self.descriptors.physical()
    }

    /// Bytes of the ring.
    pub fn bytes(&self) -> u32 {
        (self.count * DESCRIPTOR_BYTES) as u32
    }

    /// Number of descriptors.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The index after `index`.
    pub fn after(&self, index: usize) -> usize {
        if index + 1 == self.count { 0 } else { index + 1 }
    }

    /// The second word of a descriptor.
    pub fn word(&self, index: usize) -> u64 {
        self.descriptors.read_u64(index * DESCRIPTOR_BYTES + 8)
    }

    /// Points a descriptor at its own buffer, with this second word. The address is written each time: what the device
    /// (or a bug) left there is not believed.
    pub fn arm(&mut self, index: usize, word: u64) {
        let buffer = self.buffers.physical() + (index * BUFFER_BYTES) as u64;
        self.descriptors.write_u64(index * DESCRIPTOR_BYTES, buffer);
        self.descriptors.write_u64(index * DESCRIPTOR_BYTES + 8, word);
    }

    /// Copies out of a buffer.
    pub fn read(&self, index: usize, out: &mut [u8]) {
        assert!(out.len() <= BUFFER_BYTES);
        self.buffers.read_bytes(index * BUFFER_BYTES, out);
    }

    /// Copies into a buffer, filling up with zeros to `at_least` bytes. Returns how many bytes it holds then.
    pub fn fill(&mut self, index: usize, bytes: &[u8], at_least: usize) -> usize {
        let len = bytes.len().max(at_least);
        assert!(len <= BUFFER_BYTES);
        let start = index * BUFFER_BYTES;
        self.buffers.write_bytes(start, bytes);
        const ZEROS: [u8; 64] = [0; 64];
        let mut end = bytes.len();
        while end < len {
            let step = (len - end).min(ZEROS.len());
            self.buffers.write_bytes(start + end, &ZEROS[..step]);
            end += step;
        }
        len
    }
}
