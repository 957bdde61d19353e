//! The interrupt controllers of the board and the wires between them: a pair of 8259A, an I/O APIC, the local APIC of the one
//! processor.
//!
//! As on PCs, ISA lines 0 to 15 go to the PIC and to the I/O APIC, line 0 (the timer) to pin 2 of the latter; the PIC's output goes to
//! LINT0 of the local APIC and to pin 0 of the I/O APIC. What the processor would take is kept up to date after each
//! change: asking for it, which happens at every entry, is one load.

pub mod io_apic;
pub mod local;
pub mod message;
pub mod pic;

use serde::{Deserialize, Serialize};

use crate::context::Instant;
use crate::devices::BadState;
use io_apic::IoApic;
use local::{LocalApic, Written};
use message::Message;
use pic::Pic;

/// All controllers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The pair of 8259A.
    pub pic: pic::State,
    /// The I/O APIC.
    pub io_apic: io_apic::State,
    /// The local APIC.
    pub local: local::State,
}

/// The interrupt controllers.
#[derive(Clone, Debug)]
pub struct Interrupts {
    pic: Pic,
    io_apic: IoApic,
    local: LocalApic,
    /// The PIC asks, and the processor is to ask it for the vector.
    external: bool,
    /// The processor would take an interrupt.
    pending: bool,
}

impl Interrupts {
    /// After power-on: the PIC and the I/O APIC are masked, the local APIC is disabled by software.
    pub fn new() -> Self {
        Self {
            pic: Pic::new(),
            io_apic: IoApic::new(),
            local: LocalApic::new(),
            external: false,
            pending: false,
        }
    }

    /// The state.
    pub fn save(&self) -> State {
        State { pic: self.pic.save(), io_apic: self.io_apic.save(), local: self.local.save() }
    }

    /// The controllers that were saved.
    ///
    /// # Errors
    /// [`BadState`] of any of them.
    pub fn restore(state: State) -> Result<Self, BadState> {
        let pic = Pic::restore(state.pic)?;
        let io_apic = IoApic::restore(state.io_apic)?;
        let local = LocalApic::restore(state.local)?;
        let mut all = Self { pic, io_apic, local, external: false, pending: false };
        if all.pic.output() != all.local.lint0() {
            return Err(BadState("LINT0 is not what the PIC's output is"));
        }
        let apart =
            |line: u8| all.pic.line(line) != all.io_apic.is_asserted(if line == 0 { 2 } else { line });
        if (0..16).filter(|line| *line != 2).any(apart) || all.io_apic.is_asserted(0) != all.pic.output() {
            return Err(BadState("a line differs between the PIC and the I/O APIC"));
        }
        all.update();
        Ok(all)
    }

    /// As after power-on; lines that are asserted stay so when their devices say so again.
    pub fn reset(&mut self) {
        *self = Self::new();
    }

    /// Virtual wire mode, as firmware leaves it: for a kernel that is started without firmware.
    pub fn set_virtual_wire(&mut self) {
        self.local.set_virtual_wire();
        self.update();
    }

    /// Sets the line of a global system interrupt, 0 to 23.
    #[inline]
    pub fn set_line(&mut self, gsi: u8, level: bool) {
        let pin = match gsi {
            0 => 2,
            // The cascade is no line of a device.
            2 => return,
            _ => gsi,
        };
        // Devices say their level after each access; mostly it is what it was.
        if self.io_apic.is_asserted(pin) != level {
            self.change_line(gsi, pin, level);
        }
    }

    fn change_line(&mut self, gsi: u8, pin: u8, level: bool) {
        self.pic.set_line(gsi, level);
        if let Some(message) = self.io_apic.set_pin(pin, level) {
            self.deliver(pin, &message);
        }
        self.update();
    }

    /// An edge on the line of a global system interrupt that is low otherwise.
    pub fn pulse(&mut self, gsi: u8) {
        self.set_line(gsi, true);
        self.set_line(gsi, false);
    }

    /// A device writes this data to this address: a message-signalled interrupt, if the address is one for them.
    pub fn message(&mut self, address: u64, data: u32) {
        if let Some(message) = Message::from_msi(address, data) {
            self.local.receive(&message);
            self.settle();
        }
    }

    /// The board's NMI line is pulsed.
    pub fn nmi_line(&mut self) {
        self.local.nmi_line();
    }

    /// The processor would take an interrupt now if its RFLAGS.IF let it.
    #[inline]
    pub const fn pending(&self) -> bool {
        self.pending
    }

    /// The processor takes an interrupt: its vector, if one is pending.
    #[inline]
    pub fn acknowledge(&mut self) -> Option<u8> {
        if !self.pending {
            return None;
        }
        if self.external {
            let vector = self.pic.acknowledge();
            self.update();
            return Some(vector);
        }
        self.pending = false;
        self.local.acknowledge()
    }

