//! Recorder, log and replayer with a toy machine: whatever comes in wherever, the replay is the recorded execution, on hosts
//! that differ in everything that is theirs; and what is not the recorded execution is noticed.
//!
//! Every case is one seed. `LOCKSTEP_TOY_SEED=N` runs that one alone, `LOCKSTEP_TOY_SEEDS=N` so many.

use std::collections::BTreeMap;

use replay::check::Check;
use replay::log::entry::{Entry, Event, Place};
use replay::log::error::Error;
use replay::log::open::Log;
use replay::replayer::Source;
use replay::seed::Seed;

use toy::cpu::Silicon;
use toy::lead::{BETWEEN, KINDS, Recording, record};
use toy::program::{Program, WORDS, WRITABLE};
use toy::track::{Cost, Failed, Plant, Track};

const SKIDS: [(u64, u64); 3] = [(0, 0), (5, 40), (64, 128)];

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// The seeds of a test.
fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let one = variable("LOCKSTEP_TOY_SEED");
    let count = variable("LOCKSTEP_TOY_SEEDS").unwrap_or(count);
    (0..count).filter(move |seed| one.is_none_or(|one| one == *seed)).chain(one.filter(|one| *one >= count))
}

const fn honest(skid: (u64, u64)) -> Silicon {
    Silicon { skid, overcounts: 0 }
}

/// The program and the recording that a seed names.
fn recording(seed: u64) -> (Program, Recording) {
    let program = Program::random(&mut Seed::new(seed));
    let recording = record(&program, honest(SKIDS[0]), seed ^ 0xA5A5_0000_0000);
    (program, recording)
}

fn replay(program: &Program, recording: &Recording, silicon: Silicon, host: u64) -> Result<Cost, Failed> {
    let log = Log::open(&recording.log).expect("a sound log");
    Track::new(program, silicon, host, log.read(), &recording.digests).run()
}

#[test]
fn every_replay_is_the_recorded_execution() {
    let mut met = BTreeMap::<_, u64>::new();
    let mut cost = Cost::default();
    let (mut instructions, mut all) = (0, 0);
    for seed in seeds(1000) {
        let (program, recording) = recording(seed);
        for (index, skid) in SKIDS.into_iter().enumerate() {
            match replay(&program, &recording, honest(skid), seed * 3 + index as u64) {
                Ok(one) => {
                    cost.landings += one.landings;
                    cost.exits += one.exits;
                    cost.most = cost.most.max(one.most);
                    cost.sent += one.sent;
                    assert_eq!(one.sent, recording.sent.len() as u64, "LOCKSTEP_TOY_SEED={seed}");
                }
                Err(failed) => panic!("LOCKSTEP_TOY_SEED={seed}, skid {skid:?}: {failed:?}"),
            }
        }
        for (what, count) in recording.met {
            *met.entry(what).or_default() += count;
        }
        instructions += recording.instructions;
        all += 1;
    }
    println!("{all} recordings, {instructions} instructions, {cost:?}");
    println!("{met:#?}");
    if all < 1000 {
        return;
    }
    // Every kind at every kind of point.
    for kind in KINDS {
        for place in BETWEEN.into_iter().chain(["exit"]) {
            // What is due at an exit is done there without an entry.
            let never = (kind, place) == ("look", "exit");
            assert!(met.contains_key(&(kind, place)) != never, "{kind} {place}");
        }
    }
    assert!(met.contains_key(&("output", "exit")), "nothing was sent");
    for kind in ["wake", "wake-after-due", "console", "frame", "power-button"] {
        assert!(met.contains_key(&(kind, "halted")), "no {kind} in HLT");
    }
    assert!(met.keys().any(|(kind, place)| *kind == "reset" && *place != "exit"));
}

#[test]
fn a_replay_can_go_back() {
    for seed in seeds(200) {
        let (program, recording) = recording(seed);
        let log = Log::open(&recording.log).expect("a sound log");
        let mut track = Track::new(&program, honest(SKIDS[1]), seed, log.read(), &recording.digests);
        let mut rng = Seed::new(seed ^ 55);
        // Positions anywhere, also on the way to a point.
        while track.enter_up_to(rng.between(1, 2000)).is_none() {
            let mut back = track.clone();
            if rng.one_in(4) {
                back.vary(rng.next());
                let result = back.run();
                assert!(result.is_ok(), "LOCKSTEP_TOY_SEED={seed}: from a position: {result:?}");
            }
        }
    }
}

