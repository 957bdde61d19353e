//! A 16550A UART with its FIFOs (National Semiconductor PC16550D data sheet).
//!
//! Sending takes no time: the byte written leaves at once and the transmitter is empty again. The character time-out
//! of the receiver is timed by the programmed baud rate. The interrupt output is enabled by OUT2, as on a PC.

use serde::{Deserialize, Serialize};

use super::BadState;
use crate::clock::ticks::SECOND;
use crate::context::Instant;

/// Bytes of the receive FIFO.
pub const FIFO: usize = 16;
/// The clock at the baud generator's input, hertz.
const CLOCK: u64 = 1_843_200;

/// Interrupt enable register.
const IER_RECEIVED: u8 = 1 << 0;
const IER_EMPTY: u8 = 1 << 1;
const IER_LINE: u8 = 1 << 2;
const IER_MODEM: u8 = 1 << 3;

/// Interrupt identification register.
const IIR_NONE: u8 = 0x01;
const IIR_MODEM: u8 = 0x00;
const IIR_EMPTY: u8 = 0x02;
const IIR_RECEIVED: u8 = 0x04;
const IIR_LINE: u8 = 0x06;
const IIR_TIMEOUT: u8 = 0x0c;
const IIR_FIFOS: u8 = 0xc0;

/// FIFO control register.
const FCR_ENABLE: u8 = 1 << 0;
const FCR_CLEAR_RECEIVER: u8 = 1 << 1;
const FCR_KEPT: u8 = 0xc9;

/// Line control register.
const LCR_DLAB: u8 = 1 << 7;

/// Modem control register.
const MCR_DTR: u8 = 1 << 0;
const MCR_RTS: u8 = 1 << 1;
const MCR_OUT1: u8 = 1 << 2;
const MCR_OUT2: u8 = 1 << 3;
const MCR_LOOP: u8 = 1 << 4;
const MCR_BITS: u8 = 0x1f;

/// Line status register.
const LSR_READY: u8 = 1 << 0;
const LSR_OVERRUN: u8 = 1 << 1;
const LSR_EMPTY: u8 = 0x60;

/// Modem status register.
const MSR_RI_ENDED: u8 = 1 << 2;
const MSR_DELTAS: u8 = 0x0f;
const MSR_CTS: u8 = 1 << 4;
const MSR_DSR: u8 = 1 << 5;
const MSR_RI: u8 = 1 << 6;
const MSR_DCD: u8 = 1 << 7;
/// What the other end of the cable drives: it is there and ready.
const PEER: u8 = MSR_CTS | MSR_DSR | MSR_DCD;

/// The registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Interrupt enable register.
    pub ier: u8,
    /// FIFO control register: enable, DMA mode, trigger level.
    pub fcr: u8,
    /// Line control register.
    pub lcr: u8,
    /// Modem control register.
    pub mcr: u8,
    /// Modem status register.
    pub msr: u8,
    /// Scratch register.
    pub scratch: u8,
    /// Divisor latch.
    pub divisor: u16,
    /// Receiver: oldest byte first.
    pub fifo: [u8; FIFO],
    /// Bytes in the receiver.
    pub received: u8,
    /// A byte was lost.
    pub overrun: bool,
    /// The transmitter's becoming empty has not been noticed yet.
    pub empty_pending: bool,
    /// When the bytes that wait become a character time-out.
    pub timeout_at: Option<Instant>,
    /// Bytes wait for longer than four character times.
    pub timed_out: bool,
}

/// A 16550A.
#[derive(Clone, Debug)]
pub struct Uart(State);

impl Uart {
    /// After power-on.
    pub const fn new() -> Self {
        Self(State {
            ier: 0,
            fcr: 0,
            lcr: 0,
            mcr: 0,
            msr: PEER,
            scratch: 0,
            divisor: 12,
            fifo: [0; FIFO],
            received: 0,
            overrun: false,
            empty_pending: false,
            timeout_at: None,
            timed_out: false,
        })
    }

    /// The state.
    pub fn save(&self) -> State {
        self.0.clone()
    }

