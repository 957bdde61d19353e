//! The executor's memory: segments to linear addresses, linear to guest-physical, reads and writes in pieces that a bus takes.

use super::walk::{NoPage, Page, Paging, Purpose};
use super::{Bus, BusError, Cause, Cpu, Exception, Seg, Segment, gpr};

const CR0_PE: u64 = 1 << 0;
const CR0_AM: u64 = 1 << 18;
const EFER_LMA: u64 = 1 << 10;
const RFLAGS_AC: u64 = 1 << 18;
const RFLAGS_VM: u64 = 1 << 17;
const RFLAGS_IOPL: u64 = 3 << 12;

const PAGE: u64 = 0x1000;
/// The widest operand, bytes.
pub const WIDEST: usize = 16;

/// Why an instruction does not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    Fault(Exception),
    Refused(BusError),
    Undecodable,
    Unsupported(&'static str),
}

impl From<BusError> for Stop {
    fn from(error: BusError) -> Self {
        Self::Refused(error)
    }
}

/// Vectors.
pub mod vector {
    pub const DIVIDE: u8 = 0;
    pub const INVALID_OPCODE: u8 = 6;
    pub const STACK: u8 = 12;
    pub const GENERAL_PROTECTION: u8 = 13;
    pub const PAGE_FAULT: u8 = 14;
    pub const ALIGNMENT: u8 = 17;
}

/// The width of code: operands and addresses by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    W16,
    W32,
    W64,
}

impl Width {
    /// Bytes.
    pub const fn bytes(self) -> u8 {
        match self {
            Self::W16 => 2,
            Self::W32 => 4,
            Self::W64 => 8,
        }
    }
}

impl Segment {
    const UNUSABLE: u32 = 1 << 16;
    const LONG: u32 = 1 << 13;
    const BIG: u32 = 1 << 14;
    const PRESENT: u32 = 1 << 7;
    const CODE: u32 = 1 << 3;
    /// Of data: expand-down.
    const DOWN: u32 = 1 << 2;
    /// Of data: may be written; of code: may be read.
    const OPEN: u32 = 1 << 1;

    /// D/B.
    pub(super) const fn big(self) -> bool {
        self.access & Self::BIG != 0
    }

    /// The type allows the access (SDM vol. 3A, 5.5).
    const fn allows(self, purpose: Purpose) -> bool {
        let usable = self.access & Self::UNUSABLE == 0 && self.access & Self::PRESENT != 0;
        let (code, open) = (self.access & Self::CODE != 0, self.access & Self::OPEN != 0);
        usable
            && match purpose {
                Purpose::Read => !code || open,
                Purpose::Write => !code && open,
                Purpose::Fetch => code,
            }
    }

    /// The bytes are within the limit (SDM vol. 3A, 5.3).
    const fn holds(self, offset: u64, length: u64) -> bool {
        let (last, limit) = (offset + length - 1, self.limit as u64);
        if self.access & (Self::CODE | Self::DOWN) == Self::DOWN {
            let top = if self.big() { 0xffff_ffff } else { 0xffff };
            offset > limit && last <= top
        } else {
            last <= limit
        }
    }
}

/// Where an operand lies: in one page or in two.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    first: Page,
    first_length: usize,
    second: Option<Page>,
    length: usize,
}

/// An instruction in execution.
pub struct Executor<'m, C: Cpu, B: Bus> {
    pub cpu: &'m mut C,
    pub bus: &'m mut B,
    pub cause: Cause,
    pub width: Width,
    /// Protected mode and not virtual-8086 mode: segments have types and privileges.
    pub protected: bool,
    error_codes: bool,
    check_alignment: bool,
    paging: Paging,
}

impl<'m, C: Cpu, B: Bus> Executor<'m, C, B> {
    pub fn new(cpu: &'m mut C, bus: &'m mut B, cause: Cause) -> Self {
        let (cr0, rflags) = (cpu.cr0(), cpu.rflags());
        let code = cpu.segment(Seg::Cs);
        let width = match () {
            () if cpu.efer() & EFER_LMA != 0 && code.access & Segment::LONG != 0 => Width::W64,
            () if code.big() => Width::W32,
            () => Width::W16,
        };
        let paging = Paging::of(cpu);
        Self {
            cause,
            width,
            protected: cr0 & CR0_PE != 0 && rflags & RFLAGS_VM == 0,
            error_codes: cr0 & CR0_PE != 0,
            check_alignment: cr0 & CR0_AM != 0 && rflags & RFLAGS_AC != 0 && cpu.cpl() == 3,
            paging,
            cpu,
            bus,
        }
    }

