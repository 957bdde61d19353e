//! The instructions: what each does with its operands. Operands are found first, with all checks; then they are read; memory is
//! written before registers, and flags and RIP come last.

use super::alu::{self, CF, DF, STATUS, ZF, flag};
use super::memory::{Executor, Stop, Width, mask, vector};
use super::operand::Operand;
use super::shift::{self, Shift};
use super::walk::Purpose;
use super::{Bus, Cpu, Outcome, branch, gpr, strings};
use iced_x86::{Code, Instruction, Mnemonic, OpKind};

const RFLAGS_TF: u64 = 1 << 8;
const RFLAGS_RF: u64 = 1 << 16;

/// Executes a decoded instruction.
pub fn execute<C: Cpu, B: Bus>(
    executor: &mut Executor<'_, C, B>,
    instruction: &Instruction,
) -> Result<Outcome, Stop> {
    use Mnemonic as M;
    let single_step = executor.cpu.rflags() & RFLAGS_TF != 0;
    let mut next = instruction.next_ip();
    match instruction.mnemonic() {
        M::Movsb
        | M::Movsw
        | M::Movsd
        | M::Movsq
        | M::Stosb
        | M::Stosw
        | M::Stosd
        | M::Stosq
        | M::Lodsb
        | M::Lodsw
        | M::Lodsd
        | M::Lodsq
        | M::Cmpsb
        | M::Cmpsw
        | M::Cmpsd
        | M::Cmpsq
        | M::Scasb
        | M::Scasw
        | M::Scasd
        | M::Scasq
        | M::Insb
        | M::Insw
        | M::Insd
        | M::Outsb
        | M::Outsw
        | M::Outsd => {
            if strings::execute(executor, instruction, single_step)? == strings::Progress::More {
                return Ok(Outcome::Continue { single_step });
            }
        }
        M::Push | M::Pop | M::Leave | M::Ret | M::Call | M::Jmp => {
            if let Some(target) = branch::execute(executor, instruction)? {
                next = target;
            }
        }
        _ => integer(executor, instruction)?,
    }
    if executor.width != Width::W64 {
        next &= 0xffff_ffff;
    }
    executor.cpu.set_rip(next);
    let rflags = executor.cpu.rflags();
    if rflags & RFLAGS_RF != 0 {
        executor.cpu.set_rflags(rflags & !RFLAGS_RF);
    }
    Ok(Outcome::Done { single_step })
}

/// Two operands, the first is the destination.
#[derive(Clone, Copy)]
enum Binary {
    Add,
    Adc,
    Sub,
    Sbb,
    And,
    Or,
    Xor,
    Cmp,
    Test,
}

fn integer<C: Cpu, B: Bus>(executor: &mut Executor<'_, C, B>, i: &Instruction) -> Result<(), Stop> {
    use Mnemonic as M;
    match i.mnemonic() {
        M::Mov | M::Movnti | M::Movdiri => mov(executor, i),
        M::Movzx => extend(executor, i, false),
        M::Movsx | M::Movsxd => extend(executor, i, true),
        M::Movbe => movbe(executor, i),
        M::Add => binary(executor, i, Binary::Add),
        M::Adc => binary(executor, i, Binary::Adc),
        M::Sub => binary(executor, i, Binary::Sub),
        M::Sbb => binary(executor, i, Binary::Sbb),
        M::And => binary(executor, i, Binary::And),
        M::Or => binary(executor, i, Binary::Or),
        M::Xor => binary(executor, i, Binary::Xor),
        M::Cmp => binary(executor, i, Binary::Cmp),
        M::Test => binary(executor, i, Binary::Test),
        M::Inc | M::Dec | M::Neg | M::Not => unary(executor, i),
        M::Rol => shift(executor, i, Shift::Rol),
        M::Ror => shift(executor, i, Shift::Ror),
        M::Rcl => shift(executor, i, Shift::Rcl),
        M::Rcr => shift(executor, i, Shift::Rcr),
        M::Shl | M::Sal => shift(executor, i, Shift::Shl),
        M::Shr => shift(executor, i, Shift::Shr),
        M::Sar => shift(executor, i, Shift::Sar),
        M::Shld => double_shift(executor, i, true),
        M::Shrd => double_shift(executor, i, false),
        M::Bt | M::Bts | M::Btr | M::Btc => bit_test(executor, i),
        M::Xchg => xchg(executor, i),
        M::Xadd => xadd(executor, i),
        M::Cmpxchg => cmpxchg(executor, i),
        M::Cmpxchg8b | M::Cmpxchg16b => cmpxchg_wide(executor, i),
        M::Mul => multiply(executor, i, alu::mul),
        M::Imul if i.op_count() == 1 => multiply(executor, i, alu::imul),
        M::Imul => imul_to_register(executor, i),
        M::Div => divide(executor, i, alu::div),
        M::Idiv => divide(executor, i, alu::idiv),
        M::Bsf | M::Bsr | M::Tzcnt | M::Lzcnt | M::Popcnt => count_bits(executor, i),
        M::Xlatb => xlat(executor, i),
        M::In => port_in(executor, i),
        M::Out => port_out(executor, i),
        M::Nop | M::Reservednop => Ok(()),
        M::Clflush | M::Clflushopt | M::Clwb | M::Cldemote => cache_line(executor, i),
        M::Prefetchnta | M::Prefetcht0 | M::Prefetcht1 | M::Prefetcht2 | M::Prefetchw | M::Prefetchwt1 => {
            Ok(())
        }
        M::Ud0 | M::Ud1 | M::Ud2 => executor.fault(vector::INVALID_OPCODE),
        _ => conditional(executor, i),
    }
}

