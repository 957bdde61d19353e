//! The page walk against the SDM's rules (vol. 3A, chapter 4): every combination of rights, all page sizes, reserved bits,
//! accessed and dirty bits.

mod emulate_model;

use emulate_model::*;
use machine::emulate::BusError;
use machine::emulate::walk::{NoPage, Paging, Purpose, error};

const P: u64 = 1 << 0;
const W: u64 = 1 << 1;
const U: u64 = 1 << 2;
const A: u64 = 1 << 5;
const D: u64 = 1 << 6;
const PS: u64 = 1 << 7;
const NX: u64 = 1 << 63;

const TABLE: u64 = 0x1000;
const LINEAR: u64 = 0x1234_5678;

/// A paging mode and a page size: where the entries for [`LINEAR`] lie, from the root, and what the leaf maps.
#[derive(Clone, Copy, Debug)]
struct Shape {
    name: &'static str,
    cr4: u64,
    efer: u64,
    width: usize,
    /// The lowest translated bit of each level's entry.
    shifts: &'static [u32],
    /// Bits of the leaf besides rights: PS and the address.
    leaf: u64,
    physical: u64,
}

const SHAPES: [Shape; 7] = [
    Shape {
        name: "4-level, 4 KByte",
        cr4: CR4_PAE,
        efer: EFER_LMA,
        width: 8,
        shifts: &[39, 30, 21, 12],
        leaf: 0xa_bcde_f000,
        physical: 0xa_bcde_f678,
    },
    Shape {
        name: "4-level, 2 MByte",
        cr4: CR4_PAE,
        efer: EFER_LMA,
        width: 8,
        shifts: &[39, 30, 21],
        leaf: 0xa_bc00_0000 | PS,
        physical: 0xa_bc14_5678,
    },
    Shape {
        name: "4-level, 1 GByte",
        cr4: CR4_PAE,
        efer: EFER_LMA,
        width: 8,
        shifts: &[39, 30],
        leaf: 0xa_8000_0000 | PS,
        physical: 0xa_9234_5678,
    },
    Shape {
        name: "PAE, 4 KByte",
        cr4: CR4_PAE,
        efer: 0,
        width: 8,
        shifts: &[21, 12],
        leaf: 0xa_bcde_f000,
        physical: 0xa_bcde_f678,
    },
    Shape {
        name: "PAE, 2 MByte",
        cr4: CR4_PAE,
        efer: 0,
        width: 8,
        shifts: &[21],
        leaf: 0xa_bc00_0000 | PS,
        physical: 0xa_bc14_5678,
    },
    Shape {
        name: "32-bit, 4 KByte",
        cr4: 0,
        efer: 0,
        width: 4,
        shifts: &[22, 12],
        leaf: 0xbcde_f000,
        physical: 0xbcde_f678,
    },
    Shape {
        name: "32-bit, 4 MByte",
        cr4: CR4_PSE,
        efer: 0,
        width: 4,
        shifts: &[22],
        // Bits 20:13 are bits 39:32 of the address.
        leaf: 0xbc00_0000 | PS | 0xa << 13,
        physical: 0xa_bc34_5678,
    },
];

impl Shape {
    fn levels(&self) -> usize {
        self.shifts.len()
    }

    /// Where level `n`'s entry for [`LINEAR`] is.
    fn entry(&self, n: usize) -> u64 {
        let index_bits = if self.width == 8 { 9 } else { 10 };
        let index = LINEAR >> self.shifts[n] & ((1 << index_bits) - 1);
        TABLE * (n as u64 + 1) + index * self.width as u64
    }

    fn set(&self, bus: &mut TestBus, n: usize, entry: u64) {
        bus.poke(self.entry(n), &entry.to_le_bytes()[..self.width]);
    }

    fn get(&self, bus: &TestBus, n: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes[..self.width].copy_from_slice(bus.peek(self.entry(n), self.width));
        u64::from_le_bytes(bytes)
    }

