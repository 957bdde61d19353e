//! Address spaces of our own: all of them have the low memory one to one, and each a window of small pages whose entries the
//! programs play with.

use core::arch::asm;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::trail;
use crate::traps::{self, Frame};

/// Where the tables lie: four pages for each space. Memory of no Rust object.
const TABLES: u64 = 0x0170_0000;
/// Address spaces.
pub const SPACES: u64 = 8;
/// Where the window's page frames lie: of no Rust object, either.
const FRAMES: u64 = 0x0180_0000;
/// How many there are.
pub const FRAME_COUNT: u64 = 1024;
/// Where the window begins, the second entry of a PML4.
pub const WINDOW: u64 = 1 << 39;
/// Its pages.
pub const PAGES: u64 = 512;

/// Entries of the page directory that the window may have: the first is its own, the others are for [`link`].
pub const SLOTS: u64 = 8;

/// Bit of an entry: the page is there.
pub const PRESENT: u64 = 1;
/// It may be written.
pub const WRITE: u64 = 2;
/// Ring 3 may use it.
pub const USER: u64 = 4;
/// It was used.
pub const ACCESSED: u64 = 0x20;
/// It was written.
pub const DIRTY: u64 = 0x40;
/// It is a page of 2 MiB.
pub const LARGE: u64 = 0x80;
/// A page that allows everything.
pub const OPEN: u64 = PRESENT | WRITE | USER;

/// What is done about a page fault in the window: page number, error code.
pub type Cure = fn(page: u64, error: u64);

static CURE: AtomicUsize = AtomicUsize::new(0);

/// The page frame of this number.
pub fn frame(number: u64) -> u64 {
    assert!(number < FRAME_COUNT);
    FRAMES + 4096 * number
}

/// The linear address of a page of the window.
pub fn page(number: u64) -> u64 {
    assert!(number < PAGES);
    WINDOW + 4096 * number
}

fn table(space: u64, level: u64) -> u64 {
    assert!(space < SPACES && level < 4);
    TABLES + 0x4000 * space + 0x1000 * level
}

fn place(space: u64, number: u64) -> *mut u64 {
    assert!(number < PAGES);
    (table(space, 3) + 8 * number) as *mut u64
}

/// The entry of a page.
pub fn get(space: u64, number: u64) -> u64 {
    // SAFETY: a table of ours.
    unsafe { place(space, number).read_volatile() }
}

/// Sets the entry of a page. Nothing is flushed.
///
/// # Panics
/// Where it would map something else than the window's frames.
pub fn set(space: u64, number: u64, entry: u64) {
    let target = entry & 0x000f_ffff_ffff_f000;
    assert!(entry & PRESENT == 0 || (FRAMES..FRAMES + 4096 * FRAME_COUNT).contains(&target));
    // SAFETY: a table of ours, and no Rust object behind it.
    unsafe { place(space, number).write_volatile(entry) };
}

/// Clears these bits of an entry by one instruction that reads and writes, as Linux does; what it was.
pub fn clear(space: u64, number: u64, bits: u64) -> u64 {
    // SAFETY: as `set`; atomic, since the processor writes there as well.
    unsafe { core::sync::atomic::AtomicU64::from_ptr(place(space, number)).fetch_and(!bits, Relaxed) }
}

/// The three entries above the pages' table: PML4, PDPT, PD.
pub fn above(space: u64) -> [u64; 3] {
    // SAFETY: tables of ours.
    [(0, 8), (1, 0), (2, 0)]
        .map(|(level, at)| unsafe { ((table(space, level) + at) as *const u64).read_volatile() })
}

/// Drops the translations of a page.
pub fn flush(number: u64) {
    // SAFETY: a translation less.
    unsafe { asm!("invlpg [{}]", in(reg) page(number), options(nostack)) };
}

/// Drops the translations of all pages.
pub fn flush_all() {
    // SAFETY: the same tables as before.
    unsafe { asm!("mov {t}, cr3", "mov cr3, {t}", t = out(reg) _, options(nostack)) };
}

