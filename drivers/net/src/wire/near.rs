//! Tests of what serves a pair of hosts: several lines, a clock that is hasty, datagrams, and strangers.

use super::*;
use crate::DATAGRAM;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpProtocol, Ipv4Address, Ipv4Packet,
    Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

const CLIENT: [u8; 4] = [10, 77, 0, 1];
const HASTE: u32 = 20;

/// Both ends with four lines, and of the server's, all listen.
fn near(seed: u64, change: impl Fn(&mut Settings)) -> World {
    let mut world = World::with(seed, 64, 64 << 10, |settings| {
        (settings.lines, settings.haste, settings.datagrams) = (4, HASTE, Some(PORT));
        change(settings);
    });
    (0..world.ends[1].lines()).for_each(|line| world.ends[1].listen(line, PORT));
    world
}

fn connect(world: &mut World, line: usize, limit: u64) -> bool {
    world.ends[0].connect(line, (SERVER, PORT));
    let start = world.now;
    world.next[0] = Some(start);
    world.run_until(start + limit, |world| world.ends[0].state(line) == State::Connected)
}

/// The server's lines that are connected.
fn served(world: &World) -> Vec<usize> {
    (0..4).filter(|line| world.ends[1].state(*line) == State::Connected).collect()
}

/// Sends from the client's `from` until the server has it on `to`; nanoseconds.
fn time_to_carry(world: &mut World, [from, to]: [usize; 2], bytes: &[u8], limit: u64) -> Option<u64> {
    let start = world.now;
    assert_eq!(world.ends[0].send(from, bytes), bytes.len());
    world.next[0] = Some(start);
    let mut received = Vec::new();
    let done = world.run_until(start + limit, |world| {
        let mut piece = [0; 20_000];
        let count = world.ends[1].receive(to, &mut piece);
        received.extend_from_slice(&piece[..count]);
        received.len() >= bytes.len()
    });
    assert!(!done || received == bytes);
    done.then_some(world.now - start)
}

#[test]
fn lines_are_separate() {
    let mut world = near(1, |_| {});
    for line in 0..4 {
        assert!(connect(&mut world, line, 1_000 * MILLI));
    }
    world.run_until(world.now + MILLI, |_| false);
    assert_eq!(served(&world), [0, 1, 2, 3]);
    for line in 0..4u8 {
        world.ends[0].send(line.into(), &[line; 10]);
    }
    world.next[0] = Some(world.now);
    world.run_until(world.now + 10 * MILLI, |_| false);
    for line in 0..4 {
        let mut piece = [0; 100];
        assert_eq!(world.ends[1].receive(line, &mut piece), 10);
        let said = usize::from(piece[0]);
        assert!(piece[..10] == [said as u8; 10]);
    }
    // One is broken off, and the others stay.
    world.ends[1].listen(2, PORT);
    world.next[1] = Some(world.now);
    world.run_until(world.now + 10 * MILLI, |_| false);
    assert_eq!(served(&world), [0, 1, 3]);
    assert_eq!((0..4).filter(|line| world.ends[0].state(*line) == State::Lost).count(), 1);
}

/// The last segment is lost, and nothing comes behind it: TCP's time-out alone repeats it.
#[test]
fn a_hasty_clock_repeats_soon() {
    let mut took = [0; 2];
    for (place, haste) in [1, HASTE].into_iter().enumerate() {
        let mut world = near(2, |settings| settings.haste = haste);
        assert!(connect(&mut world, 0, 1_000 * MILLI));
        let to = served(&world).first().copied().unwrap_or(0);
        assert!(time_to_carry(&mut world, [0, to], &pattern(3_000), 100 * MILLI).unwrap() < MILLI);
        world.lose = 1;
        took[place] = time_to_carry(&mut world, [0, to], &pattern(500), 5_000 * MILLI).unwrap() / MILLI;
    }
    assert!((1_000..1_010).contains(&took[0]) && (50..60).contains(&took[1]), "{took:?} ms");
}

