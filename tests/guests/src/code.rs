//! Pieces of code that retire a known number of instructions and branches.
//!
//! Each is entered by CALL and left by its one final RET, which belong to the caller's overhead; the numbers are what
//! it retires beyond an empty piece.

use core::arch::naked_asm;

use crate::{
    ring3,
    traps::{self, USER_CS, USER_SS},
};

/// A piece of code without arguments that [`crate::pmu::count`] can call.
#[derive(Clone, Copy)]
pub struct Routine(unsafe extern "C" fn());

impl Routine {
    /// A piece of this library.
    pub(crate) const fn new(code: unsafe extern "C" fn()) -> Self {
        Self(code)
    }

    /// Its first instruction.
    pub fn address(self) -> unsafe extern "C" fn() {
        self.0
    }
}

/// What retiring a piece must count.
#[derive(Clone, Copy)]
pub struct Piece {
    /// Name in reports.
    pub name: &'static str,
    /// Its code.
    pub routine: Routine,
    /// Instructions.
    pub instructions: u64,
    /// Conditional branches, or `None` where the processor's documents leave it open (LOOP).
    pub conditional: Option<u64>,
    /// Of these, taken.
    pub taken: u64,
    /// All branches, far ones too.
    pub branches: u64,
}

/// Vector whose handler is a bare IRETQ.
pub const IRET_VECTOR: u8 = 0x41;

macro_rules! piece {
    ($name:ident, $instructions:expr, $conditional:expr, $taken:expr, $branches:expr, $($asm:tt)*) => {{
        #[unsafe(naked)]
        unsafe extern "C" fn code() {
            naked_asm!($($asm)*)
        }
        Piece {
            name: stringify!($name),
            routine: Routine(code),
            instructions: $instructions,
            conditional: $conditional,
            taken: $taken,
            branches: $branches,
        }
    }};
}

/// Nothing.
pub fn empty() -> Piece {
    piece!(empty, 0, Some(0), 0, 0, "ret")
}

/// Straight code, every kind of branch, string instructions, all in ring 0.
pub fn plain() -> [Piece; 16] {
    [
        piece!(nops, 100, Some(0), 0, 0, ".rept 100", "nop", ".endr", "ret"),
        piece!(loop_taken, 2001, Some(1000), 999, 1000, "mov ecx, 1000", "2: dec ecx", "jnz 2b", "ret"),
        piece!(
            loop_mixed,
            4001,
            Some(2000),
            999,
            2000,
            "mov ecx, 1000",
            "2: test ecx, ecx",
            "jz 3f",
            "dec ecx",
            "jnz 2b",
            "3: ret"
        ),
        piece!(only_not_taken, 65, Some(64), 0, 64, "xor eax, eax", ".rept 64", "jnz 2f", ".endr", "2: ret"),
        piece!(only_taken, 65, Some(64), 64, 64, "xor eax, eax", ".rept 64", "jz 2f", "2:", ".endr", "ret"),
        piece!(
            near_jcc,
            33,
            Some(32),
            32,
            32,
            "xor eax, eax",
            ".rept 32",
            ".byte 0x0f, 0x84",
            ".long 0",
            ".endr",
            "ret"
        ),
        piece!(loop_instruction, 501, None, 0, 500, "mov ecx, 500", "2: loop 2b", "ret"),
        piece!(jumps, 32, Some(0), 0, 32, ".rept 32", "jmp 2f", "2:", ".endr", "ret"),
        piece!(
            indirect_jump,
            4,
            Some(0),
            0,
            2,
            "lea rax, [rip + 2f]",
            "jmp rax",
            "2: lea rax, [rip + 3f]",
            "jmp rax",
            "3: ret"
        ),
        piece!(
            calls,
            22,
            Some(0),
            0,
            21,
            ".rept 10",
            "call 3f",
            ".endr",
            "jmp 4f",
            "3: ret",
            "4: nop",
            "ret"
        ),
        piece!(rep_stosb, 4, Some(0), 0, 0,
            "lea rdi, [rip + {b}]", "mov ecx, 4000", "xor eax, eax", "rep stosb", "ret", b = sym SCRATCH),
        piece!(rep_movsq, 4, Some(0), 0, 0,
            "lea rsi, [rip + {b}]", "lea rdi, [rip + {b} + 2048]", "mov ecx, 256", "rep movsq", "ret",
            b = sym SCRATCH),
        piece!(rep_of_zero, 4, Some(0), 0, 0,
            "lea rdi, [rip + {b}]", "xor ecx, ecx", "rep stosb", "rep movsb", "ret", b = sym SCRATCH),
        piece!(rep_scasb_found, 8, Some(0), 0, 0,
            "lea rdi, [rip + {b}]", "mov ecx, 100", "xor eax, eax", "rep stosb",
            "lea rdi, [rip + {b}]", "mov byte ptr [rdi + 50], 1", "mov ecx, 100", "repe scasb", "ret",
            b = sym SCRATCH),
        piece!(
            cpuid,
            22,
            Some(0),
            0,
            0,
            "mov r8, rbx",
            ".rept 5",
            "xor eax, eax",
            "xor ecx, ecx",
            "cpuid",
            "nop",
            ".endr",
            "mov rbx, r8",
            "ret"
        ),
        piece!(
            flags_and_moves,
            42,
            Some(0),
            0,
            0,
            "xor eax, eax",
            ".rept 10",
            "cmovz ecx, eax",
            "setz dl",
            "pushfq",
            "popfq",
            ".endr",
            "nop",
            "ret"
        ),
    ]
}

