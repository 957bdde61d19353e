//! Interrupts let in and kept out: STI, CLI, POPF, IRET, HLT, shadows, task priority, NMI, faults within handlers.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Leaf, Operands, storm, tables, trail};
use crate::apic::Register;
use crate::traps::{self, Frame};
use crate::{cpu, exits};

breakable!(sti_hlt, "cli", "2: sti", "hlt", "cli", "add rax, rcx", "dec rcx", "jnz 2b", "sti");
breakable!(hlt_open, "2: hlt", "add rax, rcx", "dec rcx", "jnz 2b");
breakable!(sti_nop_hlt, "cli", "2: sti", "nop", "hlt", "cli", "add rax, rcx", "dec rcx", "jnz 2b", "sti");

breakable!(windows, "2: sti", "nop", "cli", "add rax, rcx", "dec rcx", "jnz 2b", "sti");
breakable!(
    sti_cli_pairs,
    "cli",
    "2: sti",
    "cli",
    "add rax, rcx",
    "test cl, 63",
    "jnz 3f",
    "sti",
    "nop",
    "cli",
    "3: dec rcx",
    "jnz 2b",
    "sti"
);
breakable!(
    popf,
    "pushfq",
    "pop r8",
    "mov r9, r8",
    "btr r9, 9",
    "2: push r9",
    "popfq",
    "add rax, rcx",
    "push r8",
    "popfq",
    "dec rcx",
    "jnz 2b"
);
breakable!(
    mov_ss,
    "mov r8d, ss",
    "2: mov ss, r8d",
    "add rax, rcx",
    "mov ss, r8d",
    "mov ss, r8d",
    "rol rax, 1",
    "dec rcx",
    "jnz 2b"
);
breakable!(
    mov_ss_and_sti,
    "mov r8d, ss",
    "2: cli",
    "add rax, rcx",
    "mov ss, r8d",
    "sti",
    "rol rax, 1",
    "cli",
    "sti",
    "mov ss, r8d",
    "rol rax, 3",
    "dec rcx",
    "jnz 2b"
);
breakable!(
    mov_ss_and_exits,
    "mov r8d, ss",
    "mov r9, rax",
    "2: mov ss, r8d",
    "in al, 0x80",
    "mov ss, r8d",
    "rdtsc",
    "add r9, rcx",
    "dec rcx",
    "jnz 2b",
    "mov rax, r9",
    "xor rdx, rdx"
);
breakable!(
    priority,
    "mov r8d, 15",
    "xor r9d, r9d",
    "2: mov cr8, r8",
    "mov rdx, 40",
    "3: add rax, rdx",
    "dec rdx",
    "jnz 3b",
    "mov cr8, r9",
    "rol rax, 1",
    "dec rcx",
    "jnz 2b"
);
breakable!(
    long_without,
    "2: cli",
    "mov rdx, 300",
    "3: add rax, rdx",
    "dec rdx",
    "jnz 3b",
    "sti",
    "rol rax, 1",
    "dec rcx",
    "jnz 2b"
);
breakable!(
    iret_lets_in,
    "pushfq",
    "pop r10",
    "2: cli",
    "add rax, rcx",
    "mov r8, rsp",
    "push 0x10",
    "push r8",
    "push r10",
    "push 8",
    "lea r9, [rip + 3f]",
    "push r9",
    "iretq",
    "3: dec rcx",
    "jnz 2b",
    "xor r8, r8",
    "xor r9, r9",
    "xor r10, r10"
);
breakable!(software, "2: int 0x72", "add rax, rcx", "dec rcx", "jnz 2b");

/// Each with its rounds. What they leave in RAX is theirs, whatever interrupts there were.
const DANCES: [(Leaf, u64); 10] = [
    (windows, 12_000),
    (sti_cli_pairs, 12_000),
    (popf, 12_000),
    (mov_ss, 12_000),
    (mov_ss_and_sti, 8_000),
    (mov_ss_and_exits, 400),
    (priority, 600),
    (long_without, 150),
    (iret_lets_in, 6_000),
    (software, 3_000),
];

fn rax(leaf: Leaf, count: u64) -> u64 {
    let mut io: Operands = [1, 0, count, 0, 0, 0, 0, 0, 0, 0];
    leaf(io.as_mut_ptr());
    io[0]
}

/// Waiting for an interrupt.
pub fn halts() -> u64 {
    let mut result = trail::SEED;
    for round in 0..super::rounds(6) {
        for leaf in [sti_hlt as Leaf, hlt_open, sti_nop_hlt] {
            result = trail::mix(result, rax(leaf, 20 + round));
        }
    }
    result
}

