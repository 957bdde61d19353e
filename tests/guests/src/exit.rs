//! How a test kernel ends the emulator, and with what code.

use crate::{boot, cpu, serial};

/// Exit codes that the host sees as `(code << 1) | 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Code {
    /// Every check passed.
    Success = 0x10,
    /// The kernel panicked.
    Panic = 0x11,
    /// A check failed.
    Failed = 0x12,
    /// The machine lacks something required.
    Refused = 0x13,
}

/// Ends the run. With `exit-port=` on the command line by that port; always then by the emulator's shutdown port.
pub fn exit(code: Code) -> ! {
    exit_with(code as u32)
}

/// Like [`exit`], any number.
pub fn exit_with(code: u32) -> ! {
    serial::flush();
    let port = boot::number("exit-port", 0) as u16;
    if port != 0 {
        // SAFETY: the exit port ends the machine, or does nothing.
        unsafe { cpu::outl(port, code) };
    }
    for byte in *b"Shutdown" {
        // SAFETY: Bochs ends on this word (its own exit code is 1); elsewhere nothing listens.
        unsafe { cpu::outb(0x8900, byte) };
    }
    // A virtual machine switches itself off: PM1a control, S5, as its ACPI tables say. On Bochs we do not get here.
    // SAFETY: the machine is off then, or nothing happens.
    unsafe { cpu::outw(0x604, 5 << 10 | 1 << 13) };
    cpu::stop()
}
