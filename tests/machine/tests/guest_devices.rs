//! Guests that ask the virtual machine one question each: devices, exits, ways to end.

use machine_tests::{Description, DiskSource, Outcome, Start, host, test_name};
use vm_config::Memory;

/// The test kernel `program` of tests/guests, as a guest.
fn guest(program: &str, words: &str) -> Description {
    let kernel = xtask::guests::build(program).unwrap_or_else(|error| panic!("{error:#}"));
    let start = Start::Kernel { kernel, initrd: None, command_line: words.into() };
    Description {
        memory: Memory { bytes: 32 << 20 },
        disks: vec![DiskSource::Blank(Memory { bytes: 1 << 20 })],
        ..Description::new(&test_name().replace(['.', ':'], "-"), start)
    }
}

fn run(description: &Description) -> Outcome {
    let vm = description.vm().unwrap_or_else(|error| panic!("{error:#}"));
    host().run(&vm).unwrap_or_else(|error| panic!("{error:#}")).0
}

/// Every check of the guest must pass, and it must come to its end and switch itself off.
fn passes(program: &str) {
    let outcome = run(&guest(program, ""));
    let failed: Vec<&str> = outcome.facts("check").filter(|fact| fact.contains("verdict=fail")).collect();
    assert!(failed.is_empty(), "these checks failed:\n{}\n{}", failed.join("\n"), outcome.last_words());
    assert!(outcome.facts("done").any(|fact| fact.contains("verdict=pass")), "{}", outcome.last_words());
    assert_eq!(stop(&outcome), "power-off");
}

/// The reason for which the hypervisor has stopped the guest.
fn stop(outcome: &Outcome) -> String {
    let stopped = outcome.facts("vm").find(|fact| fact.starts_with("event=stopped "));
    let reason =
        stopped.and_then(|fact| fact.split_whitespace().find_map(|word| word.strip_prefix("reason=")));
    reason.unwrap_or_else(|| panic!("it was not stopped:\n{}", outcome.last_words())).into()
}

#[test]
fn the_devices_are_in_order() {
    passes("guest_devices");
}

#[test]
fn instructions_that_exit_do_what_the_processor_would_do() {
    passes("guest_exits");
}

#[test]
fn a_guest_resets_itself_by_the_reset_control_register() {
    assert_eq!(stop(&run(&guest("guest_ends", "way=0"))), "reset");
}

#[test]
fn a_guest_resets_itself_by_the_keyboard_controller() {
    assert_eq!(stop(&run(&guest("guest_ends", "way=1"))), "reset");
}

#[test]
fn a_guest_resets_itself_by_port_92() {
    assert_eq!(stop(&run(&guest("guest_ends", "way=2"))), "reset");
}

#[test]
fn a_triple_fault_resets_the_guest() {
    assert_eq!(stop(&run(&guest("guest_ends", "way=3"))), "reset");
}

#[test]
fn a_guest_resets_itself_as_the_fadt_says() {
    assert_eq!(stop(&run(&guest("guest_ends", "way=4"))), "reset");
}
