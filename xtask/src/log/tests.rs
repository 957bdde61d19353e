//! Tests of how logs are shown, on small ones made here.

use std::path::Path;

use replay::check::Check;
use replay::log::codec::Mark;
use replay::log::entry::{Correction, Entry, Event, Place};
use replay::log::header::{Header, Module};
use replay::log::open::Log;
use replay::log::writer::{BUFFER, Writer, note};
use replay::point::Point;

use super::diff::Difference;
use super::dump::{Style, dump};
use super::select::{At, Selection, kind};
use super::stat::Stat;
use super::{advice, item};

const FRAME: [u8; 60] = {
    let mut frame = [0; 60];
    (frame[0], frame[6], frame[12], frame[13]) = (0x52, 0x54, 8, 0);
    frame
};

fn header() -> Header<'static> {
    let mut header = Header { kernel: "lockstep 0.1.0", config: "[vm]\nname = \"x\"\n", ..Header::default() };
    header.modules.push(Module::of("vmlinuz", b"kernel")).unwrap();
    header
}

fn entries() -> Vec<Entry<'static>> {
    let look = Event::Look(Some(Correction { rate: 3 << 31, step: 7 }));
    let between =
        |n, rip| Place::Between { point: Point { n, rip, rcx: 0 }, repeating: false, breakpoint: true };
    let at = |place, hash, event| Entry {
        place,
        check: (hash != 0).then_some(Check { hash, sums: [1, 2] }),
        event,
    };
    vec![
        at(Place::Exit(2), 0xAB, Event::Console(b"ls\n")),
        at(between(5000, 0xFFFF_FFFF_8100_0000), 0, Event::Look(None)),
        at(between(5000, 0xFFFF_FFFF_8100_0000), 0, look),
        at(Place::Halted(9), 1, Event::WakeAfterDue(0)),
        at(Place::Halted(9), 1, Event::Frame { device: 0, frame: (&FRAME).into() }),
        at(Place::Exit(12), 2, Event::End("power-off")),
    ]
}

fn log_of(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut writer = Writer::new(vec![0; BUFFER]).unwrap();
    let mut log = writer.begin(&header()).unwrap().to_vec();
    for (index, entry) in entries.iter().enumerate() {
        if index == 3 {
            log.extend_from_slice(writer.close(&Mark { n: 6000, exits: 8, virtual_ns: 1_000_000 }).unwrap());
        }
        writer.entry(entry).unwrap();
    }
    let end = Mark { n: 10_000, exits: 12, virtual_ns: 2_000_000 };
    log.extend_from_slice(writer.close(&end).unwrap());
    log.extend_from_slice(writer.end(&end));
    log
}

