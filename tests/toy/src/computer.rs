//! The toy computer: a clock, a timer, a console, a network, buttons; and interrupts for them.

use replay::log::entry::{Correction, Event};
use replay::seed::Seed;

use crate::program::{DEVICES, LINES, WRITABLE};

/// Virtual time: a function of the count and of what is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Clock {
    count: u64,
    fixed: u128,
    pub rate: u64,
}

/// The rate at power-on: two nanoseconds and a half per count.
pub const RATE: u64 = 5 << 31;

impl Clock {
    pub const fn new() -> Self {
        Self { count: 0, fixed: 0, rate: RATE }
    }

    const fn fixed(&self, count: u64) -> u128 {
        self.fixed + (count - self.count) as u128 * self.rate as u128
    }

    pub const fn now(&self, count: u64) -> u64 {
        (self.fixed(count) >> 32) as u64
    }

    pub const fn correct(&mut self, count: u64, correction: &Correction) {
        self.fixed = self.fixed(count) + ((correction.step as u128) << 32);
        (self.count, self.rate) = (count, correction.rate);
    }

    pub fn jump(&mut self, count: u64, to: u64) {
        self.fixed = self.fixed(count).max(u128::from(to) << 32);
        self.count = count;
    }
}

/// The devices.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Devices {
    due: u64,
    period: u64,
    pending: u8,
    typed: Vec<u8>,
    frames: u64,
    link: bool,
    starved: bool,
    random: u64,
    /// Over everything that has come in.
    pub sum: u64,
    /// The reset button was pressed.
    pub reset: bool,
}

impl Devices {
    pub const fn new() -> Self {
        Self {
            due: u64::MAX,
            period: 0,
            pending: 0,
            typed: Vec::new(),
            frames: 0,
            link: false,
            starved: false,
            random: 1,
            sum: 0,
            reset: false,
        }
    }

    pub const fn due(&self) -> u64 {
        self.due
    }

    pub const fn pending(&self) -> bool {
        self.pending != 0
    }

    pub const fn acknowledge(&mut self) -> u8 {
        let line = self.pending.trailing_zeros() as u8;
        self.pending &= self.pending - 1;
        DEVICES + line
    }

    pub fn advance(&mut self, now: u64) {
        while now >= self.due {
            self.pending |= 1;
            self.due = if self.period == 0 { u64::MAX } else { self.due + self.period };
            self.fold(self.due);
        }
    }

    fn fold(&mut self, word: u64) {
        self.sum = (self.sum.rotate_left(9) ^ word).wrapping_mul(0x100_0000_01B3);
    }

    pub fn random(&mut self) -> u64 {
        let mut seed = Seed::new(self.random);
        self.random = seed.next();
        self.random
    }

    pub fn read(&mut self, port: u8) -> u64 {
        match port % LINES {
            0 => u64::from(self.pending),
            1 => self.typed.pop().map_or(0, u64::from),
            2 => self.frames,
            _ => self.sum,
        }
    }

    pub fn write(&mut self, port: u8, value: u64, now: u64) {
        match port % LINES {
            0 => {
                self.period = if value.is_multiple_of(5) { 0 } else { 2000 + value % 9000 };
                self.due = now + 300 + value % 5000;
            }
            1 => self.pending |= (value % 16) as u8 & 1,
            2 => self.starved = false,
            _ => self.fold(value),
        }
    }

    /// What comes in, at this time.
    pub fn input(&mut self, event: &Event<'_>, memory: &mut [u64], now: u64) {
        self.fold(now);
        match *event {
            Event::Console(bytes) => {
                self.typed.extend_from_slice(bytes);
                self.typed.truncate(32);
                self.raise(1);
            }
            Event::SideConsole(bytes) => {
                bytes.iter().for_each(|byte| self.fold(u64::from(*byte)));
                self.raise(3);
            }
            Event::Frame { device, frame } => {
                self.fold(u64::from(device));
                for (index, byte) in frame.iter().enumerate() {
                    let word = (self.frames * 8 + index as u64 / 8) % WRITABLE;
                    memory[word as usize] = memory[word as usize].rotate_left(8) ^ u64::from(*byte);
                    self.fold(u64::from(*byte));
                }
                self.frames += 1;
                self.raise(2);
            }
            Event::Starved { .. } => self.starved = true,
            Event::Link { up, .. } => {
                self.link = up;
                self.raise(3);
            }
            Event::PowerButton => self.raise(3),
            Event::Reset => self.reset = true,
            _ => {}
        }
    }

    const fn raise(&mut self, line: u8) {
        self.pending |= 1 << line;
    }
}