    /// An exception whose error code, if the mode has any, is 0.
    pub const fn fault<T>(&self, vector: u8) -> Result<T, Stop> {
        let has_code = matches!(
            vector,
            vector::STACK | vector::GENERAL_PROTECTION | vector::PAGE_FAULT | vector::ALIGNMENT
        );
        let error = if has_code && self.error_codes { Some(0) } else { None };
        Err(Stop::Fault(Exception { vector, error, cr2: None }))
    }

    /// The instruction pointer, as wide as the mode has it.
    pub fn rip(&self) -> u64 {
        let rip = self.cpu.rip();
        if self.width == Width::W64 { rip } else { rip & 0xffff_ffff }
    }

    /// IN, OUT, INS, OUTS: the processor has checked the rights where it exited because of one. Otherwise (the code
    /// has changed meanwhile) the I/O permission bitmap is taken to forbid.
    pub fn check_port_rights(&self) -> Result<(), Stop> {
        let rflags = self.cpu.rflags();
        let by_level = u64::from(self.cpu.cpl()) <= (rflags & RFLAGS_IOPL) >> 12;
        if self.cause == Cause::Port || !self.error_codes || self.protected && by_level {
            return Ok(());
        }
        self.fault(vector::GENERAL_PROTECTION)
    }

    /// The linear address of an operand, after all checks that come before paging.
    fn linear(&self, seg: Seg, offset: u64, length: usize, purpose: Purpose) -> Result<u64, Stop> {
        let violation = if seg == Seg::Ss { vector::STACK } else { vector::GENERAL_PROTECTION };
        let linear = if self.width == Width::W64 {
            let base = if matches!(seg, Seg::Fs | Seg::Gs) { self.cpu.segment(seg).base } else { 0 };
            let linear = offset.wrapping_add(base);
            if !canonical(linear) || !canonical(linear.wrapping_add(length as u64 - 1)) {
                return self.fault(violation);
            }
            linear
        } else {
            let segment = self.cpu.segment(seg);
            if self.protected && !segment.allows(purpose)
                || !segment.holds(offset & 0xffff_ffff, length as u64)
            {
                return self.fault(violation);
            }
            offset.wrapping_add(segment.base) & 0xffff_ffff
        };
        if self.check_alignment && linear & (length as u64 - 1) != 0 && purpose != Purpose::Fetch {
            return self.fault(vector::ALIGNMENT);
        }
        Ok(linear)
    }

    /// Whether an operand's linear address is not a multiple of its length.
    pub fn is_misaligned(&self, seg: Seg, offset: u64, length: usize) -> bool {
        let based = self.width != Width::W64 || matches!(seg, Seg::Fs | Seg::Gs);
        let base = if based { self.cpu.segment(seg).base } else { 0 };
        offset.wrapping_add(base) & (length as u64 - 1) != 0
    }

    /// Finds an operand of 1 to 16 bytes, with all checks: nothing but a [`Stop::Refused`] can stop the access any more.
    pub fn place(&mut self, seg: Seg, offset: u64, length: usize, purpose: Purpose) -> Result<Place, Stop> {
        let linear = self.linear(seg, offset, length, purpose)?;
        let first = self.page(linear, purpose)?;
        let first_length = length.min((PAGE - linear % PAGE) as usize);
        let second =
            if first_length < length { Some(self.page(self.next_page(linear), purpose)?) } else { None };
        Ok(Place { first, first_length, second, length })
    }

    /// The linear address of the page behind this one; outside 64-bit mode the last one is followed by the first.
    pub const fn next_page(&self, linear: u64) -> u64 {
        let next = (linear & !(PAGE - 1)).wrapping_add(PAGE);
        if matches!(self.width, Width::W64) { next } else { next & 0xffff_ffff }
    }

    /// Translates a linear address.
    pub fn page(&mut self, linear: u64, purpose: Purpose) -> Result<Page, Stop> {
        self.paging.translate(self.bus, linear, purpose).map_err(|no| match no {
            NoPage::Bus(error) => Stop::Refused(error),
            NoPage::Fault(code) => {
                Stop::Fault(Exception { vector: vector::PAGE_FAULT, error: Some(code), cr2: Some(linear) })
            }
        })
    }

