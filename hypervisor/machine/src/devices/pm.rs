//! ACPI's fixed hardware: PM1a event and control registers, and the power-management timer (ACPI 6.5, section 4.8).
//!
//! There is no SMI: ACPI mode is on from power-on (SCI_EN reads 1, the FADT gives no SMI_CMD).

use serde::{Deserialize, Serialize};

use super::BadState;
use crate::clock::ticks::{instant_of, ticks};
use crate::context::Instant;
use crate::output::Power;

/// The timer's frequency, hertz.
pub const TIMER_HZ: u32 = 3_579_545;
/// The timer's width: 32, so the FADT sets TMR_VAL_EXT.
pub const TIMER_BITS: u32 = 32;
/// The sleep type of S5 (soft-off) for the package `_S5` in the DSDT.
pub const SLEEP_TYPE_S5: u8 = 5;

/// Offset of the status register (16 bits) from the PM1a event block.
pub const STATUS: u16 = 0;
/// Offset of the enable register (16 bits).
pub const ENABLE: u16 = 2;
/// Offset of the PM1a control register (16 bits).
pub const CONTROL: u16 = 4;
/// Offset of the timer (32 bits, to be read at once by [`Pm::timer`] or byte by byte at one time).
pub const TIMER: u16 = 8;

const TIMER_CARRY: u16 = 1 << 0;
const GLOBAL: u16 = 1 << 5;
const POWER_BUTTON: u16 = 1 << 8;
const SLEEP_BUTTON: u16 = 1 << 9;
const RTC_ALARM: u16 = 1 << 10;
/// The events there are; status and enable bits are the same.
const EVENTS: u16 = TIMER_CARRY | GLOBAL | POWER_BUTTON | SLEEP_BUTTON | RTC_ALARM;
const SCI_ENABLED: u16 = 1 << 0;
/// Control bits that keep what is written: BM_RLD and SLP_TYP.
const CONTROL_KEPT: u16 = 1 << 1 | 7 << 10;
/// SLP_EN in the control register's high byte.
const SLEEP_NOW: u8 = 1 << 5;

/// The registers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Events that happened.
    pub status: u16,
    /// Events that raise the SCI.
    pub enable: u16,
    /// The control register's kept bits.
    pub control: u16,
    /// How often the timer's highest bit had changed when the status was last brought up to date.
    pub carries: u64,
}

/// The fixed hardware.
#[derive(Clone, Debug, Default)]
pub struct Pm(State);

impl Pm {
    /// After power-on.
    pub fn new() -> Self {
        Self::default()
    }

    /// The state.
    pub fn save(&self) -> State {
        self.0.clone()
    }

    /// The device that was saved.
    ///
    /// # Errors
    /// [`BadState`] for events that do not exist.
    pub fn restore(state: State) -> Result<Self, BadState> {
        if (state.status | state.enable) & !EVENTS != 0 || state.control & !CONTROL_KEPT != 0 {
            return Err(BadState("an ACPI register has bits that it has not"));
        }
        Ok(Self(state))
    }

    /// As after power-on; the timer goes on.
    pub fn reset(&mut self) {
        *self = Self(State { carries: self.0.carries, ..State::default() });
    }

    /// Reads the byte at this offset from the event block.
    pub fn read(&mut self, offset: u16, now: Instant) -> u8 {
        self.advance(now);
        let word = match offset & !1 {
            STATUS => self.0.status,
            ENABLE => self.0.enable,
            CONTROL => self.0.control | SCI_ENABLED,
            TIMER => self.timer(now) as u16,
            0x0a => (self.timer(now) >> 16) as u16,
            _ => 0xffff,
        };
        word.to_le_bytes()[usize::from(offset & 1)]
    }

    /// Writes the byte at this offset. A power state that comes back is to be entered.
    pub fn write(&mut self, offset: u16, value: u8, now: Instant) -> Option<Power> {
        self.advance(now);
        let shift = (offset & 1) * 8;
        let (value16, mask) = (u16::from(value) << shift, 0xff << shift);
        match offset & !1 {
            STATUS => self.0.status &= !value16,
            ENABLE => self.0.enable = (self.0.enable & !mask | value16) & EVENTS,
            CONTROL => {
                self.0.control = (self.0.control & !mask | value16) & CONTROL_KEPT;
                let type_s5 = value >> 2 & 7 == SLEEP_TYPE_S5;
                if shift != 0 && value & SLEEP_NOW != 0 && type_s5 {
                    return Some(Power::Off);
                }
            }
            _ => {}
        }
        None
    }

    /// The timer.
    #[inline]
    pub fn timer(&self, now: Instant) -> u32 {
        ticks::<TIMER_HZ>(now) as u32
    }

    /// The operator presses the power button.
    pub fn power_button(&mut self) {
        self.0.status |= POWER_BUTTON;
    }

    /// The level of the SCI.
    pub fn irq(&self) -> bool {
        self.0.status & self.0.enable != 0
    }

    /// When the state will change without an access in a way that the guest is told of.
    pub fn deadline(&self) -> Option<Instant> {
        let awaited = self.0.enable & !self.0.status & TIMER_CARRY != 0;
        awaited.then(|| {
            instant_of::<TIMER_HZ>(self.0.carries.saturating_add(1).saturating_mul(1 << (TIMER_BITS - 1)))
        })
    }

    /// Lets time pass: the timer's highest bit may have changed.
    pub fn advance(&mut self, now: Instant) {
        let carries = ticks::<TIMER_HZ>(now) >> (TIMER_BITS - 1);
        if carries > self.0.carries {
            self.0.carries = carries;
            self.0.status |= TIMER_CARRY;
        }
    }
}
