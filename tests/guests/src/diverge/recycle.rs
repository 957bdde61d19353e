//! Page tables written by every kind of instruction, single-stepped too, and page frames that are tables now and data then.

use super::tables::{self, OPEN};
use super::{Leaf, Operands, debug, trail};
use crate::{cpu, exits};

/// RSI is the entry's address, RAX its value, R8 the address of a copy of it. RBX is what was there.
macro_rules! writer {
    ($($name:ident: $($code:literal),*;)*) => {
        $(breakable!($name, "mov rbx, [rsi]", $($code),*);)*
        /// All of them, with their names.
        const WRITERS: &[(&str, Leaf)] = &[$((stringify!($name), $name)),*];
    };
}

writer! {
    plain: "mov [rsi], rax";
    exchange: "mov rdx, rax", "xchg [rsi], rdx";
    halves: "mov rdx, rax", "mov dword ptr [rsi], edx", "shr rdx, 32", "mov dword ptr [rsi + 4], edx";
    words: "mov rdx, rax", "mov word ptr [rsi], dx", "shr rdx, 16", "mov word ptr [rsi + 2], dx", "shr rdx, 16",
        "mov dword ptr [rsi + 4], edx";
    octets: "mov rcx, 8", "mov rdx, rax", "mov rdi, rsi", "2: mov byte ptr [rdi], dl", "inc rdi", "shr rdx, 8", "loop 2b";
    compare_and_exchange: "mov rdx, rax", "mov rax, rbx", "lock cmpxchg [rsi], rdx", "setz cl", "mov rax, rdx";
    compare_and_fail: "mov rdx, rax", "not rbx", "mov rax, rbx", "lock cmpxchg [rsi], rdx", "mov rax, rdx", "mov [rsi], rax";
    compare_eight_bytes: "mov r9, rax", "mov rcx, r9", "shr rcx, 32", "mov r10, rbx", "mov eax, ebx", "mov rdx, rbx",
        "shr rdx, 32", "mov ebx, r9d", "lock cmpxchg8b [rsi]", "mov rbx, r10", "mov rax, r9";
    and_or: "and qword ptr [rsi], 0", "lock or [rsi], rax";
    exclusive_or: "mov rdx, rbx", "xor rdx, rax", "xor [rsi], rdx";
    add: "mov rdx, rax", "sub rdx, rbx", "add [rsi], rdx";
    exchange_and_add: "mov rdx, rax", "sub rdx, rbx", "lock xadd [rsi], rdx";
    subtract: "mov rdx, rbx", "sub rdx, rax", "sub [rsi], rdx";
    up_and_down: "mov [rsi], rax", "inc qword ptr [rsi]", "dec qword ptr [rsi]", "not qword ptr [rsi]", "not qword ptr [rsi]";
    negated: "mov rdx, rax", "neg rdx", "mov [rsi], rdx", "neg qword ptr [rsi]";
    shifted: "mov [rsi], rax", "rol qword ptr [rsi], 9", "ror qword ptr [rsi], 9";
    bits: "mov [rsi], rax", "btr qword ptr [rsi], 1", "lock bts qword ptr [rsi], 1", "lock btc qword ptr [rsi], 11",
        "btc qword ptr [rsi], 11";
    bit_by_register: "mov [rsi], rax", "mov edx, 2", "btr [rsi], rdx", "bts [rsi], rdx";
    condition: "mov [rsi], rax", "cmp rax, rax", "setz byte ptr [rsi + 6]", "mov byte ptr [rsi + 6], 0";
    streamed: "movnti [rsi], rax";
    by_vector: "movq xmm0, rax", "movq qword ptr [rsi], xmm0";
    by_wide_vector: "movups xmm0, [rsi]", "movq xmm1, rax", "movsd xmm0, xmm1", "movups [rsi], xmm0";
    pushed: "cli", "lea rsp, [rsi + 8]", "push rax", "mov rsp, r14", "sti";
    popped: "push rax", "pop qword ptr [rsi]";
    stored: "mov rdi, rsi", "stosq";
    stored_by_four: "mov rdi, rsi", "mov rdx, rax", "stosd", "shr rax, 32", "stosd", "mov rax, rdx";
    moved: "mov rdi, rsi", "mov r9, rsi", "mov rsi, r8", "movsq", "mov rsi, r9";
    repeated: "mov rdi, rsi", "mov ecx, 1", "rep stosq";
    repeated_move: "mov rdi, rsi", "mov r9, rsi", "mov rsi, r8", "mov ecx, 8", "rep movsb", "mov rsi, r9";
}

