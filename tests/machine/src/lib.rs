//! Scenarios on emulated machines: what the tests in `tests/` share.
//!
//! `cargo xtask test` runs them; `cargo test -p machine-tests NAME` runs one by hand. Each test has a directory of its own
//! under `target/out/run`, named after the test, with the machine's configuration, console and log. Time limits are
//! wall-clock and generous: they only catch a machine that hangs, on however busy a host.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

pub use xtask::emulator::{Boot, Cdrom, Disk, Exit, Knobs, Machine, Nic, NicMode, Outcome, Running, Serial};
pub use xtask::payload::Payload;
pub use xtask::vm::host::Host;
pub use xtask::vm::outside::Outside;
pub use xtask::vm::{Description, DiskSource, Start};
use xtask::{guests, verbs};

/// A machine that has not ended by then hangs, also on a busy host.
pub const LIMIT: Duration = Duration::from_secs(10 * 60);

/// The name of the running test, fit for a file name.
pub fn test_name() -> String {
    let name = std::thread::current().name().unwrap_or("test").replace("::", ".");
    let program = std::env::args().next().unwrap_or_default();
    let binary = std::path::Path::new(&program).file_stem().map(|s| s.to_string_lossy().into_owned());
    // Cargo adds a hash to the binary's name.
    let binary = binary.unwrap_or_default();
    format!("{}.{name}", binary.rsplit_once('-').map_or(binary.as_str(), |(name, _)| name))
}

/// The kernel, built once per test program.
pub fn kernel() -> PathBuf {
    static KERNEL: OnceLock<PathBuf> = OnceLock::new();
    KERNEL.get_or_init(|| verbs::build::kernel().unwrap_or_else(|error| panic!("{error:#}"))).clone()
}

/// A machine that boots the kernel from a CD with this command line; `exit-port=0xf4` is added.
pub fn kernel_machine(command_line: &str) -> Machine {
    boot_machine(&test_name(), &kernel(), command_line)
}

/// A machine that boots the test kernel `program` from a CD with this command line; `exit-port=0xf4` is added.
pub fn guest_machine(program: &str, command_line: &str) -> Machine {
    let kernel = guests::build(program).unwrap_or_else(|error| panic!("{error:#}"));
    boot_machine(&test_name(), &kernel, command_line)
}

fn boot_machine(name: &str, kernel: &std::path::Path, command_line: &str) -> Machine {
    let words = format!("exit-port=0xf4 {command_line}");
    let iso = guests::iso(kernel, words.trim()).unwrap_or_else(|error| panic!("{error:#}"));
    Machine { limit: LIMIT, ..Machine::from_iso(name, iso) }
}

/// Runs the machine; it must end in this way.
pub fn expect(machine: &Machine, wanted: Exit) -> Outcome {
    let outcome = machine.run().unwrap_or_else(|error| panic!("{error:#}"));
    if let Err(error) = outcome.expect(&wanted) {
        panic!("{error:#}");
    }
    outcome
}

/// Runs the test kernel `program` on a plain machine; every check of it must pass, and there must be one.
pub fn passes(program: &str) -> Outcome {
    passes_on(&guest_machine(program, ""))
}

/// Runs a machine whose test kernel must end with every check passed.
pub fn passes_on(machine: &Machine) -> Outcome {
    let outcome = machine.run().unwrap_or_else(|error| panic!("{error:#}"));
    let failed: Vec<&str> = outcome.facts("check").filter(|fact| fact.contains("verdict=fail")).collect();
    assert!(failed.is_empty(), "these checks failed:\n{}\n{}", failed.join("\n"), outcome.last_words());
    if let Err(error) = outcome.expect(&Exit::Success) {
        panic!("{error:#}");
    }
    outcome
}

/// The virtual machine of a payload, with these words on its kernel's command line.
pub fn payload(payload: Payload, words: &str) -> Description {
    payload.describe(words).unwrap_or_else(|error| panic!("{error:#}"))
}

/// An unattended emulated host, for the running test; the boot proof is other tests' business.
pub fn host() -> Host {
    let host = Host::new(&test_name(), kernel());
    Host { words: format!("{} proof=off", host.words), limit: LIMIT * 3, ..host }
}

/// Runs a virtual machine on this host until it switches itself off; what the world outside says of it. The guest must have
/// come to its end, and the hypervisor must have stopped it for that reason.
pub fn runs_to_its_end(description: &Description, host: &Host) -> (Outcome, String) {
    let vm = description.vm().unwrap_or_else(|error| panic!("{error:#}"));
    let (outcome, told) = host.run(&vm).unwrap_or_else(|error| panic!("{error:#}"));
    if let Err(error) = outcome.expect(&Exit::Success) {
        panic!("{error:#}");
    }
    let stopped: Vec<&str> = outcome.facts("vm").filter(|fact| fact.starts_with("event=stopped ")).collect();
    assert_eq!(stopped.len(), 1, "{}", outcome.last_words());
    assert!(stopped[0].contains(" reason=power-off "), "{}", stopped[0]);
    assert!(!outcome.console.contains("Kernel panic"), "{}", outcome.last_words());
    (outcome, told.join(" "))
}

/// What the guest has printed between `@@ START load` and `@@ END load`.
pub fn load_output<'a>(outcome: &'a Outcome, load: &str) -> Vec<&'a str> {
    let mut lines = outcome.console.lines().map(str::trim);
    let (start, end) = (format!("@@ START {load} "), format!("@@ END {load} "));
    assert!(lines.any(|line| line.starts_with(&start)), "no {start}in:\n{}", outcome.last_words());
    let output: Vec<&str> = lines.clone().take_while(|line| !line.starts_with(&end)).collect();
    assert!(lines.any(|line| line.starts_with(&end)), "no {end}in:\n{}", outcome.last_words());
    output
}

/// The number behind `key=` in words.
pub fn number(words: &str, key: &str) -> f64 {
    let value = words.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no number {key}= in: {words}"))
}
