//! A bridge's pure half: which frames pass between a guest's network device and a host's card, when the card may
//! interrupt, and what is counted.

use core::fmt;
use hal::{Filter, Link, MacAddress, NetCounters, NetDevice, NetEvents};

/// Frames that one [`Port::poll`] hands over at most: a flood must leave time for the guest.
pub const BUDGET: usize = 64;

/// Bytes of the two addresses and the type.
const HEADER: usize = 14;

/// What a port has counted beside the card's own counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Frames given to the guest.
    pub to_guest: u64,
    /// Frames taken from the guest.
    pub from_guest: u64,
    /// Frames that the card let through and that are not for the guest.
    pub not_ours: u64,
    /// Frames of the guest without a whole header or longer than the card sends.
    pub bad_length: u64,
    /// Times the guest had no buffer for a frame, which stayed on the card.
    pub guest_full: u64,
    /// Times the card's ring had no room for a frame of the guest.
    pub card_full: u64,
    /// Times the link went up or down.
    pub link_changes: u64,
}

/// What a [`Port::poll`] has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Nothing: the card will say when there is something.
    Nothing,
    /// The budget is used up; there may be more.
    More,
    /// A frame that the guest did not take: poll again when it has buffers.
    Untaken,
}

/// A host's card given to a guest.
#[derive(Debug)]
pub struct Port<N> {
    card: N,
    guest: MacAddress,
    everything: bool,
    link: Link,
    wanted: NetEvents,
    /// Nothing interrupts for now, whatever is wanted.
    quiet: bool,
    /// A frame of the guest found no room: say when there is some.
    waits_for_room: bool,
    /// Events and frames so far.
    handled: u64,
    counters: PortCounters,
}

impl<N: NetDevice> Port<N> {
    /// Gives `card` to the guest with the address `guest`. `everything` = not only what is for that address.
    pub fn new(mut card: N, guest: MacAddress, everything: bool) -> Self {
        card.set_filter(Filter { station: Some(guest), groups: true, everything });
        card.set_events(NetEvents::NONE);
        let link = card.link();
        let wanted = NetEvents::NONE;
        let counters = PortCounters::default();
        Port {
            card,
            guest,
            everything,
            link,
            wanted,
            quiet: false,
            waits_for_room: false,
            handled: 0,
            counters,
        }
    }

    /// Hands frames to `take` until it says by `false` that it cannot take this one, which then stays on the card, or
    /// until [`BUDGET`] is used up. Ends the card's interrupt, and says which ones it may send next.
    pub fn poll(&mut self, take: &mut dyn FnMut(&[u8]) -> bool) -> Left {
        let events = self.card.take_events();
        if events.link {
            self.look_at_link();
        }
        if events.sent {
            self.waits_for_room = false;
        }
        let (guest, everything, counters) = (self.guest, self.everything, &mut self.counters);
        let mut untaken = false;
        let frames = self.card.receive_while(BUDGET, &mut |frame| {
            if !everything && !is_for(frame, guest) {
                counters.not_ours += 1;
                return true;
            }
            untaken = !take(frame);
            counters.to_guest += u64::from(!untaken);
            !untaken
        });
        self.handled += u64::from(events != NetEvents::NONE) + u64::from(untaken) + frames as u64;
        self.counters.guest_full += u64::from(untaken);
        self.want(NetEvents { received: !untaken, sent: self.waits_for_room, link: true });
        match (untaken, frames) {
            (true, _) => Left::Untaken,
            (false, BUDGET..) => Left::More,
            (false, _) => Left::Nothing,
        }
    }

    /// Sends a frame of the guest. False: the card's ring is full, and an event comes when it is not any more. A frame that
    /// no card could send is dropped, as a cable would.
    pub fn send(&mut self, frame: &[u8]) -> bool {
        if !(HEADER..=self.card.max_frame()).contains(&frame.len()) {
            self.counters.bad_length += 1;
            return true;
        }
        if self.card.transmit(frame).is_ok() {
            self.counters.from_guest += 1;
            return true;
        }
        self.counters.card_full += 1;
        self.waits_for_room = true;
        self.want(NetEvents { sent: true, ..self.wanted });
        false
    }

    /// State of the cable, as last seen: [`Self::poll`] follows it.
    pub fn link(&self) -> Link {
        self.link
    }

    /// The card's counters and this port's.
    pub fn counters(&mut self) -> (NetCounters, PortCounters) {
        (self.card.counters(), self.counters)
    }

    /// Events and frames so far: grows with every poll that had something to do.
    pub fn handled(&self) -> u64 {
        self.handled
    }

    /// The guest's address.
    pub fn guest(&self) -> MacAddress {
        self.guest
    }

    /// The card itself.
    pub fn card(&mut self) -> &mut N {
        &mut self.card
    }

