//! An unmodified Linux on the emulated machine counts exactly, by itself and in a guest of its KVM.

use machine_tests::{Exit, Knobs, LIMIT, Machine, expect, passes_on, test_name};
use xtask::linux_image;

fn linux(words: &str) -> Machine {
    let iso =
        linux_image::iso(&format!("exit-port=0xf4 {words}")).unwrap_or_else(|error| panic!("{error:#}"));
    Machine { memory_mib: linux_image::MEMORY_MIB, limit: LIMIT, ..Machine::from_iso(&test_name(), iso) }
}

#[test]
fn linux_counts_exactly_itself_and_in_a_kvm_guest() {
    let outcome = passes_on(&linux(""));
    let checks: Vec<&str> = outcome.facts("check").collect();
    let has = |start: &str| checks.iter().any(|check| check.starts_with(start));
    assert!(has("name=samples ") && has("name=guest-instructions-least:spin-3000000 "), "{checks:?}");
}

#[test]
fn a_count_too_many_at_exits_is_seen_by_linux() {
    let knobs = Knobs { fault: vec!["overcount:4".into()], ..Knobs::default() };
    let outcome = expect(&Machine { knobs, ..linux("skip=host") }, Exit::Failed);
    let failed = |name: &str| {
        let start = format!("name={name} verdict=fail");
        outcome.facts("check").any(|check| check.starts_with(&start))
    };
    assert!(failed("guest-instructions-least:cpuid-1000"), "{}", outcome.console);
    assert!(failed("guest-conditional-least:out-300"), "{}", outcome.console);
}
