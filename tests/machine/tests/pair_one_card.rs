//! Hosts with one card each: the guest's frames and the log go the same way, and neither gets in the other's.

use std::sync::{Mutex, MutexGuard, PoisonError};

use machine_tests::{Host, LIMIT, Payload, kernel, test_name};
use vm_config::{Card, HostName, PciAddress};
use xtask::pairing::incident::Incident;
use xtask::pairing::plan::{PairOptions, paired_on_one_card};
use xtask::pairing::run::{PairOutcome, run};
use xtask::switch::station::counter::CounterConfig;
use xtask::switch::station::ping::PingConfig;
use xtask::vm::{Description, Vm};

const SECOND: u64 = 1_000_000_000;
const REQUESTS: u32 = 120;

/// Two emulators at a time, not twenty.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The guest that counts, its configuration changed.
fn vm(change: impl FnOnce(&mut vm_config::Config)) -> Vm {
    let guest = Payload::Counter.describe("quiet=1").unwrap_or_else(|error| panic!("{error:#}"));
    let vm = Description { networks: 1, ..guest }.vm().and_then(|vm| paired_on_one_card(&vm, 1));
    let vm = vm.unwrap_or_else(|error| panic!("{error:#}"));
    let mut config = vm.config.clone();
    change(&mut config);
    vm.with_text(&config.text()).unwrap_or_else(|error| panic!("{error:#}"))
}

/// A client counts in it while this befalls the pair.
fn outcome(vm: &Vm, incidents: &[Incident]) -> PairOutcome {
    let _one = alone();
    let host = Host { limit: 2 * LIMIT, ..Host::new(&test_name(), kernel()) };
    let options = PairOptions {
        incidents: incidents.to_vec(),
        counter: Some(CounterConfig { requests: REQUESTS, ..CounterConfig::default() }),
        ping: Some(PingConfig::default()),
        linger: 2 * SECOND,
        end: Some(120 * SECOND),
        ..PairOptions::new(host)
    };
    let outcome = run(vm, &options).unwrap_or_else(|error| panic!("{error:#}"));
    outcome.check().unwrap_or_else(|error| panic!("{error:#}"));
    outcome
}

fn counted(vm: &Vm, incident: &str) -> PairOutcome {
    let kill = incident.strip_prefix("kill ").map(|text| Incident::kill(text).unwrap());
    let incident = kill.unwrap_or_else(|| Incident::cut(incident).unwrap());
    let outcome = outcome(vm, &[incident]);
    outcome.check_client().unwrap_or_else(|error| panic!("{error:#}"));
    outcome
}

#[test]
fn the_count_goes_on_when_the_primary_dies() {
    let outcome = counted(&vm(|_| ()), "kill a@answer=40+3ms");
    assert_eq!(outcome.history.alone(), [HostName::B], "{}", outcome.last_words());
    let silence = outcome.silence().unwrap();
    assert!((250_000_000..400_000_000).contains(&silence), "{silence} ns\n{}", outcome.last_words());
}

#[test]
fn the_count_goes_on_when_the_primary_s_cable_is_cut() {
    let outcome = counted(&vm(|_| ()), "a@answer=40+3ms");
    assert_eq!(outcome.history.alone(), [HostName::B], "{}", outcome.last_words());
}

/// By a card that takes in every frame of its network.
#[test]
fn the_count_goes_on_when_the_backup_dies() {
    let vm = vm(|config| config.networks[0].promiscuous = true);
    let outcome = counted(&vm, "kill b@answer=80+3ms");
    assert_eq!(outcome.history.alone(), [HostName::A], "{}", outcome.last_words());
}

/// What the configuration cannot see, the host does: the card has several names.
#[test]
fn one_card_is_one_path_and_two_stations() {
    let refused = |vm: &Vm, words: &str| {
        let outcome = outcome(vm, &[]);
        let named = outcome.hosts[0].console.contains(words);
        assert!(named && !outcome.history.has(HostName::A, "opened"), "{}", outcome.last_words());
    };
    let two_paths = vm(|config| {
        // The guest's card by its number, the log's by its address.
        let pair = config.pair.as_mut().unwrap();
        for (number, host) in pair.hosts.iter_mut().enumerate() {
            let ip = [10, 0, 2, 251 + number as u8];
            host.guest_address = Some(vm_config::HostAddress { ip, prefix: 24 });
            host.log_card = Card::Pci(PciAddress { bus: 0, device: 2, function: 0 });
        }
    });
    refused(&two_paths, "one card is one path");
    let one_station = vm(|config| config.networks[0].mac.0 = [0x52, 0x54, 0, 0x4c, 0x53, 0x50]);
    refused(&one_station, "is the card's own address");
}
