//! Stacks with guard pages: a region of the address space where each stack is followed, downwards, by a page that is
//! never mapped.

use super::paging::{self, Rights};
use crate::memory::{self, FRAME, OutOfFrames, Zone};
use boot::memory_map::Range;
use core::sync::atomic::{AtomicU64, Ordering};

/// Bytes of the boot processor's main stack: a virtual machine is built on it, and its devices are large.
pub const BOOT_BYTES: u64 = 1 << 20;

/// Bytes of the other processors' main stacks.
pub const MAIN_BYTES: u64 = 64 << 10;

/// Bytes of an interrupt stack: room for formatting the last words.
pub const INTERRUPT_BYTES: u64 = 32 << 10;

/// Where stacks live: the last 512 GiB of the address space, growing upwards.
const REGION: u64 = 0xFFFF_FF80_0000_0000;

/// Each stack's slot: the guard below, the stack at its upper end.
const SLOT: u64 = 2 << 20;

static NEXT: AtomicU64 = AtomicU64::new(REGION);

/// A stack.
#[derive(Clone, Copy, Debug)]
pub struct Stack {
    /// Address above the highest byte, 16-byte aligned.
    pub top: u64,
}

/// Makes a stack of `bytes`, at most [`SLOT`] less a page.
///
/// # Errors
/// No memory.
pub fn allocate(bytes: u64) -> Result<Stack, OutOfFrames> {
    assert!(bytes.is_multiple_of(FRAME) && bytes + FRAME <= SLOT);
    let frames = memory::frames().take(bytes / FRAME, FRAME, Zone::Any)?;
    let top = NEXT.fetch_add(SLOT, Ordering::Relaxed) + SLOT;
    paging::map(Range::new(top - bytes, top), frames.start, Rights::DATA)?;
    Ok(Stack { top })
}

/// Whether an address lies in a guard: the part of some stack's slot that is not mapped.
pub fn is_guard(address: u64) -> bool {
    (REGION..NEXT.load(Ordering::Relaxed)).contains(&address) && !paging::is_mapped(address)
}

/// Leaves the current stack for good and goes on in `next`, on `stack`.
pub fn switch_to(stack: Stack, next: extern "C" fn() -> !) -> ! {
    // SAFETY: 1. The stack is mapped, aligned and nobody else's. 2. Nothing of the old stack is used afterwards, since
    // `next` takes nothing and does not return. 3. RBP = 0 ends the frame-pointer chain.
    unsafe {
        core::arch::asm!(
            "mov rsp, {top}",
            "xor ebp, ebp",
            "call {next}",
            "ud2",
            top = in(reg) stack.top,
            next = in(reg) next,
            options(noreturn)
        )
    }
}
