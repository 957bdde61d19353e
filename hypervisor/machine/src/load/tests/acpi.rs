//! The tables as a guest finds them: by search, by pointers, by checksums; and the same through the firmware's script.

use std::collections::BTreeMap;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

use crate::load::acpi::{ALIGNMENT, Board, RSDP_ALIGNMENT, Tables};
use crate::load::aml::{apic_interrupt, pic_interrupt};
use crate::load::{bytes, linker, map};

/// Physical memory with tables in it: pieces, by address.
struct Memory(BTreeMap<u64, Vec<u8>>);

impl Memory {
    fn get(&self, address: u64, length: usize) -> &[u8] {
        let (start, piece) = self.0.range(..=address).next_back().expect("memory at this address");
        &piece[(address - start) as usize..][..length]
    }

    /// A table with a right checksum.
    fn table(&self, address: u64) -> &[u8] {
        let length = bytes::u32(self.get(address, 8), 4).expect("a length") as usize;
        let table = self.get(address, length);
        assert_eq!(sum(table), 0, "checksum of {:?}", signature(table));
        table
    }
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, &byte| sum.wrapping_add(byte))
}

fn signature(table: &[u8]) -> String {
    String::from_utf8_lossy(&table[..4]).to_string()
}

fn number(bytes: &[u8], at: usize, size: usize) -> u64 {
    bytes[at..at + size].iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

/// Everything that can be reached from the root pointer.
struct Found {
    fadt: Vec<u8>,
    madt: Vec<u8>,
    dsdt: Vec<u8>,
    facs: Vec<u8>,
}

fn follow(memory: &Memory, rsdp: u64) -> Found {
    let root = memory.get(rsdp, 36);
    assert_eq!((&root[..8], root[15], number(root, 20, 4)), (b"RSD PTR ".as_slice(), 2, 36));
    assert_eq!((sum(&root[..20]), sum(root)), (0, 0), "both checksums");
    let (rsdt, xsdt) = (memory.table(number(root, 16, 4)), memory.table(number(root, 24, 8)));
    assert_eq!((signature(rsdt).as_str(), signature(xsdt).as_str()), ("RSDT", "XSDT"));
    let narrow: Vec<u64> = rsdt[36..].chunks(4).map(|entry| number(entry, 0, 4)).collect();
    let wide: Vec<u64> = xsdt[36..].chunks(8).map(|entry| number(entry, 0, 8)).collect();
    assert_eq!(narrow, wide, "both lists name the same tables");
    let tables: Vec<&[u8]> = wide.iter().map(|&address| memory.table(address)).collect();
    let names: Vec<String> = tables.iter().map(|table| signature(table)).collect();
    assert_eq!(names, ["FACP", "APIC"]);
    let fadt = tables[0];
    assert_eq!(number(fadt, 40, 4), number(fadt, 140, 8), "DSDT and X_DSDT");
    let facs = number(fadt, 36, 4);
    assert_eq!(facs % 64, 0, "the FACS is aligned");
    let facs = memory.get(facs, 64);
    assert_eq!((signature(facs).as_str(), number(facs, 4, 4)), ("FACS", 64));
    let dsdt = memory.table(number(fadt, 40, 4));
    assert_eq!(signature(dsdt), "DSDT");
    Found { fadt: fadt.into(), madt: tables[1].into(), dsdt: dsdt.into(), facs: facs.into() }
}

/// The tables, placed by us.
fn placed(board: &Board) -> Found {
    let placed = Tables::new(board).placed(map::BIOS);
    assert!(placed.bytes.len() < (map::EXTENDED - map::BIOS) as usize);
    assert_eq!(placed.rsdp % 16, 0, "the root pointer is found at multiples of 16");
    follow(&Memory([(map::BIOS, placed.bytes)].into()), placed.rsdp)
}

#[test]
fn fixed_hardware_is_where_the_devices_are() {
    let fadt = placed(&Board { serial: true }).fadt;
    let register = |at: usize| (fadt[at], fadt[at + 1], number(&fadt, at + 4, 8));
    assert_eq!(number(&fadt, 46, 2), 9, "SCI");
    assert_eq!(number(&fadt, 48, 4), 0, "no SMI command: ACPI mode is on");
    assert_eq!((number(&fadt, 56, 4), fadt[88], register(148)), (0x600, 4, (1, 32, 0x600)), "PM1a events");
    assert_eq!((number(&fadt, 64, 4), fadt[89], register(172)), (0x604, 2, (1, 16, 0x604)), "PM1a control");
    assert_eq!((number(&fadt, 76, 4), fadt[91], register(208)), (0x608, 4, (1, 32, 0x608)), "timer");
    assert_eq!((register(116), fadt[128]), ((1, 8, 0xcf9), 0x0e), "reset register and value");
    let flags = number(&fadt, 112, 4);
    assert_eq!(flags >> 8 & 1, u64::from(crate::devices::pm::TIMER_BITS == 32), "TMR_VAL_EXT");
    assert_eq!(flags >> 10 & 1, 1, "RESET_REG_SUP");
    assert_eq!(flags >> 20 & 1, 0, "not hardware-reduced");
    assert_eq!(flags >> 4 & 3, 0b10, "a power button with fixed hardware, no sleep button");
    assert_eq!(number(&fadt, 80, 8), 0, "no general-purpose events");
}

#[test]
fn interrupt_controllers_are_listed() {
    let madt = placed(&Board { serial: true }).madt;
    assert_eq!((number(&madt, 36, 4), number(&madt, 40, 4)), (0xfee0_0000, 1));
    let (mut rest, mut entries) = (&madt[44..], Vec::new());
    while !rest.is_empty() {
        let (entry, after) = rest.split_at(rest[1].into());
        entries.push(entry);
        rest = after;
    }
    let expected: [&[u8]; 5] = [
        &[0, 8, 0, 0, 1, 0, 0, 0],
        &[1, 12, 1, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0],
        &[2, 10, 0, 0, 2, 0, 0, 0, 0, 0],
        &[2, 10, 0, 9, 9, 0, 0, 0, 0x0d, 0],
        &[4, 6, 0xff, 0, 0, 1],
    ];
    assert_eq!(entries, expected);
}

/// A term of AML that has a length: ACPI 6.5, 20.2. Answers its contents and what comes behind.
fn package(code: &[u8]) -> (&[u8], &[u8]) {
    let more = usize::from(code[0] >> 6);
    let length = match more {
        0 => usize::from(code[0] & 0x3f),
        _ => (1..=more).fold(usize::from(code[0] & 0xf), |n, at| n | usize::from(code[at]) << (8 * at - 4)),
    };
    (&code[1 + more..length], &code[length..])
}

/// An integer constant; answers what comes behind.
fn integer(code: &[u8]) -> (u64, &[u8]) {
    let size = match code[0] {
        constant @ (0 | 1) => return (constant.into(), &code[1..]),
        0x0a => 1,
        0x0b => 2,
        0x0c => 4,
        other => panic!("{other:#x} is no integer"),
    };
    (number(code, 1, size), &code[1 + size..])
}

/// What follows these bytes, which are there once.
fn after<'c>(code: &'c [u8], bytes: &[u8]) -> &'c [u8] {
    let mut places = (0..code.len()).filter(|&at| code[at..].starts_with(bytes));
    let at = places.next().unwrap_or_else(|| panic!("{bytes:x?} is not there"));
    assert_eq!(places.next(), None, "{bytes:x?} is there twice");
    &code[at + bytes.len()..]
}