/// Changes to a space.
pub fn enter(space: u64) {
    // SAFETY: every space has the low memory, where code, data and stacks are.
    unsafe { asm!("mov cr3, {}", in(reg) table(space, 0), options(nostack)) };
}

/// The space that is in use.
pub fn current() -> u64 {
    let cr3: u64;
    // SAFETY: no effect.
    unsafe { asm!("mov {}, cr3", out(reg) cr3, options(nomem, nostack)) };
    cr3.wrapping_sub(TABLES) / 0x4000
}

/// CR0.WP: pages that may not be written are not written by us, either.
pub fn obey_write_protection() {
    // SAFETY: it allows less.
    unsafe { asm!("mov {t}, cr0", "bts {t}, 16", "mov cr0, {t}", t = out(reg) _, options(nostack)) };
}

/// Reads a word of the window.
pub fn load(at: u64) -> u64 {
    assert!((WINDOW..WINDOW + 4096 * PAGES * SLOTS - 7).contains(&at));
    // SAFETY: memory of no Rust object; a fault is cured.
    unsafe { (at as *const u64).read_volatile() }
}

/// Writes a word of the window.
pub fn store(at: u64, value: u64) {
    assert!((WINDOW..WINDOW + 4096 * PAGES * SLOTS - 7).contains(&at));
    // SAFETY: as `load`.
    unsafe { (at as *mut u64).write_volatile(value) };
}

/// Reads a word of a page frame by its own address.
pub fn load_frame(number: u64, word: u64) -> u64 {
    assert!(word < 512);
    // SAFETY: as `load`, mapped one to one.
    unsafe { ((frame(number) + 8 * word) as *const u64).read_volatile() }
}

/// Writes a word of a page frame by its own address.
pub fn store_frame(number: u64, word: u64, value: u64) {
    assert!(word < 512);
    // SAFETY: as `load_frame`.
    unsafe { ((frame(number) + 8 * word) as *mut u64).write_volatile(value) };
}

/// Copies bytes into a page frame.
pub fn fill_frame(number: u64, bytes: &[u8]) {
    assert!(bytes.len() <= 4096);
    // SAFETY: as `load_frame`.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), frame(number) as *mut u8, bytes.len()) };
}

fn directory(space: u64, slot: u64) -> *mut u64 {
    assert!((1..SLOTS).contains(&slot));
    (table(space, 2) + 8 * slot) as *mut u64
}

/// Makes a page frame the page table of a slot of the window's directory; `bits` besides [`OPEN`]. With [`LARGE`] the slot
/// becomes a page of 2 MiB, which begins at frame 0 or 512. Nothing is flushed.
pub fn link(space: u64, slot: u64, number: u64, bits: u64) {
    assert!(bits & LARGE == 0 || number.is_multiple_of(512));
    // SAFETY: a table of ours; what lies behind it are frames, if their contents are entries of frames.
    unsafe { directory(space, slot).write_volatile(frame(number) | OPEN | bits) };
}

/// Makes a slot empty.
pub fn unlink(space: u64, slot: u64) {
    // SAFETY: as `link`.
    unsafe { directory(space, slot).write_volatile(0) };
}

/// Clears these bits of a slot's entry; what it was.
pub fn clear_slot(space: u64, slot: u64, bits: u64) -> u64 {
    // SAFETY: as `link`.
    unsafe { core::sync::atomic::AtomicU64::from_ptr(directory(space, slot)).fetch_and(!bits, Relaxed) }
}

/// The linear address of a page behind a slot.
pub fn behind(slot: u64, number: u64) -> u64 {
    assert!(slot < SLOTS && number < 512);
    WINDOW + (slot << 21) + 4096 * number
}

/// Makes the tables of a space visible to itself: its PML4's entry 3 is the PML4.
pub fn see_itself(space: u64) {
    // SAFETY: it can be used by [`entry_by_itself`] only.
    unsafe { ((table(space, 0) + 24) as *mut u64).write_volatile(table(space, 0) | PRESENT | WRITE) };
}

