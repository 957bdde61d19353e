//! The log's format: what is written is read again, and what is damaged is noticed.

use proptest::prelude::*;
use proptest::sample::Index;
use replay::check::Check;
use replay::log::block::{Block, Kind, PREAMBLE, START, VERSION};
use replay::log::bytes::{In, Out};
use replay::log::codec::{Codec, Mark};
use replay::log::entry::{Correction, Entry, Event, Place};
use replay::log::error::{Damage, Error};
use replay::log::header::{BadHeader, Header, MODULES_MAX, Module, Modules, Paging, Profile};
use replay::log::open::Log;
use replay::log::writer::{BUFFER, PAYLOAD_MAX, Refused, Writer, note};
use replay::point::Point;

/// An event with bytes of its own.
#[derive(Clone, Debug)]
struct Owned {
    place: Place,
    check: Option<Check>,
    event: What,
}

#[derive(Clone, Debug)]
enum What {
    Plain(Event<'static>),
    Console(Vec<u8>),
    SideConsole(Vec<u8>),
    Frame(u8, Vec<u8>),
    Checkpoint(Vec<u8>),
    End(String),
}

impl Owned {
    fn entry(&self) -> Entry<'_> {
        let event = match &self.event {
            What::Plain(event) => *event,
            What::Console(bytes) => Event::Console(bytes),
            What::SideConsole(bytes) => Event::SideConsole(bytes),
            What::Frame(device, frame) => Event::Frame { device: *device, frame: frame[..].into() },
            What::Checkpoint(bytes) => Event::Checkpoint(bytes),
            What::End(why) => Event::End(why),
        };
        Entry { place: self.place, check: self.check, event }
    }
}

/// Numbers of every size, small ones and the extremes among them.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(u64::MAX), any::<u64>(), (0_u32..64, any::<u64>()).prop_map(|(s, v)| v >> s)]
}

fn check() -> impl Strategy<Value = Check> {
    any::<[u8; 3]>().prop_map(Check::from_bytes)
}

fn place() -> impl Strategy<Value = (Place, Option<Check>)> {
    prop_oneof![
        (number(), check()).prop_map(|(at, check)| (Place::Exit(at), Some(check))),
        (number(), check()).prop_map(|(at, check)| (Place::Halted(at), Some(check))),
        (number(), number(), number(), any::<(bool, bool)>(), prop::option::weighted(0.2, check())).prop_map(
            |(n, rip, rcx, (repeating, breakpoint), check)| {
                let rcx = if repeating { rcx } else { 0 };
                (Place::Between { point: Point { n, rip, rcx }, repeating, breakpoint }, check)
            }
        ),
    ]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![4 => prop::collection::vec(any::<u8>(), 0..80), 1 => prop::collection::vec(any::<u8>(), 1000..9000)]
}

fn what() -> impl Strategy<Value = What> {
    let plain = prop_oneof![
        Just(Event::Look(None)),
        (number(), any::<u32>()).prop_map(|(rate, step)| Event::Look(Some(Correction { rate, step }))),
        number().prop_map(Event::WakeAfterDue),
        number().prop_map(Event::Wake),
        any::<u8>().prop_map(|device| Event::Starved { device }),
        any::<(u8, bool)>().prop_map(|(device, up)| Event::Link { device, up }),
        Just(Event::PowerButton),
        Just(Event::Reset),
        Just(Event::Output),
        any::<u64>().prop_map(Event::Hash),
    ];
    prop_oneof![
        6 => plain.prop_map(What::Plain),
        1 => bytes().prop_map(What::Console),
        1 => bytes().prop_map(What::SideConsole),
        2 => (prop_oneof![Just(0), any::<u8>()], bytes()).prop_map(|(device, frame)| What::Frame(device, frame)),
        1 => bytes().prop_map(What::Checkpoint),
        1 => ".{0,12}".prop_map(What::End),
    ]
}

/// Entries, some of them at the place of the one before.
fn entries() -> impl Strategy<Value = Vec<Owned>> {
    prop::collection::vec((place(), what(), prop::bool::weighted(0.3)), 0..60).prop_map(|all| {
        let mut last = None;
        all.into_iter()
            .map(|(place, event, same)| {
                let (place, check) = if same { last.unwrap_or(place) } else { place };
                last = Some((place, check));
                Owned { place, check, event }
            })
            .collect()
    })
}

