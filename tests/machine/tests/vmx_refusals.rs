//! What a machine lacks is one clear line each, with what still works and what to do; the kernel ends by itself with the
//! code for a refusal.

use machine_tests::{Exit, Knobs, Machine, Outcome, expect, kernel_machine};

/// Boots a machine with this fault; it must be refused for exactly these needs, and do what it still can.
fn refused(fault: &str, needs: &[&str], guests_run: bool) -> Outcome {
    let knobs = Knobs { fault: vec![fault.into()], ..Knobs::default() };
    let machine = Machine { knobs, ..kernel_machine("after=exit") };
    let outcome = expect(&machine, Exit::Refused);
    let found: Vec<_> = outcome.facts("missing").filter_map(|fact| fact.split(' ').nth(1)).collect();
    let wanted: Vec<_> = needs.iter().map(|need| format!("need={need}")).collect();
    assert_eq!(found, wanted, "{}", outcome.console);
    for line in outcome.console.lines().filter(|line| line.contains(" cpu0: ")) {
        assert!(line.contains("Still works: ") && line.contains("To do: "), "{line}");
    }
    let verdict = if guests_run { "verdict=refused guests=yes" } else { "verdict=refused guests=no" };
    assert_eq!(outcome.facts("boot").last(), Some(verdict));
    let modes = outcome.facts("guest").filter(|fact| fact.contains("verdict=pass")).count();
    assert_eq!(modes, if guests_run { 3 } else { 0 }, "tiny guests");
    outcome
}

/// The line that people read begins so.
fn says(outcome: &Outcome, words: &str) {
    let found = outcome.console.lines().any(|line| line.contains(words));
    assert!(found, "no line with \"{words}\" in:\n{}", outcome.console);
}

#[test]
fn no_vmx() {
    says(&refused("no-vmx", &["vmx"], false), "no VMX: guests run by VMX.");
}

#[test]
fn vmx_locked_off_by_the_firmware() {
    let outcome = refused("vmx-locked", &["vmx-locked"], false);
    says(&outcome, "VMX is locked off (IA32_FEATURE_CONTROL)");
    says(&outcome, "switch on Intel Virtualization Technology in the firmware's setup");
}

#[test]
fn no_ept() {
    let outcome = refused("no-ept", &["ept"], false);
    says(&outcome, "no EPT: guest memory is mapped by it.");
}

#[test]
fn no_unrestricted_guest() {
    let outcome = refused("no-unrestricted", &["unrestricted-guest"], false);
    says(&outcome, "no unrestricted guest: guests start in real mode.");
}

#[test]
fn no_monitor_trap_flag() {
    let outcome = refused("no-mtf", &["monitor-trap-flag"], true);
    says(&outcome, "a guest runs, without a backup");
}

#[test]
fn no_performance_monitoring_unit() {
    let outcome = refused("no-pmu", &["pmu"], true);
    says(&outcome, "no performance-monitoring unit (CPUID leaf 0Ah)");
}

#[test]
fn an_atom_class_core() {
    let outcome = refused("atom", &["core-class"], true);
    says(&outcome, "an Atom-class core (CPUID signature 0x506f1)");
}

#[test]
fn a_machine_that_is_to_stay_up_stays_up() {
    let knobs = Knobs { fault: vec!["no-vmx".into()], ..Knobs::default() };
    let machine = Machine { knobs, ..kernel_machine("after=park") };
    let outcome = machine.run_until("parked").unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(outcome.exit, Exit::Reached, "{}", outcome.console);
    assert_eq!(outcome.facts("missing").next(), Some("cpu=0 need=vmx loss=guests"));
}
