//! Random instructions in every mode, with page tables that refuse some accesses: the emulator always ends, breaks no promise
//! to the bus, and leaves everything as it was where an instruction does not end.
//!
//! `EMULATE_ROUNDS` and `EMULATE_SEED` make it longer or different; with `--nocapture` it shows what was reached.

mod emulate_model;

use emulate_model::*;
use iced_x86::{Decoder, DecoderOptions, Mnemonic};
use machine::emulate::{Cause, Emulator, Outcome, Seg, warm_up};
use std::collections::BTreeMap;

const ROUNDS: u64 = 6_000;
/// RAM begins at 0.
const RAM: usize = 0x1_0000;
/// Linear page that is mapped to the device when paging is on, and where the device is.
const DEVICE_PAGE: u64 = 0xf000;
const DEVICE: u64 = 0xfee0_0000;
const TABLES: u64 = 0x8000;
const PAGE: u64 = 0x1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mode {
    Real,
    Virtual8086,
    Protected16,
    Protected32,
    Legacy32,
    Pae32,
    Compatibility,
    Long,
}

const MODES: [Mode; 8] = [
    Mode::Real,
    Mode::Virtual8086,
    Mode::Protected16,
    Mode::Protected32,
    Mode::Legacy32,
    Mode::Pae32,
    Mode::Compatibility,
    Mode::Long,
];

impl Mode {
    fn bits(self) -> u32 {
        match self {
            Self::Real | Self::Virtual8086 | Self::Protected16 => 16,
            Self::Long => 64,
            _ => 32,
        }
    }
}

struct World {
    cpu: Registers,
    bus: TestBus,
}

fn put(bus: &mut TestBus, address: u64, width: usize, entry: u64) {
    bus.poke(address, &entry.to_le_bytes()[..width]);
}

/// Tables that map RAM one to one and a page of the device; some entries refuse.
fn map(random: &mut Random, bus: &mut TestBus, levels: &[u64], width: usize) {
    let mut rights = |address: u64| {
        let mut entry = address | 7;
        if random.chance(6) {
            entry ^= random.of(&[1, 2, 4, 1 << 63, 1 << 51, 1 << 7]);
        }
        if random.chance(50) {
            entry |= 0x60;
        }
        entry & if width == 4 { 0xffff_ffff } else { u64::MAX }
    };
    for pair in levels.windows(2) {
        let entry = rights(pair[1]);
        put(bus, pair[0], width, entry);
    }
    let last = *levels.last().unwrap();
    for page in 0..16 {
        let physical = if page * PAGE == DEVICE_PAGE { DEVICE } else { page * PAGE };
        let entry = rights(physical);
        put(bus, last + page * width as u64, width, entry);
    }
}

