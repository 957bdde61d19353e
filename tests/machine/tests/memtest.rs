//! Something that is no Linux boots from a bzImage and uses the machine in its own way: memtest86+ from its package, its 64-bit
//! program and its 32-bit one.

use machine_tests::{Description, Payload, Start, host, payload};

/// Its tests go by number and are announced on the screen; when the eighth begins, seven have been over all memory, among them
/// those with the longest loops and with string instructions.
const REACHED: &str = "#8  [";
/// How many of the eight must have been announced: the screen is drawn from time to time, and a short test can fall between.
const ANNOUNCED: usize = 4;

fn tests_its_memory_and_finds_no_error(description: &Description) {
    let vm = description.vm().unwrap();
    let mut started = host().start(&vm).unwrap();
    let reached = started.running.wait_for(REACHED).unwrap();
    let (outcome, _) = started.stop().unwrap();
    let console = &outcome.console;
    assert!(reached, "{}", outcome.last_words());
    assert!(console.contains("Memtest86+"), "{}", outcome.last_words());
    let announced = (0..=8).filter(|number| console.contains(&format!("#{number}  ["))).count();
    assert!(announced >= ANNOUNCED, "{announced} tests announced:\n{}", outcome.last_words());
    let errors: Vec<&str> =
        console.split("Errors: ").skip(1).filter_map(|rest| rest.split_whitespace().next()).collect();
    assert!(errors.len() > 5 && errors.iter().all(|count| *count == "0"), "{errors:?}");
    assert!(!console.contains("event=stopped"), "{}", outcome.last_words());
}

/// It with little memory: that is quick.
fn memtest() -> Description {
    let mut description = payload(Payload::Memtest, "");
    description.memory.bytes = 8 << 20;
    description
}

#[test]
fn memtest_tests_the_guest_s_memory_in_64_bit_mode() {
    tests_its_memory_and_finds_no_error(&memtest());
}

#[test]
fn memtest_tests_the_guest_s_memory_in_32_bit_mode() {
    let mut description = memtest();
    let Start::Kernel { kernel, .. } = &mut description.start else { panic!("{description:?}") };
    kernel.set_file_name("memtest86+ia32.bin");
    tests_its_memory_and_finds_no_error(&description);
}
