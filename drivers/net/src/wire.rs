//! Tests: two stacks on a wire that loses, repeats and reorders frames by a seed.

mod near;

use crate::{Peer, Settings, Stack, State};
use hal::{Filter, Link, MacAddress, NetCounters, NetDevice, NetEvents, TransmitError};
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::vec::Vec;

/// Microseconds and milliseconds as nanoseconds.
const MICRO: u64 = 1_000;
const MILLI: u64 = 1_000_000;

const PORT: u16 = 5405;
const SERVER: [u8; 4] = [10, 77, 0, 2];

/// A generator: splitmix64.
#[derive(Clone)]
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// True so many times in a thousand.
    fn of_thousand(&mut self, share: u64) -> bool {
        self.next() % 1_000 < share
    }
}

/// What the wire does to frames, of a thousand.
#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    loss: u64,
    repeat: u64,
    hold: u64,
}

/// A card: frames that have arrived, frames to leave, each with a ring of a few.
struct Card {
    mac: [u8; 6],
    arrived: VecDeque<Vec<u8>>,
    leaving: VecDeque<Vec<u8>>,
    ring: usize,
}

#[derive(Clone)]
struct Fake(Rc<RefCell<Card>>);

impl Fake {
    fn new(number: u8, ring: usize) -> Self {
        let mac = [2, 0, 0, 0, 0, number];
        Self(Rc::new(RefCell::new(Card { mac, arrived: VecDeque::new(), leaving: VecDeque::new(), ring })))
    }
}

impl NetDevice for Fake {
    fn mac(&self) -> MacAddress {
        MacAddress(self.0.borrow().mac)
    }
    fn link(&self) -> Link {
        Link::Up { megabits: 1000, full_duplex: true }
    }
    fn max_frame(&self) -> usize {
        1514
    }
    fn transmit(&mut self, frame: &[u8]) -> Result<(), TransmitError> {
        let mut card = self.0.borrow_mut();
        if card.leaving.len() == card.ring {
            return Err(TransmitError::Full);
        }
        card.leaving.push_back(frame.to_vec());
        Ok(())
    }
    fn receive_while(&mut self, budget: usize, sink: &mut dyn FnMut(&[u8]) -> bool) -> usize {
        let mut frames = 0;
        while frames < budget {
            let Some(frame) = self.0.borrow_mut().arrived.pop_front() else { break };
            if !sink(&frame) {
                self.0.borrow_mut().arrived.push_front(frame);
                break;
            }
            frames += 1;
        }
        frames
    }
    fn set_filter(&mut self, _: Filter) {}
    fn set_events(&mut self, _: NetEvents) {}
    fn take_events(&mut self) -> NetEvents {
        NetEvents::NONE
    }
    fn provoke(&mut self) {}
    fn counters(&mut self) -> NetCounters {
        NetCounters::default()
    }
}

/// Two ends, 0 the client and 1 the server, and a wire of 100 us.
struct World {
    ends: [Stack<Fake>; 2],
    cards: [Fake; 2],
    under_way: Vec<(u64, usize, Vec<u8>)>,
    next: [Option<u64>; 2],
    now: u64,
    faults: Faults,
    chance: Chance,
    /// Frames of nobody get through.
    cut: bool,
    /// So many frames with data of the client do not get through.
    lose: u32,
    frames: u64,
}

impl World {
    fn new(seed: u64, ring: usize, bytes: usize) -> Self {
        World::with(seed, ring, bytes, |_| {})
    }

    /// With settings that differ from the usual.
    fn with(seed: u64, ring: usize, bytes: usize, change: impl Fn(&mut Settings)) -> Self {
        let usual = |address, seed| Settings {
            address,
            prefix: 24,
            seed,
            send_bytes: bytes,
            // Larger than what can be under way: see `Settings`.
            receive_bytes: 2 * bytes,
            patience_ms: 150_000,
            lines: 1,
            haste: 1,
            only: None,
            datagrams: None,
        };
        let settings = |address, seed| {
            let mut settings = usual(address, seed);
            change(&mut settings);
            settings
        };
        let cards = [Fake::new(1, ring), Fake::new(2, ring)];
        let ends = [
            Stack::new(cards[0].clone(), &settings([10, 77, 0, 1], seed)),
            Stack::new(cards[1].clone(), &settings(SERVER, !seed)),
        ];
        World {
            ends,
            cards,
            under_way: Vec::new(),
            next: [Some(0), Some(0)],
            now: 0,
            faults: Faults::default(),
            chance: Chance(seed),
            cut: false,
            lose: 0,
            frames: 0,
        }
    }

