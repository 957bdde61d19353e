//! Code whose instructions and branches are known.

use std::arch::asm;

/// `rounds` times round a loop of two instructions, one of them a conditional branch that is taken but the last time.
pub fn spin(rounds: u32) {
    // SAFETY: registers only.
    unsafe { asm!("2: dec {n:e}", "jnz 2b", n = inout(reg) rounds => _, options(nomem, nostack)) };
}

/// `rounds` times round a loop of five instructions: two conditional branches, the first never taken.
pub fn spin_not_taken(rounds: u32) {
    // SAFETY: registers only.
    unsafe {
        asm!("2: test {n:e}, {n:e}", "jz 3f", "nop", "dec {n:e}", "jnz 2b", "3:", n = inout(reg) rounds => _,
            options(nomem, nostack));
    }
}

/// `count` system calls (getppid), with three more instructions each in user mode: an unknown number of instructions in
/// the kernel.
pub fn system_calls(count: u32) {
    for _ in 0..count {
        // SAFETY: getppid has no arguments and no effect.
        unsafe { libc::syscall(libc::SYS_getppid) };
    }
}

/// One REP STOSB over `memory`.
pub fn fill(memory: &mut [u8]) {
    // SAFETY: writes exactly the slice; the direction flag is clear by the ABI.
    unsafe {
        asm!("rep stosb", inout("rdi") memory.as_mut_ptr() => _, inout("rcx") memory.len() => _, in("al") 0x5au8,
            options(nostack));
    }
}
