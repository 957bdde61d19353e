//! A model of the card for tests: registers, rings, and the faults that a driver must survive.
//!
//! It keeps its own idea of the rings and reaches memory only through [`FakeMemory`], which panics on a wild DMA.

use crate::register::*;
use crate::{E1000, InitError, Rings};
use hal::fake::{FakeClock, FakeDma, FakeMemory, FakeRegisters};
use std::{cell::RefCell, cell::RefMut, collections::BTreeMap, rc::Rc, vec, vec::Vec};

/// A driver on the model.
pub type Driver = E1000<FakeRegisters, FakeDma>;

/// The card's state.
pub struct Inner {
    family: Family,
    memory: FakeMemory,
    registers: BTreeMap<usize, u32>,
    cause: u32,
    pub mask: u32,
    pub eeprom: [u16; 64],
    pub sent: Vec<Vec<u8>>,
    pub missed_total: u32,
    pub was_reset: bool,
    // Faults.
    pub absent: bool,
    pub stuck_in_reset: bool,
    pub loads_address: bool,
    pub eeprom_answers: bool,
    /// The wire takes nothing.
    pub stalled: bool,
    /// Descriptors that are given back are marked done again at once.
    pub babble: bool,
}

/// The card in its slot.
#[derive(Clone)]
pub struct Card {
    inner: Rc<RefCell<Inner>>,
    pub memory: FakeMemory,
}

impl Card {
    pub const MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

    pub fn new(family: Family) -> Self {
        let memory = FakeMemory::new();
        let mut eeprom = [0; 64];
        for (word, pair) in eeprom.iter_mut().zip(Self::MAC.chunks(2)) {
            *word = u16::from_le_bytes([pair[0], pair[1]]);
        }
        let mut inner = Inner {
            family,
            memory: memory.clone(),
            registers: BTreeMap::new(),
            cause: 0,
            mask: !0,
            eeprom,
            sent: vec![],
            missed_total: 0,
            was_reset: false,
            absent: false,
            stuck_in_reset: false,
            loads_address: true,
            eeprom_answers: true,
            stalled: false,
            babble: false,
        };
        inner.set(STATUS, 0x83);
        Self { inner: Rc::new(RefCell::new(inner)), memory }
    }

    pub fn inner(&self) -> RefMut<'_, Inner> {
        self.inner.borrow_mut()
    }

    /// Starts the driver on this card.
    pub fn driver(&self, rings: Rings) -> Result<Driver, InitError> {
        let (r, w) = (self.inner.clone(), self.inner.clone());
        let registers = FakeRegisters::new(
            0x2_0000,
            move |offset| r.borrow_mut().read(offset),
            move |offset, value| w.borrow_mut().write(offset, value),
        );
        let family = self.inner().family;
        E1000::new(registers, &mut self.memory.clone(), &FakeClock::new(100_000), family, rings)
    }

    /// A good frame comes down the wire. False: it was missed, or the receiver is off.
    pub fn receive(&self, frame: &[u8]) -> bool {
        self.inner().receive(frame, frame.len() as u16, 3, 0)
    }

    /// A frame comes with this length, status and errors in its descriptor.
    pub fn receive_with(&self, frame: &[u8], len: u16, status: u8, errors: u8) -> bool {
        self.inner().receive(frame, len, status, errors)
    }

    /// Writes a second word into the next receive descriptor.
    pub fn write_raw(&self, word: u64) {
        self.inner().write_raw(word);
    }

    pub fn run_transmit(&self) {
        self.inner().run_transmit();
    }
}

impl Inner {
    pub fn get(&self, offset: usize) -> u32 {
        self.registers.get(&offset).copied().unwrap_or(0)
    }

    pub fn set(&mut self, offset: usize, value: u32) {
        self.registers.insert(offset, value);
    }

    pub fn interrupt(&self) -> bool {
        self.cause & self.mask != 0
    }

    /// As after a network boot: rings that nobody owns any more, receiver and interrupts on.
    pub fn leave_running(&mut self) {
        self.set(RDBAL, 0x7000_0000);
        self.set(RDLEN, 128);
        self.set(RDT, 7);
        self.set(RCTL, RCTL_EN);
        self.mask = !0;
    }

    fn read(&mut self, offset: usize) -> u32 {
        if self.absent {
            return !0;
        }
        match offset {
            ICR => std::mem::take(&mut self.cause),
            CTRL if self.stuck_in_reset => self.get(CTRL) | CTRL_RST,
            MPC | CRCERRS | ALGNERRC | RXERRC | RLEC | ECOL | LATECOL => {
                self.registers.remove(&offset).unwrap_or(0)
            }
            EERD => self.read_eeprom(),
            _ => self.get(offset),
        }
    }

