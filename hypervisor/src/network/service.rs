//! A card of this host in service: claimed by one user, started, and its interrupts arrive, or it is polled.
//!
//! A card's interrupt only masks its line and raises the duty of the card, and of those that share its line; then each of their
//! users is to poll its card and to say so by [`Service::polled`], which lets it interrupt again: at once, or under load after a
//! while. Nothing here allocates after [`Service::open`].

use super::{Nic, Trouble};
use crate::arch::alarm::{self, Alarm};
use crate::arch::idt::{self, Frame, vector};
use crate::arch::ioapic::{self, Pin};
use crate::arch::{percpu, proof, time};
use crate::duties::HOST;
use crate::firmware::madt::{Line, Madt};
use crate::hal::PciConfig;
use crate::platform;
use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use e1000::Rings;
use hal::{NetDevice, NetEvents};
use machine::throttle::{Pace, Throttle};
use pci::{Address, ConfigSpace, Function, Msi, command};

/// Cards in service at most: a guest's network devices, and the logging channel.
const PLACES: usize = 5;

/// The serial port's legacy interrupt, whose line is not shared.
const SERIAL_IRQ: u8 = 4;

/// How often a card without an interrupt is polled, in nanoseconds.
const POLL_NS: u64 = 1_000_000;

/// An alarm may come so much too early, nanoseconds.
const EARLY_NS: u64 = 2_000;

/// The interrupts of a card in a pair's host: half as often under load, since each costs the guest of a pair some three times as much.
const PAIR: Pace = Pace { gap_ns: 2 * Pace::CARD.gap_ns, ..Pace::CARD };

/// The interrupts of a card that brings nothing that anybody waits for.
const CALM: Pace = Pace { gap_ns: 3 * PAIR.gap_ns, ..PAIR };

/// Microseconds in which a line must be quiet, and in which the card's interrupt must come, in the test of a line.
const QUIET_MICROS: u64 = 20;
const TEST_MICROS: u64 = 2_000;

/// Interrupts in a row without an event of the card after which its line is given up: something else is stuck on it.
const STRAY_INTERRUPTS: u32 = 1_000;

/// Where messages of devices go (SDM 3A, 12.11.1); bits 19:12 are the APIC identifier.
const MESSAGE_ADDRESS: u32 = 0xFEE0_0000;
const MAX_MESSAGE_DESTINATION: u32 = 254;

/// By place: the line to be masked, as bits; 0 = none.
static PINS: [AtomicU64; PLACES] = [const { AtomicU64::new(0) }; PLACES];
/// By place: its card's address, as bits plus 1; 0 = the place is free.
static CARDS: [AtomicU64; PLACES] = [const { AtomicU64::new(0) }; PLACES];
/// By place: what its card's interrupt raises.
static DUTIES: [AtomicU32; PLACES] = [const { AtomicU32::new(0) }; PLACES];
/// Duties of cards that do not interrupt for now.
static HELD: AtomicU32 = AtomicU32::new(0);
/// By place: interrupts that its card may have caused.
static INTERRUPTS: [AtomicU64; PLACES] = [const { AtomicU64::new(0) }; PLACES];
/// What lies between two interrupts of a card under load, nanoseconds.
static GAP_NS: AtomicU64 = AtomicU64::new(Pace::CARD.gap_ns);
/// Polls of any card that found something.
static FINDS: AtomicU64 = AtomicU64::new(0);

/// Why a card cannot be taken into service.
#[derive(Debug)]
pub enum OpenError {
    /// No such card.
    NoCard,
    /// It has a user already, or too many have one.
    Taken,
    /// The card cannot be used.
    Card(Trouble),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::NoCard => f.write_str("this host has no such network card"),
            OpenError::Taken => f.write_str("the card is in use already, or too many are"),
            OpenError::Card(trouble) => trouble.fmt(f),
        }
    }
}

/// How the card calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
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

/// A card's place among those in service. Its driver is its user's.
pub struct Service {
    card: Function,
    /// Its place in the tables above.
    place: usize,
    way: Way,
    duty: u32,
    alarm: Alarm,
    /// [`INTERRUPTS`] and [`FINDS`] at the last poll, and how many polls in a row had an interrupt of which no card knew.
    seen: (u64, u64),
    strays: u32,
    throttle: Throttle,
    /// For as long as nobody waits for what it brings.
    calm: Throttle,
    /// The card does not interrupt until then, nanoseconds of uptime: an alarm has it polled. 0: it interrupts.
    held_until: u64,
    /// When it would be polled if somebody waited, nanoseconds of uptime.
    soonest: u64,
    /// Somebody waits for what it brings.
    awaited: bool,
    /// For when the alarm is set, nanoseconds of uptime.
    again: Option<u64>,
}

