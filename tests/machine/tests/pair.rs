//! Two emulated hosts and one virtual machine: what a client outside sees when something befalls them.
//!
//! The guest is the test kernel "counter"; the client counts in it by one TCP connection and knows what every answer must be. A run
//! is a function of its seeds, so what is found here is found again by the same command.

use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};

use machine_tests::{Exit, Host, LIMIT, Payload, kernel, test_name};
use vm_config::HostName;
use xtask::pairing::incident::Incident;
use xtask::pairing::marks::Moment;
use xtask::pairing::plan::{PairOptions, paired};
use xtask::pairing::run::{PairOutcome, run};
use xtask::paths;
use xtask::switch::station::counter::CounterConfig;
use xtask::switch::station::ping::PingConfig;
use xtask::switch::time::Ns;
use xtask::vm::Vm;

const MS: Ns = 1_000_000;
const SECOND: Ns = 1_000 * MS;
const A: HostName = HostName::A;
const B: HostName = HostName::B;

/// Two emulators at a time, not twenty.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The guest that counts.
fn vm() -> Vm {
    let guest = Payload::Counter.describe("quiet=1").unwrap_or_else(|error| panic!("{error:#}"));
    let vm = xtask::vm::Description { networks: 1, ..guest }.vm();
    let vm = vm.and_then(|vm| paired(&vm, 1));
    vm.unwrap_or_else(|error| panic!("{error:#}"))
}

/// A pair of the guest that counts, with so many requests (0: no client), and what befalls it.
fn options(requests: u32, incidents: &[Incident]) -> PairOptions {
    let host = Host { limit: 2 * LIMIT, ..Host::new(&test_name(), kernel()) };
    let counter = CounterConfig { requests, ..CounterConfig::default() };
    PairOptions {
        incidents: incidents.to_vec(),
        counter: (requests > 0).then_some(counter),
        ping: (requests > 0).then(PingConfig::default),
        linger: 2 * SECOND,
        end: Some(120 * SECOND),
        ..PairOptions::new(host)
    }
}

/// Runs it; whatever befalls a pair, some things hold.
fn outcome(vm: &Vm, options: &PairOptions) -> PairOutcome {
    let _one = alone();
    let outcome = run(vm, options).unwrap_or_else(|error| panic!("{error:#}"));
    outcome.check().unwrap_or_else(|error| panic!("{error:#}"));
    outcome
}

/// Counts to the end while this befalls the pair; the client sees nothing but delay.
fn counted(requests: u32, incident: Incident) -> PairOutcome {
    let outcome = outcome(&vm(), &options(requests, &[incident]));
    outcome.check_client().unwrap_or_else(|error| panic!("{error:#}"));
    outcome
}

fn assert_events(outcome: &PairOutcome, host: HostName, events: &[&str]) {
    for event in events {
        assert!(outcome.history.has(host, event), "host {host} has no {event}\n{}", outcome.last_words());
    }
}

#[test]
fn both_hosts_come_together_and_the_guest_is_protected() {
    let until = Some(Moment::parse("armed+1s").unwrap());
    let outcome = outcome(&vm(), &PairOptions { until, ..options(0, &[]) });
    for host in HostName::ALL {
        assert_events(&outcome, host, &["opened", "joined", "protected"]);
    }
    assert!(outcome.history.alone().is_empty(), "{}", outcome.last_words());
}

#[test]
fn power_off_ends_both_and_is_no_failover() {
    let outcome = outcome(&vm(), &options(60, &[]));
    outcome.check_client().unwrap_or_else(|error| panic!("{error:#}"));
    assert!(outcome.history.alone().is_empty(), "{}", outcome.last_words());
    assert!(outcome.asks.iter().all(|asked| asked.verdict != "won"), "{}", outcome.last_words());
    for host in &outcome.hosts {
        host.expect(&Exit::Success).unwrap_or_else(|error| panic!("{error:#}"));
    }
}

#[test]
fn the_count_goes_on_when_the_primary_dies() {
    let outcome = counted(120, Incident::kill("a@answer=40+3ms").unwrap());
    assert_eq!(outcome.history.alone(), [B], "{}", outcome.last_words());
    assert_events(&outcome, B, &["suspect", "ask", "won", "live"]);
    // The default time-out of 300 ms, and what comes after.
    let silence = outcome.silence().unwrap();
    assert!((250 * MS..400 * MS).contains(&silence), "{silence} ns\n{}", outcome.last_words());
}

#[test]
fn the_count_goes_on_when_the_backup_dies() {
    let outcome = counted(120, Incident::kill("b@answer=40+3ms").unwrap());
    assert_eq!(outcome.history.alone(), [A], "{}", outcome.last_words());
    assert_events(&outcome, A, &["suspect", "ask", "won", "solo"]);
}

