//! A bridge on this host: the card is found and started, and its interrupts arrive, or it is polled.
//!
//! A card's interrupt only masks its line and raises [`duties::NETWORK`]; then every open bridge is to be polled, which
//! serves its card and unmasks the line. Nothing here allocates after [`Bridge::open`].

use super::port::{Left, LinkName, Port};
use crate::arch::alarm::{self, Alarm};
use crate::arch::idt::{self, vector};
use crate::arch::ioapic::{self, Pin};
use crate::arch::{percpu, proof, time};
use crate::duties::{self, HOST};
use crate::firmware::madt::{Line, Madt};
use crate::hal::PciConfig;
use crate::network::{self, Nic, Trouble};
use crate::{machine_line, platform};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU64, Ordering};
use e1000::Rings;
use hal::{Link, MacAddress, NetDevice, NetEvents};
use pci::{Address, ConfigSpace, Function, Msi, command};

/// Bridges at most.
const BRIDGES: usize = 4;

/// The serial port's legacy interrupt, whose line is not shared.
const SERIAL_IRQ: u8 = 4;

/// How often a card without an interrupt is polled, in nanoseconds.
const POLL_NS: u64 = 1_000_000;

/// After which time a frame that the guest had no buffer for is offered again, in nanoseconds, unless it is sooner.
const AGAIN_NS: u64 = 500_000;

/// Microseconds in which a line must be quiet, and in which the card's interrupt must come, in the test of a line.
const QUIET_MICROS: u64 = 20;
const TEST_MICROS: u64 = 2_000;

/// Interrupts in a row without an event of the card after which its line is given up: something else is stuck on it.
const STRAY_INTERRUPTS: u32 = 1_000;

/// Where messages of devices go (SDM 3A, 12.11.1); bits 19:12 are the APIC identifier.
const MESSAGE_ADDRESS: u32 = 0xFEE0_0000;
const MAX_MESSAGE_DESTINATION: u32 = 254;

/// By bridge: the line to be masked, as bits; 0 = none.
static PINS: [AtomicU64; BRIDGES] = [const { AtomicU64::new(0) }; BRIDGES];
/// By bridge: its card's address, as bits plus 1; 0 = the place is free.
static CARDS: [AtomicU64; BRIDGES] = [const { AtomicU64::new(0) }; BRIDGES];
/// Interrupts of any card.
static INTERRUPTS: AtomicU64 = AtomicU64::new(0);

/// Why a bridge cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// No such card.
    NoCard,
    /// It has a bridge already, or there are too many bridges.
    Taken,
    /// The card cannot be used.
    Card(Trouble),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::NoCard => f.write_str("this host has no such network card"),
            OpenError::Taken => f.write_str("the card is bridged already, or there are too many bridges"),
            OpenError::Card(trouble) => trouble.fmt(f),
        }
    }
}

/// How the card calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// By a line to the I/O APIC.
    Pin(Pin),
    /// By a message.
    Message,
    /// Not at all: an alarm has it polled.
    Polled,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Way::Pin(pin) => write!(f, "global interrupt {}", pin.global()),
            Way::Message => f.write_str("message"),
            Way::Polled => f.write_str("polling"),
        }
    }
}

/// A guest's network device on a card of this host.
pub struct Bridge {
    port: Port<Nic>,
    card: Function,
    /// Its place in the tables above.
    place: usize,
    way: Way,
    /// [`INTERRUPTS`] at the last poll, and how many polls in a row had an interrupt and no event.
    seen: u64,
    strays: u32,
    /// The link, as said by [`Self::link_change`] last.
    told_up: bool,
}

