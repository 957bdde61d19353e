//! What is outside of the guest on this host: its console on the terminal, its network on the host's cards. The guest's output
//! door leads here.

use crate::bridge::Bridge;
use crate::terminal;
use heapless::Vec;
use machine::output::{Output, Power};

/// Network devices of a guest at most.
pub const MAX_NETWORKS: usize = 4;

/// Outside of the guest.
#[derive(Default)]
pub struct Outside {
    /// The host's cards, by the guest's network device; `None` where it has no card.
    pub bridges: Vec<Option<Bridge>, MAX_NETWORKS>,
    /// What the guest has asked for, until the runner takes it.
    pub power: Option<Power>,
    /// What went out.
    pub counters: Counters,
}

/// What went out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Bytes of the serial console.
    pub console: u64,
    /// Bytes of the firmware's debug port and of virtio consoles, which nobody reads.
    pub side: u64,
    /// Frames that a card has taken.
    pub frames: u64,
    /// Frames that no card took.
    pub frames_lost: u64,
}

impl Output for Outside {
    fn frame(&mut self, device: u8, frame: &[u8]) {
        let card = self.bridges.get_mut(usize::from(device)).and_then(Option::as_mut);
        let sent = card.is_some_and(|card| card.send(frame));
        self.counters.frames += u64::from(sent);
        self.counters.frames_lost += u64::from(!sent);
    }

    fn console(&mut self, byte: u8) {
        self.counters.console += 1;
        terminal::guest_output(&[byte]);
    }

    fn side_console(&mut self, _port: u8, _byte: u8) {
        self.counters.side += 1;
    }

    fn power(&mut self, power: Power) {
        self.power = Some(power);
    }
}
