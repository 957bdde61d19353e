//! Each virtio device does its work: data arrive whole, in both directions, however the driver cuts its buffers.

mod virtio_support;

use machine::output::SECTOR;
use machine::virtio::FRAME;
use machine::virtio::net::Received;
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use virtio_support::driver::{Driver, EVENTS, INDIRECT, Way, common};
use virtio_support::{BLOCK, Board, CONSOLE, MAC, NET, READ_ONLY, RNG, SECTORS, SEED};

const MERGE: u64 = 1 << 15;
/// MAC, STATUS, CTRL_VQ, CTRL_RX, CTRL_RX_EXTRA, CTRL_MAC_ADDR.
const CONTROL: u64 = 1 << 5 | 1 << 16 | 1 << 17 | 1 << 18 | 1 << 20 | 1 << 23;
/// The header before each frame.
const HEADER: usize = 12;

/// Parts of a chain, cut from one piece of guest memory at these lengths, and the rest.
fn cut(address: u64, length: usize, cuts: &[usize], write: bool) -> Vec<(u64, u32, bool)> {
    let mut parts = Vec::new();
    let mut at = 0;
    for &cut in cuts {
        let part = cut.min(length - at);
        parts.push((address + at as u64, part as u32, write));
        at += part;
    }
    parts.push((address + at as u64, (length - at) as u32, write));
    parts
}

fn frame(length: usize, seed: u8) -> Vec<u8> {
    let body = (0..length).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed));
    let mut frame: Vec<u8> = body.collect();
    frame[..6].copy_from_slice(&MAC);
    frame
}

fn receive(board: &mut Board, frame: &[u8]) -> Received {
    board.with(|pci, ctx| pci.receive_frame(0, frame, ctx))
}

#[test]
fn frames_leave_as_they_are_for_all_sizes_of_the_queue() {
    for power in 1..=8 {
        for features in [0, INDIRECT, EVENTS, INDIRECT | EVENTS] {
            let mut board = Board::new();
            let mut driver = Driver::start(&mut board, NET, Way::Ports, features, 1 << power);
            let at = board.allocate(HEADER + FRAME);
            let mut sent = Vec::new();
            for round in 0..100 {
                let frame = frame(14 + (round * 37) % (FRAME - 13), round as u8);
                board.store(at + HEADER as u64, &frame);
                // The header with the frame, alone, or cut itself.
                let cuts: &[usize] = [&[][..], &[HEADER], &[5]][round % 3];
                let parts = cut(at, HEADER + frame.len(), cuts, false);
                // So seldom that the device wants to know of each.
                board.pass(1_000_000);
                let head = driver.send(&mut board, 1, &parts);
                assert_eq!(driver.take(&mut board, 1), Some((head, 0)));
                sent.push((0, frame));
            }
            assert_eq!(board.outside.frames, sent);
        }
    }
}

/// Sends a frame; whether it has left at once.
fn send_one(board: &mut Board, driver: &mut Driver, frame: &[u8]) -> bool {
    board.rewind();
    let at = board.allocate(HEADER + FRAME);
    board.store(at + HEADER as u64, frame);
    let before = board.outside.frames.len();
    driver.send(board, 1, &cut(at, HEADER + frame.len(), &[], false));
    board.outside.frames.len() > before
}

/// A frame each 20 us.
#[test]
fn a_stream_leaves_at_even_distances_and_in_order() {
    const STEP: u64 = 20_000;
    for features in [0, EVENTS] {
        let mut board = Board::new();
        let mut driver = Driver::start(&mut board, NET, Way::Ports, features, 64);
        let (mut sent, mut at_once, mut longest) = (Vec::new(), 0, 0);
        let mut waits = 0;
        for round in 0..1000 {
            let frame = frame(1514, round as u8);
            at_once += u32::from(send_one(&mut board, &mut driver, &frame));
            sent.push((0, frame));
            board.pass(STEP);
            while driver.take(&mut board, 1).is_some() {}
            waits = if board.outside.frames.len() < sent.len() { waits + 1 } else { 0 };
            longest = longest.max(waits);
        }
        // Notified of the first ones alone; then it looks every 200 us.
        assert!((10..=20).contains(&at_once), "{at_once}");
        assert!((8..=10).contains(&longest), "{longest}");
        // Nothing is left behind, and after a rest each frame leaves at once.
        board.pass(200_000);
        assert_eq!(board.outside.frames, sent);
        board.pass(10_000_000);
        assert!(send_one(&mut board, &mut driver, &frame(1514, 1)));
    }
}

