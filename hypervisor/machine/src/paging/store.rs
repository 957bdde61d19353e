//! Instructions that write to paging structures, decoded and done without the general emulator: what operating systems use for
//! that, in 64-bit and 32-bit code.
//!
//! The processor has checked the access and says where it is, so no operand's address is computed here. Whatever this file does not
//! know, or finds unusual, it leaves to the general emulator ([`decode`] returns None).

use crate::emulate::alu;

/// What is done with the memory operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// MOV, MOVNTI.
    Move,
    /// XCHG.
    Exchange,
    /// ADD, OR, ADC, SBB, AND, SUB, XOR: by the number of the opcode's group.
    Arithmetic(u8),
    /// BTS (5), BTR (6), BTC (7).
    Bit(u8),
    /// CMPXCHG.
    CompareExchange,
    /// XADD.
    ExchangeAdd,
    /// CMPXCHG8B.
    CompareExchange8,
}

/// The other operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A general register.
    Register(u8),
    /// A number in the instruction, sign-extended.
    Immediate(u64),
}

/// An instruction with a memory operand that it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Store {
    /// What it does.
    pub kind: Kind,
    /// The other operand.
    pub source: Source,
    /// Bytes of the memory operand: 1, 2, 4 or 8.
    pub size: u8,
    /// Bytes of the instruction.
    pub length: u8,
    /// It has a REX prefix: registers 4 to 7 of one byte are SPL to DIL.
    rex: bool,
}

/// What the instruction needs of the processor.
pub trait Registers {
    /// A general register.
    fn get(&self, number: u8) -> u64;
    /// Sets a general register.
    fn set(&mut self, number: u8, value: u64);
    /// RFLAGS.
    fn flags(&self) -> u64;
    /// Sets RFLAGS; only status flags differ.
    fn set_flags(&mut self, flags: u64);
}

/// Reads an instruction's bytes one after the other.
struct Bytes<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bytes<'_> {
    #[inline]
    fn next(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// A little-endian number of so many bytes, sign-extended.
    #[inline]
    fn signed(&mut self, bytes: usize) -> Option<u64> {
        let slice = self.bytes.get(self.at..self.at + bytes)?;
        self.at += bytes;
        let value = slice.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        Some(alu::signed(value, bytes as u8) as u64)
    }

    /// Passes a ModRM byte with a memory operand, and what belongs to it. Returns the middle field. None: a register operand.
    #[inline]
    fn memory(&mut self) -> Option<u8> {
        let modrm = self.next()?;
        let (mode, base) = (modrm >> 6, modrm & 7);
        if mode == 3 {
            return None;
        }
        let base = if base == 4 { self.next()? & 7 } else { base };
        self.at += match (mode, base) {
            (0, 5) | (2, _) => 4,
            (1, _) => 1,
            _ => 0,
        };
        // Beyond what was fetched: whoever reads on sees it, and `decode` at the end.
        Some(modrm >> 3 & 7)
    }
}

/// Decodes the instruction at the beginning of `bytes`; `long`: 64-bit code, otherwise 32-bit code.
#[inline]
pub fn decode(bytes: &[u8], long: bool) -> Option<Store> {
    let mut code = Bytes { bytes, at: 0 };
    let (mut narrow, mut locked) = (false, false);
    let mut byte = code.next()?;
    loop {
        match byte {
            0x66 => narrow = true,
            0xf0 => locked = true,
            0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 => {}
            _ => break,
        }
        byte = code.next()?;
    }
    let mut rex = 0;
    if long && byte & 0xf0 == 0x40 {
        rex = byte;
        byte = code.next()?;
    }
    let word = match (rex & 8 != 0, narrow) {
        (true, _) => 8,
        (_, true) => 2,
        _ => 4,
    };
    let (kind, source, size) = if byte == 0x0f {
        // MOVNTI has no narrow form.
        let byte = code.next().filter(|byte| *byte != 0xc3 || !narrow)?;
        two_byte(&mut code, byte, word, rex)?
    } else {
        one_byte(&mut code, byte, word, rex)?
    };
    let lockable = !matches!(kind, Kind::Move);
    let length = code.at;
    if length > bytes.len() || length > 15 || locked && !lockable {
        return None;
    }
    Some(Store { kind, source, size, length: length as u8, rex: rex != 0 })
}

type Parts = (Kind, Source, u8);

#[inline]
fn one_byte(code: &mut Bytes<'_>, byte: u8, word: u8, rex: u8) -> Option<Parts> {
    let size = if byte & 1 == 0 { 1 } else { word };
    let register = |field: u8| Source::Register(field | (rex & 4) << 1);
    Some(match byte {
        0x00..=0x33 if byte & 6 == 0 => (Kind::Arithmetic(byte >> 3), register(code.memory()?), size),
        0x80 | 0x81 | 0x83 => {
            let operation = code.memory().filter(|operation| *operation != 7)?;
            let bytes = if byte == 0x83 { 1 } else { size.min(4) };
            (Kind::Arithmetic(operation), Source::Immediate(code.signed(bytes.into())?), size)
        }
        0x86 | 0x87 => (Kind::Exchange, register(code.memory()?), size),
        0x88 | 0x89 => (Kind::Move, register(code.memory()?), size),
        0xc6 | 0xc7 => {
            code.memory().filter(|operation| *operation == 0)?;
            (Kind::Move, Source::Immediate(code.signed(size.min(4).into())?), size)
        }
        _ => return None,
    })
}

