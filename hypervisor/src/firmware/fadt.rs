//! The FADT and the DSDT's \_S5: how to restart the machine and how to switch it off. ACPI specification 6.5, sections
//! 5.2.9, 4.8.3 and 7.4.2.

use super::{u16_at, u32_at, vet};
use acpi::address::{AddressSpace, GenericAddress};

/// Where a register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A byte of memory.
    Memory(u64),
    /// A port.
    Port(u16),
    /// A byte of a PCI function's configuration space on bus 0.
    Pci {
        /// Device.
        device: u8,
        /// Function.
        function: u8,
        /// Offset in bytes.
        offset: u16,
    },
}

/// How to restart: write a byte to a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// Where.
    pub place: Place,
    /// What.
    pub value: u8,
}

/// How to switch off: the sleep type goes into the control registers with the sleep-enable bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerOff {
    /// Port of PM1a_CNT.
    pub control_a: u16,
    /// Port of PM1b_CNT, if there is one.
    pub control_b: Option<u16>,
    /// Sleep types of S5 for both.
    pub sleep_type: (u8, u8),
    /// Port and value that turn ACPI mode on, where the firmware has to be asked.
    pub enable: Option<(u16, u8)>,
}

impl PowerOff {
    /// ACPI mode is on (bit of PM1a_CNT).
    pub const ENABLED: u16 = 1;
    const SLEEP_ENABLE: u16 = 1 << 13;
    const SLEEP_TYPE: u16 = 7 << 10;

    /// The value for a control register that holds `now`.
    pub fn value(now: u16, sleep_type: u8) -> u16 {
        now & !Self::SLEEP_TYPE | u16::from(sleep_type & 7) << 10 | Self::SLEEP_ENABLE
    }
}

/// Physical address of the DSDT.
pub fn dsdt_address(fadt: &[u8]) -> Option<u64> {
    vet::fadt(fadt).dsdt_address().ok().map(|address| address as u64)
}

/// The reset register, if the table says that it is supported.
pub fn reset(fadt: &[u8]) -> Option<Reset> {
    let fadt = vet::fadt(fadt);
    let supported = { fadt.flags }.supports_system_reset_via_fadt();
    let register = fadt.reset_register().ok().filter(|_| supported)?;
    Some(Reset { place: place(register)?, value: fadt.reset_value })
}

/// A generic address (5.2.3.2), if it can be and we can get there.
fn place(generic: GenericAddress) -> Option<Place> {
    let address = generic.address;
    match generic.address_space {
        AddressSpace::SystemMemory if address != 0 => Some(Place::Memory(address)),
        AddressSpace::SystemIo => port(address).map(Place::Port),
        AddressSpace::PciConfigSpace if address >> 48 == 0 => Some(Place::Pci {
            device: u8::try_from(address >> 32 & 0xFFFF).ok().filter(|d| *d < 32)?,
            function: u8::try_from(address >> 16 & 0xFFFF).ok().filter(|f| *f < 8)?,
            offset: (address & 0xFFFF) as u16,
        }),
        _ => None,
    }
}

/// A port, if there can be such a one; port 0 is how tables say that there is none.
fn port(address: u64) -> Option<u16> {
    u16::try_from(address).ok().filter(|port| *port != 0)
}

/// How to switch off; `None` if the tables do not say it in a way that this function understands.
pub fn power_off(fadt: &[u8], dsdt: &[u8]) -> Option<PowerOff> {
    let fadt = vet::fadt(fadt);
    // The wide field is the right one, unless it holds what we cannot use.
    let control = |register: Option<GenericAddress>, narrow: u32| match register.and_then(place) {
        Some(Place::Port(port)) => Some(port),
        _ => port(narrow.into()),
    };
    let enable = port(fadt.smi_cmd_port.into()).zip(Some(fadt.acpi_enable).filter(|v| *v != 0));
    Some(PowerOff {
        control_a: control(fadt.pm1a_control_block().ok(), fadt.pm1a_control_block)?,
        control_b: control(fadt.pm1b_control_block().ok().flatten(), fadt.pm1b_control_block),
        sleep_type: sleep_type(dsdt)?,
        enable,
    })
}

