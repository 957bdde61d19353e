//! The boot proof is proved: each broken machine fails it, by the name of the property that it breaks.

use machine_tests::{Exit, Knobs, Machine, Outcome, expect, kernel_machine};
use xtask::proof;

fn run(fault: &str, wanted: Exit) -> Outcome {
    let knobs = Knobs { fault: vec![fault.to_owned()], seed: Some(3), ..Knobs::default() };
    expect(&Machine { knobs, ..kernel_machine("after=exit proof=short seed=3") }, wanted)
}

/// The properties that fail on a machine with this fault.
fn failed(fault: &str) -> Vec<String> {
    let outcome = run(fault, Exit::Failed);
    let summary = outcome.facts("proof-summary").next().expect("a summary");
    assert_eq!(proof::value(summary, "verdict"), Some("fail"));
    assert!(
        outcome.console.contains("This host cannot protect a virtual machine"),
        "{}",
        outcome.last_words()
    );
    let failed = proof::value(summary, "failed").expect("the failed properties");
    failed.split(',').map(str::to_owned).collect()
}

#[test]
fn an_overcount_at_every_exit_is_found_by_the_entries_and_exits() {
    let failed = failed("overcount:1");
    assert_eq!(failed[0], "entry-exit");
    for name in ["ept-violations", "preemption-timer", "external-interrupts", "mtf", "injection"] {
        assert!(failed.iter().any(|f| f == name), "{name} is not in {failed:?}");
    }
}

#[test]
fn a_rare_overcount_is_found() {
    assert!(!failed("overcount:1000").is_empty());
}

#[test]
fn an_undercount_in_rep_is_found_by_the_rep_properties_alone() {
    let failed = failed("undercount-rep");
    for name in ["rep-movs", "rep-movs-backward", "rep-stos", "rep-compare"] {
        assert!(failed.iter().any(|f| f == name), "{name} is not in {failed:?}");
    }
    assert!(failed.iter().all(|name| name.starts_with("rep-")), "{failed:?}");
}

#[test]
fn a_lost_interrupt_is_found_by_the_overflow() {
    for fault in ["lost-pmi", "lost-pmi:1", "lost-pmi:7"] {
        assert_eq!(failed(fault)[0], "overflow-interrupt", "{fault}");
    }
}

/// The reason with which the proof was refused.
fn refused(fault: &str) -> String {
    let outcome = run(fault, Exit::Refused);
    let summary = outcome.facts("proof-summary").next().expect("a summary");
    assert_eq!(proof::value(summary, "verdict"), Some("refused"));
    proof::value(summary, "reason").expect("a reason").to_owned()
}

#[test]
fn no_counters_are_a_refusal() {
    assert!(refused("no-pmu").contains("no performance-monitoring unit"));
}

#[test]
fn locked_vmx_is_a_refusal() {
    assert!(refused("vmx-locked").contains("IA32_FEATURE_CONTROL"));
}

#[test]
fn other_missing_features_are_refusals() {
    assert!(refused("no-mtf").contains("monitor trap flag"));
    assert!(refused("atom").contains("Atom"));
}

#[test]
fn the_proof_can_be_left_out() {
    let outcome = expect(&kernel_machine("after=exit proof=off"), Exit::Success);
    assert_eq!(outcome.facts("proof").count() + outcome.facts("proof-summary").count(), 0);
    assert!(outcome.console.contains("no virtual machine will be protected"));
}
