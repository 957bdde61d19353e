//! The boot proof against the simulated processor: an honest one passes, each dishonest one fails by name.

mod sim;

use replay::proof::{Form, Mark, PROPERTIES, Report, prove};
use sim::{Faults, Sim};

fn proof(form: &Form, faults: Faults) -> Report {
    let mut marks = vec![Mark::default(); form.marks()];
    let mut sim = Sim::new(form.seed ^ 0x5EED, faults);
    let mut rows = 0;
    let report = prove(&mut sim, form, &mut marks, |_| rows += 1);
    assert_eq!(rows, PROPERTIES.len());
    report
}

fn failed(report: &Report) -> Vec<&'static str> {
    report.failures().map(|row| row.name).collect()
}

fn show(report: &Report) -> String {
    report.rows().iter().map(|row| format!("{row}\n")).collect::<String>() + &format!("{report}")
}

#[test]
fn an_honest_processor_passes() {
    for (seed, skid, margin) in [(1, (0, 0), 128), (2, (5, 40), 192), (3, (64, 128), 320)] {
        for form in [Form::short(seed), Form { runs: 2, landings: 300, ..Form::long(seed) }] {
            let report = proof(&form, Faults { skid, ..Faults::default() });
            assert!(report.holds(), "{}", show(&report));
            assert!(report.margin_instructions.unwrap() <= margin, "{}", show(&report));
            assert!(report.rows().iter().all(|row| row.runs > 0));
        }
    }
}

#[test]
fn many_seeds_pass() {
    for seed in 0..60 {
        let report = proof(&Form::short(seed), Faults { skid: (seed % 7, 40), ..Faults::default() });
        assert!(report.holds(), "seed {seed}\n{}", show(&report));
    }
}

#[test]
fn the_same_seed_gives_the_same_report() {
    let run = || show(&proof(&Form::short(9), Faults { skid: (5, 40), ..Faults::default() }));
    assert_eq!(run(), run());
}

#[test]
fn a_count_too_many_per_exits_fails_what_exits() {
    let report = proof(&Form::short(1), Faults { overcount_every: 3, ..Faults::default() });
    let failed = failed(&report);
    for name in
        ["entry-exit", "ept-violations", "preemption-timer", "external-interrupts", "mtf", "injection"]
    {
        assert!(failed.contains(&name), "{name}\n{}", show(&report));
    }
}

#[test]
fn a_rare_count_too_many_is_found() {
    for every in [50, 500] {
        let report = proof(&Form::short(1), Faults { overcount_every: every, ..Faults::default() });
        assert!(!report.holds(), "one in {every}");
    }
}

#[test]
fn a_missed_rep_fails_the_rep_properties_alone() {
    let report = proof(&Form::short(1), Faults { undercount_rep: true, ..Faults::default() });
    let failed = failed(&report);
    assert!(failed.contains(&"rep-movs") && failed.contains(&"rep-stos"), "{}", show(&report));
    assert!(failed.iter().all(|name| name.starts_with("rep-")), "{}", show(&report));
}

#[test]
fn a_lost_interrupt_fails_the_overflow_property() {
    for every in [1, 2, 7, 29] {
        let report = proof(&Form::short(1), Faults { lost_pmi_every: every, ..Faults::default() });
        assert_eq!(failed(&report)[0], "overflow-interrupt", "{}", show(&report));
    }
}

#[test]
fn other_dishonesty_is_named() {
    let table: [(Faults, &str); 7] = [
        (Faults { taken_only: true, ..Faults::default() }, "not-taken-branches"),
        (Faults { count_faults: true, ..Faults::default() }, "faults"),
        (Faults { count_deliveries: true, ..Faults::default() }, "injection"),
        (Faults { no_mask: true, ..Faults::default() }, "overflow-interrupt"),
        (Faults { narrow: 32, ..Faults::default() }, "counter-width"),
        (Faults { general_misses: 100, ..Faults::default() }, "no-exits"),
        (Faults { skid: (900, 1000), ..Faults::default() }, "overflow-interrupt"),
    ];
    for (faults, name) in table {
        let report = proof(&Form::short(1), faults.clone());
        assert!(failed(&report).contains(&name), "{faults:?}\n{}", show(&report));
        assert!(!report.holds());
    }
}
