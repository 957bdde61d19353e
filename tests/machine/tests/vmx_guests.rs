//! The tiny guests on the emulated machine: every mode, the hostile ones, the checks of the loop, on one processor and on
//! several.

use machine_tests::{Exit, Machine, Outcome, expect, kernel_machine};

/// The facts of one kind, each split into its key=value words.
fn values<'a>(outcome: &'a Outcome, kind: &'a str, key: &str) -> Vec<&'a str> {
    let start = format!("{key}=");
    outcome
        .facts(kind)
        .map(|fact| fact.split(' ').find_map(|word| word.strip_prefix(start.as_str())).unwrap_or("?"))
        .collect()
}

fn boot(cpus: u32) -> Outcome {
    let machine = Machine { cpus, ..kernel_machine("after=exit proof=off") };
    expect(&machine, Exit::Success)
}

#[test]
fn a_tiny_guest_runs_in_every_mode_and_hostile_ones_stop_with_a_reason() {
    let outcome = boot(1);
    assert_eq!(values(&outcome, "guest", "mode"), ["real", "protected", "long"]);
    assert_eq!(values(&outcome, "guest", "verdict"), ["pass"; 3]);
    let exits: Vec<u64> = values(&outcome, "guest", "exits").iter().map(|n| n.parse().unwrap()).collect();
    // Each writes its greeting byte by byte, asks CPUID, writes and reads a MSR, halts.
    for (count, greeting) in exits.iter().zip(["real", "protected", "long"]) {
        let least = format!("hello from {greeting} mode\n").len() as u64 + 4;
        assert!((least..least + 20).contains(count), "{greeting}: {count} exits");
        assert!(outcome.console.contains(&format!("says: hello from {greeting} mode")));
    }
    let hostile = values(&outcome, "hostile", "name");
    let stops = values(&outcome, "hostile", "stop");
    let ended: Vec<_> = hostile.into_iter().zip(stops).collect();
    for (name, stop) in [
        ("triple-fault", "triple-fault"),
        ("wild-write", "outside-memory"),
        ("endless", "time-up"),
        ("vmxon", "triple-fault"),
        ("unknown-msr", "triple-fault"),
        ("invalid-segment", "invalid-state"),
        ("wild-start", "outside-memory"),
    ] {
        assert!(ended.contains(&(name, stop)), "{name} in {ended:?}");
    }
    assert!(
        outcome.console.contains("invalid guest state: CS: non-conforming and its DPL differs from SS's")
    );
    assert_eq!(values(&outcome, "guest-check", "verdict"), ["pass"; 21]);
    assert_eq!(values(&outcome, "guests", "verdict"), ["pass"]);
    assert_eq!(values(&outcome, "boot", "verdict"), ["done"], "the host lives");
}

#[test]
fn guest_memory_is_mapped_by_large_pages() {
    let outcome = boot(1);
    assert_eq!(values(&outcome, "guest-memory", "page"), ["2097152"]);
    assert_eq!(values(&outcome, "guest-memory", "tables"), ["3"], "root, one below it, one of 2-MByte pages");
}

#[test]
fn every_processor_enters_vmx_operation() {
    let outcome = boot(3);
    assert_eq!(values(&outcome, "vmx", "cpus"), ["3"]);
    assert_eq!(values(&outcome, "vmx", "root"), ["3"]);
    assert_eq!(values(&outcome, "guest-cpu", "cpu"), ["1", "2"], "a guest ran on the others, too");
    assert_eq!(values(&outcome, "guest-cpu", "verdict"), ["pass"; 2]);
    assert!(outcome.facts("guest-check").any(|fact| fact == "name=host-nmi verdict=pass"));
    assert_eq!(outcome.facts("vmx-differs").count(), 0, "emulated processors are alike");
    assert_eq!(values(&outcome, "guests", "verdict"), ["pass"]);
}

#[test]
fn a_panic_shows_the_vmcs() {
    let outcome = expect(&kernel_machine("proof=off crash=guest"), Exit::Panic);
    assert!(outcome.console.contains("VMCS (last exit: cpuid):"), "{}", outcome.console);
    // The guest stands at its first instruction, a CPUID, at 8000h; the exit came by it.
    for field in
        ["GUEST_RIP 0000000000008000", "EXIT_REASON 000000000000000a", "VMCS_LINK_POINTER ffffffffffffffff"]
    {
        assert!(outcome.console.contains(field), "no {field} in:\n{}", outcome.console);
    }
    assert!(outcome.console.contains("HOST_RIP") && outcome.console.contains("EPT_POINTER"));
}

/// The peer needs 980 for a CPUID; the promise is 300.
#[test]
fn an_exit_and_back_stays_within_300_instructions() {
    let outcome = boot(1);
    assert_eq!(values(&outcome, "exit-cost", "reason"), ["cpuid", "rdtsc"]);
    for ticks in values(&outcome, "exit-cost", "tsc-per-round") {
        let ticks: u64 = ticks.parse().unwrap();
        assert!((50..=300).contains(&ticks), "{ticks} ticks of the emulated machine, one per instruction");
    }
}

#[test]
fn the_emulated_processor_can_be_given_the_greatest_profile() {
    let outcome = boot(1);
    assert_eq!(values(&outcome, "profiles", "best"), ["x86-64-v4"]);
}