/// Somebody waits for short frames.
#[test]
fn short_frames_leave_at_once_however_many() {
    for features in [0, EVENTS] {
        let mut board = Board::new();
        let mut driver = Driver::start(&mut board, NET, Way::Ports, features, 64);
        for round in 0..1000 {
            assert!(send_one(&mut board, &mut driver, &frame(600, round as u8)), "{round}");
            assert!(driver.take(&mut board, 1).is_some());
            board.pass(5_000);
        }
    }
}

#[test]
fn a_reset_ends_the_rest() {
    let mut board = Board::new();
    let mut driver = Driver::start(&mut board, NET, Way::Ports, EVENTS, 64);
    while send_one(&mut board, &mut driver, &frame(1514, 0)) {}
    let before = board.outside.frames.len();
    let mut driver = Driver::start(&mut board, NET, Way::Ports, EVENTS, 64);
    board.pass(1_000_000);
    assert_eq!(board.outside.frames.len(), before, "it was the driver's before the reset");
    assert!(send_one(&mut board, &mut driver, &frame(1514, 0)));
}

#[test]
fn frames_that_ethernet_has_not_do_not_leave() {
    let mut board = Board::new();
    let mut driver = Driver::start(&mut board, NET, Way::Ports, 0, 8);
    let at = board.allocate(HEADER + FRAME + 1);
    for length in [0, 13, FRAME + 1] {
        let head = driver.send(&mut board, 1, &cut(at, HEADER + length, &[], false));
        assert_eq!(driver.take(&mut board, 1), Some((head, 0)), "the buffer comes back");
    }
    assert_eq!(board.outside.frames, []);
    board.with(|pci, _| pci.set_link(0, false));
    driver.send(&mut board, 1, &cut(at, HEADER + 60, &[], false));
    assert!(driver.take(&mut board, 1).is_some());
    assert_eq!(board.outside.frames, [], "the link is down");
}

#[test]
fn frames_arrive_in_one_buffer_or_in_several() {
    for (features, buffer) in
        [(0, 1600), (MERGE, 1600), (MERGE, 200), (MERGE | INDIRECT | EVENTS, 64), (INDIRECT, 1530)]
    {
        let mut board = Board::new();
        let mut driver = Driver::start(&mut board, NET, Way::Ports, features, 64);
        assert_eq!(receive(&mut board, &frame(60, 0)), Received::NoBuffer);
        let mut buffers = vec![0; 64];
        let fill = |board: &mut Board, driver: &mut Driver, buffers: &mut Vec<u64>| {
            while driver.rings[0].room() >= 3 {
                let at = board.allocate(buffer);
                let head = driver.send(board, 0, &cut(at, buffer, &[HEADER, 20], true));
                buffers[usize::from(head)] = at;
            }
        };
        for (round, length) in [60, 1514, 14, 188, 189, 1000, FRAME, 53].into_iter().enumerate() {
            fill(&mut board, &mut driver, &mut buffers);
            let frame = frame(length, round as u8);
            assert_eq!(receive(&mut board, &frame), Received::Taken, "{features:#x} {length}");
            let mut got = Vec::new();
            let mut count = 0;
            while let Some((head, length)) = driver.take(&mut board, 0) {
                got.extend_from_slice(board.load(buffers[usize::from(head)], length as usize));
                count += 1;
            }
            assert_eq!(count, (HEADER + length).div_ceil(buffer), "as few as it takes");
            assert_eq!(got[..10], [0; 10], "no offloads");
            assert_eq!(got[10..12], (count as u16).to_le_bytes());
            assert_eq!(got[12..], frame);
        }
    }
}

