//! What is outside of the guest on this host: its console on the terminal, its network on the host's cards. The guest's output
//! door leads here.

use super::held::{Held, Holder};
use super::to_wire::ToWire;
use crate::bridge::Bridge;
use crate::memory::OutOfFrames;
use crate::terminal;
use core::fmt::{self, Write};
use ft::announce::Addresses;
use ft::outputs::{Kind, Limit, Output as Waiting};
use hal::MacAddress;
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
    /// How long the log of what it sends takes to the wire.
    pub to_wire: ToWire,
    /// What may not leave yet; none where everything may.
    held: Option<Held>,
    /// Under which addresses the guest of a pair is known on its networks.
    addresses: Vec<Addresses, MAX_NETWORKS>,
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

impl Outside {
    /// With these cards; nothing is held.
    pub fn new(bridges: Vec<Option<Bridge>, MAX_NETWORKS>) -> Self {
        Self { bridges, ..Self::default() }
    }

    /// Holds from now on what the guest sends. `macs`: of its network devices.
    ///
    /// # Errors
    /// No memory.
    pub fn hold(
        &mut self,
        holder: Holder,
        macs: impl Iterator<Item = MacAddress>,
    ) -> Result<(), OutOfFrames> {
        self.held = Some(Held::new(holder)?);
        self.addresses = macs.take(MAX_NETWORKS).map(Addresses::new).collect();
        Ok(())
    }

    /// Tells switches and neighbours that the guest is behind this host's cards now.
    pub fn announce(&mut self) {
        let Self { bridges, addresses, .. } = self;
        for (bridge, addresses) in bridges.iter_mut().zip(addresses) {
            if let Some(card) = bridge {
                addresses.announce(&mut |frame| {
                    // One that is lost is sent again in a while.
                    card.send(frame);
                });
            }
        }
    }

    /// Lets everything out, what is held first, and from now on at once.
    pub fn go_out(&mut self, now: u64) {
        if let Some(mut held) = self.held.take() {
            held.seal(u64::MAX);
            self.let_out(&mut held, Limit::All, now, true);
        }
    }

    /// Lets out what waits for no later position of the log than this.
    pub fn release(&mut self, position: u64, now: u64) {
        if let Some(mut held) = self.held.take() {
            if held.holder() == Holder::Primary {
                self.let_out(&mut held, Limit::To(position), now, false);
            }
            self.held = Some(held);
        }
    }

    /// `last`: what a card does not take now is lost.
    fn let_out(&mut self, held: &mut Held, limit: Limit, now: u64, last: bool) {
        while let Some(Waiting { kind, bytes, .. }) = held.outputs.front(limit) {
            let gone = match kind {
                Kind::Frame(device) => self.send(device, bytes),
                Kind::Console => {
                    terminal::guest_output(bytes);
                    true
                }
                Kind::SideConsole => true,
            };
            if !gone && !last {
                return;
            }
            let lost = matches!(kind, Kind::Frame(_)) && !gone;
            self.counters.frames += u64::from(matches!(kind, Kind::Frame(_)) && gone);
            self.counters.frames_lost += u64::from(lost);
            held.outputs.pop(now);
        }
    }

    /// A backup need not keep what the primary has let out.
    pub fn forget(&mut self, position: u64) {
        if let Some(held) = self.held.as_mut().filter(|held| held.holder() == Holder::Backup) {
            held.outputs.forget(Limit::To(position));
        }
    }

    /// Everything that was made so far waits for this position of the log.
    pub fn cover(&mut self, position: u64) {
        if let Some(held) = &mut self.held {
            held.seal(position);
        }
    }

    /// Whether there is something that waits.
    pub fn holds(&self) -> bool {
        self.held.as_ref().is_some_and(Held::holds)
    }

    /// Whether there is something that no position covers.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.held.as_ref().is_some_and(Held::is_open)
    }

    /// Whether it should be covered now: a frame at once, bytes of a console when there are some, or after a while.
    pub fn is_urgent(&self, now: u64) -> bool {
        self.held.as_ref().is_some_and(|held| held.is_urgent(now))
    }

    /// Whether a frame is not covered.
    pub fn has_open_frame(&self) -> bool {
        self.held.as_ref().is_some_and(Held::has_open_frame)
    }

    /// Whether there is room for what one exit can send.
    pub fn has_room(&self) -> bool {
        self.held.as_ref().is_none_or(Held::has_room)
    }

    /// Tells what is held and how long outputs have waited, for the shell.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn describe_held(&self, out: &mut dyn Write) -> fmt::Result {
        let Some(held) = &self.held else { return writeln!(out, "outputs: leave at once") };
        let (outputs, counters) = (&held.outputs, held.outputs.counters());
        writeln!(
            out,
            "outputs: {} wait ({} bytes, {} at most); {} held, {} released, {} dropped",
            outputs.len(),
            outputs.used(),
            counters.most,
            counters.held,
            counters.released,
            counters.dropped
        )?;
        self.to_wire.describe(out)?;
        let delays = outputs.delays();
        writeln!(
            out,
            "output delay: mean {} us, median {} us, 99 of 100 {} us",
            delays.mean() / 1000,
            delays.quantile(500) / 1000,
            delays.quantile(990) / 1000
        )?;
        for (from, to, count) in delays.iter().filter(|(_, _, count)| *count != 0) {
            writeln!(out, "  {:>10} to {:>10} us: {count}", from / 1000, to / 1000)?;
        }
        Ok(())
    }

    /// The first card that a network device of the guest is on.
    pub fn first_card(&mut self) -> Option<&mut Bridge> {
        self.bridges.iter_mut().flatten().next()
    }

    /// Sends a frame of the host itself on the guest's first card.
    pub fn send_aside(&mut self, frame: &[u8]) {
        if let Some(card) = self.first_card() {
            card.send(frame);
        }
    }

    /// Sends a frame. False: the card has no room.
    fn send(&mut self, device: u8, frame: &[u8]) -> bool {
        let card = self.bridges.get_mut(usize::from(device)).and_then(Option::as_mut);
        card.is_some_and(|card| card.send(frame))
    }
}

impl Output for Outside {
    fn frame(&mut self, device: u8, frame: &[u8]) {
        if let Some(held) = &mut self.held {
            if let Some(addresses) = self.addresses.get_mut(usize::from(device)) {
                addresses.learn(frame);
            }
            return held.frame(device, frame);
        }
        let sent = self.send(device, frame);
        self.counters.frames += u64::from(sent);
        self.counters.frames_lost += u64::from(!sent);
    }

    fn console(&mut self, byte: u8) {
        self.counters.console += 1;
        if let Some(held) = &mut self.held {
            return held.console(byte);
        }
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
