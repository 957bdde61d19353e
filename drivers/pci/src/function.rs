//! What the header of a function says.

use crate::{Address, Capabilities, ConfigSpace, ExtendedCapabilities, register};
use core::fmt;

/// What a function is, by class code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class {
    /// Base class.
    pub base: u8,
    /// Subclass.
    pub sub: u8,
    /// Programming interface.
    pub interface: u8,
}

impl Class {
    /// Ethernet controller (02 00).
    pub const fn is_ethernet(self) -> bool {
        self.base == 0x02 && self.sub == 0x00
    }

    /// NVM Express controller (01 08 02).
    pub const fn is_nvme(self) -> bool {
        self.base == 0x01 && self.sub == 0x08 && self.interface == 0x02
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}{:02x}{:02x}", self.base, self.sub, self.interface)
    }
}

/// Bus numbers of a PCI-to-PCI bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// The bus it sits on, as configured.
    pub primary: u8,
    /// The bus behind it; 0 if firmware did not configure the bridge.
    pub secondary: u8,
    /// Highest bus number behind it.
    pub subordinate: u8,
}

/// Layout of the header, with what only that layout has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderKind {
    /// Type 0: an endpoint.
    Endpoint {
        /// Subsystem vendor ID.
        subsystem_vendor: u16,
        /// Subsystem ID.
        subsystem: u16,
    },
    /// Type 1: a bridge to another PCI bus.
    PciBridge(Bridge),
    /// Type 2: a bridge to CardBus.
    CardBusBridge,
    /// A layout no specification knows.
    Unknown(u8),
}

/// A function that is there, and its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// Where it is.
    pub address: Address,
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Class code.
    pub class: Class,
    /// Revision.
    pub revision: u8,
    /// Layout of its header.
    pub kind: HeaderKind,
    /// Interrupt line as firmware left it (on PCs an 8259 input; 255 for none).
    pub interrupt_line: u8,
    /// Interrupt pin: 1 to 4 for INTA# to INTD#, 0 for none.
    pub interrupt_pin: u8,
}

impl Function {
    /// Reads the header at `address`; `None` if no function is there.
    pub fn read(config: &(impl ConfigSpace + ?Sized), address: Address) -> Option<Self> {
        let ids = config.read_u32(address, register::VENDOR);
        let vendor = ids as u16;
        // 0x0001 is what a root port returns while a device asks to be retried (PCI Express Base, 2.3.2): not there yet.
        if vendor == 0xffff || vendor == 0x0001 {
            return None;
        }
        let [revision, interface, sub, base] = config.read_u32(address, register::REVISION).to_le_bytes();
        let [interrupt_line, interrupt_pin, ..] = config.read_u32(address, register::INTERRUPT).to_le_bytes();
        Some(Self {
            address,
            vendor,
            device: (ids >> 16) as u16,
            class: Class { base, sub, interface },
            revision,
            kind: read_kind(config, address),
            interrupt_line,
            interrupt_pin,
        })
    }

    /// Its capability list (empty if it has none).
    pub fn capabilities<'a, C: ConfigSpace + ?Sized>(&self, config: &'a C) -> Capabilities<'a, C> {
        Capabilities::new(config, self)
    }

    /// Its extended capability list (empty if it has none or the access mechanism does not reach it).
    pub fn extended_capabilities<'a, C: ConfigSpace + ?Sized>(
        &self,
        config: &'a C,
    ) -> ExtendedCapabilities<'a, C> {
        ExtendedCapabilities::new(config, self)
    }

    /// Number of base address registers in its header.
    pub const fn bar_count(&self) -> usize {
        match self.kind {
            HeaderKind::Endpoint { .. } => 6,
            HeaderKind::PciBridge(_) => 2,
            HeaderKind::CardBusBridge | HeaderKind::Unknown(_) => 0,
        }
    }
}

fn read_kind(config: &(impl ConfigSpace + ?Sized), address: Address) -> HeaderKind {
    match config.read_u8(address, register::HEADER_TYPE) & 0x7f {
        0 => {
            let word = config.read_u32(address, register::SUBSYSTEM);
            HeaderKind::Endpoint { subsystem_vendor: word as u16, subsystem: (word >> 16) as u16 }
        }
        1 => {
            let [primary, secondary, subordinate, _] =
                config.read_u32(address, register::BRIDGE_BUSES).to_le_bytes();
            HeaderKind::PciBridge(Bridge { primary, secondary, subordinate })
        }
        2 => HeaderKind::CardBusBridge,
        other => HeaderKind::Unknown(other),
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} [{}] {:04x}:{:04x} rev {:02x}",
            self.address, self.class, self.vendor, self.device, self.revision
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeBus;
    use std::format;

    #[test]
    fn decodes_an_endpoint() {
        let mut bus = FakeBus::new();
        let a = bus.endpoint(0, 3, 0, 0x8086, 0x100e);
        bus.set_u32(a, register::REVISION, 0x0200_0003);
        bus.set_u32(a, register::SUBSYSTEM, 0x1100_1af4);
        bus.set_u32(a, register::INTERRUPT, 0x010b);
        let f = Function::read(&bus, a).unwrap();
        assert_eq!(f.kind, HeaderKind::Endpoint { subsystem_vendor: 0x1af4, subsystem: 0x1100 });
        assert!(f.class.is_ethernet() && !f.class.is_nvme());
        assert_eq!((f.interrupt_line, f.interrupt_pin), (11, 1));
        assert_eq!(format!("{f}"), "0000:00:03.0 [020000] 8086:100e rev 03");
    }

    #[test]
    fn absent_and_retrying_functions_are_not_there() {
        let mut bus = FakeBus::new();
        assert_eq!(Function::read(&bus, Address::new(0, 0, 1, 0).unwrap()), None);
        let a = bus.endpoint(0, 2, 0, 0x0001, 0xffff);
        assert_eq!(Function::read(&bus, a), None);
    }
}