    /// Entry `n` with these rights.
    fn made(&self, n: usize, rights: u64) -> u64 {
        let address = if n + 1 == self.levels() { self.leaf } else { TABLE * (n as u64 + 2) };
        let rights = if self.width == 4 { rights & !NX } else { rights };
        address | rights
    }

    fn build(&self, rights: impl Fn(usize) -> u64) -> (Registers, TestBus) {
        let mut bus = TestBus { memory: vec![(0, vec![0; 6 * TABLE as usize])], ..TestBus::default() };
        for n in 0..self.levels() {
            self.set(&mut bus, n, self.made(n, rights(n)));
        }
        let mut cpu = Registers::protected(0);
        cpu.cr0 |= CR0_PG;
        (cpu.cr3, cpu.cr4, cpu.efer) = (TABLE, self.cr4, self.efer);
        cpu.pdptes[0] = TABLE | P;
        (cpu, bus)
    }
}

#[derive(Clone, Copy, Debug)]
struct Rules {
    user: bool,
    wp: bool,
    smep: bool,
    smap: bool,
    ac: bool,
    nxe: bool,
    purpose: Purpose,
}

/// SDM vol. 3A, 4.6.1, sentence by sentence, for a page with these rights.
fn allowed(r: Rules, user_page: bool, writable: bool, no_execute: bool) -> bool {
    let executable = !r.nxe || !no_execute;
    let open = !r.smap || r.ac;
    match (r.user, user_page, r.purpose) {
        // Supervisor-mode accesses to supervisor-mode addresses.
        (false, false, Purpose::Read) => true,
        (false, false, Purpose::Write) => !r.wp || writable,
        (false, false, Purpose::Fetch) => executable,
        // Supervisor-mode accesses to user-mode addresses.
        (false, true, Purpose::Read) => open,
        (false, true, Purpose::Write) => open && (!r.wp || writable),
        (false, true, Purpose::Fetch) => !r.smep && executable,
        // User-mode accesses.
        (true, false, _) => false,
        (true, true, Purpose::Read) => true,
        (true, true, Purpose::Write) => writable,
        (true, true, Purpose::Fetch) => executable,
    }
}

#[test]
fn every_combination_of_rights_is_as_the_manual_says() {
    let mut checked = 0;
    for shape in SHAPES {
        for bits in 0_u32..1 << 9 {
            let bit = |n: u32| bits >> n & 1 != 0;
            let (user_page, writable, no_execute) = (bit(6), bit(7), bit(8));
            for purpose in [Purpose::Read, Purpose::Write, Purpose::Fetch] {
                let rules = Rules {
                    user: bit(0),
                    wp: bit(1),
                    smep: bit(2),
                    smap: bit(3),
                    ac: bit(4),
                    nxe: bit(5),
                    purpose,
                };
                // One level has the restriction, the others allow everything.
                for restricted in 0..shape.levels() {
                    check(&shape, rules, (user_page, writable, no_execute), restricted);
                    checked += 1;
                }
            }
        }
    }
    assert_eq!(checked, 512 * 3 * (4 + 3 + 2 + 2 + 1 + 2 + 1));
}