#[test]
fn a_receiver_without_room_takes_nothing_and_asks_for_a_notification() {
    for features in [MERGE, MERGE | EVENTS] {
        let mut board = Board::new();
        let mut driver = Driver::start(&mut board, NET, Way::Ports, features, 16);
        let at = board.allocate(4096);
        driver.send(&mut board, 0, &[(at, 100, true)]);
        driver.rings[0].add(&mut board, &[(at + 512, 100, true)]);
        assert!(!driver.rings[0].wants_notification(&board), "buffers for later are no news");
        assert_eq!(receive(&mut board, &frame(500, 1)), Received::NoBuffer, "two are not enough");
        assert_eq!(driver.take(&mut board, 0), None);
        assert!(board.with(|pci, ctx| pci.has_buffer(0, ctx.ram)));
        driver.rings[0].add(&mut board, &[(at + 1024, 2000, true)]);
        if features & EVENTS == 0 {
            assert!(driver.rings[0].wants_notification(&board), "now they are");
        }
        assert_eq!(receive(&mut board, &frame(500, 1)), Received::Taken);
        assert_eq!(driver.take(&mut board, 0).map(|used| used.1), Some(100));
        assert_eq!(driver.take(&mut board, 0).map(|used| used.1), Some(100));
        assert_eq!(driver.take(&mut board, 0).map(|used| used.1), Some(312));
        assert!(!board.with(|pci, ctx| pci.has_buffer(0, ctx.ram)));
        assert_eq!(receive(&mut board, &frame(500, 1)), Received::NoBuffer);
        driver.rings[0].add(&mut board, &[(at + 1024, 2000, true)]);
        assert!(driver.rings[0].wants_notification(&board));
    }
}

#[test]
fn a_frame_larger_than_the_buffer_is_lost_but_not_the_buffer() {
    let mut board = Board::new();
    let mut driver = Driver::start(&mut board, NET, Way::Ports, 0, 16);
    let at = board.allocate(4096);
    driver.send(&mut board, 0, &[(at, 100, true)]);
    assert_eq!(receive(&mut board, &frame(89, 1)), Received::Dropped);
    assert_eq!(driver.take(&mut board, 0), None);
    assert_eq!(receive(&mut board, &frame(88, 1)), Received::Taken);
    assert_eq!(driver.take(&mut board, 0).map(|used| used.1), Some(100));
    assert_eq!(receive(&mut board, &vec![0; FRAME + 1]), Received::Dropped);
    board.with(|pci, _| pci.set_link(0, false));
    assert_eq!(receive(&mut board, &frame(60, 1)), Received::Down);
    driver.set(&mut board, common::STATUS, 0);
    board.with(|pci, _| pci.set_link(0, true));
    assert_eq!(receive(&mut board, &frame(60, 1)), Received::Down, "no driver");
}

/// Gives a command of the control queue; answers its outcome.
fn command(board: &mut Board, driver: &mut Driver, bytes: &[u8]) -> u8 {
    let (data, outcome) = (board.put(bytes), board.put(&[0xee]));
    driver.send(board, 2, &[(data, 2, false), (data + 2, bytes.len() as u32 - 2, false), (outcome, 1, true)]);
    assert_eq!(driver.take(board, 2).map(|used| used.1), Some(1));
    board.load(outcome, 1)[0]
}

