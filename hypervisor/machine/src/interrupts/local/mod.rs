//! The local APIC of the one virtual processor (SDM 3A, chapter 12): xAPIC registers, state and priorities.
//!
//! Its ID is 0. Left out, and said so by the version register or CPUID: CMCI, suppression of EOI broadcasts. INIT, SIPI and
//! SMI have no effect.

pub mod timer;
pub mod vectors;
mod x2apic;

use serde::{Deserialize, Serialize};

use super::message::{self, Message};
use crate::context::Instant;
use crate::devices::BadState;
use timer::Mode;
use vectors::Vectors;

/// Where the page lies. It cannot be moved.
pub const BASE: u64 = 0xfee0_0000;
/// IA32_APIC_BASE: this is the bootstrap processor; x2APIC; enabled.
const BOOTSTRAP: u64 = 1 << 8;
const EXTENDED: u64 = 1 << 10;
const ENABLED: u64 = 1 << 11;

/// Offsets of registers.
mod at {
    pub const ID: u64 = 0x020;
    pub const VERSION: u64 = 0x030;
    pub const TASK_PRIORITY: u64 = 0x080;
    pub const ARBITRATION_PRIORITY: u64 = 0x090;
    pub const PROCESSOR_PRIORITY: u64 = 0x0a0;
    pub const EOI: u64 = 0x0b0;
    pub const REMOTE_READ: u64 = 0x0c0;
    pub const LOGICAL_DESTINATION: u64 = 0x0d0;
    pub const DESTINATION_FORMAT: u64 = 0x0e0;
    pub const SPURIOUS: u64 = 0x0f0;
    pub const ISR: u64 = 0x100;
    pub const ISR_END: u64 = 0x170;
    pub const TMR: u64 = 0x180;
    pub const TMR_END: u64 = 0x1f0;
    pub const IRR: u64 = 0x200;
    pub const IRR_END: u64 = 0x270;
    pub const ERRORS: u64 = 0x280;
    pub const COMMAND: u64 = 0x300;
    pub const COMMAND_HIGH: u64 = 0x310;
    pub const LVT: u64 = 0x320;
    pub const LVT_END: u64 = 0x370;
    pub const INITIAL: u64 = 0x380;
    pub const CURRENT: u64 = 0x390;
    pub const DIVIDE: u64 = 0x3e0;
    pub const SELF_IPI: u64 = 0x3f0;
}

/// Indices of the local vector table, from offset 320h on.
const LVT_TIMER: usize = 0;
const LVT_LINT0: usize = 3;
const LVT_LINT1: usize = 4;
const LVT_ERROR: usize = 5;
/// Entries of the table.
const LVTS: usize = 6;
/// The bits of each entry that keep what is written: timer, thermal, performance, LINT0, LINT1, error.
const LVT_BITS: [u32; LVTS] = [0x7_00ff, 0x1_07ff, 0x1_07ff, 0x1_a7ff, 0x1_a7ff, 0x1_00ff];
/// Delivery status and remote IRR: read-only.
const LVT_READ_ONLY: u32 = 1 << 12 | 1 << 14;
const LVT_MASKED: u32 = 1 << 16;
const LVT_LEVEL: u32 = 1 << 15;

/// 6 LVT entries, an integrated APIC.
const VERSION_READS: u32 = (LVTS as u32 - 1) << 16 | 0x14;
/// Spurious vector register: vector, software enable, focus checking.
const SPURIOUS_BITS: u32 = 0x3ff;
const SOFTWARE_ENABLE: u32 = 1 << 8;
/// Interrupt command: vector, delivery mode, destination mode, level, trigger mode, shorthand.
const COMMAND_BITS: u32 = 0x000c_cfff;

/// Error status register.
const SEND_ILLEGAL_VECTOR: u8 = 1 << 5;
const RECEIVED_ILLEGAL_VECTOR: u8 = 1 << 6;
const ILLEGAL_REGISTER: u8 = 1 << 7;
const ERROR_BITS: u8 = 0xe0;