/// With segments behind it, three of them, what was lost is repeated at once.
#[test]
fn later_segments_show_a_loss() {
    let mut world = near(3, |_| {});
    assert!(connect(&mut world, 0, 1_000 * MILLI));
    let to = served(&world).first().copied().unwrap_or(0);
    time_to_carry(&mut world, [0, to], &pattern(3_000), 100 * MILLI).unwrap();
    world.lose = 1;
    let took = time_to_carry(&mut world, [0, to], &pattern(10_000), 5_000 * MILLI).unwrap();
    assert!(took < 2 * MILLI, "{took} ns");
    // As well by small ones that are put behind it for that. It takes four: the first acknowledgement that repeats an older one tells
    // of a larger window as well, and does not count.
    world.lose = 1;
    assert_eq!(world.ends[0].send(0, &pattern(500)), 500);
    world.next[0] = Some(world.now);
    let start = world.now;
    let mut received = 0;
    let mut pings = 0;
    world.run_until(start + 1_000 * MILLI, |world| {
        if pings < 4 && world.now >= start + (pings + 1) * 5 * MILLI {
            pings += 1;
            world.ends[0].send(0, b"ping");
        }
        world.next[0] = Some(world.next[0].map_or(world.now, |at| at.min(world.now + MILLI)));
        received += world.ends[1].receive(to, &mut [0; 2_000]);
        received >= 516
    });
    let took = world.now - start;
    assert!((20 * MILLI..24 * MILLI).contains(&took), "{took} ns");
}

/// A peer that stands still for a while finds the connection as it was.
#[test]
fn a_hasty_connection_survives_a_pause() {
    let mut world = near(4, |_| {});
    assert!(connect(&mut world, 0, 1_000 * MILLI));
    let to = served(&world).first().copied().unwrap_or(0);
    world.cut = true;
    assert_eq!(time_to_carry(&mut world, [0, to], b"before", 10_000 * MILLI), None);
    world.cut = false;
    let start = world.now;
    assert!(world.run_until(start + 4_000 * MILLI, |world| world.ends[1].receive(to, &mut [0; 100]) == 6));
    assert!(
        world.now - start < 3_100 * MILLI,
        "repeated every 3 s at least: {} ms",
        (world.now - start) / MILLI
    );
}

#[test]
fn datagrams() {
    let mut world = near(5, |_| {});
    let mut got = [0; DATAGRAM];
    for from in [0, 1, 0] {
        let to = ([CLIENT, SERVER][1 - from], PORT);
        let said = pattern(80 + from);
        assert!(world.ends[from].send_datagram(to, &said));
        world.next[from] = Some(world.now);
        let mut arrived = None;
        world.run_until(world.now + 100 * MILLI, |world| {
            arrived = world.ends[1 - from].receive_datagram(&mut got);
            arrived.is_some()
        });
        assert_eq!(arrived, Some((said.len(), ([CLIENT, SERVER][from], PORT))));
        assert_eq!(got[..said.len()], said);
    }
    // Too long for the socket, and for the reader.
    assert!(!world.ends[0].send_datagram((SERVER, PORT), &[0; DATAGRAM + 1]));
    assert!(world.ends[0].send_datagram((SERVER, PORT), &[0; 100]));
    world.next[0] = Some(world.now);
    world.run_until(world.now + 10 * MILLI, |_| false);
    assert_eq!(world.ends[1].receive_datagram(&mut [0; 99]), None);
    assert_eq!(world.ends[1].datagram_counters().too_long, 1);
    // Whose MAC nobody tells: some wait, the others are dropped, and the connections go on.
    let sent = (0..20).filter(|_| world.ends[0].send_datagram(([10, 77, 0, 9], PORT), b"hello")).count();
    assert_eq!((sent, world.ends[0].datagram_counters().dropped), (8, 13));
    world.next[0] = Some(world.now);
    assert!(connect(&mut world, 0, 1_000 * MILLI));
    // A stack without datagrams takes none.
    let mut without = near(5, |settings| settings.datagrams = None);
    assert!(!without.ends[0].send_datagram((SERVER, PORT), b"x"));
    assert_eq!(without.ends[0].receive_datagram(&mut got), None);
}

