//! Base address registers: decoding and sizing (PCI Local Bus 3.0, 6.2.5).

use crate::{Address, ConfigSpace, Function, command, register};
use core::fmt;

/// What one base address register asks for and has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bar {
    /// A window in memory.
    Memory {
        /// First byte as programmed by firmware; 0 means not assigned.
        address: u64,
        /// Length in bytes, a power of two.
        size: u64,
        /// Reads have no side effects.
        prefetchable: bool,
        /// Takes two registers and may lie above 4 GiB.
        wide: bool,
    },
    /// A range of ports.
    Io {
        /// First port as programmed by firmware; 0 means not assigned.
        port: u32,
        /// Number of ports, a power of two.
        size: u32,
    },
}

impl Bar {
    /// Address and size of a memory window that firmware assigned; `None` for ports and unassigned windows.
    pub const fn memory(self) -> Option<(u64, u64)> {
        match self {
            Self::Memory { address, size, .. } if address != 0 => Some((address, size)),
            _ => None,
        }
    }
}

/// Why a function's registers make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarError {
    /// A memory type that is reserved (bits 2:1 = 3, or 1 since PCI 3.0).
    ReservedType {
        /// Which register, 0 to 5.
        index: usize,
        /// What it holds.
        value: u32,
    },
    /// A 64-bit window in the last register, so that its high half does not exist.
    NoHighHalf {
        /// Which register, 0 to 5.
        index: usize,
    },
    /// The writable bits are not one run up to the top: no power of two fits.
    NotAPowerOfTwo {
        /// Which register, 0 to 5.
        index: usize,
        /// The writable address bits.
        mask: u64,
    },
}

impl fmt::Display for BarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReservedType { index, value } => {
                write!(f, "BAR {index} ({value:#010x}) has a reserved type")
            }
            Self::NoHighHalf { index } => write!(f, "BAR {index} is 64 bits wide but is the last one"),
            Self::NotAPowerOfTwo { index, mask } => {
                write!(f, "BAR {index} decodes the address bits {mask:#x}, which is no power of two")
            }
        }
    }
}

impl core::error::Error for BarError {}

/// By register number; the high half of a 64-bit window and unimplemented registers are `None`.
pub type Bars = [Option<Bar>; 6];

/// Reads and sizes all base address registers of `function`.
///
/// Sizing writes all ones and restores the old value. Meanwhile the function must not decode addresses, so its memory
/// and port decoding is switched off and on again: nobody may use the device during the call.
pub fn read_bars(config: &mut (impl ConfigSpace + ?Sized), function: &Function) -> Result<Bars, BarError> {
    let address = function.address;
    let before = config.modify_command(address, command::IO | command::MEMORY, 0);
    let bars = read_all(config, address, function.bar_count());
    config.modify_command(address, command::IO | command::MEMORY, before & (command::IO | command::MEMORY));
    bars
}

fn read_all(
    config: &mut (impl ConfigSpace + ?Sized),
    address: Address,
    count: usize,
) -> Result<Bars, BarError> {
    let mut bars = [None; 6];
    let mut index = 0;
    while index < count {
        let (bar, used) = read_one(config, address, index, count)?;
        bars[index] = bar;
        index += used;
    }
    Ok(bars)
}

/// The bar at `index` and how many registers it takes.
fn read_one(
    config: &mut (impl ConfigSpace + ?Sized),
    address: Address,
    index: usize,
    count: usize,
) -> Result<(Option<Bar>, usize), BarError> {
    let offset = register::BAR0 + 4 * index as u16;
    let value = config.read_u32(address, offset);
    let probe = probe(config, address, offset, value);
    if probe == 0 {
        return Ok((None, 1));
    }
    if value & 1 != 0 {
        let bits = probe & !3;
        // The upper half may be hard-wired to zero: ports have 16 bits on PCs.
        let bits = if bits & 0xffff_0000 == 0 { bits | 0xffff_0000 } else { bits };
        let size = size_of(index, u64::from(bits) | !0 << 32)?;
        return Ok((Some(Bar::Io { port: value & !3, size: size as u32 }), 1));
    }
    let prefetchable = value & 8 != 0;
    match value >> 1 & 3 {
        0 => {
            let size = size_of(index, u64::from(probe & !0xf) | !0 << 32)?;
            Ok((Some(Bar::Memory { address: u64::from(value & !0xf), size, prefetchable, wide: false }), 1))
        }
        2 if index + 1 < count => {
            let high = config.read_u32(address, offset + 4);
            let high_probe = self::probe(config, address, offset + 4, high);
            let size = size_of(index, u64::from(high_probe) << 32 | u64::from(probe & !0xf))?;
            let address = u64::from(high) << 32 | u64::from(value & !0xf);
            Ok((Some(Bar::Memory { address, size, prefetchable, wide: true }), 2))
        }
        2 => Err(BarError::NoHighHalf { index }),
        _ => Err(BarError::ReservedType { index, value }),
    }
}

