//! Operands: registers by the decoder's names, effective addresses, immediates.

use super::memory::{Executor, Place, Stop, Width, mask};
use super::walk::Purpose;
use super::{Bus, Cpu, Seg};
use iced_x86::{Instruction, MemorySize, OpKind, Register};

/// A general register or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct General {
    pub number: usize,
    /// Bytes.
    pub size: u8,
    /// AH, CH, DH, BH.
    high: bool,
}

impl General {
    /// The register of this name; the decoder's names are in order of width and number.
    pub fn of(register: Register) -> Option<Self> {
        let n = register as usize;
        let low = |first: Register, size| Self { number: n - first as usize, size, high: false };
        Some(match n {
            _ if (Register::AL as usize..=Register::BL as usize).contains(&n) => low(Register::AL, 1),
            _ if (Register::AH as usize..=Register::BH as usize).contains(&n) => {
                Self { high: true, ..low(Register::AH, 1) }
            }
            // SPL is number 4.
            _ if (Register::SPL as usize..=Register::R15L as usize).contains(&n) => low(Register::AH, 1),
            _ if (Register::AX as usize..=Register::R15W as usize).contains(&n) => low(Register::AX, 2),
            _ if (Register::EAX as usize..=Register::R15D as usize).contains(&n) => low(Register::EAX, 4),
            _ if (Register::RAX as usize..=Register::R15 as usize).contains(&n) => low(Register::RAX, 8),
            _ => return None,
        })
    }
}

/// The segment register of this name.
pub fn segment_of(register: Register) -> Option<Seg> {
    Some(match register {
        Register::ES => Seg::Es,
        Register::CS => Seg::Cs,
        Register::SS => Seg::Ss,
        Register::DS => Seg::Ds,
        Register::FS => Seg::Fs,
        Register::GS => Seg::Gs,
        _ => return None,
    })
}

/// The segment of a memory operand. In 64-bit mode overrides other than FS and GS are ignored (SDM vol. 1, 3.4.2.1), and what
/// is left of SS is that its faults are #SS.
pub fn memory_segment(width: Width, instruction: &Instruction) -> Option<Seg> {
    let named = segment_of(instruction.memory_segment())?;
    if width != Width::W64 || matches!(named, Seg::Fs | Seg::Gs) {
        return Some(named);
    }
    let on_stack =
        matches!(instruction.memory_base(), Register::RSP | Register::RBP | Register::ESP | Register::EBP);
    Some(if on_stack { Seg::Ss } else { Seg::Ds })
}

/// An operand that can be read, and written unless it is an immediate.
#[derive(Clone, Copy, Debug)]
pub enum Operand {
    General(General),
    Memory(Place),
    Immediate(u64),
}

/// Bytes of the memory operand, 1 to 16.
pub fn memory_length(instruction: &Instruction) -> Result<u8, Stop> {
    Ok(match instruction.memory_size() {
        MemorySize::UInt8 | MemorySize::Int8 => 1,
        MemorySize::UInt16 | MemorySize::Int16 | MemorySize::WordOffset => 2,
        MemorySize::UInt32 | MemorySize::Int32 | MemorySize::DwordOffset => 4,
        MemorySize::UInt64 | MemorySize::Int64 | MemorySize::QwordOffset => 8,
        MemorySize::UInt128 => 16,
        _ => return Err(Stop::Unsupported("an operand that is no integer")),
    })
}