    /// The device that was saved.
    ///
    /// # Errors
    /// [`BadState`] if the receiver holds more than it can, or a register has bits that it has not.
    pub fn restore(state: State) -> Result<Self, BadState> {
        let uart = Self(state);
        if usize::from(uart.0.received) > uart.depth() {
            return Err(BadState("a UART's receiver holds more than it can"));
        }
        let waits = uart.fifos() && uart.0.received != 0;
        if !waits && (uart.0.timed_out || uart.0.timeout_at.is_some()) {
            return Err(BadState("a UART waits for bytes that it has not"));
        }
        let registers = uart.0.ier & !0x0f | uart.0.mcr & !MCR_BITS | uart.0.fcr & !FCR_KEPT;
        if registers != 0 {
            return Err(BadState("a UART's register has bits that it has not"));
        }
        Ok(uart)
    }

    /// As after power-on.
    pub fn reset(&mut self) {
        *self = Self::new();
    }

    /// Reads the register at this offset (0 to 7).
    pub fn read(&mut self, offset: u16, now: Instant) -> u8 {
        self.advance(now);
        let s = &mut self.0;
        match offset {
            0 if s.lcr & LCR_DLAB != 0 => s.divisor as u8,
            0 => self.take(now),
            1 if s.lcr & LCR_DLAB != 0 => (s.divisor >> 8) as u8,
            1 => s.ier,
            2 => {
                let source = self.source();
                if source == IIR_EMPTY {
                    self.0.empty_pending = false;
                }
                source | if self.fifos() { IIR_FIFOS } else { 0 }
            }
            3 => s.lcr,
            4 => s.mcr,
            5 => {
                let overrun = core::mem::take(&mut s.overrun);
                let ready = s.received != 0;
                LSR_EMPTY | if ready { LSR_READY } else { 0 } | if overrun { LSR_OVERRUN } else { 0 }
            }
            6 => {
                let status = s.msr;
                s.msr &= !MSR_DELTAS;
                status
            }
            7 => s.scratch,
            _ => 0xff,
        }
    }

    /// Writes the register at this offset (0 to 7). A byte that comes back leaves by the serial line.
    pub fn write(&mut self, offset: u16, value: u8, now: Instant) -> Option<u8> {
        self.advance(now);
        let s = &mut self.0;
        match offset {
            0 if s.lcr & LCR_DLAB != 0 => s.divisor = s.divisor & 0xff00 | u16::from(value),
            0 => {
                s.empty_pending = true;
                if s.mcr & MCR_LOOP == 0 {
                    return Some(value);
                }
                if !self.put(value, now) {
                    self.0.overrun = true;
                }
            }
            1 if s.lcr & LCR_DLAB != 0 => s.divisor = s.divisor & 0xff | u16::from(value) << 8,
            1 => {
                // Enabling the interrupt while the transmitter is empty raises it.
                s.empty_pending |= value & !s.ier & IER_EMPTY != 0;
                s.ier = value & 0x0f;
            }
            2 => self.control_fifos(value),
            3 => s.lcr = value,
            4 => {
                s.mcr = value & MCR_BITS;
                self.modem_lines();
            }
            7 => s.scratch = value,
            // The status registers: writing is for tests in the factory.
            _ => {}
        }
        None
    }

    /// Bytes arrive at the serial line: takes as many as fit and returns how many; the rest has to wait.
    pub fn receive(&mut self, bytes: &[u8], now: Instant) -> usize {
        if self.0.mcr & MCR_LOOP != 0 {
            return 0;
        }
        self.advance(now);
        bytes.iter().take_while(|byte| self.put(**byte, now)).count()
    }

    /// How many bytes [`receive`](Self::receive) would take.
    pub fn room(&self) -> usize {
        if self.0.mcr & MCR_LOOP != 0 { 0 } else { self.depth() - usize::from(self.0.received) }
    }

    /// The level of the interrupt output.
    pub fn irq(&self) -> bool {
        // OUT2 enables the output's driver; in the loop it is inactive.
        self.0.mcr & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2 && self.source() != IIR_NONE
    }

    /// When the state will change without an access.
    pub fn deadline(&self) -> Option<Instant> {
        self.0.timeout_at
    }

