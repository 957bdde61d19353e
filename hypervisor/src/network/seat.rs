//! A card as one of its users has it: alone, or with the host or a guest beside.

use super::Nic;
use super::service::{OpenError, Service, Way};
use crate::arch::alarm::Alarm;
use crate::duties::{self, HOST};
use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::RefCell;
use hal::{Filter, Link, MacAddress, NetCounters, NetDevice, NetEvents, TransmitError};
use net::shared::{Guard, Half, share};
use pci::Address;

/// The driver, or a half of it.
pub enum Seat {
    /// Nobody else has it.
    Alone(Box<Nic>),
    /// Somebody else has the other half.
    Half(Half<Nic>),
}

/// A user's driver, and the service of its card.
pub struct Served {
    /// Its driver.
    pub seat: Seat,
    /// How the card calls.
    pub service: Hold,
}

/// A user's hold on its card's service, which two may have.
#[derive(Clone)]
pub struct Hold {
    service: Rc<RefCell<Service>>,
    shared: bool,
}

/// Starts the card that `which` names for one user: [`Service::open`].
///
/// # Errors
/// No such card, or it cannot be used.
pub fn open(which: &vm_config::Card, duty: u32, alarm: Alarm) -> Result<Served, OpenError> {
    let (nic, service) = Service::open(which, duty, alarm)?;
    Ok(Served { seat: Seat::Alone(Box::new(nic)), service: Hold::new(service, false) })
}

/// Starts it for a guest's network and the logging channel: first the host's half, then the guest's. Both duties are pending afterwards,
/// and both when the card calls; who finds something for the other raises the other's.
///
/// # Errors
/// No such card, or it cannot be used.
pub fn open_shared(which: &vm_config::Card, guard: Guard) -> Result<[Served; 2], OpenError> {
    let (nic, service) = Service::open(which, duties::NETWORK | duties::LOG, Alarm::Network)?;
    let service = Hold::new(service, true);
    let calls = [|| HOST.raise(duties::LOG), || HOST.raise(duties::NETWORK)];
    Ok(share(nic, guard, calls).map(|half| Served { seat: Seat::Half(half), service: service.clone() }))
}

impl Hold {
    fn new(service: Service, shared: bool) -> Self {
        Self { service: Rc::new(RefCell::new(service)), shared }
    }

    /// [`Service::address`].
    pub fn address(&self) -> Address {
        self.service.borrow().address()
    }

    /// [`Service::way`].
    pub fn way(&self) -> Way {
        self.service.borrow().way()
    }

    /// [`Service::polled`]. Whether the card is [quiet](Service::is_quiet) now.
    pub fn polled(&self, busy: bool, more: bool) -> bool {
        let mut service = self.service.borrow_mut();
        service.polled(busy, more);
        service.is_quiet()
    }

    /// [`Service::call_again`].
    pub fn call_again(&self, after: u64) {
        self.service.borrow_mut().call_again(after);
    }

    /// [`Service::close`].
    pub fn close(&self, nic: &mut Nic) {
        self.service.borrow_mut().close(nic);
    }

    /// Says whether somebody waits for what the card brings: [`Service::set_awaited`]. For what else a card brings that two have,
    /// somebody always does.
    pub fn set_awaited(&self, awaited: bool) {
        if !self.shared {
            self.service.borrow_mut().set_awaited(awaited);
        }
    }

    /// When the alarm is to raise the duty for the card's sake, nanoseconds of uptime. For who sets the alarm himself: that of a card
    /// that two have is the other one's.
    pub fn due(&self) -> Option<u64> {
        if self.shared { None } else { self.service.borrow().due() }
    }
}

impl Seat {
    /// Lends the card itself.
    pub fn with_nic<R>(&mut self, use_it: impl FnOnce(&mut Nic) -> R) -> R {
        match self {
            Self::Alone(nic) => use_it(nic),
            Self::Half(half) => half.with_device(use_it),
        }
    }

    /// Frames of the guest that were not sent because they speak in another's name.
    pub fn guarded(&self) -> u64 {
        match self {
            Self::Alone(_) => 0,
            Self::Half(half) => half.guarded(),
        }
    }
}

impl NetDevice for Seat {
    fn mac(&self) -> MacAddress {
        match self {
            Self::Alone(nic) => nic.mac(),
            Self::Half(half) => half.mac(),
        }
    }

    fn link(&self) -> Link {
        match self {
            Self::Alone(nic) => nic.link(),
            Self::Half(half) => half.link(),
        }
    }

    fn max_frame(&self) -> usize {
        match self {
            Self::Alone(nic) => nic.max_frame(),
            Self::Half(half) => half.max_frame(),
        }
    }

    fn transmit(&mut self, frame: &[u8]) -> Result<(), TransmitError> {
        match self {
            Self::Alone(nic) => nic.transmit(frame),
            Self::Half(half) => half.transmit(frame),
        }
    }

    fn receive_while(&mut self, budget: usize, sink: &mut dyn FnMut(&[u8]) -> bool) -> usize {
        match self {
            Self::Alone(nic) => nic.receive_while(budget, sink),
            Self::Half(half) => half.receive_while(budget, sink),
        }
    }

    fn set_filter(&mut self, filter: Filter) {
        match self {
            Self::Alone(nic) => nic.set_filter(filter),
            Self::Half(half) => half.set_filter(filter),
        }
    }

    fn set_events(&mut self, wanted: NetEvents) {
        match self {
            Self::Alone(nic) => nic.set_events(wanted),
            Self::Half(half) => half.set_events(wanted),
        }
    }

    fn take_events(&mut self) -> NetEvents {
        match self {
            Self::Alone(nic) => nic.take_events(),
            Self::Half(half) => half.take_events(),
        }
    }

    fn provoke(&mut self) {
        match self {
            Self::Alone(nic) => nic.provoke(),
            Self::Half(half) => half.provoke(),
        }
    }

    fn counters(&mut self) -> NetCounters {
        match self {
            Self::Alone(nic) => nic.counters(),
            Self::Half(half) => half.counters(),
        }
    }
}