#[test]
fn the_filter_does_as_it_is_told() {
    let mut board = Board::new();
    let mut driver = Driver::start(&mut board, NET, Way::Ports, CONTROL | INDIRECT, 16);
    let to = |board: &Board, address: [u8; 6]| {
        let mut frame = frame(60, 0);
        frame[..6].copy_from_slice(&address);
        board.pci.wants_frame(0, &frame)
    };
    let (other, group, second) = ([2, 0, 0, 0, 0, 9], [0x33, 0x33, 0, 0, 0, 1], [2, 1, 1, 1, 1, 1]);
    let all = |board: &Board| [MAC, other, group, [0xff; 6], second].map(|address| to(board, address));
    assert_eq!(all(&board), [true; 5], "promiscuous after reset");
    assert_eq!(command(&mut board, &mut driver, &[0, 0, 0]), 0);
    assert_eq!(all(&board), [true, false, false, true, false]);
    let table = [&[1, 0][..], &[1, 0, 0, 0], &second, &[1, 0, 0, 0], &group].concat();
    assert_eq!(command(&mut board, &mut driver, &table), 0);
    assert_eq!(all(&board), [true, false, true, true, true]);
    for (mode, expected) in [
        (1, [true, false, true, true, true]),
        (2, [true, true, true, true, true]),
        (3, [true, true, false, true, true]),
        (4, [false, false, false, true, false]),
        (5, [false, false, false, false, false]),
    ] {
        assert_eq!(command(&mut board, &mut driver, &[0, mode, 1]), 0);
        assert_eq!(all(&board), expected, "mode {mode}");
    }
    for mode in 1..6 {
        assert_eq!(command(&mut board, &mut driver, &[0, mode, 0]), 0);
    }
    assert_eq!(command(&mut board, &mut driver, &[&[1, 1][..], &other].concat()), 0);
    assert_eq!(all(&board), [false, true, true, true, true], "another address");
    assert_eq!(driver.read(&mut board, 4, (5, 1)), 9);
    let mut many = vec![1, 0, 0, 0, 0, 0, 40, 0, 0, 0];
    many.extend_from_slice(&[3; 240]);
    assert_eq!(command(&mut board, &mut driver, &many), 0);
    assert_eq!(all(&board), [false, true, true, true, false], "too many groups: all pass");
    for bad in [&[0, 6, 1][..], &[0, 0, 2], &[7, 0, 1], &[1, 0, 9, 0, 0, 0, 1], &[1, 1, 1, 2, 3], &[1, 2, 0]]
    {
        assert_eq!(command(&mut board, &mut driver, bad), 1, "{bad:?}");
    }
    let before = board.pci.save();
    assert_eq!(command(&mut board, &mut driver, &[1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]), 1);
    assert_eq!(format!("{:?}", before.slots[0].model), format!("{:?}", board.pci.save().slots[0].model));
    driver.set(&mut board, common::STATUS, 0);
    assert_eq!(driver.read(&mut board, 4, (5, 1)), u32::from(MAC[5]), "reset gives the first address back");
}

#[test]
fn commands_need_their_features() {
    let mut board = Board::new();
    let mut driver = Driver::start(&mut board, NET, Way::Ports, 1 << 17 | 1 << 18, 16);
    assert_eq!(command(&mut board, &mut driver, &[0, 0, 1]), 0);
    assert_eq!(command(&mut board, &mut driver, &[0, 2, 1]), 1);
    assert_eq!(command(&mut board, &mut driver, &[1, 1, 0, 0, 0, 0, 0, 0]), 1);
}

/// A request to a disk; answers its status, what is in its data then, and the length told.
fn request(
    board: &mut Board,
    driver: &mut Driver,
    kind: u32,
    sector: u64,
    data: &[u8],
    cuts: [&[usize]; 2],
) -> (u8, Vec<u8>, u32) {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&kind.to_le_bytes());
    header[8..].copy_from_slice(&sector.to_le_bytes());
    let out = kind == 1;
    let before = [&header[..], if out { data } else { &[] }].concat();
    let after = [if out { &[] } else { data }, &[0xee]].concat();
    let (to_read, to_write) = (board.put(&before), board.put(&after));
    let mut parts = cut(to_read, before.len(), cuts[0], false);
    parts.extend(cut(to_write, after.len(), cuts[1], true));
    driver.send(board, 0, &parts);
    let (_, length) = driver.take(board, 0).expect("done");
    let at = if out { to_read + 16 } else { to_write };
    (board.load(to_write + after.len() as u64 - 1, 1)[0], board.load(at, data.len()).to_vec(), length)
}

