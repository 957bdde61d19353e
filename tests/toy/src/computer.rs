//! The toy computer: a clock, a timer, a console, a network, buttons; and interrupts for them.

use replay::log::entry::{Correction, Event};
use replay::seed::Seed;

use crate::program::{DEVICES, LINES, WRITABLE};

/// Virtual time: a function of the count and of what is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Clock {
    count: u64,
    fixed: u128,
    /// Nanoseconds per count, 32.32 fixed point.
    pub rate: u64,
}

/// The rate at power-on: two nanoseconds and a half per count.
pub const RATE: u64 = 5 << 31;

impl Clock {
    /// The clock at power-on, so many times slower than [`RATE`].
    pub const fn new(slower: u32) -> Self {
        Self { count: 0, fixed: 0, rate: RATE * slower as u64 }
    }

    const fn fixed(&self, count: u64) -> u128 {
        self.fixed + (count - self.count) as u128 * self.rate as u128
    }

    /// Nanoseconds since power-on, at this count.
    pub const fn now(&self, count: u64) -> u64 {
        (self.fixed(count) >> 32) as u64
    }

    /// Corrects rate and time from this count on.
    pub const fn correct(&mut self, count: u64, correction: &Correction) {
        self.fixed = self.fixed(count) + ((correction.step as u128) << 32);
        (self.count, self.rate) = (count, correction.rate);
    }

    /// Time jumps to a later moment.
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
    /// How many times longer the timer's periods are than they might be.
    slower: u32,
    /// Packets that were sent.
    sent: u64,
    /// Over everything that has come in.
    pub sum: u64,
    /// The reset button was pressed.
    pub reset: bool,
}

impl Devices {
    /// The devices at power-on; the timer is so many times slower.
    pub const fn new(slower: u32) -> Self {
        Self {
            due: u64::MAX,
            period: 0,
            pending: 0,
            typed: Vec::new(),
            frames: 0,
            link: false,
            starved: false,
            random: 1,
            slower,
            sent: 0,
            sum: 0,
            reset: false,
        }
    }

    /// When the timer is due, nanoseconds.
    pub const fn due(&self) -> u64 {
        self.due
    }

    /// Whether an interrupt waits.
    pub const fn pending(&self) -> bool {
        self.pending != 0
    }

    /// The vector of the interrupt that is taken.
    pub const fn acknowledge(&mut self) -> u8 {
        let line = self.pending.trailing_zeros() as u8;
        self.pending &= self.pending - 1;
        DEVICES + line
    }

    /// Does what is due.
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

    /// The random number generator.
    pub fn random(&mut self) -> u64 {
        let mut seed = Seed::new(self.random);
        self.random = seed.next();
        self.random
    }

    /// What is read from a port.
    pub fn read(&mut self, port: u8) -> u64 {
        match port % LINES {
            0 => u64::from(self.pending),
            1 => self.typed.pop().map_or(0, u64::from),
            2 => self.frames,
            _ => self.sum,
        }
    }

    /// What is written to a port. True: a packet is sent.
    pub fn write(&mut self, port: u8, value: u64, now: u64) -> bool {
        match port % LINES {
            0 => {
                let slower = u64::from(self.slower);
                self.period = if value.is_multiple_of(5) { 0 } else { (2000 + value % 9000) * slower };
                self.due = now + (300 + value % 5000) * slower;
            }
            1 => self.pending |= (value % 16) as u8 & 1,
            2 => self.starved = false,
            _ => {
                self.fold(value);
                self.sent += 1;
                return true;
            }
        }
        false
    }

    /// How many packets were sent.
    pub const fn sent(&self) -> u64 {
        self.sent
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
                for (index, byte) in frame.parts().into_iter().flatten().enumerate() {
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