fn mark() -> impl Strategy<Value = Mark> {
    (number(), number(), number()).prop_map(|(n, exits, virtual_ns)| Mark { n, exits, virtual_ns })
}

fn header() -> Header<'static> {
    let mut modules = Modules::default();
    modules.push(Module::of("vmlinuz", b"a kernel")).unwrap();
    modules.push(Module::of("initrd.cpio", b"")).unwrap();
    Header {
        kernel: "lockstep 0.1.0",
        config: "[vm]\nname = \"test\"\n",
        modules,
        profile: Profile { name: "x86-64-v3", hash: 0x1234_5678_9ABC_DEF0 },
        signature: 0x000A_0655,
        memory: 256 << 20,
        seed: [7; 32],
        wall_clock: 1_700_000_000,
        rate: 10 << 32,
        paging: Paging::Strict,
        checkpoint: 2000,
    }
}

/// A log of these entries; a block is closed at each of `cuts` besides those that are full.
fn write(entries: &[Owned], cuts: &[Index], marks: &[Mark], end: bool) -> Vec<u8> {
    let mut writer = Writer::new(vec![0; BUFFER]).unwrap();
    let mut log = writer.begin(&header()).unwrap().to_vec();
    let cuts: Vec<_> = cuts.iter().map(|cut| cut.index(entries.len().max(1))).collect();
    let mut marks = marks.iter().cycle();
    for (index, entry) in entries.iter().enumerate() {
        if cuts.contains(&index)
            && let Some(block) = writer.close(marks.next().unwrap())
        {
            log.extend_from_slice(block);
        }
        match writer.entry(&entry.entry()) {
            Ok(()) => {}
            Err(Refused::Full) => {
                log.extend_from_slice(writer.close(marks.next().unwrap()).unwrap());
                writer.entry(&entry.entry()).unwrap();
            }
            Err(Refused::TooLong) => panic!("an entry does not fit"),
        }
    }
    let mark = marks.next().unwrap();
    if !writer.is_empty() {
        let expected = writer.pending_bytes();
        let block = writer.close(mark).unwrap();
        assert_eq!(block.len(), expected);
        log.extend_from_slice(block);
    }
    if end {
        log.extend_from_slice(writer.end(mark));
    }
    log
}

