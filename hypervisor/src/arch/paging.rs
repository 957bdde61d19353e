//! The kernel's own page tables: everything one to one, nothing both writable and executable, nothing executable but
//! the kernel's code, page 0 and the stacks' guards never mapped, device memory uncached.
//!
//! Mappings are only ever added, never changed or taken back, so no other processor's TLB needs to be told.

use crate::memory::{self, FRAME, OutOfFrames, Zone};
use boot::entry::Image;
use boot::memory_map::{LOW, Range};
use core::sync::atomic::{AtomicU64, Ordering};
use spin::{Mutex, Once};
use x86_64::PhysAddr;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr3, Cr3Flags, Cr4, Cr4Flags, Efer, EferFlags};
use x86_64::registers::model_specific::Msr;
use x86_64::structures::paging::PhysFrame;

const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
/// PWT and PCD: entry 3 of the PAT, uncacheable.
const UNCACHED: u64 = 3 << 3;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;

/// The legacy screen and adapter memory.
const LEGACY_SCREEN: Range = Range::new(0xA_0000, 0xC_0000);

/// IA32_PAT (277h) and its value at reset (SDM 3A, table 13-12), on which UNCACHED relies.
const PAT: u32 = 0x277;
const PAT_AT_RESET: u64 = 0x0007_0406_0007_0406;

/// What may be done with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights(u64);

impl Rights {
    /// Read and execute.
    pub const TEXT: Rights = Rights(0);
    /// Read.
    pub const CONSTANT: Rights = Rights(NO_EXECUTE);
    /// Read and write.
    pub const DATA: Rights = Rights(NO_EXECUTE | WRITE);
    /// Read and write, uncached.
    pub const DEVICE: Rights = Rights(NO_EXECUTE | WRITE | UNCACHED);
}

/// What the processor's paging can do.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    /// Pages can be made non-executable.
    pub no_execute: bool,
    /// 1 GiB pages.
    pub giant: bool,
    /// Bits of a physical address.
    pub physical_bits: u8,
}

static FEATURES: Once<Features> = Once::new();

/// The top table's address; 0 while the boot page tables are in use.
static ROOT: AtomicU64 = AtomicU64::new(0);

/// Held while tables are changed.
static CHANGE: Mutex<()> = Mutex::new(());

/// What the processor's paging can do.
pub fn features() -> Features {
    *FEATURES.call_once(|| {
        let id = raw_cpuid::CpuId::new();
        let extended = id.get_extended_processor_and_feature_identifiers();
        Features {
            no_execute: extended.as_ref().is_some_and(|f| f.has_execute_disable()),
            giant: extended.as_ref().is_some_and(|f| f.has_1gib_pages()),
            physical_bits: id.get_processor_capacity_feature_info().map_or(36, |c| c.physical_address_bits()),
        }
    })
}

/// Makes the kernel's tables and changes to them. `memory` = all ranges the frame pools started with;
/// `constants` = what the loader left (boot information, modules, symbols).
///
/// # Errors
/// No memory for the tables.
pub fn init(
    image: &Image,
    memory: impl Iterator<Item = Range>,
    constants: impl Iterator<Item = Range>,
) -> Result<(), OutOfFrames> {
    ROOT.store(new_table()?, Ordering::Relaxed);
    let one_to_one = |r: Range, rights| map(r, r.start, rights);
    for (bounds, rights) in
        [(image.text, Rights::TEXT), (image.rodata, Rights::CONSTANT), (image.data, Rights::DATA)]
    {
        one_to_one(Range::new(bounds.0, bounds.1), rights)?;
    }
    for range in memory {
        one_to_one(range, Rights::DATA)?;
    }
    for range in constants {
        ensure(range, Rights::CONSTANT)?;
    }
    one_to_one(LEGACY_SCREEN, Rights::DEVICE)?;
    one_to_one(Range::new(LEGACY_SCREEN.end, LOW.end), Rights::CONSTANT)?;
    enter();
    let root = u32::try_from(ROOT.load(Ordering::Relaxed)).expect("tables lie below 4 GiB");
    boot::entry::set_ap_paging(root, features().no_execute);
    Ok(())
}