/// The package \_S5 in a DSDT: its first two elements. Not an interpreter: it looks for the bytes that every compiler
/// makes of `Name (\_S5, Package () {a, b, ...})`, with constants as elements.
fn sleep_type(dsdt: &[u8]) -> Option<(u8, u8)> {
    let found = |at: usize| {
        let named = dsdt[..at].ends_with(&[0x08]) || dsdt[..at].ends_with(&[0x08, 0x5C]);
        let mut rest = dsdt.get(at + 4..).filter(|_| named)?.strip_prefix(&[0x12])?;
        // Package length: the two highest bits say how many bytes follow the first (20.2.4).
        rest = rest.get(1 + usize::from(rest.first()? >> 6)..)?;
        let (count, elements) = rest.split_first()?;
        let (a, elements) = constant(elements)?;
        let b = if *count > 1 { constant(elements)?.0 } else { a };
        Some((a, b))
    };
    let places = dsdt.windows(4).enumerate().filter(|(_, w)| *w == b"_S5_");
    places.map(|(at, _)| at).find_map(found)
}

/// A constant that fits a sleep type, and what follows it (20.2.3).
fn constant(aml: &[u8]) -> Option<(u8, &[u8])> {
    let (value, rest) = match *aml {
        [0x00, ref rest @ ..] => (0, rest),
        [0x01, ref rest @ ..] => (1, rest),
        [0x0A, value, ref rest @ ..] => (value, rest),
        [0x0B, _, _, ref rest @ ..] => (u8::try_from(u16_at(aml, 1)?).ok()?, rest),
        [0x0C, _, _, _, _, ref rest @ ..] => (u8::try_from(u32_at(aml, 1)?).ok()?, rest),
        _ => return None,
    };
    (value < 8).then_some((value, rest))
}

#[cfg(test)]
mod tests {
    use super::super::tables::tests::table;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn fadt(change: impl Fn(&mut [u8])) -> Vec<u8> {
        let mut t = table(b"FACP", &[0; 244 - 36]);
        t[8] = 3;
        t[40..44].copy_from_slice(&0x7000u32.to_le_bytes());
        t[48..52].copy_from_slice(&0xB2u32.to_le_bytes());
        t[52] = 0xF1;
        t[64..68].copy_from_slice(&0x604u32.to_le_bytes());
        change(&mut t);
        t
    }

