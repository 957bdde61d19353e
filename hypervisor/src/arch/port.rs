//! I/O ports.
//!
//! The functions are safe to call: a port is as trusted as the device behind it, and no device is given memory that
//! Rust owns (DMA goes through `hal`, from frames set aside).

use x86_64::instructions::port::Port;

macro_rules! access {
    ($read:ident, $write:ident, $type:ty, $size:literal) => {
        #[doc = concat!("Reads ", $size, " from a port.")]
        pub fn $read(port: u16) -> $type {
            // SAFETY: 1. IN changes no memory. 2. See the module's header on devices.
            unsafe { Port::new(port).read() }
        }

        #[doc = concat!("Writes ", $size, " to a port.")]
        pub fn $write(port: u16, value: $type) {
            // SAFETY: 1. OUT changes no memory of ours. 2. See the module's header on devices.
            unsafe { Port::new(port).write(value) }
        }
    };
}

access!(read_u8, write_u8, u8, "one byte");
access!(read_u16, write_u16, u16, "two bytes");
access!(read_u32, write_u32, u32, "four bytes");