fn world(random: &mut Random, mode: Mode) -> World {
    let mut ram = vec![0; RAM];
    for chunk in ram.chunks_mut(8) {
        chunk.copy_from_slice(&random.next().to_le_bytes());
    }
    ram[TABLES as usize..TABLES as usize + 5 * PAGE as usize].fill(0);
    let memory = vec![(0, ram)];
    let mut bus = TestBus { memory, device: DEVICE..DEVICE + PAGE, ..TestBus::default() };
    let cpl = if random.chance(50) { 3 } else { 0 };
    let mut cpu = match mode {
        Mode::Real => Registers::real(),
        Mode::Virtual8086 => Registers { cr0: CR0_PE, cpl: 3, rflags: 2 | VM, ..Registers::real() },
        Mode::Long => Registers::long(cpl),
        _ => Registers::protected(cpl),
    };
    let tables = [TABLES, TABLES + PAGE, TABLES + 2 * PAGE, TABLES + 3 * PAGE];
    match mode {
        Mode::Protected16 => {
            for seg in [Seg::Cs, Seg::Ss, Seg::Ds] {
                cpu.segment_mut(seg).access &= !0xc000;
                cpu.segment_mut(seg).limit = 0xffff;
            }
            cpu.segment_mut(Seg::Es).access |= 1 << 2;
            cpu.segment_mut(Seg::Es).limit = 0x1234;
        }
        Mode::Legacy32 => {
            cpu.cr0 |= CR0_PG;
            map(random, &mut bus, &tables[2..], 4);
            cpu.cr3 = tables[2];
        }
        Mode::Pae32 => {
            (cpu.cr0, cpu.cr4) = (cpu.cr0 | CR0_PG, CR4_PAE);
            map(random, &mut bus, &tables[2..], 8);
            cpu.pdptes[0] = tables[2] | 1;
        }
        Mode::Compatibility | Mode::Long => {
            (cpu.cr0, cpu.cr4, cpu.efer) = (cpu.cr0 | CR0_PG, CR4_PAE, EFER_LMA);
            map(random, &mut bus, &tables, 8);
            cpu.cr3 = tables[0];
        }
        _ => {}
    }
    for (bit, register) in
        [(CR0_WP, 0), (CR0_AM, 0), (CR4_SMAP, 4), (CR4_SMEP, 4), (CR4_PKE, 4), (CR4_PSE, 4)]
    {
        if random.chance(40) {
            *if register == 0 { &mut cpu.cr0 } else { &mut cpu.cr4 } |= bit;
        }
    }
    if random.chance(70) {
        cpu.efer |= EFER_NXE;
    }
    for value in &mut cpu.gpr {
        *value = match random.below(8) {
            0 => random.next(),
            1 => random.below(32).wrapping_sub(16),
            2 => DEVICE_PAGE + random.below(PAGE),
            _ => random.below(RAM as u64),
        };
    }
    cpu.gpr[1] = random.next() % random.of(&[20, 20, 20, 2000]);
    cpu.gpr[4] = 0x4000 + random.below(0x100);
    cpu.rflags |= random.next() & (FLAGS | AC | RF);
    cpu.pkru = random.next() as u32 & random.next() as u32;
    cpu.rip = 0x7000 + random.below(PAGE);
    World { cpu, bus }
}

/// An instruction: any bytes, or some that are likely to mean something.
fn code(random: &mut Random) -> [u8; 15] {
    let mut bytes = [0; 15];
    for byte in &mut bytes {
        *byte = random.next() as u8;
    }
    if random.chance(20) {
        return bytes;
    }
    let mut at = 0;
    let mut push = |byte: u8| {
        bytes[at] = byte;
        at += 1;
    };
    for (percent, prefixes) in [
        (25, &[0x66, 0x67][..]),
        (20, &[0xf2, 0xf3]),
        (10, &[0xf0]),
        (10, &[0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65]),
    ] {
        if random.chance(percent) {
            push(random.of(prefixes));
        }
    }
    if random.chance(40) {
        push(0x40 | random.below(16) as u8);
    }
    match random.below(4) {
        0 => push(
            random.of(&[0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf, 0x6c, 0x6d, 0x6e, 0x6f]),
        ),
        1 => {
            push(0x0f);
            if random.chance(10) {
                push(0x38);
            }
        }
        2 => push(
            random.of(&[0xff, 0x8f, 0x89, 0x8b, 0xa1, 0xa3, 0xc7, 0xc6, 0x81, 0xf7, 0xd3, 0x87, 0xe8, 0xc3]),
        ),
        _ => {}
    }
    bytes
}

fn is_string(mnemonic: Mnemonic) -> bool {
    let name = format!("{mnemonic:?}");
    ["Movs", "Cmps", "Stos", "Lods", "Scas", "Ins", "Outs"].iter().any(|n| name.starts_with(n))
}

fn kind(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done { .. } => "done".into(),
        Outcome::Continue { .. } => "continue".into(),
        Outcome::Fault(exception) => format!("#{}", exception.vector),
        Outcome::Undecodable(_) => "undecodable".into(),
        Outcome::Unsupported { .. } => "unsupported".into(),
        Outcome::Refused { .. } => "refused".into(),
    }
}

