//! A machine is a function of its image, its command line and its seeds.

use machine_tests::{Exit, Knobs, Machine, Outcome, expect, guest_machine};

fn run(program: &str, knobs: Knobs) -> Outcome {
    expect(&Machine { knobs, ..guest_machine(program, "") }, Exit::Success)
}

fn seed(seed: u64) -> Knobs {
    Knobs { seed: Some(seed), ..Knobs::default() }
}

fn every_knob(seed: u64) -> Knobs {
    let skid = Some(format!("5:40:{seed}"));
    Knobs { skid, tlb: Some(format!("{seed}:1000:1000")), seed: Some(seed), ..Knobs::default() }
}

/// The lines of the console from the loader on, and the tick of the end.
fn trace(outcome: &Outcome) -> (String, Option<u64>) {
    (outcome.console.clone(), outcome.ticks)
}

#[test]
fn equal_seeds_give_equal_runs_to_the_last_tick() {
    for knobs in [Knobs::default(), every_knob(1), every_knob(2)] {
        let (one, two) = (run("determinism", knobs.clone()), run("determinism", knobs));
        assert_eq!(one.facts("fact").count(), 5);
        assert!(one.ticks.is_some());
        assert_eq!(trace(&one), trace(&two));
    }
}

#[test]
fn different_seeds_give_different_runs() {
    let hashes: Vec<String> = [every_knob(1), every_knob(2), Knobs::default()]
        .into_iter()
        .map(|knobs| run("determinism", knobs).facts("fact").last().expect("a fact").to_owned())
        .collect();
    assert!(hashes[0] != hashes[1] && hashes[1] != hashes[2] && hashes[0] != hashes[2], "{hashes:?}");
}

#[test]
fn random_numbers_follow_the_seed() {
    let numbers =
        |value| -> Vec<String> { run("rdrand", seed(value)).facts("number").map(String::from).collect() };
    let (one, again, two) = (numbers(1), numbers(1), numbers(2));
    assert_eq!(one.len(), 32);
    assert_eq!(one, again);
    assert!(one.iter().zip(&two).all(|(a, b)| a != b), "seeds 1 and 2 share numbers");
}