    /// Looks at the cable: for cards that tell nobody.
    pub fn look_at_link(&mut self) {
        let link = self.card.link();
        if link != core::mem::replace(&mut self.link, link) {
            self.counters.link_changes += 1;
        }
    }

    /// Has nothing interrupt as long as this says so: who polls does so by the clock.
    pub fn keep_quiet(&mut self, quiet: bool) {
        if quiet != core::mem::replace(&mut self.quiet, quiet) {
            self.card.set_events(if quiet { NetEvents::NONE } else { self.wanted });
        }
    }

    fn want(&mut self, wanted: NetEvents) {
        if wanted != self.wanted {
            self.wanted = wanted;
            if !self.quiet {
                self.card.set_events(wanted);
            }
        }
    }
}

/// To this station or to a group.
fn is_for(frame: &[u8], station: MacAddress) -> bool {
    frame.first_chunk().is_some_and(|to| *to == station.0 || MacAddress(*to).is_group())
}

/// The link, for people.
#[derive(Clone, Copy, Debug)]
pub struct LinkName(pub Link);

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Link::Down => f.write_str("down"),
            Link::Up { megabits, full_duplex } => {
                write!(f, "up, {megabits} Mbit/s {}", if full_duplex { "full duplex" } else { "half duplex" })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hal::TransmitError;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::vec::Vec;

    const GUEST: MacAddress = MacAddress([2, 0, 0, 0, 0, 7]);
    const RING: usize = 8;

    /// A card with a receive ring of [`RING`] frames, and so many transmit descriptors.
    struct Fake {
        received: VecDeque<Vec<u8>>,
        missed: u64,
        sent: Vec<Vec<u8>>,
        room: usize,
        link: Link,
        happened: NetEvents,
        wanted: NetEvents,
        filter: Filter,
    }

    impl Fake {
        fn new() -> Self {
            Fake {
                received: VecDeque::new(),
                missed: 0,
                sent: Vec::new(),
                room: 4,
                link: Link::Down,
                happened: NetEvents::NONE,
                wanted: NetEvents { received: true, sent: true, link: true },
                filter: Filter::default(),
            }
        }

        fn arrives(&mut self, frame: &[u8]) {
            self.happened.received = true;
            if self.received.len() < RING {
                self.received.push_back(frame.to_vec());
            } else {
                self.missed += 1;
            }
        }

        fn interrupts(&self) -> bool {
            self.happened.received && self.wanted.received
                || self.happened.sent && self.wanted.sent
                || self.happened.link && self.wanted.link
        }
    }

    impl NetDevice for Fake {
        fn mac(&self) -> MacAddress {
            MacAddress([2, 0, 0, 0, 0, 1])
        }
        fn link(&self) -> Link {
            self.link
        }
        fn max_frame(&self) -> usize {
            1514
        }
        fn transmit(&mut self, frame: &[u8]) -> Result<(), TransmitError> {
            self.room = self.room.checked_sub(1).ok_or(TransmitError::Full)?;
            self.sent.push(frame.to_vec());
            Ok(())
        }
        fn receive_while(&mut self, budget: usize, sink: &mut dyn FnMut(&[u8]) -> bool) -> usize {
            let mut count = 0;
            while count < budget && self.received.front().is_some_and(|frame| sink(frame)) {
                self.received.pop_front();
                count += 1;
            }
            count
        }
        fn set_filter(&mut self, filter: Filter) {
            self.filter = filter;
        }
        fn set_events(&mut self, wanted: NetEvents) {
            self.wanted = wanted;
        }
        fn take_events(&mut self) -> NetEvents {
            core::mem::take(&mut self.happened)
        }
        fn provoke(&mut self) {
            self.happened.link = true;
        }
        fn counters(&mut self) -> NetCounters {
            NetCounters { missed: self.missed, ..NetCounters::default() }
        }
    }

    fn frame(to: [u8; 6], tag: u8) -> Vec<u8> {
        let mut frame = std::vec![tag; 60];
        frame[..6].copy_from_slice(&to);
        frame
    }

    fn port() -> Port<Fake> {
        Port::new(Fake::new(), GUEST, false)
    }

    #[test]
    fn only_the_guests_frames_pass() {
        let mut port = port();
        assert_eq!(port.card().filter, Filter { station: Some(GUEST), groups: true, everything: false });
        for to in [GUEST.0, [0xff; 6], [1, 0, 0x5e, 0, 0, 1], port.card().mac().0] {
            port.card().arrives(&frame(to, 1));
        }
        let mut count = 0;
        let left = port.poll(&mut |_| {
            count += 1;
            true
        });
        assert_eq!((left, count, port.counters().1.not_ours), (Left::Nothing, 3, 1));
        let mut port = Port::new(Fake::new(), GUEST, true);
        port.card().arrives(&frame([2, 2, 2, 2, 2, 2], 1));
        port.poll(&mut |_| true);
        assert_eq!((port.counters().1.to_guest, port.card().filter.everything), (1, true));
    }

    #[test]
    fn a_quiet_port_interrupts_for_nothing_until_it_is_quiet_no_more() {
        let mut port = port();
        port.poll(&mut |_| true);
        port.keep_quiet(true);
        port.card().arrives(&frame(GUEST.0, 1));
        assert!(!port.card().interrupts());
        let f = frame([0xff; 6], 1);
        assert!(![(); 5].map(|()| port.send(&f))[4], "the card is full");
        assert!(!port.card().wanted.sent, "what is wanted meanwhile waits");
        port.keep_quiet(false);
        assert!(port.card().wanted.sent && port.card().interrupts());
    }

    #[test]
    fn what_the_guest_cannot_take_stays_and_does_not_interrupt() {
        let mut port = port();
        assert!(!port.card().wanted.received, "nothing interrupts before the first poll");
        assert_eq!(port.poll(&mut |_| true), Left::Nothing);
        port.card().arrives(&frame(GUEST.0, 1));
        assert!(port.card().interrupts());
        assert_eq!(port.poll(&mut |_| false), Left::Untaken);
        port.card().arrives(&frame(GUEST.0, 2));
        assert!(!port.card().interrupts(), "it would interrupt for ever");
        let mut got = Vec::new();
        assert_eq!(
            port.poll(&mut |frame| {
                got.push(frame[20]);
                true
            }),
            Left::Nothing
        );
        assert_eq!(got, [1, 2]);
        port.card().arrives(&frame(GUEST.0, 3));
        assert!(port.card().interrupts());
    }

    #[test]
    fn a_full_card_says_when_it_has_room() {
        let mut port = port();
        port.poll(&mut |_| true);
        let f = frame([0xff; 6], 1);
        assert_eq!([(); 5].map(|()| port.send(&f)), [true, true, true, true, false]);
        assert!(port.card().wanted.sent && port.card().wanted.received);
        port.poll(&mut |_| true);
        assert!(port.card().wanted.sent, "until it has happened");
        (port.card().room, port.card().happened.sent) = (1, true);
        port.poll(&mut |_| true);
        assert!(port.send(&f) && !port.card().wanted.sent);
        assert_eq!((port.counters().1.card_full, port.counters().1.from_guest), (1, 5));
    }

    #[test]
    fn impossible_frames_are_dropped_and_counted() {
        let mut port = port();
        assert!(port.send(&[0; 13]) && port.send(&[0; 1515]) && port.send(&[]));
        assert_eq!(port.counters().1.bad_length, 3);
        assert!(port.card().sent.is_empty());
        port.card().arrives(&[1, 2, 3]);
        port.poll(&mut |_| panic!("not even an address"));
    }

    #[test]
    fn the_link_is_followed() {
        let mut port = port();
        assert_eq!(port.link(), Link::Down);
        let up = Link::Up { megabits: 1000, full_duplex: true };
        port.card().link = up;
        port.poll(&mut |_| true);
        assert_eq!(port.link(), Link::Down, "the card has not said so");
        port.card().provoke();
        port.poll(&mut |_| true);
        port.card().provoke();
        port.poll(&mut |_| true);
        assert_eq!((port.link(), port.counters().1.link_changes), (up, 1));
    }

    proptest! {
        /// Whatever the guest takes when: frames arrive in order, none twice, and each is given or missed by the card; and
        /// while the guest takes what there is, a frame on the card is always announced.
        #[test]
        fn nothing_is_lost_but_what_the_card_misses(
            steps in proptest::collection::vec((0usize..12, 0usize..12), 1..50),
        ) {
            let mut port = port();
            port.poll(&mut |_| true);
            let (mut next, mut got) = (0u8, Vec::new());
            let mut kept = Vec::new();
            for (arrive, room) in steps {
                for _ in 0..arrive {
                    if port.card().received.len() < RING {
                        kept.push(next);
                    }
                    port.card().arrives(&frame(GUEST.0, next));
                    next = next.wrapping_add(1);
                }
                let mut room = room;
                let left = port.poll(&mut |frame| {
                    let takes = room > 0;
                    if takes {
                        room -= 1;
                        got.push(frame[20]);
                    }
                    takes
                });
                prop_assert_eq!(left == Left::Nothing, port.card().received.is_empty());
                prop_assert_eq!(port.card().wanted.received, left != Left::Untaken);
            }
            port.poll(&mut |frame| { got.push(frame[20]); true });
            prop_assert_eq!(got, kept);
        }
    }
}
