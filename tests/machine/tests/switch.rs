//! Two emulated machines on the lock-step network: all that happens is a function of the seed.

use machine_tests::LIMIT;
use xtask::report::Report;
use xtask::switch::pingpong::{Game, prove, prove_kill};

/// Enough for the pause and the partition of the game, which begin after some 0.3 s of play.
const FRAMES: u32 = 1_200;

#[test]
fn the_programs_are_there() {
    let programs = xtask::guests::programs().unwrap();
    assert!(["nic_ring", "pingpong"].iter().all(|name| programs.iter().any(|p| p == name)));
}

fn game(seed: u64) -> Game {
    Game { frames: FRAMES, limit: LIMIT, ..Game::new(seed) }
}

fn must<E: std::fmt::Display>(report: Result<Report, E>) {
    let report = report.unwrap_or_else(|error| panic!("{error:#}"));
    assert!(report.met(), "\n{}", report.table());
}

#[test]
fn ping_pong_over_a_bad_network_is_a_function_of_the_seed() {
    must(prove(&game(11)));
}

#[test]
fn a_machine_is_killed_at_an_exact_tick() {
    must(prove_kill(&game(12), 131_234_567));
}

#[test]
fn a_card_with_a_full_ring_holds_counts_and_goes_on() {
    if let Err(error) = xtask::switch::ring::prove("test", LIMIT) {
        panic!("{error:#}");
    }
}
