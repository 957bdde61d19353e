//! A slice of the campaign: pairs that die, hang and are cut off at moments that seeds draw. `cargo xtask pair-campaign` runs more.

use machine_tests::{Host, LIMIT, kernel, test_name};
use xtask::pairing::campaign::{Draw, Guest, judge};

/// Requests of the client in each run.
const REQUESTS: u32 = 40;
/// The seeds: the primary hangs while the guest boots; all of its cables are cut; it dies; the hosts are cut off from each other on
/// both networks; on the logging network; the backup dies.
const SEEDS: [u64; 6] = [2, 4, 7, 15, 17, 30];

#[test]
fn clients_notice_nothing_but_delay_whatever_befalls_a_pair() {
    for seed in SEEDS {
        let draw = Draw::of(seed, Guest::Counter, REQUESTS);
        let host = Host { limit: 2 * LIMIT, ..Host::new(&test_name(), kernel()) };
        if let Err(error) = judge(&draw, host, REQUESTS) {
            panic!("cargo xtask pair-campaign --seed {seed} --runs 1 --requests {REQUESTS}\n{error:#}");
        }
    }
}

#[test]
fn no_misfortune_is_in_the_slice_twice() {
    let kinds: std::collections::BTreeSet<String> = SEEDS
        .iter()
        .map(|seed| Draw::of(*seed, Guest::Counter, REQUESTS).incident.what.to_string())
        .collect();
    assert_eq!(kinds.len(), SEEDS.len(), "{kinds:?}");
}
