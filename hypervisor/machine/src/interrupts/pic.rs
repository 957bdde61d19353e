//! The pair of 8259A interrupt controllers, with the chipset's edge/level control registers (Intel 8259A data sheet; Intel
//! 82371SB for 4D0h and 4D1h).
//!
//! As in chipsets, LTIM in ICW1 is ignored: each line is edge- or level-triggered as ELCR says. A request that came by an edge is kept
//! until it is acknowledged even if its line falls.

use serde::{Deserialize, Serialize};

use crate::devices::BadState;

/// Lines of the master that can be level-triggered: not the timer, the keyboard, the cascade.
const LEVEL_MASTER: u8 = 0xf8;
/// Lines of the slave that can be level-triggered: not the RTC, not the coprocessor.
const LEVEL_SLAVE: u8 = 0xde;
/// The line of the master at which the slave is.
const CASCADE: u8 = 1 << 2;

/// One 8259A.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chip {
    /// Interrupt request register: requests by edges, and levels.
    pub irr: u8,
    /// In-service register.
    pub isr: u8,
    /// Interrupt mask register.
    pub imr: u8,
    /// The lines.
    pub lines: u8,
    /// Lines that are level-triggered.
    pub level: u8,
    /// Interrupt vector of line 0.
    pub base: u8,
    /// The line of the lowest priority.
    pub lowest: u8,
    /// The initialisation command word that is expected next: 2 to 4; 0: none.
    pub next: u8,
    /// ICW4 will come.
    pub needs_icw4: bool,
    /// There is no slave (ICW1).
    pub single: bool,
    /// Automatic end of interrupt.
    pub auto_eoi: bool,
    /// Automatic end of interrupt rotates priorities.
    pub rotate: bool,
    /// Special fully nested mode.
    pub nested: bool,
    /// Special mask mode.
    pub special_mask: bool,
    /// The command port reads as the in-service register.
    pub reads_isr: bool,
    /// The next read is a poll.
    pub poll: bool,
}

impl Chip {
    fn set_line(&mut self, bit: u8, level: bool) {
        let risen = level && self.lines & bit == 0;
        self.lines = self.lines & !bit | if level { bit } else { 0 };
        if risen || self.level & bit != 0 {
            self.irr = self.irr & !bit | self.lines & bit;
        }
    }

    /// The line of the highest priority in this set, in order of priority from 0.
    fn first(&self, set: u8) -> Option<u8> {
        let rotated = set.rotate_right(u32::from(self.lowest + 1) & 7);
        (rotated != 0).then(|| rotated.trailing_zeros() as u8)
    }

    fn line(&self, priority: u8) -> u8 {
        (priority + self.lowest + 1) & 7
    }

    /// The line that the chip asks to be served, if its INT output is active.
    fn request(&self, master: bool) -> Option<u8> {
        let asking = self.first(self.irr & !self.imr)?;
        let mut serving = self.isr;
        if self.special_mask {
            serving &= !self.imr;
        }
        if master && self.nested {
            // A slave in service may interrupt itself by a line of a higher priority.
            serving &= !CASCADE;
        }
        let blocked = self.first(serving).is_some_and(|serving| serving <= asking);
        (!blocked).then(|| self.line(asking))
    }

    fn acknowledge(&mut self, line: u8) {
        let bit = 1 << line;
        if self.level & bit == 0 {
            self.irr &= !bit;
        }
        if !self.auto_eoi {
            self.isr |= bit;
        } else if self.rotate {
            self.lowest = line;
        }
    }

    /// Non-specific end of interrupt: what has the highest priority. Returns its line.
    fn end_first(&mut self) -> Option<u8> {
        let serving = if self.special_mask { self.isr & !self.imr } else { self.isr };
        let line = self.line(self.first(serving)?);
        self.isr &= !(1 << line);
        Some(line)
    }

    fn write_command(&mut self, value: u8) {
        match value & 0x18 {
            0x10 | 0x18 => {
                // ICW1. Edges seen so far are forgotten; a level is still there.
                *self = Self {
                    lines: self.lines,
                    level: self.level,
                    irr: self.lines & self.level,
                    base: self.base,
                    lowest: 7,
                    next: 2,
                    needs_icw4: value & 1 != 0,
                    single: value & 2 != 0,
                    ..Self::default()
                };
            }
            0x00 => self.write_ocw2(value),
            _ => {
                // OCW3.
                self.poll = value & 4 != 0;
                if value & 2 != 0 {
                    self.reads_isr = value & 1 != 0;
                }
                if value & 0x40 != 0 {
                    self.special_mask = value & 0x20 != 0;
                }
            }
        }
    }

    fn write_ocw2(&mut self, value: u8) {
        let line = value & 7;
        match value >> 5 {
            0 => self.rotate = false,
            4 => self.rotate = true,
            1 => {
                self.end_first();
            }
            5 => {
                if let Some(line) = self.end_first() {
                    self.lowest = line;
                }
            }
            3 => self.isr &= !(1 << line),
            7 => {
                self.isr &= !(1 << line);
                self.lowest = line;
            }
            6 => self.lowest = line,
            _ => {}
        }
    }