/// What a write leads to outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Nothing.
    Done,
    /// The end of this level-triggered vector is to be told to the I/O APICs.
    End(u8),
    /// The local APIC may take now what it has refused: the I/O APICs are to try again.
    Retry,
}

/// The registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// IA32_APIC_BASE without the address.
    pub mode: u64,
    /// Task priority.
    pub task_priority: u8,
    /// Logical destination register (xAPIC).
    pub logical: u32,
    /// Destination format register.
    pub format: u32,
    /// Spurious interrupt vector register.
    pub spurious: u32,
    /// In service.
    pub isr: Vectors,
    /// Trigger mode: level.
    pub tmr: Vectors,
    /// Requested.
    pub irr: Vectors,
    /// Error status as last latched.
    pub errors: u8,
    /// Errors since.
    pub new_errors: u8,
    /// Interrupt command register, both halves.
    pub command: [u32; 2],
    /// Local vector table: timer, thermal, performance, LINT0, LINT1, error.
    pub lvt: [u32; LVTS],
    /// The timer.
    pub timer: timer::State,
    /// A non-maskable interrupt waits.
    pub nmi: bool,
    /// The level at LINT0.
    pub lint0: bool,
}

/// A local APIC.
#[derive(Clone, Debug)]
pub struct LocalApic(State);

impl LocalApic {
    /// After power-on: enabled, but disabled by software.
    pub const fn new() -> Self {
        let none = Vectors([0; 4]);
        Self(State {
            mode: BOOTSTRAP | ENABLED,
            task_priority: 0,
            logical: 0,
            format: !0,
            spurious: 0xff,
            isr: none,
            tmr: none,
            irr: none,
            errors: 0,
            new_errors: 0,
            command: [0; 2],
            lvt: [LVT_MASKED; LVTS],
            timer: timer::State { initial: 0, divide: 0, expiry: None },
            nmi: false,
            lint0: false,
        })
    }

    /// The state.
    pub fn save(&self) -> State {
        self.0.clone()
    }

    /// The local APIC that was saved.
    ///
    /// # Errors
    /// [`BadState`] for bits that no access sets.
    pub fn restore(state: State) -> Result<Self, BadState> {
        if !matches!(state.mode ^ BOOTSTRAP, 0 | ENABLED) && state.mode != BOOTSTRAP | ENABLED | EXTENDED {
            return Err(BadState("the local APIC is in a mode that does not exist"));
        }
        let entry_is_bad = |(entry, bits): (&u32, u32)| entry & !bits != 0;
        if state.lvt.iter().zip(LVT_BITS).any(entry_is_bad)
            || state.format & 0x0fff_ffff != 0x0fff_ffff
            || state.logical & 0x00ff_ffff != 0
            || state.spurious & !SPURIOUS_BITS != 0
            || (state.errors | state.new_errors) & !ERROR_BITS != 0
            || state.timer.divide & !0xb != 0
            || (state.irr.0[0] | state.isr.0[0]) & 0xffff != 0
        {
            return Err(BadState("a register of the local APIC has bits that it has not"));
        }
        Ok(Self(state))
    }

    fn enabled(&self) -> bool {
        self.0.mode & ENABLED != 0
    }

    fn extended(&self) -> bool {
        self.0.mode & EXTENDED != 0
    }

    /// The page answers.
    fn page_answers(&self) -> bool {
        self.0.mode & (ENABLED | EXTENDED) == ENABLED
    }

    fn software_enabled(&self) -> bool {
        self.enabled() && self.0.spurious & SOFTWARE_ENABLE != 0
    }

    /// What firmware leaves behind (virtual wire mode): the PIC's interrupts come by LINT0, NMI by LINT1.
    pub fn set_virtual_wire(&mut self) {
        self.0.spurious = SOFTWARE_ENABLE | 0x0f;
        self.0.lvt[LVT_LINT0] = u32::from(message::EXTERNAL) << 8;
        self.0.lvt[LVT_LINT1] = u32::from(message::NMI) << 8;
    }

    // ---- Interrupts come ----

