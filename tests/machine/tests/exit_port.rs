//! A code written to the exit port comes out as the emulator's status, and every way to end is told from the others.

use machine_tests::{Exit, expect, guest_machine};

#[test]
fn each_agreed_code_means_what_it_should() {
    for (code, exit) in [
        (0x10, Exit::Success),
        (0x11, Exit::Panic),
        (0x12, Exit::Failed),
        (0x13, Exit::Refused),
        (5, Exit::Code(5)),
    ] {
        expect(&guest_machine("exit_port", &format!("code={code}")), exit);
    }
}

#[test]
fn two_runs_agree_to_the_tick() {
    let machine = guest_machine("exit_port", "");
    let ticks: Vec<_> = (0..2).map(|_| expect(&machine, Exit::Success).ticks).collect();
    assert!(ticks[0].is_some());
    assert_eq!(ticks[0], ticks[1]);
}
