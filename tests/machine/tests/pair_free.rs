//! A pair that is not in lock step: emulators and network go by the wall clock. Only what is wrong fails here, not what takes long.

use machine_tests::{Exit, Host, LIMIT, Payload, kernel, test_name};
use vm_config::HostName;
use xtask::pairing::free::{patient, run};
use xtask::pairing::incident::Incident;
use xtask::pairing::plan::{PairOptions, paired};
use xtask::switch::station::counter::CounterConfig;
use xtask::switch::time::Ns;
use xtask::vm::Description;

const SECOND: Ns = 1_000_000_000;
/// Instructions per second: what two emulators can do beside other work.
const IPS: u64 = 50_000_000;

fn must<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{error:#}"))
}

#[test]
fn a_client_counts_on_when_the_primary_dies() {
    let guest = must(Payload::Counter.describe("quiet=1"));
    let vm = must(Description { networks: 1, ..guest }.vm());
    let vm = must(patient(&must(paired(&vm, 1))));
    let counter = CounterConfig { requests: 100, pause: 20_000_000, ..CounterConfig::default() };
    let options = PairOptions {
        incidents: vec![must(Incident::kill("a@answer=50+3ms"))],
        counter: Some(counter),
        linger: SECOND,
        end: Some(300 * SECOND),
        ..PairOptions::new(Host { limit: 3 * LIMIT, ips: IPS, ..Host::new(&test_name(), kernel()) })
    };
    let outcome = must(run(&vm, &options, |_, _| ()));
    must(outcome.check().and(outcome.check_client()));
    assert_eq!(outcome.history.alone(), [HostName::B], "{}", outcome.last_words());
    assert!(outcome.hosts.iter().all(|host| host.exit != Exit::Panic));
}