#[test]
fn requests_that_a_disk_cannot_serve_fail() {
    const WHOLE: [&[usize]; 2] = [&[16], &[512]];
    let mut board = Board::new();
    let mut driver = Driver::start(&mut board, BLOCK, Way::Ports, INDIRECT, 16);
    let sector = [0x5a; SECTOR];
    for (kind, first, length, status) in [
        (0, SECTORS - 1, 512, 0),
        (1, SECTORS - 1, 512, 0),
        (0, SECTORS - 1, 1024, 1),
        (1, SECTORS, 512, 1),
        (0, u64::MAX, 512, 1),
        (1, u64::MAX - 1, 512, 1),
        (0, 0, 511, 1),
        (1, 0, 513, 1),
        (0, 5, 0, 0),
        (1, 5, 0, 0),
        (2, 0, 512, 2),
        (11, 0, 512, 2),
        (13, 0, 512, 2),
        (0xffff_ffff, 0, 512, 2),
        (8, 0, 19, 2),
    ] {
        let got =
            request(&mut board, &mut driver, kind, first, &[&sector[..], &sector].concat()[..length], WHOLE);
        assert_eq!(got.0, status, "{kind} at {first}, {length} bytes");
    }
    assert_eq!(board.disks[0].bytes[(SECTORS as usize - 1) * SECTOR..], sector, "the one that could");
    board.disks[0].bad_from = 100;
    assert_eq!(request(&mut board, &mut driver, 0, 99, &sector, WHOLE).0, 0);
    assert_eq!(request(&mut board, &mut driver, 0, 100, &sector, WHOLE).0, 1);
    assert_eq!(request(&mut board, &mut driver, 1, 100, &sector, [&[16, 100], &[]]).0, 1);
    assert_eq!(request(&mut board, &mut driver, 4, 0, &[], WHOLE).0, 0);
    assert_eq!(board.disks[0].flushes, 1);
    board.disks[0].bad_from = 0;
    assert_eq!(request(&mut board, &mut driver, 4, 0, &[], WHOLE).0, 1);
    let (status, id, length) = request(&mut board, &mut driver, 8, 0, &[0; 20], [&[3], &[7, 7]]);
    assert_eq!((status, &id[..5], length), (0, &b"root\0"[..], 21));
    assert_eq!(driver.get(&mut board, common::STATUS), 15, "none of these breaks the device");
}

#[test]
fn a_disk_that_is_not_to_be_written_is_not() {
    let mut board = Board::new();
    let before = board.disks.clone();
    let mut driver = Driver::start(&mut board, READ_ONLY, Way::Ports, 1 << 5, 16);
    assert_eq!(request(&mut board, &mut driver, 1, 0, &[1; SECTOR], [&[16], &[]]).0, 1);
    let (status, data, length) = request(&mut board, &mut driver, 0, 1, &[0; SECTOR], [&[16], &[]]);
    assert_eq!((status, length), (0, 513));
    assert_eq!(data, before[1].bytes[SECTOR..2 * SECTOR]);
    assert!(board.disks[1].bytes == before[1].bytes);
}

#[test]
fn a_request_longer_than_announced_fails() {
    let mut board = Board::new();
    let mut driver = Driver::start(&mut board, BLOCK, Way::Ports, INDIRECT, 16);
    let most = driver.read(&mut board, 4, (8, 4)) * driver.read(&mut board, 4, (12, 4));
    let header = board.put(&[0; 16]);
    let (data, status) = (board.allocate(most as usize + 512), board.allocate(1));
    for (length, expected) in [(most, 0), (most + 512, 1)] {
        driver.send(&mut board, 0, &[(header, 16, false), (data, length, true), (status, 1, true)]);
        assert_eq!(board.load(status, 1), [expected]);
    }
    assert_eq!(board.load(data, most as usize), &board.disks[0].bytes[..most as usize]);
}

