//! A log that arrives piece by piece is the same log; what is wrong with it is noticed where it is.

use proptest::prelude::*;
use proptest::sample::Index;
use replay::check::Check;
use replay::log::block::PREAMBLE;
use replay::log::codec::Mark;
use replay::log::entry::{Entry, Event, Place};
use replay::log::error::Error;
use replay::log::header::{Header, Profile};
use replay::log::open::Log;
use replay::log::stream::{Stream, TooSmall, WORKING_BYTES};
use replay::log::writer::{BUFFER, Writer};
use replay::point::Point;
use replay::replayer::Source;

/// The smallest ring.
const RING: usize = 48 << 10;

fn entry(number: u64, payload: &[u8]) -> Entry<'_> {
    let point = Point { n: 1_000 * number, rip: 0x1000 + number, rcx: 0 };
    let place = match number % 3 {
        0 => Place::Exit(number),
        1 => Place::Halted(number),
        _ => Place::Between { point, repeating: false, breakpoint: true },
    };
    let event = match number % 5 {
        0 => Event::Frame { device: (number % 2) as u8, frame: payload.into() },
        1 => Event::Console(payload),
        2 => Event::Output,
        3 => Event::Look(None),
        _ => Event::Checkpoint(payload),
    };
    let check = (number % 3 != 2).then_some(Check { hash: number as u8, sums: [1, number as u8] });
    Entry { place, check, event }
}

fn header() -> Header<'static> {
    Header { kernel: "test", config: "[vm]\n", profile: Profile { name: "p", hash: 9 }, ..Header::default() }
}

/// A log of entries with payloads of these lengths; a block is closed behind each of `cuts`. Where its blocks end, too.
fn log(lengths: &[usize], cuts: &[Index]) -> (Vec<u8>, Vec<u64>) {
    let mut writer = Writer::new(vec![0; BUFFER]).unwrap();
    let mut bytes = writer.begin(&header()).unwrap().to_vec();
    let mut ends = vec![bytes.len() as u64];
    let cuts: Vec<_> = cuts.iter().map(|cut| cut.index(lengths.len().max(1))).collect();
    for (number, length) in lengths.iter().enumerate() {
        let payload = vec![number as u8; *length];
        let entry = entry(number as u64, &payload);
        let mark = Mark { n: number as u64, exits: number as u64, virtual_ns: 7 * number as u64 };
        if writer.entry(&entry).is_err() {
            bytes.extend_from_slice(writer.close(&mark).unwrap());
            ends.push(bytes.len() as u64);
            writer.entry(&entry).unwrap();
        }
        if cuts.contains(&number) {
            bytes.extend_from_slice(writer.close(&mark).unwrap());
            ends.push(bytes.len() as u64);
        }
    }
    if let Some(block) = writer.close(&Mark::default()) {
        bytes.extend_from_slice(block);
        ends.push(bytes.len() as u64);
    }
    bytes.extend_from_slice(writer.end(&Mark::default()));
    ends.push(bytes.len() as u64);
    (bytes, ends)
}

fn memory() -> (&'static mut [u8], &'static mut [u8]) {
    (vec![0; RING].leak(), vec![0; WORKING_BYTES].leak())
}

fn stream() -> Stream<'static> {
    let (ring, working) = memory();
    Stream::new(ring, working).unwrap()
}

