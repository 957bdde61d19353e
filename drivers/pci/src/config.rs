//! Access to configuration space, and the registers every function has.

use crate::Address;

/// Configuration space of all functions.
///
/// A function that is not there reads as all ones and ignores writes: that is what the bus does, so there is no error
/// to return. So does an offset that the access mechanism cannot reach (256 and up through the ports).
pub trait ConfigSpace {
    /// Reads the 32-bit register at byte `offset` (a multiple of 4, below 4096).
    fn read_u32(&self, address: Address, offset: u16) -> u32;

    /// Writes the 32-bit register at byte `offset` (a multiple of 4, below 4096).
    fn write_u32(&mut self, address: Address, offset: u16, value: u32);

    /// Reads the byte at `offset`.
    fn read_u8(&self, address: Address, offset: u16) -> u8 {
        self.read_u32(address, offset & !3).to_le_bytes()[usize::from(offset & 3)]
    }

    /// Reads the 16-bit word at `offset` (a multiple of 2).
    fn read_u16(&self, address: Address, offset: u16) -> u16 {
        assert!(offset.is_multiple_of(2), "a word at odd offset {offset:#x}");
        (self.read_u32(address, offset & !3) >> (u32::from(offset & 2) * 8)) as u16
    }

    /// The command register.
    fn command(&self, address: Address) -> u16 {
        self.read_u16(address, register::COMMAND)
    }

    /// Writes the command register. The status half of the double word is written as zero, which changes nothing
    /// there (its bits are read-only or cleared by writing one).
    fn write_command(&mut self, address: Address, value: u16) {
        self.write_u32(address, register::COMMAND, u32::from(value));
    }

    /// Clears and sets bits of the command register ([`command`]); returns what it was before.
    fn modify_command(&mut self, address: Address, clear: u16, set: u16) -> u16 {
        let before = self.command(address);
        let after = before & !clear | set;
        if after != before {
            self.write_command(address, after);
        }
        before
    }
}

/// Byte offsets of registers that all header types share.
pub mod register {
    /// Vendor ID (16 bits); 0xFFFF means no function here.
    pub const VENDOR: u16 = 0x00;
    /// Command (16 bits), see [`super::command`].
    pub const COMMAND: u16 = 0x04;
    /// Status (16 bits); bit 4 says that there is a capability list.
    pub const STATUS: u16 = 0x06;
    /// Revision (8 bits), then programming interface, subclass and class.
    pub const REVISION: u16 = 0x08;
    /// Header type (8 bits); bit 7 says that the device has several functions.
    pub const HEADER_TYPE: u16 = 0x0e;
    /// First base address register.
    pub const BAR0: u16 = 0x10;
    /// Primary, secondary and subordinate bus numbers of a bridge (8 bits each).
    pub const BRIDGE_BUSES: u16 = 0x18;
    /// Subsystem vendor and subsystem of a type 0 header (16 bits each).
    pub const SUBSYSTEM: u16 = 0x2c;
    /// Offset of the first capability (8 bits).
    pub const CAPABILITIES: u16 = 0x34;
    /// Offset of the first capability in the header of a CardBus bridge (8 bits).
    pub const CARDBUS_CAPABILITIES: u16 = 0x14;
    /// Interrupt line and interrupt pin (8 bits each).
    pub const INTERRUPT: u16 = 0x3c;
}

/// Bits of the command register.
pub mod command {
    /// Answers to port accesses.
    pub const IO: u16 = 1 << 0;
    /// Answers to memory accesses.
    pub const MEMORY: u16 = 1 << 1;
    /// May do DMA and send message interrupts.
    pub const BUS_MASTER: u16 = 1 << 2;
    /// Must not assert its interrupt pin.
    pub const INTERRUPT_DISABLE: u16 = 1 << 10;
}
