//! Loops in which an instruction pointer says little or nothing about how far they are.

use super::{Leaf, Operands, storm, trail};
use crate::boot;

breakable!(jump_to_itself, "2: jmp 2b");
breakable!(
    jump_with_registers,
    "2: add rax, rbx",
    "rol rbx, 7",
    "xor rcx, rax",
    "lea rdx, [rdx + rcx + 1]",
    "jmp 2b"
);
breakable!(
    jump_indirect,
    "lea r8, [rip + 2f]",
    "lea r9, [rip + 3f]",
    "2: inc rax",
    "jmp r9",
    "3: inc rbx",
    "jmp r8"
);
breakable!(
    call_and_return,
    "2: call 3f",
    "inc rax",
    "jmp 2b",
    "3: inc rbx",
    "test bl, 1",
    "jz 4f",
    "ret",
    "4: inc rcx",
    "ret"
);
breakable!(
    count_in_memory,
    "push 0",
    "2: inc qword ptr [rsp]",
    "lock add qword ptr [rsp], 2",
    "mov rax, [rsp]",
    "jmp 2b"
);
breakable!(nops, "2:", ".rept 64", "nop", ".endr", "jmp 2b");
breakable!(
    wide_strides,
    "2: imul rax, rax, 13",
    "inc rax",
    "test al, 64",
    "jnz 3f",
    "add rbx, 3",
    "3: jmp 2b"
);
breakable!(push_and_pop, "2: push rax", "pop rbx", "inc rax", "xchg rax, rbx", "inc rax", "jmp 2b");
breakable!(pause, "2: pause", "inc rax", "jmp 2b");
breakable!(flags_only, "2: stc", "clc", "cmc", "jmp 2b");

breakable!(decrement, "2: dec rcx", "jnz 2b");
breakable!(loop_alone, "2: loop 2b");
breakable!(loop_with_sum, "2: add rax, rcx", "rol rax, 5", "loop 2b");
breakable!(loop_not_equal, "2: inc rax", "cmp rax, -1", "loopne 2b");
breakable!(jump_if_zero, "2: jrcxz 3f", "lea rcx, [rcx - 1]", "jmp 2b", "3: inc rax");
breakable!(nested, "2: mov rdx, 7", "3: add rax, rdx", "dec rdx", "jnz 3b", "dec rcx", "jnz 2b");
breakable!(
    recursive,
    "2: mov rdx, 40",
    "call 3f",
    "dec rcx",
    "jnz 2b",
    "jmp 99f",
    "3: add rax, rdx",
    "dec rdx",
    "jz 4f",
    "call 3b",
    "4: rol rax, 1",
    "ret"
);

breakable!(
    wide_arithmetic,
    "2:",
    ".rept 12",
    "add rax, rcx",
    "rol rax, 7",
    "xor rbx, rax",
    "lea rdx, [rdx + 2 * rbx + 1]",
    ".endr",
    "dec rcx",
    "jnz 2b"
);
breakable!(
    wide_memory,
    "push 0",
    "push 0",
    "2:",
    ".rept 10",
    "add [rsp], rcx",
    "mov rax, [rsp]",
    "xchg rbx, [rsp + 8]",
    "add rbx, rax",
    "cmp rax, rbx",
    "cmovb rdx, rbx",
    ".endr",
    "dec rcx",
    "jnz 2b",
    "pop rax",
    "pop rbx"
);
breakable!(
    wide_branches,
    "2:",
    ".rept 14",
    "add rax, rcx",
    "bt rax, 3",
    "jc 3f",
    "add rbx, rax",
    "3:",
    ".endr",
    "loop 4f",
    "jmp 99f",
    "4: jmp 2b"
);

const ENDLESS: [Leaf; 10] = [
    jump_to_itself,
    jump_with_registers,
    jump_indirect,
    call_and_return,
    count_in_memory,
    nops,
    wide_strides,
    push_and_pop,
    pause,
    flags_only,
];

/// Each with its rounds.
const COUNTED: [(Leaf, u64); 7] = [
    (decrement, 40_000),
    (loop_alone, 60_000),
    (loop_with_sum, 20_000),
    (loop_not_equal, 20_000),
    (jump_if_zero, 20_000),
    (nested, 3_000),
    (recursive, 250),
];

/// Each with its rounds.
const WIDE: [(Leaf, u64); 3] = [(wide_arithmetic, 4_000), (wide_memory, 3_000), (wide_branches, 4_000)];

/// Loops without an end, each left by an interrupt. How far they came depends on where that came.
pub fn endless() -> u64 {
    for round in 0..super::rounds(4) {
        for leaf in ENDLESS {
            let mut io: Operands = [round, 3, 5, 7, 11, 13, 17, 19, 23, 29];
            storm::leave_after(1 + storm::random() % 24);
            leaf(io.as_mut_ptr());
            io.into_iter().for_each(trail::add);
        }
    }
    0
}

/// Loops with a count.
pub fn counted() -> u64 {
    with_count(&COUNTED, super::rounds(4) * 6)
}

/// Loops of some fifty instructions with a count, `wide=N` times as many as there are tight ones: to come to a place in them is not
/// as dear as in those.
pub fn wide() -> u64 {
    with_count(&WIDE, super::rounds(4) * 6 * boot::number("wide", 1))
}

fn with_count(loops: &[(Leaf, u64)], rounds: u64) -> u64 {
    let mut result = trail::SEED;
    for round in 0..rounds {
        for (leaf, count) in loops {
            let mut io: Operands = [round, 0, count + round, 0, 0, 0, 0, 0, 0, 0];
            leaf(io.as_mut_ptr());
            result = io[..4].iter().fold(result, |hash, &word| trail::mix(hash, word));
        }
    }
    result
}
