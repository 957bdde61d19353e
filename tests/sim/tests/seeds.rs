//! Seeds hold, and planted bugs are caught.

use std::sync::atomic::{AtomicBool, Ordering};

use sim::campaign::{Total, campaign};
use sim::mutant::Mutant;
use sim::world::{Memory, run, tell};

/// Threads of a campaign.
const THREADS: usize = 2;

fn silent(_: u64) {}

fn report(total: &Total) -> String {
    let commands: Vec<String> = total
        .failed
        .iter()
        .map(|failed| format!("cargo xtask sim --seed {}: {}", failed.seed, failed.what))
        .collect();
    commands.join("\n")
}

#[test]
fn ten_thousand_seeds_hold() {
    let total = campaign(0, 10_000, THREADS, None, &silent, &|_| ());
    println!("{:?} in {:?}", total.facts, total.time);
    assert!(total.failed.is_empty(), "{}", report(&total));
    assert_eq!(total.seeds, 10_000);
    // It is no world in which nothing happens.
    let facts = total.facts;
    for (name, count, least) in [
        ("paired", facts.paired, 9000),
        ("takeovers", facts.takeovers, 2000),
        ("alone", facts.alone, 2000),
        ("lost", facts.lost, 1000),
        ("ended", facts.ended, 200),
        ("protected", facts.protected, 3000),
        ("doubled", facts.doubled, 1000),
        ("strikes", facts.strikes, 500),
        ("pauses", facts.pauses, 1500),
        ("full", facts.full, 500),
    ] {
        assert!(count >= least, "{name}: {count}");
    }
}

#[test]
fn seeds_that_once_failed_hold() {
    let mut memory = Memory::new();
    let seeds = include_str!("../regress-seeds.txt");
    let mut count = 0;
    for line in seeds.lines().map(|line| line.split('#').next().unwrap_or_default().trim()) {
        let Ok(seed) = line.parse() else {
            assert!(line.is_empty(), "`{line}` is no seed");
            continue;
        };
        if let Err(what) = run(&mut memory, seed, None) {
            panic!("cargo xtask sim --seed {seed}: {what}");
        }
        count += 1;
    }
    assert!(count > 0, "no seeds are listed");
}

#[test]
fn every_planted_bug_is_caught_within_a_thousand_seeds() {
    for mutant in Mutant::ALL {
        let total = campaign(0, 1000, THREADS, Some(mutant), &silent, &|_| ());
        let name = mutant.name();
        assert!(!total.failed.is_empty(), "{name} is not caught");
        println!("{name}: first at seed {}: {}", total.failed[0].seed, total.failed[0].what);
        assert_eq!(Mutant::named(name), Some(mutant));
    }
}

#[test]
fn a_seed_is_one_world() {
    let mut memory = Memory::new();
    for seed in 0..50 {
        let (story, result) = tell(&mut memory, seed, None);
        let (again, same) = tell(&mut Memory::new(), seed, None);
        assert_eq!((&story, &result), (&again, &same), "seed {seed}");
        assert_eq!(run(&mut memory, seed, None), result, "seed {seed}: told or not");
        assert!(story.len() > 10, "seed {seed}: {story:?}");
    }
}

#[test]
fn progress_is_told() {
    let told = AtomicBool::new(false);
    let total = campaign(5, 40, 1, None, &|done| told.store(done == 40, Ordering::Relaxed), &|_| ());
    assert!(told.load(Ordering::Relaxed) && total.seeds == 40);
}
