//! The hypervisor's shell on the serial port, typed at from outside.

use machine_tests::{Exit, Machine, Nic, NicMode, Running, Serial, kernel_machine};

/// Types a line and waits for what it must bring.
fn answers(shell: &mut Running, keys: &str, wanted: &str) {
    let before = shell.console().len();
    shell.send(keys).unwrap();
    let came = shell.wait_for_after(before, wanted).unwrap();
    assert!(came, "{keys:?}: no {wanted:?} in:\n{}", shell.console().get(before..).unwrap_or_default());
}

#[test]
fn a_person_can_ask_and_order() {
    let nics = vec![Nic::new(1, NicMode::Unplugged)];
    let machine = Machine { serial: Serial::Typed, nics, ..kernel_machine("proof=off") };
    let mut shell = machine.start().unwrap();
    assert!(shell.wait_for("lockstep> ").unwrap(), "{}", shell.console());
    assert!(shell.console().contains("@@ serial by=interrupts"));
    answers(&mut shell, "help\r", "attach   give the line to the guest's console");
    answers(&mut shell, "pci\r", "network controller");
    answers(&mut shell, "net\r", "0000:00:02.0 (82540EM by e1000): 52:54:00:");
    answers(&mut shell, "pmu\r", "the boot proof was not run");
    answers(&mut shell, "vm\r", "there is no virtual machine");
    answers(&mut shell, "mem\r", "0 received bytes lost");
    answers(&mut shell, "ev\t 2\r", "cpu0:");
    answers(&mut shell, "log trace\r", "lockstep> ");
    answers(&mut shell, "lg\x1b[Do\r", "* trace");
    answers(&mut shell, "nonsense\r", "nonsense: no such command");
    answers(&mut shell, "ä", "only ASCII");
    let before = shell.console().len();
    // Much at once: nothing is lost.
    shell.send(&"uptime\r".repeat(100)).unwrap();
    assert!(shell.wait_for_after(before, "lockstep> ").unwrap());
    answers(&mut shell, "version\r", "Lockstep 0.1.0 on host lockstep");
    let uptimes = shell.console().get(before..).unwrap_or_default().matches("0 days 00:").count();
    assert_eq!(uptimes, 100);
    answers(&mut shell, "mem\r", "0 received bytes lost");
    // The machine comes up again.
    answers(&mut shell, "reboot now\r", "@@ tsc hertz=");
    let outcome = shell.stop().unwrap();
    assert_eq!(outcome.exit, Exit::Reached);
}
