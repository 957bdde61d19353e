//! The i8042 keyboard controller without keyboard or mouse, and the other ways to gate A20 and to reset: port 92h and the
//! chipset's reset control register at CF9h (Intel 82371SB; IBM PS/2 Hardware Interface Technical Reference).
//!
//! A guest that looks for a keyboard gets quick answers: the controller passes its test, what is sent to a device comes back
//! as a time-out. A20 is remembered, and it is always open: no guest that boots on this board needs it shut.

use serde::{Deserialize, Serialize};

use super::BadState;
use crate::context::Instant;
use crate::output::Power;

/// Offset of the data port from 60h.
pub const DATA: u16 = 0;
/// Offset of the command and status port.
pub const COMMAND: u16 = 4;

const STATUS_FULL: u8 = 1 << 0;
const STATUS_SYSTEM: u8 = 1 << 2;
const STATUS_COMMAND: u8 = 1 << 3;
const STATUS_UNLOCKED: u8 = 1 << 4;
const STATUS_TIMEOUT: u8 = 1 << 6;

/// Command byte: keyboard interrupt, system flag, ports switched off.
const MODE_INTERRUPT: u8 = 1 << 0;
const MODE_SYSTEM: u8 = 1 << 2;
const MODE_NO_KEYBOARD: u8 = 1 << 4;
const MODE_NO_MOUSE: u8 = 1 << 5;

/// Output port: reset (active low) and A20.
const PORT_NOT_RESET: u8 = 1 << 0;
const PORT_A20: u8 = 1 << 1;

/// Port 92h: reset and A20.
const FAST_RESET: u8 = 1 << 0;
const FAST_A20: u8 = 1 << 1;

/// CF9h: a full reset rather than a soft one, and go.
const CF9_KEPT: u8 = 0x0a;
const CF9_RESET: u8 = 1 << 2;

/// What a device that does not answer comes back as.
const RESEND: u8 = 0xfe;

/// The registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The controller's RAM; byte 0 is the command byte.
    pub ram: [u8; 32],
    /// Output port.
    pub port: u8,
    /// A byte waits to be read, with these status bits.
    pub output: Option<(u8, u8)>,
    /// A command that waits for its data.
    pub command: Option<u8>,
    /// The last write was a command.
    pub last_was_command: bool,
    /// CF9h.
    pub reset_control: u8,
}

/// The keyboard controller and the reset lines.
#[derive(Clone, Debug)]
pub struct Keyboard(State);

impl Keyboard {
    /// After power-on.
    pub const fn new() -> Self {
        let mut ram = [0; 32];
        ram[0] = MODE_NO_KEYBOARD | MODE_NO_MOUSE;
        Self(State {
            ram,
            port: PORT_NOT_RESET | PORT_A20,
            output: None,
            command: None,
            last_was_command: false,
            reset_control: 0,
        })
    }

    /// The state.
    pub fn save(&self) -> State {
        self.0.clone()
    }

    /// The device that was saved.
    ///
    /// # Errors
    /// [`BadState`] for bits that no write sets.
    pub fn restore(state: State) -> Result<Self, BadState> {
        if state.reset_control & !CF9_KEPT != 0 || state.port & PORT_NOT_RESET == 0 {
            return Err(BadState("a reset line is held"));
        }
        Ok(Self(state))
    }

    /// As after power-on.
    pub fn reset(&mut self) {
        *self = Self::new();
    }

    /// Reads the data port (offset 0) or the status (offset 4).
    pub fn read(&mut self, offset: u16, _now: Instant) -> u8 {
        match offset {
            DATA => self.0.output.take().map_or(0, |(byte, _)| byte),
            COMMAND => self.status(),
            _ => 0xff,
        }
    }

    /// Writes the data port (offset 0) or the command port (offset 4). A reset that comes back is to be done.
    pub fn write(&mut self, offset: u16, value: u8, _now: Instant) -> Option<Power> {
        match offset {
            DATA => {
                self.0.last_was_command = false;
                self.data(value)
            }
            COMMAND => {
                self.0.last_was_command = true;
                self.command(value)
            }
            _ => None,
        }
    }

