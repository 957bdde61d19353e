//! Guests that ask the virtual machine one question each: devices, exits, ways to end.

use machine_tests::{Outcome, host};
use xtask::vm::Vm;

/// The test kernel `program` of tests/guests, as a guest. Its time is what the emulated host's processor counts, 50 ticks a
/// microsecond: no correction moves a clock while it is being measured.
fn guest(program: &str, words: &str) -> Vm {
    let kernel = xtask::guests::build(program).unwrap_or_else(|error| panic!("{error:#}"));
    let text = format!(
        "[vm]\nname = \"{program}\"\nmemory = \"32M\"\nseed = 1\n\
         [boot]\nkernel = \"{program}\"\ncommand-line = \"{words}\"\n\
         [[disk]]\nsize = \"1M\"\n\
         [clock]\nfollow = \"instructions\"\nrate = 50\n"
    );
    let base = kernel.parent().expect("the kernel lies in a directory");
    Vm::parse(&text, base).unwrap_or_else(|error| panic!("{error:#}"))
}

fn run(vm: &Vm) -> Outcome {
    host().run(vm).unwrap_or_else(|error| panic!("{error:#}")).0
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
