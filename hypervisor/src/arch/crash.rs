//! Crashes on purpose, for tests of the last words (`crash=` on the command line).

use super::{cpu, physical::Pages};
use crate::options::Crash;
use crate::{memory, smp};
use core::arch::asm;

/// Never mapped: see `paging`.
const NEVER_MAPPED: u64 = 0x5EAD_0000_0000;

/// Not canonical: the first of the hole in the address space.
const NOT_CANONICAL: u64 = 0x8000_0000_0000;

/// Crashes.
#[inline(never)]
pub fn crash(way: Crash) -> ! {
    match way {
        Crash::Panic => panic!("crash=panic was asked for"),
        // SAFETY (all below): each faults, or stores to a frame of ours; the kernel ends here by request.
        Crash::PageFault => unsafe { (NEVER_MAPPED as *mut u64).write_volatile(1) },
        Crash::GeneralProtection => unsafe { (NOT_CANONICAL as *mut u64).write_volatile(1) },
        Crash::WriteText => unsafe { (crash as *const () as *mut u8).write_volatile(0xCC) },
        Crash::DoubleFault => double_fault(),
        Crash::Stack => {
            recurse(0);
        }
        Crash::ExecuteData => {
            let mut page = Pages::one().expect("a frame");
            page.bytes_mut()[0] = 0xC3; // ret
            cpu::call(page.address() as usize);
        }
        Crash::DeafCpu => {
            smp::call(1, deaf, 1000);
            panic!("crash=deaf-cpu was asked for");
        }
        Crash::LateAllocation => {
            memory::end_allocation();
            drop(memory::frames());
        }
    }
    panic!("crash={way:?} has not crashed")
}

/// A page fault whose handler cannot be reached: the stack pointer and the interrupt gate lead nowhere.
fn double_fault() {
    super::idt::break_gate(super::idt::vector::PAGE_FAULT);
    // SAFETY: see `crash`.
    unsafe { (NEVER_MAPPED as *mut u64).write_volatile(1) }
}

/// Goes deeper until the stack is used up.
#[allow(unconditional_recursion)]
#[inline(never)]
fn recurse(depth: u64) -> u64 {
    let here = [depth; 32];
    core::hint::black_box(&here);
    recurse(depth + 1) + here[(depth % 32) as usize]
}

/// Interrupts off for good: only an NMI gets through.
fn deaf() {
    loop {
        // SAFETY: turns interrupts off and waits.
        unsafe { asm!("cli", "pause", options(nomem, nostack)) };
    }
}
