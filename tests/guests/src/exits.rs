//! Instructions that exit to a hypervisor, each as a guarded piece with its operands and results in an array.

use core::arch::naked_asm;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::traps::{self, Fault, Frame};
use crate::wild;

/// #DB exceptions so far, RIP and DR6 of the last.
static DEBUGS: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

macro_rules! leaf {
    ($(#[$doc:meta])* $name:ident, $($asm:tt)*) => {
        $(#[$doc])*
        #[unsafe(naked)]
        extern "C" fn $name(_io: *mut u64) {
            naked_asm!($($asm)*)
        }
    };
}

leaf!(
    ins_leaf,
    "mov rdx, [rdi]",
    "mov rcx, [rdi + 16]",
    "mov rsi, rdi",
    "mov rdi, [rdi + 8]",
    "rep insb",
    "mov [rsi + 8], rdi",
    "mov [rsi + 16], rcx",
    "ret"
);
leaf!(
    outs_leaf,
    "mov rdx, [rdi]",
    "mov rcx, [rdi + 16]",
    "mov rsi, [rdi + 8]",
    "rep outsb",
    "mov [rdi + 8], rsi",
    "mov [rdi + 16], rcx",
    "ret"
);
leaf!(vmcall_leaf, "vmcall", "ret");
leaf!(vmxon_leaf, "vmxon [rdi]", "ret");
leaf!(monitor_leaf, "mov rax, rdi", "xor ecx, ecx", "xor edx, edx", "monitor", "ret");
leaf!(rdpmc_leaf, "xor ecx, ecx", "rdpmc", "ret");
leaf!(set_cr4_leaf, "mov rax, [rdi]", "mov cr4, rax", "ret");
leaf!(
    /// XSETBV of register 0.
    xsetbv_leaf,
    "mov eax, [rdi]", "mov edx, [rdi + 4]", "xor ecx, ecx", "xsetbv", "ret"
);
leaf!(
    /// Loads YMM3 with a pattern, exits in many ways, and stores it; four words at [rdi].
    ymm_leaf,
    "mov r8, rdi", "vmovdqu ymm3, [rdi]", "push rbx", "xor eax, eax", "cpuid", "rdtsc", "mov dx, 0x80", "out dx, al",
    "mov rcx, 0x10", "rdmsr", "mov eax, 0xfee00030", "mov eax, [rax]", "pop rbx", "vmovdqu [r8 + 32], ymm3", "ret"
);
leaf!(
    /// Ten instructions with TF set, exits among them: CPUID, RDTSC, OUT, IN, a device's memory.
    stepped_leaf,
    "push rbx", "mov r8d, 0xfee00030", "mov ecx, 0x10", "pushfq", "or dword ptr [rsp], 0x100", "popfq", "nop", "cpuid",
    "rdtsc", "out 0x80, al", "in al, 0x80", "mov eax, [r8]", "nop", "pushfq", "and dword ptr [rsp], 0xfffffeff", "popfq",
    "pop rbx", "ret"
);
leaf!(
    /// A breakpoint in DR0 on an instruction of its own: [rdi] gets that instruction's address.
    breakpoint_leaf,
    "lea rax, [rip + 2f]", "mov [rdi], rax", "mov dr0, rax", "mov eax, 0x402", "mov dr7, rax", "nop", "2: nop",
    "mov eax, 0x400", "mov dr7, rax", "ret"
);
leaf!(
    /// DR7.GD, then a MOV from DR: #DB before it. The handler clears nothing; the processor clears GD.
    general_detect_leaf,
    "mov eax, 0x2400", "mov dr7, rax", "mov rax, dr0", "mov eax, 0x400", "mov dr7, rax", "ret"
);
leaf!(
    /// An interrupt to itself with interrupts off, then STI and a NOP, which the shadow covers: [rdi] is the address behind it.
    shadow_leaf,
    "lea rax, [rip + 2f]", "mov [rdi], rax", "mov ecx, [rdi + 8]", "mov eax, 0xfee00300", "mov [rax], ecx", "nop",
    "sti", "nop", "2: nop", "cli", "ret"
);

/// REP INSB from `port` to `to`: where RDI and RCX ended.
///
/// # Safety
/// The memory is nobody else's.
pub unsafe fn rep_insb(port: u16, to: u64, count: u64) -> (Result<(), Fault>, u64, u64) {
    let mut io = [u64::from(port), to, count];
    let result = traps::guarded(ins_leaf, &mut io);
    (result, io[1], io[2])
}

/// REP OUTSB from memory of wild code: where RSI and RCX ended.
pub fn rep_outsb(port: u16, from: u64, count: u64) -> (Result<(), Fault>, u64, u64) {
    let mut io = [u64::from(port), from, count];
    let result = traps::guarded(outs_leaf, &mut io);
    (result, io[1], io[2])
}

/// Catches #DB from now on.
pub fn catch_debug() {
    fn caught(frame: &mut Frame) {
        let dr6: u64;
        // SAFETY: DR6 has no bearing on memory; it is cleared as a debugger does.
        unsafe {
            core::arch::asm!("mov {}, dr6", out(reg) dr6, options(nomem, nostack));
            core::arch::asm!("mov dr6, {}", in(reg) 0xffff_0ff0u64, options(nomem, nostack));
        }
        DEBUGS[0].fetch_add(1, Ordering::SeqCst);
        DEBUGS[1].store(frame.rip, Ordering::SeqCst);
        DEBUGS[2].store(dr6, Ordering::SeqCst);
        // A fault: on behind it.
        frame.rflags |= 1 << 16;
    }
    DEBUGS.iter().for_each(|word| word.store(0, Ordering::SeqCst));
    traps::set_handler(1, Some(caught));
}

/// #DB exceptions since [`catch_debug`], RIP and DR6 of the last.
pub fn debugs() -> [u64; 3] {
    [0, 1, 2].map(|i| DEBUGS[i].load(Ordering::SeqCst))
}

/// Sets CR4.
pub fn set_cr4(value: u64) -> Result<(), Fault> {
    traps::guarded(set_cr4_leaf, &mut [value])
}

/// Code that is written across the end of a page, executed, changed, executed: how often it did what was written last.
pub fn self_modifying(rounds: u32) -> u32 {
    let at = wild::CODE + 0x1000 - 3;
    (0..rounds)
        .filter(|round| {
            // MOV EAX, imm32; RET: the immediate begins before the page's end and goes on behind it.
            let [a, b, c, d] = (round ^ 0x5a5a_a5a5).to_le_bytes();
            wild::place(at, &[0xb8, a, b, c, d, 0xc3]);
            let result: u32;
            // SAFETY: the code just written touches EAX only.
            unsafe {
                core::arch::asm!("call {at}", at = in(reg) at, out("eax") result, clobber_abi("sysv64"));
            }
            result == round ^ 0x5a5a_a5a5
        })
        .count() as u32
}

/// Reads device memory with an access of this many bytes.
///
/// # Panics
/// For another size than 1, 2, 4, 8.
pub fn read_device(at: u64, size: u8) -> u64 {
    // SAFETY: device memory above the RAM of any test's machine; a read of a device writes nothing.
    unsafe {
        match size {
            1 => (at as *const u8).read_volatile().into(),
            2 => (at as *const u16).read_volatile().into(),
            4 => (at as *const u32).read_volatile().into(),
            8 => (at as *const u64).read_volatile(),
            _ => panic!("no access has {size} bytes"),
        }
    }
}

/// Sets CR8.
pub fn set_cr8(priority: u64) {
    // SAFETY: the task priority has no bearing on memory.
    unsafe { core::arch::asm!("mov cr8, {}", in(reg) priority, options(nomem, nostack)) };
}

/// CR8.
pub fn cr8() -> u64 {
    let value;
    // SAFETY: no effect.
    unsafe { core::arch::asm!("mov {}, cr8", out(reg) value, options(nomem, nostack)) };
    value
}

/// Points a pin of the I/O APIC at this processor: the low half of its entry.
pub fn set_pin(pin: u32, entry: u32) {
    // SAFETY: the I/O APIC writes no memory; interrupts go through the IDT.
    unsafe {
        for (register, value) in [(0x11 + 2 * pin, 0), (0x10 + 2 * pin, entry)] {
            (0xfec0_0000 as *mut u32).write_volatile(register);
            (0xfec0_0010 as *mut u32).write_volatile(value);
        }
    }
}

/// Instructions that this processor does not have, or not for the guest: what they said.
pub fn denied() -> [(&'static str, Result<(), Fault>); 4] {
    let leaves: [(_, extern "C" fn(*mut u64)); 4] =
        [("vmcall", vmcall_leaf), ("vmxon", vmxon_leaf), ("monitor", monitor_leaf), ("rdpmc", rdpmc_leaf)];
    leaves.map(|(name, leaf)| (name, traps::guarded(leaf, &mut [0])))
}

/// Sets XCR0.
pub fn xsetbv(value: u64) -> Result<(), Fault> {
    traps::guarded(xsetbv_leaf, &mut [value])
}

/// Loads YMM3, exits in many ways, and gives what YMM3 holds then.
pub fn through_ymm(words: [u64; 4]) -> Result<[u64; 4], Fault> {
    let [a, b, c, d] = words;
    let mut io = [a, b, c, d, 0, 0, 0, 0];
    traps::guarded(ymm_leaf, &mut io)?;
    Ok([io[4], io[5], io[6], io[7]])
}

/// Single-steps ten instructions after the one that POPFQ leaves; see the code.
pub fn single_step() -> Result<(), Fault> {
    traps::guarded(stepped_leaf, &mut [0])
}

/// Runs onto a breakpoint: its address.
pub fn breakpoint() -> Result<u64, Fault> {
    let mut io = [0];
    traps::guarded(breakpoint_leaf, &mut io)?;
    Ok(io[0])
}

/// Touches a debug register that is guarded by DR7.GD.
pub fn general_detect() -> Result<(), Fault> {
    traps::guarded(general_detect_leaf, &mut [0])
}

/// Sends itself this vector, lets interrupts in by STI, whose shadow covers one NOP: the address behind that.
pub fn sti_shadow(vector: u8) -> Result<u64, Fault> {
    let mut io = [0, 1 << 18 | 1 << 14 | u64::from(vector)];
    traps::guarded(shadow_leaf, &mut io)?;
    Ok(io[0])
}

/// REP INSB into memory of wild code: where RDI and RCX ended.
///
/// # Panics
/// Where the bytes do not lie in it.
pub fn rep_insb_to_data(port: u16, to: u64, count: u64) -> (Result<(), Fault>, u64, u64) {
    assert!(to >= wild::DATA && to + count <= wild::STACK);
    // SAFETY: memory of no Rust object.
    unsafe { rep_insb(port, to, count) }
}

/// How many of these bytes of wild code's memory are `byte`.
///
/// # Panics
/// Where they do not lie in it.
pub fn count_data(from: u64, length: u64, byte: u8) -> u64 {
    assert!(from >= wild::DATA && from + length <= wild::STACK);
    // SAFETY: memory of no Rust object.
    (from..from + length).filter(|at| unsafe { (*at as *const u8).read_volatile() } == byte).count() as u64
}