impl<C: Cpu, B: Bus> Executor<'_, C, B> {
    fn flags(&self) -> u64 {
        self.cpu.rflags() & STATUS
    }

    fn set_flags(&mut self, flags: u64) {
        let rflags = self.cpu.rflags();
        if (rflags ^ flags) & STATUS != 0 {
            self.cpu.set_rflags(rflags & !STATUS | flags & STATUS);
        }
    }

    /// Writes the first operand, then the flags.
    fn put_result(&mut self, operand: &mut Operand, result: alu::Result) -> Result<(), Stop> {
        self.put(operand, result.value)?;
        self.set_flags(result.flags);
        Ok(())
    }

    /// DF.
    pub fn backwards(&self) -> bool {
        self.cpu.rflags() & DF != 0
    }

    /// Sets the flags of a comparison.
    pub fn compare(&mut self, a: u64, b: u64, size: u8) {
        self.set_flags(alu::sub(a, b, false, size).flags);
    }
}

fn mov<C: Cpu, B: Bus>(executor: &mut Executor<'_, C, B>, i: &Instruction) -> Result<(), Stop> {
    // MOV of a segment register to memory has 16 bits, to a register the operand size.
    if let Some(seg) = super::operand::segment_of(i.op1_register())
        && i.op1_kind() == OpKind::Register
    {
        let selector = executor.cpu.segment(seg).selector;
        let mut to = executor.operand(i, 0, Purpose::Write)?;
        return executor.put(&mut to, u64::from(selector));
    }
    // Only a load of a segment register is left as one that does not name general registers.
    let from = executor.operand(i, 1, Purpose::Read)?;
    let mut to = executor.operand(i, 0, Purpose::Write)?;
    let value = executor.get(&from)?;
    executor.put(&mut to, value)
}

fn extend<C: Cpu, B: Bus>(
    executor: &mut Executor<'_, C, B>,
    i: &Instruction,
    sign: bool,
) -> Result<(), Stop> {
    let size = executor.operand_size(i, 1)?;
    let from = executor.operand(i, 1, Purpose::Read)?;
    let mut to = executor.operand(i, 0, Purpose::Write)?;
    let value = executor.get(&from)?;
    executor.put(&mut to, if sign { alu::signed(value, size) as u64 } else { value })
}

fn movbe<C: Cpu, B: Bus>(executor: &mut Executor<'_, C, B>, i: &Instruction) -> Result<(), Stop> {
    let size = executor.operand_size(i, 0)?;
    let from = executor.operand(i, 1, Purpose::Read)?;
    let mut to = executor.operand(i, 0, Purpose::Write)?;
    let value = executor.get(&from)?;
    executor.put(&mut to, value.swap_bytes() >> (64 - 8 * u32::from(size)))
}