fn check(shape: &Shape, rules: Rules, (user, writable, no_execute): (bool, bool, bool), restricted: usize) {
    let flag = |bit: u64, on: bool| if on { bit } else { 0 };
    let rights = P | flag(U, user) | flag(W, writable) | flag(NX, no_execute);
    let (mut cpu, mut bus) = shape.build(|n| if n == restricted { rights } else { P | U | W });
    cpu.cpl = if rules.user { 3 } else { 0 };
    cpu.cr0 |= flag(CR0_WP, rules.wp);
    cpu.cr4 |= flag(CR4_SMEP, rules.smep) | flag(CR4_SMAP, rules.smap);
    cpu.rflags |= flag(AC, rules.ac);
    cpu.efer |= flag(EFER_NXE, rules.nxe);
    let before = bus.clone();
    let place = || format!("{}, level {restricted}, {rights:#x}, {rules:?}", shape.name);
    let result = Paging::of(&cpu).translate(&mut bus, LINEAR, rules.purpose);
    let wide = shape.width == 8;
    let fetch_known = rules.nxe && wide || rules.smep;
    let code = match rules.purpose {
        Purpose::Read => 0,
        Purpose::Write => error::WRITE,
        Purpose::Fetch => flag(error::FETCH.into(), fetch_known) as u32,
    } | flag(error::USER.into(), rules.user) as u32
        | error::PRESENT;
    if wide && no_execute && !rules.nxe {
        assert_eq!(result, Err(NoPage::Fault(code | error::RESERVED)), "{}", place());
    } else if allowed(rules, user, writable, no_execute && wide) {
        let mut page = result.unwrap_or_else(|no| panic!("{no:?}: {}", place()));
        assert_eq!(page.physical, shape.physical, "{}", place());
        page.mark_dirty(&mut bus).unwrap();
        for n in 0..shape.levels() {
            let leaf = n + 1 == shape.levels();
            let used = if leaf && rules.purpose == Purpose::Write { A | D } else { A };
            assert_eq!(shape.get(&bus, n), shape.get(&before, n) | used, "{} entry {n}", place());
        }
        return;
    } else {
        assert_eq!(result, Err(NoPage::Fault(code)), "{}", place());
    }
    assert_eq!(bus.memory, before.memory, "a refused access leaves no trace: {}", place());
}

#[test]
fn nothing_is_written_when_the_bits_are_set_already() {
    for shape in SHAPES {
        let (cpu, mut bus) = shape.build(|_| P | U | W | A | D);
        let mut page = Paging::of(&cpu).translate(&mut bus, LINEAR, Purpose::Write).unwrap();
        page.mark_dirty(&mut bus).unwrap();
        assert_eq!(bus.writes, 0, "{}", shape.name);
        assert_eq!(bus.calls, shape.levels(), "{}", shape.name);
    }
}

#[test]
fn the_dirty_bit_waits_for_the_write() {
    let shape = SHAPES[0];
    let (cpu, mut bus) = shape.build(|_| P | U | W);
    let mut page = Paging::of(&cpu).translate(&mut bus, LINEAR, Purpose::Write).unwrap();
    assert_eq!(shape.get(&bus, 3) & (A | D), A);
    page.mark_dirty(&mut bus).unwrap();
    page.mark_dirty(&mut bus).unwrap();
    assert_eq!(shape.get(&bus, 3) & (A | D), A | D);
}

#[test]
fn a_missing_entry_faults_at_every_level() {
    for shape in SHAPES {
        for missing in 0..shape.levels() {
            // Everything else in such an entry is ignored.
            let (cpu, mut bus) = shape.build(|n| if n == missing { NX | U } else { P | U | W });
            let result = Paging::of(&cpu).translate(&mut bus, LINEAR, Purpose::Write);
            assert_eq!(result, Err(NoPage::Fault(error::WRITE)), "{}, level {missing}", shape.name);
            assert_eq!(bus.writes, 0);
        }
    }
    let (mut cpu, mut bus) = SHAPES[3].build(|_| P | U | W);
    cpu.pdptes[0] &= !P;
    let result = Paging::of(&cpu).translate(&mut bus, LINEAR, Purpose::Read);
    assert_eq!(result, Err(NoPage::Fault(0)), "a page-directory pointer that is not present");
}

