//! The MSI-X structures: table, pending bits, and which messages may go (PCI Local Bus Specification 3.0, 6.8.2).

use serde::{Deserialize, Serialize};

/// Most vectors of a function: one for each queue and one for the configuration.
pub const VECTORS: usize = crate::virtio::transport::QUEUES + 1;
/// Bytes of a table entry.
const ENTRY: u32 = 16;
/// The vector control's one bit.
const MASKED: u32 = 1;

/// An entry of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Message address.
    pub address: u64,
    /// Message data.
    pub data: u32,
    /// The vector is masked.
    pub masked: bool,
}

/// The table and the pending bits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vectors {
    /// The table.
    pub entries: [Entry; VECTORS],
    /// Pending bits.
    pub pending: u8,
}

impl Vectors {
    /// After reset: all masked.
    pub const fn new() -> Self {
        const ENTRY: Entry = Entry { address: 0, data: 0, masked: true };
        Self { entries: [ENTRY; VECTORS], pending: 0 }
    }

    /// Reads 32 bits of the table.
    pub fn read(&self, offset: u32, count: usize) -> u32 {
        let Some(entry) =
            self.entries.get((offset / ENTRY) as usize).filter(|_| offset / ENTRY < count as u32)
        else {
            return 0;
        };
        match offset % ENTRY {
            0 => entry.address as u32,
            4 => (entry.address >> 32) as u32,
            8 => entry.data,
            12 => entry.masked.into(),
            _ => 0,
        }
    }

    /// Writes 32 bits of the table.
    pub fn write(&mut self, offset: u32, value: u32, count: usize) {
        let index = (offset / ENTRY) as usize;
        let Some(entry) = self.entries.get_mut(index).filter(|_| index < count) else { return };
        match offset % ENTRY {
            // The lowest two bits are 0: messages are aligned double words.
            0 => entry.address = entry.address & !0xffff_ffff | u64::from(value & !3),
            4 => entry.address = entry.address & 0xffff_ffff | u64::from(value) << 32,
            8 => entry.data = value,
            12 => entry.masked = value & MASKED != 0,
            _ => {}
        }
    }

    /// The vectors that are pending and not masked.
    pub fn ready(&self) -> u8 {
        let masked = self.entries.iter().rev().fold(0, |all, entry| all << 1 | u8::from(entry.masked));
        self.pending & !masked
    }
}

impl Default for Vectors {
    fn default() -> Self {
        Self::new()
    }
}
