//! Replays that do not come to the log's end: a bit flipped on purpose is found and named, and what stands still can be looked
//! into; a replay stops where it is told, and goes back to a checkpoint.

use std::path::Path;

use machine_tests::{Host, Knobs, LIMIT, kernel, test_name};
use vm_config::Paging;
use xtask::diverging::alone;
use xtask::replaying::points::{Plant, Restore, Until};
use xtask::replaying::{
    Kind, RecordOptions, Recording, ReplayOptions, Verdict, inspect, lines, record, replay,
};
use xtask::vm::Description;

/// What the operator asks of a virtual machine that stands still.
const QUESTIONS: &str = "regs; disasm; mem 0x100000 32; log 3";

/// Milliseconds of guest time between checkpoints.
const CHECKPOINT: u32 = 40;

/// A bit of a page that the guest uses for nothing.
const UNUSED: &str = "memory:0x1a00123:3@2";

/// The `number`th host of the running test.
fn host(number: usize, skid: Option<&str>) -> Host {
    let knobs = Knobs { skid: skid.map(String::from), ..Knobs::default() };
    Host { knobs, limit: LIMIT, ..Host::new(&format!("{}.{number}", test_name()), kernel()) }
}

/// Records a guest with tasks, timers and checkpoints.
fn recorded() -> Recording {
    let description = alone("tasks", "replay_tasks", "rounds=2").describe("").unwrap();
    let vm = Description { follows_host: true, ..description }.vm().unwrap();
    let dir = xtask::paths::fresh_out_dir(&format!("replay/{}", test_name())).unwrap();
    let options = RecordOptions {
        paging: Some(Paging::Strict),
        checkpoint: Some(CHECKPOINT),
        ..RecordOptions::new(host(0, Some("5:40:1")), dir.join("run.log"))
    };
    let recording = record(&vm, &options).unwrap_or_else(|error| panic!("{error:#}"));
    recording.check().unwrap_or_else(|error| panic!("{error:#}"));
    recording
}

/// Replays on a host that is late with its overflow interrupts and interrupts the guest for nothing.
fn replayed(log: &Path, number: usize, change: impl FnOnce(&mut ReplayOptions)) -> Verdict {
    let mut options = ReplayOptions {
        variation: Some(number as u64),
        ..ReplayOptions::new(host(number, Some("64:128:12")))
    };
    change(&mut options);
    replay(log, &options).unwrap_or_else(|error| panic!("{options:?}: {error:#}"))
}

/// Each question has been answered.
fn answered(verdict: &Verdict) {
    let wanted = inspect::commands(QUESTIONS);
    let asked: Vec<_> = verdict.inspected.iter().map(|answer| answer.command.clone()).collect();
    assert_eq!(asked, wanted);
    let text = |number: usize| verdict.inspected[number].lines.join("\n");
    assert!(text(0).contains("rip") && text(0).contains("rflags"), "{}", text(0));
    assert!(text(1).lines().count() > 1, "{}", text(1));
    assert!(text(2).contains("100000"), "{}", text(2));
    assert!(text(3).contains("after synchronous exit"), "{}", text(3));
}

#[test]
fn a_flipped_bit_is_found_and_named() {
    let recording = recorded();
    // What is changed, and by which word it must be named. Without its stack the guest ends, which is told with its place.
    let plants = [
        (UNUSED, "0x1a00"),
        ("register:cr2:7@2", "cr2"),
        ("register:rsp:4@2", "rip 0x"),
        ("device:rtc:5@2", "rtc"),
    ];
    for (number, (plant, named)) in (1..).zip(plants) {
        let verdict = replayed(&recording.log, number, |options| {
            options.plant = Some(Plant::parse(plant).unwrap());
            options.inspect = inspect::commands(QUESTIONS);
        });
        let last = verdict.outcome.last_words();
        assert_eq!((&verdict.kind, verdict.planted), (&Kind::Diverged, Some(true)), "{plant}: {last}");
        assert!(verdict.checkpoints >= 2, "{plant}: {last}");
        let explanation = verdict.explanation.join("\n").to_lowercase();
        assert!(explanation.contains(named), "{plant}: {explanation}\n{last}");
        answered(&verdict);
    }
}

#[test]
fn a_replay_stops_where_it_is_told() {
    let recording = recorded();
    let entries = recording.number("entries").unwrap();
    let instructions = recording.number("instructions").unwrap();
    for (number, until) in (1..).zip([
        Until::Entry(entries / 2),
        Until::Exit(20),
        Until::Instructions(instructions / 2),
        Until::Checkpoint(2),
    ]) {
        let verdict = replayed(&recording.log, number, |options| {
            options.until = Some(until);
            options.inspect = inspect::commands(QUESTIONS);
        });
        assert_eq!(verdict.kind, Kind::Stopped, "{until}: {}", verdict.outcome.last_words());
        let there = match until {
            Until::Entry(at) => verdict.entries == at + 1,
            Until::Exit(at) => verdict.exits == at,
            Until::Instructions(at) => (at..instructions).contains(&verdict.instructions),
            Until::Checkpoint(at) => verdict.checkpoints == at,
        };
        assert!(there, "{until}: {}", verdict.sentence());
        answered(&verdict);
    }
}

#[test]
fn a_replay_goes_back_to_a_checkpoint() {
    let recording = recorded();
    let straight = replayed(&recording.log, 1, |_| ());
    straight.check().unwrap_or_else(|error| panic!("{error:#}"));
    let back = replayed(&recording.log, 2, |options| options.restore = Some(Restore::parse("1:3").unwrap()));
    back.check().unwrap_or_else(|error| panic!("{error:#}"));
    let met = |verdict: &Verdict| -> Vec<u64> {
        let all =
            lines::of(&verdict.outcome.console, "replay").filter(|fields| fields.event() == "checkpoint");
        all.filter_map(|fields| fields.number("number")).collect()
    };
    assert_eq!(met(&straight), (1..=straight.checkpoints).collect::<Vec<_>>());
    assert_eq!(met(&back), (1..=3).chain(2..=straight.checkpoints).collect::<Vec<_>>());
    assert_eq!((back.instructions, back.entries), (straight.instructions, straight.entries));
}