#[inline]
fn two_byte(code: &mut Bytes<'_>, byte: u8, word: u8, rex: u8) -> Option<Parts> {
    let size = if byte & 1 == 0 { 1 } else { word };
    let register = |field: u8| Source::Register(field | (rex & 4) << 1);
    Some(match byte {
        // BTS, BTR, BTC by a register choose the word by the register's upper bits; the processor's address is that word's.
        0xab => (Kind::Bit(5), register(code.memory()?), word),
        0xb3 => (Kind::Bit(6), register(code.memory()?), word),
        0xbb => (Kind::Bit(7), register(code.memory()?), word),
        0xba => {
            let operation = code.memory().filter(|operation| *operation > 4)?;
            (Kind::Bit(operation), Source::Immediate(code.signed(1)?), word)
        }
        0xb0 | 0xb1 => (Kind::CompareExchange, register(code.memory()?), size),
        0xc0 | 0xc1 => (Kind::ExchangeAdd, register(code.memory()?), size),
        0xc3 => (Kind::Move, register(code.memory()?), word),
        0xc7 if word == 4 => {
            code.memory().filter(|operation| *operation == 1)?;
            (Kind::CompareExchange8, Source::Immediate(0), 8)
        }
        _ => return None,
    })
}

const RAX: u8 = 0;
const RCX: u8 = 1;
const RDX: u8 = 2;
const RBX: u8 = 3;

impl Store {
    /// Executes it on what is in memory; returns what is to be there. RIP is the caller's.
    #[inline]
    pub fn execute(&self, old: u64, registers: &mut impl Registers) -> u64 {
        let size = self.size;
        let mask = u64::MAX >> (64 - 8 * u32::from(size));
        let source = match self.source {
            Source::Register(number) => self.read(registers, number),
            Source::Immediate(value) => value,
        } & mask;
        match self.kind {
            Kind::Move => source,
            Kind::Exchange => {
                self.answer(registers, old);
                source
            }
            Kind::Arithmetic(operation) => {
                let carry = registers.flags() & alu::CF != 0;
                let result = match operation {
                    0 => alu::add(old, source, false, size),
                    1 => alu::logic(old | source, size),
                    2 => alu::add(old, source, carry, size),
                    3 => alu::sub(old, source, carry, size),
                    4 => alu::logic(old & source, size),
                    5 => alu::sub(old, source, false, size),
                    _ => alu::logic(old ^ source, size),
                };
                set_status(registers, alu::STATUS, result.flags);
                result.value
            }
            Kind::Bit(operation) => {
                let bit = 1 << (source & (8 * u64::from(size) - 1));
                set_status(registers, alu::CF, alu::flag(alu::CF, old & bit != 0));
                match operation {
                    5 => old | bit,
                    6 => old & !bit,
                    _ => old ^ bit,
                }
            }
            Kind::CompareExchange => {
                let rax = registers.get(RAX) & mask;
                let compared = alu::sub(rax, old, false, size);
                set_status(registers, alu::STATUS, compared.flags);
                if rax == old {
                    return source;
                }
                self.write(registers, RAX, old);
                old
            }
            Kind::ExchangeAdd => {
                let sum = alu::add(old, source, false, size);
                set_status(registers, alu::STATUS, sum.flags);
                self.answer(registers, old);
                sum.value
            }
            Kind::CompareExchange8 => {
                let pair = |high: u64, low: u64| high << 32 | low & 0xffff_ffff;
                let equal = old == pair(registers.get(RDX), registers.get(RAX));
                set_status(registers, alu::ZF, alu::flag(alu::ZF, equal));
                if equal {
                    return pair(registers.get(RCX), registers.get(RBX));
                }
                registers.set(RAX, old & 0xffff_ffff);
                registers.set(RDX, old >> 32);
                old
            }
        }
    }

    /// The source register takes what was in memory.
    #[inline]
    fn answer(&self, registers: &mut impl Registers, old: u64) {
        if let Source::Register(number) = self.source {
            self.write(registers, number, old);
        }
    }

    #[inline]
    fn read(&self, registers: &impl Registers, number: u8) -> u64 {
        match self.high_byte(number) {
            Some(of) => registers.get(of) >> 8,
            None => registers.get(number),
        }
    }

    #[inline]
    fn write(&self, registers: &mut impl Registers, number: u8, value: u64) {
        if let Some(of) = self.high_byte(number) {
            let kept = registers.get(of) & !0xff00;
            return registers.set(of, kept | (value & 0xff) << 8);
        }
        let kept = match self.size {
            1 => registers.get(number) & !0xff,
            2 => registers.get(number) & !0xffff,
            _ => 0,
        };
        registers.set(number, kept | value);
    }

    /// AH, CH, DH and BH: the register that they are part of.
    #[inline]
    const fn high_byte(&self, number: u8) -> Option<u8> {
        if self.size == 1 && !self.rex && number >= 4 && number < 8 { Some(number - 4) } else { None }
    }
}

#[inline]
fn set_status(registers: &mut impl Registers, which: u64, flags: u64) {
    let old = registers.flags();
    registers.set_flags(old & !which | flags & which);
}
