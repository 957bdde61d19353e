//! What the boots share: a medium with something in it, QEMU machines, and running one.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use machine_tests::{LIMIT, kernel, test_name};
use xtask::image::{Image, Module};
use xtask::qemu::{Boot, Firmware, Machine, Nic};
use xtask::{emulator, paths};

use super::expectation::{End, Expectation};

/// Words that no default has, so that they can only come from the medium.
pub const WORDS: &str = "name=from-medium seed=0x1234 proof=off";
/// What [`Image::for_run`] puts before them.
pub const RUN_WORDS: &str = "exit-port=0xf4 after=exit";
/// A configuration that changes nothing.
const CONFIG: &[u8] = b"# nothing to set\n";
/// Bytes of a module as large as a small guest's disk: more than the 65,536 blocks of 1,024 bytes after which TFTP's
/// block number starts anew, and no multiple of anything.
pub const BIG: usize = (64 << 20) + 4321;

/// A directory for the files of this test.
pub fn dir() -> PathBuf {
    paths::fresh_out_dir(&format!("media/{}", test_name())).unwrap()
}

/// Content that compresses badly and repeats nowhere near: a block that is lost or doubled shows.
pub fn content(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let words = std::iter::repeat_with(move || {
        // SplitMix64.
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ z >> 31).to_le_bytes()
    });
    words.take(bytes.div_ceil(8)).flatten().take(bytes).collect()
}

/// A medium: the kernel, [`WORDS`], a configuration, and modules of these sizes; and what the console must say of it.
pub fn image(dir: &std::path::Path, sizes: &[usize]) -> (Image, Expectation) {
    let mut image = Image::for_run(kernel(), WORDS).unwrap();
    let config = dir.join("config-file");
    fs::write(&config, CONFIG).unwrap();
    image.config = Some(config);
    let mut modules = vec![("config".to_owned(), CONFIG.to_vec())];
    for (index, &bytes) in sizes.iter().enumerate() {
        let file = dir.join(format!("module-{index}.bin"));
        let content = content(bytes, index as u64);
        fs::write(&file, &content).unwrap();
        image.modules.push(Module::parse(&format!("{}:some words=2", file.display())).unwrap());
        modules.push((format!("module-{index}.bin"), content));
    }
    let expectation = Expectation { words: format!("{RUN_WORDS} {WORDS}"), modules, end: End::NoVmx };
    (image, expectation)
}

/// A QEMU machine as the lab has it: two cards, and an NVMe disk.
pub fn qemu(firmware: Firmware, boot: Boot) -> Machine {
    Machine {
        name: test_name(),
        firmware,
        boot,
        cpus: 2,
        nics: vec![Nic::new(1, "e1000"), Nic::new(2, "e1000e")],
        limit: LIMIT,
        ..Machine::default()
    }
}

/// Runs a QEMU machine; the console must say what is expected.
pub fn expect_qemu(machine: &Machine, expectation: &Expectation) -> xtask::qemu::Outcome {
    let outcome = machine.run().unwrap_or_else(|error| panic!("{error:#}"));
    if let Err(wrong) = expectation.check(&outcome.exit, &outcome.console) {
        panic!("{wrong}\n{}", outcome.last_words());
    }
    outcome
}

/// Runs a machine on our emulator, which has VMX; the console must say what is expected.
pub fn expect_bochs(machine: &emulator::Machine, expectation: &Expectation) {
    let outcome = machine.run().unwrap_or_else(|error| panic!("{error:#}"));
    let expectation = Expectation { end: End::Done, ..expectation.clone() };
    if let Err(wrong) = expectation.check(&outcome.exit, &outcome.console) {
        panic!("{wrong}\n{}", outcome.last_words());
    }
}

/// A run that must not end by itself is given this long. It only has to be longer than a loader takes to give up.
pub const GIVE_UP: Duration = Duration::from_secs(300);