impl Service {
    /// Starts the card that `which` names, for a user who polls it when `duty` is pending; `alarm` raises that duty, too.
    /// The duty is pending afterwards: the first poll lets the card interrupt. On the boot processor, before the frame pools
    /// are closed.
    ///
    /// # Errors
    /// No such card, or it cannot be used.
    pub fn open(which: &vm_config::Card, duty: u32, alarm: Alarm) -> Result<(Nic, Service), OpenError> {
        let card = super::find(which).ok_or(OpenError::NoCard)?;
        let mut config = platform::pci().ok_or(OpenError::NoCard)?.config.clone();
        let place = claim(card.address).ok_or(OpenError::Taken)?;
        let mut nic = super::start(&mut config, &card, Rings::default()).map_err(|trouble| {
            CARDS[place].store(0, Ordering::Relaxed);
            OpenError::Card(trouble)
        })?;
        idt::set_handler(vector_of(place), interrupt);
        let way = find_way(&mut config, &card, &mut nic, place);
        DUTIES[place].store(duty, Ordering::Relaxed);
        HOST.raise(duty);
        let (seen, throttle) = (seen(place), Throttle::default());
        Ok((
            nic,
            Service {
                card,
                place,
                way,
                duty,
                alarm,
                seen,
                strays: 0,
                throttle,
                calm: Throttle::default(),
                held_until: 0,
                soonest: 0,
                awaited: true,
                again: None,
            },
        ))
    }

    /// The card's address on PCI.
    pub fn address(&self) -> Address {
        self.card.address
    }

    /// How the card calls.
    pub fn way(&self) -> Way {
        self.way
    }

    /// The card was polled; `busy`: there was something. `more`: there may be more, so the duty is pending again, and the
    /// card need not call. Ask [`is_quiet`](Self::is_quiet) afterwards.
    pub fn polled(&mut self, busy: bool, more: bool) {
        let now = time::now_ns();
        let still_held = HELD.load(Ordering::Relaxed) & self.duty != 0 && self.held_until > now + EARLY_NS;
        self.again = None;
        if more {
            // Its line stays masked: it has been called already.
            return HOST.raise(self.duty);
        }
        if let Way::Pin(_) = self.way {
            self.watch_strays(busy);
        }
        if self.way == Way::Polled {
            return self.call_again(POLL_NS);
        }
        if !still_held {
            let pace = Pace { gap_ns: GAP_NS.load(Ordering::Relaxed), ..Pace::CARD };
            self.soonest = if busy { self.throttle.next_at(now, pace).unwrap_or(0) } else { 0 };
            let calm = busy && !self.awaited;
            let later = if calm { self.calm.next_at(now, CALM).unwrap_or(0) } else { 0 };
            self.held_until = self.soonest.max(later);
        }
        if self.held_until > now {
            HELD.fetch_or(self.duty, Ordering::Relaxed);
            self.call_again(self.held_until - now);
        } else {
            HELD.fetch_and(!self.duty, Ordering::Relaxed);
            if let Way::Pin(pin) = self.way {
                pin.unmask();
            }
        }
    }

    /// Says whether somebody waits for what the card brings; at first somebody does. If nobody, it interrupts less often under load, and
    /// as before when somebody does again.
    pub fn set_awaited(&mut self, awaited: bool) {
        if core::mem::replace(&mut self.awaited, awaited) || !awaited || self.held_until <= self.soonest {
            return;
        }
        self.held_until = self.soonest;
        // If that is past, the alarm comes at once.
        self.call_again(self.soonest.saturating_sub(time::now_ns()));
    }

    /// Whether the card is to be told to send no interrupt now: it has no line that could be masked.
    pub fn is_quiet(&self) -> bool {
        self.held_until != 0 && self.way == Way::Message
    }