    fn read_eeprom(&self) -> u32 {
        let (shift, done) = match self.family {
            Family::I8254x => (8, 1 << 4),
            Family::I82574 => (2, 1 << 1),
        };
        let request = self.get(EERD);
        if request & 1 == 0 || !self.eeprom_answers {
            return request;
        }
        u32::from(self.eeprom[(request >> shift & 0x3f) as usize]) << 16 | request & 0xfffe | done
    }

    fn write(&mut self, offset: usize, value: u32) {
        match offset {
            CTRL if value & CTRL_RST != 0 => self.reset(),
            CTRL => {
                self.set(CTRL, value);
                let master = if value & CTRL_GIO_MASTER_DISABLE != 0 { 0 } else { STATUS_GIO_MASTER };
                let status = self.get(STATUS) & !STATUS_GIO_MASTER | master;
                self.set(STATUS, status);
            }
            ICR => self.cause &= !value,
            ICS => self.cause |= value,
            IMS => self.mask |= value,
            IMC => self.mask &= !value,
            RDT if self.babble => {
                self.set(RDT, value);
                self.write_raw(3 << 32);
            }
            TDT | TCTL => {
                self.set(offset, value);
                self.run_transmit();
            }
            _ => self.set(offset, value),
        }
    }

    fn reset(&mut self) {
        // The rings' registers keep their values on some cards (SDM 14.3 leaves it open): so here, as a trap.
        for offset in [CTRL, TCTL, RCTL, RAL0, RAH0, TXDCTL] {
            self.registers.remove(&offset);
        }
        (self.cause, self.mask, self.was_reset) = (0, 0, true);
        if self.loads_address {
            let [a, b, c] = [self.eeprom[0], self.eeprom[1], self.eeprom[2]].map(u32::from);
            self.set(RAL0, b << 16 | a);
            self.set(RAH0, c | RAH_AV);
        }
    }

    fn ring(&self, low: usize, high: usize) -> u64 {
        u64::from(self.get(high)) << 32 | u64::from(self.get(low))
    }

    fn write_raw(&mut self, word: u64) {
        let head = self.get(RDH);
        if head == self.get(RDT) {
            return;
        }
        let at = self.ring(RDBAL, RDBAH) + u64::from(head) * 16;
        self.memory.device_write(at + 8, &word.to_le_bytes());
        self.set(RDH, (head + 1) % (self.get(RDLEN) / 16));
    }

    /// SDM 14.4: exact addresses, groups by MPE (the table stays empty), everything by UPE.
    fn accepts(&self, frame: &[u8]) -> bool {
        let rctl = self.get(RCTL);
        let to = &frame[..6];
        if to == [0xff; 6] {
            return rctl & RCTL_BAM != 0;
        }
        if to[0] & 1 != 0 {
            return rctl & RCTL_MPE != 0;
        }
        rctl & RCTL_UPE != 0
            || [(RAL0, RAH0), (RAL1, RAH1)].iter().any(|(low, high)| {
                let high = self.get(*high);
                high & RAH_AV != 0
                    && self.get(*low).to_le_bytes() == to[..4]
                    && high.to_le_bytes()[..2] == to[4..]
            })
    }

    fn receive(&mut self, frame: &[u8], len: u16, status: u8, errors: u8) -> bool {
        if self.get(RCTL) & RCTL_EN == 0 || !self.accepts(frame) {
            return false;
        }
        if self.get(RDH) == self.get(RDT) {
            let missed = self.get(MPC) + 1;
            self.set(MPC, missed);
            self.missed_total += 1;
            self.cause |= 1 << 6;
            return false;
        }
        let at = self.ring(RDBAL, RDBAH) + u64::from(self.get(RDH)) * 16;
        let mut address = [0; 8];
        self.memory.device_read(at, &mut address);
        self.memory.device_write(u64::from_le_bytes(address), frame);
        let word = u64::from(len) | u64::from(status) << 32 | u64::from(errors) << 40;
        self.write_raw(word);
        self.cause |= 1 << 7;
        true
    }

    pub fn run_transmit(&mut self) {
        if self.stalled || self.get(TCTL) & TCTL_EN == 0 {
            return;
        }
        while self.get(TDH) != self.get(TDT) {
            let at = self.ring(TDBAL, TDBAH) + u64::from(self.get(TDH)) * 16;
            let (mut address, mut word) = ([0; 8], [0; 8]);
            self.memory.device_read(at, &mut address);
            self.memory.device_read(at + 8, &mut word);
            let word = u64::from_le_bytes(word);
            assert_eq!(word >> 24 & 0xff, 0x0b, "EOP, IFCS and RS, nothing else");
            let mut frame = vec![0; (word & 0xffff) as usize];
            self.memory.device_read(u64::from_le_bytes(address), &mut frame);
            self.sent.push(frame);
            self.memory.device_write(at + 12, &[1]);
            let next = (self.get(TDH) + 1) % (self.get(TDLEN) / 16);
            self.set(TDH, next);
            self.cause |= 1;
        }
    }
}