impl Bridge {
    /// Starts the card that `which` names, for a guest with the address `guest`. `promiscuous` = the guest gets all frames
    /// that the card sees. [`duties::NETWORK`] is pending afterwards: the first poll lets the card interrupt. On the boot
    /// processor, in service ([`crate::terminal::start`]), before the frame pools are closed.
    ///
    /// # Errors
    /// No such card, or it cannot be used.
    pub fn open(which: &vm_config::Card, guest: MacAddress, promiscuous: bool) -> Result<Bridge, OpenError> {
        let card = network::find(which).ok_or(OpenError::NoCard)?;
        let mut config = platform::pci().ok_or(OpenError::NoCard)?.config.clone();
        let place = claim(card.address).ok_or(OpenError::Taken)?;
        let nic = network::start(&mut config, &card, Rings::default()).map_err(|trouble| {
            CARDS[place].store(0, Ordering::Relaxed);
            OpenError::Card(trouble)
        })?;
        let mut port = Port::new(nic, guest, promiscuous);
        idt::set_handler(vector::NETWORK, |_| interrupt());
        let way = find_way(&mut config, &card, port.card(), place);
        let link = LinkName(port.link());
        let address = card.address;
        log::info!("network card {address} is the guest's {guest}, by {way}; link {link}");
        machine_line!("bridge card={address} guest={guest} by=\"{way}\"");
        HOST.raise(duties::NETWORK);
        Ok(Bridge {
            port,
            card,
            place,
            way,
            seen: INTERRUPTS.load(Ordering::Relaxed),
            strays: 0,
            told_up: true,
        })
    }

    /// Hands received frames to `receive`, at most [`super::port::BUDGET`]. By `false` it says that the guest has no buffer:
    /// the frame stays on the card, and this is to be called again when the guest has some; [`duties::NETWORK`] comes
    /// after a while anyway. Returns whether there was anything. To be called whenever [`duties::NETWORK`] is pending (take that before).
    pub fn poll(&mut self, receive: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        let before = self.port.handled();
        let left = self.port.poll(receive);
        let busy = self.port.handled() != before;
        match (left, self.way) {
            // Its line stays masked: it has been called already.
            (Left::More, _) => HOST.raise(duties::NETWORK),
            (_, Way::Pin(pin)) => {
                self.watch_strays(busy);
                if self.way == Way::Pin(pin) {
                    pin.unmask();
                }
            }
            (_, Way::Message) => {}
            (_, Way::Polled) => {
                self.port.look_at_link();
                call_again(POLL_NS);
            }
        }
        if left == Left::Untaken {
            call_again(AGAIN_NS);
        }
        busy
    }

    /// Sends a frame of the guest. False: the card has no room; [`duties::NETWORK`] comes when it has, then call again. A
    /// frame that cannot be sent at all is dropped and counted.
    pub fn send(&mut self, frame: &[u8]) -> bool {
        self.port.send(frame)
    }

    /// Whether the link is up, if that is another than at the last call; at the first, if it is down.
    pub fn link_change(&mut self) -> Option<bool> {
        let up = self.port.link() != Link::Down;
        (core::mem::replace(&mut self.told_up, up) != up).then_some(up)
    }

    /// Tells what the bridge has counted, for the shell.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn tell(&mut self, out: &mut dyn Write) -> fmt::Result {
        let (card, port) = self.port.counters();
        let (address, guest, link) = (self.card.address, self.port.guest(), LinkName(self.port.link()));
        writeln!(out, "{address} for {guest}: link {link} ({} changes), by {}", port.link_changes, self.way)?;
        writeln!(
            out,
            "  to the guest {} frames, {} waited for a buffer, {} not for it; missed {}, damaged {}, rejected {}",
            port.to_guest,
            port.guest_full,
            port.not_ours,
            card.missed,
            card.receive_errors,
            card.bad_descriptors
        )?;
        writeln!(
            out,
            "  from the guest {} frames, {} waited for room, {} of impossible length; collisions {}",
            port.from_guest, port.card_full, port.bad_length, card.transmit_errors
        )
    }

    /// Gives the line up when interrupts come that the card knows nothing of.
    fn watch_strays(&mut self, busy: bool) {
        let interrupts = INTERRUPTS.load(Ordering::Relaxed);
        let stray = interrupts != core::mem::replace(&mut self.seen, interrupts) && !busy;
        self.strays = if stray { self.strays + 1 } else { 0 };
        if self.strays >= STRAY_INTERRUPTS {
            log::warn!("network card {}: its interrupt line is stuck; polled from now on", self.card.address);
            PINS[self.place].store(0, Ordering::Relaxed);
            self.way = Way::Polled;
            HOST.raise(duties::NETWORK);
        }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.port.card().stop();
        if let Way::Pin(pin) = self.way {
            pin.mask();
        }
        if let Some(pci) = platform::pci() {
            let mut config = pci.config.clone();
            if let Some(msi) = Msi::find(&config, &self.card) {
                msi.disable(&mut config);
            }
            config.modify_command(self.card.address, command::BUS_MASTER, command::INTERRUPT_DISABLE);
        }
        PINS[self.place].store(0, Ordering::Relaxed);
        CARDS[self.place].store(0, Ordering::Relaxed);
    }
}

