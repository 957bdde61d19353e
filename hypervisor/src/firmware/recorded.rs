//! Tests on the tables of real firmware, as the kernel itself prints them with `log=trace`: a machine that misbehaves
//! can be added here from its console.

use super::fadt::{self, Place, PowerOff, Reset};
use super::madt::Madt;
use super::mcfg;
use super::tables::Tables;
use std::vec::Vec;

/// A recording: the root pointer, and the bytes of each table at its address.
struct Recording {
    root: Vec<u8>,
    places: Vec<(u64, Vec<u8>)>,
}

impl Recording {
    fn parse(text: &str) -> Recording {
        let mut places: Vec<(u64, Vec<u8>)> = Vec::new();
        for line in text.lines() {
            let value = |key: &str| line.split(' ').find_map(|w| w.strip_prefix(key)).expect(key);
            let address = u64::from_str_radix(value("table=0x"), 16).unwrap();
            let hex = value("hex=").trim_end();
            let bytes = (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap());
            if value("offset=") == "0" {
                places.push((address, Vec::new()));
            }
            places.last_mut().unwrap().1.extend(bytes);
        }
        let root = places.remove(0).1;
        Recording { root, places }
    }

    fn tables(&self) -> Tables<'_> {
        Tables::read(&self.root, &|address, length| {
            self.places.iter().find_map(|(base, bytes)| {
                let from = usize::try_from(address.checked_sub(*base)?).ok()?;
                bytes.get(from..from.checked_add(length as usize)?)
            })
        })
        .unwrap()
    }
}

fn all_of(text: &str) -> (Vec<u8>, Vec<u8>, Option<Madt>, usize) {
    let recording = Recording::parse(text);
    let tables = recording.tables();
    assert_eq!(tables.skipped, 0);
    let bytes = |signature| tables.find(signature).unwrap().bytes.to_vec();
    let windows = tables.find(b"MCFG").map_or(0, |t| mcfg::parse(t.bytes).len());
    (bytes(b"FACP"), bytes(b"DSDT"), Madt::parse(&bytes(b"APIC")), windows)
}

#[test]
fn qemu_q35_with_two_empty_sockets() {
    let (fadt, dsdt, madt, windows) = all_of(include_str!("recorded/q35.txt"));
    let madt = madt.unwrap();
    assert_eq!((&madt.processors[..], madt.disabled, madt.cut), (&[0, 1, 2, 3][..], 2, false));
    assert_eq!((madt.local_apic, madt.io_apics[0].address, windows), (0xFEE0_0000, 0xFEC0_0000, 1));
    assert_eq!(fadt::reset(&fadt), Some(Reset { place: Place::Port(0xCF9), value: 0x0F }));
    let off = fadt::power_off(&fadt, &dsdt).unwrap();
    assert_eq!((off.control_a, off.control_b, off.sleep_type), (0x604, None, (0, 0)));
}

#[test]
fn qemu_pc() {
    let (fadt, dsdt, madt, windows) = all_of(include_str!("recorded/pc.txt"));
    assert_eq!((madt.unwrap().processors.len(), windows), (2, 0));
    assert_eq!(fadt::reset(&fadt), None);
    assert_eq!(fadt::power_off(&fadt, &dsdt).unwrap().control_a, 0x604);
}

#[test]
fn qemu_uefi() {
    let (fadt, dsdt, madt, windows) = all_of(include_str!("recorded/uefi.txt"));
    assert_eq!((madt.unwrap().processors.len(), windows), (2, 1));
    assert_eq!(fadt::reset(&fadt).unwrap().place, Place::Port(0xCF9));
    assert!(fadt::power_off(&fadt, &dsdt).is_some());
}

#[test]
fn bochs_with_four_processors() {
    let (fadt, dsdt, madt, windows) = all_of(include_str!("recorded/bochs.txt"));
    assert_eq!((&madt.unwrap().processors[..], windows), (&[0, 1, 2, 3][..], 0));
    assert_eq!(fadt::reset(&fadt), None, "a table of ACPI 1.0");
    let want =
        PowerOff { control_a: 0xB004, control_b: None, sleep_type: (0, 0), enable: Some((0xB2, 0xF1)) };
    assert_eq!(fadt::power_off(&fadt, &dsdt), Some(want));
}

/// Every single-byte change of a recording, and every cut: nothing but a clean answer may come out.
#[test]
fn damaged_recordings_are_borne() {
    for text in [include_str!("recorded/q35.txt"), include_str!("recorded/bochs.txt")] {
        let (fadt, dsdt, _, _) = all_of(text);
        let recording = Recording::parse(text);
        let madt = recording.tables().find(b"APIC").unwrap().bytes.to_vec();
        let s5 = dsdt.windows(4).position(|w| w == b"_S5_").unwrap();
        for at in 0..fadt.len() {
            let mut bad = fadt.clone();
            bad[at] ^= 0xFF;
            let _ = (fadt::reset(&bad), fadt::power_off(&bad, &dsdt[s5 - 2..]), fadt::dsdt_address(&bad));
            let _ = (fadt::reset(&fadt[..at]), fadt::power_off(&fadt[..at], &dsdt[s5 - 2..]));
        }
        for cut in s5..dsdt.len().min(s5 + 30) {
            let _ = fadt::power_off(&fadt, &dsdt[..cut]);
        }
        for at in 0..madt.len() {
            for value in [0, 1, 0xFF] {
                let mut bad = madt.clone();
                bad[at] = value;
                let _ = Madt::parse(&bad);
            }
            let _ = Madt::parse(&madt[..at]);
        }
    }
}
