//! What is outside of the guest on this host: its console on the terminal, its network on the host's cards. The guest's output
//! door leads here.

use crate::bridge::Bridge;
use crate::terminal;
use heapless::Vec;
use log::Level;
use machine::computer::DEBUG_CONSOLE;
use machine::output::{Output, Power};

/// Network devices of a guest at most.
pub const MAX_NETWORKS: usize = 4;

/// The longest line of the firmware's log that is shown in one piece, bytes.
const FIRMWARE_LINE: usize = 120;

/// Lines of the firmware's log that are shown at most: a guest shall not fill the host's log.
const FIRMWARE_LINES: u32 = 2_000;

/// Outside of the guest.
#[derive(Default)]
pub struct Outside {
    /// The host's cards, by the guest's network device; `None` where it has no card.
    pub bridges: Vec<Option<Bridge>, MAX_NETWORKS>,
    /// What the guest has asked for, until the runner takes it.
    pub power: Option<Power>,
    /// What went out.
    pub counters: Counters,
    /// What the firmware has written to its debug port.
    pub firmware: FirmwareLog,
}

/// The firmware's log, which it writes to a port of its own; at log level debug it is shown line by line.
#[derive(Default)]
pub struct FirmwareLog {
    line: Vec<u8, FIRMWARE_LINE>,
    shown: u32,
}

impl FirmwareLog {
    /// Takes a byte in; a line that has ended goes to the log.
    fn push(&mut self, byte: u8) {
        if !log::log_enabled!(Level::Debug) || self.shown == FIRMWARE_LINES {
            return;
        }
        if byte != b'\n' {
            // A guest writes what it likes: on the host's terminal it shall be text.
            let _ = self.line.push(if matches!(byte, b' '..=b'~') { byte } else { b'.' });
        }
        if byte == b'\n' || self.line.is_full() {
            log::debug!("firmware: {}", core::str::from_utf8(&self.line).unwrap_or_default());
            self.line.clear();
            self.shown += 1;
        }
    }
}

/// What went out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Bytes of the serial console.
    pub console: u64,
    /// Bytes of the firmware's debug port and of virtio consoles.
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

    fn side_console(&mut self, port: u8, byte: u8) {
        self.counters.side += 1;
        if port == DEBUG_CONSOLE {
            self.firmware.push(byte);
        }
    }

    fn power(&mut self, power: Power) {
        self.power = Some(power);
    }
}