    /// Port 92h.
    pub fn read_port_92(&self) -> u8 {
        if self.a20() { FAST_A20 } else { 0 }
    }

    /// Port 92h.
    pub fn write_port_92(&mut self, value: u8) -> Option<Power> {
        self.set_a20(value & FAST_A20 != 0);
        (value & FAST_RESET != 0).then_some(Power::Reset)
    }

    /// Port CF9h.
    pub fn read_reset_control(&self) -> u8 {
        self.0.reset_control
    }

    /// Port CF9h: the reset bit's going from 0 to 1 resets. It does not stay.
    pub fn write_reset_control(&mut self, value: u8) -> Option<Power> {
        self.0.reset_control = value & CF9_KEPT;
        (value & CF9_RESET != 0).then_some(Power::Reset)
    }

    /// Whether the guest wants A20 open.
    pub fn a20(&self) -> bool {
        self.0.port & PORT_A20 != 0
    }

    /// The level of the keyboard's interrupt.
    pub fn irq(&self) -> bool {
        self.0.output.is_some() && self.0.ram[0] & MODE_INTERRUPT != 0
    }

    fn set_a20(&mut self, open: bool) {
        self.0.port = self.0.port & !PORT_A20 | if open { PORT_A20 } else { 0 };
    }

    fn status(&self) -> u8 {
        let output = self.0.output.map_or(0, |(_, status)| STATUS_FULL | status);
        let system = if self.0.ram[0] & MODE_SYSTEM != 0 { STATUS_SYSTEM } else { 0 };
        let command = if self.0.last_was_command { STATUS_COMMAND } else { 0 };
        STATUS_UNLOCKED | output | system | command
    }

    fn answer(&mut self, byte: u8) {
        self.0.output = Some((byte, 0));
    }

    fn command(&mut self, command: u8) -> Option<Power> {
        self.0.command = None;
        match command {
            0x20..=0x3f => self.answer(self.0.ram[usize::from(command & 0x1f)]),
            // With data to come: controller RAM, output port, the output buffers, the mouse.
            0x60..=0x7f | 0xd1..=0xd4 => self.0.command = Some(command),
            // No password.
            0xa4 => self.answer(0xf1),
            0xa7 => self.0.ram[0] |= MODE_NO_MOUSE,
            0xa8 => self.0.ram[0] &= !MODE_NO_MOUSE,
            // Test of the mouse's port: its clock line is stuck low, there is none.
            0xa9 => self.answer(0x01),
            // Self-test.
            0xaa => {
                self.0.ram[0] |= MODE_SYSTEM;
                self.answer(0x55);
            }
            // Test of the keyboard's port: fine.
            0xab => self.answer(0x00),
            0xad => self.0.ram[0] |= MODE_NO_KEYBOARD,
            0xae => self.0.ram[0] &= !MODE_NO_KEYBOARD,
            // Input port: not locked.
            0xc0 => self.answer(0x80),
            0xd0 => self.answer(self.0.port | if self.irq() { 0x10 } else { 0 }),
            // Test inputs: clock lines low.
            0xe0 => self.answer(0x00),
            // Pulses the output port's bits that are 0 here; bit 0 is the reset line.
            0xf0..=0xff if command & PORT_NOT_RESET == 0 => return Some(Power::Reset),
            _ => {}
        }
        None
    }

    fn data(&mut self, value: u8) -> Option<Power> {
        match self.0.command.take() {
            Some(command @ 0x60..=0x7f) => self.0.ram[usize::from(command & 0x1f)] = value,
            Some(0xd1) => {
                self.0.port = value | PORT_NOT_RESET;
                return (value & PORT_NOT_RESET == 0).then_some(Power::Reset);
            }
            // What a device would have sent; the mouse's has no port to come from.
            Some(0xd2 | 0xd3) => self.answer(value),
            // To the mouse, or to the keyboard: nobody answers.
            _ => {
                self.0.ram[0] &= !MODE_NO_KEYBOARD;
                self.0.output = Some((RESEND, STATUS_TIMEOUT));
            }
        }
        None
    }
}

impl Default for Keyboard {
    fn default() -> Self {
        Self::new()
    }
}
