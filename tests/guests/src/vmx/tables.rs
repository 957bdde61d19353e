//! Page tables for a guest, in the window of the EPT, so that a test can protect them and look at their flags.
//!
//! The first GiB (this image) is mapped one to one with accessed and dirty bits set, so that running code sets none.
//! At [`TEST`] 512 pages of the window are mapped by one page table whose entries start without flags.

use super::ept;

/// First linear address of the test mapping.
pub const TEST: u64 = 0x80_0000_0000;
/// Pages of the window that hold the tables.
pub const PML4: usize = 0;
/// Page-directory-pointer table of this image.
pub const CODE_PDPT: usize = 1;
/// Page directory of this image.
pub const CODE_PD: usize = 2;
/// Page-directory-pointer table of the test mapping.
pub const TEST_PDPT: usize = 3;
/// Page directory of the test mapping.
pub const TEST_PD: usize = 4;
/// Page table of the test mapping.
pub const TEST_PT: usize = 5;
/// First data page: [`TEST`] maps here.
pub const DATA: usize = 8;
/// Data pages mapped.
pub const DATA_PAGES: u64 = 256;

/// Accessed bit of a guest's paging-structure entry.
pub const ACCESSED: u64 = 1 << 5;
/// Dirty bit of a guest's paging-structure entry.
pub const DIRTY: u64 = 1 << 6;
/// Present, writable, user.
const PRESENT: u64 = 7;

const fn page(number: usize) -> u64 {
    4096 * number as u64
}

/// Guest-physical address of the entries that a walk to [`TEST`] reads, from the PML4 to the page table.
pub const WALK: [u64; 4] = [
    ept::WINDOW + page(PML4) + 8,
    ept::WINDOW + page(TEST_PDPT),
    ept::WINDOW + page(TEST_PD),
    ept::WINDOW + page(TEST_PT),
];

/// Builds all tables and makes their EPT entries and those of the data RWX; gives the value of CR3.
pub fn build() -> u64 {
    for number in 0..DATA + DATA_PAGES as usize {
        ept::protect(number, ept::RWX);
    }
    for number in [PML4, CODE_PDPT, CODE_PD, TEST_PDPT, TEST_PD, TEST_PT] {
        for entry in 0..512 {
            ept::write(page(number) + 8 * entry, 0);
        }
    }
    let table = |number: usize| (ept::WINDOW + page(number)) | PRESENT;
    ept::write(page(PML4), table(CODE_PDPT) | ACCESSED);
    ept::write(page(CODE_PDPT), table(CODE_PD) | ACCESSED);
    for entry in 0..512 {
        ept::write(page(CODE_PD) + 8 * entry, (entry << 21) | 1 << 7 | PRESENT | ACCESSED | DIRTY);
    }
    ept::write(page(PML4) + 8, table(TEST_PDPT));
    ept::write(page(TEST_PDPT), table(TEST_PD));
    ept::write(page(TEST_PD), table(TEST_PT));
    for entry in 0..DATA_PAGES {
        ept::write(page(TEST_PT) + 8 * entry, (ept::WINDOW + page(DATA + entry as usize)) | PRESENT);
    }
    ept::WINDOW
}

/// The entry at a guest-physical address in the window.
pub fn entry(physical: u64) -> u64 {
    ept::read(physical - ept::WINDOW)
}

/// Sets bits of the entry at a guest-physical address in the window.
pub fn set(physical: u64, bits: u64) {
    ept::write(physical - ept::WINDOW, entry(physical) | bits);
}

/// Accessed and dirty bits of the entries of [`WALK`].
pub fn flags() -> [u64; 4] {
    WALK.map(|address| entry(address) & (ACCESSED | DIRTY))
}

/// Guest-physical address of the leaf entry of data page `number`.
pub const fn leaf(number: u64) -> u64 {
    ept::WINDOW + page(TEST_PT) + 8 * number
}
