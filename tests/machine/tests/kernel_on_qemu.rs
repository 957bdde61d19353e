//! What Bochs has not: processors without long mode or NX, more of them than the kernel uses, memory above 4 GiB, PCI
//! Express, and the ways to restart.

use std::process::{Command, Stdio};

use machine_tests::{Exit, LIMIT, kernel, test_name};
use xtask::image::Image;
use xtask::paths;
use xtask::qemu::{Boot, Machine, Outcome};

/// A machine of this type and processor that boots the kernel with these words.
fn machine(kind: &str, cpu: &str, words: &str) -> Machine {
    let dir = paths::fresh_out_dir(&format!("media/{}-{kind}", test_name())).unwrap();
    let iso = dir.join("image.iso");
    Image::for_run(kernel(), words).unwrap().write_iso(&iso).unwrap();
    let platform = ["-machine", kind, "-accel", "tcg", "-cpu", cpu].map(String::from).into();
    let name = format!("{}-{kind}", test_name());
    Machine { name, platform, boot: Boot::Cd(iso), limit: LIMIT, ..Machine::default() }
}

/// Runs a machine; it must end like this.
fn ends(machine: &Machine, exit: Exit) -> Outcome {
    let outcome = machine.run().unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(outcome.exit, exit, "{}", outcome.last_words());
    outcome
}

fn says(outcome: &Outcome, text: &str) {
    assert!(outcome.console.contains(text), "no \"{text}\" in:\n{}", outcome.console);
}

#[test]
fn without_long_mode_it_says_so_and_ends() {
    let outcome = ends(&machine("pc", "qemu32", ""), Exit::Refused);
    says(&outcome, "lockstep: this processor has no 64-bit mode (long mode)");
}

#[test]
fn without_nx_it_runs_and_says_what_that_means() {
    // No guest runs here for want of VMX, which is a refusal; all before it is done.
    let outcome = ends(&machine("q35", "qemu64,vendor=GenuineIntel,-nx", "proof=off"), Exit::Refused);
    says(&outcome, "the processor has no NX bit: data can be executed");
    says(&outcome, "@@ cpus online=1");
}

#[test]
fn more_processors_than_it_uses_are_left_out_and_told() {
    let outcome =
        ends(&Machine { cpus: 66, ..machine("q35", "max,vendor=GenuineIntel", "proof=off") }, Exit::Refused);
    says(&outcome, "2 processors are beyond the 64 this kernel uses; left out");
    says(&outcome, "@@ cpus online=64 silent=0 beyond=2");
}

#[test]
fn memory_above_4_gib_and_pci_express_are_used() {
    let machine = Machine { memory_mib: 5120, ..machine("q35", "max,vendor=GenuineIntel", "proof=off") };
    let outcome = ends(&machine, Exit::Refused);
    let usable =
        outcome.console.split("@@ memory usable-kib=").nth(1).and_then(|s| s.split(' ').next()).unwrap();
    assert!(usable.parse::<u64>().unwrap() > 5000 << 10, "{usable}");
    says(&outcome, "access=ecam");
    says(&outcome, "writable-executable=0");
    says(&outcome, "@@ network address=0000:00:02.0 mac=52:54:00:4c:53:01 link=1");
}

#[test]
fn it_restarts_by_acpi_and_where_that_fails_by_the_chipset() {
    // The machine is started with -no-reboot, so a restart ends it; a triple fault would be told from it.
    let outcome = ends(&machine("q35", "max", "after=reboot proof=off log=debug"), Exit::PowerOff);
    says(&outcome, "info  restart");
    assert!(!outcome.console.contains("trying port 0xcf9"), "{}", outcome.console);
    let outcome = ends(&machine("pc", "max", "after=reboot proof=off"), Exit::PowerOff);
    says(&outcome, "trying port 0xcf9");
    assert!(!outcome.console.contains("trying the keyboard controller"), "{}", outcome.console);
}

#[test]
fn without_a_serial_port_it_runs_to_its_end() {
    // Nothing can be read but how it ended: for want of VMX, behind all the rest of the boot.
    let dir = paths::fresh_out_dir(&format!("media/{}", test_name())).unwrap();
    let iso = dir.join("image.iso");
    Image::for_run(kernel(), "proof=off").unwrap().write_iso(&iso).unwrap();
    let status = Command::new("timeout")
        .arg(LIMIT.as_secs().to_string())
        .args(["qemu-system-x86_64", "-machine", "pc", "-accel", "tcg", "-cpu", "max,vendor=GenuineIntel"])
        .args(["-m", "256", "-display", "none", "-serial", "none", "-parallel", "none", "-net", "none"])
        .args(["-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-boot", "d", "-cdrom"])
        .arg(iso)
        .stdin(Stdio::null())
        .status()
        .expect("QEMU starts");
    assert_eq!(status.code(), Some(39));
}
