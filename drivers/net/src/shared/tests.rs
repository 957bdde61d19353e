//! Tests: a card with a ring, and two users that poll it as they like.

use super::{Guard, Half, PIECE, PIECES, SLOTS, share};
use hal::{Filter, Link, MacAddress, NetCounters, NetDevice, NetEvents, TransmitError};
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::VecDeque;
use std::vec::Vec;

const OWN: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const GUEST: MacAddress = MacAddress([2, 0, 0, 0, 0, 7]);
const OTHER: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);
const GROUP: MacAddress = MacAddress([1, 0, 0x5e, 0, 0, 1]);
const HOSTS: [[u8; 4]; 2] = [[10, 77, 0, 1], [10, 77, 0, 2]];

/// A card.
struct Fake {
    arrived: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
    room: usize,
    happened: NetEvents,
    wanted: NetEvents,
    filter: Filter,
}

impl NetDevice for Fake {
    fn mac(&self) -> MacAddress {
        OWN
    }
    fn link(&self) -> Link {
        Link::Down
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
        while count < budget && self.arrived.front().is_some_and(|frame| sink(frame)) {
            self.arrived.pop_front();
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
        NetCounters { missed: 3, ..NetCounters::default() }
    }
}

std::thread_local! {
    static CALLS: Cell<[u32; 2]> = const { Cell::new([0; 2]) };
}

fn called(who: usize) {
    CALLS.with(|calls| {
        let mut counts = calls.get();
        counts[who] += 1;
        calls.set(counts);
    });
}

/// How often each was called since this was asked last.
fn calls() -> [u32; 2] {
    CALLS.with(Cell::take)
}

/// The host's half and the guest's, which has its address and groups.
fn halves() -> [Half<Fake>; 2] {
    let fake = Fake {
        arrived: VecDeque::new(),
        sent: Vec::new(),
        room: 1_000,
        happened: NetEvents::NONE,
        wanted: NetEvents::NONE,
        filter: Filter::default(),
    };
    let [mut host, mut guest] = share(fake, Guard::new(&HOSTS), [|| called(0), || called(1)]);
    host.set_filter(Filter::default());
    guest.set_filter(Filter { station: Some(GUEST), groups: true, everything: false });
    calls();
    [host, guest]
}

fn arrives(half: &mut Half<Fake>, to: MacAddress, tag: u8) {
    let mut frame = std::vec![tag; 60];
    frame[..6].copy_from_slice(&to.0);
    half.with_device(|card| {
        card.happened.received = true;
        card.arrived.push_back(frame);
    });
}

/// The tags of what a half is given.
fn tags(half: &mut Half<Fake>, budget: usize) -> Vec<u8> {
    let mut tags = Vec::new();
    let count = half.receive_while(budget, &mut |frame| {
        tags.push(frame[59]);
        true
    });
    assert_eq!(count, tags.len());
    tags
}

#[test]
fn each_gets_its_own_and_both_get_what_is_for_everybody() {
    let [mut host, mut guest] = halves();
    assert_eq!(
        host.with_device(|card| card.filter),
        Filter { station: Some(GUEST), groups: true, everything: false }
    );
    for (tag, to) in [OWN, GUEST, MacAddress::BROADCAST, GROUP, OTHER, OWN].into_iter().enumerate() {
        arrives(&mut host, to, tag as u8);
    }
    assert_eq!(tags(&mut host, 64), [0, 2, 5]);
    assert_eq!(calls(), [0, 1], "the guest is told that there is something");
    assert_eq!(guest.take_events(), NetEvents { received: true, ..NetEvents::NONE });
    assert_eq!(tags(&mut guest, 64), [1, 2, 3]);
    assert_eq!((tags(&mut host, 64), tags(&mut guest, 64)), (Vec::new(), Vec::new()));
}

#[test]
fn a_guest_that_gets_everything_does_not_get_the_log() {
    let [mut host, mut guest] = halves();
    guest.set_filter(Filter { station: Some(GUEST), groups: true, everything: true });
    assert!(host.with_device(|card| card.filter.everything));
    for (tag, to) in [OTHER, OWN, GUEST].into_iter().enumerate() {
        arrives(&mut host, to, tag as u8);
    }
    assert_eq!(tags(&mut guest, 64), [0, 2]);
    assert_eq!(calls(), [1, 0]);
    assert_eq!(tags(&mut host, 64), [1]);
}

#[test]
fn a_guest_that_takes_nothing_loses_its_own_frames_and_no_other() {
    let [mut host, mut guest] = halves();
    assert_eq!(guest.receive_while(64, &mut |_| false), 0);
    for round in 0..SLOTS[1] + 10 {
        arrives(&mut host, GUEST, round as u8);
        arrives(&mut host, OWN, round as u8);
        // A frame that it refuses stays its oldest.
        assert_eq!(guest.receive_while(64, &mut |frame| frame[59] != 0), 0);
        assert_eq!(tags(&mut host, 64), [round as u8]);
    }
    assert_eq!((host.counters().missed, guest.counters().missed), (3, 13));
    let kept = tags(&mut guest, 1_000);
    assert_eq!(kept, (0..SLOTS[1]).map(|tag| tag as u8).collect::<Vec<_>>());
}

#[test]
fn what_is_refused_stays_the_oldest_and_the_budget_is_kept() {
    let [mut host, _guest] = halves();
    (0..5).for_each(|tag| arrives(&mut host, OWN, tag));
    assert_eq!(host.receive_while(64, &mut |frame| frame[59] < 2), 2);
    assert_eq!(tags(&mut host, 2), [2, 3]);
    assert_eq!(tags(&mut host, 0), []);
    assert_eq!(tags(&mut host, 2), [4]);
}

#[test]
fn who_is_handed_a_frame_may_send_and_look() {
    let [mut host, mut guest] = halves();
    arrives(&mut host, GUEST, 1);
    arrives(&mut host, OWN, 2);
    let mut seen = Vec::new();
    let count = guest.receive_while(64, &mut |_| {
        host.transmit(&[0; 60]).unwrap();
        seen = tags(&mut host, 64);
        true
    });
    assert_eq!((count, seen), (1, std::vec![2]));
    assert_eq!(guest.with_device(|card| card.sent.len()), 1);
}

#[test]
fn a_flood_is_taken_in_pieces() {
    let [mut host, mut guest] = halves();
    (0..PIECE * PIECES + 1).for_each(|_| arrives(&mut host, GUEST, 0));
    assert_eq!(tags(&mut host, 64), []);
    assert_eq!(calls(), [1, 1], "the host is to look again: the card does not call twice");
    assert_eq!(tags(&mut host, 64), []);
    assert_eq!(calls(), [0, 0], "there was no place for the last one");
    assert_eq!(tags(&mut guest, 1_000).len(), SLOTS[1]);
}

#[test]
fn both_learn_what_happens_and_the_card_interrupts_for_either() {
    let [mut host, mut guest] = halves();
    let wanted = |half: &mut Half<Fake>| half.with_device(|card| card.wanted);
    let received = NetEvents { received: true, ..NetEvents::NONE };
    let sent = NetEvents { sent: true, ..NetEvents::NONE };
    host.set_events(received);
    guest.set_events(sent);
    assert_eq!(wanted(&mut host), NetEvents { received: true, sent: true, link: false });
    host.set_events(NetEvents::NONE);
    assert_eq!(wanted(&mut host), sent);
    host.with_device(|card| card.happened = sent);
    assert_eq!(host.take_events(), sent);
    assert_eq!(host.take_events(), NetEvents::NONE);
    guest.provoke();
    assert_eq!(guest.take_events(), NetEvents { sent: true, link: true, received: false });
    assert_eq!(host.take_events(), NetEvents { link: true, ..NetEvents::NONE });
}

/// A frame from this station; `kind` and `sender` where ARP and IPv4 have them.
fn frame(from: MacAddress, kind: [u8; 2], at: usize, sender: [u8; 4]) -> Vec<u8> {
    let mut frame = std::vec![0; 60];
    frame[6..12].copy_from_slice(&from.0);
    frame[12..14].copy_from_slice(&kind);
    frame[at..at + 4].copy_from_slice(&sender);
    frame
}

#[test]
fn a_guest_speaks_for_itself_alone() {
    const ARP: [u8; 2] = [8, 6];
    const IPV4: [u8; 2] = [8, 0];
    let guest_s = [10, 0, 0, 7];
    let [mut host, mut guest] = halves();
    let good = [
        frame(GUEST, ARP, 28, guest_s),
        frame(GUEST, IPV4, 26, guest_s),
        frame(GUEST, [0x86, 0xdd], 26, HOSTS[0]),
    ];
    let bad = [
        frame(OWN, ARP, 28, guest_s),
        frame(OTHER, IPV4, 26, guest_s),
        frame(GUEST, ARP, 28, HOSTS[0]),
        frame(GUEST, ARP, 28, HOSTS[1]),
        frame(GUEST, IPV4, 26, HOSTS[1]),
    ];
    for frame in good.iter().chain(&bad) {
        guest.transmit(frame).unwrap();
    }
    assert_eq!(guest.with_device(|card| card.sent.clone()), good);
    assert_eq!(host.guarded(), bad.len() as u64);
    // The host itself may say all of it.
    bad.iter().for_each(|frame| host.transmit(frame).unwrap());
    assert_eq!(guest.with_device(|card| card.sent.len()), good.len() + bad.len());
}

#[test]
fn a_guest_that_is_a_bridge_speaks_for_those_behind_it_and_not_for_hosts() {
    let [_host, mut guest] = halves();
    guest.set_filter(Filter { station: Some(GUEST), groups: true, everything: true });
    for (from, sender) in [(OTHER, [10, 0, 0, 7]), (OWN, [10, 0, 0, 7]), (OTHER, HOSTS[0])] {
        guest.transmit(&frame(from, [8, 0], 26, sender)).unwrap();
    }
    assert_eq!((guest.with_device(|card| card.sent.len()), guest.guarded()), (1, 2));
}

#[test]
fn a_full_card_is_full_for_both() {
    let [mut host, mut guest] = halves();
    host.with_device(|card| card.room = 1);
    guest.transmit(&frame(GUEST, [8, 0], 26, [1; 4])).unwrap();
    assert_eq!(host.transmit(&[0; 60]), Err(TransmitError::Full));
    assert_eq!(guest.transmit(&frame(GUEST, [8, 0], 26, [1; 4])), Err(TransmitError::Full));
}

proptest! {
    #[test]
    fn whoever_looks_when_each_frame_comes_to_whom_it_is_for_in_order(
        steps in proptest::collection::vec((0_usize..6, 0_usize..3, 0_usize..5), 1..200),
    ) {
        let mut halves = halves();
        let (mut right, mut seen) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        let mut tag = 0_u8;
        for (what, who, budget) in steps {
            match what {
                0..3 => {
                    let to = [OWN, GUEST, MacAddress::BROADCAST][what];
                    arrives(&mut halves[0], to, tag);
                    // Fewer than are lost: nobody leaves so many.
                    (what != 1).then(|| right[0].push(tag));
                    (what != 0).then(|| right[1].push(tag));
                    tag = tag.wrapping_add(1);
                }
                _ if who < 2 => {
                    let tags = tags(&mut halves[who], budget);
                    seen[who].extend(tags);
                }
                _ => {
                    prop_assert_eq!(halves[0].receive_while(budget, &mut |_| false), 0);
                }
            }
            if tag % 50 == 49 {
                for (half, seen) in halves.iter_mut().zip(&mut seen) {
                    seen.extend(tags(half, 1_000));
                }
            }
        }
        for (half, seen) in halves.iter_mut().zip(&mut seen) {
            seen.extend(tags(half, 1_000));
        }
        prop_assert_eq!(seen, right);
    }
}