fn shown(bytes: &[u8], selection: &Selection, style: Style) -> String {
    let mut out = Vec::new();
    dump(&Log::open(bytes).unwrap(), selection, style, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn every_entry_is_shown() {
    let bytes = log_of(&entries());
    let text = shown(&bytes, &Selection::default(), Style { config: true, hex: true, ..Style::default() });
    for part in [
        "lockstep 0.1.0",
        "vmlinuz 6 bytes",
        "name = \"x\"",
        "exit 2 check ab.0102",
        "console 3 bytes \"ls\\n\"",
        "n 5000 rip ffffffff81000000",
        "look, rate 1.500000 ns, step 7 ns",
        "halted 9 check 01.0102",
        "wake when due",
        "frame net0 60 bytes 54:00:00:00:00:00 > 52:00:00:00:00:00 IPv4",
        "end: power-off",
        "-- block 2, from 1.000 ms of guest time on",
        "-- the end: n 10000, exit 12, 2.000 ms",
        "0030  00000000",
    ] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
}

#[test]
fn json_has_an_object_for_each_entry() {
    let bytes = log_of(&entries());
    let text = shown(&bytes, &Selection::default(), Style { json: true, ..Style::default() });
    let objects: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects.len(), 8);
    assert_eq!(objects[0]["header"]["modules"][0]["name"], "vmlinuz");
    assert_eq!((&objects[1]["kind"], &objects[1]["exit"]), (&"console".into(), &2.into()));
    assert_eq!((&objects[2]["n"], &objects[2]["rip"]), (&5000.into(), &"0xffffffff81000000".into()));
    assert_eq!(objects[7]["end"]["virtual_ns"], 2_000_000);
    let log = Log::open(&bytes).unwrap();
    let sum: u64 = objects[1..7].iter().map(|object| object["bytes"].as_u64().unwrap()).sum();
    assert_eq!(sum, Stat::of(&log).all.bytes);
}

#[test]
fn a_part_can_be_chosen() {
    let bytes = log_of(&entries());
    let log = Log::open(&bytes).unwrap();
    let numbers = |from, to, kinds: &[&str]| {
        let at = |text: &str| (!text.is_empty()).then(|| At::parse(text).unwrap());
        let kinds = kinds.iter().map(|name| kind(name).unwrap()).collect();
        let selection = Selection { from: at(from), to: at(to), kinds };
        item::items(&log).filter(|item| selection.has(item)).map(|item| item.number).collect::<Vec<_>>()
    };
    assert_eq!(numbers("", "", &[]), [0, 1, 2, 3, 4, 5]);
    assert_eq!(numbers("2", "entry:3", &[]), [2, 3]);
    assert_eq!(numbers("exit:9", "exit:9", &[]), [3, 4]);
    assert_eq!(numbers("n:5_000", "n:5000", &[]), [1, 2]);
    assert_eq!(numbers("", "", &["frame", "end"]), [4, 5]);
    assert!(At::parse("page:1").is_err() && At::parse("n:x").is_err() && kind("letter").is_err());
}

#[test]
fn the_first_difference_is_found() {
    let one = log_of(&entries());
    let mut changed = entries();
    changed[4].event = Event::Frame { device: 1, frame: (&FRAME).into() };
    let other = log_of(&changed);
    let (one, other) = (Log::open(&one).unwrap(), Log::open(&other).unwrap());
    assert!(Difference::between(&one, &one, 3).is_none());
    let difference = Difference::between(&one, &other, 2);
    assert_eq!(difference.number(), 4);
    assert_eq!(difference.before.iter().map(|item| item.number).collect::<Vec<_>>(), [2, 3]);
    let mut out = Vec::new();
    difference.write(["one.log", "other.log"], &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("entry 4") && text.contains("frame net0") && text.contains("frame net1"), "{text}");
    assert_eq!(difference.object()["entry"], 4);
}

#[test]
fn the_shorter_log_is_told() {
    let all = entries();
    let (one, other) = (log_of(&all[..5]), log_of(&all));
    let (one, other) = (Log::open(&one).unwrap(), Log::open(&other).unwrap());
    let difference = Difference::between(&one, &other, 3);
    assert_eq!((difference.number(), difference.behind[0].len(), difference.behind[1].len()), (5, 0, 1));
    let mut out = Vec::new();
    difference.write(["one.log", "other.log"], &mut out).unwrap();
    assert!(String::from_utf8(out).unwrap().contains("ends before"));
}

#[test]
fn numbers_add_up() {
    let mut bytes = log_of(&entries());
    let blocks = Log::open(&bytes).unwrap().blocks();
    let mut buffer = [0; 64];
    let length = note(blocks, "hello", &mut buffer).unwrap();
    bytes.extend_from_slice(&buffer[..length]);
    let stat = Stat::of(&Log::open(&bytes).unwrap());
    assert_eq!((stat.all.entries, stat.blocks, stat.notes), (6, 2, length as u64));
    assert_eq!(stat.kinds.iter().map(|(_, sum)| sum.entries).sum::<u64>(), 6);
    assert_eq!(stat.places.iter().map(|(_, sum)| sum.bytes).sum::<u64>(), stat.all.bytes);
    assert_eq!(stat.all.payload, 3 + 60);
    assert_eq!((stat.ticks.entries, stat.complete), (1, true));
    assert_eq!(stat.header + stat.notes + stat.all.bytes + stat.framing(), bytes.len() as u64);
    assert!((stat.per_kilo_instruction() - stat.stream() as f64 / 10.0).abs() < 1e-9);
    assert!((stat.per_second() - stat.stream() as f64 / 0.002).abs() < 1e-6);
    let mut out = Vec::new();
    stat.write(&mut out).unwrap();
    assert!(String::from_utf8(out).unwrap().contains("10000 instructions, 12 synchronous exits, 2.000 ms"));
}

#[test]
fn every_error_says_what_to_do() {
    let bytes = log_of(&entries());
    let mut corrupt = bytes.clone();
    corrupt[40] ^= 1;
    let mut foreign = bytes.clone();
    foreign[8] = 99;
    let no_end = Log::open(&bytes).unwrap().walk().last().unwrap().at;
    for (bytes, words) in [
        (&b"GIF89a"[..], "record -o FILE"),
        (&corrupt, "corrupt at byte 10, block 0"),
        (&foreign, "version 99"),
        (&bytes[..bytes.len() - 1], "truncated"),
        (&bytes[..no_end], "cut off"),
    ] {
        let error = Log::open(bytes).unwrap_err();
        let text = advice::explain(Path::new("run.log"), &error).to_string();
        assert!(text.contains(words) && text.contains("run.log") && text.lines().count() == 2, "{text}");
    }
}