#[test]
fn flipped_bits_are_noticed() {
    for seed in seeds(300) {
        let (program, recording) = recording(seed);
        let mut rng = Seed::new(seed ^ 77);
        let bit = rng.below(64) as u32;
        // A word that nobody writes.
        let word = rng.between(WRITABLE, WORDS - 1) as usize;
        for plant in
            [Plant::Register(rng.below(16) as usize, bit), Plant::Memory(word, bit), Plant::Device(bit)]
        {
            let log = Log::open(&recording.log).expect("a sound log");
            let mut track = Track::new(&program, honest(SKIDS[1]), seed, log.read(), &[]);
            track.plant(rng.between(1, 95), plant);
            let result = track.run();
            assert!(result.is_err(), "LOCKSTEP_TOY_SEED={seed}: {plant:?} was not noticed");
        }
    }
}

/// A log of which one entry is another, or is missing.
#[derive(Clone)]
struct Changed<'l> {
    entries: std::vec::IntoIter<Entry<'l>>,
}

impl<'l> Source<'l> for Changed<'l> {
    type Error = Error;

    fn next(&mut self) -> Result<Option<Entry<'l>>, Error> {
        Ok(self.entries.next())
    }
}

#[test]
fn changed_entries_are_noticed() {
    let mut kinds = [0; 4];
    for seed in seeds(300) {
        let (program, recording) = recording(seed);
        let log = Log::open(&recording.log).expect("a sound log");
        let entries: Vec<_> = log.read().collect();
        let mut rng = Seed::new(seed ^ 99);
        let others = [[0x5A; 64], [0xA5; 64]];
        for _ in 0..4 {
            let mut changed = entries.clone();
            let at = rng.below(entries.len() as u64 - 1) as usize;
            let entry = &mut changed[at];
            let kind = match (&mut entry.place, &mut entry.event) {
                (_, Event::Frame { frame, .. }) if !frame.is_empty() && rng.one_in(2) => {
                    let first = frame.parts().concat()[0];
                    *frame = others[usize::from(first == 0x5A)][..frame.len()].into();
                    0
                }
                // A RIP that is not there.
                (Place::Between { point, .. }, _) if rng.one_in(2) => {
                    point.rip ^= 2;
                    1
                }
                (Place::Exit(_) | Place::Halted(_), _) if rng.one_in(2) => {
                    let mut bytes = entry.check.unwrap().bytes();
                    bytes[rng.below(3) as usize] ^= 1 << rng.below(8);
                    entry.check = Some(Check::from_bytes(bytes));
                    2
                }
                // A correction that is left out can be made good by the next; bytes cannot.
                (_, Event::Frame { .. } | Event::Console(_) | Event::SideConsole(_)) => {
                    changed.remove(at);
                    3
                }
                _ => continue,
            };
            kinds[kind] += 1;
            let source = Changed { entries: changed.into_iter() };
            let result = Track::new(&program, honest(SKIDS[0]), seed, source, &[]).run();
            assert!(
                result.is_err(),
                "LOCKSTEP_TOY_SEED={seed}: entry {at}, changed by {kind}, was not noticed"
            );
        }
    }
    assert!(variable("LOCKSTEP_TOY_SEED").is_some() || kinds.iter().all(|count| *count > 20), "{kinds:?}");
}

#[test]
fn a_processor_that_counts_wrongly_is_noticed() {
    let mut wrong = 0;
    for seed in seeds(100) {
        let (program, recording) = recording(seed);
        let silicon = Silicon { overcounts: 4, ..honest(SKIDS[1]) };
        wrong += u64::from(replay(&program, &recording, silicon, seed).is_err());
    }
    assert!(
        variable("LOCKSTEP_TOY_SEED").is_some() || wrong == variable("LOCKSTEP_TOY_SEEDS").unwrap_or(100),
        "{wrong}"
    );
}

#[test]
fn a_log_that_was_cut_is_replayed_as_far_as_it_goes() {
    for seed in seeds(100) {
        let (program, recording) = recording(seed);
        let cut = recording.log.len() - 1 - Seed::new(seed).below(recording.log.len() as u64 / 2) as usize;
        let Ok((log, wrong)) = Log::salvage(&recording.log[..cut]) else { continue };
        assert!(wrong.is_some());
        let result = Track::new(&program, honest(SKIDS[2]), seed, log.read(), &recording.digests).run();
        // The end may have been in the last whole block.
        assert!(
            matches!(result, Err(Failed::Exhausted) | Ok(_)),
            "LOCKSTEP_TOY_SEED={seed}, cut at {cut}: {result:?}"
        );
    }
}
