//! The repeated string instruction at CS:RIP, if there is one: how long it is, what counts its iterations, what else ends it.
//!
//! Looked at from outside, while the guest is on it: nothing is translated that was not, no accessed bit is set.

use super::walk::{Paging, Purpose};
use super::{Bus, BusError, Cpu, MAX_LENGTH, Seg, gpr};

const EFER_LMA: u64 = 1 << 10;
const RFLAGS_ZF: u64 = 1 << 6;
/// Access rights of a code segment: 64-bit code, 32-bit code.
const LONG: u32 = 1 << 13;
const BIG: u32 = 1 << 14;
const PAGE: u64 = 0x1000;

/// What ends it beside RCX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Nothing.
    Counted,
    /// A comparison of unlike operands: REPE.
    Unequal,
    /// A comparison of equal ones: REPNE.
    Equal,
}

/// A repeated MOVS, STOS, LODS, CMPS or SCAS. INS and OUTS are not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeated {
    /// RIP behind it.
    pub behind: u64,
    /// The linear address of that.
    pub linear_behind: u64,
    /// Its address size, 2, 4 or 8 bytes: as much of RCX counts.
    pub address_bytes: u8,
    /// What else ends it.
    pub until: Until,
}

impl Repeated {
    /// The one at CS:RIP. None: another instruction, or its bytes are not in memory.
    pub fn at<C: Cpu + ?Sized, B: Bus + ?Sized>(cpu: &C, bus: &mut B) -> Option<Self> {
        let code = cpu.segment(Seg::Cs);
        let long = cpu.efer() & EFER_LMA != 0 && code.access & LONG != 0;
        let wide = if long {
            8
        } else if code.access & BIG != 0 {
            4
        } else {
            2
        };
        let (base, mask) = if long { (0, u64::MAX) } else { (code.base, 0xffff_ffff) };
        let paging = Paging::of(cpu);
        let mut fetcher = Fetcher { paging, bus: Quiet(bus), page: None };
        let rip = cpu.rip() & mask;
        let text = |at: u64| fetcher.byte(rip.wrapping_add(at).wrapping_add(base) & mask);
        let shape = Shape::decode(text, wide)?;
        let behind = rip.wrapping_add(shape.length) & mask;
        let linear_behind = behind.wrapping_add(base) & mask;
        Some(Self { behind, linear_behind, address_bytes: shape.address_bytes, until: shape.until })
    }

    /// Whether it has iterations left at this RCX.
    #[must_use]
    pub fn goes_on<C: Cpu + ?Sized>(&self, cpu: &C) -> bool {
        cpu.gpr(gpr::RCX) & (u64::MAX >> (64 - 8 * u32::from(self.address_bytes))) != 0
    }

    /// Whether the last comparison has ended it, by these RFLAGS.
    #[must_use]
    pub const fn ended_by(&self, rflags: u64) -> bool {
        match self.until {
            Until::Counted => false,
            Until::Unequal => rflags & RFLAGS_ZF == 0,
            Until::Equal => rflags & RFLAGS_ZF != 0,
        }
    }
}

struct Shape {
    length: u64,
    address_bytes: u8,
    until: Until,
}

impl Shape {
    /// `wide`: bytes of an address without a prefix.
    fn decode(mut byte: impl FnMut(u64) -> Option<u8>, wide: u8) -> Option<Self> {
        let (mut repeat, mut other_size) = (None, false);
        for at in 0..MAX_LENGTH as u64 {
            match byte(at)? {
                prefix @ (0xf2 | 0xf3) => repeat = Some(prefix),
                0x67 => other_size = true,
                // Operand size, segments.
                0x66 | 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 => {}
                // REX.
                0x40..=0x4f if wide == 8 => {}
                opcode => {
                    let compares = match opcode {
                        0xa4 | 0xa5 | 0xaa..=0xad => false,
                        0xa6 | 0xa7 | 0xae | 0xaf => true,
                        _ => return None,
                    };
                    let until = match repeat? {
                        _ if !compares => Until::Counted,
                        0xf3 => Until::Unequal,
                        _ => Until::Equal,
                    };
                    let address_bytes = match (wide, other_size) {
                        (2, true) | (8, true) | (4, false) => 4,
                        (2, false) | (4, true) => 2,
                        _ => 8,
                    };
                    return Some(Self { length: at + 1, address_bytes, until });
                }
            }
        }
        None
    }
}

/// Fetches bytes as the processor has.
struct Fetcher<'b, B: Bus + ?Sized> {
    paging: Paging,
    bus: Quiet<'b, B>,
    /// The last page: linear, physical.
    page: Option<(u64, u64)>,
}

impl<B: Bus + ?Sized> Fetcher<'_, B> {
    fn byte(&mut self, linear: u64) -> Option<u8> {
        let offset = linear % PAGE;
        let page = match self.page {
            Some((page, physical)) if page == linear - offset => physical,
            _ => {
                let found = self.paging.translate(&mut self.bus, linear - offset, Purpose::Fetch).ok()?;
                self.page = Some((linear - offset, found.physical));
                found.physical
            }
        };
        let mut byte = [0];
        self.bus.read(page + offset, &mut byte).ok()?;
        Some(byte[0])
    }
}

/// A bus over which nothing but memory is read, and nothing written: a walk over it leaves no accessed bits.
struct Quiet<'b, B: Bus + ?Sized>(&'b mut B);

impl<B: Bus + ?Sized> Bus for Quiet<'_, B> {
    fn is_memory(&self, address: u64, length: usize) -> bool {
        self.0.is_memory(address, length)
    }
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), BusError> {
        if self.0.is_memory(address, bytes.len()) {
            self.0.read(address, bytes)
        } else {
            Err(BusError { address })
        }
    }
    fn write(&mut self, _address: u64, _bytes: &[u8]) -> Result<(), BusError> {
        Ok(())
    }
    fn read_port(&mut self, _port: u16, _size: u8) -> u32 {
        0
    }
    fn write_port(&mut self, _port: u16, _size: u8, _value: u32) {}
}
