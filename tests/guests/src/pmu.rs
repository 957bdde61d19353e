//! The architectural performance-monitoring unit: shape, counters, events, counting a piece of code, and the PMI.
//!
//! SDM vol. 3B chapter 21. Counters are meant to be counted by comparison: [`count`] gives the same overhead for every
//! piece, which [`Overhead`] measures with an empty one.

use core::{
    arch::naked_asm,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    apic, code,
    cpu::{self, cpuid, rdmsr},
    traps,
};

/// IA32_PMC0 (32-bit writes, sign-extended).
pub const PMC0: u32 = 0xc1;
/// IA32_A_PMC0 (full-width writes).
pub const A_PMC0: u32 = 0x4c1;
/// IA32_PERFEVTSEL0.
pub const PERFEVTSEL0: u32 = 0x186;
/// IA32_FIXED_CTR0.
pub const FIXED_CTR0: u32 = 0x309;
/// IA32_PERF_CAPABILITIES.
pub const PERF_CAPABILITIES: u32 = 0x345;
/// IA32_FIXED_CTR_CTRL.
pub const FIXED_CTR_CTRL: u32 = 0x38d;
/// IA32_PERF_GLOBAL_STATUS.
pub const GLOBAL_STATUS: u32 = 0x38e;
/// IA32_PERF_GLOBAL_CTRL.
pub const GLOBAL_CTRL: u32 = 0x38f;
/// IA32_PERF_GLOBAL_STATUS_RESET (OVF_CTRL before version 4).
pub const GLOBAL_STATUS_RESET: u32 = 0x390;
/// IA32_PERF_GLOBAL_STATUS_SET (version 4).
pub const GLOBAL_STATUS_SET: u32 = 0x391;
/// IA32_DEBUGCTL.
pub const DEBUGCTL: u32 = 0x1d9;

/// What CPUID leaf 0AH says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Version of architectural performance monitoring; 0: there is none.
    pub version: u32,
    /// General counters of each logical processor.
    pub general: u32,
    /// Bits of a general counter.
    pub general_bits: u32,
    /// Fixed counters.
    pub fixed: u32,
    /// Bits of a fixed counter.
    pub fixed_bits: u32,
    /// Architectural events that are *not* there (EBX), of the first `event_bits`.
    pub missing_events: u32,
    /// How many bits of `missing_events` mean something.
    pub event_bits: u32,
}

impl Shape {
    /// The bits of all counters in GLOBAL_CTRL and GLOBAL_STATUS.
    pub fn every_counter(self) -> u64 {
        ((1 << self.general) - 1) | ((1 << self.fixed) - 1) << 32
    }
}

/// Reads leaf 0AH.
pub fn shape() -> Shape {
    if cpuid(0, 0)[0] < 0xa {
        return decode_shape([0; 4]);
    }
    decode_shape(cpuid(0xa, 0))
}

/// Fields of leaf 0AH.
fn decode_shape([eax, ebx, _, edx]: [u32; 4]) -> Shape {
    Shape {
        version: eax & 0xff,
        general: eax >> 8 & 0xff,
        general_bits: eax >> 16 & 0xff,
        fixed: edx & 0x1f,
        fixed_bits: edx >> 5 & 0xff,
        missing_events: ebx,
        event_bits: eax >> 24,
    }
}

/// One counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// IA32_PMCn.
    General(u32),
    /// IA32_FIXED_CTRn: 0 instructions, 1 core cycles, 2 reference cycles.
    Fixed(u32),
}

impl Counter {
    /// Its bit in GLOBAL_CTRL and GLOBAL_STATUS.
    pub const fn bit(self) -> u64 {
        match self {
            Self::General(n) => 1 << n,
            Self::Fixed(n) => 1 << (32 + n),
        }
    }

    /// The MSR that reads it.
    pub const fn msr(self) -> u32 {
        match self {
            Self::General(n) => PMC0 + n,
            Self::Fixed(n) => FIXED_CTR0 + n,
        }
    }

    /// ECX of RDPMC.
    pub const fn rdpmc_index(self) -> u32 {
        match self {
            Self::General(n) => n,
            Self::Fixed(n) => 0x4000_0000 | n,
        }
    }

    /// Its value.
    pub fn read(self) -> u64 {
        rdmsr(self.msr()).expect("a counter that CPUID reports can be read")
    }

