//! Crashes on purpose, for tests of the last words (`crash=` on the command line).

use super::{cpu, physical::Pages};
use crate::options::Crash;
use crate::{memory, smp};
use core::arch::asm;

/// Never mapped: see `paging`.
const NEVER_MAPPED: u64 = 0x5EAD_0000_0000;

/// Not canonical: the first of the hole in the address space.
const NOT_CANONICAL: u64 = 0x8000_0000_0000;

/// Microseconds the other processor has to crash.
const PATIENCE: u64 = 5_000_000;

/// Crashes.
#[inline(never)]
pub fn crash(way: Crash) -> ! {
    match way {
        Crash::Panic => panic!("crash=panic was asked for"),
        Crash::PageFault => store(NEVER_MAPPED),
        Crash::GeneralProtection => store(NOT_CANONICAL),
        Crash::WriteText => store((crash as *const ()).addr() as u64),
        Crash::DoubleFault => {
            super::idt::break_gate(super::idt::vector::PAGE_FAULT);
            store(NEVER_MAPPED);
        }
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
        Crash::Guest => crate::vmm::trial::crash(),
        Crash::OtherCpu => {
            smp::call(1, || panic!("crash=other-cpu was asked for"), PATIENCE);
        }
        Crash::LateAllocation => {
            memory::end_allocation();
            drop(memory::frames());
        }
    }
    panic!("crash={way:?} has not crashed")
}

/// Stores where that must fault.
fn store(address: u64) {
    // SAFETY: the store faults and the kernel ends, by request; if it does not, `crash` panics next.
    unsafe { (address as *mut u8).write_volatile(0xCC) }
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