/// A small whole log with three blocks of entries.
fn sample() -> Vec<u8> {
    let at = |place, hash, event: What| {
        let check = (hash != 0).then_some(Check { hash, sums: [3, 4] });
        Owned { place, check, event }
    };
    let point =
        |n, rip| Place::Between { point: Point { n, rip, rcx: 0 }, repeating: false, breakpoint: true };
    let entries = [
        at(Place::Exit(3), 9, What::Console(b"ls\n".to_vec())),
        at(point(100, 0xFFFF_FFFF_8100_0000), 0, What::Plain(Event::Look(None))),
        at(Place::Halted(4), 1, What::Plain(Event::WakeAfterDue(50))),
        at(Place::Halted(4), 1, What::Frame(0, vec![0xAB; 60])),
        at(Place::Exit(5), 2, What::Checkpoint(vec![1; 90])),
        at(Place::Exit(6), 2, What::End("power-off".into())),
    ];
    let mut writer = Writer::new(vec![0; BUFFER]).unwrap();
    let mut log = writer.begin(&header()).unwrap().to_vec();
    for pair in entries.chunks(2) {
        for entry in pair {
            writer.entry(&entry.entry()).unwrap();
        }
        log.extend_from_slice(writer.close(&Mark { n: 100, exits: 4, virtual_ns: 1000 }).unwrap());
    }
    log.extend_from_slice(writer.end(&Mark { n: 200, exits: 6, virtual_ns: 2000 }));
    log
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_is_written_is_read(
        entries in entries(),
        cuts in prop::collection::vec(any::<Index>(), 0..5),
        marks in prop::collection::vec(mark(), 1..4),
    ) {
        let bytes = write(&entries, &cuts, &marks, true);
        let log = Log::open(&bytes).unwrap();
        prop_assert_eq!(*log.header(), header());
        prop_assert_eq!(log.entries(), entries.len() as u64);
        let read: Vec<_> = log.read().collect();
        let written: Vec<_> = entries.iter().map(Owned::entry).collect();
        prop_assert_eq!(read, written);
        prop_assert!(log.end().is_some());
        prop_assert_eq!(log.bytes().len(), bytes.len());
    }

    #[test]
    fn a_cut_log_is_read_to_its_last_whole_block(
        entries in entries(), cuts in prop::collection::vec(any::<Index>(), 0..5), at: Index,
    ) {
        let bytes = write(&entries, &cuts, &[Mark::default()], true);
        let at = at.index(bytes.len());
        let wrong = Log::open(&bytes[..at]).unwrap_err();
        match Log::salvage(&bytes[..at]) {
            Err(error) => prop_assert_eq!(error, wrong),
            Ok((log, error)) => {
                prop_assert_eq!(error, Some(wrong));
                let whole: Vec<_> = log.walk().map(|block| block.at + block.length).collect();
                match wrong {
                    Error::Truncated { block, at: begins, missing } => {
                        prop_assert_eq!(block, whole.len() as u64);
                        prop_assert_eq!(Some(&begins), whole.last());
                        prop_assert!(missing > 0 && begins < at && at + missing <= bytes.len());
                    }
                    Error::NoEnd { blocks, bytes } => {
                        prop_assert_eq!((blocks, bytes), (whole.len() as u64, at));
                    }
                    other => prop_assert!(false, "{:?}", other),
                }
                let written: Vec<_> = entries.iter().map(Owned::entry).collect();
                let read: Vec<_> = log.read().collect();
                prop_assert_eq!(&read[..], &written[..read.len()]);
                prop_assert_eq!(log.entries(), read.len() as u64);
            }
        }
    }

    #[test]
    fn random_bytes_are_no_entries(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut codec = Codec::new();
        let mut input = In::new(&bytes);
        while !input.is_empty() {
            let before = input.at();
            if codec.parse(&mut input).is_err() {
                break;
            }
            prop_assert!(input.at() > before);
        }
    }

    #[test]
    fn random_bytes_are_no_blocks(mut bytes in prop::collection::vec(any::<u8>(), 0..300), start: bool) {
        if start && let Some(first) = bytes.first_mut() {
            *first = START;
        }
        let _ = Block::at(&bytes, 0, true);
        if let Ok(Some(block)) = Block::at(&bytes, 0, false) {
            let _ = (block.mark(), block.total());
            if let Ok(entries) = block.entries(Codec::new()) {
                let _ = entries.count();
            }
        }
    }

    #[test]
    fn random_bytes_are_no_header(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Header::parse(&bytes).is_err());
    }

    #[test]
    fn a_body_with_the_right_checksum_is_not_believed_either(
        body in prop::collection::vec(any::<u8>(), 0..120), which in 1_u8..=4, first: bool,
    ) {
        // What a peer could send that knows how to make checksums.
        let mut bytes = sample();
        let log = Log::open(&bytes).unwrap();
        let at = if first { PREAMBLE } else { log.walk().nth(2).unwrap().at };
        bytes.truncate(at);
        let mut block = replay::log::block::prefix(Kind::of(which).unwrap(), body.len()).to_vec();
        block.extend_from_slice(&body);
        let sum = replay::log::checksum::block(&block);
        block.extend_from_slice(&sum.to_le_bytes());
        bytes.extend_from_slice(&block);
        prop_assert!(Log::open(&bytes).is_err() || which == 3);
    }

    #[test]
    fn headers_come_back(
        kernel in ".{0,20}", config in "[ -~\n]{0,900}", names in prop::collection::vec("[a-z.é]{0,20}", 0..=MODULES_MAX),
        numbers: (u64, u64, u64, u64, u32, u32, u64, u32), seed: [u8; 32], fast: bool,
    ) {
        let (hash, memory, wall_clock, rate, signature, checkpoint, length, crc) = numbers;
        let mut modules = Modules::default();
        for name in &names {
            modules.push(Module { name, length, crc }).unwrap();
        }
        let header = Header {
            kernel: &kernel,
            config: &config,
            modules,
            profile: Profile { name: &kernel, hash },
            signature,
            memory,
            seed,
            wall_clock,
            rate,
            paging: if fast { Paging::Fast } else { Paging::Strict },
            checkpoint,
        };
        let mut buffer = vec![0; 32 * 1024];
        let mut out = Out::new(&mut buffer);
        header.emit(&mut out).unwrap();
        let used = out.used();
        prop_assert_eq!(Header::parse(&buffer[..used]), Ok(header));
        for cut in 0..used {
            prop_assert!(Header::parse(&buffer[..cut]).is_err());
        }
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let bytes = sample();
    Log::open(&bytes).unwrap();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            let error = Log::open(&flipped).expect_err("a flipped bit");
            match error {
                Error::NotALog => assert!(at < 8, "byte {at}"),
                Error::Version(_) => assert!((8..PREAMBLE).contains(&at), "byte {at}"),
                Error::Corrupt { at: seen, .. } => {
                    // It is named where the block begins.
                    let log = Log::open(&bytes).unwrap();
                    let block = log.walk().find(|b| (b.at..b.at + b.length).contains(&at)).unwrap();
                    assert_eq!(seen, block.at, "byte {at}");
                }
                other => panic!("byte {at}: {other}"),
            }
        }
    }
}