/// A peer that does not answer ARP must not hold up datagrams for ever: when it is back, the newest are the ones that matter.
#[test]
fn datagrams_come_again_after_a_cut() {
    let mut world = near(6, |_| {});
    world.cut = true;
    for _ in 0..100 {
        world.ends[0].send_datagram((SERVER, PORT), b"hello");
        world.next[0] = Some(world.now);
        world.run_until(world.now + 50 * MILLI, |_| false);
    }
    world.cut = false;
    let start = world.now;
    world.next[0] = Some(world.now);
    assert!(
        world
            .run_until(start + 1_000 * MILLI, |world| world.ends[1].receive_datagram(&mut [0; 99]).is_some())
    );
    assert!(world.now - start < 60 * MILLI, "{} ms", (world.now - start) / MILLI);
}

/// While a line knocks at a host that is gone, and datagrams wait for it, another must be found: smoltcp asks for one neighbour at a time, and
/// always for the same one. A backup whose peer has died would not reach its arbiter.
#[test]
fn a_peer_that_is_gone_hides_no_other() {
    for (seed, loss) in [(7, 0), (8, 0), (9, 100)] {
        let mut world = near(seed, |_| {});
        world.faults.loss = loss;
        world.ends[0].connect(0, ([10, 77, 0, 9], PORT));
        world.next[0] = Some(world.now);
        let beat = |world: &mut World| {
            world.ends[0].send_datagram(([10, 77, 0, 9], PORT), b"hello");
            world.next[0] = Some(world.now);
        };
        for _ in 0..100 {
            beat(&mut world);
            world.run_until(world.now + 50 * MILLI, |_| false);
        }
        let most = if loss == 0 { 10 * MILLI } else { 1_000 * MILLI };
        // Whoever asks gives up after 200 ms, and asks anew.
        let start = world.now;
        let asked = (0..10).any(|_| {
            beat(&mut world);
            world.ends[0].send_datagram((SERVER, PORT), b"who");
            let end = world.now + 200 * MILLI;
            world.run_until(end, |world| world.ends[1].receive_datagram(&mut [0; 9]).is_some())
        });
        let took = world.now - start;
        assert!(asked && took < most, "seed {seed}: {} us", took / MICRO);
        // The address was found in an answer; without one for 3 s it is forgotten.
        for _ in 0..100 {
            beat(&mut world);
            world.run_until(world.now + 50 * MILLI, |_| false);
        }
        let start = world.now;
        assert!((0..10).any(|_| connect(&mut world, 1, 200 * MILLI)), "seed {seed}");
        assert!(world.now - start < most, "seed {seed}: {} us", (world.now - start) / MICRO);
    }
}

/// More destinations than queues: those that nothing waits for are forgotten.
#[test]
fn a_queue_is_used_again() {
    let mut world = near(6, |_| {});
    for gone in 10..14 {
        assert!(world.ends[0].send_datagram(([10, 77, 0, gone], PORT), b"hello"));
    }
    assert!(!world.ends[0].send_datagram((SERVER, PORT), b"no room"));
    let mut world = near(6, |_| {});
    for gone in 10..13 {
        assert!(world.ends[0].send_datagram(([10, 77, 0, gone], PORT), b"hello"));
    }
    for _ in 0..3 {
        assert!(world.ends[0].send_datagram((SERVER, PORT), b"who"));
        world.next[0] = Some(world.now);
        let end = world.now + 20 * MILLI;
        assert!(world.run_until(end, |world| world.ends[1].receive_datagram(&mut [0; 9]).is_some()));
    }
    assert!(world.ends[0].send_datagram(([10, 77, 0, 14], PORT), b"hello"));
    assert!(!world.ends[0].send_datagram(([10, 77, 0, 15], PORT), b"hello"));
}

