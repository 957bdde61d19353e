//! The I/O APICs: interrupts of devices become messages to the boot processor. 82093AA data sheet; SDM 3A, 12.11.
//!
//! Only the boot processor touches them, and with interrupts off, so that index and data belong together.

use super::{apic, idt, percpu};
use crate::firmware::madt::{Line, MAX_IO_APICS, Madt};
use crate::hal::Mmio;
use core::fmt;
use hal::Registers;
use heapless::Vec;
use spin::Once;

/// Index and data, the only registers in memory.
const INDEX: usize = 0x00;
const DATA: usize = 0x10;
const WINDOW: usize = 0x20;

/// Indirect registers: version (with the number of the last entry in bits 23:16), first redirection entry.
const VERSION: u32 = 0x01;
const FIRST_ENTRY: u32 = 0x10;

/// Redirection entry, low word: active low, level, masked. Fixed delivery and physical destination are zeros.
const ACTIVE_LOW: u16 = 1 << 13;
const LEVEL: u16 = 1 << 15;
const MASKED: u32 = 1 << 16;

/// The highest APIC identifier that an entry can name without interrupt remapping.
const MAX_DESTINATION: u32 = 254;

struct Unit {
    registers: Mmio,
    /// The global interrupts it serves: first and number.
    first: u32,
    count: u32,
}

static UNITS: Once<Vec<Unit, MAX_IO_APICS>> = Once::new();

/// Why an interrupt cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// No I/O APIC serves this global interrupt.
    NoPin(u32),
    /// The boot processor's APIC identifier does not fit an entry.
    Destination(u32),
}

impl fmt::Display for NoRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoRoute::NoPin(global) => write!(f, "no I/O APIC serves global interrupt {global}"),
            NoRoute::Destination(id) => {
                write!(f, "APIC id {id} cannot be reached without interrupt remapping")
            }
        }
    }
}

/// Finds the I/O APICs and masks all their inputs. Without a MADT, or one that lists none, there are none.
pub fn init(madt: Option<&Madt>) {
    UNITS.call_once(|| {
        let mut units = Vec::new();
        for listed in madt.iter().flat_map(|madt| &madt.io_apics) {
            let Ok(registers) = Mmio::map(listed.address.into(), WINDOW) else {
                log::warn!("I/O APIC {}: no memory for page tables; not used", listed.id);
                continue;
            };
            let mut unit = Unit { registers, first: listed.first_interrupt, count: 0 };
            let version = unit.read(VERSION);
            if version == u32::MAX {
                log::warn!("I/O APIC {} at {:#x} does not answer; not used", listed.id, listed.address);
                continue;
            }
            unit.count = (version >> 16 & 0xFF) + 1;
            (0..unit.count).for_each(|pin| unit.write(FIRST_ENTRY + 2 * pin, MASKED));
            // The MADT's parser has the same limit.
            let _ = units.push(unit);
        }
        units
    });
}

impl Unit {
    fn read(&self, register: u32) -> u32 {
        self.registers.write_u32(INDEX, register);
        self.registers.read_u32(DATA)
    }

    fn write(&self, register: u32, value: u32) {
        self.registers.write_u32(INDEX, register);
        self.registers.write_u32(DATA, value);
    }
}

/// An input that has been given a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    unit: u8,
    pin: u8,
    /// The low word of its entry, not masked: its upper half is zeros.
    entry: u16,
    global: u32,
}

/// Routes `line` to the boot processor as `vector`, handled by `handler`. It stays masked until [`Pin::unmask`].
///
/// # Errors
/// There is no way for it.
pub fn route(line: Line, vector: u8, handler: idt::Handler) -> Result<Pin, NoRoute> {
    let destination = percpu::of(0).apic_id();
    if destination > MAX_DESTINATION || apic::mode() == apic::Mode::None {
        return Err(NoRoute::Destination(destination));
    }
    let serves = |unit: &Unit| line.global.checked_sub(unit.first).is_some_and(|pin| pin < unit.count);
    let units = UNITS.get().map_or(&[][..], |units| &units[..]);
    let unit = units.iter().position(serves).ok_or(NoRoute::NoPin(line.global))?;
    let pin = line.global - units[unit].first;
    let mut entry = u16::from(vector);
    entry |= if line.active_low { ACTIVE_LOW } else { 0 };
    entry |= if line.level { LEVEL } else { 0 };
    idt::set_handler(vector, handler);
    let this = Pin { unit: unit as u8, pin: pin as u8, entry, global: line.global };
    this.mask();
    units[unit].write(FIRST_ENTRY + 2 * pin + 1, destination << 24);
    Ok(this)
}

impl Pin {
    /// The global interrupt.
    pub fn global(self) -> u32 {
        self.global
    }

    /// In one word that is not 0, for a handler.
    pub fn bits(self) -> u64 {
        const VALID: u64 = 1 << 63;
        let place = u64::from(self.unit & 0x7F) << 56 | u64::from(self.pin) << 48;
        VALID | place | u64::from(self.entry) << 32 | u64::from(self.global)
    }

    /// Back from [`Self::bits`].
    pub fn from_bits(bits: u64) -> Option<Pin> {
        (bits != 0).then_some(Pin {
            unit: (bits >> 56) as u8 & 0x7F,
            pin: (bits >> 48) as u8,
            entry: (bits >> 32) as u16,
            global: bits as u32,
        })
    }

    /// Lets no interrupt through. One of an edge that comes meanwhile is lost.
    pub fn mask(self) {
        self.set(u32::from(self.entry) | MASKED);
    }

    /// Lets interrupts through.
    pub fn unmask(self) {
        self.set(self.entry.into());
    }

    fn set(self, entry: u32) {
        if let Some(unit) = UNITS.get().and_then(|units| units.get(usize::from(self.unit))) {
            unit.write(FIRST_ENTRY + 2 * u32::from(self.pin), entry);
        }
    }
}
