//! A function's 256 bytes of configuration space: what they are after reset, and which of their bits can be written
//! (PCI Local Bus Specification 3.0, chapter 6).

use serde::{Deserialize, Serialize};
use serde_big_array::BigArray;

/// Double words of configuration space.
pub const REGISTERS: usize = 64;

/// All registers, or all masks.
pub type Registers = [u32; REGISTERS];

/// Register numbers: byte offsets divided by 4.
pub mod register {
    /// Vendor and device.
    pub const IDENTITY: usize = 0;
    /// Command and status.
    pub const COMMAND: usize = 1;
    /// Revision and class.
    pub const CLASS: usize = 2;
    /// Cache line size, latency timer, header type.
    pub const MISCELLANEOUS: usize = 3;
    /// The first base address register.
    pub const BAR: usize = 4;
    /// Subsystem vendor and device.
    pub const SUBSYSTEM: usize = 11;
    /// The first capability.
    pub const CAPABILITIES: usize = 13;
    /// Interrupt line and pin.
    pub const INTERRUPT: usize = 15;
}

/// Bits of the command register.
pub mod command {
    /// Answers its ports.
    pub const IO: u32 = 1 << 0;
    /// Answers its memory.
    pub const MEMORY: u32 = 1 << 1;
    /// May access memory.
    pub const MASTER: u32 = 1 << 2;
    /// Must not drive its interrupt pin.
    pub const NO_INTX: u32 = 1 << 10;
    /// The status register: an interrupt waits on the pin.
    pub const STATUS_INTERRUPT: u32 = 1 << 19;
    /// The status register: there are capabilities.
    pub const STATUS_CAPABILITIES: u32 = 1 << 20;
    /// The bits of the command register that can be written: the three above, parity and SERR enable, INTx disable.
    pub const WRITABLE: u32 = IO | MEMORY | MASTER | 1 << 6 | 1 << 8 | NO_INTX;
}

/// A function's configuration space as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The registers.
    #[serde(with = "BigArray")]
    pub registers: Registers,
}

impl Header {
    /// A register's value.
    #[inline]
    pub const fn get(&self, register: usize) -> u32 {
        self.registers[register]
    }

    /// The command register with the status above.
    #[inline]
    pub const fn command(&self) -> u32 {
        self.registers[register::COMMAND]
    }

    /// Writes those bits of a register that are in `lanes` and can be written.
    pub fn write(&mut self, register: usize, value: u32, lanes: u32, writable: &Registers) {
        let (Some(place), Some(mask)) = (self.registers.get_mut(register), writable.get(register)) else {
            return;
        };
        let mask = mask & lanes;
        *place = *place & !mask | value & mask;
    }

    /// Whether only bits that can be written differ from those after reset.
    pub fn is_sound(&self, reset: &Registers, writable: &Registers) -> bool {
        let all = self.registers.iter().zip(reset).zip(writable);
        all.into_iter().all(|((now, reset), mask)| (now ^ reset) & !mask == 0)
    }
}

/// The bits of a register that an access of these bytes reaches; what would lie beyond the register is cut off.
pub const fn lanes(byte: u32, size: u8) -> u32 {
    let all = match size {
        1 => 0xff,
        2 => 0xffff,
        _ => 0xffff_ffff,
    };
    all << (8 * (byte & 3))
}