/// Changes the entry of a page of the present space by way of the space itself, see [`see_itself`]: clears these bits; what it
/// was.
pub fn clear_by_itself(number: u64, bits: u64) -> u64 {
    assert!(number < PAGES);
    let at = (3 << 39 | 1 << 30) + 8 * number;
    // SAFETY: the window's table, as in `clear`.
    unsafe { core::sync::atomic::AtomicU64::from_ptr(at as *mut u64).fetch_and(!bits, Relaxed) }
}

/// Makes a gigabyte of linear addresses out of the 2 MiB from frame 512 on, by frames 0 and 1 as tables; where it begins. Those frames
/// cannot be used for anything else, then.
pub fn gigabyte(space: u64) -> u64 {
    let (pointers, directory) = (frame(0), frame(1));
    // SAFETY: tables of ours; what lies behind them are frames.
    unsafe {
        for entry in 0..512 {
            ((directory + 8 * entry) as *mut u64).write_volatile(frame(512) | OPEN | LARGE);
            ((pointers + 8 * entry) as *mut u64).write_volatile(0);
        }
        (pointers as *mut u64).write_volatile(directory | OPEN);
        ((table(space, 0) + 16) as *mut u64).write_volatile(pointers | OPEN);
    }
    WINDOW * 2
}

/// Copies a page frame.
pub fn copy_frame(from: u64, to: u64) {
    // SAFETY: as `load_frame`; they do not overlap, or are the same.
    unsafe { core::ptr::copy(frame(from) as *const u64, frame(to) as *mut u64, 512) };
}

/// A hash of a part of the window, in words.
pub fn hash(from: u64, words: u64) -> u64 {
    (0..words).fold(trail::SEED, |hash, word| trail::mix(hash, load(from + 8 * word)))
}

/// Makes the page present, on its own frame.
pub fn map(number: u64, _error: u64) {
    set(current(), number, frame(number) | OPEN);
}

/// Does this at a page fault in the window; without it the page is mapped on its own frame.
pub fn set_cure(cure: Option<Cure>) {
    CURE.store(cure.map_or(0, |cure| cure as usize), Relaxed);
}

fn on_fault(fault: &mut Frame) {
    let address: u64;
    // SAFETY: no effect.
    unsafe { asm!("mov {}, cr2", out(reg) address, options(nomem, nostack)) };
    let number = address.wrapping_sub(WINDOW) / 4096;
    assert!(number < PAGES, "a page fault at {address:#x}, error {:#x}, RIP {:#x}", fault.error, fault.rip);
    trail::note(fault, address ^ fault.error << 56);
    let cure = CURE.load(Relaxed);
    if cure == 0 {
        return map(number, fault.error);
    }
    // SAFETY: only `set_cure` stores there.
    unsafe { core::mem::transmute::<usize, Cure>(cure)(number, fault.error) };
}

/// Takes a page away by chance: the hook for an interrupt.
pub fn take_one_away(_: &mut Frame) {
    let number = super::storm::random() % PAGES;
    let space = current();
    set(space, number, get(space, number) & !PRESENT);
    flush(number);
}

/// Builds the spaces, all pages mapped on their own frames, enters the first, and catches page faults.
pub fn build() {
    let old: u64;
    // SAFETY: reading CR3 has no effect; all else is memory of no Rust object. The low half of the present tables stays.
    unsafe {
        asm!("mov {}, cr3", out(reg) old, options(nomem, nostack));
        let low = (old as *const u64).read_volatile();
        for space in 0..SPACES {
            for word in 0..4 * 512 {
                ((table(space, 0) + 8 * word) as *mut u64).write_volatile(0);
            }
            (table(space, 0) as *mut u64).write_volatile(low);
            for (level, at) in [(0, 8), (1, 0), (2, 0)] {
                ((table(space, level) + at) as *mut u64).write_volatile(table(space, level + 1) | OPEN);
            }
            (0..PAGES).for_each(|number| set(space, number, frame(number) | OPEN));
        }
    }
    traps::set_handler(14, Some(on_fault));
    enter(0);
}
