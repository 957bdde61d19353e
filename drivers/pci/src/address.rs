//! Where a function sits.

use core::fmt;

/// Segment, bus, device and function numbers. Prints as `0000:00:1f.2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Segment group, 0 on machines with one.
    pub segment: u16,
    /// Bus in the segment.
    pub bus: u8,
    device: u8,
    function: u8,
}

impl Address {
    /// Devices per bus.
    pub const DEVICES: u8 = 32;
    /// Functions per device.
    pub const FUNCTIONS: u8 = 8;

    /// An address; `None` if `device` is not below 32 or `function` not below 8.
    pub const fn new(segment: u16, bus: u8, device: u8, function: u8) -> Option<Self> {
        if device < Self::DEVICES && function < Self::FUNCTIONS {
            Some(Self { segment, bus, device, function })
        } else {
            None
        }
    }

    /// Device on the bus, 0..=31.
    pub const fn device(self) -> u8 {
        self.device
    }

    /// Function of the device, 0..=7.
    pub const fn function(self) -> u8 {
        self.function
    }

    /// The same device's function `function`; `None` if it is not below 8.
    pub const fn with_function(self, function: u8) -> Option<Self> {
        Self::new(self.segment, self.bus, self.device, function)
    }

    /// Requester ID: bus, device and function in 16 bits.
    pub const fn requester_id(self) -> u16 {
        (self.bus as u16) << 8 | (self.device as u16) << 3 | self.function as u16
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{}", self.segment, self.bus, self.device, self.function)
    }
}

#[cfg(test)]
mod tests {
    use super::Address;
    use std::format;

    #[test]
    fn only_existing_addresses_can_be_made() {
        assert!(Address::new(0, 255, 31, 7).is_some());
        assert!(Address::new(0, 0, 32, 0).is_none());
        assert!(Address::new(0, 0, 0, 8).is_none());
    }

    #[test]
    fn prints_as_lspci_does() {
        let a = Address::new(1, 0x3a, 0x1f, 2).unwrap();
        assert_eq!(format!("{a}"), "0001:3a:1f.2");
        assert_eq!(a.requester_id(), 0x3afa);
    }
}
