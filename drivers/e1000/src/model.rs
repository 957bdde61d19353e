//! A model of the card for tests: registers, rings, and the faults that a driver must survive.
//!
//! It keeps its own idea of the rings and reaches memory only through [`FakeMemory`], which panics on a wild DMA.

use crate::descriptor::Format;
use crate::register::*;
use crate::{Family, InitError, Nic, Rings, igb};
use hal::fake::{FakeClock, FakeDma, FakeMemory, FakeRegisters};
use std::{cell::RefCell, cell::RefMut, collections::BTreeMap, rc::Rc, vec, vec::Vec};

/// A driver on the model.
pub type Driver = Nic<FakeRegisters, FakeDma>;

/// The card's state.
pub struct Inner {
    family: Family,
    memory: FakeMemory,
    registers: BTreeMap<usize, u32>,
    cause: u32,
    pub mask: u32,
    pub eeprom: Vec<u16>,
    /// The PHY's control register; `None`: it does not answer.
    pub phy: Option<u16>,
    pub window: usize,
    pub sent: Vec<Vec<u8>>,
    pub missed_total: u32,
    pub was_reset: bool,
    // Faults.
    pub absent: bool,
    pub stuck_in_reset: bool,
    pub loads_address: bool,
    pub eeprom_answers: bool,
    pub queues_start: bool,
    pub reading_clears: bool,
    /// Descriptors are filled and never marked done.
    pub forgetful: bool,
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
        let mut eeprom = vec![0; 64];
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
            phy: Some(0x1140),
            window: 0x2_0000,
            sent: vec![],
            missed_total: 0,
            was_reset: false,
            absent: false,
            stuck_in_reset: false,
            loads_address: true,
            eeprom_answers: true,
            queues_start: true,
            reading_clears: true,
            forgetful: false,
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
            self.inner().window,
            move |offset| r.borrow_mut().read(offset),
            move |offset, value| w.borrow_mut().write(offset, value),
        );
        let family = self.inner().family;
        Nic::new(registers, &mut self.memory.clone(), &FakeClock::new(100_000), family, rings)
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

    fn chip(&self) -> &'static crate::chip::Chip {
        self.family.chip()
    }

    /// The cable is pulled or plugged.
    pub fn link(&mut self, up: bool) {
        let status = self.get(STATUS) & !STATUS_LU | if up { STATUS_LU } else { 0 };
        self.set(STATUS, status);
        self.cause |= 1 << 2;
    }

    /// As after a network boot: rings that nobody owns any more, receiver and interrupts on.
    pub fn leave_running(&mut self) {
        let queue = self.chip().receive;
        self.set(queue.base_low(), 0x7000_0000);
        self.set(queue.length(), 128);
        self.set(queue.tail(), 7);
        self.set(queue.control(), igb::DCTL_ENABLE);
        self.set(RCTL, RCTL_EN);
        self.mask = !0;
    }

    fn read(&mut self, offset: usize) -> u32 {
        if self.absent {
            return !0;
        }
        let interrupts = self.chip().interrupts;
        match offset {
            _ if offset == interrupts.cause => std::mem::take(&mut self.cause),
            CTRL if self.stuck_in_reset => self.get(CTRL) | CTRL_RST,
            MPC if !self.reading_clears => self.get(MPC),
            MPC | CRCERRS | ALGNERRC | RXERRC | RLEC | ECOL | LATECOL => {
                self.registers.remove(&offset).unwrap_or(0)
            }
            EERD => self.read_eeprom(),
            EEC => EEC_AUTO_RD,
            // Taken by whoever reads a 0.
            SWSM => {
                let value = self.get(SWSM);
                self.set(SWSM, value | 1);
                value
            }
            _ => self.get(offset),
        }
    }

    fn read_eeprom(&self) -> u32 {
        let layout = self.chip().eeprom;
        let request = self.get(EERD);
        if request & 1 == 0 || !self.eeprom_answers {
            return request;
        }
        let word = self.eeprom.get((request >> layout.address_shift) as usize).copied().unwrap_or(0xffff);
        u32::from(word) << 16 | layout.done
    }

    fn write(&mut self, offset: usize, value: u32) {
        let chip = self.chip();
        let interrupts = chip.interrupts;
        match offset {
            _ if offset == interrupts.cause => self.cause &= !value,
            _ if offset == interrupts.provoke => self.cause |= value,
            _ if offset == interrupts.let_through => self.mask |= value,
            _ if offset == interrupts.hold_back => self.mask &= !value,
            CTRL if value & CTRL_RST != 0 => self.reset(),
            CTRL => {
                self.set(CTRL, value);
                let master = if value & CTRL_GIO_MASTER_DISABLE != 0 { 0 } else { STATUS_GIO_MASTER };
                let status = self.get(STATUS) & !STATUS_GIO_MASTER | master;
                self.set(STATUS, status);
            }
            MDIC => self.mdic(value),
            _ if offset == chip.receive.tail() => {
                assert!(self.queue_on(chip.receive.control()) || value == 0, "the tail before the queue");
                self.set(offset, value);
                if self.babble {
                    self.write_raw(self.status(3));
                }
            }
            _ if offset == chip.transmit.tail() || offset == TCTL => {
                self.set(offset, value);
                self.run_transmit();
            }
            _ if offset == chip.receive.control() || offset == chip.transmit.control() => {
                self.set(offset, if self.queues_start { value } else { value & !igb::DCTL_ENABLE });
            }
            _ => self.set(offset, value),
        }
    }

    fn mdic(&mut self, value: u32) {
        let answer = match (self.phy, value >> 16 & 0xfff) {
            (None, _) => 0,
            // Register 0 of PHY 1: read, written.
            (Some(control), 0x820) => 1 << 28 | u32::from(control),
            (Some(_), 0x420) => {
                self.phy = Some(value as u16);
                1 << 28 | value
            }
            _ => 1 << 28 | 1 << 30,
        };
        self.set(MDIC, answer);
    }

    /// The queue is on; before the 82576 it always is.
    fn queue_on(&self, control: usize) -> bool {
        self.family != Family::Igb || self.get(control) & igb::DCTL_ENABLE != 0
    }

    fn reset(&mut self) {
        // The rings' registers keep their values on some cards (SDM 14.3 leaves it open): so here, as a trap.
        let chip = self.chip();
        for offset in [CTRL, TCTL, RCTL, RAL0, RAH0, chip.transmit.control()] {
            self.registers.remove(&offset);
        }
        (self.cause, self.mask, self.was_reset) = (0, 0, true);
        if self.loads_address {
            let [a, b, c] = [self.eeprom[0], self.eeprom[1], self.eeprom[2]].map(u32::from);
            self.set(RAL0, b << 16 | a);
            self.set(RAH0, c | RAH_AV);
        }
    }

    fn ring(&self, queue: crate::chip::Queue) -> u64 {
        u64::from(self.get(queue.base_high())) << 32 | u64::from(self.get(queue.base_low()))
    }

    /// A second word of a receive descriptor with this status and nothing else.
    fn status(&self, status: u8) -> u64 {
        self.word(0, status, 0)
    }

    /// A second word with these fields. `errors` are those of legacy descriptors; any of the damaging ones is RXE.
    fn word(&self, len: u16, status: u8, errors: u8) -> u64 {
        match self.chip().format {
            Format::Legacy => u64::from(len) | u64::from(status) << 32 | u64::from(errors) << 40,
            Format::Advanced => {
                let damaged = u64::from(errors & 0x97 != 0);
                let checksums = u64::from(errors >> 5 & 3);
                u64::from(len) << 32 | u64::from(status) | damaged << 31 | checksums << 29
            }
        }
    }

    fn write_raw(&mut self, word: u64) {
        let queue = self.chip().receive;
        let head = self.get(queue.head());
        if head == self.get(queue.tail()) {
            return;
        }
        let at = self.ring(queue) + u64::from(head) * 16;
        if !self.forgetful {
            if self.chip().format == Format::Advanced {
                // The write-back format has no address: hash and packet type stand there.
                self.memory.device_write(at, &[0xa5; 8]);
            }
            self.memory.device_write(at + 8, &word.to_le_bytes());
        }
        self.set(queue.head(), (head + 1) % (self.get(queue.length()) / 16));
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
        let queue = self.chip().receive;
        if self.get(RCTL) & RCTL_EN == 0 || !self.queue_on(queue.control()) || !self.accepts(frame) {
            return false;
        }
        if self.get(queue.head()) == self.get(queue.tail()) {
            let missed = self.get(MPC) + 1;
            self.set(MPC, missed);
            self.missed_total += 1;
            self.cause |= 1 << 6;
            return false;
        }
        let at = self.ring(queue) + u64::from(self.get(queue.head())) * 16;
        let (mut address, mut second) = ([0; 8], [0; 8]);
        self.memory.device_read(at, &mut address);
        self.memory.device_read(at + 8, &mut second);
        assert_eq!(second, [0; 8], "a descriptor is given to the card with its second word zero");
        self.memory.device_write(u64::from_le_bytes(address), frame);
        let word = self.word(len, status, errors);
        self.write_raw(word);
        self.cause |= 1 << 7;
        true
    }

    pub fn run_transmit(&mut self) {
        let queue = self.chip().transmit;
        if self.stalled || self.get(TCTL) & TCTL_EN == 0 || !self.queue_on(queue.control()) {
            return;
        }
        while self.get(queue.head()) != self.get(queue.tail()) {
            let at = self.ring(queue) + u64::from(self.get(queue.head())) * 16;
            let (mut address, mut word) = ([0; 8], [0; 8]);
            self.memory.device_read(at, &mut address);
            self.memory.device_read(at + 8, &mut word);
            let word = u64::from_le_bytes(word);
            let len = word & 0xffff;
            let wanted = match self.chip().format {
                // EOP, IFCS and RS, nothing else.
                Format::Legacy => 0x0b00_0000,
                // With DEXT, type data, and the payload's length.
                Format::Advanced => 0x2b30_0000 | len << 46,
            };
            assert_eq!(word, wanted | len);
            let mut frame = vec![0; len as usize];
            self.memory.device_read(u64::from_le_bytes(address), &mut frame);
            self.sent.push(frame);
            if !self.forgetful {
                self.memory.device_write(at + 12, &[1]);
            }
            let next = (self.get(queue.head()) + 1) % (self.get(queue.length()) / 16);
            self.set(queue.head(), next);
            self.cause |= 1;
        }
    }
}