#[test]
fn random_bytes_are_those_of_the_seed() {
    let mut board = Board::new();
    let mut driver = Driver::start(&mut board, RNG, Way::Ports, 0, 8);
    let mut reference = ChaCha20Rng::from_seed(SEED);
    let at = board.allocate(8192);
    for (length, expected) in [(64, 64), (1, 1), (1000, 1000), (8192, 4096)] {
        let head = driver.send(&mut board, 0, &[(at, length, true)]);
        assert_eq!(driver.take(&mut board, 0), Some((head, expected)));
        let mut bytes = vec![0; expected as usize];
        reference.fill_bytes(&mut bytes);
        assert_eq!(board.load(at, expected as usize), bytes);
        // The generator goes on where it was.
        board.move_house();
    }
}

#[test]
fn the_console_speaks_and_listens() {
    let mut board = Board::new();
    let mut driver = Driver::start(&mut board, CONSOLE, Way::Ports, 1 << 2, 8);
    let text = board.put(b"hello, world");
    driver.send(&mut board, 1, &[(text, 5, false), (text + 5, 7, false)]);
    driver.write(&mut board, 4, (8, 4), u32::from(b'!'));
    let said: Vec<u8> = board
        .outside
        .text
        .iter()
        .map(|&(port, byte)| {
            assert_eq!(port, 1);
            byte
        })
        .collect();
    assert_eq!(said, b"hello, world!");
    let listen = |board: &mut Board, bytes: &[u8]| board.with(|pci, ctx| pci.receive_console(bytes, ctx));
    assert_eq!(listen(&mut board, b"typed"), 0, "nobody listens");
    let at = board.allocate(64);
    driver.send(&mut board, 0, &[(at, 3, true)]);
    driver.send(&mut board, 0, &[(at + 16, 16, true)]);
    assert_eq!(listen(&mut board, b"typed"), 5);
    assert_eq!(driver.take(&mut board, 0).map(|used| used.1), Some(3));
    assert_eq!(driver.take(&mut board, 0).map(|used| used.1), Some(2));
    assert_eq!([board.load(at, 3), board.load(at + 16, 2)].concat(), b"typed");
    driver.send(&mut board, 0, &[(at, 3, true)]);
    assert_eq!(listen(&mut board, b"more"), 3, "as much as there is room for");
}

/// Where to cut.
fn cuts() -> impl Strategy<Value = Vec<usize>> {
    let whole = (0usize..3).prop_map(|sectors| sectors * SECTOR);
    prop::collection::vec(prop_oneof![0usize..40, whole, 0usize..2000], 0..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn disk_data_are_whole_however_they_are_cut(
        steps in prop::collection::vec(
            (any::<bool>(), 0..SECTORS - 8, 0usize..8, cuts(), cuts(), any::<u8>()),
            1..24,
        ),
        features in prop_oneof![Just(0), Just(INDIRECT), Just(INDIRECT | EVENTS)],
    ) {
        let mut board = Board::new();
        let mut model = board.disks[0].bytes.clone();
        let mut driver = Driver::start(&mut board, BLOCK, Way::Ports, features, 32);
        for (write, first, sectors, cut_out, cut_in, fill) in steps {
            let place = first as usize * SECTOR..(first as usize + sectors) * SECTOR;
            let data: Vec<u8> = (0..sectors * SECTOR).map(|i| (i as u8).wrapping_mul(7) ^ fill).collect();
            let (status, data_after, length) =
                request(&mut board, &mut driver, write.into(), first, &data, [&cut_out, &cut_in]);
            prop_assert_eq!(status, 0);
            if write {
                model[place].copy_from_slice(&data);
                prop_assert_eq!(length, 1);
            } else {
                prop_assert_eq!(&data_after, &model[place]);
                prop_assert_eq!(length as usize, data.len() + 1);
            }
        }
        prop_assert_eq!(&board.disks[0].bytes, &model);
    }
}
