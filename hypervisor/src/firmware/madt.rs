//! The MADT: processors and interrupt controllers. ACPI specification 6.5, section 5.2.12.

use super::vet::VettedMadt;
use crate::arch::acpi::{madt, madt_entries};
use acpi::sdt::madt::MadtEntry;
use heapless::Vec;

/// Processors listed at most; the rest is counted in [`Madt::beyond`].
pub const MAX_PROCESSORS: usize = 512;

/// I/O APICs kept at most; further ones are not needed by this kernel.
pub const MAX_IO_APICS: usize = 16;

/// Interrupt source overrides kept at most: there are 16 legacy interrupts.
pub const MAX_OVERRIDES: usize = 16;

/// An I/O APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoApic {
    /// Its identifier.
    pub id: u8,
    /// Physical address of its registers.
    pub address: u32,
    /// The first global interrupt it serves.
    pub first_interrupt: u32,
}

/// A legacy interrupt that does not go where its number says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Override {
    /// Legacy interrupt, 0 to 15.
    pub legacy: u8,
    /// Global interrupt.
    pub global: u32,
    /// Polarity (bits 0 and 1) and trigger mode (bits 2 and 3).
    pub flags: u16,
}

/// An input of the I/O APICs, and how a device drives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Global interrupt.
    pub global: u32,
    /// By level, not by edge.
    pub level: bool,
    /// Low is active.
    pub active_low: bool,
}

/// What the MADT says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Madt {
    /// Physical address of the local APICs' registers.
    pub local_apic: u64,
    /// There are also two legacy interrupt controllers.
    pub legacy_controllers: bool,
    /// APIC identifiers of all processors that can be used, in the firmware's order, each once.
    pub processors: Vec<u32, MAX_PROCESSORS>,
    /// Processors that are listed and disabled: empty sockets, mostly.
    pub disabled: usize,
    /// Usable processors that found no room in the list.
    pub beyond: usize,
    /// I/O APICs.
    pub io_apics: Vec<IoApic, MAX_IO_APICS>,
    /// Interrupt source overrides.
    pub overrides: Vec<Override, MAX_OVERRIDES>,
    /// Whether the list of entries ended with one whose length cannot be, for what is left of the table or for its kind;
    /// what came before it is kept.
    pub cut: bool,
}

impl Madt {
    /// Reads the table; `None` if it is shorter than its fixed part.
    pub fn parse(table: &[u8]) -> Option<Madt> {
        let table = VettedMadt::new(table)?;
        let fixed = madt(table);
        let mut madt = Madt {
            local_apic: fixed.local_apic_address.into(),
            legacy_controllers: fixed.supports_8259(),
            cut: table.cut(),
            ..Default::default()
        };
        madt_entries(table).for_each(|entry| madt.take(entry));
        Some(madt)
    }

    /// Where a legacy interrupt (0 to 15) arrives. ISA devices drive edges, active high, unless an override says otherwise.
    pub fn isa_line(&self, legacy: u8) -> Line {
        self.line(legacy, Line { global: legacy.into(), level: false, active_low: false })
    }

    /// Where the interrupt of a PCI device arrives whose interrupt line register says `legacy`, which firmware has routed
    /// there (PCI Local Bus 3.0, 6.2.4). PCI devices drive levels, active low, unless an override says otherwise.
    pub fn pci_line(&self, legacy: u8) -> Line {
        self.line(legacy, Line { global: legacy.into(), level: true, active_low: true })
    }

    /// Flags: ACPI 6.5, table 5.26.
    fn line(&self, legacy: u8, usual: Line) -> Line {
        let Some(found) = self.overrides.iter().find(|o| o.legacy == legacy) else { return usual };
        let level = match found.flags >> 2 & 3 {
            0b01 => false,
            0b11 => true,
            _ => usual.level,
        };
        let active_low = match found.flags & 3 {
            0b01 => false,
            0b11 => true,
            _ => usual.active_low,
        };
        Line { global: found.global, level, active_low }
    }

    fn take(&mut self, entry: MadtEntry<'_>) {
        match entry {
            // 255 is the xAPIC's broadcast address, and firmware's mark of an unused entry.
            MadtEntry::LocalApic(e) => self.processor(e.apic_id.into(), e.flags, e.apic_id == u8::MAX),
            MadtEntry::LocalX2Apic(e) => self.processor(e.x2apic_id, e.flags, e.x2apic_id == u32::MAX),
            MadtEntry::IoApic(e) => {
                let io_apic = IoApic {
                    id: e.io_apic_id,
                    address: e.io_apic_address,
                    first_interrupt: e.global_system_interrupt_base,
                };
                // More than MAX_IO_APICS: not needed, see there.
                let _ = self.io_apics.push(io_apic);
            }
            MadtEntry::InterruptSourceOverride(e) => {
                let source = Override { legacy: e.irq, global: e.global_system_interrupt, flags: e.flags };
                // More than MAX_OVERRIDES: some repeat.
                let _ = self.overrides.push(source);
            }
            MadtEntry::LocalApicAddressOverride(e) => self.local_apic = e.local_apic_address,
            _ => {}
        }
    }

