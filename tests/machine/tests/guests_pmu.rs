//! The counters under every skid and shape, and the proof that the programs notice counters that are wrong.

use machine_tests::{Exit, Knobs, Machine, Outcome, expect, guest_machine, passes_on};

fn knobs(skid: &str) -> Knobs {
    Knobs { skid: Some(format!("{skid}:7")), ..Knobs::default() }
}

fn fault(word: &str) -> Knobs {
    Knobs { fault: vec![word.into()], ..Knobs::default() }
}

/// Runs `program` on a machine with these knobs; it must find failures. Their names.
fn failures(program: &str, words: &str, knobs: Knobs) -> Vec<String> {
    let outcome = expect(&Machine { knobs, ..guest_machine(program, words) }, Exit::Failed);
    names(&outcome)
}

/// Names of the failed checks.
fn names(outcome: &Outcome) -> Vec<String> {
    let failed = outcome.facts("check").filter(|check| check.contains(" verdict=fail "));
    let name =
        |check: &str| check.split(' ').find_map(|word| word.strip_prefix("name=")).unwrap_or("?").to_owned();
    failed.map(name).collect()
}

#[test]
fn overflow_interrupts_come_within_the_skid() {
    for skid in ["5:40", "64:128"] {
        for program in ["pmu_pmi", "vmx_pmu"] {
            let machine = guest_machine(program, &format!("skid={skid}"));
            passes_on(&Machine { knobs: knobs(skid), ..machine });
        }
    }
}

#[test]
fn a_skid_that_nobody_expects_is_seen() {
    let failed = failures("pmu_pmi", "skid=0:0", knobs("64:128"));
    assert!(failed.iter().any(|name| name == "earliest:Fixed:Fixed(0)"), "{failed:?}");
    assert!(failed.iter().all(|name| !name.starts_with("pmi-once-each")), "{failed:?}");
}

#[test]
fn a_lost_interrupt_is_seen() {
    let failed = failures("pmu_pmi", "", fault("lost-pmi:7"));
    assert!(failed.iter().any(|name| name.starts_with("pmi-once-each")), "{failed:?}");
}

#[test]
fn a_count_too_many_at_exits_is_seen() {
    let failed = failures("vmx_pmu", "", fault("overcount:5"));
    assert!(failed.iter().any(|name| name == "n:mtf:loop_mixed"), "{failed:?}");
    assert!(failed.iter().any(|name| name == "n:preemption-timer:loop_mixed"), "{failed:?}");
}

#[test]
fn a_count_missing_in_a_string_is_seen() {
    let failed = failures("vmx_pmu", "", fault("undercount-rep"));
    assert!(failed.iter().any(|name| name == "n:ept-violation:store_string"), "{failed:?}");
    assert!(failed.iter().all(|name| !name.contains("loop_mixed")), "only strings: {failed:?}");
}

#[test]
fn registers_have_the_shape_that_cpuid_says() {
    for shape in ["4:4:3:48", "3:8:3:48", "2:2:1:40"] {
        let knobs = Knobs { pmu_shape: Some(shape.into()), ..Knobs::default() };
        passes_on(&Machine { knobs, ..guest_machine("pmu_msr", &format!("shape={shape}")) });
    }
}

#[test]
fn a_shape_that_nobody_expects_is_seen() {
    let knobs = Knobs { pmu_shape: Some("4:4:3:40".into()), ..Knobs::default() };
    let failed = failures("pmu_msr", "", knobs);
    assert_eq!(failed, ["version", "general-width", "fixed-width"]);
}

#[test]
fn without_counters_the_programs_refuse() {
    for program in ["pmu_count", "pmu_pmi"] {
        expect(&Machine { knobs: fault("no-pmu"), ..guest_machine(program, "") }, Exit::Refused);
    }
}

#[test]
fn every_processor_counts_for_itself() {
    passes_on(&Machine { cpus: 2, ..guest_machine("smp", "") });
}
