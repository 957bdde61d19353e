//! String instructions: MOVS, STOS, LODS, CMPS, SCAS, INS, OUTS, with and without REP.

use super::memory::{Executor, Place, Stop, WIDEST, mask};
use super::operand::memory_segment;
use super::walk::Purpose;
use super::{Bus, Cpu, Seg, gpr};
use iced_x86::{Instruction, Mnemonic, OpKind};

/// Iterations of a REP in one step, so that interrupts wait no longer than that.
pub const ITERATIONS: u32 = 64;

/// How far a string instruction came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Finished,
    /// There are iterations left.
    More,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Move,
    Store,
    Load,
    Compare,
    Scan,
    In,
    Out,
}

#[derive(Clone, Copy)]
enum Repeat {
    Once,
    Always,
    WhileEqual,
    WhileNotEqual,
}

/// A string instruction while it runs. The registers are kept here and written back at its end.
struct Run {
    kind: Kind,
    repeat: Repeat,
    /// Bytes of an element and of an address.
    size: u8,
    address_size: u8,
    source_segment: Seg,
    source: u64,
    destination: u64,
    count: u64,
    step: u64,
    /// The last comparison.
    compared: Option<(u64, u64)>,
}

fn kind_of(mnemonic: Mnemonic) -> Option<(Kind, u8)> {
    use Mnemonic as M;
    Some(match mnemonic {
        M::Movsb => (Kind::Move, 1),
        M::Movsw => (Kind::Move, 2),
        M::Movsd => (Kind::Move, 4),
        M::Movsq => (Kind::Move, 8),
        M::Stosb => (Kind::Store, 1),
        M::Stosw => (Kind::Store, 2),
        M::Stosd => (Kind::Store, 4),
        M::Stosq => (Kind::Store, 8),
        M::Lodsb => (Kind::Load, 1),
        M::Lodsw => (Kind::Load, 2),
        M::Lodsd => (Kind::Load, 4),
        M::Lodsq => (Kind::Load, 8),
        M::Cmpsb => (Kind::Compare, 1),
        M::Cmpsw => (Kind::Compare, 2),
        M::Cmpsd => (Kind::Compare, 4),
        M::Cmpsq => (Kind::Compare, 8),
        M::Scasb => (Kind::Scan, 1),
        M::Scasw => (Kind::Scan, 2),
        M::Scasd => (Kind::Scan, 4),
        M::Scasq => (Kind::Scan, 8),
        M::Insb => (Kind::In, 1),
        M::Insw => (Kind::In, 2),
        M::Insd => (Kind::In, 4),
        M::Outsb => (Kind::Out, 1),
        M::Outsw => (Kind::Out, 2),
        M::Outsd => (Kind::Out, 4),
        _ => return None,
    })
}

impl Kind {
    const fn reads_memory(self) -> bool {
        matches!(self, Self::Move | Self::Load | Self::Compare | Self::Out)
    }

    const fn uses_destination(self) -> bool {
        matches!(self, Self::Move | Self::Store | Self::Compare | Self::Scan | Self::In)
    }

    const fn compares(self) -> bool {
        matches!(self, Self::Compare | Self::Scan)
    }
}

/// Executes a string instruction, at most [`ITERATIONS`] of it, and one if the guest is single-stepping. RIP is not moved.
pub fn execute<C: Cpu, B: Bus>(
    executor: &mut Executor<'_, C, B>,
    i: &Instruction,
    single_step: bool,
) -> Result<Progress, Stop> {
    // MOVSD and CMPSD are also names of SSE2 instructions.
    let memory = i.op_kinds().find(|kind| is_string_operand(*kind));
    let (Some((kind, size)), Some(memory)) = (kind_of(i.mnemonic()), memory) else {
        return Err(Stop::Unsupported("a vector, x87 or table operand in device memory"));
    };
    if matches!(kind, Kind::In | Kind::Out) {
        executor.check_port_rights()?;
    }
    let address_size = executor.string_address_size(memory);
    let repeat = match (i.has_repe_prefix(), i.has_repne_prefix()) {
        (false, false) => Repeat::Once,
        _ if !kind.compares() => Repeat::Always,
        (true, _) => Repeat::WhileEqual,
        (false, true) => Repeat::WhileNotEqual,
    };
    let forwards = u64::from(size);
    let mut run = Run {
        kind,
        repeat,
        size,
        address_size,
        source_segment: memory_segment(executor.width, i).unwrap_or(Seg::Ds),
        source: executor.low(gpr::RSI, address_size),
        destination: executor.low(gpr::RDI, address_size),
        count: executor.low(gpr::RCX, address_size),
        step: if executor.backwards() { forwards.wrapping_neg() } else { forwards },
        compared: None,
    };
    let ended = run.iterate(executor, if single_step { 1 } else { ITERATIONS });
    // What was done stays done, also when the next iteration faults.
    run.write_back(executor);
    let progress = ended?;
    // The flags are those of the last comparison once the instruction ends; until then they stay (SDM vol. 2B, "REP").
    if let (Progress::Finished, Some((a, b))) = (progress, run.compared) {
        executor.compare(a, b, size);
    }
    Ok(progress)
}