    /// Writes its value at full width.
    pub fn write(self, value: u64) {
        let msr = match self {
            Self::General(n) => A_PMC0 + n,
            Self::Fixed(n) => FIXED_CTR0 + n,
        };
        cpu::wrmsr(msr, value).expect("a counter that CPUID reports takes a value of its width");
    }
}

/// Event select and unit mask of a general counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Event select.
    pub select: u8,
    /// Unit mask.
    pub mask: u8,
}

/// Instructions retired.
pub const INSTRUCTIONS: Event = Event { select: 0xc0, mask: 0 };
/// Unhalted core cycles.
pub const CYCLES: Event = Event { select: 0x3c, mask: 0 };
/// Unhalted reference cycles.
pub const REFERENCE_CYCLES: Event = Event { select: 0x3c, mask: 1 };
/// All branches retired.
pub const BRANCHES: Event = Event { select: 0xc4, mask: 0 };
/// Conditional branches: all of them up to Comet Lake, the taken ones from Ice Lake on.
pub const CONDITIONAL_01: Event = Event { select: 0xc4, mask: 0x01 };
/// Conditional branches not taken.
pub const CONDITIONAL_10: Event = Event { select: 0xc4, mask: 0x10 };
/// Conditional branches: all of them from Ice Lake on.
pub const CONDITIONAL_11: Event = Event { select: 0xc4, mask: 0x11 };

/// Which rings count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rings {
    /// Ring 0 only.
    Os,
    /// Rings 1 to 3 only.
    User,
    /// All.
    Both,
}

impl Rings {
    fn os(self) -> bool {
        self != Self::User
    }
    fn user(self) -> bool {
        self != Self::Os
    }
}

/// Raise a PMI at overflow?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// Only set the status bit.
    Quiet,
    /// Also interrupt.
    Interrupt,
}

/// Value of IA32_PERFEVTSELx.
pub fn event_select(event: Event, rings: Rings, overflow: Overflow) -> u64 {
    u64::from(event.select)
        | u64::from(event.mask) << 8
        | u64::from(rings.user()) << 16
        | u64::from(rings.os()) << 17
        | u64::from(overflow == Overflow::Interrupt) << 20
        | 1 << 22
}

/// Stops everything and takes every counter to its state after reset.
pub fn reset() {
    let shape = shape();
    let write =
        |msr, value| cpu::wrmsr(msr, value).expect("a PMU register that CPUID reports can be written");
    write(GLOBAL_CTRL, 0);
    write(FIXED_CTR_CTRL, 0);
    for n in 0..shape.general {
        write(PERFEVTSEL0 + n, 0);
        Counter::General(n).write(0);
    }
    for n in 0..shape.fixed {
        Counter::Fixed(n).write(0);
    }
    write(GLOBAL_STATUS_RESET, rdmsr(GLOBAL_STATUS).expect("GLOBAL_STATUS can be read"));
}

/// Programs general counter `n`; its value becomes 0. GLOBAL_CTRL must be off.
pub fn program_general(n: u32, event: Event, rings: Rings, overflow: Overflow) {
    cpu::wrmsr(PERFEVTSEL0 + n, event_select(event, rings, overflow)).expect("event select");
    Counter::General(n).write(0);
}

/// Programs fixed counter `n`; its value becomes 0. GLOBAL_CTRL must be off.
pub fn program_fixed(n: u32, rings: Rings, overflow: Overflow) {
    let nibble = u64::from(rings.os())
        | u64::from(rings.user()) << 1
        | u64::from(overflow == Overflow::Interrupt) << 3;
    let others = rdmsr(FIXED_CTR_CTRL).expect("FIXED_CTR_CTRL") & !(0xf << (4 * n));
    cpu::wrmsr(FIXED_CTR_CTRL, others | nibble << (4 * n)).expect("FIXED_CTR_CTRL");
    Counter::Fixed(n).write(0);
}

/// Runs a piece of code with the counters of `mask` on, and only those instructions around it that are the same for
/// every piece. What it counted is in the counters.
pub fn count(piece: code::Routine, mask: u64) {
    // SAFETY: a `Routine` is a piece of this library that keeps to the C calling convention.
    unsafe { counted_call(piece.address(), mask) };
}

