//! The stack and near branches: PUSH, POP, CALL, JMP, RET, LEAVE.

use super::memory::{Executor, Stop, Width, canonical, mask, vector};
use super::operand::{General, Operand};
use super::walk::Purpose;
use super::{Bus, Cpu, Seg, gpr};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};

impl<C: Cpu, B: Bus> Executor<'_, C, B> {
    /// A branch target, checked: canonical, or within the code segment.
    fn target(&self, target: u64, size: u8) -> Result<u64, Stop> {
        let target = target & mask(size);
        let outside = match self.width {
            Width::W64 => !canonical(target),
            _ => target > u64::from(self.cpu.segment(Seg::Cs).limit),
        };
        if outside { self.fault(vector::GENERAL_PROTECTION) } else { Ok(target) }
    }

    /// Writes below the stack pointer and moves it. Nothing can fault after that.
    fn push(&mut self, value: u64, size: u8) -> Result<(), Stop> {
        let to = self.stack_pointer(-i64::from(size));
        let mut place = self.place(Seg::Ss, to, usize::from(size), Purpose::Write)?;
        self.store_value(&mut place, value)?;
        self.set_stack_pointer(to);
        Ok(())
    }

    /// Reads the top of the stack, without moving the pointer.
    fn top_of_stack(&mut self, size: u8) -> Result<u64, Stop> {
        let from = self.stack_pointer(0);
        self.read(Seg::Ss, from, usize::from(size))
    }
}

/// Executes an instruction of this file; returns where RIP goes if not behind it.
pub fn execute<C: Cpu, B: Bus>(
    executor: &mut Executor<'_, C, B>,
    instruction: &Instruction,
) -> Result<Option<u64>, Stop> {
    match instruction.mnemonic() {
        Mnemonic::Push => push(executor, instruction).map(|()| None),
        Mnemonic::Pop => pop(executor, instruction).map(|()| None),
        Mnemonic::Leave => leave(executor, instruction).map(|()| None),
        Mnemonic::Ret => ret(executor, instruction).map(Some),
        mnemonic => {
            let (target, size) = near_target(executor, instruction)?;
            let target = executor.target(target, size)?;
            if mnemonic == Mnemonic::Call {
                let next = instruction.next_ip() & mask(size);
                executor.push(next, size)?;
            }
            Ok(Some(target))
        }
    }
}

/// Bytes that PUSH and POP move, from the decoder's stack operation.
fn stack_size<C: Cpu, B: Bus>(executor: &Executor<'_, C, B>, instruction: &Instruction) -> Result<u8, Stop> {
    use iced_x86::Code;
    Ok(match instruction.code() {
        Code::Push_imm16 | Code::Pushw_imm8 => 2,
        Code::Pushd_imm32 | Code::Pushd_imm8 => 4,
        Code::Pushq_imm32 | Code::Pushq_imm8 => 8,
        _ => {
            let kind = instruction.op0_kind();
            if !matches!(kind, OpKind::Register | OpKind::Memory) {
                return Err(Stop::Unsupported("an operand of another kind"));
            }
            return executor.operand_size(instruction, 0);
        }
    })
}

fn push<C: Cpu, B: Bus>(executor: &mut Executor<'_, C, B>, instruction: &Instruction) -> Result<(), Stop> {
    let size = stack_size(executor, instruction)?;
    // Both translations come before the read, which a device may notice.
    let operand = executor.operand(instruction, 0, Purpose::Read)?;
    let to = executor.stack_pointer(-i64::from(size));
    let mut place = executor.place(Seg::Ss, to, usize::from(size), Purpose::Write)?;
    let value = executor.get(&operand)? & mask(size);
    executor.store_value(&mut place, value)?;
    executor.set_stack_pointer(to);
    Ok(())
}