    /// Reads a place.
    pub fn load(&mut self, place: &Place) -> Result<[u8; WIDEST], Stop> {
        let mut bytes = [0; WIDEST];
        let (first, rest) = bytes.split_at_mut(place.first_length);
        read_physical(self.bus, place.first.physical, first)?;
        if let (Some(second), Some(rest)) = (place.second, rest.get_mut(..place.length - place.first_length))
        {
            read_physical(self.bus, second.physical, rest)?;
        }
        Ok(bytes)
    }

    /// Reads a place of at most 8 bytes as a number.
    pub fn load_value(&mut self, place: &Place) -> Result<u64, Stop> {
        let bytes = self.load(place)?;
        Ok(u64::from_le_bytes(bytes.first_chunk().copied().unwrap_or_default()))
    }

    /// Writes a place that was found for writing. It is the last thing that an instruction does that can stop it.
    pub fn store(&mut self, place: &mut Place, bytes: &[u8; WIDEST]) -> Result<(), Stop> {
        place.first.mark_dirty(self.bus)?;
        if let Some(second) = &mut place.second {
            second.mark_dirty(self.bus)?;
        }
        let (first, rest) = bytes.split_at(place.first_length);
        write_physical(self.bus, place.first.physical, first)?;
        if let (Some(second), Some(rest)) = (place.second, rest.get(..place.length - place.first_length)) {
            write_physical(self.bus, second.physical, rest)?;
        }
        Ok(())
    }

    /// Writes a number to a place of at most 8 bytes.
    pub fn store_value(&mut self, place: &mut Place, value: u64) -> Result<(), Stop> {
        let mut bytes = [0; WIDEST];
        bytes[..8].copy_from_slice(&value.to_le_bytes());
        self.store(place, &bytes)
    }

    /// Reads one operand.
    pub fn read(&mut self, seg: Seg, offset: u64, length: usize) -> Result<u64, Stop> {
        let place = self.place(seg, offset, length, Purpose::Read)?;
        self.load_value(&place)
    }

    /// Bytes of the stack pointer in use.
    pub fn stack_width(&self) -> Width {
        match self.width {
            Width::W64 => Width::W64,
            _ if self.cpu.segment(Seg::Ss).big() => Width::W32,
            _ => Width::W16,
        }
    }

    /// The stack pointer moved by so many bytes, as wide as the stack's pointer is.
    pub fn stack_pointer(&self, by: i64) -> u64 {
        self.cpu.gpr(gpr::RSP).wrapping_add_signed(by) & mask(self.stack_width().bytes())
    }

    /// Changes the stack pointer; bits that it does not use stay.
    pub fn set_stack_pointer(&mut self, value: u64) {
        let used = mask(self.stack_width().bytes());
        let old = self.cpu.gpr(gpr::RSP);
        self.cpu.set_gpr(gpr::RSP, old & !used | value & used);
    }
}

/// All bits of so many bytes, 1 to 8.
pub const fn mask(bytes: u8) -> u64 {
    u64::MAX >> (64 - 8 * bytes as u32)
}

/// Bits 63:47 are equal: 4-level paging.
pub const fn canonical(linear: u64) -> bool {
    matches!((linear as i64) >> 47, 0 | -1)
}

/// The length of the next piece of a device access: a power of two up to 8 that the address is a multiple of.
fn piece(address: u64, left: usize) -> usize {
    let aligned = 1 << address.trailing_zeros().min(3);
    let fitting = 1 << left.ilog2().min(3);
    aligned.min(fitting)
}

/// Reads a range within a page.
pub fn read_physical<B: Bus>(bus: &mut B, mut address: u64, mut bytes: &mut [u8]) -> Result<(), BusError> {
    let left = bytes.len();
    if left == 0 || piece(address, left) == left || bus.is_memory(address, left) {
        return if left == 0 { Ok(()) } else { bus.read(address, bytes) };
    }
    while !bytes.is_empty() {
        let length = piece(address, bytes.len());
        let (now, later) = bytes.split_at_mut(length);
        bus.read(address, now)?;
        (bytes, address) = (later, address.wrapping_add(length as u64));
    }
    Ok(())
}

fn write_physical<B: Bus>(bus: &mut B, mut address: u64, mut bytes: &[u8]) -> Result<(), BusError> {
    let left = bytes.len();
    if left == 0 || piece(address, left) == left || bus.is_memory(address, left) {
        return if left == 0 { Ok(()) } else { bus.write(address, bytes) };
    }
    while !bytes.is_empty() {
        let length = piece(address, bytes.len());
        let (now, later) = bytes.split_at(length);
        bus.write(address, now)?;
        (bytes, address) = (later, address.wrapping_add(length as u64));
    }
    Ok(())
}