/// Memory without the accessed and dirty bits of page-table entries.
fn without_used_bits(bus: &TestBus) -> Vec<u8> {
    let mut ram = bus.memory[0].1.clone();
    for entry in ram[TABLES as usize..(TABLES + 5 * PAGE) as usize].iter_mut().step_by(4) {
        *entry &= !0x60;
    }
    ram
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn an_instruction_that_does_not_end_leaves_everything_as_it_was() {
    warm_up();
    let mut random = Random(number("EMULATE_SEED", 3));
    let mut emulator = Emulator::new();
    let mut reached: BTreeMap<(String, String), u64> = BTreeMap::new();
    for round in 0..number("EMULATE_ROUNDS", ROUNDS) {
        let mode = random.of(&MODES);
        let World { mut cpu, mut bus } = world(&mut random, mode);
        let bytes = code(&mut random);
        // Code may cross into the tables' page, which then holds the rest of it.
        let length = bytes.len().min((TABLES - cpu.rip) as usize);
        bus.poke(cpu.rip, &bytes[..length]);
        let (before, memory_before) = (cpu.clone(), without_used_bits(&bus));
        let cause = if random.chance(50) { Cause::Port } else { Cause::Memory };
        let fresh = bus.clone();
        let outcome = emulator.step(&mut cpu, &mut bus, cause);
        let fetched: Vec<u8> = fresh.peek(before.rip, 15).to_vec();
        let instruction = Decoder::with_ip(mode.bits(), &fetched, before.rip, DecoderOptions::NONE).decode();
        let mnemonic = instruction.mnemonic();
        *reached.entry((format!("{mnemonic:?}"), kind(&outcome))).or_default() += 1;
        let place = || format!("round {round}, {mode:?}, {mnemonic:?} {fetched:02x?}: {outcome:x?}");
        match outcome {
            Outcome::Done { .. } => {
                assert_eq!(cpu.rflags & RF, 0, "{}", place());
                let unknown = !(FLAGS & !(1 << 10) | RF);
                assert_eq!((cpu.rflags ^ before.rflags) & unknown, 0, "{}", place());
                check_refusals(&mut emulator, &before, &fresh, &bus, cause, is_string(mnemonic), &place());
            }
            Outcome::Continue { .. } => {
                assert!(is_string(mnemonic), "{}", place());
                assert_eq!(cpu.rip, before.rip, "{}", place());
            }
            _ if is_string(mnemonic) => {
                assert_eq!((cpu.rip, cpu.rflags), (before.rip, before.rflags), "{}", place())
            }
            Outcome::Refused { .. } => assert_eq!(cpu, before, "{}", place()),
            _ => {
                assert_eq!(cpu, before, "{}", place());
                assert!(without_used_bits(&bus) == memory_before, "memory has changed: {}", place());
                let seen = |access: &Access| matches!(access, Access::Write(..) | Access::Out(..));
                assert!(!bus.log.iter().any(seen), "a device was written: {}", place());
            }
        }
    }
    for ((mnemonic, kind), count) in &reached {
        println!("{mnemonic:14} {kind:12} {count}");
    }
    println!("{} kinds of instruction and outcome; {:?}", reached.len(), emulator.counters());
    assert!(reached.len() > 200, "too little was reached: {}", reached.len());
}

/// Does the same again with each of the bus's calls refused in turn.
fn check_refusals(
    emulator: &mut Emulator,
    before: &Registers,
    fresh: &TestBus,
    after: &TestBus,
    cause: Cause,
    string: bool,
    place: &str,
) {
    if string || after.calls > 60 {
        return;
    }
    for call in 1..=after.calls {
        let (mut cpu, mut bus) = (before.clone(), TestBus { refuse: Some(call), ..fresh.clone() });
        let outcome = emulator.step(&mut cpu, &mut bus, cause);
        assert!(matches!(outcome, Outcome::Refused { .. }), "call {call}: {outcome:x?}, {place}");
        assert_eq!(&cpu, before, "call {call}, {place}");
        if bus.memory == fresh.memory {
            continue;
        }
        // What was written before is a part of what the whole instruction writes.
        for (at, (now, old)) in bus.memory[0].1.iter().zip(&fresh.memory[0].1).enumerate() {
            assert!(
                now == old || *now == after.memory[0].1[at] || *now & !0x60 == *old & !0x60,
                "{at:#x}, {place}"
            );
        }
    }
}