fn binary<C: Cpu, B: Bus>(
    executor: &mut Executor<'_, C, B>,
    i: &Instruction,
    kind: Binary,
) -> Result<(), Stop> {
    let size = executor.operand_size(i, 0)?;
    let writes = !matches!(kind, Binary::Cmp | Binary::Test);
    let mut to = executor.operand(i, 0, if writes { Purpose::Write } else { Purpose::Read })?;
    let from = executor.operand(i, 1, Purpose::Read)?;
    let (a, b) = (executor.get(&to)?, executor.get(&from)? & mask(size));
    let carry = executor.flags() & CF != 0;
    let result = match kind {
        Binary::Add => alu::add(a, b, false, size),
        Binary::Adc => alu::add(a, b, carry, size),
        Binary::Sub | Binary::Cmp => alu::sub(a, b, false, size),
        Binary::Sbb => alu::sub(a, b, carry, size),
        Binary::And | Binary::Test => alu::logic(a & b, size),
        Binary::Or => alu::logic(a | b, size),
        Binary::Xor => alu::logic(a ^ b, size),
    };
    if writes {
        executor.put_result(&mut to, result)
    } else {
        executor.set_flags(result.flags);
        Ok(())
    }
}

fn unary<C: Cpu, B: Bus>(executor: &mut Executor<'_, C, B>, i: &Instruction) -> Result<(), Stop> {
    let size = executor.operand_size(i, 0)?;
    let mut to = executor.operand(i, 0, Purpose::Write)?;
    let (value, flags) = (executor.get(&to)?, executor.flags());
    let result = match i.mnemonic() {
        Mnemonic::Inc => alu::inc(value, flags, size),
        Mnemonic::Dec => alu::dec(value, flags, size),
        Mnemonic::Neg => alu::sub(0, value, false, size),
        _ => alu::Result { value: !value & mask(size), flags },
    };
    executor.put_result(&mut to, result)
}

fn shift<C: Cpu, B: Bus>(
    executor: &mut Executor<'_, C, B>,
    i: &Instruction,
    kind: Shift,
) -> Result<(), Stop> {
    let size = executor.operand_size(i, 0)?;
    let mut to = executor.operand(i, 0, Purpose::Write)?;
    let count = executor.operand(i, 1, Purpose::Read)?;
    let (value, count) = (executor.get(&to)?, executor.get(&count)? & 0xff);
    let result = shift::shift(kind, value, count, executor.flags(), size);
    executor.put_result(&mut to, result)
}

fn double_shift<C: Cpu, B: Bus>(
    executor: &mut Executor<'_, C, B>,
    i: &Instruction,
    to_left: bool,
) -> Result<(), Stop> {
    let size = executor.operand_size(i, 0)?;
    let mut to = executor.operand(i, 0, Purpose::Write)?;
    let from = executor.operand(i, 1, Purpose::Read)?;
    let count = executor.operand(i, 2, Purpose::Read)?;
    let (value, from, count) = (executor.get(&to)?, executor.get(&from)?, executor.get(&count)? & 0xff);
    let result = shift::double(to_left, value, from, count, executor.flags(), size);
    executor.put_result(&mut to, result)
}

/// A bit offset in a register reaches beyond a memory operand, in both directions (SDM vol. 2A, 3.1.1.9).
fn bit_test<C: Cpu, B: Bus>(executor: &mut Executor<'_, C, B>, i: &Instruction) -> Result<(), Stop> {
    let size = executor.operand_size(i, 0)?;
    let bits = 8 * u64::from(size);
    let writes = i.mnemonic() != Mnemonic::Bt;
    let purpose = if writes { Purpose::Write } else { Purpose::Read };
    let offset = executor.operand(i, 1, Purpose::Read)?;
    let offset = executor.get(&offset)?;
    let mut to = match (i.op0_kind(), i.op1_kind()) {
        (OpKind::Memory, OpKind::Register) => {
            let (seg, base, address_size) = executor.effective(i)?;
            let units = alu::signed(offset, size).div_euclid(bits as i64);
            let address = base.wrapping_add_signed(units.wrapping_mul(i64::from(size))) & mask(address_size);
            Operand::Memory(executor.place(seg, address, usize::from(size), purpose)?)
        }
        _ => executor.operand(i, 0, purpose)?,
    };
    let value = executor.get(&to)?;
    let bit = 1 << (offset % bits);
    let new = match i.mnemonic() {
        Mnemonic::Bts => value | bit,
        Mnemonic::Btr => value & !bit,
        _ => value ^ bit,
    };
    if writes {
        executor.put(&mut to, new)?;
    }
    let flags = executor.flags() & !CF | flag(CF, value & bit != 0);
    executor.set_flags(flags);
    Ok(())
}

