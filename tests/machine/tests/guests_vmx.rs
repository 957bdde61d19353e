//! VMX beyond the plain runs: page walks and the TLB with the machine's speculation on.

use machine_tests::{Exit, Knobs, Machine, expect, guest_machine, passes, passes_on};

fn tlb(text: &str) -> Knobs {
    Knobs { tlb: Some(text.into()), ..Knobs::default() }
}

#[test]
fn a_plain_machine_neither_speculates_nor_forgets() {
    passes("tlb");
}

#[test]
fn speculation_sets_accessed_bits_and_evictions_happen() {
    // 400,000 to 600,000 instructions in each loop: 1000 walks and 200 evictions a million are hundreds.
    for seed in 1..=3 {
        let machine = guest_machine("tlb", "walks=1:255 evictions=5:200");
        passes_on(&Machine { knobs: tlb(&seed.to_string()), ..machine });
    }
}

#[test]
fn walks_and_evictions_can_be_had_apart() {
    // A walk fills an entry of the TLB and so drives another out now and then.
    let machine = guest_machine("tlb", "walks=1:255 evictions=0:5000");
    passes_on(&Machine { knobs: tlb("4:20000:0"), ..machine });
    let machine = guest_machine("tlb", "walks=0:0 evictions=100:40000");
    passes_on(&Machine { knobs: tlb("4:0:50000"), ..machine });
}

#[test]
fn speculation_that_nobody_expects_is_seen() {
    let machine = guest_machine("tlb", "");
    let outcome = expect(&Machine { knobs: tlb("1"), ..machine }, Exit::Failed);
    let failed = outcome.facts("check").filter(|check| check.contains(" verdict=fail ")).count();
    assert_eq!(failed, 2, "walks and evictions, nothing else");
}

#[test]
fn counting_and_stepping_are_the_same_under_speculation() {
    for program in ["pmu_count", "vmx_pmu", "vmx_mtf"] {
        passes_on(&Machine { knobs: tlb("5:20000:20000"), ..guest_machine(program, "") });
    }
}

#[test]
fn without_vmx_the_programs_refuse() {
    for program in ["vmx_pmu", "vmx_mtf", "vmx_ad", "tlb"] {
        let knobs = Knobs { fault: vec!["no-vmx".into()], ..Knobs::default() };
        expect(&Machine { knobs, ..guest_machine(program, "") }, Exit::Refused);
    }
    let knobs = Knobs { fault: vec!["no-mtf".into()], ..Knobs::default() };
    expect(&Machine { knobs, ..guest_machine("vmx_mtf", "") }, Exit::Refused);
}