    /// Both at once, connected.
    fn connected(seed: u64) -> Self {
        let mut world = World::new(seed, 8, 20_000);
        world.ends[1].listen(0, PORT);
        world.ends[0].connect(0, (SERVER, PORT));
        world.run_until(1_000 * MILLI, |world| world.ends[0].state(0) == State::Connected);
        assert_eq!(world.ends[0].state(0), State::Connected);
        world
    }

    /// One moment: what has arrived is looked at, what is sent leaves.
    fn step(&mut self) {
        let (due, later) =
            core::mem::take(&mut self.under_way).into_iter().partition(|(at, ..)| *at <= self.now);
        self.under_way = later;
        for (_, to, frame) in due {
            self.cards[to].0.borrow_mut().arrived.push_back(frame);
        }
        for end in 0..2 {
            self.next[end] = self.ends[end].poll(self.now);
            if self.ends[end].waits_for_card() {
                // The ring empties by itself in 20 us.
                self.next[end] = Some(self.next[end].map_or(self.now, |at| at.min(self.now + 20 * MICRO)));
            }
            let leaving: Vec<Vec<u8>> = self.cards[end].0.borrow_mut().leaving.drain(..).collect();
            for frame in leaving {
                self.pass(1 - end, frame);
            }
        }
    }

    fn pass(&mut self, to: usize, frame: Vec<u8>) {
        self.frames += 1;
        if self.cut || self.chance.of_thousand(self.faults.loss) {
            return;
        }
        if to == 1 && self.lose != 0 && frame.len() > 60 {
            self.lose -= 1;
            return;
        }
        let held = self.chance.of_thousand(self.faults.hold);
        let late = if held { self.chance.next() % (3 * MILLI) } else { 0 };
        let copies = 1 + usize::from(self.chance.of_thousand(self.faults.repeat));
        for copy in 0..copies {
            self.under_way.push((
                self.now + 100 * MICRO + late + copy as u64 * 50 * MICRO,
                to,
                frame.clone(),
            ));
        }
    }

    /// On to the next moment at which something happens, `end` at the latest.
    fn advance(&mut self, end: u64) {
        let arrivals = self.under_way.iter().map(|(at, ..)| *at);
        let next = self.next.iter().flatten().copied().chain(arrivals).min().unwrap_or(end);
        self.now = next.clamp(self.now + MICRO, end.max(self.now + MICRO));
    }

    fn run_until(&mut self, end: u64, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let mut steps = 0;
        while self.now < end {
            self.step();
            if done(self) {
                return true;
            }
            self.advance(end);
            steps += 1;
            assert!(steps < 200_000, "they never come to rest");
        }
        false
    }

    /// Sends `bytes` from the client to the server and closes; what the server has received.
    fn carry(&mut self, bytes: &[u8], limit: u64) -> Vec<u8> {
        let (mut sent, mut received) = (0, Vec::new());
        let mut closed = false;
        self.run_until(limit, |world| {
            let before = (sent, received.len(), closed);
            sent += world.ends[0].send(0, &bytes[sent..]);
            if sent == bytes.len() && world.ends[0].state(0) == State::Connected {
                closed = true;
                world.ends[0].close(0);
            }
            let mut piece = [0; 3_000];
            loop {
                let n = world.ends[1].receive(0, &mut piece);
                received.extend_from_slice(&piece[..n]);
                if n == 0 {
                    break;
                }
            }
            if world.ends[1].peer_has_ended(0) && world.ends[1].state(0) == State::Connected {
                world.ends[1].close(0);
                world.next[1] = Some(world.now);
            }
            // What was just put in or taken out may leave or make room at once.
            if before != (sent, received.len(), closed) {
                world.next = [Some(world.now); 2];
            }
            world.ends[0].state(0) == State::Closed && world.ends[1].state(0) == State::Closed
        });
        received
    }
}

fn pattern(len: usize) -> Vec<u8> {
    let mut chance = Chance(7);
    (0..len).map(|_| chance.next() as u8).collect()
}