/// Room that string pieces write.
static SCRATCH: Scratch = Scratch(core::cell::UnsafeCell::new([0; 8192]));
#[repr(align(4096))]
struct Scratch(#[allow(dead_code)] core::cell::UnsafeCell<[u8; 8192]>);
// SAFETY: only the pieces' assembly touches it, with no meaning in its bytes, on one processor at a time.
unsafe impl Sync for Scratch {}

/// Far transfers and faults in ring 0. [`prepare`] first.
pub fn far() -> [Piece; 6] {
    [
        piece!(int_iret, 20, Some(0), 0, 20, ".rept 10", "int 0x41", ".endr", "ret"),
        // UD2 does not retire: ADD and IRETQ of the handler do.
        piece!(ud2_skipped, 20, Some(0), 0, 10, ".rept 10", "ud2", ".endr", "ret"),
        // INT3 is a trap: it retires.
        piece!(int3, 20, Some(0), 0, 20, ".rept 10", "int3", ".endr", "ret"),
        // A load that faults, is repaired and repeated retires once; the handler is 4.
        piece!(fault_repeated, 6, Some(0), 0, 1, "mov rbx, 0x8000000000000000", "mov rax, [rbx]", "ret"),
        // The same inside REP: the faulting iteration retires nothing, the whole string once.
        piece!(fault_in_rep, 9, Some(0), 0, 1,
            "mov rbx, 0x8000000000000000", "mov rsi, rbx", "mov ecx, 64", "lea rdi, [rip + {b}]",
            "rep movsb", "ret", b = sym SCRATCH),
        // Far return to the same code segment: MOV, PUSH, LEA, PUSH, RETFQ.
        piece!(
            far_return,
            5,
            Some(0),
            0,
            1,
            "mov eax, 8",
            "push rax",
            "lea rax, [rip + 2f]",
            "push rax",
            "retfq",
            "2: ret"
        ),
    ]
}

/// Loop iterations of the ring-3 pieces [`user_short`] and [`user_long`].
pub const USER_LOOPS: [u64; 2] = [1000, 3000];

/// Instructions that enter ring 3 in the ring-3 pieces, in ring 0, IRETQ not counted.
pub const USER_ENTER: u64 = 8;
/// Instructions of the way back, in ring 0, INT not counted.
pub const USER_LEAVE: u64 = 1;

macro_rules! user_piece {
    ($name:ident, $instructions:expr, $conditional:expr, $taken:expr, $branches:expr, $($asm:tt)*) => {
        // In: eight instructions and IRETQ. Out: INT and one instruction, whose RET is the piece's own.
        piece!($name, USER_ENTER + 1 + $instructions + 1 + USER_LEAVE, Some($conditional), $taken, $branches + 2,
            "mov gs:[{ring0}], rsp",
            "mov rax, rsp",
            "push {ss}",
            "push rax",
            "pushfq",
            "push {cs}",
            "lea rax, [rip + 77f]",
            "push rax",
            "iretq",
            "77:",
            $($asm)*
            "int 0x42",
            ring0 = const traps::RING0_RSP, ss = const USER_SS, cs = const USER_CS)
    };
}

/// 1000 times round a loop in ring 3.
pub fn user_short() -> Piece {
    user_piece!(user_short, 2001, 1000, 999, 1000, "mov ecx, 1000", "2: dec ecx", "jnz 2b",)
}

/// 3000 times round a loop in ring 3.
pub fn user_long() -> Piece {
    user_piece!(user_long, 6001, 3000, 2999, 3000, "mov ecx, 3000", "2: dec ecx", "jnz 2b",)
}

/// 100 SYSCALL and SYSRET from ring 3; the handler is a bare SYSRETQ.
pub fn user_syscalls() -> Piece {
    user_piece!(user_syscalls, 401, 100, 99, 300, "mov ebx, 100", "2: syscall", "dec ebx", "jnz 2b",)
}

/// 50 INT and IRET from ring 3.
pub fn user_ints() -> Piece {
    user_piece!(user_ints, 201, 50, 49, 150, "mov ebx, 50", "2: int 0x41", "dec ebx", "jnz 2b",)
}

/// Length of [`sled`], in one-byte instructions.
pub const SLED: u64 = 8192;

/// [`SLED`] NOPs: RIP tells how many have retired.
pub fn sled() -> Piece {
    piece!(sled, SLED, Some(0), 0, 0, ".rept 8192", "nop", ".endr", "ret")
}

/// 20,000 rounds of a loop of three instructions with one conditional branch.
pub fn long_loop() -> Piece {
    piece!(
        long_loop,
        60001,
        Some(20000),
        19999,
        20000,
        "mov ecx, 20000",
        "2: nop",
        "dec ecx",
        "jnz 2b",
        "ret"
    )
}

/// Sets up what [`far`] and the ring-3 pieces jump to.
pub fn prepare() {
    ring3::init();
    // SAFETY: the handlers keep registers and end in IRETQ (or drop to the saved ring-0 stack); those of vectors with
    // an error code drop it.
    unsafe {
        traps::set_raw_gate(IRET_VECTOR, bare_iret);
        traps::set_raw_gate(3, bare_iret);
        traps::set_raw_gate(6, skip_ud2);
        traps::set_raw_gate(13, repair_rbx);
    }
}

/// Points a vector without error code at the bare IRETQ.
pub fn iret_gate(vector: u8) {
    // SAFETY: IRETQ alone keeps every register; the caller's vector pushes no error code.
    unsafe { traps::set_raw_gate(vector, bare_iret) };
}

/// Address of the bare IRETQ handler.
pub fn iret_address() -> u64 {
    bare_iret as *const () as u64
}

/// Address of the handler that skips UD2.
pub fn skip_ud2_address() -> u64 {
    skip_ud2 as *const () as u64
}

/// Takes the exception vectors back from [`prepare`], so that faults can be caught again.
pub fn restore_exceptions() {
    for vector in [3, 6, 13] {
        traps::reset_gate(vector);
    }
}

#[unsafe(naked)]
unsafe extern "C" fn bare_iret() {
    naked_asm!("iretq")
}

#[unsafe(naked)]
unsafe extern "C" fn skip_ud2() {
    naked_asm!("add qword ptr [rsp], 2", "iretq")
}

/// Makes RBX and RSI good addresses, drops the error code, tries again: four instructions.
#[unsafe(naked)]
unsafe extern "C" fn repair_rbx() {
    naked_asm!("add rsp, 8", "mov rbx, rsp", "mov rsi, rsp", "iretq")
}

/// RDMSR of ECX into RDI.
pub fn read_msr() -> Piece {
    piece!(read_msr, 5, Some(0), 0, 0, "rdmsr", "shl rdx, 32", "or rax, rdx", "mov rdi, rax", "nop", "ret")
}

/// WRMSR of RSI to ECX.
pub fn write_msr() -> Piece {
    piece!(write_msr, 4, Some(0), 0, 0, "mov eax, esi", "mov rdx, rsi", "shr rdx, 32", "wrmsr", "ret")
}

/// RDPMC of ECX into RDI.
pub fn read_pmc() -> Piece {
    piece!(read_pmc, 4, Some(0), 0, 0, "rdpmc", "shl rdx, 32", "or rax, rdx", "mov rdi, rax", "ret")
}

/// Address and length of [`store_string`].
static STRING: [core::sync::atomic::AtomicU64; 2] = [const { core::sync::atomic::AtomicU64::new(0) }; 2];

/// REP STOSB of `length` bytes at `address`, which has to be in the window of [`crate::vmx::ept`].
pub fn store_string(address: u64, length: u64) -> Piece {
    use crate::vmx::ept;
    let window = ept::WINDOW..ept::WINDOW + 4096 * ept::WINDOW_PAGES as u64;
    assert!(window.contains(&address) && length <= window.end - address, "outside of the window");
    STRING[0].store(address, core::sync::atomic::Ordering::SeqCst);
    STRING[1].store(length, core::sync::atomic::Ordering::SeqCst);
    piece!(store_string, 4, Some(0), 0, 0,
        "mov rdi, [rip + {s}]", "mov rcx, [rip + {s} + 8]", "mov eax, 0x5a", "rep stosb", "ret", s = sym STRING)
}

/// A load from RDI.
pub fn load() -> Piece {
    piece!(load, 1, Some(0), 0, 0, "mov rdx, [rdi]", "ret")
}

/// A store to RDI.
pub fn store() -> Piece {
    piece!(store, 1, Some(0), 0, 0, "mov [rdi], rdx", "ret")
}

/// A load from RDI, then a store.
pub fn load_then_store() -> Piece {
    piece!(load_then_store, 2, Some(0), 0, 0, "mov rdx, [rdi]", "mov [rdi], rdx", "ret")
}

/// A call to RDI, where a RET must be.
pub fn call_data() -> Piece {
    piece!(call_data, 2, Some(0), 0, 2, "call rdi", "ret")
}

/// RCX rounds of stores to RDI.
pub fn store_rounds() -> Piece {
    piece!(store_rounds, 0, None, 0, 0, "2: mov [rdi], rcx", "add rdx, rcx", "dec rcx", "jnz 2b", "ret")
}

/// RCX rounds: store to RDI, clear bit 6 of the entry at RSI, store again; RBX counts how often the bit was back.
pub fn clear_dirty_rounds() -> Piece {
    piece!(
        clear_dirty_rounds,
        0,
        None,
        0,
        0,
        "xor ebx, ebx",
        "2: mov [rdi], rcx",
        "btr qword ptr [rsi], 6",
        "mov [rdi], rcx",
        "bt qword ptr [rsi], 6",
        "adc rbx, 0",
        "dec rcx",
        "jnz 2b",
        "ret"
    )
}

/// Ten times CPUID and NOP, for a guest in which CPUID exits: NOPs only retire.
pub fn exits() -> Piece {
    piece!(exits, 10, Some(0), 0, 0, ".rept 10", "cpuid", "nop", ".endr", "ret")
}
