//! The MC146818 real-time clock with 128 bytes of CMOS RAM (Motorola MC146818A data sheet; the meaning of the bytes is the
//! PC's).
//!
//! The clock is wall-clock time at power-on plus virtual time. While it runs, the registers are computed when they are read; while
//! it is stopped (SET, or the divider held in reset) they are bytes.

mod calendar;

use serde::{Deserialize, Serialize};
use serde_big_array::BigArray;

use super::BadState;
use crate::clock::ticks::{SECOND, instant_of, ticks};
use crate::context::Instant;
use calendar::{DAY, Date};

/// Offset of the index port from 70h.
pub const INDEX: u16 = 0;
/// Offset of the data port.
pub const DATA: u16 = 1;

const SECONDS: usize = 0;
const SECONDS_ALARM: usize = 1;
const MINUTES: usize = 2;
const MINUTES_ALARM: usize = 3;
const HOURS: usize = 4;
const HOURS_ALARM: usize = 5;
const WEEKDAY: usize = 6;
const DAY_OF_MONTH: usize = 7;
const MONTH: usize = 8;
const YEAR: usize = 9;
const REGISTER_A: usize = 0x0a;
const REGISTER_B: usize = 0x0b;
const REGISTER_C: usize = 0x0c;
const REGISTER_D: usize = 0x0d;
/// Where the FADT says that the century is.
pub const CENTURY: usize = 0x32;

/// Register A: an update is in progress; divider 11x: held in reset; rate.
const A_UPDATING: u8 = 0x80;
const A_DIVIDER_RESET: u8 = 0x60;
const A_RATE: u8 = 0x0f;
/// Register B.
const B_SET: u8 = 0x80;
const B_UPDATE: u8 = 0x10;
const B_BINARY: u8 = 0x04;
const B_24H: u8 = 0x02;
/// Square wave enable and the three interrupt enables: cleared by the RESET pin.
const B_CLEARED: u8 = 0x78;
/// Register C: interrupt request; the three flags have the places of their enables in B.
const C_REQUEST: u8 = 0x80;
const C_PERIODIC: u8 = 0x40;
const C_ALARM: u8 = 0x20;
const C_UPDATE: u8 = 0x10;
const C_FLAGS: u8 = C_PERIODIC | C_ALARM | C_UPDATE;
/// Register D: RAM and time are valid.
const D_VALID: u8 = 0x80;
/// An alarm byte from here on matches any value.
const ANY: u8 = 0xc0;

/// The divider's frequency, hertz.
const DIVIDER: u32 = 32_768;
/// Update in progress is told for this long before each second, nanoseconds: 244 µs of warning and an update of 1984 µs.
const UPDATING: u64 = 2_228_000;

/// The clock and its RAM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The byte that the data port reaches.
    pub index: u8,
    /// The bytes; the time's while the clock is stopped.
    #[serde(with = "BigArray")]
    pub ram: [u8; 128],
    /// Flags of register C.
    pub flags: u8,
    /// Seconds since 1970 when the divider was at 0.
    pub base: i64,
    /// The divider is so many nanoseconds ahead of virtual time, below a second.
    pub phase: u64,
    /// Days by which the day of the week is off.
    pub weekday: u8,
    /// The divider's second up to which flags are set.
    pub second: u64,
    /// The periodic interrupt up to which the flag is set.
    pub period: u64,
}

/// An MC146818.
#[derive(Clone, Debug)]
pub struct Rtc(State);

impl Rtc {
    /// The clock at power-on at this wall-clock time (seconds since 1970, UTC), in a computer with so many bytes of RAM below the
    /// hole and from 4 GiB on.
    pub fn new(wall: u64, low: u64, high: u64) -> Self {
        let mut ram = [0; 128];
        ram[REGISTER_A] = 0x26;
        ram[REGISTER_B] = B_24H;
        // Equipment: a coprocessor.
        ram[0x14] = 0x02;
        // Boot order: disk; then CD.
        ram[0x3d] = 0x32;
        set_memory(&mut ram, low, high);
        let base = i64::try_from(wall).unwrap_or(i64::MAX);
        Self(State { index: 0, ram, flags: 0, base, phase: 0, weekday: 0, second: 0, period: 0 })
    }