/// Makes this processor use the kernel's tables.
pub fn enter() {
    let root = ROOT.load(Ordering::Relaxed);
    let mut pat = Msr::new(PAT);
    // SAFETY: 1. Every processor with long mode has IA32_PAT. 2. The reset value gives every memory type that the boot
    // page tables use (write-back) the same index as before. 3. NXE is set only where the processor has it, and the
    // tables set NX only then. 4. The tables map code, data and the current stack one to one, as the boot tables do.
    unsafe {
        if pat.read() != PAT_AT_RESET {
            core::arch::asm!("wbinvd", options(nostack, preserves_flags));
            pat.write(PAT_AT_RESET);
        }
        if features().no_execute {
            Efer::update(|e| e.insert(EferFlags::NO_EXECUTE_ENABLE));
        }
        Cr0::update(|c| c.insert(Cr0Flags::WRITE_PROTECT));
        Cr4::update(|c| c.insert(Cr4Flags::MACHINE_CHECK_EXCEPTION));
        Cr3::write(PhysFrame::containing_address(PhysAddr::new(root)), Cr3Flags::empty());
    }
}

fn new_table() -> Result<u64, OutOfFrames> {
    // Below 4 GiB, because the first tables are written through the boot page tables.
    let frame = memory::frames().take(1, FRAME, Zone::Below4G)?.start;
    // SAFETY: 1. The frame was free and is ours now. 2. It is mapped one to one, by the boot or the kernel's tables.
    unsafe { core::ptr::write_bytes(frame as *mut u8, 0, FRAME as usize) };
    Ok(frame)
}

fn entry_of(table: u64, address: u64, level: u32) -> *mut u64 {
    let index = (address >> (12 + 9 * level)) & 0x1FF;
    (table + 8 * index) as *mut u64
}

/// Bytes that one entry of a level maps: level 0 is the page table.
const fn span(level: u32) -> u64 {
    FRAME << (9 * level)
}

/// Maps `virt` (whole pages) to the physical memory from `physical` on, with the largest pages that fit.
///
/// # Errors
/// No memory for tables.
///
/// # Panics
/// A page is mapped already, to something else or with other rights.
pub fn map(virt: Range, physical: u64, rights: Rights) -> Result<(), OutOfFrames> {
    let _changing = CHANGE.lock();
    assert!(
        virt.start.is_multiple_of(FRAME) && virt.end.is_multiple_of(FRAME) && physical.is_multiple_of(FRAME)
    );
    let largest = if features().giant { 2 } else { 1 };
    let mut at = virt.start;
    while at < virt.end {
        let to = physical + (at - virt.start);
        let fits = |level: &u32| (at | to).is_multiple_of(span(*level)) && virt.end - at >= span(*level);
        let level = (0..=largest).rev().find(fits).unwrap_or(0);
        map_one(at, to, rights, level)?;
        at += span(level);
    }
    Ok(())
}

fn map_one(at: u64, to: u64, rights: Rights, level: u32) -> Result<(), OutOfFrames> {
    let allowed = if features().no_execute { !0 } else { !NO_EXECUTE };
    let leaf = to | (rights.0 & allowed) | PRESENT | if level > 0 { LARGE } else { 0 };
    let mut table = ROOT.load(Ordering::Relaxed);
    for upper in (level + 1..=3).rev() {
        let entry = entry_of(table, at, upper);
        // SAFETY: 1. `table` is a table of ours, mapped one to one. 2. CHANGE is held.
        let value = unsafe { entry.read_volatile() };
        assert!(value & LARGE == 0, "address {at:#x} is mapped by a large page already");
        table = if value & PRESENT != 0 { value & ADDRESS } else { new_table()? };
        // SAFETY: as above; rights are said by the leaf alone.
        unsafe { entry.write_volatile(table | WRITE | PRESENT) };
    }
    let entry = entry_of(table, at, level);
    // SAFETY: as above.
    let old = unsafe { entry.read_volatile() };
    const ACCESSED_DIRTY: u64 = 3 << 5;
    assert!(
        old == 0 || old & !ACCESSED_DIRTY == leaf,
        "address {at:#x} is mapped to {old:#x}, not {leaf:#x}"
    );
    // SAFETY: as above; a present entry is written with its own value.
    unsafe { entry.write_volatile(leaf) };
    Ok(())
}