fn xchg<C: Cpu, B: Bus>(executor: &mut Executor<'_, C, B>, i: &Instruction) -> Result<(), Stop> {
    let mut first = executor.operand(i, 0, Purpose::Write)?;
    let mut second = executor.operand(i, 1, Purpose::Write)?;
    let (a, b) = (executor.get(&first)?, executor.get(&second)?);
    // The decoder gives memory as either of them.
    if matches!(second, Operand::Memory(_)) {
        executor.put(&mut second, a)?;
        return executor.put(&mut first, b);
    }
    executor.put(&mut first, b)?;
    executor.put(&mut second, a)
}

fn xadd<C: Cpu, B: Bus>(executor: &mut Executor<'_, C, B>, i: &Instruction) -> Result<(), Stop> {
    let size = executor.operand_size(i, 0)?;
    let mut to = executor.operand(i, 0, Purpose::Write)?;
    let mut from = executor.operand(i, 1, Purpose::Write)?;
    let (a, b) = (executor.get(&to)?, executor.get(&from)?);
    let sum = alu::add(a, b, false, size);
    // One register twice ends with the sum.
    if matches!(to, Operand::General(_)) {
        executor.put(&mut from, a)?;
        return executor.put_result(&mut to, sum);
    }
    executor.put_result(&mut to, sum)?;
    executor.put(&mut from, a)
}

/// The destination is written in any case (SDM vol. 2A, "CMPXCHG").
fn cmpxchg<C: Cpu, B: Bus>(executor: &mut Executor<'_, C, B>, i: &Instruction) -> Result<(), Stop> {
    let size = executor.operand_size(i, 0)?;
    let mut to = executor.operand(i, 0, Purpose::Write)?;
    let from = executor.operand(i, 1, Purpose::Read)?;
    let (old, new) = (executor.get(&to)?, executor.get(&from)?);
    let expected = executor.low(gpr::RAX, size);
    let equal = expected == old;
    executor.put(&mut to, if equal { new } else { old })?;
    if !equal {
        executor.set_low(gpr::RAX, size, old);
    }
    executor.compare(expected, old, size);
    Ok(())
}

/// CMPXCHG8B, CMPXCHG16B.
fn cmpxchg_wide<C: Cpu, B: Bus>(executor: &mut Executor<'_, C, B>, i: &Instruction) -> Result<(), Stop> {
    let half: u8 = if i.mnemonic() == Mnemonic::Cmpxchg16b { 8 } else { 4 };
    let length = 2 * usize::from(half);
    let (seg, offset, _) = executor.effective(i)?;
    if half == 8 && executor.is_misaligned(seg, offset, length) {
        return executor.fault(vector::GENERAL_PROTECTION);
    }
    let mut place = executor.place(seg, offset, length, Purpose::Write)?;
    let old = u128::from_le_bytes(executor.load(&place)?);
    let join = |high: u64, low: u64| u128::from(high) << (8 * half) | u128::from(low);
    let expected = join(executor.low(gpr::RDX, half), executor.low(gpr::RAX, half));
    let new = join(executor.low(gpr::RCX, half), executor.low(gpr::RBX, half));
    let equal = expected == old;
    executor.store(&mut place, &(if equal { new } else { old }).to_le_bytes())?;
    if !equal {
        executor.set_low(gpr::RAX, half, old as u64);
        executor.set_low(gpr::RDX, half, (old >> (8 * half)) as u64);
    }
    let flags = executor.flags() & !ZF | flag(ZF, equal);
    executor.set_flags(flags);
    Ok(())
}

