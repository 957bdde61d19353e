//! The emulator against the processor that the tests run on: random instructions from random registers, flags and memory,
//! in 64-bit and 32-bit mode, each executed by both. What the SDM leaves undefined is not compared.
//!
//! `EMULATE_CASES` and `EMULATE_SEED` make it longer or different. Elsewhere than on Linux on x86-64 there is nothing to
//! compare with, and the tests are not built.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod emulate_model;
mod emulate_native_program;

use emulate_model::{AC, FLAGS, Random, Registers, TestBus};
use emulate_native_program::{ARENA, Case, Native, PAGE, is_own, place, run};
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind};
use machine::emulate::{Cause, Emulator, Outcome};
use std::collections::BTreeMap;

const CASES: usize = 6000;
const BATCH: usize = 1500;
/// Where the model's page tables are.
const TABLES: u64 = 0x10_0000;

const CF: u64 = 1 << 0;
const PF: u64 = 1 << 2;
const AF: u64 = 1 << 4;
const ZF: u64 = 1 << 6;
const SF: u64 = 1 << 7;
const OF: u64 = 1 << 11;

/// What follows the ModR/M byte and its address.
#[derive(Clone, Copy, PartialEq)]
enum Immediate {
    None,
    Byte,
    /// 2 or 4 bytes by operand size.
    Full,
}

/// Opcodes with a ModR/M byte: bytes, the values of its reg field (a bit mask), immediate.
const MODRM: &[(&[u8], u8, Immediate)] = {
    use Immediate::{Byte, Full, None};
    &[
        (&[0x00], 0xff, None),
        (&[0x01], 0xff, None),
        (&[0x02], 0xff, None),
        (&[0x03], 0xff, None),
        (&[0x08], 0xff, None),
        (&[0x09], 0xff, None),
        (&[0x0b], 0xff, None),
        (&[0x10], 0xff, None),
        (&[0x11], 0xff, None),
        (&[0x13], 0xff, None),
        (&[0x18], 0xff, None),
        (&[0x19], 0xff, None),
        (&[0x1b], 0xff, None),
        (&[0x20], 0xff, None),
        (&[0x21], 0xff, None),
        (&[0x23], 0xff, None),
        (&[0x28], 0xff, None),
        (&[0x29], 0xff, None),
        (&[0x2b], 0xff, None),
        (&[0x30], 0xff, None),
        (&[0x31], 0xff, None),
        (&[0x33], 0xff, None),
        (&[0x38], 0xff, None),
        (&[0x39], 0xff, None),
        (&[0x3b], 0xff, None),
        (&[0x80], 0xff, Byte),
        (&[0x81], 0xff, Full),
        (&[0x83], 0xff, Byte),
        (&[0x84], 0xff, None),
        (&[0x85], 0xff, None),
        (&[0x86], 0xff, None),
        (&[0x87], 0xff, None),
        (&[0x88], 0xff, None),
        (&[0x89], 0xff, None),
        (&[0x8a], 0xff, None),
        (&[0x8b], 0xff, None),
        (&[0x8f], 0x01, None),
        (&[0xc0], 0xff, Byte),
        (&[0xc1], 0xff, Byte),
        (&[0xd0], 0xff, None),
        (&[0xd1], 0xff, None),
        (&[0xd2], 0xff, None),
        (&[0xd3], 0xff, None),
        (&[0xc6], 0x01, Byte),
        (&[0xc7], 0x01, Full),
        (&[0xf6], 0x03, Byte),
        (&[0xf6], 0xfc, None),
        (&[0xf7], 0x03, Full),
        (&[0xf7], 0xfc, None),
        (&[0xfe], 0x03, None),
        (&[0xff], 0x43, None),
        (&[0x69], 0xff, Full),
        (&[0x6b], 0xff, Byte),
        (&[0x0f, 0xa3], 0xff, None),
        (&[0x0f, 0xab], 0xff, None),
        (&[0x0f, 0xb3], 0xff, None),
        (&[0x0f, 0xbb], 0xff, None),
        (&[0x0f, 0xba], 0xf0, Byte),
        (&[0x0f, 0xa4], 0xff, Byte),
        (&[0x0f, 0xa5], 0xff, None),
        (&[0x0f, 0xac], 0xff, Byte),
        (&[0x0f, 0xad], 0xff, None),
        (&[0x0f, 0xaf], 0xff, None),
        (&[0x0f, 0xb0], 0xff, None),
        (&[0x0f, 0xb1], 0xff, None),
        (&[0x0f, 0xb6], 0xff, None),
        (&[0x0f, 0xb7], 0xff, None),
        (&[0x0f, 0xb8], 0xff, None),
        (&[0x0f, 0xbc], 0xff, None),
        (&[0x0f, 0xbd], 0xff, None),
        (&[0x0f, 0xbe], 0xff, None),
        (&[0x0f, 0xbf], 0xff, None),
        (&[0x0f, 0xc0], 0xff, None),
        (&[0x0f, 0xc1], 0xff, None),
        (&[0x0f, 0xc3], 0xff, None),
        (&[0x0f, 0xc7], 0x02, None),
        (&[0x0f, 0x38, 0xf0], 0xff, None),
        (&[0x0f, 0x38, 0xf1], 0xff, None),
    ]
};

