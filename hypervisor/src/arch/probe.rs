//! Reading a MSR that may not exist: the fault is caught at the one instruction that may raise it.

use super::idt::{self, Frame, vector};
use core::arch::global_asm;

global_asm!(
    r#"
    .text
    .balign 16
    .type probe_msr, @function
probe_msr:                      # edi = number, rsi = where the value goes; returns 0, or 1 if RDMSR faulted
    mov ecx, edi
probe_msr_instruction:
    rdmsr
    shl rdx, 32
    or rax, rdx
    mov [rsi], rax
    xor eax, eax
    ret
probe_msr_faulted:
    mov eax, 1
    ret
    .size probe_msr, . - probe_msr
"#
);

unsafe extern "C" {
    fn probe_msr(number: u32, value: *mut u64) -> u32;
    static probe_msr_instruction: u8;
    static probe_msr_faulted: u8;
}

/// Catches the fault of a probe from now on. Other general-protection faults are the end, as before.
pub fn init() {
    idt::set_handler(vector::GENERAL_PROTECTION, |frame: &mut Frame| {
        if frame.rip != (&raw const probe_msr_instruction).addr() as u64 {
            crate::panic::exception(frame);
        }
        frame.rip = (&raw const probe_msr_faulted).addr() as u64;
    });
}

/// A MSR's value, or `None` if this processor has no such MSR. After [`init`].
pub fn read_msr(number: u32) -> Option<u64> {
    let mut value = 0;
    // SAFETY: 1. Reading a MSR changes nothing. 2. Where it faults, the handler of `init` goes on at the function's other
    // return. 3. `value` is a local variable.
    let faulted = unsafe { probe_msr(number, &raw mut value) };
    (faulted == 0).then_some(value)
}