/// WRMSR on, call, WRMSR off.
#[unsafe(naked)]
unsafe extern "C" fn counted_call(_piece: unsafe extern "C" fn(), _mask: u64) {
    naked_asm!(
        "push rbx", "push rbp", "push r12", "push r13", "push r14", "push r15", "pushfq",
        "mov rbx, rdi",
        "mov eax, esi",
        "mov rdx, rsi",
        "shr rdx, 32",
        "mov ecx, {ctrl}",
        "wrmsr",
        "call rbx",
        "xor eax, eax",
        "xor edx, edx",
        "mov ecx, {ctrl}",
        "wrmsr",
        "popfq", "pop r15", "pop r14", "pop r13", "pop r12", "pop rbp", "pop rbx",
        "ret",
        ctrl = const GLOBAL_CTRL,
    )
}

/// Vector of the fixed-delivery PMI.
pub const PMI_VECTOR: u8 = 0x50;
/// Instructions of the PMI routine up to and with the WRMSR that stops the counters.
pub const PMI_ROUTINE_INSTRUCTIONS: u64 = 7;

static PMI_COUNT: AtomicU64 = AtomicU64::new(0);
static PMI_RIP: AtomicU64 = AtomicU64::new(0);

/// PMIs since [`catch_pmi`].
pub fn pmis() -> u64 {
    PMI_COUNT.load(Ordering::SeqCst)
}

/// RIP that the last PMI interrupted.
pub fn pmi_rip() -> u64 {
    PMI_RIP.load(Ordering::SeqCst)
}

/// Delivery of the PMI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// As [`PMI_VECTOR`].
    Fixed,
    /// As an NMI.
    Nmi,
}

/// Points the PMI at a routine that stops all counters, counts itself and notes the RIP it interrupted; unmasks it.
pub fn catch_pmi(delivery: Delivery) {
    PMI_COUNT.store(0, Ordering::SeqCst);
    PMI_RIP.store(0, Ordering::SeqCst);
    // SAFETY: both routines keep every register and end in IRETQ; neither vector has an error code.
    unsafe {
        traps::set_raw_gate(PMI_VECTOR, pmi_fixed);
        traps::set_raw_gate(2, pmi_nmi);
    }
    unmask_pmi(delivery);
}

/// Clears the mask bit that each delivery sets.
pub fn unmask_pmi(delivery: Delivery) {
    let mode = match delivery {
        Delivery::Fixed => u32::from(PMI_VECTOR),
        Delivery::Nmi => apic::LVT_NMI,
    };
    apic::write(apic::Register::LvtPerformance, mode);
}

/// Is the PMI masked?
pub fn pmi_masked() -> bool {
    apic::read(apic::Register::LvtPerformance) & apic::LVT_MASKED != 0
}

#[unsafe(naked)]
unsafe extern "C" fn pmi_fixed() {
    naked_asm!(
        "push rax", "push rcx", "push rdx",
        "mov ecx, {ctrl}", "xor eax, eax", "xor edx, edx", "wrmsr",
        "mov rax, [rsp + 24]",
        "mov [rip + {rip}], rax",
        "lock inc qword ptr [rip + {count}]",
        "mov eax, 0xfee000b0",
        "mov dword ptr [rax], 0",
        "pop rdx", "pop rcx", "pop rax",
        "iretq",
        ctrl = const GLOBAL_CTRL, rip = sym PMI_RIP, count = sym PMI_COUNT,
    )
}

#[unsafe(naked)]
unsafe extern "C" fn pmi_nmi() {
    naked_asm!(
        "push rax", "push rcx", "push rdx",
        "mov ecx, {ctrl}", "xor eax, eax", "xor edx, edx", "wrmsr",
        "mov rax, [rsp + 24]",
        "mov [rip + {rip}], rax",
        "lock inc qword ptr [rip + {count}]",
        "pop rdx", "pop rcx", "pop rax",
        "iretq",
        ctrl = const GLOBAL_CTRL, rip = sym PMI_RIP, count = sym PMI_COUNT,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaf_0a_of_a_skylake() {
        let shape = decode_shape([0x0730_0404, 0, 0, 0x603]);
        assert_eq!((shape.version, shape.general, shape.general_bits), (4, 4, 48));
        assert_eq!((shape.fixed, shape.fixed_bits, shape.event_bits), (3, 48, 7));
        assert_eq!(shape.every_counter(), 0x7_0000_000f);
    }

    #[test]
    fn event_select_of_linux_perf() {
        assert_eq!(event_select(CONDITIONAL_11, Rings::User, Overflow::Interrupt), 0x5111c4);
        assert_eq!(event_select(INSTRUCTIONS, Rings::Both, Overflow::Quiet), 0x4300c0);
    }
}
