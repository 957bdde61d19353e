//! Configuration space in memory: PCI Express's enhanced configuration access mechanism (PCI Express Base, 7.2.2).

use crate::Address;

/// Bytes of configuration space per function.
pub const FUNCTION_BYTES: u64 = 4096;

/// One window, as an entry of the ACPI table MCFG names it (PCI Firmware 3.2, 4.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Physical address where bus 0 would be; the first byte that exists is that of `first_bus`.
    pub base: u64,
    /// Segment group.
    pub segment: u16,
    /// First bus in the window.
    pub first_bus: u8,
    /// Last bus in the window, included.
    pub last_bus: u8,
}

impl Window {
    /// Physical address of the register at `offset`; `None` if this window has no such function or offset.
    pub const fn physical(&self, address: Address, offset: u16) -> Option<u64> {
        if address.segment != self.segment
            || address.bus < self.first_bus
            || address.bus > self.last_bus
            || offset as u64 >= FUNCTION_BYTES
        {
            return None;
        }
        self.base.checked_add((address.requester_id() as u64) << 12 | offset as u64)
    }

    /// First physical address and length in bytes, for mapping; `None` if the window is empty or runs over the end of
    /// the address space (a broken table).
    pub const fn range(&self) -> Option<(u64, u64)> {
        if self.last_bus < self.first_bus {
            return None;
        }
        let Some(start) = self.base.checked_add((self.first_bus as u64) << 20) else { return None };
        let len = (self.last_bus as u64 - self.first_bus as u64 + 1) << 20;
        if start.checked_add(len).is_none() {
            return None;
        }
        Some((start, len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window { base: 0xb000_0000, segment: 0, first_bus: 0x10, last_bus: 0x1f };

    #[test]
    fn the_formula_of_the_specification() {
        let a = Address::new(0, 0x12, 3, 1).unwrap();
        assert_eq!(WINDOW.physical(a, 0x40), Some(0xb000_0000 + (0x12 << 20) + (3 << 15) + (1 << 12) + 0x40));
    }

    #[test]
    fn outside_is_outside() {
        for (segment, bus, offset) in [(1, 0x12, 0), (0, 0x0f, 0), (0, 0x20, 0), (0, 0x12, 4096)] {
            assert_eq!(WINDOW.physical(Address::new(segment, bus, 0, 0).unwrap(), offset), None);
        }
    }

    #[test]
    fn the_range_starts_at_the_first_bus() {
        assert_eq!(WINDOW.range(), Some((0xb100_0000, 16 << 20)));
        assert_eq!(Window { first_bus: 5, last_bus: 4, ..WINDOW }.range(), None);
        assert_eq!(Window { base: u64::MAX - 0xfff, ..WINDOW }.range(), None);
        assert_eq!(Window { base: u64::MAX - (17 << 20), ..WINDOW }.range(), None);
    }
}
