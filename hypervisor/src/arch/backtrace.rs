//! Walks the chain of frame pointers.

use super::paging;

/// Calls shown at most.
pub const DEPTH: usize = 32;

/// The current frame pointer.
#[inline(always)]
pub fn frame_pointer() -> u64 {
    let rbp: u64;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, rbp", out(reg) rbp, options(nomem, nostack, preserves_flags)) };
    rbp
}

/// The return addresses up from the frame pointer `rbp`. Ends at a frame pointer that is 0, not aligned, not mapped, or
/// not above the one before.
pub fn callers(mut rbp: u64) -> impl Iterator<Item = u64> {
    core::iter::from_fn(move || {
        if rbp == 0
            || !rbp.is_multiple_of(8)
            || !paging::is_mapped(rbp)
            || !paging::is_mapped(rbp.checked_add(15)?)
        {
            return None;
        }
        // SAFETY: both words are mapped, and the kernel's mappings are never taken back.
        let (next, caller) =
            unsafe { ((rbp as *const u64).read_volatile(), (rbp as *const u64).add(1).read_volatile()) };
        rbp = if next > rbp { next } else { 0 };
        (caller != 0).then_some(caller)
    })
    .take(DEPTH)
}
