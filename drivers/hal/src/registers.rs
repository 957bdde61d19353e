//! A device's register window.

/// One window of device registers (a memory BAR), addressed by byte offset from its start.
///
/// Accesses are volatile, of exactly the width asked for, never merged, split, repeated or reordered with one
/// another. Both take `&self`: the device is the owner of the state behind, and a read may change it too. An
/// implementor asserts that `offset` is aligned to the access and inside the window: a driver that violates this has
/// a bug, and touching a neighbouring device would hide it.
pub trait Registers {
    /// Length of the window in bytes.
    fn len(&self) -> usize;

    /// Reads the 32-bit register at byte `offset`.
    fn read_u32(&self, offset: usize) -> u32;

    /// Writes the 32-bit register at byte `offset`.
    fn write_u32(&self, offset: usize, value: u32);

    /// Reads the 64-bit register at byte `offset`.
    ///
    /// The default makes two 32-bit accesses, low half first, which every device with 64-bit registers that this
    /// project drives allows (NVMe 2.0, 3.1.1); an implementor with a native 64-bit access overrides it.
    fn read_u64(&self, offset: usize) -> u64 {
        let low = self.read_u32(offset);
        let high = self.read_u32(offset + 4);
        u64::from(high) << 32 | u64::from(low)
    }

    /// Writes the 64-bit register at byte `offset`, low half first unless the implementor has a native access.
    fn write_u64(&self, offset: usize, value: u64) {
        self.write_u32(offset, value as u32);
        self.write_u32(offset + 4, (value >> 32) as u32);
    }

    /// True for a window of no bytes (a BAR that is not implemented).
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sets the bits of `set` and clears those of `clear` in the 32-bit register at `offset`; returns what was
    /// written.
    fn modify_u32(&self, offset: usize, clear: u32, set: u32) -> u32 {
        let value = self.read_u32(offset) & !clear | set;
        self.write_u32(offset, value);
        value
    }
}

impl<R: Registers + ?Sized> Registers for &R {
    fn len(&self) -> usize {
        (**self).len()
    }
    fn read_u32(&self, offset: usize) -> u32 {
        (**self).read_u32(offset)
    }
    fn write_u32(&self, offset: usize, value: u32) {
        (**self).write_u32(offset, value);
    }
    fn read_u64(&self, offset: usize) -> u64 {
        (**self).read_u64(offset)
    }
    fn write_u64(&self, offset: usize, value: u64) {
        (**self).write_u64(offset, value);
    }
}
