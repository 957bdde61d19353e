//! The MCFG: where PCI Express configuration space is in memory. PCI Firmware specification 3.2, section 4.1.2.

use super::vet::VettedMcfg;
use crate::arch::acpi::mcfg_entries;
use heapless::Vec;
use pci::ecam::Window;

/// Windows kept at most; machines with more segments have devices that this kernel does not see.
pub const MAX_WINDOWS: usize = 8;

/// The windows the table names, without those that cannot be.
pub fn parse(table: &[u8]) -> Vec<Window, MAX_WINDOWS> {
    let entries = VettedMcfg::new(table).map(mcfg_entries).unwrap_or_default();
    entries
        .iter()
        .filter_map(|e| {
            let window = Window {
                base: e.base_address,
                segment: e.pci_segment_group,
                first_bus: e.bus_number_start,
                last_bus: e.bus_number_end,
            };
            let (start, _) = window.range()?;
            (start != 0 && start.is_multiple_of(4096)).then_some(window)
        })
        .take(MAX_WINDOWS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tables::tests::table;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec as StdVec;

    fn entry(base: u64, segment: u16, first: u8, last: u8) -> StdVec<u8> {
        let mut e = StdVec::new();
        e.extend(base.to_le_bytes());
        e.extend(segment.to_le_bytes());
        e.extend([first, last, 0, 0, 0, 0]);
        e
    }

    #[test]
    fn windows_that_can_be_are_kept() {
        let body = [
            std::vec![0; 8],
            entry(0xB000_0000, 0, 0, 255),
            entry(0, 1, 0, 1),               // at address 0
            entry(0xC000_0000, 2, 9, 3),     // ends before it starts
            entry(0xD000_0001, 3, 0, 3),     // not on a page
            entry(u64::MAX - 4095, 4, 0, 3), // beyond the address space
            entry(0xE000_0000, 5, 0x10, 0x1F),
            std::vec![1, 2, 3], // half an entry
        ]
        .concat();
        let windows = parse(&table(b"MCFG", &body));
        let segments: StdVec<_> = windows.iter().map(|w| (w.segment, w.first_bus, w.last_bus)).collect();
        assert_eq!(segments, [(0, 0, 255), (5, 0x10, 0x1F)]);
        assert!(parse(&table(b"MCFG", &[])).is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_borne(bytes: StdVec<u8>) {
            prop_assert!(parse(&bytes).iter().all(|w| w.range().is_some()));
            prop_assert!(parse(&table(b"MCFG", &bytes)).iter().all(|w| w.range().is_some()));
        }
    }
}