#[test]
fn bytes_arrive_in_order_and_the_end_is_seen() {
    let mut world = World::connected(1);
    let bytes = pattern(300_000);
    assert_eq!(world.carry(&bytes, 10_000 * MILLI), bytes);
    let [client, server] = [0, 1].map(|end| (world.ends[end].state(0), world.ends[end].unacknowledged(0)));
    assert_eq!((client, server), ((State::Closed, 0), (State::Closed, 0)));
    let counters = world.ends[0].counters();
    assert_eq!((counters.sent_bytes, counters.attempts, counters.bad_length), (300_000, 1, 0));
    assert!(counters.card_full > 0, "a ring of 8 is full at times: {counters:?}");
    assert_eq!(world.ends[1].counters().received_bytes, 300_000);
    assert!(world.now < 1_000 * MILLI, "no retransmission was needed: {} ms", world.now / MILLI);
}

#[test]
fn both_ways_at_once() {
    let mut world = World::connected(2);
    let bytes = pattern(50_000);
    let (mut sent, mut received) = ([0; 2], [Vec::new(), Vec::new()]);
    let done = world.run_until(5_000 * MILLI, |world| {
        for end in 0..2 {
            let new = world.ends[end].send(0, &bytes[sent[end]..]);
            sent[end] += new;
            let mut piece = [0; 999];
            let n = world.ends[end].receive(0, &mut piece);
            received[end].extend_from_slice(&piece[..n]);
            if new + n != 0 {
                world.next[end] = Some(world.now);
            }
        }
        received.iter().all(|r| r.len() == bytes.len())
    });
    assert!(done && received.iter().all(|r| *r == bytes));
}

#[test]
fn a_bad_wire_costs_seconds_not_minutes() {
    for (seed, loss, hold) in [(42, 20, 0), (42, 20, 100), (43, 50, 0), (43, 0, 200), (44, 30, 30)] {
        let mut world = World::new(seed, 128, 256 << 10);
        world.ends[1].listen(0, PORT);
        world.ends[0].connect(0, (SERVER, PORT));
        world.faults = Faults { loss, repeat: 10, hold };
        let bytes = pattern(1 << 20);
        assert!(world.carry(&bytes, 100_000 * MILLI) == bytes);
        assert!(world.now < 20_000 * MILLI, "{loss} and {hold} of a thousand: {} ms", world.now / MILLI);
    }
}

#[test]
fn a_peer_that_comes_late_is_found() {
    let mut world = World::new(3, 16, 8_192);
    world.ends[0].connect(0, (SERVER, PORT));
    assert!(!world.run_until(2_000 * MILLI, |world| world.ends[0].state(0) != State::Connecting));
    let tries = world.ends[0].counters().attempts;
    assert!((5..20).contains(&tries), "refused, and tried again five times a second: {tries}");
    world.ends[1].listen(0, PORT);
    world.next = [Some(world.now); 2];
    assert!(world.run_until(4_000 * MILLI, |world| world.ends[0].state(0) == State::Connected));
}

#[test]
fn a_wire_that_is_mended_is_found() {
    let mut world = World::new(4, 16, 8_192);
    world.cut = true;
    world.ends[1].listen(0, PORT);
    world.ends[0].connect(0, (SERVER, PORT));
    assert!(!world.run_until(20_000 * MILLI, |world| world.ends[0].state(0) != State::Connecting));
    world.cut = false;
    assert!(world.run_until(40_000 * MILLI, |world| world.ends[0].state(0) == State::Connected));
}

#[test]
fn an_idle_connection_costs_nothing_and_lasts() {
    let mut world = World::connected(5);
    world.run_until(2_000 * MILLI, |_| false);
    let before = world.frames;
    assert!(!world.run_until(600_000 * MILLI, |world| world.ends[0].state(0) != State::Connected));
    assert_eq!(world.frames, before, "not a frame in ten minutes");
    assert_eq!(world.next[0], None, "and nobody has to look");
    let bytes = pattern(5_000);
    assert_eq!(world.carry(&bytes, world.now + 10_000 * MILLI), bytes);
}

#[test]
fn a_peer_that_is_silent_for_too_long_is_lost() {
    let mut world = World::connected(6);
    world.cut = true;
    assert_eq!(world.ends[0].send(0, b"hello"), 5);
    world.next[0] = Some(world.now);
    let start = world.now;
    assert!(world.run_until(200_000 * MILLI, |world| world.ends[0].state(0) == State::Lost));
    let waited = (world.now - start) / MILLI;
    assert!((150_000..151_000).contains(&waited), "{waited} ms");
    assert_eq!((world.ends[0].send(0, b"more"), world.ends[0].room(0)), (0, 0));
}