/// MUL and the one-operand IMUL: AX, or rDX and rAX.
fn multiply<C: Cpu, B: Bus>(
    executor: &mut Executor<'_, C, B>,
    i: &Instruction,
    product: fn(u64, u64, u8) -> (alu::Result, u64),
) -> Result<(), Stop> {
    let size = executor.operand_size(i, 0)?;
    let from = executor.operand(i, 0, Purpose::Read)?;
    let factor = executor.get(&from)?;
    let (low, high) = product(executor.low(gpr::RAX, size), factor, size);
    set_pair(executor, size, high, low.value);
    executor.set_flags(low.flags);
    Ok(())
}

/// Writes AX of two bytes, or rDX and rAX.
fn set_pair<C: Cpu, B: Bus>(executor: &mut Executor<'_, C, B>, size: u8, high: u64, low: u64) {
    if size == 1 {
        executor.set_low(gpr::RAX, 2, high << 8 | low);
    } else {
        executor.set_low(gpr::RAX, size, low);
        executor.set_low(gpr::RDX, size, high);
    }
}

fn imul_to_register<C: Cpu, B: Bus>(executor: &mut Executor<'_, C, B>, i: &Instruction) -> Result<(), Stop> {
    let size = executor.operand_size(i, 0)?;
    let mut to = executor.operand(i, 0, Purpose::Write)?;
    let source = executor.operand(i, 1, Purpose::Read)?;
    let other = if i.op_count() == 3 { executor.operand(i, 2, Purpose::Read)? } else { to };
    let (a, b) = (executor.get(&source)?, executor.get(&other)? & mask(size));
    let (result, _) = alu::imul(a, b, size);
    executor.put_result(&mut to, result)
}

fn divide<C: Cpu, B: Bus>(
    executor: &mut Executor<'_, C, B>,
    i: &Instruction,
    quotient: alu::Division,
) -> Result<(), Stop> {
    let size = executor.operand_size(i, 0)?;
    let from = executor.operand(i, 0, Purpose::Read)?;
    let divisor = executor.get(&from)?;
    let low = executor.low(gpr::RAX, size);
    let high = match size {
        1 => executor.low(gpr::RAX, 2) >> 8,
        _ => executor.low(gpr::RDX, size),
    };
    let Some((quotient, remainder)) = quotient(high, low, divisor, size) else {
        return executor.fault(vector::DIVIDE);
    };
    set_pair(executor, size, remainder, quotient);
    Ok(())
}

/// BSF and BSR leave the destination and the other flags alone when there is no bit.
fn count_bits<C: Cpu, B: Bus>(executor: &mut Executor<'_, C, B>, i: &Instruction) -> Result<(), Stop> {
    let size = executor.operand_size(i, 0)?;
    let from = executor.operand(i, 1, Purpose::Read)?;
    let mut to = executor.operand(i, 0, Purpose::Write)?;
    let value = executor.get(&from)?;
    let bits = 8 * u32::from(size);
    let leading = value.leading_zeros() - (64 - bits);
    let trailing = value.trailing_zeros().min(bits);
    let before = executor.flags();
    let (count, flags) = match i.mnemonic() {
        Mnemonic::Popcnt => (value.count_ones(), flag(ZF, value == 0)),
        Mnemonic::Tzcnt => (trailing, before & !(CF | ZF) | flag(CF, value == 0) | flag(ZF, trailing == 0)),
        Mnemonic::Lzcnt => (leading, before & !(CF | ZF) | flag(CF, value == 0) | flag(ZF, leading == 0)),
        _ if value == 0 => {
            executor.set_flags(before | ZF);
            return Ok(());
        }
        Mnemonic::Bsf => (trailing, alu::sign_zero_parity(u64::from(trailing), size) & !ZF),
        _ => (bits - 1 - leading, alu::sign_zero_parity(u64::from(bits - 1 - leading), size) & !ZF),
    };
    executor.put_result(&mut to, alu::Result { value: u64::from(count), flags })
}

