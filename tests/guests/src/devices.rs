//! The PC's old devices, as tests drive them: PIC, PIT, UART, power-management timer.

use crate::cpu::{self, inb, inl, outb};
use crate::traps::Fault;

/// Writes ports in this order.
fn write(pairs: &[(u16, u8)]) {
    for (port, value) in pairs {
        // SAFETY: these devices touch no memory.
        unsafe { outb(*port, *value) };
    }
}

/// Sets the PIC up with vectors from `base` on; only IRQ 0 is let in.
pub fn pic_set_up(base: u8) {
    write(&[
        (0x20, 0x11),
        (0x21, base),
        (0x21, 4),
        (0x21, 1),
        (0xa0, 0x11),
        (0xa1, base + 8),
        (0xa1, 2),
        (0xa1, 1),
    ]);
    write(&[(0x21, 0xfe), (0xa1, 0xff)]);
}

/// Lets IRQ 0 in and those of both PICs where PCI devices' pins lead: 10 and 11, level-triggered.
pub fn pic_let_pci_in() {
    write(&[(0x4d1, 0x0c), (0x21, 0xfa), (0xa1, 0xf3)]);
}

/// Keeps the second PIC's interrupts out, and ends the one that is being served on both.
pub fn pic_hold_pci_off() {
    write(&[(0xa1, 0xff), (0xa0, 0x20), (0x20, 0x20)]);
}

/// Lets nothing in.
pub fn pic_mask() {
    write(&[(0x21, 0xff), (0xa1, 0xff)]);
}

/// End of interrupt, not specific.
pub fn pic_end_of_interrupt() {
    write(&[(0x20, 0x20)]);
}

/// PIT channel 0 interrupts every `count` of its ticks (mode 2).
pub fn pit_every(count: u16) {
    write(&[(0x43, 0x34), (0x40, count as u8), (0x40, (count >> 8) as u8)]);
}

/// No more.
pub fn pit_stop() {
    write(&[(0x43, 0x30)]);
}

/// The power-management timer, 3.579545 MHz, 24 or 32 bits.
pub fn pm_timer() -> u32 {
    inl(0x608)
}

/// Sends a byte round the loop of COM1 and enables the transmitter's interrupt: what came back, and what `wait` says of interrupts then.
pub fn uart_loopback(byte: u8, route: impl Fn(), wait: impl Fn() -> u64) -> (u8, u64) {
    crate::serial::flush();
    write(&[(0x3fa, 0), (0x3fc, 0x10), (0x3f8, byte)]);
    wait();
    let echo = inb(0x3f8);
    // The transmitter is empty: that interrupts once it may. OUT2 lets it out, which the loop would not.
    write(&[(0x3fc, 0x0b)]);
    route();
    write(&[(0x3f9, 2)]);
    let came = wait();
    write(&[(0x3f9, 0), (0x3fc, 3), (0x3fa, 7)]);
    (echo, came)
}

/// Turns x2APIC mode on, from this IA32_APIC_BASE.
pub fn set_x2apic(base: u64) -> Result<(), Fault> {
    // SAFETY: the APIC stays where it is; its page goes.
    unsafe { cpu::wrmsr_any(0x1b, base | 1 << 10) }
}