/// Reads what there is, one entry ahead as a replayer does, and compares it with what is expected from `next` on.
fn read(stream: &mut Stream<'_>, ahead: &mut Option<Entry<'static>>, next: &mut u64, expected: &[Entry<'_>]) {
    loop {
        let Some(entry) = ahead.take() else {
            *ahead = stream.next().unwrap();
            if ahead.is_none() {
                return;
            }
            continue;
        };
        // The next is asked for before this one's payload is used.
        *ahead = stream.next().unwrap();
        let payload = stream.lend(*next);
        let whole = Entry { event: entry.event.with_payload(payload.bytes()), ..entry };
        assert_eq!(whole, expected[*next as usize]);
        stream.give_back(*next, payload);
        *next += 1;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_arrives_in_pieces_is_read_whole(
        lengths in prop::collection::vec(0_usize..3000, 0..60),
        cuts in prop::collection::vec(any::<Index>(), 0..20),
        pieces in prop::collection::vec(1_usize..5000, 1..40),
    ) {
        let (bytes, ends) = log(&lengths, &cuts);
        let whole = Log::open(&bytes).unwrap();
        let expected: Vec<_> = whole.read().collect();
        let mut stream = stream();
        let (mut at, mut next, mut ahead, mut open) = (0, 0, None, false);
        let mut pieces = pieces.iter().cycle();
        while at < bytes.len() {
            let piece = (*pieces.next().unwrap()).min(bytes.len() - at).min(stream.room());
            stream.push(&bytes[at..at + piece]).unwrap();
            at += piece;
            if !open {
                let header = stream.header().unwrap();
                prop_assert_eq!(header.is_some(), at as u64 >= ends[0]);
                open = header.is_some();
            }
            if open {
                read(&mut stream, &mut ahead, &mut next, &expected);
                // Everything that is whole was read.
                let whole = ends.iter().copied().filter(|end| *end <= at as u64).max().unwrap_or(0);
                prop_assert_eq!(stream.executed(), whole);
            }
        }
        prop_assert_eq!(next as usize, expected.len());
        prop_assert!(stream.is_complete());
        prop_assert_eq!((stream.received(), stream.executed()), (bytes.len() as u64, bytes.len() as u64));
    }

    #[test]
    fn a_changed_byte_is_noticed_before_its_block_is_read(
        lengths in prop::collection::vec(0_usize..300, 1..20),
        cuts in prop::collection::vec(any::<Index>(), 0..8),
        place: Index,
        change in 1_u8..,
    ) {
        let (mut bytes, ends) = log(&lengths, &cuts);
        let sound = bytes.clone();
        let whole = Log::open(&sound).unwrap();
        let expected: Vec<_> = whole.read().collect();
        let place = place.index(bytes.len());
        bytes[place] ^= change;
        let mut stream = stream();
        let mut wrong = false;
        for chunk in bytes.chunks(RING / 2) {
            stream.push(chunk).unwrap();
            if stream.executed() == 0 {
                match stream.header() {
                    Ok(Some(_)) => {}
                    Ok(None) => continue,
                    Err(_) => { wrong = true; break; }
                }
            }
            let mut count = 0;
            loop {
                match stream.next() {
                    Ok(Some(entry)) => {
                        prop_assert_eq!(entry.place, expected[count].place);
                        count += 1;
                    }
                    Ok(None) => break,
                    Err(_) => { wrong = true; break; }
                }
            }
        }
        // A changed length may also leave the rest waiting for ever; then no byte behind it was believed.
        let before = ends.iter().copied().filter(|end| *end <= place as u64).max().unwrap_or(0);
        prop_assert!(wrong || !stream.is_complete());
        prop_assert!(stream.executed() <= before.max(PREAMBLE as u64));
    }

    #[test]
    fn random_bytes_are_no_log(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut stream = stream();
        stream.push(&bytes).unwrap();
        prop_assert!(!matches!(stream.header(), Ok(Some(_))));
        prop_assert!(!matches!(stream.next(), Ok(Some(_))));
    }
}

#[test]
fn a_full_ring_takes_nothing() {
    let mut stream = stream();
    stream.push(&vec![0; RING]).unwrap();
    assert_eq!(stream.room(), 0);
    stream.push(&[1]).unwrap_err();
    assert_eq!(stream.received(), RING as u64);
}

#[test]
fn another_version_is_refused() {
    let (mut bytes, _) = log(&[], &[]);
    bytes[8] += 1;
    let mut stream = stream();
    stream.push(&bytes).unwrap();
    assert!(matches!(stream.header(), Err(Error::Version(_))));
}

#[test]
fn too_little_memory_is_refused() {
    let (ring, working) = memory();
    assert_eq!(Stream::new(&mut ring[..1000], working).unwrap_err(), TooSmall);
    let (ring, working) = memory();
    assert_eq!(Stream::new(ring, &mut working[1..]).unwrap_err(), TooSmall);
}