/// The table of interrupts with this name: by device and pin.
fn routing(code: &[u8], name: &[u8]) -> BTreeMap<(u64, u64), u64> {
    // DefName, DefPackage.
    let table = after(code, &[&[0x08], name, &[0x12]].concat());
    let (table, _) = package(table);
    let (count, mut rest) = (table[0], &table[1..]);
    let mut routes = BTreeMap::new();
    while !rest.is_empty() {
        assert_eq!(rest[0], 0x12);
        let (entry, behind) = package(&rest[1..]);
        assert_eq!(entry[0], 4, "elements");
        let (address, entry) = integer(&entry[1..]);
        let (pin, entry) = integer(entry);
        let (source, entry) = integer(entry);
        let (interrupt, entry) = integer(entry);
        assert_eq!((address & 0xffff, source, entry), (0xffff, 0, [].as_slice()));
        assert_eq!(routes.insert((address >> 16, pin), interrupt), None, "once");
        rest = behind;
    }
    assert_eq!(usize::from(count), routes.len());
    routes
}

#[test]
fn the_dsdt_says_what_cannot_be_found_by_looking() {
    let dsdt = placed(&Board { serial: true }).dsdt;
    let code = &dsdt[36..];
    // Four terms, each ending where the next begins: \_S5_, \PICF, \_PIC and the scope \_SB_.
    let (s5, rest) = package(code.strip_prefix(b"\x08_S5_\x12").expect("a package"));
    assert_eq!((s5[0], integer(&s5[1..]).0), (4, crate::devices::pm::SLEEP_TYPE_S5.into()));
    let (picf, rest) = integer(rest.strip_prefix(b"\x08PICF").expect("a name"));
    let (method, rest) = package(rest.strip_prefix(b"\x14").expect("a method"));
    // One argument, stored to PICF.
    assert_eq!((picf, method), (0, b"_PIC\x01\x70\x68PICF".as_slice()));
    let (scope, rest) = package(rest.strip_prefix(b"\x10").expect("a scope"));
    assert_eq!((&scope[..4], rest), (b"_SB_".as_slice(), [].as_slice()));
    let (apic, pic) = (routing(code, b"PRTA"), routing(code, b"PRTP"));
    for device in 2..32 {
        assert_eq!(apic[&(device, 0)], 16 + device % 4, "pin A of device {device}");
    }
    // PIIX3's wiring, as SeaBIOS has it: 10, 10, 11, 11 from device 1 on.
    assert_eq!([2, 3, 4, 5].map(|device| pic[&(device, 0)]), [10, 11, 11, 10]);
    for pin in 0..4 {
        assert_eq!(apic[&(7, pin)], apic_interrupt(7, pin as u32).into());
        assert_eq!(pic[&(7, pin)], pic_interrupt(7, pin as u32).into());
    }
    // EISA ids: PNP0A03, and COM1 as PNP0501 at 3F8h.
    after(code, &[0x41, 0xd0, 0x0a, 0x03]);
    after(code, &[0x47, 1, 0xf8, 3, 0xf8, 3, 1, 8]);
    let serial = [0x41, 0xd0, 0x05, 0x01];
    after(code, &serial);
    let without = placed(&Board { serial: false }).dsdt;
    assert!(!without.windows(4).any(|bytes| bytes == serial), "a board without a serial port");
}