    fn write_data(&mut self, value: u8) {
        match self.next {
            2 => {
                self.base = value & 0xf8;
                self.next = match (self.single, self.needs_icw4) {
                    (false, _) => 3,
                    (true, true) => 4,
                    (true, false) => 0,
                };
            }
            // ICW3: the wiring is fixed.
            3 => self.next = if self.needs_icw4 { 4 } else { 0 },
            4 => {
                self.auto_eoi = value & 2 != 0;
                self.nested = value & 0x10 != 0;
                self.next = 0;
            }
            _ => self.imr = value,
        }
    }

    fn read(&mut self, data: bool, master: bool) -> u8 {
        if core::mem::take(&mut self.poll) {
            // The read acts as an acknowledge.
            return self.request(master).map_or(0, |line| {
                self.acknowledge(line);
                0x80 | line
            });
        }
        match (data, self.reads_isr) {
            (true, _) => self.imr,
            (false, true) => self.isr,
            (false, false) => self.irr,
        }
    }

    fn set_level(&mut self, level: u8) {
        self.level = level;
        self.irr = self.irr & !level | self.lines & level;
    }
}

/// Both chips.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Master, then slave.
    pub chips: [Chip; 2],
}

/// The pair of 8259A.
#[derive(Clone, Debug)]
pub struct Pic(State);

impl Pic {
    /// After power-on: everything is masked until firmware or the kernel programs them.
    pub fn new() -> Self {
        let chip = Chip { imr: 0xff, lowest: 7, ..Chip::default() };
        Self(State { chips: [chip.clone(), chip] })
    }

    /// The state.
    pub fn save(&self) -> State {
        self.0.clone()
    }

    /// The pair that was saved.
    ///
    /// # Errors
    /// [`BadState`] for what no access leaves behind.
    pub fn restore(state: State) -> Result<Self, BadState> {
        for (chip, levels) in state.chips.iter().zip([LEVEL_MASTER, LEVEL_SLAVE]) {
            if chip.lowest > 7 || !matches!(chip.next, 0 | 2..=4) || chip.base & 7 != 0 {
                return Err(BadState("a field of a PIC is out of range"));
            }
            if chip.level & !levels != 0 || (chip.irr ^ chip.lines) & chip.level != 0 {
                return Err(BadState("a level-triggered line of a PIC is not what its line is"));
            }
        }
        let mut pic = Self(state);
        let cascade = pic.0.chips[0].irr;
        pic.cascade();
        if pic.0.chips[0].irr != cascade {
            return Err(BadState("the cascade of the PICs is not what the slave asks for"));
        }
        Ok(pic)
    }

    /// Sets an ISA line, 0 to 15.
    pub fn set_line(&mut self, line: u8, level: bool) {
        let [master, slave] = &mut self.0.chips;
        match line {
            // Nothing but the slave is at line 2.
            0..=1 | 3..=7 => master.set_line(1 << line, level),
            8..=15 => {
                slave.set_line(1 << (line - 8), level);
                self.cascade();
            }
            _ => {}
        }
    }

    /// The level of an ISA line, 0 to 15.
    pub const fn line(&self, line: u8) -> bool {
        let [master, slave] = &self.0.chips;
        let lines = (slave.lines as u16) << 8 | master.lines as u16;
        lines.unbounded_shr(line as u32) & 1 != 0
    }

    /// The master's INT output.
    pub fn output(&self) -> bool {
        self.0.chips[0].request(true).is_some()
    }

    /// The processor acknowledges (both INTA cycles): the vector. With nothing to serve it is that of a spurious IRQ 7 or 15.
    pub fn acknowledge(&mut self) -> u8 {
        let [master, slave] = &mut self.0.chips;
        let Some(line) = master.request(true) else { return master.base | 7 };
        master.acknowledge(line);
        if line != 2 {
            return master.base | line;
        }
        let vector = match slave.request(false) {
            Some(line) => {
                slave.acknowledge(line);
                slave.base | line
            }
            None => slave.base | 7,
        };
        self.cascade();
        vector
    }

    /// Reads 20h, 21h, A0h, A1h, 4D0h or 4D1h.
    pub fn read(&mut self, port: u16) -> u8 {
        let [master, slave] = &mut self.0.chips;
        let value = match port {
            0x20 => master.read(false, true),
            0x21 => master.read(true, true),
            0xa0 => slave.read(false, false),
            0xa1 => slave.read(true, false),
            0x4d0 => master.level,
            0x4d1 => slave.level,
            _ => 0xff,
        };
        // A poll may have acknowledged.
        self.cascade();
        value
    }

    /// Writes one of these ports.
    pub fn write(&mut self, port: u16, value: u8) {
        let [master, slave] = &mut self.0.chips;
        match port {
            0x20 => master.write_command(value),
            0x21 => master.write_data(value),
            0xa0 => slave.write_command(value),
            0xa1 => slave.write_data(value),
            0x4d0 => master.set_level(value & LEVEL_MASTER),
            0x4d1 => slave.set_level(value & LEVEL_SLAVE),
            _ => {}
        }
        self.cascade();
    }

    /// The master's line 2 follows the slave's output; a request that the slave takes back is gone.
    fn cascade(&mut self) {
        let [master, slave] = &mut self.0.chips;
        let asking = slave.request(false).is_some();
        master.irr = master.irr & !CASCADE | if asking { CASCADE } else { 0 };
    }
}

impl Default for Pic {
    fn default() -> Self {
        Self::new()
    }
}
