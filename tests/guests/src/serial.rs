//! COM1, polled: 115200 8N1. `print!` and `println!` of the test kernels.

use core::fmt;

use crate::cpu::{inb, outb};

const COM1: u16 = 0x3f8;
const LINE_STATUS: u16 = COM1 + 5;
/// Transmitter holding register empty.
const THRE: u8 = 1 << 5;
/// Transmitter empty: the last bit is on the wire.
const TEMT: u8 = 1 << 6;

/// Sets the line up.
pub fn init() {
    for (register, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 3), (2, 7), (4, 3)] {
        // SAFETY: a 16550 does no DMA.
        unsafe { outb(COM1 + register, value) };
    }
}

/// Waits until everything written is on the wire.
pub fn flush() {
    while inb(LINE_STATUS) & TEMT == 0 {}
}

/// The serial line as a `fmt::Write`.
pub struct Serial;

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            while inb(LINE_STATUS) & THRE == 0 {}
            // SAFETY: a 16550 does no DMA.
            unsafe { outb(COM1, byte) };
        }
        Ok(())
    }
}

/// Prints on COM1.
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => {{
        use core::fmt::Write as _;
        let _ = write!($crate::serial::Serial, $($arg)*);
    }};
}

/// Prints a line on COM1.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($arg:tt)*) => { $crate::print!("{}\n", format_args!($($arg)*)) };
}