#[test]
fn a_peer_that_does_not_read_stops_us_and_is_not_lost() {
    let mut world = World::connected(7);
    let bytes = pattern(100_000);
    let mut sent = 0;
    world.run_until(1_000_000 * MILLI, |world| {
        let new = world.ends[0].send(0, &bytes[sent..]);
        sent += new;
        if new != 0 {
            world.next[0] = Some(world.now);
        }
        false
    });
    assert_eq!((sent, world.ends[0].state(0)), (60_000, State::Connected), "its buffer and ours");
    let received = world.carry(&bytes[sent..], world.now + 100_000 * MILLI);
    assert_eq!(received, bytes);
}

#[test]
fn a_connection_that_is_broken_off_is_lost() {
    let mut world = World::connected(8);
    // Another connection of the same peer: the first one is gone.
    world.ends[1].listen(0, PORT);
    world.next[1] = Some(world.now);
    world.ends[0].send(0, b"hello");
    assert!(world.run_until(world.now + 1_000 * MILLI, |world| world.ends[0].state(0) == State::Lost));
    assert!(world.ends[0].peer_has_ended(0));
    world.ends[0].connect(0, (SERVER, PORT));
    world.next[0] = Some(world.now);
    assert!(world.run_until(world.now + 1_000 * MILLI, |world| world.ends[0].state(0) == State::Connected));
}

#[test]
fn closing_before_it_stands_gives_it_up() {
    let mut world = World::new(9, 16, 8_192);
    world.ends[0].connect(0, (SERVER, PORT));
    world.run_until(500 * MILLI, |_| false);
    world.ends[0].close(0);
    assert_eq!(world.ends[0].state(0), State::Idle);
    let before = world.frames;
    world.run_until(5_000 * MILLI, |_| false);
    assert!(world.frames - before < 5, "it is not tried any more");
}

#[test]
fn a_connection_to_nowhere_never_stands() {
    for peer in [(SERVER, 0), ([0; 4], PORT)] as [Peer; 2] {
        let mut world = World::new(10, 16, 8_192);
        world.ends[0].connect(0, peer);
        assert!(!world.run_until(3_000 * MILLI, |world| world.ends[0].state(0) != State::Connecting));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Whatever the wire does: all bytes arrive, in order, once; or, if it is too bad, a beginning of them.
    #[test]
    fn a_bad_wire_only_takes_longer(
        seed: u64, loss in 0u64..100, repeat in 0u64..100, hold in 0u64..200, ring in 2usize..64, len in 0usize..60_000,
    ) {
        let mut world = World::new(seed, ring, 16_384);
        world.ends[1].listen(0, PORT);
        world.ends[0].connect(0, (SERVER, PORT));
        world.faults = Faults { loss, repeat, hold };
        let bytes = pattern(len);
        let received = world.carry(&bytes, 3_600_000 * MILLI);
        prop_assert_eq!(received.len(), bytes.len(), "{:?}", world.ends[0].state(0));
        prop_assert!(received == bytes);
    }

    /// Frames of anybody are survived.
    #[test]
    fn any_frame_is_survived(frames in vec_of_frames()) {
        let mut world = World::connected(11);
        for frame in frames {
            world.cards[0].0.borrow_mut().arrived.push_back(frame);
        }
        world.next[0] = Some(world.now);
        let bytes = pattern(10_000);
        let received = world.carry(&bytes, world.now + 60_000 * MILLI);
        prop_assert_eq!(received, bytes);
    }
}

/// Noise, some of it with the head of a frame to the client.
fn vec_of_frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let noise = proptest::collection::vec(any::<u8>(), 0..1600);
    let head = (any::<bool>(), 0usize..3, noise).prop_map(|(headed, kind, noise)| {
        if !headed {
            return noise;
        }
        let head: &[u8] = match kind {
            0 => &[8, 6, 0, 1, 8, 0, 6, 4],
            1 => &[8, 0, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6],
            _ => &[8, 0],
        };
        [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9], head, &noise[..]].concat()
    });
    proptest::collection::vec(head, 1..40)
}