const fn is_string_operand(kind: OpKind) -> bool {
    matches!(
        kind,
        OpKind::MemorySegSI
            | OpKind::MemorySegESI
            | OpKind::MemorySegRSI
            | OpKind::MemoryESDI
            | OpKind::MemoryESEDI
            | OpKind::MemoryESRDI
    )
}

impl Run {
    fn iterate<C: Cpu, B: Bus>(
        &mut self,
        executor: &mut Executor<'_, C, B>,
        limit: u32,
    ) -> Result<Progress, Stop> {
        if matches!(self.repeat, Repeat::Once) {
            self.element(executor)?;
            return Ok(Progress::Finished);
        }
        for _ in 0..limit {
            if self.count == 0 {
                return Ok(Progress::Finished);
            }
            self.element(executor)?;
            self.count -= 1;
            if self.count == 0 || self.condition_ends() {
                return Ok(Progress::Finished);
            }
        }
        Ok(Progress::More)
    }

    fn condition_ends(&self) -> bool {
        match (self.repeat, self.compared) {
            (Repeat::WhileEqual, Some((a, b))) => a != b,
            (Repeat::WhileNotEqual, Some((a, b))) => a == b,
            _ => false,
        }
    }

    /// One iteration. Pointers move only if all of it succeeds.
    fn element<C: Cpu, B: Bus>(&mut self, executor: &mut Executor<'_, C, B>) -> Result<(), Stop> {
        let source = match self.kind.reads_memory() {
            true => Some(self.place(executor, self.source_segment, self.source, Purpose::Read)?),
            false => None,
        };
        let written = matches!(self.kind, Kind::Move | Kind::Store | Kind::In);
        let purpose = if written { Purpose::Write } else { Purpose::Read };
        let mut destination = match self.kind.uses_destination() {
            true => Some(self.place(executor, Seg::Es, self.destination, purpose)?),
            false => None,
        };
        let accumulator = executor.low(gpr::RAX, self.size);
        let port = executor.low(gpr::RDX, 2) as u16;
        let from = match (&source, self.kind) {
            (Some(place), _) => executor.load_value(place)?,
            (None, Kind::In) => u64::from(executor.bus.read_port(port, self.size)),
            (None, _) => accumulator,
        };
        match (&mut destination, self.kind) {
            (Some(place), Kind::Compare | Kind::Scan) => {
                self.compared = Some((from, executor.load_value(place)?));
            }
            (Some(place), _) => executor.store_value(place, from)?,
            (None, Kind::Out) => executor.bus.write_port(port, self.size, from as u32),
            (None, _) => executor.set_low(gpr::RAX, self.size, from),
        }
        self.advance();
        Ok(())
    }

    fn place<C: Cpu, B: Bus>(
        &self,
        executor: &mut Executor<'_, C, B>,
        seg: Seg,
        offset: u64,
        purpose: Purpose,
    ) -> Result<Place, Stop> {
        const { assert!(WIDEST >= 8) };
        executor.place(seg, offset, usize::from(self.size), purpose)
    }

    fn advance(&mut self) {
        let used = mask(self.address_size);
        if self.kind.reads_memory() {
            self.source = self.source.wrapping_add(self.step) & used;
        }
        if self.kind.uses_destination() {
            self.destination = self.destination.wrapping_add(self.step) & used;
        }
    }

    /// Writes pointers and count to the registers, as wide as addresses are.
    fn write_back<C: Cpu, B: Bus>(&self, executor: &mut Executor<'_, C, B>) {
        for (number, value) in [(gpr::RSI, self.source), (gpr::RDI, self.destination), (gpr::RCX, self.count)]
        {
            if executor.low(number, self.address_size) != value {
                executor.set_low(number, self.address_size, value);
            }
        }
    }
}
