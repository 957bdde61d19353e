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