/// A frame with the first segment of a connection to the server.
fn opening(source: [u8; 4], port: u16, number: u32) -> Vec<u8> {
    let tcp = TcpRepr {
        src_port: port,
        dst_port: PORT,
        control: TcpControl::Syn,
        seq_number: TcpSeqNumber(number as i32),
        ack_number: None,
        window_len: 1_000,
        window_scale: None,
        max_seg_size: Some(1_460),
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let (source, target) = (Ipv4Address::from(source), Ipv4Address::from(SERVER));
    let ip = Ipv4Repr {
        src_addr: source,
        dst_addr: target,
        next_header: IpProtocol::Tcp,
        payload_len: tcp.buffer_len(),
        hop_limit: 64,
    };
    let mut frame = std::vec![0; 34 + tcp.buffer_len()];
    EthernetRepr {
        src_addr: EthernetAddress([2, 0, 0, 0, 0, 7]),
        dst_addr: EthernetAddress([2, 0, 0, 0, 0, 2]),
        ethertype: EthernetProtocol::Ipv4,
    }
    .emit(&mut EthernetFrame::new_unchecked(&mut frame[..]));
    let checksums = ChecksumCapabilities::default();
    ip.emit(&mut Ipv4Packet::new_unchecked(&mut frame[14..]), &checksums);
    let mut segment = TcpPacket::new_unchecked(&mut frame[34..]);
    tcp.emit(&mut segment, &source.into(), &target.into(), &checksums);
    frame
}

/// Puts frames onto the server's card, `every` nanoseconds, until `done` or the time is over.
fn flood(
    world: &mut World,
    every: u64,
    limit: u64,
    mut frame: impl FnMut(u32) -> Vec<u8>,
    mut done: impl FnMut(&mut World) -> bool,
) -> bool {
    let (end, mut number) = (world.now + limit, 0);
    while world.now < end {
        world.cards[1].0.borrow_mut().arrived.push_back(frame(number));
        number += 1;
        world.next[1] = Some(world.now);
        if world.run_until((world.now + every).min(end), &mut done) {
            return true;
        }
    }
    false
}

fn any_port(number: u32) -> u16 {
    1_024 + (number * 7 % 60_000) as u16
}

/// A port scan, and a flood of half-open connections, of others than the peer: not an answer, and the peer is served.
#[test]
fn strangers_get_no_answer() {
    let mut world = near(7, |settings| settings.only = Some(CLIENT));
    world.ends[0] = Stack::new(world.cards[0].clone(), &{
        let only = Some(SERVER);
        Settings {
            address: CLIENT,
            prefix: 24,
            seed: 9,
            lines: 1,
            send_bytes: 9_000,
            receive_bytes: 9_000,
            patience_ms: 2_000,
            haste: HASTE,
            only,
            datagrams: None,
        }
    });
    let stranger = |number: u32| opening([10, 77, 0, 100 + (number % 50) as u8], any_port(number), number);
    flood(&mut world, 100 * MICRO, 200 * MILLI, stranger, |_| false);
    assert_eq!(world.frames, 0, "nothing is said to them");
    let counters = world.ends[1].counters();
    assert_eq!((counters.strangers, counters.half_open), (2_000, 0));
    world.ends[0].connect(0, (SERVER, PORT));
    world.next[0] = Some(world.now);
    let start = world.now;
    let connected = flood(&mut world, 100 * MICRO, 500 * MILLI, stranger, |world| !served(world).is_empty());
    assert!(connected && world.now - start < 5 * MILLI);
}

/// Segments with a wrong bit are seen by nobody; the same ones without it are answered.
#[test]
fn damaged_segments_are_dropped_and_counted() {
    // Addresses, ports, numbers, window, and the checksum itself.
    const PLACES: [usize; 6] = [27, 35, 40, 48, 50, 51];
    let mut world = near(11, |settings| settings.only = None);
    let damaged = |number: u32| {
        let mut frame = opening(CLIENT, any_port(number), number);
        frame[PLACES[number as usize % PLACES.len()]] ^= 1 << (number % 8);
        frame
    };
    flood(&mut world, MILLI, 200 * MILLI, damaged, |_| false);
    let counters = world.ends[1].counters();
    assert_eq!((world.frames, counters.damaged), (0, 200));
    flood(&mut world, MILLI, 10 * MILLI, |number| opening(CLIENT, any_port(number), number), |_| false);
    assert!(world.frames > 0 && world.ends[1].counters().damaged == 200);
}

/// The same under the peer's address: the peer itself refuses what it has not asked for.
#[test]
fn a_flood_in_the_peers_name_is_refused_by_the_peer() {
    let mut world = near(8, |settings| settings.only = None);
    let spoofed = |number: u32| opening(CLIENT, any_port(number), number);
    flood(&mut world, MILLI, 500 * MILLI, spoofed, |_| false);
    world.ends[0].connect(0, (SERVER, PORT));
    world.next[0] = Some(world.now);
    let start = world.now;
    let connected =
        flood(&mut world, MILLI, 5_000 * MILLI, spoofed, |world| world.ends[0].state(0) == State::Connected);
    assert!(connected, "{:?}", world.ends[1].counters());
    assert!(world.now - start < 1_000 * MILLI, "{} ms", (world.now - start) / MILLI);
}

/// Those who ask and never answer hold a line for 3 s, no longer.
#[test]
fn half_open_lines_are_given_up() {
    let mut world = near(9, |_| {});
    // The peer's MAC is known, and then the peer is away.
    assert!(connect(&mut world, 0, 1_000 * MILLI));
    world.ends[0].connect(0, ([0; 4], 0));
    world.next[0] = Some(world.now);
    world.run_until(world.now + 10 * MILLI, |_| false);
    (0..4).for_each(|line| world.ends[1].listen(line, PORT));
    world.run_until(world.now + 10 * MILLI, |_| false);
    world.cut = true;
    flood(&mut world, MILLI, 20 * MILLI, |number| opening(CLIENT, any_port(number), number), |_| false);
    world.run_until(world.now + 2_900 * MILLI, |_| false);
    assert_eq!(world.ends[1].counters().half_open, 0);
    world.run_until(world.now + 200 * MILLI, |_| false);
    assert_eq!(world.ends[1].counters().half_open, 4);
    world.cut = false;
    assert!(connect(&mut world, 0, 1_000 * MILLI));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// A hasty clock on a bad wire: all bytes arrive, in order, once.
    #[test]
    fn a_bad_wire_and_a_hasty_clock(
        seed: u64, loss in 0u64..100, repeat in 0u64..100, hold in 0u64..200, len in 0usize..60_000,
    ) {
        let mut world = World::with(seed, 32, 16_384, |settings| settings.haste = HASTE);
        world.ends[1].listen(0, PORT);
        world.ends[0].connect(0, (SERVER, PORT));
        world.faults = Faults { loss, repeat, hold };
        let bytes = pattern(len);
        let received = world.carry(&bytes, 600_000 * MILLI);
        prop_assert!(received == bytes, "{} of {}, {:?}", received.len(), len, world.ends[0].state(0));
    }

    /// Datagrams of anybody, and frames that look like some.
    #[test]
    fn any_datagram_is_survived(frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..30)) {
        let mut world = near(11, |_| {});
        for noise in &frames {
            let head = [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 9, 8, 0, 0x45, 0, 0, 60, 0, 0, 0, 0, 64, 17][..], noise].concat();
            world.cards[1].0.borrow_mut().arrived.push_back(head);
        }
        world.next[1] = Some(0);
        world.run_until(10 * MILLI, |world| {
            world.ends[1].receive_datagram(&mut [0; DATAGRAM]);
            false
        });
        prop_assert!(connect(&mut world, 0, 1_000 * MILLI));
    }
}