#[test]
fn every_prefix_is_named() {
    let bytes = sample();
    assert_eq!(Log::open(&[]).unwrap_err(), Error::NotALog);
    assert_eq!(Log::open(b"ELF").unwrap_err(), Error::NotALog);
    for length in 1..bytes.len() {
        let error = Log::open(&bytes[..length]).expect_err("a prefix");
        assert!(matches!(error, Error::Truncated { .. } | Error::NoEnd { .. }), "{length}: {error}");
    }
}

#[test]
fn blocks_out_of_order_are_noticed() {
    let bytes = sample();
    let log = Log::open(&bytes).unwrap();
    let blocks: Vec<&[u8]> = log.walk().map(|b| &bytes[b.at..b.at + b.length]).collect();
    let join = |order: &[usize]| {
        let mut all = bytes[..PREAMBLE].to_vec();
        order.iter().for_each(|&index| all.extend_from_slice(blocks[index]));
        Log::open(&all).err()
    };
    assert_eq!(join(&[0, 1, 2, 3, 4]), None);
    let sequence = |error| matches!(error, Some(Error::Corrupt { damage: Damage::Sequence(_), .. }));
    assert!(sequence(join(&[0, 1, 3, 4])));
    assert!(sequence(join(&[0, 1, 1, 2, 3, 4])));
    assert!(sequence(join(&[0, 2, 1, 3, 4])));
    assert!(matches!(join(&[1, 2, 3, 4]), Some(Error::Corrupt { damage: Damage::Misplaced, .. })));
    assert!(sequence(join(&[0, 1, 2, 3, 4, 4])));
}

#[test]
fn notes_may_be_added() {
    let mut bytes = sample();
    let blocks = Log::open(&bytes).unwrap().blocks();
    let mut buffer = [0; 200];
    let length = note(blocks, "files: vmlinuz", &mut buffer).unwrap();
    bytes.extend_from_slice(&buffer[..length]);
    let log = Log::open(&bytes).unwrap();
    assert_eq!(log.notes().collect::<Vec<_>>(), ["files: vmlinuz"]);
    assert_eq!(log.entries(), 6);
    assert!(note(0, &"x".repeat(300), &mut buffer).is_err());
    assert!(note(0, "", &mut [0; 8]).is_err());
}

#[test]
fn nothing_follows_the_end() {
    let mut bytes = sample();
    let mut writer = Writer::new(vec![0; BUFFER]).unwrap();
    let (blocks, at) = (Log::open(&bytes).unwrap().blocks(), bytes.len());
    let header = writer.begin(&header()).unwrap().len();
    assert!(header > 100);
    // A second end, with the number that comes next.
    for _ in 1..blocks {
        writer.entry(&Entry { place: Place::Exit(1), check: None, event: Event::Reset }).unwrap();
        writer.close(&Mark::default());
    }
    bytes.extend_from_slice(writer.end(&Mark::default()));
    assert_eq!(
        Log::open(&bytes).unwrap_err(),
        Error::Corrupt { block: blocks, at, damage: Damage::AfterEnd }
    );
}

#[test]
fn another_version_is_named() {
    let mut bytes = sample();
    bytes[8] += 1;
    assert_eq!(Log::open(&bytes).unwrap_err(), Error::Version(VERSION + 1));
}