    /// The state.
    pub fn save(&self) -> State {
        self.0.clone()
    }

    /// The device that was saved.
    ///
    /// # Errors
    /// [`BadState`] for what no access leaves behind.
    pub fn restore(state: State) -> Result<Self, BadState> {
        if state.index > 127 || state.weekday > 6 || state.phase >= SECOND || state.flags & !C_FLAGS != 0 {
            return Err(BadState("a field of the RTC is out of range"));
        }
        Ok(Self(state))
    }

    /// The RESET pin: interrupts are off; time and RAM stay.
    pub fn reset(&mut self) {
        self.0.index = 0;
        self.0.flags = 0;
        self.0.ram[REGISTER_B] &= !B_CLEARED;
    }

    /// Reads the port at this offset from 70h.
    pub fn read(&mut self, offset: u16, now: Instant) -> u8 {
        // The index cannot be read.
        if offset == DATA { self.get(usize::from(self.0.index & 0x7f), now) } else { 0xff }
    }

    /// Writes the port at this offset from 70h. Bit 7 of the index would mask NMI.
    pub fn write(&mut self, offset: u16, value: u8, now: Instant) {
        match offset {
            INDEX => self.0.index = value & 0x7f,
            DATA => self.set(usize::from(self.0.index & 0x7f), value, now),
            _ => {}
        }
    }

    /// The level of IRQ 8.
    pub fn irq(&self) -> bool {
        self.0.flags & self.0.ram[REGISTER_B] & C_FLAGS != 0
    }

    /// When IRQ 8 will rise without an access.
    pub fn deadline(&self) -> Option<Instant> {
        let s = &self.0;
        let awaited = s.ram[REGISTER_B] & !s.flags;
        let at_second = |second: u64| second.saturating_mul(SECOND).saturating_sub(s.phase);
        let periodic = (awaited & C_PERIODIC != 0).then(|| self.rate()).flatten().map(|shift| {
            let tick = s.period.saturating_add(1).saturating_mul(1 << shift);
            instant_of::<DIVIDER>(tick).saturating_sub(s.phase)
        });
        let running = !self.stopped();
        let update = (running && awaited & C_UPDATE != 0).then(|| at_second(s.second.saturating_add(1)));
        let alarm = (running && awaited & C_ALARM != 0).then(|| self.next_alarm()).flatten().map(at_second);
        [periodic, update, alarm].into_iter().flatten().min()
    }

    /// Lets time pass: sets the flags.
    pub fn advance(&mut self, now: Instant) {
        if let Some(shift) = self.rate() {
            let period = ticks::<DIVIDER>(self.divider(now)) >> shift;
            if period > self.0.period {
                self.0.period = period;
                self.0.flags |= C_PERIODIC;
            }
        }
        let second = self.divider(now) / SECOND;
        if second > self.0.second {
            if !self.stopped() {
                self.0.flags |= C_UPDATE;
                if self.next_alarm().is_some_and(|alarm| alarm <= second) {
                    self.0.flags |= C_ALARM;
                }
            }
            self.0.second = second;
        }
    }

    /// The divider's time, nanoseconds.
    fn divider(&self, now: Instant) -> u64 {
        now.saturating_add(self.0.phase)
    }

    /// The clock does not count: SET, or the divider is held in reset.
    fn stopped(&self) -> bool {
        self.0.ram[REGISTER_B] & B_SET != 0 || self.divider_reset()
    }

    fn divider_reset(&self) -> bool {
        self.0.ram[REGISTER_A] & A_DIVIDER_RESET == A_DIVIDER_RESET
    }

    /// The period of the periodic interrupt as a power of two of divider ticks (data sheet, table 5).
    fn rate(&self) -> Option<u32> {
        match self.0.ram[REGISTER_A] & A_RATE {
            _ if self.divider_reset() => None,
            0 => None,
            rate @ 1..=2 => Some(u32::from(rate) + 6),
            rate => Some(u32::from(rate) - 1),
        }
    }

