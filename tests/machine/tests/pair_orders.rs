//! What an operator does to two hosts: an order on one of them happens to the virtual machine on both, and a pair that is started
//! again begins a new generation.

use std::sync::{Mutex, PoisonError};

use machine_tests::{Exit, Host, LIMIT, Payload, kernel, test_name};
use vm_config::HostName;
use xtask::pairing::incident::Incident;
use xtask::pairing::marks::Moment;
use xtask::pairing::plan::{PairOptions, paired};
use xtask::pairing::run::{PairOutcome, run};
use xtask::pairing::typed::Typed;
use xtask::switch::station::lock::LockFaults;
use xtask::switch::time::Ns;
use xtask::verbs::pair::consumed;
use xtask::vm::Description;

const SECOND: Ns = 1_000_000_000;
const A: HostName = HostName::A;
const B: HostName = HostName::B;

/// Runs the guest that counts, nobody counting, with these commands typed.
fn ordered(typed: &[&str], incidents: Vec<Incident>, until: &str) -> PairOutcome {
    started(typed, incidents, until, None)
}

/// The same, with an arbiter that knows of a generation that a host has consumed.
fn started(
    typed: &[&str],
    incidents: Vec<Incident>,
    until: &str,
    knows: Option<(HostName, u64)>,
) -> PairOutcome {
    // Two emulators at a time, not eight.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let guest = Payload::Counter.describe("quiet=1").unwrap_or_else(|error| panic!("{error:#}"));
    let vm = Description { networks: 1, ..guest }.vm().and_then(|vm| paired(&vm, 1));
    let host = Host { limit: 2 * LIMIT, ..Host::new(&test_name(), kernel()) };
    let vm = vm.unwrap_or_else(|error| panic!("{error:#}"));
    let arbiter = LockFaults { knows: knows.and_then(|known| consumed(known, &vm)), ..LockFaults::default() };
    let options = PairOptions {
        arbiter,
        typed: typed.iter().map(|text| Typed::parse(text).unwrap()).collect(),
        incidents,
        until: Some(Moment::parse(until).unwrap()),
        end: Some(60 * SECOND),
        ..PairOptions::new(host)
    };
    let outcome = run(&vm, &options).unwrap_or_else(|error| panic!("{error:#}"));
    outcome.check().unwrap_or_else(|error| panic!("{error:#}"));
    outcome
}

fn count(outcome: &PairOutcome, host: HostName, what: &str) -> usize {
    outcome.hosts[usize::from(host == B)].console.lines().filter(|line| line.contains(what)).count()
}

/// Reset twice, where the primary is and where the backup is; then killed at the backup, which is no failover.
#[test]
fn reset_and_kill_happen_on_both() {
    let typed = ["a:armed+1s:vm reset", "b:armed+2s:vm reset", "b:armed+3s:vm kill"];
    let outcome = ordered(&typed, Vec::new(), "armed+6s");
    for host in [A, B] {
        assert_eq!(count(&outcome, host, "vm event=reset"), 2, "{}", outcome.last_words());
        assert!(outcome.history.has(host, "ended"), "{}", outcome.last_words());
        outcome.hosts[usize::from(host == B)]
            .expect(&Exit::Success)
            .unwrap_or_else(|error| panic!("{error:#}"));
    }
    assert_eq!(count(&outcome, B, "verdict=equal"), 1, "{}", outcome.last_words());
    assert!(outcome.history.alone().is_empty(), "{}", outcome.last_words());
}

/// A guest that was paused stays so on the host that takes it over, for longer than any time-out, until it is told to go on.
#[test]
fn a_paused_guest_is_taken_over_as_it_is() {
    let typed = ["b:armed+500ms:vm pause", "b:armed+3s:vm", "b:armed+3500ms:vm resume"];
    let kill = Incident::kill("a@armed+2s").unwrap();
    let outcome = ordered(&typed, vec![kill], "armed+4s");
    assert_eq!(outcome.history.alone(), [B], "{}", outcome.last_words());
    for event in ["paused", "live", "resumed"] {
        assert!(outcome.history.has(B, event), "no {event}\n{}", outcome.last_words());
    }
    assert_eq!(count(&outcome, B, "state: paused"), 1, "{}", outcome.last_words());
}

/// What was consumed stays so: two hosts that start anew begin the next generation.
#[test]
fn hosts_that_start_anew_begin_a_new_generation() {
    let outcome = started(&[], Vec::new(), "armed+300ms", Some((B, 7)));
    for host in [A, B] {
        assert!(outcome.history.has(host, "protected"), "{}", outcome.last_words());
        assert_eq!(count(&outcome, host, "pair event=record side="), 1, "{}", outcome.last_words());
    }
    let armed: Vec<_> = outcome.asks.iter().filter(|asked| asked.what == "arm").collect();
    assert!(armed.iter().all(|asked| (asked.generation, asked.verdict) == (8, "armed")), "{armed:?}");
}

/// One host alone arms nothing, whatever the record says; it says why.
#[test]
fn a_host_alone_after_a_failover_arms_nothing() {
    let kill = Incident::kill("b@1s").unwrap();
    let outcome = started(&[], vec![kill], "20s", Some((B, 1)));
    assert!(outcome.asks.iter().all(|asked| asked.what == "read-back"), "{}", outcome.last_words());
    assert_eq!(count(&outcome, A, "host b still runs the virtual machine"), 1, "{}", outcome.last_words());
    assert_eq!(count(&outcome, A, "vm event=started"), 0, "{}", outcome.last_words());
}
