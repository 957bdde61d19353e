//! Code that changes the code right ahead of it: in its own page, over a page's end, and by another linear address.

use super::{Operands, storm, tables, trail};
use crate::exits;

// MOV EAX, imm32, whose operand the instruction before has just changed.
breakable!(
    ahead,
    "lea r8, [rip + 3f + 1]",
    "mov dword ptr [r8], 0",
    "2: add dword ptr [r8], 3",
    "3: .byte 0xb8",
    ".long 0",
    "add rbx, rax",
    "rol rbx, 1",
    "dec rcx",
    "jnz 2b"
);
breakable!(over_pages, "call rsi");

/// ADD dword [R8], 1; MOV EAX, imm32; ADD RBX, RAX; DEC RCX; JNZ; RET.
const CODE: [u8; 18] =
    [0x41, 0x83, 0x00, 0x01, 0xb8, 0, 0, 0, 0, 0x48, 0x01, 0xc3, 0x48, 0xff, 0xc9, 0x75, 0xef, 0xc3];
/// Where its operand is.
const OPERAND: u64 = 5;
/// The page frame in whose last bytes it begins.
const FRAME: u64 = 500;

/// Puts [`CODE`] so that its operand lies across the end of a page; where it begins.
fn place(shift: u64) -> u64 {
    let at = tables::frame(FRAME + 1) - OPERAND - shift;
    // SAFETY: memory of no Rust object.
    unsafe { core::ptr::copy_nonoverlapping(CODE.as_ptr(), at as *mut u8, CODE.len()) };
    at
}

/// Of each kind some.
pub fn all() -> u64 {
    let mut result = trail::SEED;
    for round in 0..super::rounds(6) {
        let mut io: Operands = [0, 0, 20_000 + round, 0, 0, 0, 0, 0, 0, 0];
        ahead(io.as_mut_ptr());
        result = trail::mix(result, io[1]);
        for (shift, aliased) in [(2, false), (1, true), (3, true)] {
            let at = place(shift);
            let begin = if aliased { tables::page(FRAME + 1) - OPERAND - shift } else { at };
            let mut io: Operands = [0, 0, 8_000 + round, 0, at, 0, begin + OPERAND, 0, 0, 0];
            over_pages(io.as_mut_ptr());
            result = trail::mix(result, io[1]);
        }
        result = trail::mix(result, exits::self_modifying(300).into());
        trail::add(storm::came());
    }
    result
}
