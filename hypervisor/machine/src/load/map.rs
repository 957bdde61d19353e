//! Where things lie in the guest's memory, and the memory map that the guest is told.

use core::ops::Range;

use heapless::Vec;

use crate::ram::Layout;

/// What a kernel is given below 640 KiB. All of it is in usable memory: the kernel takes what it needs and reuses the rest.
pub mod low {
    /// The descriptor table.
    pub const GDT: u64 = 0x1000;
    /// Linux: `struct boot_params`, the "zero page".
    pub const ZERO_PAGE: u64 = 0x2000;
    /// Linux: `struct setup_data`.
    pub const SETUP_DATA: u64 = 0x3000;
    /// Six pages: PML4, page-directory-pointer table, four page directories.
    pub const PAGE_TABLES: u64 = 0x4000;
    /// The first stack ends here; it has at least 4 KiB.
    pub const STACK_TOP: u64 = 0x1_0000;
    /// The command line, or the Multiboot information.
    pub const INFORMATION: u64 = 0x2_0000;
    /// The end of what can be used below 640 KiB: an extended BIOS data area begins, empty but for its size.
    pub const END: u64 = 0x9_fc00;
}

/// The BIOS data area's pointer to the extended one: a segment.
pub const BDA_EBDA_SEGMENT: u64 = 0x40e;
/// The BIOS data area's count of KiB before the extended one.
pub const BDA_BASE_MEMORY: u64 = 0x413;

/// Where legacy video memory begins.
pub const VIDEO: u64 = 0xa_0000;
/// Where the system BIOS begins: tables for kernels that start without firmware, and its shadow for those that have one.
pub const BIOS: u64 = 0xe_0000;
/// Where memory above the BIOS begins.
pub const EXTENDED: u64 = 0x10_0000;

/// What a part of the address space is: ACPI 6.5, table 15.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// Usable memory.
    Ram = 1,
    /// Not to be used.
    Reserved = 2,
}

/// An entry of the memory map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The guest-physical addresses.
    pub range: Range<u64>,
    /// What they are.
    pub kind: Kind,
}

/// Most entries of a memory map of ours.
pub const ENTRIES: usize = 6;

/// The memory map for a kernel that starts without firmware.
pub fn memory_map(layout: Layout) -> Vec<Entry, ENTRIES> {
    let all = [
        Entry { range: 0..low::END, kind: Kind::Ram },
        Entry { range: low::END..VIDEO, kind: Kind::Reserved },
        Entry { range: BIOS..EXTENDED, kind: Kind::Reserved },
        Entry { range: EXTENDED..layout.low().end, kind: Kind::Ram },
        Entry { range: layout.high(), kind: Kind::Ram },
    ];
    all.into_iter().filter(|entry| !entry.range.is_empty()).collect()
}

/// The memory that there is, for firmware, which makes its own map of it.
pub fn memory(layout: Layout) -> Vec<Entry, ENTRIES> {
    let all = [layout.low(), layout.high()].map(|range| Entry { range, kind: Kind::Ram });
    all.into_iter().filter(|entry| !entry.range.is_empty()).collect()
}

impl Entry {
    /// The 20 bytes of INT 15h E820h, of Linux's `boot_e820_entry` and of fw_cfg's etc/e820.
    pub fn e820(&self) -> [u8; 20] {
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&self.range.start.to_le_bytes());
        bytes[8..16].copy_from_slice(&(self.range.end - self.range.start).to_le_bytes());
        bytes[16..].copy_from_slice(&(self.kind as u32).to_le_bytes());
        bytes
    }
}