/// The slot of the window whose table is written, and the table's page frame; its first target.
const SLOT: u64 = 3;
const TABLE: u64 = 900;
const TARGET: u64 = 100;
/// The copy from which entries are moved.
const COPY: u64 = 901;

fn write_all(round: u64, stepped: bool) -> u64 {
    let mut result = trail::SEED;
    for (number, (name, leaf)) in (0..).zip(WRITERS) {
        // A trap would be pushed upon the table.
        if stepped && *name == "pushed" {
            continue;
        }
        let index = (round * 41 + number * 7) % 512;
        let target = TARGET + (round * 3 + number) % 64;
        let entry = tables::frame(target) | OPEN;
        tables::store_frame(COPY, 0, entry);
        if (round + number).is_multiple_of(2) || name.starts_with("compare") {
            // Where nothing is, the processor sets no bit by itself meanwhile.
            tables::store_frame(TABLE, index, 0);
        }
        let at = tables::frame(TABLE) + 8 * index;
        let mut io: Operands = [entry, 0, 0, 0, at, 0, tables::frame(COPY), 0, 0, 0];
        leaf(io.as_mut_ptr());
        tables::flush_all();
        let found = tables::load(tables::behind(SLOT, index));
        let now = tables::load_frame(TABLE, index);
        assert_eq!(found, target, "{name} has not written the entry {index}, which is {now:#x}");
        result = trail::mix(result, found ^ io[0]);
    }
    result
}

fn prepare() {
    const SSE: u64 = 1 << 9 | 1 << 10;
    exits::set_cr4(cpu::cr4() | SSE).expect("CR4");
    (0..64).for_each(|number| tables::store_frame(TARGET + number, 0, TARGET + number));
    (0..512).for_each(|word| tables::store_frame(TABLE, word, 0));
    tables::link(0, SLOT, TABLE, 0);
    tables::flush_all();
}

/// Each kind of write.
pub fn writes() -> u64 {
    prepare();
    let result =
        (0..super::rounds(20) * 8).fold(trail::SEED, |hash, round| trail::mix(hash, write_all(round, false)));
    tables::unlink(0, SLOT);
    tables::flush_all();
    result
}

/// The same, with a trap after each instruction.
pub fn stepped_writes() -> u64 {
    prepare();
    let round = |hash, round| trail::mix(hash, debug::stepping(|| write_all(round, true)));
    let result = (0..super::rounds(20).div_ceil(20)).fold(trail::SEED, round);
    tables::unlink(0, SLOT);
    tables::flush_all();
    result
}

breakable!(clear_page, "rep stosq");

/// Page frames that are page tables in one round and data in the next.
pub fn recycle() -> u64 {
    const SLOT: u64 = 4;
    const FRAMES: u64 = 920;
    let mut result = trail::SEED;
    for round in 0..super::rounds(20) * 4 {
        let (table, data) = (FRAMES + round % 5, FRAMES + (round + 2) % 5);
        let mut io: Operands = [0, 0, 512, 0, 0, tables::frame(table), 0, 0, 0, 0];
        clear_page(io.as_mut_ptr());
        for index in 0..64 {
            let target = if index == 9 { data } else { TARGET + (index + round) % 64 };
            tables::store_frame(table, 8 * index % 512, tables::frame(target) | OPEN);
        }
        tables::link(0, SLOT, table, 0);
        for index in 0..64 {
            let at = tables::behind(SLOT, 8 * index % 512) + 8 * (round % 512);
            tables::store(at, at ^ round);
            result = trail::mix(result, tables::load(at));
        }
        // What was a table two or three rounds ago is data here, by two addresses.
        for word in 0..512 {
            tables::store(tables::behind(SLOT, 72) + 8 * word, word ^ round);
            result = trail::mix(result, tables::load_frame(data, word));
        }
        tables::unlink(0, SLOT);
        tables::flush_all();
    }
    result
}
