//! Guests that try to execute differently the second time, recorded on one host and replayed on others: with another skid, other
//! speculation, other timers and interrupts of the host's own.

use std::path::Path;

use ::replay::log::entry::Place;
use ::replay::log::open::Log;
use machine_tests::{Host, Knobs, LIMIT, Outside, kernel, test_name};
use vm_config::Paging;
use xtask::diverging::{self, Diverging, alone};
use xtask::log::item::items;
use xtask::replaying::recording::Session;
use xtask::replaying::{Kind, RecordOptions, Recording, ReplayOptions, Verdict, lines, record, replay};
use xtask::vm::Description;
use xtask::vm::host::Console;

/// Milliseconds of guest time between checkpoints: some in each run, which is about a second.
const CHECKPOINT: u32 = 200;

/// What a host does that the guest must not see: skid, speculation, the seed of what the kernel does differently.
#[derive(Clone, Copy, Debug, Default)]
struct Conditions {
    skid: Option<&'static str>,
    tlb: Option<&'static str>,
    variation: Option<u64>,
}

/// The hosts that replay.
const HOSTS: [Conditions; 3] = [
    Conditions { skid: None, tlb: None, variation: None },
    Conditions { skid: Some("5:40:11"), tlb: Some("3:1000:1000"), variation: Some(1) },
    Conditions { skid: Some("64:128:12"), tlb: Some("4:3000:3000"), variation: Some(2) },
];
/// The host that records.
const RECORDS: Conditions = Conditions { skid: Some("5:40:1"), tlb: Some("9:1000:1000"), variation: None };

/// The `number`th host of the running test.
fn host(conditions: Conditions, number: usize, outside: Outside) -> Host {
    let knobs = Knobs {
        skid: conditions.skid.map(String::from),
        tlb: conditions.tlb.map(String::from),
        ..Knobs::default()
    };
    let host = Host::new(&format!("{}.{number}", test_name()), kernel());
    Host { knobs, outside, limit: LIMIT, ..host }
}

/// Records the guest; its every check must have passed.
fn recorded(guest: Diverging, paging: Paging) -> Recording {
    let description = guest.describe("").unwrap_or_else(|error| panic!("{error:#}"));
    let vm =
        Description { follows_host: true, ..description }.vm().unwrap_or_else(|error| panic!("{error:#}"));
    let dir = xtask::paths::fresh_out_dir(&format!("replay/{}", test_name())).unwrap();
    let outside = if guest.network { Outside::world(1) } else { Outside::Nothing };
    let options = RecordOptions {
        paging: Some(paging),
        checkpoint: Some(CHECKPOINT),
        variation: RECORDS.variation,
        ..RecordOptions::new(host(RECORDS, 0, outside), dir.join("run.log"))
    };
    let recording = record(&vm, &options).unwrap_or_else(|error| panic!("{error:#}"));
    recording.check().unwrap_or_else(|error| panic!("{error:#}"));
    let console = &recording.outcome.console;
    assert!(
        console.contains("verdict=pass") && !console.contains("verdict=fail"),
        "{}",
        recording.outcome.last_words()
    );
    recording
}

fn replayed(log: &Path, conditions: Conditions, number: usize) -> Verdict {
    let host = host(conditions, number, Outside::Nothing);
    let options = ReplayOptions { variation: conditions.variation, ..ReplayOptions::new(host) };
    replay(log, &options).unwrap_or_else(|error| panic!("{conditions:?}: {error:#}"))
}

/// Records the guest and replays it on all hosts: the same at every checkpoint, the same fingerprint, the same console.
fn holds(guest: Diverging) -> Recording {
    let recording = recorded(guest, Paging::Strict);
    let recorded = said(&recording.outcome.console);
    assert!(recorded.contains("FINGERPRINT"), "{}", recording.outcome.last_words());
    for (number, conditions) in (1..).zip(HOSTS) {
        let verdict = replayed(&recording.log, conditions, number);
        verdict.check().unwrap_or_else(|error| panic!("{conditions:?}: {error:#}"));
        assert_eq!(said(&verdict.outcome.console), recorded, "{conditions:?}");
        assert!(verdict.checkpoints > 0 && verdict.landings > 0, "{conditions:?}: {}", verdict.sentence());
        assert_eq!(Some(verdict.instructions), recording.number("instructions"), "{conditions:?}");
    }
    recording
}

/// A test of a whole program, all its parts one after another, with so many rounds of each.
macro_rules! programs {
    ($($test:ident: $program:literal, $rounds:literal;)*) => {
        $(
            #[test]
            fn $test() {
                holds(alone($program, $program, concat!("rounds=", $rounds)));
            }
        )*
    };
}