    /// A non-maskable interrupt waits.
    #[inline]
    pub fn nmi_pending(&self) -> bool {
        self.local.nmi()
    }

    /// The processor takes the non-maskable interrupt, if one waits.
    pub fn take_nmi(&mut self) -> bool {
        self.local.take_nmi()
    }

    /// Reads a port of the PIC: 20h, 21h, A0h, A1h, 4D0h, 4D1h.
    pub fn read_port(&mut self, port: u16) -> u8 {
        let value = self.pic.read(port);
        self.update();
        value
    }

    /// Writes a port of the PIC.
    pub fn write_port(&mut self, port: u16, value: u8) {
        self.pic.write(port, value);
        self.update();
    }

    /// Reads the local APIC's page: 32 bits at an offset that is a multiple of 16.
    pub fn read_apic(&mut self, offset: u64, now: Instant) -> u32 {
        let value = self.local.read(offset, now);
        self.settle();
        value
    }

    /// Writes the local APIC's page.
    pub fn write_apic(&mut self, offset: u64, value: u32, now: Instant) {
        let written = self.local.write(offset, value, now);
        self.follow(written);
    }

    /// Reads the I/O APIC's page: 32 bits.
    pub fn read_io_apic(&mut self, offset: u64) -> u32 {
        self.io_apic.read(offset)
    }

    /// Writes the I/O APIC's page.
    pub fn write_io_apic(&mut self, offset: u64, value: u32) {
        self.io_apic.write(offset, value);
        self.deliver_due();
        self.update();
    }

    /// RDMSR of 1Bh, 6E0h (a moment of virtual time), 800h to 8FFh; `None`: #GP.
    pub fn read_msr(&mut self, number: u32, now: Instant) -> Option<u64> {
        let value = self.local.read_msr(number, now);
        self.settle();
        value
    }

    /// WRMSR of the same; `None`: #GP.
    pub fn write_msr(&mut self, number: u32, value: u64, now: Instant) -> Option<()> {
        let written = self.local.write_msr(number, value, now)?;
        self.follow(written);
        Some(())
    }

    /// CR8.
    #[inline]
    pub fn task_priority(&self) -> u8 {
        self.local.task_priority()
    }

    /// CR8; the low four bits count.
    pub fn set_task_priority(&mut self, class: u8) {
        self.local.set_task_priority(class & 0xf);
        self.settle();
    }

    /// When something will happen without an access.
    #[inline]
    pub fn deadline(&self) -> Option<Instant> {
        self.local.deadline()
    }

    /// Lets time pass.
    #[inline]
    pub fn advance(&mut self, now: Instant) {
        if self.local.advance(now) {
            self.settle();
        }
    }

    fn deliver(&mut self, pin: u8, message: &Message) {
        if self.local.receive(message) {
            self.io_apic.taken(pin);
        }
    }

    /// Level-triggered pins that may send now, after an end of interrupt or a change of the table.
    fn deliver_due(&mut self) {
        let mut pins = self.io_apic.asserted();
        while pins != 0 {
            let pin = pins.trailing_zeros() as u8;
            pins &= pins - 1;
            if let Some(message) = self.io_apic.due(pin) {
                self.deliver(pin, &message);
            }
        }
    }

    /// What a write of the local APIC leads to.
    #[inline]
    fn follow(&mut self, written: Written) {
        match written {
            Written::Done => {}
            Written::End(vector) => {
                self.io_apic.end(vector);
                self.deliver_due();
            }
            Written::Retry => self.deliver_due(),
        }
        self.settle();
    }

    /// What the processor would take, after a change of anything.
    fn update(&mut self) {
        let output = self.pic.output();
        // While the PIC is silent, as it is under all systems that use the APICs, nothing depends on it.
        if output || self.local.lint0() {
            self.route_pic(output);
        }
        self.pending = self.external || self.local.deliverable().is_some();
    }

    /// The same, after a change of anything but the PIC, whose output is what is at LINT0.
    #[inline]
    fn settle(&mut self) {
        if self.local.lint0() {
            self.route_pic(true);
        }
        self.pending = self.external || self.local.deliverable().is_some();
    }

    /// The PIC's output goes to its two inputs.
    fn route_pic(&mut self, output: bool) {
        let by_lint0 = self.local.set_lint0(output);
        if let Some(message) = self.io_apic.set_pin(0, output) {
            self.deliver(0, &message);
        }
        let by_pin = output && self.io_apic.open(0).is_some_and(|entry| entry.mode == message::EXTERNAL);
        self.external = by_lint0 || by_pin;
    }
}

impl Default for Interrupts {
    fn default() -> Self {
        Self::new()
    }
}