/// Executes the script as firmware does it, with files at these addresses.
fn execute(script: &[u8], mut files: BTreeMap<&str, (u64, Vec<u8>)>) -> Memory {
    let name = |bytes: &[u8]| {
        let end = bytes.iter().position(|&byte| byte == 0).expect("a final zero");
        String::from_utf8(bytes[..end].to_vec()).expect("a name")
    };
    assert_eq!(script.len() % 128, 0);
    let mut allocated = Vec::new();
    for command in script.chunks(128) {
        let first = name(&command[4..60]);
        match number(command, 0, 4) {
            1 => {
                let (address, _) = files[first.as_str()];
                assert_eq!(address % number(command, 60, 4), 0, "the place asked for");
                assert_eq!(u64::from(command[64]), if address < 1 << 20 { 2 } else { 1 }, "zone of {first}");
                allocated.push(first);
            }
            2 => {
                let (source, offset, size) =
                    (name(&command[60..116]), number(command, 116, 4) as usize, command[120]);
                assert!(allocated.contains(&first) && allocated.contains(&source));
                let address = files[source.as_str()].0;
                let contents = &mut files.get_mut(first.as_str()).expect("a file").1;
                let pointer = number(contents, offset, size.into()) + address;
                contents[offset..][..size.into()].copy_from_slice(&pointer.to_le_bytes()[..size.into()]);
            }
            3 => {
                let [offset, start, length] = [60, 64, 68].map(|at| number(command, at, 4) as usize);
                let contents = &mut files.get_mut(first.as_str()).expect("a file").1;
                contents[offset] = contents[offset].wrapping_sub(sum(&contents[start..][..length]));
            }
            other => panic!("command {other}"),
        }
    }
    Memory(files.into_values().collect())
}

#[test]
fn firmware_places_the_same_tables_by_the_script() {
    for (low, high) in [(0xf_5a10, 0x0ffe_0000), (0xf_6000, 0x7ffd_1240)] {
        let tables = Tables::new(&Board { serial: true });
        assert_eq!((low % u64::from(RSDP_ALIGNMENT), high % u64::from(ALIGNMENT)), (0, 0));
        let script = linker::script(&tables);
        let files = [(linker::RSDP_FILE, (low, tables.rsdp)), (linker::TABLES_FILE, (high, tables.tables))];
        let found = follow(&execute(&script, files.into()), low);
        let ours = placed(&Board { serial: true });
        assert_eq!((found.dsdt, found.madt, found.facs), (ours.dsdt, ours.madt, ours.facs));
        // The FADT has pointers, and so another checksum.
        assert_eq!(found.fadt[44..140], ours.fadt[44..140]);
    }
}

#[test]
fn tables_are_the_same_each_time() {
    let board = Board { serial: true };
    let (one, two) = (Tables::new(&board), Tables::new(&board));
    assert_eq!((one.tables, one.rsdp, one.links), (two.tables, two.rsdp, two.links));
    assert_ne!(vec![0; 4], Tables::new(&board).rsdp[..4]);
}