/// String instructions and others without a ModR/M byte.
const PLAIN: &[u8] =
    &[0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf, 0xd7, 0x50, 0x55, 0x5b, 0x5c, 0xc9];

fn interesting(random: &mut Random) -> u64 {
    let edges = [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
    match random.below(10) {
        0..=4 => ARENA + 0x100 + random.below(0xe00),
        5 => random.below(64).wrapping_sub(32),
        6 => random.of(&edges) | random.of(&edges) << 32,
        7 => random.below(256),
        _ => random.next(),
    }
}

/// Prefixes, REX and opcode go to `bytes`; says whether there is REX.W.
fn prefixes(random: &mut Random, bytes: &mut Vec<u8>, compatibility: bool, string: bool) -> bool {
    if random.chance(30) {
        bytes.push(0x66);
    }
    if random.chance(if compatibility { 1 } else { 8 }) {
        bytes.push(0x67);
    }
    if random.chance(5) {
        bytes.push(random.of(&[0x26, 0x2e, 0x36, 0x3e]));
    }
    if random.chance(if string { 70 } else { 8 }) {
        bytes.push(random.of(&[0xf2, 0xf3]));
    }
    if !string && random.chance(12) {
        bytes.push(0xf0);
    }
    if compatibility || random.chance(50) {
        return false;
    }
    let rex = random.of(&[0x48, 0x40, 0x48, 0x4c, 0x41, 0x49, 0x4f, 0x4a, 0x44]);
    bytes.push(rex);
    rex & 8 != 0
}

fn modrm(random: &mut Random, bytes: &mut Vec<u8>, fields: u8, compatibility: bool) -> Option<u64> {
    let reg = loop {
        let reg = random.below(8) as u8;
        if fields >> reg & 1 != 0 {
            break reg;
        }
    };
    let mode = random.of(&[0, 0, 1, 1, 2, 3]);
    let rm = random.below(8) as u8;
    bytes.push((mode as u8) << 6 | reg << 3 | rm);
    let sixteen = compatibility && bytes.contains(&0x67);
    if mode == 3 || sixteen {
        bytes.extend_from_slice(&[0x10, 0x20, 0x30, 0x40][..if mode == 3 { 0 } else { 2 }]);
        return None;
    }
    let mut base = rm;
    if rm == 4 {
        base = random.below(8) as u8;
        bytes.push((random.below(4) as u8) << 6 | (random.below(8) as u8) << 3 | base);
    }
    match (mode, base) {
        (0, 5) => {
            let place = ARENA + random.below(PAGE as u64 + 8);
            let relative = rm == 5 && !compatibility;
            bytes.extend_from_slice(&(place as u32).to_le_bytes());
            return relative.then_some(place);
        }
        (1, _) => bytes.push(random.next() as u8),
        (2, _) => bytes.extend_from_slice(&(random.below(512) as u32).wrapping_sub(256).to_le_bytes()),
        _ => {}
    }
    None
}

fn make(random: &mut Random) -> Case {
    let compatibility = random.chance(30);
    let mut gpr = [0; 16];
    for value in &mut gpr {
        *value = interesting(random);
    }
    gpr[4] = ARENA + 0x400 + random.below(0x400);
    if random.chance(90) {
        gpr[4] &= !7;
    }
    let mut flags = 0x202 | random.next() & FLAGS;
    if random.chance(5) {
        flags |= AC;
    }
    let mut bytes = Vec::new();
    let mut relative = None;
    if random.chance(20) {
        let opcode = random.of(PLAIN);
        let string = matches!(opcode, 0xa4..=0xaf);
        prefixes(random, &mut bytes, compatibility, string);
        bytes.push(opcode);
        if string {
            let most = if random.chance(10) { 0x1_0000 } else { 40 };
            gpr[1] = gpr[1] & !0xffff_ffff | random.below(most);
            gpr[6] = ARENA + random.below(PAGE as u64);
            gpr[7] = ARENA + random.below(PAGE as u64);
        } else if opcode == 0xc9 {
            gpr[5] = ARENA + random.below(PAGE as u64);
        } else if opcode == 0xd7 {
            gpr[3] = ARENA + random.below(PAGE as u64);
        }
    } else {
        let (opcode, fields, immediate) = random.of(MODRM);
        let wide = prefixes(random, &mut bytes, compatibility, false);
        let narrow = bytes.contains(&0x66) && !wide;
        bytes.extend_from_slice(opcode);
        let target = modrm(random, &mut bytes, fields, compatibility);
        let before = bytes.len();
        match immediate {
            Immediate::None => {}
            Immediate::Byte => bytes.push(random.next() as u8),
            Immediate::Full if narrow => bytes.extend_from_slice(&(random.next() as u16).to_le_bytes()),
            Immediate::Full => bytes.extend_from_slice(&(interesting(random) as u32).to_le_bytes()),
        }
        relative = target.map(|target| (target, bytes.len() - before));
    }
    if random.chance(8) && !bytes.contains(&0xf0) {
        // SETcc and CMOVcc, whose sixteen forms are one opcode each.
        let condition = random.below(16) as u8;
        let set = random.chance(50);
        bytes.clear();
        bytes.extend_from_slice(&[0x0f, if set { 0x90 } else { 0x40 } | condition]);
        relative = modrm(random, &mut bytes, 0xff, compatibility).map(|target| (target, 0));
    }
    if compatibility {
        for value in &mut gpr {
            *value &= 0xffff_ffff;
        }
        gpr[8..].fill(0);
    }
    Case { compatibility, gpr, flags, bytes, relative, address: 0 }
}

fn decode(case: &Case) -> Instruction {
    let bits = if case.compatibility { 32 } else { 64 };
    let options = DecoderOptions::NO_INVALID_CHECK;
    Decoder::with_ip(bits, &case.bytes, case.address, options).decode()
}

/// Whether it is one instruction, and one that the emulator knows.
fn comparable(case: &Case) -> bool {
    let i = decode(case);
    let known = match i.mnemonic() {
        Mnemonic::INVALID | Mnemonic::Crc32 | Mnemonic::Nop => false,
        // Makers do not agree on the upper half of a register that is compared and not exchanged.
        Mnemonic::Cmpxchg => i.op0_kind() != OpKind::Register,
        _ => true,
    };
    known && i.len() == case.bytes.len()
}

/// The flags that the SDM leaves undefined, for a case that was executed.
fn undefined_flags(case: &Case, i: &Instruction) -> u64 {
    use Mnemonic as M;
    let size = match i.op0_kind() {
        OpKind::Register => register_bits(i.op0_register()),
        _ => memory_bits(i),
    };
    let count = || {
        let last = i.op_count() - 1;
        let count = match i.op_kind(last) {
            OpKind::Register => case.gpr[1],
            _ => i.immediate(last),
        };
        count & if size == 64 { 63 } else { 31 }
    };
    let unless_one = || if count() == 1 { 0 } else { OF };
    match i.mnemonic() {
        M::And | M::Or | M::Xor | M::Test => AF,
        M::Mul | M::Imul => SF | ZF | AF | PF,
        M::Div | M::Idiv => CF | PF | AF | ZF | SF | OF,
        M::Bt | M::Bts | M::Btr | M::Btc => OF | SF | AF | PF,
        M::Bsf | M::Bsr => CF | PF | AF | SF | OF,
        M::Tzcnt | M::Lzcnt => OF | SF | AF | PF,
        M::Shl | M::Sal | M::Shr | M::Sar | M::Shld | M::Shrd if count() == 0 => 0,
        M::Shl | M::Sal | M::Shr => unless_one() | AF | if count() >= size { CF } else { 0 },
        M::Sar | M::Shld | M::Shrd => unless_one() | AF,
        M::Rol | M::Ror | M::Rcl | M::Rcr if count() == 0 => 0,
        M::Rol | M::Ror | M::Rcl | M::Rcr => unless_one(),
        _ => 0,
    }
}

fn register_bits(register: iced_x86::Register) -> u64 {
    use iced_x86::Register as R;
    match register {
        r if r <= R::R15L => 8,
        r if r <= R::R15W => 16,
        r if r <= R::R15D => 32,
        _ => 64,
    }
}

fn memory_bits(i: &Instruction) -> u64 {
    use iced_x86::MemorySize as S;
    match i.memory_size() {
        S::UInt8 | S::Int8 => 8,
        S::UInt16 | S::Int16 => 16,
        S::UInt32 | S::Int32 => 32,
        _ => 64,
    }
}

/// The result is undefined: shifts of 16 bits by more than 16 in SHLD and SHRD.
fn undefined_result(case: &Case, i: &Instruction) -> bool {
    let count = match i.op2_kind() {
        OpKind::Register => case.gpr[1],
        _ => u64::from(i.immediate8()),
    };
    let narrow = case.bytes.contains(&0x66) && (i.op1_register() as u32) < iced_x86::Register::EAX as u32;
    matches!(i.mnemonic(), Mnemonic::Shld | Mnemonic::Shrd) && narrow && count & 31 > 16
}

/// Page tables that map the code's two pages and the arena one to one, for user mode.
fn page_tables(code: u64) -> Vec<u8> {
    const USER: u64 = 7;
    // Protection key 1 is for code: data accesses of it fault, and such cases are left out.
    const CODE_KEY: u64 = 1 << 59;
    let mut tables = vec![0; 6 * PAGE];
    let mut set = |table: u64, index: u64, entry: u64| {
        let at = (table + index * 8) as usize;
        tables[at..at + 8].copy_from_slice(&entry.to_le_bytes());
    };
    let page = PAGE as u64;
    set(0, 0, (TABLES + page) | USER);
    set(page, 0, (TABLES + 2 * page) | USER);
    set(2 * page, ARENA >> 21, (TABLES + 3 * page) | USER);
    set(3 * page, ARENA >> 12 & 511, ARENA | USER);
    // The code may lie on both sides of a 2-MByte boundary.
    for (n, address) in [code, code + page].into_iter().enumerate() {
        let table = (4 + n as u64) * page;
        set(2 * page, address >> 21, (TABLES + table) | USER);
        for address in [code, code + page] {
            set(table, address >> 12 & 511, address | USER | CODE_KEY);
        }
    }
    tables
}

fn emulate(emulator: &mut Emulator, case: &Case, pattern: &[u8]) -> (Outcome, Registers, TestBus) {
    let mut cpu = if case.compatibility { Registers::protected(3) } else { Registers::long(3) };
    cpu.cr0 |= emulate_model::CR0_AM | emulate_model::CR0_PG;
    cpu.efer |= emulate_model::EFER_LMA | emulate_model::EFER_NXE;
    cpu.cr4 |= emulate_model::CR4_PAE | emulate_model::CR4_PKE;
    cpu.pkru = 1 << 2;
    cpu.cr3 = TABLES;
    (cpu.gpr, cpu.rflags, cpu.rip) = (case.gpr, case.flags, case.address);
    let page = case.address & !0xfff;
    let mut code = vec![0x90; 2 * PAGE];
    let at = (case.address - page) as usize;
    code[at..at + case.bytes.len()].copy_from_slice(&case.bytes);
    let memory = vec![(page, code), (ARENA, pattern.to_vec()), (TABLES, page_tables(page))];
    let mut bus = TestBus { memory, ..TestBus::default() };
    let mut outcome = emulator.step(&mut cpu, &mut bus, Cause::Memory);
    for _ in 0..0x2000 {
        if !matches!(outcome, Outcome::Continue { .. }) {
            break;
        }
        outcome = emulator.step(&mut cpu, &mut bus, Cause::Memory);
    }
    (outcome, cpu, bus)
}

/// What differs; empty if nothing does.
fn compare(case: &Case, native: &Native, outcome: &Outcome, cpu: &Registers, bus: &TestBus) -> String {
    use std::fmt::Write;
    let i = decode(case);
    let mut said = String::new();
    let raised = match outcome {
        Outcome::Done { .. } => None,
        Outcome::Fault(exception) => {
            // Linux tells programs that its own half of the address space is all present.
            let hidden = u64::from(exception.cr2.is_some_and(|address| address >> 63 != 0));
            let error = u64::from(exception.error.unwrap_or(0)) | hidden;
            Some((u64::from(exception.vector), error, exception.cr2))
        }
        other => return format!("{other:x?}"),
    };
    let trap = native.trap.map(|(vector, error, cr2)| (vector, error, (vector == 14).then_some(cr2)));
    // Which of the two operands of CMPS is found to fault first is the processor's choice.
    let compares =
        matches!(i.mnemonic(), Mnemonic::Cmpsb | Mnemonic::Cmpsw | Mnemonic::Cmpsd | Mnemonic::Cmpsq);
    let same = if compares { raised.is_some() == trap.is_some() } else { raised == trap };
    if !same {
        let _ = write!(said, " raised {raised:x?}, processor {:x?}", native.trap);
    }
    let used = if case.compatibility { 0xffff_ffff } else { u64::MAX };
    for n in 0..if case.compatibility { 8 } else { 16 } {
        if (cpu.gpr[n] ^ native.gpr[n]) & used != 0 {
            let _ = write!(said, " gpr{n} {:#x}, processor {:#x}", cpu.gpr[n], native.gpr[n]);
        }
    }
    let ignored = match raised {
        None => undefined_flags(case, &i),
        // Intel restores the flags when a repeated comparison faults, others do not (SDM vol. 2B, "REP").
        Some(_) if i.has_repe_prefix() || i.has_repne_prefix() => FLAGS,
        Some(_) => 0,
    };
    if (cpu.rflags ^ native.flags) & FLAGS & !ignored != 0 {
        let _ = write!(said, " flags {:#x}, processor {:#x}", cpu.rflags & FLAGS, native.flags & FLAGS);
    }
    let arena = &bus.memory[1].1;
    if let Some(at) = (0..PAGE).find(|at| arena[*at] != native.arena[*at]) {
        let _ = write!(said, " memory +{at:#x} {:#x}, processor {:#x}", arena[at], native.arena[at]);
    }
    said
}

fn pattern(random: &mut Random) -> Vec<u8> {
    let mut page = Vec::with_capacity(PAGE);
    while page.len() < PAGE {
        match random.below(4) {
            // Runs for REPE and REPNE.
            0 => page.resize(page.len() + 1 + random.below(40) as usize, random.of(&[0, 0xff, 0x55])),
            _ => page.extend_from_slice(&random.next().to_le_bytes()),
        }
    }
    page.truncate(PAGE);
    page
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn the_emulator_does_what_the_processor_does() {
    let seed = number("EMULATE_SEED", 1);
    let total = number("EMULATE_CASES", CASES as u64) as usize;
    let mut random = Random(seed);
    let mut emulator = Emulator::new();
    let mut reached: BTreeMap<String, [usize; 3]> = BTreeMap::new();
    let (mut compared, mut different) = (0, Vec::new());
    while compared < total {
        let pattern = pattern(&mut random);
        let mut cases: Vec<Case> = Vec::new();
        while cases.len() < BATCH.min(total) {
            let case = make(&mut random);
            if comparable(&case) && !undefined_result(&case, &decode(&case)) {
                cases.push(case);
            }
        }
        // What would hit the program's own memory is left out.
        place(&mut cases);
        let count = cases.len();
        cases.retain(|case| match emulate(&mut emulator, case, &pattern).0 {
            Outcome::Fault(exception) => !exception.cr2.is_some_and(|address| is_own(address, count)),
            _ => true,
        });
        let results = run(&mut cases, &pattern).expect("the program runs");
        for (case, native) in cases.iter().zip(&results) {
            compared += 1;
            let (outcome, cpu, bus) = emulate(&mut emulator, case, &pattern);
            let difference = compare(case, native, &outcome, &cpu, &bus);
            let i = decode(case);
            let kind = match outcome {
                Outcome::Done { .. } => 0,
                Outcome::Fault(exception) if exception.vector == 14 => 2,
                _ => 1,
            };
            reached.entry(format!("{:?}", i.mnemonic())).or_default()[kind] += 1;
            if !difference.is_empty() {
                let mode = if case.compatibility { 32 } else { 64 };
                let line = format!("{:?} {mode} {:02x?}:{difference}", i.code(), case.bytes);
                different.push(format!("{line}\n   from {:x?}", (case.gpr, case.flags)));
            }
        }
    }
    for (mnemonic, [done, faults, pages]) in &reached {
        println!("{mnemonic:12} {done:6} executed {faults:5} exceptions {pages:5} page faults");
    }
    println!("{compared} compared, {} differ", different.len());
    let shown: Vec<_> = different.iter().take(25).map(String::as_str).collect();
    assert!(
        different.is_empty(),
        "{} of {compared} differ (seed {seed}):\n{}",
        different.len(),
        shown.join("\n")
    );
}
