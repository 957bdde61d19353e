//! The I/O APIC: 24 pins (Intel 82093AA data sheet; the EOI register and version 20h are those of later chipsets).
//!
//! A pin's level here means "asserted": the polarity that the guest programs is kept and does not matter.

use serde::{Deserialize, Serialize};

use super::message::Message;
use crate::devices::BadState;

/// Pins.
pub const PINS: usize = 24;

/// Offsets in the page: index, window, end of interrupt.
const INDEX: u64 = 0x00;
const WINDOW: u64 = 0x10;
const EOI: u64 = 0x40;

/// Indirect registers: identification, version, arbitration, the first of the redirection table.
const ID: u8 = 0x00;
const VERSION: u8 = 0x01;
const ARBITRATION: u8 = 0x02;
const TABLE: u8 = 0x10;
/// 24 entries, version 20h.
const VERSION_READS: u32 = (PINS as u32 - 1) << 16 | 0x20;
const ID_BITS: u32 = 0x0f00_0000;

/// Redirection entry.
const VECTOR: u64 = 0xff;
const REMOTE_IRR: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;
/// Vector, delivery mode, destination mode, polarity, trigger mode, mask; destination.
const WRITABLE: u64 = 0xff00_0000_0001_afff;

/// The registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The indirect register that the window reaches.
    pub index: u8,
    /// Identification.
    pub id: u32,
    /// The redirection table.
    pub table: [u64; PINS],
    /// Asserted pins.
    pub asserted: u32,
}

/// An I/O APIC.
#[derive(Clone, Debug)]
pub struct IoApic(State);

impl IoApic {
    /// After power-on: every pin is masked.
    pub const fn new() -> Self {
        Self(State { index: 0, id: 0, table: [MASKED; PINS], asserted: 0 })
    }

    /// The state.
    pub fn save(&self) -> State {
        self.0.clone()
    }

    /// The I/O APIC that was saved.
    ///
    /// # Errors
    /// [`BadState`] for bits that no access sets.
    pub fn restore(state: State) -> Result<Self, BadState> {
        let entry_is_bad = |entry: &u64| {
            let edge_with_remote_irr = entry & (LEVEL | REMOTE_IRR) == REMOTE_IRR;
            entry & !(WRITABLE | REMOTE_IRR) != 0 || edge_with_remote_irr
        };
        if state.table.iter().any(entry_is_bad) || state.id & !ID_BITS != 0 || state.asserted >> PINS != 0 {
            return Err(BadState("a register of the I/O APIC has bits that it has not"));
        }
        Ok(Self(state))
    }

    /// Whether a pin is asserted.
    #[inline]
    pub const fn is_asserted(&self, pin: u8) -> bool {
        self.0.asserted.unbounded_shr(pin as u32) & 1 != 0
    }

    /// All asserted pins.
    pub const fn asserted(&self) -> u32 {
        self.0.asserted
    }

    /// Sets a pin. A message that comes back goes to the local APIC; whether it is taken is told by
    /// [`taken`](Self::taken).
    #[inline]
    pub fn set_pin(&mut self, pin: u8, level: bool) -> Option<Message> {
        let bit = 1_u32.checked_shl(u32::from(pin)).filter(|_| usize::from(pin) < PINS)?;
        let was = self.0.asserted & bit != 0;
        self.0.asserted = self.0.asserted & !bit | if level { bit } else { 0 };
        let entry = self.0.table[usize::from(pin)];
        match (entry & LEVEL != 0, level && !was) {
            (true, _) => self.due(pin),
            // An edge at a masked pin is lost.
            (false, true) if entry & MASKED == 0 => Some(message(entry)),
            (false, _) => None,
        }
    }

    /// The message that a level-triggered pin has to send: asserted, not masked, not already being served.
    pub fn due(&self, pin: u8) -> Option<Message> {
        let entry = *self.0.table.get(usize::from(pin))?;
        let asserted = self.0.asserted >> pin & 1 != 0;
        (asserted && entry & (LEVEL | MASKED | REMOTE_IRR) == LEVEL).then(|| message(entry))
    }

    /// The local APIC has taken the message of this level-triggered pin.
    pub fn taken(&mut self, pin: u8) {
        if let Some(entry) = self.0.table.get_mut(usize::from(pin))
            && *entry & LEVEL != 0
        {
            *entry |= REMOTE_IRR;
        }
    }

    /// The end of an interrupt with this vector, by broadcast or by the EOI register. Pins may be [`due`](Self::due) again.
    pub fn end(&mut self, vector: u8) {
        for entry in &mut self.0.table {
            if *entry & VECTOR == u64::from(vector) {
                *entry &= !REMOTE_IRR;
            }
        }
    }

    /// The entry of a pin that is not masked.
    pub fn open(&self, pin: usize) -> Option<Message> {
        self.0.table.get(pin).filter(|entry| *entry & MASKED == 0).map(|entry| message(*entry))
    }

    /// Reads the page.
    pub fn read(&self, offset: u64) -> u32 {
        match offset {
            INDEX => u32::from(self.0.index),
            WINDOW => self.read_register(self.0.index),
            _ => 0,
        }
    }

    /// Writes the page. Pins may be [`due`](Self::due) afterwards.
    pub fn write(&mut self, offset: u64, value: u32) {
        match offset {
            INDEX => self.0.index = value as u8,
            WINDOW => self.write_register(self.0.index, value),
            EOI => self.end(value as u8),
            _ => {}
        }
    }

    fn read_register(&self, index: u8) -> u32 {
        match index {
            ID | ARBITRATION => self.0.id,
            VERSION => VERSION_READS,
            TABLE.. => {
                let at = usize::from(index - TABLE);
                self.0.table.get(at / 2).map_or(0, |entry| (entry >> (at % 2 * 32)) as u32)
            }
            _ => 0,
        }
    }

    fn write_register(&mut self, index: u8, value: u32) {
        match index {
            ID => self.0.id = value & ID_BITS,
            TABLE.. => {
                let at = usize::from(index - TABLE);
                let Some(entry) = self.0.table.get_mut(at / 2) else { return };
                let shift = at % 2 * 32;
                let mask = WRITABLE & 0xffff_ffff << shift;
                *entry = *entry & !mask | u64::from(value) << shift & mask;
                if *entry & LEVEL == 0 {
                    // An edge-triggered pin has no remote IRR: software clears a stuck one this way.
                    *entry &= !REMOTE_IRR;
                }
            }
            _ => {}
        }
    }
}

impl Default for IoApic {
    fn default() -> Self {
        Self::new()
    }
}

fn message(entry: u64) -> Message {
    Message {
        vector: entry as u8,
        mode: (entry >> 8) as u8 & 7,
        logical: entry >> 11 & 1 != 0,
        level: entry & LEVEL != 0,
        destination: (entry >> 56) as u8,
    }
}
