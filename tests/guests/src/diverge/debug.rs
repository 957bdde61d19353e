//! A guest that debugs itself: every instruction a trap, breakpoints on code and data, interrupts among them.

use core::arch::asm;

use super::{Operands, tables, trail};
use crate::traps::{self, Frame};

breakable!(
    stepped,
    "pushfq",
    "pop r8",
    "or r8, 0x100",
    "push r8",
    "popfq",
    "2: nop",
    "add rax, rcx",
    "mov r9d, ss",
    "mov ss, r9d",
    "nop",
    "mov r11, rcx",
    "mov rcx, 5",
    "mov rdi, rsi",
    "rep stosb",
    "int 0x72",
    "pushfq",
    "popfq",
    "sti",
    "nop",
    "cli",
    "sti",
    "mov r10, rax",
    "xor eax, eax",
    "cpuid",
    "rdtsc",
    "in al, 0x80",
    "mov r9d, 0xfec00000",
    "mov r9d, [r9]",
    "mov rax, r10",
    "mov rcx, r11",
    "mov [rsi + 8], rax",
    "dec rcx",
    "jnz 2b",
    "pushfq",
    "and dword ptr [rsp], 0xfffffeff",
    "popfq",
    "mov rax, r10"
);

breakable!(
    breakpoints,
    "lea r8, [rip + 3f]",
    "mov dr0, r8",
    "lea r8, [rip + 4f]",
    "mov dr1, r8",
    "mov r8d, 0x405",
    "mov dr7, r8",
    "2: add rax, rcx",
    "3: rol rax, 3",
    "nop",
    "4: dec rcx",
    "jnz 2b",
    "mov r8d, 0x400",
    "mov dr7, r8"
);

breakable!(
    watched,
    // Writes of eight bytes at RSI by DR2; reads and writes of a byte behind them by DR3.
    "mov dr2, rsi",
    "lea r8, [rsi + 11]",
    "mov dr3, r8",
    "mov r8d, 0x39000450",
    "mov dr7, r8",
    "2: add rax, rcx",
    "mov [rsi], rax",
    "mov [rsi + 16], rax",
    "lock add [rsi], rax",
    "mov r9, rcx",
    "mov rcx, 24",
    "mov rdi, rsi",
    "rep stosb",
    "mov rcx, r9",
    "add al, [rsi + 11]",
    "dec rcx",
    "jnz 2b",
    "mov r8d, 0x400",
    "mov dr7, r8",
    "mov rdx, [rsi]"
);

breakable!(
    stepped_onto_breakpoints,
    "lea r8, [rip + 3f]",
    "mov dr0, r8",
    "mov dr2, rsi",
    "mov r8d, 0x09000411",
    "mov dr7, r8",
    "pushfq",
    "pop r8",
    "or r8, 0x100",
    "push r8",
    "popfq",
    "2: add rax, rcx",
    "3: mov [rsi], rax",
    "mov r9d, ss",
    "mov ss, r9d",
    "mov [rsi], rcx",
    "dec rcx",
    "jnz 2b",
    "pushfq",
    "and dword ptr [rsp], 0xfffffeff",
    "popfq",
    "mov r8d, 0x400",
    "mov dr7, r8"
);

fn on_debug(frame: &mut Frame) {
    let dr6: u64;
    // SAFETY: DR6 has no bearing on memory.
    unsafe {
        asm!("mov {}, dr6", out(reg) dr6, options(nomem, nostack));
        asm!("mov dr6, {}", in(reg) 0xffff_0ff0u64, options(nomem, nostack));
    }
    trail::note(frame, dr6);
    // Behind a breakpoint on an instruction, which would come again.
    frame.rflags |= 1 << 16;
}

fn part(leaf: super::Leaf, count: u64) -> u64 {
    traps::set_handler(0x72, Some(|_| ()));
    traps::set_handler(1, Some(on_debug));
    let mut result = trail::SEED;
    for round in 0..super::rounds(6) {
        let mut io: Operands = [round, 0, count + round, 0, tables::page(450) + 0x100, 0, 0, 0, 0, 0];
        leaf(io.as_mut_ptr());
        result = trail::mix(result, io[0]);
    }
    traps::set_handler(1, None);
    result
}

/// Does this with a trap after each instruction.
pub fn stepping(work: impl FnOnce() -> u64) -> u64 {
    traps::set_handler(1, Some(on_debug));
    // SAFETY: the handler of the trap returns to where it came.
    unsafe { asm!("pushfq", "or dword ptr [rsp], 0x100", "popfq") };
    let result = work();
    // SAFETY: as above.
    unsafe { asm!("pushfq", "and dword ptr [rsp], 0xfffffeff", "popfq") };
    traps::set_handler(1, None);
    result
}

/// RFLAGS.TF over all kinds of instructions, some of which exit.
pub fn steps() -> u64 {
    part(stepped, 30)
}

/// DR0 and DR1 on instructions of a loop.
pub fn code() -> u64 {
    part(breakpoints, 400)
}

/// DR2 and DR3 on data, also in the midst of a REP.
pub fn data() -> u64 {
    part(watched, 200)
}

/// Both at once.
pub fn both() -> u64 {
    part(stepped_onto_breakpoints, 150)
}