    fn gas(space: u8, address: u64) -> [u8; 12] {
        let mut g = [space, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        g[4..].copy_from_slice(&address.to_le_bytes());
        g
    }

    fn with_reset(gas: [u8; 12]) -> Vec<u8> {
        fadt(|t| {
            t[112..116].copy_from_slice(&(1u32 << 10).to_le_bytes());
            t[116..128].copy_from_slice(&gas);
            t[128] = 6;
        })
    }

    const S5: &[u8] = &[0x08, b'_', b'S', b'5', b'_', 0x12, 0x08, 0x04, 0x0A, 5, 0x0A, 3, 0x00, 0x00];

    #[test]
    fn reset_registers_of_all_three_spaces() {
        let port = reset(&with_reset(gas(1, 0xCF9)));
        assert_eq!(port, Some(Reset { place: Place::Port(0xCF9), value: 6 }));
        let memory = reset(&with_reset(gas(0, 0xFED0_0000))).unwrap();
        assert_eq!(memory.place, Place::Memory(0xFED0_0000));
        let pci = reset(&with_reset(gas(2, 0x1F_0000_0000 | 3 << 16 | 0xAC))).unwrap();
        assert_eq!(pci.place, Place::Pci { device: 31, function: 3, offset: 0xAC });
    }

    #[test]
    fn reset_registers_that_cannot_be_are_not_used() {
        assert_eq!(reset(&fadt(|_| ())), None, "not supported");
        for bad in [gas(1, 0), gas(1, 0x1_0CF9), gas(0, 0), gas(3, 0xCF9), gas(2, 32 << 32), gas(2, 8 << 16)]
        {
            assert_eq!(reset(&with_reset(bad)), None, "{bad:?}");
        }
        assert_eq!(reset(&with_reset(gas(1, 0xCF9))[..128]), None, "a table of ACPI 1.0 ends before");
    }

    #[test]
    fn the_dsdt_has_two_places() {
        assert_eq!(dsdt_address(&fadt(|_| ())), Some(0x7000));
        assert_eq!(dsdt_address(&fadt(|t| t[144] = 1)), Some(1 << 32));
        let first_revision = fadt(|t| (t[8], t[144]) = (1, 1));
        assert_eq!(dsdt_address(&first_revision), Some(0x7000), "wide fields came with revision 2");
        assert_eq!(dsdt_address(&fadt(|t| t[144] = 1)[..147]), Some(0x7000), "the table ends in the field");
        assert_eq!(dsdt_address(&fadt(|t| t[40..44].fill(0))), None);
        assert_eq!(dsdt_address(&[0; 41]), None);
    }

    #[test]
    fn power_off_is_put_together_from_both_tables() {
        let off = power_off(&fadt(|_| ()), S5).unwrap();
        let want =
            PowerOff { control_a: 0x604, control_b: None, sleep_type: (5, 3), enable: Some((0xB2, 0xF1)) };
        assert_eq!(off, want);
        let wide = fadt(|t| {
            t[172..184].copy_from_slice(&gas(1, 0x1804));
            t[184..196].copy_from_slice(&gas(1, 0x1904));
            t[52] = 0;
        });
        let off = power_off(&wide, S5).unwrap();
        assert_eq!((off.control_a, off.control_b, off.enable), (0x1804, Some(0x1904), None));
        assert_eq!(power_off(&fadt(|t| t[64..68].fill(0)), S5), None);
        for unusable in [gas(0, 0xFED0_0000), gas(1, 0x1_0604), gas(0x0B, 0x604)] {
            let off = power_off(&fadt(|t| t[172..184].copy_from_slice(&unusable)), S5).unwrap();
            assert_eq!(off.control_a, 0x604, "{unusable:?}");
        }
    }

    #[test]
    fn s5_in_all_its_spellings() {
        let s5 = |bytes: &[u8]| sleep_type(&[b"junk_S5_junk", bytes].concat());
        assert_eq!(s5(S5), Some((5, 3)));
        assert_eq!(s5(b"\x08\\_S5_\x12\x06\x04\x00\x01\x00\x00"), Some((0, 1)));
        assert_eq!(
            s5(b"\x08_S5_\x12\x45\x00\x02\x0B\x07\x00\x0C\x06\x00\x00\x00"),
            Some((7, 6)),
            "long length"
        );
        assert_eq!(s5(b"\x08_S5_\x12\x04\x01\x0A\x05"), Some((5, 5)), "one element");
        assert_eq!(s5(b"\x08_S5_\x12\x06\x02\x0A\x08\x00"), None, "no such sleep type");
        assert_eq!(s5(b"\x08_S5_\x12\x06\x02\x70\x60\x61"), None, "not a constant");
        assert_eq!(s5(b"\x08_S5_\x11\x06\x02\x00\x00"), None, "not a package");
        assert_eq!(s5(b"_S5_\x12\x06\x02\x00\x00"), None, "not a name");
        assert_eq!(s5(b"\x08_S5_\x12"), None);
    }

    #[test]
    fn sleeping_keeps_the_other_bits() {
        assert_eq!(PowerOff::value(0x0001, 5), 0x3401);
        assert_eq!(PowerOff::value(0xFFFF, 0), 0xE3FF);
        assert_eq!(PowerOff::value(0, 0xFF), 0x3C00);
    }

    proptest! {
        #[test]
        fn any_bytes_are_borne(fadt in proptest::collection::vec(any::<u8>(), 0..300), dsdt: Vec<u8>) {
            let _ = (reset(&fadt), dsdt_address(&fadt), power_off(&fadt, &dsdt));
        }

        #[test]
        fn any_s5_is_borne(tail in proptest::collection::vec(any::<u8>(), 0..12)) {
            let _ = sleep_type(&[&b"\x08_S5_"[..], &tail].concat());
        }
    }
}
