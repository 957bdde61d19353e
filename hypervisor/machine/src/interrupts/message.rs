//! An interrupt message: what an I/O APIC, a device (MSI) or a local APIC sends to local APICs (SDM 3A, 12.6 and 12.11).

/// Fixed delivery mode.
pub const FIXED: u8 = 0;
/// Lowest priority: with one processor the same as fixed.
pub const LOWEST: u8 = 1;
/// Non-maskable interrupt.
pub const NMI: u8 = 4;
/// The interrupt of a PIC: the vector is asked of it.
pub const EXTERNAL: u8 = 7;

/// An interrupt message with an 8-bit destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Interrupt vector.
    pub vector: u8,
    /// Delivery mode.
    pub mode: u8,
    /// The destination is logical, not physical.
    pub logical: bool,
    /// Level-triggered: its end is told to the I/O APICs.
    pub level: bool,
    /// The destination.
    pub destination: u8,
}

impl Message {
    /// The message that a write of this data to this address is (MSI); `None` if the address is not for interrupts.
    pub const fn from_msi(address: u64, data: u32) -> Option<Self> {
        if address >> 20 != 0xfee {
            return None;
        }
        // Level-triggered only if the trigger mode says so; de-assertion is no message.
        let level = data >> 15 & 1 != 0;
        if level && data >> 14 & 1 == 0 {
            return None;
        }
        Some(Self {
            vector: data as u8,
            mode: (data >> 8) as u8 & 7,
            // The redirection hint makes the destination mode count; without it and with it the mode means the same.
            logical: address >> 2 & 1 != 0,
            level,
            destination: (address >> 12) as u8,
        })
    }
}
