//! The boot proof holds on the emulated machine, however late its overflow interrupts come.

use machine_tests::{Exit, Knobs, Machine, expect, kernel_machine};
use xtask::proof;

/// Landings per property: a slice of what `cargo xtask pmu` does.
const LANDINGS: u64 = 40;

fn machine(skid: Option<&str>, seed: u64) -> Machine {
    let words = format!("after=exit proof=short seed={seed} landings={LANDINGS}");
    let knobs = Knobs { skid: skid.map(str::to_owned), seed: Some(seed), ..Knobs::default() };
    Machine { knobs, ..kernel_machine(&words) }
}

/// Runs the proof; answers its console and its margin in instructions.
fn holds(machine: &Machine) -> (String, u64) {
    let outcome = expect(machine, Exit::Success);
    let report = proof::rows(&outcome.console, LANDINGS);
    assert!(report.met(), "{}\n{}", report.table(), outcome.last_words());
    let summary = outcome.facts("proof-summary").next().expect("a summary");
    let margin = proof::value(summary, "margin-n").and_then(|m| m.parse().ok()).expect("a margin");
    (outcome.console.clone(), margin)
}

#[test]
fn without_skid() {
    assert_eq!(holds(&machine(None, 11)).1, 128, "the smallest margin");
}

#[test]
fn with_the_skid_of_a_core() {
    let margin = holds(&machine(Some("5:40:12"), 12)).1;
    assert!((105..=192).contains(&margin), "{margin}");
}

#[test]
fn with_the_largest_skid_seen_in_the_field() {
    let margin = holds(&machine(Some("64:128:13"), 13)).1;
    assert!((192..=320).contains(&margin), "{margin}");
}

/// Translations that come and go as on silicon change nothing in the counts.
#[test]
fn with_speculation_and_evictions() {
    let mut machine = machine(Some("5:40:14"), 14);
    machine.knobs.tlb = Some("14:2000:2000".to_owned());
    holds(&machine);
}

/// A second processor that idles is no disturbance: the proof is the boot processor's.
#[test]
fn with_a_second_processor() {
    holds(&Machine { cpus: 2, ..machine(None, 17) });
}

/// The table for people says the same as the lines for programs.
#[test]
fn the_table_is_on_the_console() {
    let (console, margin) = holds(&machine(Some("5:40:15"), 15));
    let summary = format!("boot proof: 28 of 28 properties hold; margin {margin} instructions (skid seen ");
    assert!(console.contains(&summary), "{summary}\n{console}");
    let shown = console.lines().filter(|line| line.trim_end().ends_with("  holds")).count();
    assert_eq!(shown, 28);
}

/// Two runs with one seed are one run.
#[test]
fn a_seed_says_it_all() {
    let run = || {
        let console = holds(&machine(Some("5:40:16"), 16)).0;
        console.lines().filter(|line| line.starts_with("@@ proof")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}