#[test]
fn reserved_bits_fault_and_only_they() {
    // Shape, level, bits that are reserved with 40 physical bits and NXE.
    let beyond = 0xfff << 40;
    let pae = beyond | 0x7ff << 52;
    let cases = [
        (0, 0, beyond | PS),
        (0, 1, beyond),
        (0, 2, beyond),
        (0, 3, beyond),
        (1, 2, beyond | 0x1f_e000),
        (2, 1, beyond | 0x3fff_e000),
        (3, 0, pae),
        (3, 1, pae),
        (4, 0, pae | 0x1f_e000),
        (5, 0, 0),
        (5, 1, 0),
        (6, 0, 1 << 21),
    ];
    for (shape, level, reserved) in cases {
        let shape = SHAPES[shape];
        for bit in (0..8 * shape.width as u32).filter(|bit| ![0, 1, 2, 5, 6, 63].contains(bit)) {
            let (mut cpu, mut bus) = shape.build(|_| P | U | W | A | D);
            cpu.efer |= EFER_NXE;
            let entry = shape.get(&bus, level);
            // Changing the address or the page size is another test.
            let structure = PS | 0x000f_ffff_ffff_f000 & !beyond;
            let is_reserved = reserved >> bit & 1 != 0;
            if !is_reserved && structure >> bit & 1 != 0 {
                continue;
            }
            shape.set(&mut bus, level, entry | 1 << bit);
            let result = Paging::of(&cpu).translate(&mut bus, LINEAR, Purpose::Read);
            let expected = Err(NoPage::Fault(error::PRESENT | error::RESERVED));
            let place = format!("{}, level {level}, bit {bit}: {result:?}", shape.name);
            assert_eq!(result == expected, is_reserved, "{place}");
            assert_eq!(result.is_ok(), !is_reserved, "{place}");
        }
    }
}

#[test]
fn the_page_size_bit_means_nothing_where_the_size_is_not_offered() {
    // Without 1-GByte pages, PS in a page-directory-pointer-table entry is reserved.
    let (mut cpu, mut bus) = SHAPES[2].build(|_| P | U | W);
    cpu.gigabyte_pages = false;
    let result = Paging::of(&cpu).translate(&mut bus, LINEAR, Purpose::Read);
    assert_eq!(result, Err(NoPage::Fault(error::PRESENT | error::RESERVED)));
    // Without CR4.PSE it is ignored in a page-directory entry: the entry names a page table.
    let shape = SHAPES[5];
    let (cpu, mut bus) = shape.build(|n| if n == 0 { P | U | W | PS } else { P | U | W });
    let page = Paging::of(&cpu).translate(&mut bus, LINEAR, Purpose::Read).unwrap();
    assert_eq!(page.physical, shape.physical);
}

#[test]
fn protection_keys_guard_user_pages_only() {
    let shape = SHAPES[0];
    for (user_page, user, wp, rights, purpose, fine) in [
        (true, true, true, 1, Purpose::Read, false),
        (true, false, true, 1, Purpose::Read, false),
        (false, false, true, 1, Purpose::Read, true),
        (true, true, true, 1, Purpose::Fetch, true),
        (true, true, true, 2, Purpose::Read, true),
        (true, true, false, 2, Purpose::Write, false),
        (true, false, true, 2, Purpose::Write, false),
        (true, false, false, 2, Purpose::Write, true),
    ] {
        let page_rights = if user_page { P | U | W } else { P | W };
        let (mut cpu, mut bus) = shape.build(|_| page_rights);
        let entry = shape.get(&bus, 3);
        shape.set(&mut bus, 3, entry | 5 << 59);
        cpu.cr4 |= CR4_PKE;
        (cpu.pkru, cpu.cpl) = (rights << 10, if user { 3 } else { 0 });
        cpu.cr0 |= if wp { CR0_WP } else { 0 };
        let result = Paging::of(&cpu).translate(&mut bus, LINEAR, purpose);
        let keyed = matches!(result, Err(NoPage::Fault(code)) if code & error::KEY != 0 && code & error::PRESENT != 0);
        assert_eq!((result.is_ok(), keyed), (fine, !fine), "{user_page} {user} {wp} {rights} {purpose:?}");
    }
}

#[test]
fn tables_that_the_bus_does_not_have_are_named() {
    let (mut cpu, mut bus) = SHAPES[0].build(|_| P | U | W);
    cpu.cr3 = 0x77_0000;
    let result = Paging::of(&cpu).translate(&mut bus, 0, Purpose::Read);
    assert_eq!(result, Err(NoPage::Bus(BusError { address: 0x77_0000 })));
}