    /// Has the duty raised after so many nanoseconds, or before.
    pub fn call_again(&mut self, after: u64) {
        let at = time::now_ns().saturating_add(after);
        self.again = Some(self.again.map_or(at, |due| due.min(at)));
        alarm::set(self.alarm, Some(alarm::deadline(self.alarm).map_or(at, |due| due.min(at))));
    }

    /// When the alarm is to raise the duty for the card's sake, nanoseconds of uptime. For who sets the alarm himself.
    pub const fn due(&self) -> Option<u64> {
        self.again
    }

    /// Gives the line up when interrupts come that the card knows nothing of.
    fn watch_strays(&mut self, busy: bool) {
        FINDS.fetch_add(u64::from(busy), Ordering::Relaxed);
        let (interrupts, finds) = seen(self.place);
        let before = core::mem::replace(&mut self.seen, (interrupts, finds));
        let stray = interrupts != before.0 && finds == before.1;
        self.strays = if stray { self.strays + 1 } else { 0 };
        if self.strays >= STRAY_INTERRUPTS {
            log::warn!("network card {}: its interrupt line is stuck; polled from now on", self.card.address);
            PINS[self.place].store(0, Ordering::Relaxed);
            self.way = Way::Polled;
            HOST.raise(self.duty);
        }
    }

    /// Takes the card out of service: it interrupts no more and does no DMA.
    pub fn close(&mut self, nic: &mut Nic) {
        nic.stop();
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
        DUTIES[self.place].store(0, Ordering::Relaxed);
        CARDS[self.place].store(0, Ordering::Relaxed);
    }
}

/// This host belongs to a pair: its cards interrupt less often under load from now on.
pub fn serve_a_pair() {
    GAP_NS.store(PAIR.gap_ns, Ordering::Relaxed);
}

/// Has cards polled at once that do not interrupt for now: there is nothing better to do. Whether there are any.
pub fn call_held() -> bool {
    let duties = HELD.swap(0, Ordering::Relaxed);
    HOST.raise(duties);
    duties != 0
}

/// Interrupts of the card at this place, and finds of all, so far.
fn seen(place: usize) -> (u64, u64) {
    (INTERRUPTS[place].load(Ordering::Relaxed), FINDS.load(Ordering::Relaxed))
}

/// The vector of the card at this place.
const fn vector_of(place: usize) -> u8 {
    vector::NETWORK + place as u8
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

/// The pin of the card at this place, if it has one.
fn pin_of(place: usize) -> Option<Pin> {
    PINS.get(place).and_then(|pin| Pin::from_bits(pin.load(Ordering::Relaxed)))
}

/// A card's interrupt. Cards on one line come by the vector of the one that was let through last: it is the interrupt of all of them.
fn interrupt(frame: &mut Frame) {
    let called = (frame.vector as usize).wrapping_sub(vector::NETWORK.into());
    let line = pin_of(called).map(Pin::global);
    for place in 0..PLACES {
        let pin = pin_of(place).filter(|pin| Some(pin.global()) == line);
        if place != called && pin.is_none() {
            continue;
        }
        INTERRUPTS[place].fetch_add(1, Ordering::Relaxed);
        if let Some(pin) = pin {
            pin.mask();
        }
        HOST.raise(DUTIES[place].load(Ordering::Relaxed));
    }
}

/// Finds a way by which the card's interrupts arrive, by having it interrupt.
fn find_way(config: &mut PciConfig, card: &Function, nic: &mut Nic, place: usize) -> Way {
    if let Some(msi) = Msi::find(config, card) {
        let destination = percpu::of(0).apic_id();
        if destination <= MAX_MESSAGE_DESTINATION {
            msi.enable(config, MESSAGE_ADDRESS | destination << 12, vector_of(place).into());
            if arrives(nic, place) {
                return Way::Message;
            }
            msi.disable(config);
        }
    }
    config.modify_command(card.address, command::INTERRUPT_DISABLE, 0);
    if let Some(madt) = platform::get().and_then(|p| p.madt.as_ref()) {
        for line in lines(madt, card) {
            let Ok(pin) = ioapic::route(line, vector_of(place), interrupt) else { continue };
            // The handler masks it.
            PINS[place].store(pin.bits(), Ordering::Relaxed);
            pin.unmask();
            if arrives(nic, place) {
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
fn arrives(nic: &mut Nic, place: usize) -> bool {
    let count = || INTERRUPTS[place].load(Ordering::Relaxed);
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