programs! {
    loops_that_say_nothing: "replay_loops", 2;
    strings_and_their_faults: "replay_strings", 2;
    flags_windows_and_nested_faults: "replay_flags", 2;
    a_guest_that_debugs_itself: "replay_debug", 2;
    code_that_changes_and_vectors: "replay_code", 3;
    devices_by_polling: "replay_devices", 6;
    tasks_by_the_timer: "replay_tasks", 2;
}

#[test]
fn frames_of_the_world_outside() {
    holds(diverging::find("frames").expect("it is in the list"));
}

/// Iterations of the first long string of `replay_strings`.
const LONG_STRING: u64 = 250_000_000;

/// What comes in waits a millisecond for the end of a REP. What then cuts one is landed on, however many iterations were executed before.
#[test]
fn keys_deep_in_a_long_string() {
    let guest = alone("long", "replay_strings", "part=long");
    let description = guest.describe("").unwrap();
    let vm = Description { follows_host: true, ..description }.vm().unwrap();
    let dir = xtask::paths::fresh_out_dir(&format!("replay/{}", test_name())).unwrap();
    // A second of fifty million iterations, and somebody who types.
    let host = Host { ips: 50_000_000, console: Console::Typed, ..host(RECORDS, 0, Outside::Nothing) };
    let options =
        RecordOptions { paging: Some(Paging::Strict), ..RecordOptions::new(host, dir.join("run.log")) };
    let mut session = Session::start(&vm, &options).unwrap();
    assert!(session.started.running.wait_for("iterations begin").unwrap());
    session.started.running.send("x").unwrap();
    let recording = session.finish().unwrap();
    recording.check().unwrap_or_else(|error| panic!("{error:#}"));
    let cut = first_cut(&recording.log).expect("the key came before or behind the string");
    assert!((1..LONG_STRING).contains(&cut), "{cut} iterations were left");
    for (number, conditions) in (1..).zip([HOSTS[0], HOSTS[2]]) {
        let verdict = replayed(&recording.log, conditions, number);
        verdict.check().unwrap_or_else(|error| panic!("{conditions:?}: {error:#}"));
        assert_eq!(Some(verdict.instructions), recording.number("instructions"), "{conditions:?}");
    }
}

/// REPs of a million iterations, one after the other, which everything that comes cuts: a landing costs what the margin does, and
/// nothing for the iterations.
#[test]
fn strings_that_everything_cuts() {
    let recording = recorded(diverging::find("long-strings").expect("it is in the list"), Paging::Strict);
    assert!(first_cut(&recording.log).is_some(), "nothing came in the midst of one");
    for (number, conditions) in (1..).zip([HOSTS[1], HOSTS[2]]) {
        let verdict = replayed(&recording.log, conditions, number);
        verdict.check().unwrap_or_else(|error| panic!("{conditions:?}: {error:#}"));
        assert_eq!(Some(verdict.instructions), recording.number("instructions"), "{conditions:?}");
        assert!(verdict.landings > 0 && verdict.landing_max < 1000, "{conditions:?}: {}", verdict.sentence());
    }
}

/// What RCX is at the first entry of a log in the midst of a REP.
fn first_cut(log: &Path) -> Option<u64> {
    let bytes = std::fs::read(log).unwrap();
    let log = Log::open(&bytes).unwrap();
    items(&log).find_map(|item| match item.entry.place {
        Place::Between { point, repeating: true, .. } => Some(point.rcx),
        _ => None,
    })
}

/// All that the guest has said, its fingerprint among it.
fn said(console: &str) -> String {
    lines::squeezed(&lines::guest_console(console))
}

/// In strict mode nothing that is cached shows: bits are as if there were no TLB, and every host agrees.
#[test]
fn strict_mode_hides_what_is_cached() {
    let recording = holds(alone("replay_paging", "replay_paging", "rounds=6"));
    let said = said(&recording.outcome.console);
    assert!(said.contains("@@cachedspurious=0stale=0@@done"), "{said}");
}

/// In fast mode it shows, and the replay on a host that has cached other things is seen to be another execution.
#[test]
fn fast_mode_is_seen_to_diverge() {
    let guest = diverging::find("bits").expect("it is in the list");
    let recording = recorded(guest, Paging::Fast);
    let said = said(&recording.outcome.console);
    assert!(said.contains("@@cachedspurious=0stale=") && !said.contains("stale=0@@"), "{said}");
    let verdict = replayed(&recording.log, HOSTS[2], 1);
    assert_eq!(verdict.kind, Kind::Diverged, "{}\n{}", verdict.sentence(), verdict.outcome.last_words());
    assert!(!verdict.explanation.is_empty());
}