/// Letting interrupts in for an instruction or two.
pub fn dances() -> u64 {
    traps::set_handler(0x72, Some(|_| ()));
    let mut result = trail::SEED;
    for round in 0..super::rounds(6) {
        for (leaf, count) in DANCES {
            result = trail::mix(result, rax(leaf, count + round));
        }
    }
    result
}

static DEPTH: AtomicU64 = AtomicU64::new(0);

fn on_nmi(frame: &mut Frame) {
    trail::note(frame, cpu::rdtsc());
    let (came, depth) = (trail::count(), DEPTH.fetch_add(1, Relaxed));
    if depth == 0 && came.is_multiple_of(3) {
        // One that waits until an IRET.
        // SAFETY: its handler is this one.
        unsafe { send_nmi() };
    }
    if came.is_multiple_of(5) {
        // A fault whose IRET lets NMIs in, within the handler.
        touch_missing(400 + depth % 8);
    }
    DEPTH.fetch_sub(1, Relaxed);
}

/// Sends the processor itself an NMI.
///
/// # Safety
/// The handler returns.
unsafe fn send_nmi() {
    // Physical destination 0, which is the only processor.
    match cpu::rdmsr(0x1b) {
        // SAFETY: the caller's promise; no processor is started.
        Ok(base) if base & 1 << 10 != 0 => unsafe {
            cpu::wrmsr_any(0x830, 4 << 8 | 1 << 14).expect("ICR");
        },
        _ => {
            storm::write_apic(Register::CommandHigh, 0);
            storm::write_apic(Register::CommandLow, 4 << 8 | 1 << 14);
        }
    }
}

/// Takes a page of the window away and reads it.
fn touch_missing(number: u64) {
    let space = tables::current();
    tables::set(space, number, tables::get(space, number) & !tables::PRESENT);
    tables::flush(number);
    tables::load(tables::page(number));
}

/// The PIT as NMI, in loops with and without interrupts.
pub fn nmis() -> u64 {
    traps::set_handler(2, Some(on_nmi));
    exits::set_pin(2, 4 << 8);
    let mut result = trail::SEED;
    for round in 0..super::rounds(6) {
        for (leaf, count) in [
            (long_without as Leaf, 900),
            (mov_ss, 12_000),
            (windows, 12_000),
            (iret_lets_in, 6_000),
            (sti_hlt, 30),
        ] {
            result = trail::mix(result, rax(leaf, count + round));
            // SAFETY: as in `on_nmi`.
            unsafe { send_nmi() };
        }
    }
    exits::set_pin(2, storm::PIT.into());
    result
}

breakable!(
    faults,
    "2: ud2",
    "add rax, rcx",
    "mov r9, rax",
    "xor edx, edx",
    "xor r8d, r8d",
    "mov eax, 1",
    "div r8",
    "mov r8, 0x8000000000000000",
    "mov r10, [r8]",
    "mov rax, r9",
    "dec rcx",
    "jnz 2b",
    "xor edx, edx"
);

fn on_undefined(frame: &mut Frame) {
    trail::note(frame, 6);
    touch_missing(410 + frame.rcx % 16);
    // SAFETY: the handler of #BP returns.
    unsafe { core::arch::asm!("int3", options(nostack)) };
    // Interrupts within the handler.
    cpu::interrupts_on();
    for page in 430..434 {
        touch_missing(page);
    }
    cpu::interrupts_off();
    frame.rip += 2;
}

fn on_breakpoint(frame: &mut Frame) {
    trail::note(frame, 3);
    touch_missing(428);
}

/// DIV and MOV of three bytes.
fn skip_three(frame: &mut Frame) {
    trail::note(frame, frame.vector);
    if frame.vector == 13 {
        touch_missing(440 + frame.rcx % 8);
    }
    frame.rip += 3;
}

/// Faults in the handlers of faults, with interrupts among them.
pub fn nested() -> u64 {
    traps::set_handler(6, Some(on_undefined));
    traps::set_handler(3, Some(on_breakpoint));
    traps::set_handler(0, Some(skip_three));
    traps::set_handler(13, Some(skip_three));
    let mut result = trail::SEED;
    for round in 0..super::rounds(6) {
        result = trail::mix(result, rax(faults, 250 + round));
    }
    [0, 3, 6, 13].into_iter().for_each(|vector| traps::set_handler(vector, None));
    result
}
