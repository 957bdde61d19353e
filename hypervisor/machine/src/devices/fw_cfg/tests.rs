//! Firmware's side of the device: what SeaBIOS does with it, and what a hostile guest does.

use super::*;
use crate::load::acpi::Tables;
use crate::ram::HOLE;
use proptest::prelude::*;
use std::string::{String, ToString};
use std::vec;

const BOARD: Board = Board { serial: true };

fn device(bytes: u64) -> FwCfg {
    FwCfg::new(&Setup { layout: Layout::new(bytes), board: &BOARD, boot: Some(3) })
}

/// Reads an item by the data port.
fn by_port(device: &mut FwCfg, ram: &mut Ram<'_>, key: u16, length: usize) -> Vec<u8> {
    device.write(SELECTOR, 2, key.into(), ram);
    (0..length).map(|_| device.read(DATA)).collect()
}

/// Starts a transfer whose description is at 1000h; answers the control word after it.
fn transfer(device: &mut FwCfg, ram: &mut Ram<'_>, control: u32, length: u32, address: u64) -> u32 {
    const AT: u32 = 0x1000;
    let description =
        [control.to_be_bytes().as_slice(), &length.to_be_bytes(), &address.to_be_bytes()].concat();
    ram.write(AT.into(), &description).expect("memory");
    device.write(DMA_HIGH, 4, 0, ram);
    device.write(DMA_LOW, 4, AT.swap_bytes(), ram);
    ram.read_u32(AT.into()).expect("memory").swap_bytes()
}

/// The directory: names, keys and sizes.
fn directory_of(device: &mut FwCfg, ram: &mut Ram<'_>) -> Vec<(String, u16, usize)> {
    let count = by_port(device, ram, KEY_DIRECTORY, 4);
    let count = u32::from_be_bytes(count.try_into().expect("4 bytes"));
    let entry = |_| {
        let bytes: Vec<u8> = (0..64).map(|_| device.read(DATA)).collect();
        let name = bytes[8..].split(|&byte| byte == 0).next().expect("a part");
        let size = u32::from_be_bytes(bytes[..4].try_into().expect("4 bytes"));
        let key = u16::from_be_bytes(bytes[4..6].try_into().expect("2 bytes"));
        (String::from_utf8_lossy(name).to_string(), key, size as usize)
    };
    (0..count).map(entry).collect()
}

#[test]
fn it_is_found_and_its_files_are_read_by_port_and_by_dma() {
    let mut memory = vec![0xa5; 1 << 20];
    let mut ram = Ram::new(&mut memory);
    let mut device = device(1 << 30);
    assert_eq!(by_port(&mut device, &mut ram, 0, 6), b"QEMU\0\0");
    assert_eq!(by_port(&mut device, &mut ram, 1, 4), [3, 0, 0, 0]);
    let signature: Vec<u8> = (DMA_HIGH..PORTS).map(|offset| device.read(offset)).collect();
    assert_eq!(signature, b"QEMU CFG");
    let directory = directory_of(&mut device, &mut ram);
    let names: Vec<&str> = directory.iter().map(|file| file.0.as_str()).collect();
    let expected = [
        "bootorder",
        "etc/acpi/rsdp",
        "etc/acpi/tables",
        "etc/boot-fail-wait",
        "etc/e820",
        "etc/sercon-port",
        "etc/table-loader",
    ];
    assert_eq!(names, expected);
    for (name, key, size) in directory {
        let slow = by_port(&mut device, &mut ram, key, size + 3);
        assert_eq!(slow[size..], [0; 3], "nothing behind {name}");
        ram.slice_mut(0x2000, 0x4000).expect("memory").fill(0xa5);
        let control = u32::from(key) << 16 | CTL_SELECT | CTL_READ;
        assert_eq!(transfer(&mut device, &mut ram, control, size as u32 + 1, 0x2000), 0);
        assert_eq!(ram.slice(0x2000, size + 1), Ok(&slow[..=size]), "{name}");
        assert_eq!(ram.slice(0x2001 + size as u64, 1), Ok([0xa5].as_slice()), "not more than asked for");
    }
}

#[test]
fn files_say_what_firmware_needs() {
    let mut memory = vec![0; 1 << 20];
    let mut ram = Ram::new(&mut memory);
    let mut device = device(HOLE + (1 << 30));
    let directory = directory_of(&mut device, &mut ram);
    let mut file = |name: &str| {
        let (_, key, size) = directory.iter().find(|file| file.0 == name).expect("a file");
        by_port(&mut device, &mut ram, *key, *size)
    };
    let ranges = [(0, HOLE), (1 << 32, 1 << 30)].map(|(start, size): (u64, u64)| {
        [start.to_le_bytes().as_slice(), &size.to_le_bytes(), &1u32.to_le_bytes()].concat()
    });
    assert_eq!(file("etc/e820"), ranges.concat());
    assert_eq!(file("bootorder"), b"/pci@i0cf8/scsi@3/disk@0,0\nHALT\n");
    assert_eq!(file("etc/sercon-port"), [0xf8, 3, 0, 0, 0, 0, 0, 0]);
    let tables = Tables::new(&BOARD);
    assert_eq!(file("etc/acpi/tables"), tables.tables);
    assert_eq!(file("etc/acpi/rsdp"), tables.rsdp);
    assert_eq!(file("etc/table-loader"), linker::script(&tables));
    let quiet = Board { serial: false };
    let mut other = FwCfg::new(&Setup { layout: Layout::new(1 << 22), board: &quiet, boot: None });
    let names: Vec<String> = directory_of(&mut other, &mut ram).into_iter().map(|file| file.0).collect();
    assert!(!names.iter().any(|name| name == "bootorder" || name == "etc/sercon-port"), "{names:?}");
}

