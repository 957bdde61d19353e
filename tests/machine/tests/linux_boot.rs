//! Unmodified Linux kernels come up on Lockstep, find their machine in order, and switch it off.

use machine_tests::{Outcome, Payload, host, payload, runs_to_its_end};

/// What a Linux must not have to say about its machine.
const COMPLAINTS: [&str; 9] = [
    "BUG:",
    "Oops",
    "WARNING: CPU",
    "unchecked MSR access",
    "ACPI Error",
    "ACPI BIOS Error",
    "Marking TSC unstable",
    "nobody cared",
    "spurious",
];

fn is_content(outcome: &Outcome) {
    for complaint in COMPLAINTS {
        let line = outcome.console.lines().find(|line| line.contains(complaint));
        assert_eq!(line, None, "Linux complains");
    }
    assert!(outcome.facts("DONE").next().is_some(), "{}", outcome.last_words());
}

#[test]
fn debian_s_cloud_kernel_boots_and_switches_itself_off() {
    let (outcome, _) = runs_to_its_end(&payload(Payload::Cloud, "wl=boot"), &host());
    is_content(&outcome);
    assert!(outcome.facts("vm").any(|fact| fact.starts_with("event=started ")), "{}", outcome.console);
}

#[test]
fn debian_s_generic_kernel_boots_and_switches_itself_off() {
    let (outcome, _) = runs_to_its_end(&payload(Payload::Generic, "wl=boot"), &host());
    is_content(&outcome);
}
