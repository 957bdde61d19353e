//! A pair whose guest is Debian's Linux, and real clients on a third emulated machine: they notice nothing of the primary's death.

use std::net::Ipv4Addr;

use machine_tests::{Exit, Host, LIMIT, Machine, Payload, kernel, test_name};
use vm_config::HostName;
use xtask::pairing::incident::Incident;
use xtask::pairing::outside::{self, GUEST_WORDS};
use xtask::pairing::plan::{PairOptions, paired};
use xtask::pairing::run::{PairOutcome, run};

/// Instructions per emulated second: the fewer meetings with the network for the same work, the faster the test.
const IPS: u64 = 500_000_000;
/// Where the guest is.
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

fn must<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{error:#}"))
}

/// The primary dies when all clients are at work.
fn survives(guest: Payload, load: &str, n: u32) -> PairOutcome {
    let description = must(guest.describe(&format!("quiet wl={load} {GUEST_WORDS}")));
    let vm = must(xtask::vm::Description { networks: 1, ..description }.vm());
    let vm = must(paired(&vm, 1));
    let limit = 3 * LIMIT;
    let like = Machine { name: test_name(), ips: IPS, limit, ..Machine::default() };
    let outside = must(outside::client(guest, GUEST, n, &like));
    let host = Host { outside, limit, ips: IPS, ..Host::new(&test_name(), kernel()) };
    let incidents = vec![must(Incident::kill("a@note=load+100ms"))];
    let end = Some(120_000_000_000);
    let outcome = must(run(&vm, &PairOptions { incidents, end, ..PairOptions::new(host) }));
    must(outcome.check());
    must(outcome.check_outside());
    assert_eq!(outcome.history.alone(), [HostName::B], "{}", outcome.last_words());
    assert!(outcome.incidents[0].1.is_some(), "the primary has not died\n{}", outcome.last_words());
    must(outcome.hosts[1].expect(&Exit::Success));
    outcome
}

#[test]
fn redis_under_its_benchmark_survives_the_primary() {
    let outcome = survives(Payload::Redis, "redis", 200);
    for fact in ["counted=200 counter=200 visits=200 sets=20", "SET: ", "GET: ", "INCR: "] {
        assert!(outcome.told.iter().any(|line| line.starts_with(fact)), "no {fact} in {:#?}", outcome.told);
    }
}

#[test]
fn nginx_under_wrk_and_a_download_survive_the_primary() {
    let outcome = survives(Payload::Nginx, "nginx", 1);
    for fact in ["hash=", "wrong contents: 0", "Requests/sec:"] {
        assert!(outcome.told.iter().any(|line| line.starts_with(fact)), "no {fact} in {:#?}", outcome.told);
    }
}

#[test]
fn a_download_an_upload_and_a_session_by_ssh_survive_the_primary() {
    let outcome = survives(Payload::Ssh, "ssh", 150);
    for fact in ["hash=", "uploaded=", "tcp failed=0 reset=0"] {
        assert!(outcome.told.iter().any(|line| line.starts_with(fact)), "no {fact} in {:#?}", outcome.told);
    }
}
