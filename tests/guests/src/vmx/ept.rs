//! An identity EPT of the first 4 GiB, with one window of 4-KiB pages whose permissions a test can change.

use core::{arch::asm, cell::UnsafeCell};

/// Where the window is: guest-physical and host-physical. Beyond the image; tests have at least 128 MiB of memory.
pub const WINDOW: u64 = 0x400_0000;
/// Pages of the window.
pub const WINDOW_PAGES: usize = 512;

/// Read, write, execute.
pub const RWX: u64 = 7;
/// Read and execute.
pub const RX: u64 = 5;
/// Accessed flag of an EPT entry.
pub const ACCESSED: u64 = 1 << 8;
/// Dirty flag of an EPT leaf entry.
pub const DIRTY: u64 = 1 << 9;
/// Memory type write-back of a leaf.
const WRITE_BACK: u64 = 6 << 3;

#[repr(align(4096))]
struct Tables(UnsafeCell<[[u64; 512]; 7]>);
// SAFETY: one processor builds and runs the guest.
unsafe impl Sync for Tables {}
static TABLES: Tables = Tables(UnsafeCell::new([[0; 512]; 7]));

const PML4: usize = 0;
const PDPT: usize = 1;
/// First of four page directories.
const PD: usize = 2;
const PT: usize = 6;

/// Builds the tables: all RWX.
pub(super) fn build() {
    // SAFETY: see `Tables`; the table addresses are physical since memory is mapped one to one.
    let tables = unsafe { &mut *TABLES.0.get() };
    let address = |table: usize| TABLES.0.get() as u64 + 4096 * table as u64;
    tables[PML4][0] = address(PDPT) | RWX;
    for gib in 0..4 {
        tables[PDPT][gib] = address(PD + gib) | RWX;
        for (number, entry) in tables[PD + gib].iter_mut().enumerate() {
            let at = (gib * 512 + number) as u64 * 0x20_0000;
            // Uncached where the APICs are.
            let kind = if gib == 3 { 0 } else { WRITE_BACK };
            *entry = at | 1 << 7 | kind | RWX;
        }
    }
    tables[PD][(WINDOW >> 21) as usize] = address(PT) | RWX;
    for (page, entry) in tables[PT].iter_mut().enumerate() {
        *entry = (WINDOW + 4096 * page as u64) | WRITE_BACK | RWX;
    }
}

/// EPT pointer: four levels, write-back tables, accessed and dirty flags or not.
pub fn pointer(accessed_dirty: bool) -> u64 {
    TABLES.0.get() as u64 | 3 << 3 | 6 | u64::from(accessed_dirty) << 6
}

/// Sets the permissions of a page of the window (0: not present). [`super::Vm::invalidate`] afterwards.
pub fn protect(page: usize, permissions: u64) {
    assert!(page < WINDOW_PAGES && permissions & !RWX == 0, "page {page} permissions {permissions}");
    // SAFETY: see `Tables`.
    unsafe { (*TABLES.0.get())[PT][page] = (WINDOW + 4096 * page as u64) | WRITE_BACK | permissions };
}

/// The EPT entry of a page of the window.
pub fn entry(page: usize) -> u64 {
    // SAFETY: see `Tables`; volatile since the processor sets flags.
    unsafe { (&raw const (*TABLES.0.get())[PT][page]).read_volatile() }
}

/// INVEPT, all contexts; and all linear translations of all VPIDs.
pub(super) fn invalidate() {
    let descriptor = [0u64; 2];
    // SAFETY: VMX is on; dropping translations changes no memory.
    unsafe {
        asm!("invept {t}, [{d}]", "invvpid {t}, [{d}]", t = in(reg) 2u64, d = in(reg) &descriptor,
            options(nostack, readonly));
    }
}

/// Reads eight bytes of the window.
pub fn read(offset: u64) -> u64 {
    assert!(offset.is_multiple_of(8) && offset < 4096 * WINDOW_PAGES as u64, "offset {offset:#x}");
    // SAFETY: the window is memory that belongs to nobody else; mapped one to one.
    unsafe { ((WINDOW + offset) as *const u64).read_volatile() }
}

/// Writes eight bytes of the window.
pub fn write(offset: u64, value: u64) {
    assert!(offset.is_multiple_of(8) && offset < 4096 * WINDOW_PAGES as u64, "offset {offset:#x}");
    // SAFETY: as for `read`.
    unsafe { ((WINDOW + offset) as *mut u64).write_volatile(value) };
}