#[test]
fn skips_select_and_end_where_the_specification_says() {
    let mut memory = vec![0xa5; 1 << 20];
    let mut ram = Ram::new(&mut memory);
    let mut device = device(1 << 30);
    assert_eq!(transfer(&mut device, &mut ram, CTL_SELECT | CTL_SKIP, 2, 0), 0);
    assert_eq!(device.save(), State { selector: 0, offset: 2, dma_high: 0 });
    assert_eq!(transfer(&mut device, &mut ram, CTL_READ, 4, 0x3000), 0);
    assert_eq!(ram.slice(0x3000, 5), Ok(b"MU\0\0\xa5".as_slice()));
    assert_eq!(transfer(&mut device, &mut ram, CTL_SKIP, 100, 0), 0);
    assert_eq!(device.save().offset, 4, "at the end, and no further");
    assert_eq!(transfer(&mut device, &mut ram, 0x19 << 16 | CTL_SELECT, 0, 0), 0);
    assert_eq!(device.save(), State { selector: 0x19, offset: 0, dma_high: 0 });
    device.write(DMA_HIGH, 4, 5, &mut ram);
    device.reset();
    assert_eq!(device.save(), State::default());
}

#[test]
fn what_is_wrong_is_an_error_and_changes_nothing() {
    let mut memory = vec![0xa5; 1 << 20];
    let mut ram = Ram::new(&mut memory);
    let mut device = device(1 << 30);
    let outside = [(1 << 20) - 3, 1 << 20, HOLE, u64::MAX - 1];
    for address in outside {
        assert_eq!(
            transfer(&mut device, &mut ram, CTL_SELECT | CTL_READ, 4, address),
            CTL_ERROR,
            "{address:#x}"
        );
    }
    assert_eq!(
        transfer(&mut device, &mut ram, CTL_SELECT | CTL_WRITE, 4, 0x3000),
        CTL_ERROR,
        "nothing is writable"
    );
    assert_eq!(transfer(&mut device, &mut ram, CTL_SELECT | CTL_READ, TRANSFER_MOST + 1, 0), CTL_ERROR);
    assert_eq!(device.save().offset, 0);
    assert_eq!(ram.slice(0x3000, 4), Ok([0xa5; 4].as_slice()));
    // A description outside memory: there is no place for an error.
    device.write(DMA_HIGH, 4, 0x7f, &mut ram);
    device.write(DMA_LOW, 4, 0x1000u32.swap_bytes(), &mut ram);
    assert_eq!(device.save(), State::default());
    // Half registers.
    device.write(SELECTOR, 1, 0x19, &mut ram);
    device.write(DMA_LOW, 2, 0x1000, &mut ram);
    assert_eq!(device.save(), State::default());
    assert_eq!((device.read(SELECTOR), device.read(3), device.read(PORTS)), (0, 0, 0));
    let mut absent = FwCfg::default();
    assert_eq!(by_port(&mut absent, &mut ram, 0, 4), [0; 4]);
    assert_eq!(absent.read(DMA_HIGH), 0);
}

/// An access of a guest: offset, size, value (0: a read).
fn access() -> impl Strategy<Value = (u16, u8, u32)> {
    let value = prop_oneof![0..0x30u32, any::<u32>(), (0..0x2000u32).prop_map(u32::swap_bytes)];
    (0..PORTS, prop_oneof![Just(1), Just(2), Just(4)], value)
}

fn act(device: &mut FwCfg, ram: &mut Ram<'_>, &(offset, size, value): &(u16, u8, u32)) -> u8 {
    if value == 0 {
        return device.read(offset);
    }
    device.write(offset, size, value, ram);
    0
}

proptest! {
    #[test]
    fn a_restored_device_has_the_same_future(
        before in proptest::collection::vec(access(), 0..40),
        after in proptest::collection::vec(access(), 0..40),
        filling in proptest::collection::vec(any::<u8>(), 0x3000),
    ) {
        let (mut first_memory, mut second_memory) = (filling.clone(), filling);
        let mut first_ram = Ram::new(&mut first_memory);
        let mut first = device(1 << 30);
        before.iter().for_each(|one| { act(&mut first, &mut first_ram, one); });
        first_ram.read(0, &mut second_memory).expect("all of it");
        let mut second_ram = Ram::new(&mut second_memory);
        let bytes = postcard::to_allocvec(&first.save()).expect("bytes");
        let mut second = device(1 << 30);
        second.restore(postcard::from_bytes(&bytes).expect("a state")).expect("a good one");
        for one in &after {
            let (a, b) = (act(&mut first, &mut first_ram, one), act(&mut second, &mut second_ram, one));
            prop_assert_eq!(a, b);
            prop_assert_eq!(first.save(), second.save());
        }
        prop_assert_eq!(first_ram.slice(0, 0x3000), second_ram.slice(0, 0x3000));
    }

    #[test]
    fn any_state_from_outside_is_borne(selector: u16, offset: u32, dma_high: u32, key in 0u16..0x40) {
        let mut memory = vec![0; 0x3000];
        let mut ram = Ram::new(&mut memory);
        let mut device = device(1 << 30);
        let selector = if selector & 1 == 0 { key } else { selector };
        device.restore(State { selector, offset, dma_high }).expect("every state is valid");
        device.read(DATA);
        transfer(&mut device, &mut ram, CTL_READ, 8, 0x2000);
        transfer(&mut device, &mut ram, CTL_SKIP, u32::MAX, 0);
    }
}
