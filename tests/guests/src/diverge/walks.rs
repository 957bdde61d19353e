//! Walks that have more to set than a plain access has: while an event is delivered, through large pages, through tables that
//! map themselves.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::paging::note_stale;
use super::tables::{self, ACCESSED, DIRTY, LARGE, OPEN};
use super::{Operands, storm, trail};
use crate::traps::Frame;

// RSP becomes RSI, RDI is called.
breakable!(on_another_stack, "mov rsp, rsi", "call rdi");

/// PUSH RCX; POP RDX; ADD RAX, RDX; DEC RCX; JNZ; RET.
const CODE: [u8; 11] = [0x51, 0x5a, 0x48, 0x01, 0xd0, 0x48, 0xff, 0xc9, 0x75, 0xf6, 0xc3];
/// Pages of the window with the IDT, the GDT, code, and a stack.
const IDT: u64 = 480;
const GDT: u64 = 481;
const CODE_PAGE: u64 = 482;
const STACK: u64 = 483;

/// What LGDT and LIDT take.
#[derive(Clone, Copy)]
#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

/// Loads both.
///
/// # Safety
/// They hold what the present ones hold.
unsafe fn load(gdt: &Pointer, idt: &Pointer) {
    // SAFETY: the caller's promise.
    unsafe { asm!("lgdt [{}]", "lidt [{}]", in(reg) gdt, in(reg) idt, options(nostack)) };
}

fn clear_all(frame: &mut Frame) {
    // The event that brought us here has read the gate and the code segment, and has pushed: to that stack, unless it came right
    // before the change of stacks, or after. Nobody may have pushed there since its entry was made or its bits were cleared: an
    // interrupt between `set_hook` and the first change of stacks finds neither bit set, and that is as it must be.
    let there = frame.rsp.wrapping_sub(tables::page(STACK)) <= 4096;
    let pushed = if there { ACCESSED | DIRTY } else { 0 };
    for (page, must) in [(IDT, ACCESSED), (GDT, ACCESSED), (STACK, pushed), (CODE_PAGE, 0)] {
        let found = tables::clear(tables::current(), page, ACCESSED | DIRTY);
        trail::add(page << 8 | found & (ACCESSED | DIRTY));
        note_stale(found & must != must);
    }
}

/// Interrupts whose gates, segments and stack are in pages whose accessed and dirty bits are cleared again and again.
pub fn delivery() -> u64 {
    let mut old = [Pointer { limit: 0, base: 0 }; 2];
    let [gdt, idt] = &mut old;
    // SAFETY: it only stores.
    unsafe { asm!("sgdt [{}]", "sidt [{}]", in(reg) gdt, in(reg) idt, options(nostack)) };
    for (pointer, page) in [(old[0], GDT), (old[1], IDT)] {
        let (base, limit) = (pointer.base as *const u8, usize::from(pointer.limit));
        // SAFETY: the table that is in force.
        tables::fill_frame(page, unsafe { core::slice::from_raw_parts(base, limit + 1) });
    }
    tables::fill_frame(CODE_PAGE, &CODE);
    for page in [IDT, GDT, CODE_PAGE, STACK] {
        tables::map(page, 0);
    }
    let at = |pointer: Pointer, page| Pointer { limit: pointer.limit, base: tables::page(page) };
    let mut result = trail::SEED;
    // SAFETY: copies of the present ones, and then themselves again.
    unsafe { load(&at(old[0], GDT), &at(old[1], IDT)) };
    storm::set_hook(Some(clear_all));
    for round in 0..super::rounds(20) {
        let (stack, code) = (tables::page(STACK) + 4096, tables::page(CODE_PAGE));
        let mut io: Operands = [round, 0, 8_000 + round, 0, stack, code, 0, 0, 0, 0];
        on_another_stack(io.as_mut_ptr());
        result = trail::mix(result, io[0]);
    }
    storm::set_hook(None);
    // SAFETY: as above.
    unsafe { load(&old[0], &old[1]) };
    result
}

/// A page of 2 MiB, and small pages seen by the tables' own mapping: their bits cleared and read without a flush.
pub fn large() -> u64 {
    const SLOT: u64 = 2;
    tables::link(0, SLOT, 0, LARGE);
    tables::see_itself(0);
    tables::flush_all();
    let mut model = 0;
    let mut result = trail::SEED;
    for round in 0..super::rounds(20) * 40 {
        let at = tables::behind(SLOT, round * 37 % 400) + 8 * (round % 512);
        if round.is_multiple_of(3) {
            tables::store(at, round);
            model |= ACCESSED | DIRTY;
        } else {
            result = trail::mix(result, tables::load(at));
            model |= ACCESSED;
        }
        if round % 4 == 1 {
            let found = tables::clear_slot(0, SLOT, ACCESSED | DIRTY) & (ACCESSED | DIRTY);
            note_stale(found != model);
            trail::add(found);
            model = 0;
        }
        itself(round);
    }
    tables::unlink(0, SLOT);
    tables::flush_all();
    result
}

static SEEN: AtomicU64 = AtomicU64::new(0);

/// A small page that is touched, and whose entry is cleared by way of the tables themselves.
fn itself(round: u64) {
    let page = 490 + round % 8;
    tables::load(tables::page(page));
    let found = tables::clear_by_itself(page, ACCESSED | DIRTY) & (ACCESSED | DIRTY);
    note_stale(found & ACCESSED == 0);
    trail::add(found);
    // The entries above are data now, and get dirty bits, too.
    let above = tables::above(0);
    SEEN.store(above.into_iter().fold(SEEN.load(Relaxed), trail::mix), Relaxed);
    trail::add(SEEN.load(Relaxed));
    assert!(above[0] & OPEN == OPEN, "the window's entry has lost its bits: {:#x}", above[0]);
}