#[test]
fn another_profile_is_named() {
    let bytes = sample();
    let log = Log::open(&bytes).unwrap();
    assert_eq!(log.require_profile(&header().profile), Ok(()));
    let own = Profile { name: "x86-64-v2", hash: 1 };
    let error = log.require_profile(&own).unwrap_err();
    assert!(matches!(error, Error::Profile { .. }));
    let text = error.to_string();
    assert!(text.contains("x86-64-v3") && text.contains("x86-64-v2"), "{text}");
    assert!(log.require_profile(&Profile { hash: 1, ..header().profile }).is_err());
}

#[test]
fn full_blocks_are_refused_and_too_long_entries_too() {
    let mut writer = Writer::new(vec![0; BUFFER]).unwrap();
    writer.begin(&header()).unwrap();
    let (most, more) = (vec![1; PAYLOAD_MAX], vec![1; 32 * 1024]);
    let entry = |bytes| Entry {
        place: Place::Exit(u64::MAX),
        check: Some(Check::default()),
        event: Event::Console(bytes),
    };
    assert_eq!(writer.entry(&entry(&more)), Err(Refused::TooLong));
    assert!(writer.is_empty() && writer.pending_bytes() == 0);
    let mark = Mark { n: u64::MAX, exits: 1 << 63, virtual_ns: u64::MAX };
    assert_eq!(writer.close(&mark), None);
    assert_eq!(writer.entry(&entry(&most)), Ok(()));
    assert_eq!(writer.entry(&entry(&most)), Err(Refused::Full));
    assert_eq!((writer.pending(), writer.entries()), (1, 1));
    assert!(writer.close(&mark).unwrap().len() > PAYLOAD_MAX);
    assert_eq!(writer.close(&mark), None);
    assert!(Writer::new([0; 100]).is_err());
    let long = "x".repeat(40_000);
    assert_eq!(writer.begin(&Header { config: &long, ..header() }), Err(BadHeader::TooLong));
}

/// Bytes of a log with these entries, without its header and end.
fn cost(entries: impl Iterator<Item = Owned>) -> usize {
    let entries: Vec<_> = entries.collect();
    let whole = write(&entries, &[], &[Mark::default()], true).len();
    whole - write(&[], &[], &[Mark::default()], true).len()
}

#[test]
fn timer_interrupts_cost_at_most_eight_bytes() {
    // A tick each millisecond of a processor at 1,000 MIPS, anywhere in a kernel of 32 MiB.
    let mut seed = replay::seed::Seed::new(1);
    let ticks = 10_000;
    let mut n = 0;
    let bytes = cost((0..ticks).map(|_| {
        n += 1_000_000 + seed.below(2000);
        let rip = 0xFFFF_FFFF_8100_0000 + seed.below(32 << 20);
        let point = Point { n, rip, rcx: 0 };
        let place = Place::Between { point, repeating: false, breakpoint: true };
        Owned { place, check: None, event: What::Plain(Event::Look(None)) }
    }));
    assert!(bytes <= 8 * ticks, "{bytes} bytes");
}

#[test]
fn frames_cost_little_beside_their_bytes() {
    let frames = 1000;
    let bytes = cost((0..frames).map(|index| Owned {
        place: Place::Exit(index as u64 * 20),
        check: Some(Check { hash: index as u8, sums: [0; 2] }),
        event: What::Frame(0, vec![index as u8; 1500]),
    }));
    assert!(bytes * 100 <= frames * 1500 * 102, "{bytes} bytes");
}

/// A frame that acknowledges 1000 bytes more than the one before, in a window that is smaller by as much: 10.0.2.2 port 8000 to
/// 10.0.2.15 port 32806.
fn acknowledgement(number: u16) -> [u8; 60] {
    let mut frame = [0; 60];
    frame[..14].copy_from_slice(&[0x52, 0x54, 0, 0, 0, 2, 0x52, 0x54, 0, 0, 0, 1, 8, 0]);
    let identification = number.to_be_bytes();
    frame[14..34].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 2, 2, 10, 0, 2, 15]);
    frame[18..20].copy_from_slice(&identification);
    frame[34..54]
        .copy_from_slice(&[0x1F, 0x40, 0x80, 0x26, 0, 0, 0, 9, 0, 0, 0, 0, 0x50, 0x10, 0, 0, 0, 0, 0, 0]);
    frame[42..46].copy_from_slice(&(5000 + 1000 * u32::from(number)).to_be_bytes());
    frame[48..50].copy_from_slice(&(30_000 - 1000 * number).to_be_bytes());
    let sum = |bytes: &[u8], more: u32| {
        let words = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
        let sum = words.sum::<u32>() + more;
        (!(((sum & 0xFFFF) + (sum >> 16)) as u16)).to_be_bytes()
    };
    let header = sum(&frame[14..34], 0);
    frame[24..26].copy_from_slice(&header);
    // The pseudo header beside the addresses: protocol and length.
    let segment = sum(&frame[26..54], 6 + 20);
    frame[50..52].copy_from_slice(&segment);
    frame
}

