//! What the boot proof needs of the processor and no other part does: debug registers for a guest, SYSCALL's registers,
//! interrupts let through for a moment, and the image of the guest programs.

use super::idt::vector;
use super::{apic, time};
use core::arch::asm;
use x86_64::instructions::{interrupts, nop};
use x86_64::registers::debug::{DebugAddressRegister, Dr0, Dr1};
use x86_64::registers::model_specific::Msr;

const IA32_STAR: u32 = 0xC000_0081;
const IA32_LSTAR: u32 = 0xC000_0082;
const IA32_FMASK: u32 = 0xC000_0084;

/// Puts the host's breakpoint into DR0. It works only in a guest whose DR7 enables it: a VM exit clears DR7.
pub fn set_host_breakpoint(linear: u64) {
    Dr0::write(linear);
}

/// Puts the guest's DR1 into the processor; the host does not use it.
pub fn set_guest_breakpoint(linear: u64) {
    Dr1::write(linear);
}

/// Adds bits to DR6, as the delivery of a debug exception would have done: an exit for the exception does not (SDM 3C,
/// 29.1).
pub fn add_to_dr6(bits: u64) {
    // SAFETY: DR6 only reports; the host does not use it. Its upper half stays zero.
    unsafe {
        let mut dr6: u64;
        asm!("mov {}, dr6", out(reg) dr6, options(nomem, nostack, preserves_flags));
        dr6 |= bits & 0x0000_E00F;
        asm!("mov dr6, {}", in(reg) dr6, options(nomem, nostack, preserves_flags));
    }
}

/// The registers that SYSCALL and SYSRET take their targets from. No control of VMX switches them; the host uses neither
/// instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemCall {
    /// IA32_STAR.
    pub star: u64,
    /// IA32_LSTAR, a canonical address.
    pub entry: u64,
    /// IA32_FMASK.
    pub mask: u64,
}

impl SystemCall {
    /// Loads the registers, answers what they held.
    pub fn exchange(self) -> Self {
        let [star, entry, mask] = [(IA32_STAR, self.star), (IA32_LSTAR, self.entry), (IA32_FMASK, self.mask)]
            .map(|(register, value)| {
                let mut register = Msr::new(register);
                // SAFETY: 1. Every 64-bit processor has these registers. 2. The host executes no SYSCALL, so their
                // values have no meaning for it. 3. The entry is canonical: a guest's below 4 GiB, or what was there.
                unsafe {
                    let before = register.read();
                    register.write(value);
                    before
                }
            });
        Self { star, entry, mask }
    }
}

/// Lets pending host interrupts through, until there are none left from before.
pub fn drain_interrupts() {
    interrupts::enable();
    nop();
    nop();
    interrupts::disable();
}

/// Acknowledges the host interrupt that an exit has taken from the local APIC.
pub fn acknowledge() {
    apic::eoi();
}

/// Makes a host interrupt pending now.
pub fn interrupt_now() {
    apic::send(apic::id(), apic::Ipi::Fixed(vector::WAKE));
}

/// Has the local APIC's timer interrupt once, in about `cycles` of the time-stamp counter, a microsecond at least.
pub fn interrupt_in(cycles: u64) {
    apic::timer_once((cycles.saturating_mul(1_000_000) / time::hertz().max(1)).max(1));
}

/// No more interrupts by [`interrupt_in`].
pub fn stop_interrupts() {
    apic::timer_stop();
}

/// The image of the guest programs, as `proof/stubs.rs` assembles it.
pub fn stub_image() -> &'static [u8] {
    // SAFETY: the assembly defines both symbols, in this order, in one read-only section.
    unsafe extern "C" {
        static proof_image: u8;
        static proof_image_end: u8;
    }
    let (start, end) = (&raw const proof_image, &raw const proof_image_end);
    // SAFETY: everything between the symbols is the image, initialised and never written.
    unsafe { core::slice::from_raw_parts(start, end.addr() - start.addr()) }
}