    fn get(&mut self, index: usize, now: Instant) -> u8 {
        self.advance(now);
        match index {
            SECONDS | MINUTES | HOURS | WEEKDAY..=YEAR | CENTURY if !self.stopped() => {
                let mut ram = self.0.ram;
                self.put_time(&mut ram, self.seconds(now));
                ram[index]
            }
            REGISTER_A => {
                let updating = !self.stopped() && self.divider(now) % SECOND >= SECOND - UPDATING;
                self.0.ram[REGISTER_A] | if updating { A_UPDATING } else { 0 }
            }
            REGISTER_C => {
                let request = if self.irq() { C_REQUEST } else { 0 };
                core::mem::take(&mut self.0.flags) | request
            }
            REGISTER_D => D_VALID,
            _ => self.0.ram.get(index).copied().unwrap_or(0xff),
        }
    }

    fn set(&mut self, index: usize, value: u8, now: Instant) {
        self.advance(now);
        match index {
            SECONDS | MINUTES | HOURS | WEEKDAY..=YEAR | CENTURY if !self.stopped() => {
                // One field of a running clock.
                self.freeze(now);
                self.0.ram[index] = value;
                self.go_on(now);
            }
            REGISTER_A => self.set_a(value & !A_UPDATING, now),
            REGISTER_B => self.set_b(value, now),
            // Read-only.
            REGISTER_C | REGISTER_D => {}
            _ => {
                if let Some(byte) = self.0.ram.get_mut(index) {
                    *byte = value;
                }
            }
        }
    }

    fn set_a(&mut self, value: u8, now: Instant) {
        let (was_stopped, was_reset) = (self.stopped(), self.divider_reset());
        if !was_stopped && value & A_DIVIDER_RESET == A_DIVIDER_RESET {
            self.freeze(now);
        }
        self.0.ram[REGISTER_A] = value;
        if was_reset && !self.divider_reset() {
            // The first update comes half a second after the divider is released.
            self.0.phase = (SECOND / 2 + SECOND - now % SECOND) % SECOND;
        }
        if was_stopped && !self.stopped() {
            self.go_on(now);
        }
        // Nothing that is already over counts for a new rate or phase.
        self.0.second = self.divider(now) / SECOND;
        self.0.period = self.rate().map_or(0, |shift| ticks::<DIVIDER>(self.divider(now)) >> shift);
    }

    fn set_b(&mut self, value: u8, now: Instant) {
        let was_stopped = self.stopped();
        if !was_stopped && value & B_SET != 0 {
            self.freeze(now);
        }
        // SET clears the update interrupt's enable.
        self.0.ram[REGISTER_B] = if value & B_SET != 0 { value & !B_UPDATE } else { value };
        if was_stopped && !self.stopped() {
            self.go_on(now);
        }
    }

    /// Seconds since 1970 of the running clock.
    fn seconds(&self, now: Instant) -> i64 {
        self.0.base.wrapping_add((self.divider(now) / SECOND) as i64)
    }

    /// The time becomes bytes.
    fn freeze(&mut self, now: Instant) {
        let mut ram = self.0.ram;
        self.put_time(&mut ram, self.seconds(now));
        self.0.ram = ram;
    }

    /// The bytes become the time.
    fn go_on(&mut self, now: Instant) {
        let ram = &self.0.ram;
        let field = |index: usize| i64::from(self.decode(ram[index]));
        let hour = self.hour(ram[HOURS]);
        let date = Date {
            year: field(CENTURY) * 100 + field(YEAR),
            month: field(MONTH),
            day: field(DAY_OF_MONTH),
            time: [i64::from(hour), field(MINUTES), field(SECONDS)],
            weekday: 0,
        };
        let seconds = date.seconds();
        let weekday = (field(WEEKDAY) + 6 + 7 - Date::from_seconds(seconds).weekday) % 7;
        self.0.weekday = weekday as u8;
        self.0.base = seconds.wrapping_sub((self.divider(now) / SECOND) as i64);
    }

