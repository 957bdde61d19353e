//! Physical memory as bytes, for what the loader and the firmware have left there. The kernel maps it one to one.

use super::paging;
use crate::memory::{self, FRAME, OutOfFrames, Zone};
use alloc::boxed::Box;
use boot::memory_map::Range;

/// The boot information the loader left at `address`; `None` if it says a size that cannot be.
///
/// `address` is what the loader passed in EBX.
pub fn boot_information(address: u64) -> Option<&'static [u8]> {
    if address == 0 || !address.is_multiple_of(8) {
        return None;
    }
    // SAFETY: the loader promises a boot information at this address below 4 GiB, which the boot page tables map.
    let size = unsafe { (address as *const u32).read_volatile() };
    if size > boot::multiboot::MAX_BYTES {
        return None;
    }
    Some(read_only(Range::from_length(address, size.into())))
}

/// Physical address of something that lies in one-to-one mapped memory.
pub fn address_of<T: ?Sized>(thing: &T) -> u64 {
    (&raw const *thing).addr() as u64
}

/// Bytes of physical memory that nobody writes while the kernel runs: boot information, modules, symbol table,
/// firmware tables. The caller has the range reserved and mapped.
pub fn read_only(range: Range) -> &'static [u8] {
    if range.is_empty() {
        return &[];
    }
    assert!(range.start != 0 && range.len() <= isize::MAX as u64);
    // SAFETY: 1. The range is mapped one to one. 2. It is reserved in the frame pools, so nothing else writes to it.
    unsafe { core::slice::from_raw_parts(range.start as *const u8, range.len() as usize) }
}

/// Bytes that a firmware table names: mapped if need be. `None` where no table can be: in memory that the kernel uses,
/// beyond the processor's addresses, or without memory for page tables.
pub fn firmware_bytes(address: u64, length: u64) -> Option<&'static [u8]> {
    let end = address.checked_add(length)?;
    if address < FRAME || length == 0 || end > 1 << paging::features().physical_bits {
        return None;
    }
    let range = Range::new(address, end);
    paging::ensure(range, paging::Rights::CONSTANT).ok()?;
    paging::is_constant(range).then(|| read_only(range))
}

/// Copies bytes to the start of frames that the caller has taken from the pool.
pub fn copy_to(frames: Range, bytes: &[u8]) {
    assert!(bytes.len() as u64 <= frames.len() && paging::is_data(frames.start));
    // SAFETY: 1. The frames are mapped writable (checked) and long enough (checked). 2. They are the caller's.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), frames.start as *mut u8, bytes.len()) }
}

/// Frames owned by whoever holds this, zeroed at first, for good: for VMCSs, EPT tables, guest memory, device rings.
#[derive(Debug)]
pub struct Pages {
    frames: Range,
}

impl Pages {
    /// Takes `count` contiguous frames at a multiple of `align` bytes.
    ///
    /// # Errors
    /// No such memory.
    ///
    /// # Panics
    /// After the guest has started.
    pub fn take(count: u64, align: u64, zone: Zone) -> Result<Pages, OutOfFrames> {
        let frames = memory::frames().take(count, align, zone)?;
        assert!(paging::is_data(frames.start));
        // SAFETY: 1. The frames were free and are ours now. 2. All free memory is mapped writable.
        unsafe { core::ptr::write_bytes(frames.start as *mut u8, 0, frames.len() as usize) };
        Ok(Pages { frames })
    }

    /// One frame anywhere.
    ///
    /// # Errors
    /// No such memory.
    pub fn one() -> Result<Pages, OutOfFrames> {
        Pages::take(1, FRAME, Zone::Any)
    }

    /// So many bytes that are never given back: what is too large for the heap.
    ///
    /// # Errors
    /// No such memory.
    pub fn for_good(bytes: usize) -> Result<&'static mut [u8], OutOfFrames> {
        let pages = Box::leak(Box::new(Pages::take((bytes as u64).div_ceil(FRAME), FRAME, Zone::Any)?));
        Ok(&mut pages.bytes_mut()[..bytes])
    }

    /// Physical address of the first byte.
    pub fn address(&self) -> u64 {
        self.frames.start
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.frames.len() as usize
    }

    /// The frames.
    pub fn range(&self) -> Range {
        self.frames
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: 1. The frames are mapped for good. 2. This value owns them, and is borrowed.
        unsafe { core::slice::from_raw_parts(self.frames.start as *const u8, self.len()) }
    }

    /// The bytes, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.frames.start as *mut u8, self.len()) }
    }

    /// The 64-bit words.
    pub fn words(&self) -> &[u64] {
        // SAFETY: as in `bytes`; frames are aligned for words.
        unsafe { core::slice::from_raw_parts(self.frames.start as *const u64, self.len() / 8) }
    }

    /// The 64-bit words, to be written.
    pub fn words_mut(&mut self) -> &mut [u64] {
        // SAFETY: as in `bytes_mut`; frames are aligned for words.
        unsafe { core::slice::from_raw_parts_mut(self.frames.start as *mut u64, self.len() / 8) }
    }
}