    /// A message from the bus. Returns whether this APIC has taken it.
    pub fn receive(&mut self, message: &Message) -> bool {
        let destination = u32::from(message.destination);
        // In x2APIC mode the 8-bit broadcast of older senders still means everybody.
        let broadcast = message.destination == 0xff;
        if !self.enabled() || !(broadcast || self.is_addressed(destination, message.logical)) {
            return false;
        }
        match message.mode {
            message::FIXED | message::LOWEST => self.request(message.vector, message.level),
            message::NMI => {
                self.0.nmi = true;
                true
            }
            _ => false,
        }
    }

    /// Whether a destination means this processor.
    fn is_addressed(&self, destination: u32, logical: bool) -> bool {
        match (logical, self.extended()) {
            (false, true) => destination == 0 || destination == u32::MAX,
            (false, false) => destination == 0 || destination == 0xff,
            // Cluster 0, processor 0.
            (true, true) => destination == u32::MAX || destination >> 16 == 0 && destination & 1 != 0,
            (true, false) => {
                let own = self.0.logical >> 24;
                match self.0.format >> 28 {
                    0xf => own & destination != 0,
                    0x0 => {
                        destination == 0xff || own >> 4 == destination >> 4 && own & destination & 0xf != 0
                    }
                    _ => false,
                }
            }
        }
    }

    /// A vector is requested.
    fn request(&mut self, vector: u8, level: bool) -> bool {
        if !self.software_enabled() {
            return false;
        }
        if vector < 16 {
            self.error(RECEIVED_ILLEGAL_VECTOR);
            return false;
        }
        self.0.irr.set(vector, true);
        self.0.tmr.set(vector, level);
        true
    }

    /// An entry of the local vector table fires.
    fn fire(&mut self, entry: u32) {
        if entry & LVT_MASKED != 0 || !self.enabled() {
            return;
        }
        match (entry >> 8) as u8 & 7 {
            message::FIXED => {
                self.request(entry as u8, false);
            }
            message::NMI => self.0.nmi = true,
            _ => {}
        }
    }

    fn error(&mut self, error: u8) {
        let new = self.0.new_errors & error == 0;
        self.0.new_errors |= error;
        let entry = self.0.lvt[LVT_ERROR];
        // An error entry whose own vector is illegal must not report that for ever.
        if new && entry & LVT_MASKED == 0 && entry as u8 >= 16 && self.software_enabled() {
            self.0.irr.set(entry as u8, true);
            self.0.tmr.set(entry as u8, false);
        }
    }

    /// The PIC's output is at LINT0. Returns whether the processor has to ask the PIC for the vector while it is high.
    pub fn set_lint0(&mut self, level: bool) -> bool {
        let risen = level && !self.0.lint0;
        self.0.lint0 = level;
        if !self.enabled() {
            // LINT0 is the processor's INTR pin.
            return level;
        }
        let entry = self.0.lvt[LVT_LINT0];
        let mode = (entry >> 8) as u8 & 7;
        if entry & LVT_MASKED != 0 {
            return false;
        }
        if mode == message::EXTERNAL {
            return level;
        }
        let level_fixed = entry & LVT_LEVEL != 0 && mode == message::FIXED;
        if risen || level && level_fixed && !self.0.isr.contains(entry as u8) {
            self.fire(entry);
        }
        false
    }

    /// The level at LINT0.
    #[inline]
    pub fn lint0(&self) -> bool {
        self.0.lint0
    }

    /// The board's NMI line, at LINT1, is pulsed.
    pub fn nmi_line(&mut self) {
        if self.enabled() { self.fire(self.0.lvt[LVT_LINT1]) } else { self.0.nmi = true }
    }

    /// A non-maskable interrupt waits.
    pub fn nmi(&self) -> bool {
        self.0.nmi
    }

    /// Takes the non-maskable interrupt.
    pub fn take_nmi(&mut self) -> bool {
        core::mem::take(&mut self.0.nmi)
    }

    // ---- Interrupts go ----