impl<C: Cpu, B: Bus> Executor<'_, C, B> {
    /// Reads a register, zero-extended.
    pub fn general(&self, register: General) -> u64 {
        let value = self.cpu.gpr(register.number);
        let value = if register.high { value >> 8 } else { value };
        value & mask(register.size)
    }

    /// Writes a register: 32 bits clear the upper half, fewer leave the rest.
    pub fn set_general(&mut self, register: General, value: u64) {
        let value = value & mask(register.size);
        let old = self.cpu.gpr(register.number);
        let new = match register.size {
            4 | 8 => value,
            _ if register.high => old & !0xff00 | value << 8,
            size => old & !mask(size) | value,
        };
        self.cpu.set_gpr(register.number, new);
    }

    /// The low bytes of a register by number.
    pub fn low(&self, number: usize, size: u8) -> u64 {
        self.cpu.gpr(number) & mask(size)
    }

    /// Writes the low bytes of a register by number.
    pub fn set_low(&mut self, number: usize, size: u8, value: u64) {
        self.set_general(General { number, size, high: false }, value);
    }

    /// The segment and the offset of the memory operand, and the address size in bytes.
    pub fn effective(&self, instruction: &Instruction) -> Result<(Seg, u64, u8), Stop> {
        let (base, index) = (instruction.memory_base(), instruction.memory_index());
        let (base_register, index_register) = (General::of(base), General::of(index));
        let size = match (base_register.or(index_register), base) {
            (Some(register), _) => register.size,
            (None, Register::EIP) => 4,
            (None, Register::RIP) => 8,
            _ => match instruction.memory_displ_size() {
                2 => 2,
                4 => 4,
                8 => 8,
                _ => self.width.bytes(),
            },
        };
        let vector_index = index != Register::None && index_register.is_none();
        let (Some(seg), false) = (memory_segment(self.width, instruction), vector_index) else {
            return Err(Stop::Unsupported("an address that is no integer"));
        };
        let mut offset = instruction.memory_displacement64();
        if let Some(register) = base_register {
            offset = offset.wrapping_add(self.general(register));
        }
        if let Some(register) = index_register {
            let scale = u64::from(instruction.memory_index_scale());
            offset = offset.wrapping_add(self.general(register).wrapping_mul(scale));
        }
        Ok((seg, offset & mask(size), size))
    }

    /// Finds operand `n`; memory is checked for `purpose`.
    pub fn operand(&mut self, instruction: &Instruction, n: u32, purpose: Purpose) -> Result<Operand, Stop> {
        match instruction.op_kind(n) {
            OpKind::Register => General::of(instruction.op_register(n))
                .map(Operand::General)
                .ok_or(Stop::Unsupported("a register that is not general")),
            OpKind::Memory => {
                let length = memory_length(instruction)?;
                let (seg, offset, _) = self.effective(instruction)?;
                self.place(seg, offset, usize::from(length), purpose).map(Operand::Memory)
            }
            _ => match instruction.try_immediate(n) {
                Ok(value) => Ok(Operand::Immediate(value)),
                Err(_) => Err(Stop::Unsupported("an operand of another kind")),
            },
        }
    }

    /// Bytes of operand `n`, which is a register or memory.
    pub fn operand_size(&self, instruction: &Instruction, n: u32) -> Result<u8, Stop> {
        match instruction.op_kind(n) {
            OpKind::Register => General::of(instruction.op_register(n))
                .map(|register| register.size)
                .ok_or(Stop::Unsupported("a register that is not general")),
            _ => memory_length(instruction),
        }
    }

    /// Reads an operand.
    pub fn get(&mut self, operand: &Operand) -> Result<u64, Stop> {
        match operand {
            Operand::General(register) => Ok(self.general(*register)),
            Operand::Memory(place) => self.load_value(place),
            Operand::Immediate(value) => Ok(*value),
        }
    }

    /// Writes an operand.
    pub fn put(&mut self, operand: &mut Operand, value: u64) -> Result<(), Stop> {
        match operand {
            Operand::General(register) => self.set_general(*register, value),
            Operand::Memory(place) => self.store_value(place, value)?,
            Operand::Immediate(_) => {}
        }
        Ok(())
    }

    /// The address size of a string instruction, by the kind of its memory operand.
    pub const fn string_address_size(&self, kind: OpKind) -> u8 {
        match kind {
            OpKind::MemorySegSI | OpKind::MemorySegDI | OpKind::MemoryESDI => Width::W16.bytes(),
            OpKind::MemorySegESI | OpKind::MemorySegEDI | OpKind::MemoryESEDI => Width::W32.bytes(),
            _ => Width::W64.bytes(),
        }
    }
}
