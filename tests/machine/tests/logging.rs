//! The logging channel from a host to its receiver: what the kernel sends is what the file has, whatever the network does.

use std::path::{Path, PathBuf};

use machine_tests::{Exit, Host, LIMIT, Outcome, Outside, kernel, test_name};
use replay::seed::Seed;
use xtask::switch::cable::CableConfig;
use xtask::switch::time::Ppm;
use xtask::vm::Vm;

const MIB: usize = 1 << 20;
const SEED: u64 = 0x5eed;

/// A virtual machine that is never started: its configuration says where the log goes.
fn vm(network: &str) -> Vm {
    let text = format!(
        "[vm]\nname = \"log\"\nmemory = \"64M\"\n[boot]\nkernel = \"Cargo.toml\"\n{network}[record]\n\
         address = \"10.77.0.1/24\"\npeer = \"10.77.0.2:5405\"\n"
    );
    Vm::parse(&text, Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// A host that sends so many MiB.
fn host(mib: usize) -> (Host, PathBuf) {
    let log = std::env::temp_dir().join(format!("lockstep-{}-{}.log", std::process::id(), test_name()));
    let words = format!("exit-port=0xf4 after=exit proof=off seed={SEED} log-trial={mib}");
    (Host { words, log: Some(log.clone()), limit: LIMIT, ..Host::new(&test_name(), kernel()) }, log)
}

/// The file is what was sent, and the receiver has seen its end.
fn check(host: &Host, log: &Path, mib: usize, vm: &Vm) -> Outcome {
    let (outcome, told) = host.run(vm).unwrap_or_else(|error| panic!("{error:#}"));
    outcome.expect(&Exit::Success).unwrap_or_else(|error| panic!("{error:#}"));
    let received = std::fs::read(log).unwrap();
    std::fs::remove_file(log).unwrap();
    assert_eq!(received.len(), mib * MIB, "{told:?}");
    let mut generator = Seed::new(SEED);
    // The kernel's pieces are whole words.
    let same = received.as_chunks::<8>().0.iter().all(|word| *word == generator.next().to_le_bytes());
    assert!(same, "as many bytes, but others");
    let wanted = format!("log: log-bytes={} complete=true", mib * MIB);
    assert!(told.contains(&wanted), "{told:?}");
    outcome
}

#[test]
fn four_mebibytes_arrive() {
    let (host, log) = host(4);
    let outcome = check(&host, &log, 4, &vm(""));
    let closed = outcome.facts("log-channel").find(|fact| fact.contains("closed")).unwrap();
    assert!(closed.contains("whole=true"), "{closed}");
}

#[test]
fn a_bad_cable_only_takes_longer() {
    let (host, log) = host(2);
    let bad = CableConfig {
        loss: Ppm(3_000),
        duplicate: Ppm(5_000),
        reorder: Ppm(10_000),
        ..host.log_cable.clone()
    };
    check(&Host { log_cable: bad, ..host }, &log, 2, &vm(""));
}

#[test]
fn the_guest_has_its_network_at_the_same_time() {
    let (host, log) = host(1);
    let network = "[[network]]\nmac = \"02:00:00:00:00:01\"\n";
    check(&Host { outside: Outside::world(1), ..host }, &log, 1, &vm(network));
}

#[test]
fn without_a_receiver_nothing_starts() {
    let (host, _) = host(1);
    let (outcome, _) = Host { log: None, ..host }.run(&vm("")).unwrap_or_else(|error| panic!("{error:#}"));
    outcome.expect(&Exit::Failed).unwrap_or_else(|error| panic!("{error:#}"));
    assert!(
        outcome.console.contains("nobody receives the log at 10.77.0.2:5405"),
        "{}",
        outcome.last_words()
    );
}