/// Maps the pages that `range` touches one to one, where they are not mapped yet. Pages that are keep their rights, and
/// page 0 stays out.
///
/// # Errors
/// No memory for tables.
pub fn ensure(range: Range, rights: Rights) -> Result<(), OutOfFrames> {
    let pages = range.outer_pages();
    let mut at = pages.start.max(FRAME);
    while at < pages.end {
        let (leaf, level) = walk(at);
        let next = (at / span(level) + 1).saturating_mul(span(level)).min(pages.end);
        if leaf.is_none() {
            map(Range::new(at, next), at, rights)?;
        }
        at = next;
    }
    Ok(())
}

/// Whether an address is mapped. Takes no lock.
pub fn is_mapped(address: u64) -> bool {
    leaf(address).is_some()
}

/// Whether an address is mapped writable and cached: the kernel's own memory. Takes no lock.
pub fn is_data(address: u64) -> bool {
    leaf(address).is_some_and(|l| l & WRITE != 0 && l & UNCACHED == 0)
}

/// Whether all of `range` is mapped as [`Rights::DEVICE`].
pub fn is_device(range: Range) -> bool {
    all_leaves(range, |l| l & UNCACHED == UNCACHED)
}

/// Whether all of `range` is mapped as [`Rights::CONSTANT`] (or is the kernel's code).
pub fn is_constant(range: Range) -> bool {
    all_leaves(range, |l| l & WRITE == 0)
}

fn all_leaves(range: Range, check: impl Fn(u64) -> bool) -> bool {
    let mut at = range.start;
    while at < range.end {
        let (leaf, level) = walk(at);
        if !leaf.is_some_and(&check) {
            return false;
        }
        at = (at / span(level) + 1).saturating_mul(span(level));
    }
    true
}

fn leaf(address: u64) -> Option<u64> {
    let root_is_ours = ROOT.load(Ordering::Relaxed) != 0;
    let canonical = (address as i64) << 16 >> 16 == address as i64;
    match root_is_ours {
        true => canonical.then(|| walk(address).0).flatten(),
        false => (address < 1 << 32).then_some(WRITE),
    }
}

/// The entry that maps an address, if any, and the level at which the walk has ended.
fn walk(address: u64) -> (Option<u64>, u32) {
    let mut table = ROOT.load(Ordering::Relaxed);
    let mut level = 3;
    loop {
        // SAFETY: `table` is a table of ours, mapped one to one; tables are never freed.
        let value = unsafe { entry_of(table, address, level).read_volatile() };
        if value & PRESENT == 0 {
            return (None, level);
        }
        if level == 0 || value & LARGE != 0 {
            return (Some(value), level);
        }
        table = value & ADDRESS;
        level -= 1;
    }
}

/// What a walk over all tables has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Pages of 4 KiB, 2 MiB, 1 GiB.
    pub pages: [u64; 3],
    /// Pages that can be executed.
    pub executable: u64,
    /// Pages that can be both written and executed. Must be 0.
    pub writable_executable: u64,
}

/// Walks all tables: the proof, at each boot, that W^X holds.
pub fn census() -> Census {
    let _changing = CHANGE.lock();
    let mut census = Census::default();
    count(ROOT.load(Ordering::Relaxed), 3, &mut census);
    census
}

fn count(table: u64, level: u32, census: &mut Census) {
    for index in 0..512 {
        // SAFETY: `table` is a table of ours, mapped one to one.
        let value = unsafe { (table as *const u64).add(index).read_volatile() };
        if value & PRESENT == 0 {
            continue;
        }
        if level > 0 && value & LARGE == 0 {
            count(value & ADDRESS, level - 1, census);
            continue;
        }
        census.pages[level as usize] += 1;
        let executable = value & NO_EXECUTE == 0;
        census.executable += u64::from(executable);
        census.writable_executable += u64::from(executable && value & WRITE != 0);
    }
}

/// The address a page fault was about.
pub fn fault_address() -> u64 {
    x86_64::registers::control::Cr2::read_raw()
}

/// Control registers 0, 2, 3, 4 and EFER, for the last words.
pub fn control_registers() -> [(&'static str, u64); 5] {
    [
        ("cr0", Cr0::read_raw()),
        ("cr2", fault_address()),
        ("cr3", Cr3::read().0.start_address().as_u64()),
        ("cr4", Cr4::read_raw()),
        ("efer", Efer::read_raw()),
    ]
}
