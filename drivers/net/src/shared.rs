//! One card for two stations: a guest's, and the host's own beside it.
//!
//! Each half is a [`NetDevice`] of its own. What one of them takes from the card and is the other's is put by for it, so neither waits
//! for the other: a guest that takes nothing loses its own frames, not the host's. The guest is a stranger on the host's network like
//! any other, but one that sits behind the host's own address: see [`Guard`].

mod desk;
mod guard;
#[cfg(test)]
mod tests;

pub use guard::Guard;

use alloc::rc::Rc;
use core::cell::RefCell;
use desk::{Desk, Taken};
use hal::{Filter, Link, MacAddress, NetCounters, NetDevice, NetEvents, TransmitError};

/// Frames that are taken from the card in one piece, and how many pieces at once: a flood must leave time for others.
const PIECE: usize = 64;
const PIECES: usize = 4;

/// Frames that are put by for the host, which looks for them at once, and for the guest, which may have other things to do.
const SLOTS: [usize; 2] = [64, 256];

/// The two stations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Host,
    Guest,
}

impl Who {
    const fn other(self) -> Self {
        match self {
            Self::Host => Self::Guest,
            Self::Guest => Self::Host,
        }
    }
}

/// Called when there is something for a station that may not know it.
pub type Call = fn();

/// The card as one of its two users has it.
pub struct Half<N> {
    who: Who,
    both: Rc<RefCell<Both<N>>>,
}

/// The card, and what is kept for each of its users.
struct Both<N> {
    device: N,
    own: MacAddress,
    guard: Guard,
    /// What the card was told to interrupt for.
    told: NetEvents,
    desks: [Desk; 2],
    calls: [Call; 2],
}

/// Makes two of a card: the host's half, which has the card's own address, and the guest's, which has any other that its filter names.
/// `calls`: of the host, of the guest; a call may come from within any method of the other half. Allocates all that will be needed.
pub fn share<N: NetDevice>(device: N, guard: Guard, calls: [Call; 2]) -> [Half<N>; 2] {
    let bytes = device.max_frame();
    let own = device.mac();
    let desks = SLOTS.map(|slots| Desk::new(slots, bytes));
    let both = Both { device, own, guard, told: NetEvents::NONE, desks, calls };
    let both = Rc::new(RefCell::new(both));
    [Who::Host, Who::Guest].map(|who| Half { who, both: both.clone() })
}

impl<N> Half<N> {
    /// Lends the card itself.
    pub fn with_device<R>(&mut self, use_it: impl FnOnce(&mut N) -> R) -> R {
        use_it(&mut self.both.borrow_mut().device)
    }

    /// Frames of the guest that were not sent because they speak in another's name.
    pub fn guarded(&self) -> u64 {
        self.both.borrow().guard.stopped()
    }
}

impl<N: NetDevice> Both<N> {
    /// Takes from the card what there is, and gives it to whom it is for.
    fn distribute(&mut self, who: Who) {
        let Self { device, own, desks, calls, .. } = self;
        let mut came = [false; 2];
        let mut rest = true;
        for _ in 0..PIECES {
            let count = device.receive_while(PIECE, &mut |frame| {
                for (who, desk) in [Who::Host, Who::Guest].into_iter().zip(&mut *desks) {
                    came[who as usize] |= is_for(who, *own, desk.filter, frame) && desk.put(frame);
                }
                true
            });
            rest = count == PIECE;
            if !rest {
                break;
            }
        }
        let other = who.other() as usize;
        if came[other] {
            desks[other].pending.received = true;
            calls[other]();
        }
        if rest {
            // There may be more, and the card does not call for what it has called for.
            calls[who as usize]();
        }
    }

    /// Has the card interrupt for what either of them wants.
    fn tell_events(&mut self) {
        let [a, b] = [&self.desks[0].wanted, &self.desks[1].wanted];
        let wanted = either(*a, *b);
        if wanted != self.told {
            self.told = wanted;
            self.device.set_events(wanted);
        }
    }
}

/// Whether a station gets a frame. The host's own address is nobody else's: a guest that gets everything would get the log of what it
/// gets.
fn is_for(who: Who, own: MacAddress, filter: Filter, frame: &[u8]) -> bool {
    let Some(to) = frame.first_chunk().map(|bytes| MacAddress(*bytes)) else { return false };
    let group = to == MacAddress::BROADCAST || filter.groups && to.is_group();
    match who {
        Who::Host => to == own || group,
        Who::Guest => to != own && (group || filter.everything || filter.station == Some(to)),
    }
}

const fn either(a: NetEvents, b: NetEvents) -> NetEvents {
    NetEvents { received: a.received || b.received, sent: a.sent || b.sent, link: a.link || b.link }
}

impl<N: NetDevice> NetDevice for Half<N> {
    fn mac(&self) -> MacAddress {
        self.both.borrow().own
    }

    fn link(&self) -> Link {
        self.both.borrow().device.link()
    }

    fn max_frame(&self) -> usize {
        self.both.borrow().device.max_frame()
    }

    /// A frame of the guest that speaks in another's name is dropped.
    fn transmit(&mut self, frame: &[u8]) -> Result<(), TransmitError> {
        let both = &mut *self.both.borrow_mut();
        if self.who == Who::Guest {
            // One that gets every frame has others behind it.
            let Filter { station, everything, .. } = both.desks[Who::Guest as usize].filter;
            if both.guard.stops(both.own, station.filter(|_| !everything), frame) {
                return Ok(());
            }
        }
        both.device.transmit(frame)
    }

    fn receive_while(&mut self, budget: usize, sink: &mut dyn FnMut(&[u8]) -> bool) -> usize {
        self.both.borrow_mut().distribute(self.who);
        let desk = self.who as usize;
        for count in 0..budget {
            // Nothing is borrowed while the sink has the frame: it may send.
            let Some(taken) = self.both.borrow_mut().desks[desk].take() else { return count };
            let accepted = sink(taken.frame());
            let mut both = self.both.borrow_mut();
            if !accepted {
                both.desks[desk].put_back(taken);
                return count;
            }
            both.desks[desk].free(taken);
        }
        budget
    }

    fn set_filter(&mut self, filter: Filter) {
        let both = &mut *self.both.borrow_mut();
        both.desks[self.who as usize].filter = filter;
        let [host, guest] = [both.desks[0].filter, both.desks[1].filter];
        both.device.set_filter(Filter {
            station: guest.station,
            groups: host.groups || guest.groups,
            everything: guest.everything,
        });
    }

    fn set_events(&mut self, wanted: NetEvents) {
        let mut both = self.both.borrow_mut();
        both.desks[self.who as usize].wanted = wanted;
        both.tell_events();
    }

    fn take_events(&mut self) -> NetEvents {
        let mut both = self.both.borrow_mut();
        let events = both.device.take_events();
        for desk in &mut both.desks {
            desk.pending = either(desk.pending, events);
        }
        core::mem::take(&mut both.desks[self.who as usize].pending)
    }

    fn provoke(&mut self) {
        self.both.borrow_mut().device.provoke();
    }

    /// The card's, with what was missed for want of a place to put it by.
    fn counters(&mut self) -> NetCounters {
        let mut both = self.both.borrow_mut();
        let counters = both.device.counters();
        let missed = counters.missed + both.desks[self.who as usize].missed;
        NetCounters { missed, ..counters }
    }
}

impl Taken {
    fn frame(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}