/// The worked example of docs/log-format.md.
fn example() -> Vec<u8> {
    let between = |n, rip, rcx| Place::Between {
        point: Point { n, rip, rcx },
        repeating: rcx != 0,
        breakpoint: rcx == 0,
    };
    let look = Event::Look(Some(Correction { rate: 5 << 31, step: 1000 }));
    let at = |place, check: [u8; 3], event| {
        let check = (check != [0; 3]).then_some(Check::from_bytes(check));
        Entry { place, check, event }
    };
    let tick = between(1_000_000, 0xFFFF_FFFF_8100_0010, 0);
    let next = between(2_000_100, 0xFFFF_FFFF_8100_0010, 0);
    let frames = [0_u16, 1, 2].map(acknowledgement);
    let entries = [
        at(Place::Exit(3), [0x5E, 1, 2], Event::Console(b"a")),
        at(tick, [0; 3], Event::Look(None)),
        at(tick, [0; 3], look),
        at(Place::Halted(9), [0x21, 3, 4], Event::WakeAfterDue(0)),
        at(Place::Halted(9), [0x21, 3, 4], Event::Frame { device: 0, frame: (&frames[0]).into() }),
        at(next, [0; 3], Event::Frame { device: 0, frame: (&frames[1]).into() }),
        at(next, [0; 3], Event::Frame { device: 0, frame: (&frames[2]).into() }),
        at(between(2_000_600, 0x40_1000, 7), [0x21, 8, 9], Event::Look(None)),
        at(Place::Exit(12), [7, 5, 6], Event::End("off")),
    ];
    let mut modules = Modules::default();
    modules.push(Module::of("k", b"123456789")).unwrap();
    let header = Header {
        kernel: "0.1.0",
        config: "x",
        modules,
        profile: Profile { name: "v3", hash: 0x0123_4567_89AB_CDEF },
        signature: 0x000A_0655,
        memory: 64 << 20,
        seed: [0x11; 32],
        wall_clock: 1_700_000_000,
        rate: 1 << 32,
        paging: Paging::Strict,
        checkpoint: 2000,
    };
    let mut writer = Writer::new(vec![0; BUFFER]).unwrap();
    let mut log = writer.begin(&header).unwrap().to_vec();
    entries.iter().for_each(|entry| writer.entry(entry).unwrap());
    let end = Mark { n: 1_000_700, exits: 12, virtual_ns: 5_000_000 };
    log.extend_from_slice(writer.close(&end).unwrap());
    log.extend_from_slice(writer.end(&end));
    log
}

#[test]
fn the_specification_has_the_example_right() {
    let text = include_str!("../../../docs/log-format.md");
    let fenced = text.split("```").skip(1).step_by(2).find_map(|block| block.strip_prefix("hex\n"));
    let digits = |line: &str| line.split("  ").next().unwrap_or_default().replace(' ', "");
    let written: String = fenced.expect("a block of hex").lines().map(digits).collect();
    let bytes: String = example().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(written, bytes);
    Log::open(&example()).unwrap();
}

#[test]
fn the_specification_names_all_numbers() {
    let text = include_str!("../../../docs/log-format.md");
    for (name, value) in
        [("bytes of a body", 32 * 1024), ("modules", MODULES_MAX), ("bytes before the first block", PREAMBLE)]
    {
        assert!(text.contains(&value.to_string()), "{name}: {value}");
    }
    for kind in 1..=4 {
        assert!(text.contains(&format!("| {kind} |")) && Kind::of(kind).is_some());
    }
    assert!(Kind::of(5).is_none() && Kind::of(0).is_none());
    assert!(text.contains(&format!("`{START:02x}`")));
}