fn xlat<C: Cpu, B: Bus>(executor: &mut Executor<'_, C, B>, i: &Instruction) -> Result<(), Stop> {
    let address_size = match i.memory_base() {
        iced_x86::Register::BX => 2,
        iced_x86::Register::EBX => 4,
        _ => 8,
    };
    let seg = super::operand::memory_segment(executor.width, i).unwrap_or(super::Seg::Ds);
    let offset = executor.cpu.gpr(gpr::RBX).wrapping_add(executor.low(gpr::RAX, 1)) & mask(address_size);
    let value = executor.read(seg, offset, 1)?;
    executor.set_low(gpr::RAX, 1, value);
    Ok(())
}

/// IN to AL, AX or EAX.
fn port_in<C: Cpu, B: Bus>(executor: &mut Executor<'_, C, B>, i: &Instruction) -> Result<(), Stop> {
    executor.check_port_rights()?;
    let size = executor.operand_size(i, 0)?;
    let port = executor.operand(i, 1, Purpose::Read)?;
    let port = executor.get(&port)? as u16;
    let value = executor.bus.read_port(port, size);
    executor.set_low(gpr::RAX, size, u64::from(value));
    Ok(())
}

fn port_out<C: Cpu, B: Bus>(executor: &mut Executor<'_, C, B>, i: &Instruction) -> Result<(), Stop> {
    executor.check_port_rights()?;
    let size = executor.operand_size(i, 1)?;
    let port = executor.operand(i, 0, Purpose::Read)?;
    let port = executor.get(&port)? as u16;
    let value = executor.low(gpr::RAX, size);
    executor.bus.write_port(port, size, value as u32);
    Ok(())
}

/// Cache-line instructions are checked as reads of a byte (SDM vol. 2A, "CLFLUSH"); there is no cache to be seen.
fn cache_line<C: Cpu, B: Bus>(executor: &mut Executor<'_, C, B>, i: &Instruction) -> Result<(), Stop> {
    let (seg, offset, _) = executor.effective(i)?;
    executor.place(seg, offset, 1, Purpose::Read).map(|_| ())
}

/// SETcc and CMOVcc, whose codes are in the order of their conditions.
fn conditional<C: Cpu, B: Bus>(executor: &mut Executor<'_, C, B>, i: &Instruction) -> Result<(), Stop> {
    let code = i.code() as usize;
    let within = |first: Code, last: Code| (first as usize..=last as usize).contains(&code);
    if within(Code::Seto_rm8, Code::Setg_rm8) {
        let holds = alu::condition((code - Code::Seto_rm8 as usize) as u8, executor.flags());
        let mut to = executor.operand(i, 0, Purpose::Write)?;
        return executor.put(&mut to, u64::from(holds));
    }
    if within(Code::Cmovo_r16_rm16, Code::Cmovg_r64_rm64) {
        let condition = (code - Code::Cmovo_r16_rm16 as usize) / 3;
        let holds = alu::condition(condition as u8, executor.flags());
        // The source is read and the destination written in any case.
        let from = executor.operand(i, 1, Purpose::Read)?;
        let mut to = executor.operand(i, 0, Purpose::Write)?;
        let (value, old) = (executor.get(&from)?, executor.get(&to)?);
        return executor.put(&mut to, if holds { value } else { old });
    }
    Err(Stop::Unsupported(unsupported(i)))
}

/// Says what an instruction that is not emulated has to do with memory.
fn unsupported(i: &Instruction) -> &'static str {
    let touches_memory = i.op_kinds().any(|kind| kind == OpKind::Memory);
    match i.mnemonic() {
        _ if !touches_memory => "an instruction without a memory operand",
        Mnemonic::Lds | Mnemonic::Les | Mnemonic::Lfs | Mnemonic::Lgs | Mnemonic::Lss => {
            "a load of a segment register"
        }
        _ if super::operand::memory_length(i).is_err() => "a vector, x87 or table operand in device memory",
        _ => "an instruction that is not expected on device memory",
    }
}

const _: () = {
    // The order that `conditional` relies on.
    assert!(Code::Setg_rm8 as usize - Code::Seto_rm8 as usize == 15);
    assert!(Code::Cmovg_r64_rm64 as usize - Code::Cmovo_r16_rm16 as usize == 47);
};
