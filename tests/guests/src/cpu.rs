//! Instructions that a test kernel needs: ports, MSRs, control registers, CPUID, TSC.
//!
//! What can fault goes through [`traps::guarded`] and returns a [`Fault`]. What a program may do without `unsafe` is
//! what cannot hurt memory: an MSR outside [`harmless`] is refused by a panic.

use core::arch::{asm, naked_asm};

use crate::traps::{self, Fault};

/// Reads a byte from an I/O port.
pub fn inb(port: u16) -> u8 {
    let value;
    // SAFETY: reading a port writes no memory.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Reads a word from an I/O port.
pub fn inw(port: u16) -> u16 {
    let value;
    // SAFETY: reading a port writes no memory.
    unsafe { asm!("in ax, dx", in("dx") port, out("ax") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Reads a doubleword from an I/O port.
pub fn inl(port: u16) -> u32 {
    let value;
    // SAFETY: reading a port writes no memory.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Writes a byte to an I/O port.
///
/// # Safety
/// The device behind the port must not be made to write memory that Rust owns.
pub unsafe fn outb(port: u16, value: u8) {
    // SAFETY: the caller's promise.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
}

/// Writes a word to an I/O port.
///
/// # Safety
/// As for [`outb`].
pub unsafe fn outw(port: u16, value: u16) {
    // SAFETY: the caller's promise.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack, preserves_flags)) };
}

/// Writes a doubleword to an I/O port.
///
/// # Safety
/// As for [`outb`].
pub unsafe fn outl(port: u16, value: u32) {
    // SAFETY: the caller's promise.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack, preserves_flags)) };
}

/// The time-stamp counter.
pub fn rdtsc() -> u64 {
    // SAFETY: CR4.TSD is clear in these kernels.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// EAX, EBX, ECX, EDX of a CPUID leaf.
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    // The lint is for the product's pure crates, which take CPUID as data; a test kernel asks the processor.
    #[allow(clippy::disallowed_methods)]
    let r = core::arch::x86_64::__cpuid_count(leaf, subleaf);
    [r.eax, r.ebx, r.ecx, r.edx]
}

#[unsafe(naked)]
extern "C" fn rdmsr_leaf(_io: *mut u64) {
    naked_asm!("mov ecx, [rdi]", "rdmsr", "mov [rdi], eax", "mov [rdi + 4], edx", "ret")
}

#[unsafe(naked)]
extern "C" fn wrmsr_leaf(_io: *mut u64) {
    naked_asm!("mov ecx, [rdi]", "mov eax, [rdi + 8]", "mov edx, [rdi + 12]", "wrmsr", "ret")
}

#[unsafe(naked)]
extern "C" fn rdpmc_leaf(_io: *mut u64) {
    naked_asm!("mov ecx, [rdi]", "rdpmc", "mov [rdi], eax", "mov [rdi + 4], edx", "ret")
}

/// Reads an MSR, or says how the processor refused.
pub fn rdmsr(msr: u32) -> Result<u64, Fault> {
    let mut io = [u64::from(msr)];
    traps::guarded(rdmsr_leaf, &mut io)?;
    Ok(io[0])
}

/// Writes an MSR of [`harmless`], or says how the processor refused.
///
/// # Panics
/// For any other MSR.
pub fn wrmsr(msr: u32, value: u64) -> Result<(), Fault> {
    assert!(harmless(msr), "MSR {msr:#x} is not one that a program may write");
    traps::guarded(wrmsr_leaf, &mut [u64::from(msr), value])
}

/// Writes any MSR.
///
/// # Safety
/// The MSR must not take memory, code or the stack from under Rust.
pub unsafe fn wrmsr_any(msr: u32, value: u64) -> Result<(), Fault> {
    traps::guarded(wrmsr_leaf, &mut [u64::from(msr), value])
}

/// Can writing this MSR do no harm to memory? Performance monitoring, time, debug control, feature control, and
/// x2APIC registers but the one that sends interrupts.
pub(crate) fn harmless(msr: u32) -> bool {
    matches!(msr, 0x10 | 0x3a | 0x3b | 0xc1..=0xc9 | 0x186..=0x18e | 0x1a0 | 0x1d9 | 0x309..=0x30c | 0x329 | 0x345
        | 0x38d..=0x391 | 0x4c1..=0x4c9 | 0x6e0 | 0x800..=0x82f | 0x831..=0x83f | 0xc000_0103)
}

/// RDPMC with this ECX, or how the processor refused.
pub fn rdpmc(index: u32) -> Result<u64, Fault> {
    let mut io = [u64::from(index)];
    traps::guarded(rdpmc_leaf, &mut io)?;
    Ok(io[0])
}

/// CR4.
pub fn cr4() -> u64 {
    let value;
    // SAFETY: reading CR4 at CPL 0 has no effect.
    unsafe { asm!("mov {}, cr4", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// CR4.PCE: ring 3 may use RDPMC.
pub fn set_cr4_pce(on: bool) {
    let value = if on { cr4() | 1 << 8 } else { cr4() & !(1 << 8) };
    // SAFETY: only bit 8 changes, which has no bearing on memory.
    unsafe { asm!("mov cr4, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
}

/// Lets interrupts in (`sti`).
pub fn interrupts_on() {
    // SAFETY: the IDT is loaded; handlers return to where they interrupted.
    unsafe { asm!("sti", options(nostack)) };
}

/// Keeps interrupts out (`cli`).
pub fn interrupts_off() {
    // SAFETY: CPL 0.
    unsafe { asm!("cli", options(nostack)) };
}

/// Waits for an interrupt with interrupts on, then turns them off.
pub fn wait_for_interrupt() {
    // SAFETY: as [`interrupts_on`]; STI's shadow covers HLT, so no interrupt is lost between the two.
    unsafe { asm!("sti", "hlt", "cli", options(nostack)) };
}

/// PAUSE.
pub fn pause() {
    core::hint::spin_loop();
}

/// Stops this processor for good.
pub fn stop() -> ! {
    loop {
        // SAFETY: nothing is expected of this processor any more.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

/// Lets NMIs in again after an NMI that was taken by a VM exit: an IRET to here.
pub fn unblock_nmi() {
    // SAFETY: the frame that IRETQ takes is the current state.
    unsafe {
        asm!("mov {t}, rsp", "push 0x10", "push {t}", "pushfq", "push 8", "lea {t}, [rip + 2f]", "push {t}",
            "iretq", "2:", t = out(reg) _);
    }
}

/// RDRAND; `None` when the processor had no number (CF clear).
pub fn rdrand() -> Option<u64> {
    let (value, carry): (u64, u8);
    // SAFETY: into a register.
    unsafe {
        asm!("rdrand {v}", "setc {c}", v = out(reg) value, c = out(reg_byte) carry, options(nomem, nostack))
    };
    (carry != 0).then_some(value)
}

/// RDSEED; `None` when the processor had no number (CF clear).
pub fn rdseed() -> Option<u64> {
    let (value, carry): (u64, u8);
    // SAFETY: into a register.
    unsafe {
        asm!("rdseed {v}", "setc {c}", v = out(reg) value, c = out(reg_byte) carry, options(nomem, nostack))
    };
    (carry != 0).then_some(value)
}

#[unsafe(naked)]
extern "C" fn set_vmxe_leaf(_io: *mut u64) {
    naked_asm!("mov rax, cr4", "or rax, 0x2000", "mov cr4, rax", "ret")
}

/// Sets CR4.VMXE, or says how the processor refused.
pub fn set_cr4_vmxe() -> Result<(), Fault> {
    traps::guarded(set_vmxe_leaf, &mut [0])
}