    /// Processor priority (SDM 3A, 12.8.3.1).
    fn processor_priority(&self) -> u8 {
        let serving = self.0.isr.highest().unwrap_or(0);
        if self.0.task_priority >> 4 >= serving >> 4 { self.0.task_priority } else { serving & 0xf0 }
    }

    /// The vector that the processor would get.
    #[inline]
    pub fn deliverable(&self) -> Option<u8> {
        if !self.enabled() {
            return None;
        }
        let vector = self.0.irr.highest()?;
        (vector >> 4 > self.processor_priority() >> 4).then_some(vector)
    }

    /// The processor takes the vector that is [`deliverable`](Self::deliverable). Nothing is deliverable afterwards: what else is
    /// requested is of no higher class.
    pub fn acknowledge(&mut self) -> Option<u8> {
        let vector = self.0.irr.highest()?;
        self.0.irr.set(vector, false);
        self.0.isr.set(vector, true);
        Some(vector)
    }

    /// End of interrupt.
    #[inline]
    fn end(&mut self) -> Written {
        let Some(vector) = self.0.isr.highest() else { return Written::Done };
        self.0.isr.set(vector, false);
        if self.0.tmr.contains(vector) { Written::End(vector) } else { Written::Done }
    }

    /// CR8.
    pub fn task_priority(&self) -> u8 {
        self.0.task_priority >> 4
    }

    /// CR8.
    pub fn set_task_priority(&mut self, class: u8) {
        self.0.task_priority = class << 4;
    }

    // ---- Registers ----

    /// Reads the page.
    pub fn read(&mut self, offset: u64, now: Instant) -> u32 {
        if !self.page_answers() {
            return !0;
        }
        if offset & 0xf != 0 {
            return 0;
        }
        match self.register(offset, now) {
            Some(value) => value,
            None => {
                self.error(ILLEGAL_REGISTER);
                0
            }
        }
    }

    /// Writes the page.
    pub fn write(&mut self, offset: u64, value: u32, now: Instant) -> Written {
        if !self.page_answers() || offset & 0xf != 0 {
            return Written::Done;
        }
        match offset {
            at::EOI => return self.end(),
            // Read-only.
            at::ID
            | at::VERSION
            | at::ARBITRATION_PRIORITY
            | at::PROCESSOR_PRIORITY
            | at::REMOTE_READ
            | at::ISR..=at::IRR_END
            | at::CURRENT => {}
            at::LOGICAL_DESTINATION => self.0.logical = value & 0xff00_0000,
            at::DESTINATION_FORMAT => self.0.format = value | 0x0fff_ffff,
            at::COMMAND_HIGH => self.0.command[1] = value & 0xff00_0000,
            at::COMMAND => {
                self.0.command[0] = value & COMMAND_BITS;
                self.command(self.0.command[0], self.0.command[1] >> 24);
            }
            _ if !self.set_register(offset, value, now) => self.error(ILLEGAL_REGISTER),
            _ => {}
        }
        match offset {
            at::SPURIOUS | at::LOGICAL_DESTINATION | at::DESTINATION_FORMAT => Written::Retry,
            _ => Written::Done,
        }
    }

    /// The registers that both interfaces read alike.
    fn register(&mut self, offset: u64, now: Instant) -> Option<u32> {
        let s = &mut self.0;
        Some(match offset {
            // The ID is 0; EOI is write-only, and reads as 0 in the page.
            at::ID | at::EOI | at::ARBITRATION_PRIORITY | at::REMOTE_READ => 0,
            at::VERSION => VERSION_READS,
            at::TASK_PRIORITY => u32::from(s.task_priority),
            at::PROCESSOR_PRIORITY => u32::from(self.processor_priority()),
            at::LOGICAL_DESTINATION => s.logical,
            at::DESTINATION_FORMAT => s.format,
            at::SPURIOUS => s.spurious,
            at::ISR..=at::ISR_END => s.isr.register((offset - at::ISR) >> 4),
            at::TMR..=at::TMR_END => s.tmr.register((offset - at::TMR) >> 4),
            at::IRR..=at::IRR_END => s.irr.register((offset - at::IRR) >> 4),
            at::ERRORS => u32::from(s.errors),
            at::COMMAND => s.command[0],
            at::COMMAND_HIGH => s.command[1],
            at::LVT..=at::LVT_END => s.lvt[((offset - at::LVT) >> 4) as usize],
            at::INITIAL => s.timer.initial,
            at::CURRENT => {
                self.advance(now);
                if self.timer_mode() == Mode::Deadline { 0 } else { self.0.timer.current(now) }
            }
            at::DIVIDE => s.timer.divide,
            _ => return None,
        })
    }

