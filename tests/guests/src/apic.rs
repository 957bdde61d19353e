//! The local APIC through its MMIO page: just what tests need.

use core::ptr::{read_volatile, write_volatile};

/// Where the local APIC is after reset.
const BASE: usize = 0xfee0_0000;

/// Register offsets of the local APIC (SDM table 12-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Register {
    /// Local APIC ID.
    Id = 0x20,
    /// Task priority.
    TaskPriority = 0x80,
    /// End of interrupt.
    EndOfInterrupt = 0xb0,
    /// Spurious-interrupt vector and software enable.
    Spurious = 0xf0,
    /// Interrupt command, low half.
    CommandLow = 0x300,
    /// Interrupt command, high half.
    CommandHigh = 0x310,
    /// LVT timer.
    LvtTimer = 0x320,
    /// LVT performance counters.
    LvtPerformance = 0x340,
    /// LVT LINT0.
    LvtLint0 = 0x350,
    /// LVT LINT1.
    LvtLint1 = 0x360,
    /// Timer initial count.
    TimerInitial = 0x380,
    /// Timer current count.
    TimerCurrent = 0x390,
    /// Timer divide configuration.
    TimerDivide = 0x3e0,
}

/// Mask bit of an LVT entry.
pub const LVT_MASKED: u32 = 1 << 16;
/// Delivery mode NMI of an LVT entry.
pub const LVT_NMI: u32 = 4 << 8;
/// Vector of the spurious interrupt.
pub const SPURIOUS_VECTOR: u8 = 0xff;

/// Reads a register.
pub fn read(register: Register) -> u32 {
    // SAFETY: the APIC page is mapped, uncached; a read changes no memory.
    unsafe { read_volatile((BASE + register as usize) as *const u32) }
}

/// Writes a register.
pub fn write(register: Register, value: u32) {
    // SAFETY: the APIC page is mapped, uncached; the APIC writes no memory. Interrupts go through the IDT, whose
    // handlers return; starting other processors is [`crate::smp`]'s, which gives them stacks of their own.
    unsafe { write_volatile((BASE + register as usize) as *mut u32, value) };
}

/// Turns the APIC on, lets every priority in, and masks the old interrupt controllers.
pub fn enable() {
    for port in [0x21, 0xa1] {
        // SAFETY: masking all lines of an 8259.
        unsafe { crate::cpu::outb(port, 0xff) };
    }
    crate::traps::set_handler(SPURIOUS_VECTOR, Some(|_| ()));
    write(Register::Spurious, 0x100 | u32::from(SPURIOUS_VECTOR));
    write(Register::TaskPriority, 0);
    write(Register::LvtLint0, LVT_MASKED);
    write(Register::LvtLint1, LVT_MASKED);
}

/// End of interrupt.
pub fn end_of_interrupt() {
    write(Register::EndOfInterrupt, 0);
}

/// APIC ID of this processor.
pub fn id() -> u32 {
    read(Register::Id) >> 24
}

/// Sends a fixed interrupt to this processor.
pub fn send_self(vector: u8) {
    write(Register::CommandLow, 1 << 18 | 1 << 14 | u32::from(vector));
}
