//! The repeated string instruction at CS:RIP, against the decoder of all instructions, and through page tables.

mod emulate_model;

use emulate_model::*;
use iced_x86::{Decoder, DecoderOptions, OpKind};
use machine::emulate::repeated::{Repeated, Until};
use machine::emulate::{Seg, gpr};
use proptest::prelude::*;

const CODE: u64 = 0x1000;

fn with(cpu: &Registers, code: &[u8]) -> Option<Repeated> {
    let mut bus = TestBus { memory: vec![(0, vec![0x90; 0x8000])], ..TestBus::default() };
    bus.poke(cpu.rip + cpu.segments[Seg::Cs as usize].base, code);
    let before = bus.memory.clone();
    let found = Repeated::at(cpu, &mut bus);
    assert_eq!((bus.memory, bus.writes), (before, 0), "nothing is written");
    found
}

fn at(mut cpu: Registers, code: &[u8]) -> Option<Repeated> {
    cpu.rip = CODE;
    with(&cpu, code)
}

fn found(length: u64, address_bytes: u8, until: Until) -> Option<Repeated> {
    Some(Repeated { behind: CODE + length, linear_behind: CODE + length, address_bytes, until })
}

#[test]
fn by_mode() {
    use Until::*;
    assert_eq!(at(Registers::long(0), &[0xf3, 0xaa]), found(2, 8, Counted));
    assert_eq!(at(Registers::long(3), &[0xf3, 0x48, 0xa5]), found(3, 8, Counted));
    assert_eq!(at(Registers::long(0), &[0x67, 0xf3, 0xa4]), found(3, 4, Counted));
    assert_eq!(at(Registers::long(0), &[0xf3, 0xa6]), found(2, 8, Unequal));
    assert_eq!(at(Registers::long(0), &[0xf2, 0xae]), found(2, 8, Equal));
    assert_eq!(at(Registers::long(0), &[0xf2, 0xaa]), found(2, 8, Counted));
    assert_eq!(at(Registers::protected(0), &[0xf3, 0xab]), found(2, 4, Counted));
    assert_eq!(at(Registers::protected(0), &[0x67, 0xf3, 0xab]), found(3, 2, Counted));
    assert_eq!(at(Registers::real(), &[0xf3, 0xab]), found(2, 2, Counted));
    assert_eq!(at(Registers::real(), &[0xf3, 0x66, 0x67, 0xab]), found(4, 4, Counted));
    // Not repeated; ports; REX where there is none; LOCK; another instruction; more prefixes than an instruction has bytes.
    let others: [&[u8]; 6] =
        [&[0xaa], &[0xf3, 0x6e], &[0xf3, 0xf0, 0xaa], &[0xf3, 0x90], &[0x66; 15], &[0xf3, 0x0f]];
    for code in others {
        assert_eq!(at(Registers::long(0), code), None, "{code:x?}");
    }
    assert_eq!(at(Registers::protected(0), &[0xf3, 0x48, 0xaa]), None);
}

#[test]
fn segments_and_what_ends_it() {
    let mut cpu = Registers::real();
    cpu.rip = 0x20;
    cpu.segment_mut(Seg::Cs).base = 0x4000;
    let found = with(&cpu, &[0xf3, 0xa6]).unwrap();
    assert_eq!((found.behind, found.linear_behind), (0x22, 0x4022));
    assert!(!found.ended_by(1 << 6) && found.ended_by(0));
    cpu.gpr[gpr::RCX] = 0x10000;
    assert!(!found.goes_on(&cpu));
    cpu.gpr[gpr::RCX] = 0x10001;
    assert!(found.goes_on(&cpu));
    assert!(with(&cpu, &[0xf2, 0xa6]).unwrap().ended_by(1 << 6));
    assert!(!with(&cpu, &[0xf2, 0xa4]).unwrap().ended_by(1 << 6));
}

/// Its bytes lie in two pages that lie elsewhere; no accessed bit is set, and a page that is not there is no panic.
#[test]
fn through_page_tables() {
    let mut cpu = Registers { cr0: CR0_PE | CR0_PG, cr3: 0, cr4: CR4_PAE, ..Registers::long(0) };
    cpu.rip = 0xfff;
    let mut bus = TestBus { memory: vec![(0, vec![0; 0x8000])], ..TestBus::default() };
    for (entry, value) in
        [(0, 0x1003), (0x1000, 0x2003), (0x2000, 0x3003), (0x3000, 0x6003_u64), (0x3008, 0x5003)]
    {
        bus.poke(entry, &value.to_le_bytes());
    }
    bus.poke(0x6fff, &[0xf3]);
    bus.poke(0x5000, &[0x48, 0xab]);
    let found = Repeated::at(&cpu, &mut bus).unwrap();
    assert_eq!((found.behind, bus.writes, bus.peek_u64(0x3000)), (0x1002, 0, 0x6003));
    bus.poke(0x3008, &[0; 8]);
    assert_eq!(Repeated::at(&cpu, &mut bus), None);
    bus.poke(0x3008, &0xffff_f003_u64.to_le_bytes());
    assert_eq!(Repeated::at(&cpu, &mut bus), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]
    #[test]
    fn as_the_decoder_has_it(
        mode in 0..3_usize,
        mut code in prop::collection::vec(prop_oneof![
            Just(0xf2_u8), Just(0xf3), Just(0x66), Just(0x67), Just(0x48), Just(0x41), Just(0x2e), Just(0x65),
        ], 0..6),
        opcode in prop_oneof![3 => 0xa4_u8..=0xaf, 1 => any::<u8>()],
    ) {
        code.push(opcode);
        code.extend([0x90; 16]);
        let cpu = [Registers::real(), Registers::protected(0), Registers::long(0)][mode].clone();
        let mine = at(cpu, &code);
        let instruction = Decoder::with_ip(16 << mode, &code, CODE, DecoderOptions::NONE).decode();
        let width = instruction.op_kinds().find_map(|kind| match kind {
            OpKind::MemorySegSI | OpKind::MemoryESDI => Some(2),
            OpKind::MemorySegESI | OpKind::MemoryESEDI => Some(4),
            OpKind::MemorySegRSI | OpKind::MemoryESRDI => Some(8),
            _ => None,
        });
        let repeats = width.is_some()
            && (instruction.has_rep_prefix() || instruction.has_repne_prefix())
            && !matches!(opcode, 0x6c..=0x6f);
        prop_assert_eq!(mine.is_some(), repeats, "{:x?} {:?}", code, instruction);
        if let Some(mine) = mine {
            prop_assert_eq!(mine.behind, CODE + instruction.len() as u64);
            prop_assert_eq!(Some(mine.address_bytes), width);
            let until = match opcode {
                0xa6 | 0xa7 | 0xae | 0xaf if instruction.has_repne_prefix() => Until::Equal,
                0xa6 | 0xa7 | 0xae | 0xaf => Until::Unequal,
                _ => Until::Counted,
            };
            prop_assert_eq!(mine.until, until);
        }
    }
}