/// Has the bridges polled after so many nanoseconds, or before.
fn call_again(after: u64) {
    let at = time::now_ns().saturating_add(after);
    alarm::set(Alarm::Network, Some(alarm::deadline(Alarm::Network).map_or(at, |due| due.min(at))));
}

/// A place for the card, unless it has one.
fn claim(card: Address) -> Option<usize> {
    let bits = (u64::from(card.segment) << 16 | u64::from(card.requester_id())) + 1;
    if CARDS.iter().any(|taken| taken.load(Ordering::Relaxed) == bits) {
        return None;
    }
    let place = CARDS.iter().position(|taken| taken.load(Ordering::Relaxed) == 0)?;
    CARDS[place].store(bits, Ordering::Relaxed);
    Some(place)
}

/// Any card's interrupt.
fn interrupt() {
    INTERRUPTS.fetch_add(1, Ordering::Relaxed);
    PINS.iter().filter_map(|pin| Pin::from_bits(pin.load(Ordering::Relaxed))).for_each(Pin::mask);
    HOST.raise(duties::NETWORK);
}

/// Finds a way by which the card's interrupts arrive, by having it interrupt.
fn find_way(config: &mut PciConfig, card: &Function, nic: &mut Nic, place: usize) -> Way {
    if let Some(msi) = Msi::find(config, card) {
        let destination = percpu::of(0).apic_id();
        if destination <= MAX_MESSAGE_DESTINATION {
            msi.enable(config, MESSAGE_ADDRESS | destination << 12, vector::NETWORK.into());
            if arrives(nic) {
                return Way::Message;
            }
            msi.disable(config);
        }
    }
    config.modify_command(card.address, command::INTERRUPT_DISABLE, 0);
    if let Some(madt) = platform::get().and_then(|p| p.madt.as_ref()) {
        for line in lines(madt, card) {
            let Ok(pin) = ioapic::route(line, vector::NETWORK, |_| interrupt()) else { continue };
            // The handler masks it.
            PINS[place].store(pin.bits(), Ordering::Relaxed);
            pin.unmask();
            if arrives(nic) {
                return Way::Pin(pin);
            }
            PINS[place].store(0, Ordering::Relaxed);
            pin.mask();
            log::debug!("network card {}: not by {line:?}", card.address);
        }
    }
    log::warn!("network card {}: no interrupt of it arrives; polled every {POLL_NS} ns", card.address);
    Way::Polled
}

/// Whether the card's interrupts arrive, and nobody else's.
fn arrives(nic: &mut Nic) -> bool {
    let count = || INTERRUPTS.load(Ordering::Relaxed);
    let before = count();
    let came = || {
        proof::drain_interrupts();
        count() != before
    };
    nic.take_events();
    if time::wait_until(QUIET_MICROS, came) {
        return false;
    }
    nic.set_events(NetEvents { link: true, ..NetEvents::NONE });
    nic.provoke();
    let arrived = time::wait_until(TEST_MICROS, came);
    nic.set_events(NetEvents::NONE);
    nic.take_events();
    arrived
}

/// The lines it may have: what firmware says, and where chipsets with more than 16 lines put a device on the root bus.
fn lines(madt: &Madt, card: &Function) -> impl Iterator<Item = Line> {
    let serial = madt.isa_line(SERIAL_IRQ).global;
    let said = (1..16).contains(&card.interrupt_line).then(|| madt.pci_line(card.interrupt_line));
    let swizzled = card.interrupt_pin.checked_sub(1).map(|pin| {
        let global = 16 + u32::from(card.address.device() + pin) % 4;
        Line { global, level: true, active_low: true }
    });
    said.into_iter().chain(swizzled).filter(move |line| line.global != serial)
}