#[test]
fn a_primary_that_hangs_and_comes_back_finds_that_it_has_lost() {
    let outcome = counted(120, Incident::stop("a@answer=40+3ms/2s").unwrap());
    assert_eq!(outcome.history.alone(), [B], "{}", outcome.last_words());
    // By a heartbeat of the winner, or by the arbiter: either will do.
    assert_events(&outcome, A, &["halted"]);
}

#[test]
fn without_the_logging_network_the_primary_goes_on_alone() {
    let outcome = counted(120, Incident::cut("log@answer=40+3ms").unwrap());
    assert_eq!(outcome.history.alone(), [A], "{}", outcome.last_words());
    assert!(!outcome.history.has(B, "live"));
}

#[test]
fn one_of_two_paths_is_no_failover() {
    let cut = Incident::cut("guest@answer=40+3ms").unwrap();
    // No pings: a backup of 50 million instructions a second cannot follow 200 of them a second for as long as this takes.
    let outcome = outcome(&vm(), &PairOptions { ping: None, ..options(200, &[cut]) });
    outcome.check_client().unwrap_or_else(|error| panic!("{error:#}"));
    assert!(outcome.history.alone().is_empty(), "{}", outcome.last_words());
    assert!(outcome.asks.iter().all(|asked| asked.what != "contend"), "{}", outcome.last_words());
}

#[test]
fn without_an_arbiter_nobody_takes_over() {
    let cut = Incident::cut("arbiter@answer=30").unwrap();
    let kill = Incident::kill("a@answer=40+3ms").unwrap();
    let until = Some(Moment::parse("answer=40+5s").unwrap());
    let outcome = outcome(&vm(), &PairOptions { until, ..options(120, &[cut, kill]) });
    assert!(outcome.history.alone().is_empty(), "{}", outcome.last_words());
    assert_events(&outcome, B, &["suspect", "ask"]);
    let seen = outcome.counted.as_ref().unwrap();
    assert!(seen.done.is_none() && seen.answered.len() < 60, "{}", seen.words());
}

#[test]
fn another_key_is_a_stranger_s() {
    let vm = vm();
    let pair = vm.config.pair.clone().unwrap();
    let mut config = vm.config.clone();
    let key = vm_config::Key([7; 32]);
    config.pair = Some(vm_config::Pair { key, ..pair });
    let other = Some(vm.with_text(&config.text()).unwrap());
    let until = Some(Moment::at(30 * SECOND));
    let outcome = outcome(&vm, &PairOptions { other, until, ..options(0, &[]) });
    for host in HostName::ALL {
        assert_events(&outcome, host, &["opened"]);
        assert!(!outcome.history.has(host, "joined"), "{}", outcome.last_words());
    }
    assert!(outcome.asks.iter().all(|asked| asked.what == "read-back"), "nothing was armed");
}

#[test]
fn hosts_with_other_configurations_are_refused_by_name() {
    let vm = vm();
    let mut config = vm.config.clone();
    config.vm.memory.bytes += 2 << 20;
    let other = Some(vm.with_text(&config.text()).unwrap());
    let until = Some(Moment::at(30 * SECOND));
    let outcome = outcome(&vm, &PairOptions { other, until, ..options(0, &[]) });
    assert_refused(&outcome, "digest of lockstep.toml");
}

/// Two builds of one version, of which one says something else somewhere.
#[test]
fn hosts_with_other_builds_of_the_kernel_are_refused_by_name() {
    const SENTENCE: &[u8] = b"this host runs no guests";
    let mut bytes = fs::read(kernel()).unwrap();
    let at = bytes.windows(SENTENCE.len()).position(|part| part == SENTENCE).expect("it can say so");
    bytes[at] = b'T';
    let place = paths::target_dir().join("pair-other-build");
    fs::write(&place, bytes).unwrap();
    let until = Some(Moment::at(30 * SECOND));
    let other_kernel = Some(place);
    let outcome = outcome(&vm(), &PairOptions { other_kernel, until, ..options(0, &[]) });
    assert_refused(&outcome, "build: here lockstep");
}

/// The two did not become a pair, for a reason that has these words.
fn assert_refused(outcome: &PairOutcome, words: &str) {
    let refused = HostName::ALL.iter().any(|host| outcome.history.has(*host, "refused"));
    let named = outcome.hosts.iter().any(|host| host.console.contains(words));
    let nothing = outcome.asks.iter().all(|asked| asked.what == "read-back");
    assert!(refused && named && nothing, "{}", outcome.last_words());
}

/// The list of test kernels wants to know who runs this one.
#[test]
fn the_guest_is_one_of_the_programs() {
    assert!(xtask::guests::programs().unwrap().iter().any(|name| name == "counter"));
}