    fn processor(&mut self, id: u32, flags: u32, unused: bool) {
        const ENABLED: u32 = 1;
        if flags & ENABLED == 0 || unused {
            self.disabled += 1;
        } else if !self.processors.contains(&id) && self.processors.push(id).is_err() {
            self.beyond += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tables::tests::table;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec as StdVec;

    fn madt(entries: &[&[u8]]) -> StdVec<u8> {
        let mut body = [0xFEE0_0000u32.to_le_bytes(), 1u32.to_le_bytes()].concat();
        entries.iter().for_each(|e| body.extend(*e));
        table(b"APIC", &body)
    }

    fn x2(id: u32, flags: u8) -> StdVec<u8> {
        let mut e = std::vec![9, 16, 0, 0];
        e.extend(id.to_le_bytes());
        e.extend([flags, 0, 0, 0, 0, 0, 0, 0]);
        e
    }

    #[test]
    fn all_kinds_are_read() {
        let m = Madt::parse(&madt(&[
            &[0, 8, 0, 0, 1, 0, 0, 0],
            &[0, 8, 1, 2, 1, 0, 0, 0],
            &[0, 8, 2, 4, 0, 0, 0, 0],    // disabled
            &[0, 8, 3, 5, 2, 0, 0, 0],    // could be brought online, is not
            &[0, 8, 4, 0xFF, 1, 0, 0, 0], // no identifier
            &x2(2, 1),                    // said twice
            &x2(0x1_0000, 1),
            &x2(u32::MAX, 1),
            &[1, 12, 7, 0, 0, 0, 0xC0, 0xFE, 0, 0, 0, 0],
            &[2, 10, 0, 0, 2, 0, 0, 0, 5, 0],
            &[4, 6, 0xFF, 0, 0, 1],
            &[0x7F, 3, 9],
        ]))
        .unwrap();
        assert_eq!(m.processors[..], [0, 2, 0x1_0000]);
        assert_eq!((m.disabled, m.beyond, m.cut, m.legacy_controllers), (4, 0, false, true));
        assert_eq!(m.io_apics[..], [IoApic { id: 7, address: 0xFEC0_0000, first_interrupt: 0 }]);
        assert_eq!(m.overrides[..], [Override { legacy: 0, global: 2, flags: 5 }]);
        assert_eq!(m.local_apic, 0xFEE0_0000);
    }

    #[test]
    fn the_address_override_counts() {
        let m = Madt::parse(&madt(&[&[5, 12, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]])).unwrap();
        assert_eq!(m.local_apic, 1 << 32);
    }

    #[test]
    fn interrupt_lines_follow_the_overrides() {
        let m = Madt::parse(&madt(&[
            &[2, 10, 0, 0, 2, 0, 0, 0, 0, 0],     // as ISA does
            &[2, 10, 0, 9, 9, 0, 0, 0, 0x0D, 0],  // level, high
            &[2, 10, 0, 4, 20, 0, 0, 0, 0x07, 0], // edge, low
        ]))
        .unwrap();
        let line = |global, level, active_low| Line { global, level, active_low };
        assert_eq!(m.isa_line(3), line(3, false, false));
        assert_eq!(m.isa_line(0), line(2, false, false));
        assert_eq!(m.isa_line(9), line(9, true, false));
        assert_eq!(m.isa_line(4), line(20, false, true));
        assert_eq!(m.pci_line(11), line(11, true, true));
        assert_eq!(m.pci_line(9), line(9, true, false));
        assert_eq!(m.pci_line(0), line(2, true, true));
    }

    #[test]
    fn bad_lengths_end_the_list() {
        let good: &[u8] = &[0, 8, 0, 9, 1, 0, 0, 0];
        for bad in [&[0u8, 0][..], &[0, 1], &[0, 200, 1], &[7]] {
            let m = Madt::parse(&madt(&[good, bad])).unwrap();
            assert!(m.cut, "{bad:?}");
            assert_eq!(m.processors[..], [9]);
        }
        // Too short for its kind: it says nothing, and where the next one starts cannot be believed.
        let m = Madt::parse(&madt(&[good, &[0, 4, 0, 3], &x2(3, 1)])).unwrap();
        assert_eq!((m.cut, &m.processors[..]), (true, &[9][..]));
        assert_eq!(Madt::parse(&table(b"APIC", &[0; 7])), None);
    }

    #[test]
    fn a_machine_with_very_many_processors() {
        let entries: StdVec<_> = (0..600).map(|i| x2(i, 1)).collect();
        let entries: StdVec<&[u8]> = entries.iter().map(|e| &e[..]).collect();
        let m = Madt::parse(&madt(&entries)).unwrap();
        assert_eq!((m.processors.len(), m.beyond), (MAX_PROCESSORS, 600 - MAX_PROCESSORS));
    }

    proptest! {
        #[test]
        fn any_bytes_are_borne(body: StdVec<u8>) {
            let _ = Madt::parse(&table(b"APIC", &body));
            let _ = Madt::parse(&body);
        }

        #[test]
        fn any_entries_are_borne(
            entries in proptest::collection::vec((0u8..12, proptest::collection::vec(any::<u8>(), 0..20)), 0..50)
        ) {
            let entries: StdVec<StdVec<u8>> =
                entries.iter().map(|(k, b)| [&[*k, b.len() as u8 + 2][..], b].concat()).collect();
            let refs: StdVec<&[u8]> = entries.iter().map(|e| &e[..]).collect();
            let m = Madt::parse(&madt(&refs)).unwrap();
            let mut seen = m.processors.clone();
            seen.sort_unstable();
            prop_assert!(seen.windows(2).all(|w| w[0] != w[1]), "each processor once");
        }
    }
}
