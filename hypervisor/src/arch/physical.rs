//! Physical memory as bytes, for what the loader and the firmware have left there. The kernel maps it one to one.

use boot::memory_map::Range;

/// The boot information the loader left at `address`; `None` if it says a size that cannot be.
///
/// `address` is what the loader passed in EBX.
pub fn boot_information(address: u64) -> Option<&'static [u8]> {
    if address == 0 || address % 8 != 0 {
        return None;
    }
    // SAFETY: the loader promises a boot information at this address below 4 GiB, which the boot page tables map.
    let size = unsafe { (address as *const u32).read_volatile() };
    if size > boot::multiboot::MAX_BYTES {
        return None;
    }
    Some(read_only(Range::from_length(address, size.into())))
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
