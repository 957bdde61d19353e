//! The 8254 programmable interval timer, and port 61h with its gate, the speaker and the refresh toggle (Intel 8254 data sheet;
//! 82371SB "NMI status and control register").

pub mod channel;

use serde::{Deserialize, Serialize};

use super::BadState;
use crate::clock::ticks::{instant_of, ticks};
use crate::context::Instant;

/// The clock of all three counters, hertz.
pub const HZ: u32 = 1_193_182;
/// Memory was refreshed this often, nanoseconds: counter 1 at 18 ticks.
const REFRESH: u64 = 15_086;

/// Port 61h: gate of counter 2, speaker, two bits that only stay, refresh toggle, output of counter 2.
const GATE: u8 = 1 << 0;
const CONTROL_KEPT: u8 = 0x0f;
const TOGGLE: u8 = 1 << 4;
const OUT: u8 = 1 << 5;

/// The three counters and port 61h.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Counter 0 is the timer interrupt, 1 the refresh, 2 the speaker.
    pub channels: [channel::State; 3],
    /// Port 61h, the bits that stay.
    pub control: u8,
}

/// An 8254.
#[derive(Clone, Debug)]
pub struct Pit(State);

impl Pit {
    /// After power-on: nothing counts.
    pub const fn new() -> Self {
        let on = channel::State::new(true);
        Self(State { channels: [on, channel::State::new(true), channel::State::new(false)], control: 0 })
    }

    /// The state.
    pub fn save(&self) -> State {
        self.0.clone()
    }

    /// The device that was saved.
    ///
    /// # Errors
    /// [`BadState`] for counts, modes or gates that cannot be.
    pub fn restore(state: State) -> Result<Self, BadState> {
        let [zero, one, two] = &state.channels;
        if state.channels.iter().any(channel::State::is_bad) {
            return Err(BadState("a counter of the PIT has a mode or a count that does not exist"));
        }
        let gate = state.control & GATE != 0;
        if !zero.gate || !one.gate || two.gate != gate || state.control & !CONTROL_KEPT != 0 {
            return Err(BadState("a gate of the PIT is not where port 61h has it"));
        }
        Ok(Self(state))
    }

    /// As after power-on.
    pub fn reset(&mut self) {
        let seen = self.0.channels[0].seen;
        *self = Self::new();
        self.0.channels.iter_mut().for_each(|channel| channel.seen = seen);
    }

    /// Reads the port at this offset from 40h (0 to 3).
    pub fn read(&mut self, offset: u16, now: Instant) -> u8 {
        match self.0.channels.get_mut(usize::from(offset)) {
            Some(channel) => channel.read(ticks::<HZ>(now)),
            // The control word cannot be read.
            None => 0xff,
        }
    }

    /// Writes the port at this offset from 40h (0 to 3).
    pub fn write(&mut self, offset: u16, value: u8, now: Instant) {
        let tick = ticks::<HZ>(now);
        match self.0.channels.get_mut(usize::from(offset)) {
            Some(channel) => channel.write(value, tick),
            None if offset == 3 => self.control(value, tick),
            None => {}
        }
    }

    /// Port 61h.
    pub fn read_control(&mut self, now: Instant) -> u8 {
        let tick = self.synced(2, now);
        let out = self.0.channels[2].out(tick);
        let toggle = (now / REFRESH) % 2 == 1;
        self.0.control | if out { OUT } else { 0 } | if toggle { TOGGLE } else { 0 }
    }

    /// Port 61h.
    pub fn write_control(&mut self, value: u8, now: Instant) {
        self.0.control = value & CONTROL_KEPT;
        self.0.channels[2].set_gate(value & GATE != 0, ticks::<HZ>(now));
    }

    /// When counter 0's output rises next.
    pub fn deadline(&self) -> Option<Instant> {
        self.0.channels[0].next_edge().map(instant_of::<HZ>)
    }

    /// Lets time pass. Returns how often counter 0's output has risen since the last call: edges of IRQ 0.
    pub fn advance(&mut self, now: Instant) -> u32 {
        self.synced(0, now);
        core::mem::take(&mut self.0.channels[0].edges)
    }

    fn synced(&mut self, channel: usize, now: Instant) -> u64 {
        let tick = ticks::<HZ>(now);
        self.0.channels[channel].sync(tick);
        tick
    }

    fn control(&mut self, value: u8, tick: u64) {
        match value >> 6 {
            3 => {
                // Read-back: latches count and status of each counter that is named (the bits are active low).
                for (i, channel) in self.0.channels.iter_mut().enumerate() {
                    if value >> (i + 1) & 1 != 0 {
                        if value & 0x20 == 0 {
                            channel.latch_count(tick);
                        }
                        if value & 0x10 == 0 {
                            channel.latch_status(tick);
                        }
                    }
                }
            }
            i => {
                let channel = &mut self.0.channels[usize::from(i)];
                if value & 0x30 == 0 { channel.latch_count(tick) } else { channel.program(value, tick) }
            }
        }
    }
}

impl Default for Pit {
    fn default() -> Self {
        Self::new()
    }
}