/// What the register reads back after all ones were written; its value is restored.
fn probe(config: &mut (impl ConfigSpace + ?Sized), address: Address, offset: u16, value: u32) -> u32 {
    config.write_u32(address, offset, !0);
    let read = config.read_u32(address, offset);
    config.write_u32(address, offset, value);
    read
}

fn size_of(index: usize, mask: u64) -> Result<u64, BarError> {
    // A mask of one run of ones up to the top, whose lowest one is the size.
    let size = mask & mask.wrapping_neg();
    if mask == 0 || mask != size.wrapping_neg() {
        return Err(BarError::NotAPowerOfTwo { index, mask });
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeBus;
    use std::string::ToString;

    fn setup() -> (FakeBus, Address) {
        let mut bus = FakeBus::new();
        let a = bus.endpoint(0, 3, 0, 0x8086, 0x100e);
        (bus, a)
    }

    fn read(bus: &mut FakeBus, a: Address) -> Result<Bars, BarError> {
        let f = Function::read(bus, a).unwrap();
        read_bars(bus, &f)
    }

    #[test]
    fn the_bars_of_an_e1000() {
        let (mut bus, a) = setup();
        bus.bar(a, 0, 0xfebc_0000, 0xfffe_0000);
        bus.bar(a, 1, 0xc001, 0xffff_ffc0);
        let bars = read(&mut bus, a).unwrap();
        let memory = Bar::Memory { address: 0xfebc_0000, size: 0x2_0000, prefetchable: false, wide: false };
        assert_eq!(bars[0], Some(memory));
        assert_eq!(memory.memory(), Some((0xfebc_0000, 0x2_0000)));
        assert_eq!(bars[1], Some(Bar::Io { port: 0xc000, size: 64 }));
        assert_eq!(bars[2..], [None; 4]);
    }

    #[test]
    fn wide_windows_take_two_registers() {
        let (mut bus, a) = setup();
        bus.bar(a, 0, 0x000c, 0xffff_c000);
        bus.bar(a, 1, 0x38, 0xffff_ffff);
        bus.bar(a, 2, 0x4, 0);
        bus.bar(a, 3, 0x20, 0xffff_fff0);
        let bars = read(&mut bus, a).unwrap();
        let nvme = Bar::Memory { address: 0x38 << 32, size: 0x4000, prefetchable: true, wide: true };
        assert_eq!((bars[0], bars[1]), (Some(nvme), None));
        // 64 GiB: no writable bit in the low register at all.
        let huge = Bar::Memory { address: 0x20 << 32, size: 1 << 36, prefetchable: false, wide: true };
        assert_eq!((bars[2], bars[3]), (Some(huge), None));
    }

    #[test]
    fn sixteen_bit_ports() {
        let (mut bus, a) = setup();
        bus.bar(a, 0, 0x1f01, 0x0000_ff80);
        assert_eq!(read(&mut bus, a).unwrap()[0], Some(Bar::Io { port: 0x1f00, size: 128 }));
    }

    #[test]
    fn sizing_leaves_no_trace_and_happens_with_decoding_off() {
        let (mut bus, a) = setup();
        bus.bar(a, 0, 0xfebc_0000, 0xfffe_0000);
        bus.bar(a, 1, 0xc001, 0xffff_ffc0);
        bus.write_command(a, command::IO | command::MEMORY | command::BUS_MASTER);
        bus.writes.clear();
        read(&mut bus, a).unwrap();
        assert_eq!(bus.command(a), command::IO | command::MEMORY | command::BUS_MASTER);
        assert_eq!(bus.read_u32(a, register::BAR0), 0xfebc_0000);
        assert_eq!(bus.read_u32(a, register::BAR0 + 4), 0xc001);
        assert_eq!(bus.writes.first(), Some(&(a, register::COMMAND, u32::from(command::BUS_MASTER))));
        assert_eq!(bus.writes.last().map(|w| w.1), Some(register::COMMAND));
    }

    #[test]
    fn nonsense_is_named_and_decoding_comes_back() {
        for (index, value, mask, text) in [
            (5, 0x4, 0xffff_0000, "BAR 5 is 64 bits wide but is the last one"),
            (1, 0x6, 0xffff_0000, "BAR 1 (0x00000006) has a reserved type"),
            (
                0,
                0x0,
                0xf0f0_0000,
                "BAR 0 decodes the address bits 0xfffffffff0f00000, which is no power of two",
            ),
        ] {
            let (mut bus, a) = setup();
            bus.bar(a, index, value, mask);
            bus.write_command(a, command::MEMORY);
            assert_eq!(read(&mut bus, a).unwrap_err().to_string(), text);
            assert_eq!(bus.command(a), command::MEMORY);
        }
    }

    #[test]
    fn a_bridge_has_two() {
        let mut bus = FakeBus::new();
        let a = bus.bridge(0, 1, 0, 1, 1);
        bus.bar(a, 0, 0xfe00_0000, 0xffff_f000);
        let bars = read(&mut bus, a).unwrap();
        assert_eq!(bars[0].and_then(Bar::memory), Some((0xfe00_0000, 0x1000)));
        assert_eq!(bars[1..], [None; 5]);
    }
}