    /// Lets time pass.
    #[inline]
    pub fn advance(&mut self, now: Instant) {
        if self.0.timeout_at.is_some_and(|at| at <= now) {
            self.0.timeout_at = None;
            self.0.timed_out = true;
        }
    }

    fn fifos(&self) -> bool {
        self.0.fcr & FCR_ENABLE != 0
    }

    /// Bytes that the receiver can hold.
    fn depth(&self) -> usize {
        if self.fifos() { FIFO } else { 1 }
    }

    /// Bytes that raise the interrupt.
    fn trigger(&self) -> u8 {
        if self.fifos() { [1, 4, 8, 14][usize::from(self.0.fcr >> 6)] } else { 1 }
    }

    /// The interrupt of the highest priority (data sheet, table V).
    fn source(&self) -> u8 {
        let s = &self.0;
        if s.ier & IER_LINE != 0 && s.overrun {
            IIR_LINE
        } else if s.ier & IER_RECEIVED != 0 && s.received >= self.trigger() {
            IIR_RECEIVED
        } else if s.ier & IER_RECEIVED != 0 && s.timed_out {
            IIR_TIMEOUT
        } else if s.ier & IER_EMPTY != 0 && s.empty_pending {
            IIR_EMPTY
        } else if s.ier & IER_MODEM != 0 && s.msr & MSR_DELTAS != 0 {
            IIR_MODEM
        } else {
            IIR_NONE
        }
    }

    /// The processor takes the oldest byte; an empty receiver gives 0.
    fn take(&mut self, now: Instant) -> u8 {
        if self.0.received == 0 {
            return 0;
        }
        let byte = self.0.fifo[0];
        self.0.fifo.copy_within(1.., 0);
        self.0.received -= 1;
        self.restart_timeout(now);
        byte
    }

    /// A byte comes into the receiver, if there is room.
    fn put(&mut self, byte: u8, now: Instant) -> bool {
        if usize::from(self.0.received) >= self.depth() {
            return false;
        }
        self.0.fifo[usize::from(self.0.received)] = byte;
        self.0.received += 1;
        self.restart_timeout(now);
        true
    }

    /// Each access of the receive FIFO starts the time-out anew.
    fn restart_timeout(&mut self, now: Instant) {
        self.0.timed_out = false;
        self.0.timeout_at =
            (self.fifos() && self.0.received != 0).then(|| now.saturating_add(4 * self.character()));
    }

    /// Nanoseconds of a character: start bit, data bits, parity, stop bits.
    fn character(&self) -> u64 {
        let lcr = u64::from(self.0.lcr);
        let bits = 1 + 5 + (lcr & 3) + (lcr >> 3 & 1) + 1 + (lcr >> 2 & 1);
        let divisor = u64::from(self.0.divisor.max(1));
        bits * divisor * 16 * SECOND / CLOCK
    }

    fn control_fifos(&mut self, value: u8) {
        let s = &mut self.0;
        let toggled = (value ^ s.fcr) & FCR_ENABLE != 0;
        // The other bits are only programmed together with the enable bit.
        s.fcr = if value & FCR_ENABLE != 0 { value & FCR_KEPT } else { 0 };
        if toggled || value & FCR_CLEAR_RECEIVER != 0 {
            s.received = 0;
            s.timed_out = false;
            s.timeout_at = None;
        }
    }

    /// The modem's lines follow the peer, or in the loop our own outputs; changes are noted.
    fn modem_lines(&mut self) {
        let s = &mut self.0;
        let lines = if s.mcr & MCR_LOOP == 0 {
            PEER
        } else {
            let line = |from: u8, to: u8| if s.mcr & from != 0 { to } else { 0 };
            line(MCR_RTS, MSR_CTS) | line(MCR_DTR, MSR_DSR) | line(MCR_OUT1, MSR_RI) | line(MCR_OUT2, MSR_DCD)
        };
        // The ring indicator is only noted when it ends.
        let deltas = (lines ^ s.msr) >> 4 & !MSR_RI_ENDED | (s.msr & !lines & MSR_RI) >> 4;
        s.msr = lines | (s.msr | deltas) & MSR_DELTAS;
    }
}

impl Default for Uart {
    fn default() -> Self {
        Self::new()
    }
}
