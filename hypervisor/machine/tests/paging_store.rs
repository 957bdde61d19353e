//! The instructions that write to paging structures, done quickly, against the general emulator: same memory, same registers, same
//! flags, same length.

mod emulate_model;

use emulate_model::{Random, Registers, TestBus};
use machine::emulate::{Cause, Cpu, Emulator, Outcome, warm_up};
use machine::paging::store::{self, decode};

const ROUNDS: u64 = 60_000;
const CODE: u64 = 0x1000;
const DATA: u64 = 0x4000;
const RDI: usize = 7;

struct Quick<'a>(&'a mut Registers);

impl store::Registers for Quick<'_> {
    fn get(&self, number: u8) -> u64 {
        self.0.gpr(number.into())
    }
    fn set(&mut self, number: u8, value: u64) {
        self.0.set_gpr(number.into(), value);
    }
    fn flags(&self) -> u64 {
        self.0.rflags
    }
    fn set_flags(&mut self, flags: u64) {
        self.0.rflags = flags;
    }
}

/// An instruction with a memory operand whose address is in RDI, not necessarily one that exists.
fn instruction(random: &mut Random, long: bool) -> Vec<u8> {
    let mut code = Vec::new();
    if random.chance(25) {
        code.push(random.of(&[0x66, 0xf0, 0x3e, 0xf2, 0xf3, 0x67]));
    }
    if long && random.chance(60) {
        code.push(random.of(&[0x48, 0x40, 0x44, 0x4c]));
    }
    let wide = [0xab, 0xb3, 0xbb, 0xba, 0xb0, 0xb1, 0xc0, 0xc1, 0xc3, 0xc7, 0xa3];
    let opcode = if random.chance(45) {
        code.push(0x0f);
        random.of(&wide)
    } else if random.chance(50) {
        random.of(&[0x80, 0x81, 0x83, 0x86, 0x87, 0x88, 0x89, 0xc6, 0xc7])
    } else {
        (8 * random.below(7) + random.below(4)) as u8
    };
    code.push(opcode);
    let field = random.below(8) as u8 * 8;
    match random.below(4) {
        // Without displacement, with one of a byte, with one of four, with a SIB byte that has no index.
        0 => code.push(field | 7),
        1 => code.extend([0x40 | field | 7, 0]),
        2 => code.extend([0x80 | field | 7, 0, 0, 0, 0]),
        _ => code.extend([field | 4, 0x27]),
    }
    code.extend((0..4).map(|_| random.next() as u8));
    code
}

#[test]
fn quick_and_general_emulation_agree() {
    warm_up();
    let mut random = Random(7);
    let (mut done, mut kinds) = (0, std::collections::BTreeSet::new());
    for _ in 0..ROUNDS {
        let long = random.chance(70);
        let bytes = instruction(&mut random, long);
        let Some(store) = decode(&bytes, long) else { continue };
        // RDI would choose another word.
        if matches!(store.kind, store::Kind::Bit(_)) && store.source == store::Source::Register(RDI as u8) {
            continue;
        }
        let mut general = if long { Registers::long(0) } else { Registers::protected(0) };
        for number in 0..if long { 16 } else { 8 } {
            general.gpr[number] = random.next() & if long { u64::MAX } else { 0xffff_ffff };
        }
        let value = random.next();
        match store.kind {
            // The bit is in the word that RDI points to: elsewhere the processor would give another address.
            store::Kind::Bit(_) => general.gpr.iter_mut().for_each(|r| *r &= 8 * u64::from(store.size) - 1),
            // Equal every other time.
            _ if random.chance(50) => (general.gpr[0], general.gpr[2]) = (value & 0xffff_ffff, value >> 32),
            _ => {}
        }
        if random.chance(30) && !matches!(store.kind, store::Kind::Bit(_)) {
            general.gpr[0] = value;
        }
        if !long {
            general.gpr[0] &= 0xffff_ffff;
        }
        general.gpr[RDI] = DATA;
        general.rip = CODE;
        general.rflags = 2 | random.next() & emulate_model::FLAGS & !0x400;
        let mut quick = general.clone();
        let mut bus = TestBus::default();
        bus.memory.push((0, vec![0; 0x1_0000]));
        bus.poke(CODE, &bytes);
        bus.poke(DATA, &value.to_le_bytes());
        let outcome = Emulator::new().step(&mut general, &mut bus, Cause::Memory);
        assert_eq!(outcome, Outcome::Done { single_step: false }, "{bytes:02x?} long={long}");

        let mask = u64::MAX >> (64 - 8 * u32::from(store.size));
        let new = store.execute(value & mask, &mut Quick(&mut quick));
        assert_eq!(new & !mask, 0, "{bytes:02x?}");
        quick.rip += u64::from(store.length);
        let expected = bus.peek_u64(DATA);
        assert_eq!(value & !mask | new, expected, "{bytes:02x?} {store:?} on {value:#x}");
        assert_eq!(quick, general, "{bytes:02x?} {store:?} on {value:#x}");
        done += 1;
        kinds.insert(format!("{:?}", store.kind));
    }
    assert!(done > ROUNDS / 4 && kinds.len() >= 7 + 3 + 5, "{done} of {ROUNDS}, {kinds:?}");
}

#[test]
fn what_is_not_known_is_left_alone() {
    for bytes in [
        &[0xf3, 0x48, 0xab][..],      // REP STOSQ
        &[0x48, 0x89, 0xc3],          // to a register
        &[0x48, 0x39, 0x07],          // CMP writes nothing
        &[0xf0, 0x48, 0x89, 0x07],    // LOCK MOV faults
        &[0x48, 0x89],                // cut off
        &[0x48, 0xc7, 0x07, 0, 0, 0], // likewise
        &[0x0f, 0xa3, 0x07],          // BT
        &[0x0f, 0xba, 0x27, 1],       // BT
        &[0x48, 0x0f, 0xc7, 0x0f],    // CMPXCHG16B
        &[0x66, 0x0f, 0xc3, 0x07],    // no MOVNTI
        &[0x67, 0x48, 0x89, 0x07],    // other addresses
        &[],
    ] {
        assert_eq!(decode(bytes, true), None, "{bytes:02x?}");
    }
}
