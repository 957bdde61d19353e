//! A slice of `cargo xtask chaos-guest`: a hostile guest, and a hypervisor whose shell answers all the time.

use std::time::Duration;

use machine_tests::{kernel, test_name};
use xtask::verbs::chaos_guest::{Found, Plan, campaign};

fn slice(seed: u64, episodes: u64, theme: Option<&str>) -> Found {
    let plan = Plan {
        name: test_name(),
        kernel: kernel(),
        seed,
        episodes: 0..episodes,
        theme: theme.map(String::from),
        patience: Duration::from_secs(15),
        limit: machine_tests::LIMIT,
    };
    let found = campaign(&plan).unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(found.failure, None, "to repeat it: {:?}", found.repeat);
    assert_eq!(found.episodes, episodes);
    found
}

#[test]
fn the_hypervisor_outlives_a_hostile_guest() {
    slice(1, 90, None);
}

#[test]
fn bad_rings_stop_nobody() {
    // What a driver does to its own queues never ends its machine: a program that its own device was made to write over may switch itself
    // off, and nothing else happens.
    let mut stops = slice(2, 60, Some("rings")).stops;
    stops.remove("power-off");
    assert!(stops.is_empty(), "{stops:?}");
}

#[test]
fn the_hostile_guest_is_one_of_the_programs() {
    assert!(xtask::guests::programs().unwrap().iter().any(|program| program == "chaos_guest"));
}