    /// Writes the registers that both interfaces write alike; whether there is such a register.
    fn set_register(&mut self, offset: u64, value: u32, now: Instant) -> bool {
        match offset {
            at::TASK_PRIORITY => self.0.task_priority = value as u8,
            at::SPURIOUS => {
                self.0.spurious = value & SPURIOUS_BITS;
                if !self.software_enabled() {
                    self.0.lvt.iter_mut().for_each(|entry| *entry |= LVT_MASKED);
                }
            }
            at::ERRORS => self.0.errors = core::mem::take(&mut self.0.new_errors),
            at::LVT..=at::LVT_END => self.set_lvt(((offset - at::LVT) >> 4) as usize, value, now),
            at::INITIAL => {
                self.advance(now);
                if self.timer_mode() != Mode::Deadline {
                    self.0.timer.set_initial(value, now);
                }
            }
            at::DIVIDE => {
                self.advance(now);
                let mode = self.timer_mode();
                self.0.timer.set_divide(value & 0xb, now, mode);
            }
            _ => return false,
        }
        true
    }

    fn set_lvt(&mut self, index: usize, value: u32, now: Instant) {
        self.advance(now);
        let was = self.timer_mode();
        let masked = if self.software_enabled() { 0 } else { LVT_MASKED };
        self.0.lvt[index] = value & LVT_BITS[index] | masked;
        let (before, after) = (was == Mode::Deadline, self.timer_mode() == Mode::Deadline);
        if before != after {
            // Changing to or from TSC-deadline mode disarms the timer.
            self.0.timer.expiry = None;
        }
    }

    /// A write of the interrupt command register: an interrupt from this processor, to itself or to nobody.
    fn command(&mut self, command: u32, destination: u32) {
        let (vector, mode) = (command as u8, (command >> 8) as u8 & 7);
        let fixed = matches!(mode, message::FIXED | message::LOWEST);
        if fixed && vector < 16 {
            self.error(SEND_ILLEGAL_VECTOR);
        }
        let to_self = match command >> 18 & 3 {
            0 => self.is_addressed(destination, command >> 11 & 1 != 0),
            1 | 2 => true,
            _ => false,
        };
        match mode {
            _ if !to_self => {}
            message::FIXED | message::LOWEST => {
                self.request(vector, false);
            }
            // Only to a destination: the shorthands are for fixed interrupts.
            message::NMI if command >> 18 & 3 == 0 => self.0.nmi = true,
            _ => {}
        }
    }

    // ---- The timer ----

    fn timer_mode(&self) -> Mode {
        Mode::of(self.0.lvt[LVT_TIMER])
    }

    /// When the timer will interrupt.
    pub fn deadline(&self) -> Option<Instant> {
        // A masked timer interrupts nobody; what it has counted is found out when somebody looks.
        self.0.timer.expiry.filter(|_| self.0.lvt[LVT_TIMER] & LVT_MASKED == 0)
    }

    /// Lets time pass. Whether something has happened.
    #[inline]
    pub fn advance(&mut self, now: Instant) -> bool {
        if self.0.timer.expiry.is_none_or(|expiry| expiry > now) {
            return false;
        }
        let mode = self.timer_mode();
        if !self.0.timer.expired(now, mode) || mode == Mode::Reserved {
            return false;
        }
        self.fire(self.0.lvt[LVT_TIMER] & !0x700);
        true
    }
}

impl Default for LocalApic {
    fn default() -> Self {
        Self::new()
    }
}