    fn put_time(&self, ram: &mut [u8; 128], seconds: i64) {
        let date = Date::from_seconds(seconds);
        let [hour, minute, second] = date.time.map(|field| field as u8);
        ram[SECONDS] = self.encode(second);
        ram[MINUTES] = self.encode(minute);
        ram[HOURS] = if self.0.ram[REGISTER_B] & B_24H != 0 {
            self.encode(hour)
        } else {
            self.encode((hour + 11) % 12 + 1) | if hour >= 12 { 0x80 } else { 0 }
        };
        ram[WEEKDAY] = (date.weekday as u8 + self.0.weekday) % 7 + 1;
        ram[DAY_OF_MONTH] = self.encode(date.day as u8);
        ram[MONTH] = self.encode(date.month as u8);
        ram[YEAR] = self.encode((date.year % 100) as u8);
        ram[CENTURY] = self.encode((date.year / 100) as u8);
    }

    /// A number as this data mode has it.
    fn encode(&self, number: u8) -> u8 {
        if self.0.ram[REGISTER_B] & B_BINARY != 0 { number } else { (number / 10) << 4 | (number % 10) }
    }

    fn decode(&self, byte: u8) -> u8 {
        if self.0.ram[REGISTER_B] & B_BINARY != 0 { byte } else { (byte >> 4) * 10 + (byte & 0x0f) }
    }

    /// The hour, 0 to 23, of a byte in this hour mode.
    fn hour(&self, byte: u8) -> u8 {
        if self.0.ram[REGISTER_B] & B_24H != 0 {
            return self.decode(byte);
        }
        self.decode(byte & 0x7f) % 12 + if byte & 0x80 != 0 { 12 } else { 0 }
    }

    /// The divider's second of the next alarm, after the last one that was looked at.
    fn next_alarm(&self) -> Option<u64> {
        let ram = &self.0.ram;
        let wanted = |byte: u8, limit: u8, value: u8| match byte {
            ANY.. => Some(None),
            _ if value < limit => Some(Some(i64::from(value))),
            _ => None,
        };
        let hour = wanted(ram[HOURS_ALARM], 24, self.hour(ram[HOURS_ALARM]))?;
        let minute = wanted(ram[MINUTES_ALARM], 60, self.decode(ram[MINUTES_ALARM]))?;
        let second = wanted(ram[SECONDS_ALARM], 60, self.decode(ram[SECONDS_ALARM]))?;

        let after = self.0.base.wrapping_add(self.0.second as i64).wrapping_add(1);
        let today = after.rem_euclid(DAY);
        let ahead = next_match(today, [hour, minute, second]) - today;
        Some((self.0.second.saturating_add(1)).saturating_add(ahead as u64))
    }
}

/// The first second of the day, from `from` on, whose hour, minute and second are the wanted ones (`None`: any); may lie on the
/// next day.
fn next_match(from: i64, [hour, minute, second]: [Option<i64>; 3]) -> i64 {
    // The smallest unit first; each step goes to the next time at which this unit and the smaller ones match.
    let up = |from: i64, unit: i64, cycle: i64, wanted: Option<i64>| match wanted {
        None => from,
        Some(value) if from / unit % cycle == value => from,
        Some(value) => {
            let start = from - from % (unit * cycle) + value * unit;
            if start > from { start } else { start + unit * cycle }
        }
    };
    let mut at = from;
    // A larger unit that moves makes the smaller ones start anew, once each.
    for _ in 0..3 {
        at = up(at, 3600, 24, hour);
        at = up(at, 60, 60, minute);
        at = up(at, 1, 60, second);
    }
    at
}

/// The bytes that tell firmware the size of memory, as SeaBIOS reads them.
fn set_memory(ram: &mut [u8; 128], low: u64, high: u64) {
    let mut put = |index: usize, value: u64, bytes: usize| {
        let value = value.min((1 << (8 * bytes)) - 1);
        ram[index..index + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
    };
    // KiB below 640 KiB; KiB from 1 MiB on, twice; 64 KiB from 16 MiB on; 64 KiB from 4 GiB on.
    put(0x15, 640, 2);
    put(0x17, low.saturating_sub(1 << 20) >> 10, 2);
    put(0x30, low.saturating_sub(1 << 20) >> 10, 2);
    put(0x34, low.saturating_sub(16 << 20) >> 16, 2);
    put(0x5b, high >> 16, 3);
}