fn pop<C: Cpu, B: Bus>(executor: &mut Executor<'_, C, B>, instruction: &Instruction) -> Result<(), Stop> {
    let size = stack_size(executor, instruction)?;
    let from = executor.stack_pointer(0);
    let source = executor.place(Seg::Ss, from, usize::from(size), Purpose::Read)?;
    let after = executor.stack_pointer(i64::from(size));
    let mut operand = match instruction.op0_kind() {
        // An address that uses RSP sees it already moved (SDM vol. 2B, "POP").
        OpKind::Memory => {
            let (seg, mut offset, address_size) = executor.effective(instruction)?;
            if matches!(instruction.memory_base(), Register::RSP | Register::ESP) {
                offset = offset.wrapping_add(u64::from(size)) & mask(address_size);
            }
            executor.place(seg, offset, usize::from(size), Purpose::Write).map(Operand::Memory)?
        }
        _ => executor.operand(instruction, 0, Purpose::Write)?,
    };
    let value = executor.load_value(&source)?;
    match &mut operand {
        Operand::Memory(place) => {
            executor.store_value(place, value)?;
            executor.set_stack_pointer(after);
        }
        // POP RSP: the value stays.
        _ => {
            executor.set_stack_pointer(after);
            executor.put(&mut operand, value)?;
        }
    }
    Ok(())
}

fn leave<C: Cpu, B: Bus>(executor: &mut Executor<'_, C, B>, instruction: &Instruction) -> Result<(), Stop> {
    use iced_x86::Code;
    let size = match instruction.code() {
        Code::Leavew => 2,
        Code::Leaved => 4,
        _ => 8,
    };
    let pointer = mask(executor.stack_width().bytes());
    let frame = executor.cpu.gpr(gpr::RBP) & pointer;
    let value = executor.read(Seg::Ss, frame, usize::from(size))?;
    executor.set_stack_pointer(frame.wrapping_add(u64::from(size)) & pointer);
    executor.set_low(gpr::RBP, size, value);
    Ok(())
}

fn ret<C: Cpu, B: Bus>(executor: &mut Executor<'_, C, B>, instruction: &Instruction) -> Result<u64, Stop> {
    use iced_x86::Code;
    let size = match instruction.code() {
        Code::Retnw | Code::Retnw_imm16 => 2,
        Code::Retnd | Code::Retnd_imm16 => 4,
        _ => 8,
    };
    let value = executor.top_of_stack(size)?;
    let target = executor.target(value, size)?;
    let dropped = if instruction.op_count() == 0 { 0 } else { i64::from(instruction.immediate16()) };
    let after = executor.stack_pointer(i64::from(size) + dropped);
    executor.set_stack_pointer(after);
    Ok(target)
}

/// The target of a near CALL or JMP and its size in bytes.
fn near_target<C: Cpu, B: Bus>(
    executor: &mut Executor<'_, C, B>,
    instruction: &Instruction,
) -> Result<(u64, u8), Stop> {
    match instruction.op0_kind() {
        OpKind::NearBranch16 => Ok((instruction.near_branch_target(), 2)),
        OpKind::NearBranch32 => Ok((instruction.near_branch_target(), 4)),
        OpKind::NearBranch64 => Ok((instruction.near_branch_target(), 8)),
        OpKind::Register => {
            let register = General::of(instruction.op0_register())
                .ok_or(Stop::Unsupported("a register that is not general"))?;
            Ok((executor.general(register), register.size))
        }
        OpKind::Memory => {
            use iced_x86::MemorySize;
            if !matches!(
                instruction.memory_size(),
                MemorySize::WordOffset | MemorySize::DwordOffset | MemorySize::QwordOffset
            ) {
                return Err(Stop::Unsupported("a far branch"));
            }
            let size = super::operand::memory_length(instruction)?;
            if instruction.mnemonic() == Mnemonic::Call {
                // The stack is checked before the read, which a device may notice.
                let to = executor.stack_pointer(-i64::from(size));
                executor.place(Seg::Ss, to, usize::from(size), Purpose::Write)?;
            }
            let operand = executor.operand(instruction, 0, Purpose::Read)?;
            Ok((executor.get(&operand)?, size))
        }
        _ => Err(Stop::Unsupported("a far branch")),
    }
}
