//! Something that is no Linux boots from a bzImage and uses the machine in its own way: memtest86+.

use machine_tests::{Payload, host, payload};

#[test]
fn memtest_tests_the_guest_s_memory_and_finds_no_error() {
    let vm = payload(Payload::Memtest, "").vm().unwrap();
    let mut started = host().start(&vm).unwrap();
    let came = started.running.wait_for("Memtest86+").unwrap();
    assert!(came, "{}", started.running.console());
    // Its first test has run when it names the second.
    let on = started.running.wait_for("#2").unwrap() || started.running.wait_for("Test #1").unwrap();
    let (outcome, _) = started.stop().unwrap();
    assert!(on, "{}", outcome.last_words());
    assert!(!outcome.console.contains("event=stopped"), "{}", outcome.last_words());
}
