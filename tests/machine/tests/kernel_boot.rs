//! The kernel comes up on every number of processors, takes its options and modules, and its last words say what a
//! crash was.

use machine_tests::{Exit, LIMIT, Machine, Outcome, expect, kernel, kernel_machine, test_name};
use xtask::image::{Image, Module};

/// The one fact of this kind.
fn fact<'a>(outcome: &'a Outcome, word: &'a str) -> &'a str {
    let facts: Vec<_> = outcome.facts(word).collect();
    assert_eq!(facts.len(), 1, "@@ {word} in:\n{}", outcome.console);
    facts[0]
}

fn says(outcome: &Outcome, text: &str) {
    assert!(outcome.console.contains(text), "no \"{text}\" in:\n{}", outcome.console);
}

#[test]
fn one_two_and_four_processors() {
    for cpus in [1, 2, 4] {
        let machine = Machine { cpus, ..kernel_machine("after=exit proof=off") };
        let outcome = expect(&machine, Exit::Success);
        assert_eq!(fact(&outcome, "cpus"), format!("online={cpus} silent=0 beyond=0"));
        for id in 1..cpus {
            says(&outcome, &format!("cpu{id} info  APIC id {id} is up"));
        }
        assert!(fact(&outcome, "apic").contains("mode=X2Apic"));
        assert!(fact(&outcome, "paging").ends_with("writable-executable=0"));
        assert!(fact(&outcome, "acpi").contains(&format!("cpus={cpus} disabled=0")));
    }
}

#[test]
fn processors_start_by_the_memory_mapped_apic_too() {
    let machine = Machine { cpus: 2, ..kernel_machine("after=exit proof=off apic=xapic") };
    let outcome = expect(&machine, Exit::Success);
    assert!(fact(&outcome, "apic").contains("mode=XApic"));
    assert_eq!(fact(&outcome, "cpus"), "online=2 silent=0 beyond=0");
}

#[test]
fn the_clock_knows_the_emulated_rate() {
    for ips in [20_000_000, 50_000_000] {
        let machine = Machine { ips, ..kernel_machine("after=exit proof=off") };
        let outcome = expect(&machine, Exit::Success);
        let hertz = fact(&outcome, "tsc").split(' ').find_map(|w| w.strip_prefix("hertz=")).unwrap();
        let hertz: u64 = hertz.parse().unwrap();
        assert!(hertz.abs_diff(ips) <= ips / 100, "{hertz} Hz at {ips} instructions per second");
    }
}

/// Crashes in this way; the last words must name `cause`, say `words`, and have `function` in the backtrace.
fn crashes(way: &str, cause: &str, words: &str, function: &str) -> Outcome {
    let machine = Machine { cpus: 2, ..kernel_machine(&format!("proof=off crash={way}")) };
    let outcome = expect(&machine, Exit::Panic);
    let panic = fact(&outcome, "panic");
    assert!(panic.starts_with(&format!("cpu=0 cause={cause} rip=")), "{panic}");
    assert!(panic.ends_with(" deaf=0"), "every other processor stops: {panic}");
    says(&outcome, words);
    let trace = outcome.console.split("backtrace:").nth(1).unwrap_or_default();
    assert!(trace.contains(function), "no {function} in the backtrace:\n{trace}");
    assert!(trace.contains("lockstep::on_own_stack+"), "the chain reaches the start:\n{trace}");
    says(&outcome, "cpu1 events:");
    outcome
}

#[test]
fn a_panic_says_where() {
    crashes(
        "panic",
        "panic",
        "crash=panic was asked for (hypervisor/src/arch/crash.rs:",
        "lockstep::arch::crash::crash+",
    );
}

#[test]
fn a_page_fault_says_what_was_touched_and_how() {
    let crash = "lockstep::arch::crash::";
    crashes("pf", "page-fault", "page fault: write at 0x5ead00000000, not mapped", crash);
    crashes("write-text", "page-fault", ", not allowed", crash);
}

#[test]
fn data_cannot_be_executed() {
    crashes("execute-data", "page-fault", "page fault: execution at 0x", "lockstep::ending::end+");
}

#[test]
fn a_double_fault_and_a_protection_fault_have_their_registers() {
    for (way, cause, words) in [
        ("df", "double-fault", "exception 8 (double-fault)"),
        ("gp", "general-protection", "exception 13 (general-protection)"),
    ] {
        let outcome = crashes(way, cause, words, "lockstep::arch::crash::");
        for register in ["rax ", "rsp ", "rip ", "rflags ", "cr2 ", "efer "] {
            says(&outcome, register);
        }
    }
}

#[test]
fn a_stack_that_overflows_is_named_as_such() {
    let machine = kernel_machine("proof=off crash=stack");
    let outcome = expect(&machine, Exit::Panic);
    assert!(fact(&outcome, "panic").starts_with("cpu=0 cause=stack-overflow "));
    says(&outcome, "stack overflow: access to guard page at 0xffffff80");
    says(&outcome, "lockstep::arch::crash::recurse+");
}

#[test]
fn a_processor_that_hears_no_interrupts_is_stopped_by_nmi() {
    crashes("deaf-cpu", "panic", "crash=deaf-cpu was asked for", "lockstep::arch::crash::crash+");
}

#[test]
fn a_panic_on_another_processor_stops_the_first() {
    let machine = Machine { cpus: 2, ..kernel_machine("proof=off crash=other-cpu") };
    let outcome = expect(&machine, Exit::Panic);
    assert_eq!(fact(&outcome, "panic"), "cpu=1 cause=panic rip=0x0 deaf=0");
    says(&outcome, "crash=other-cpu was asked for");
    says(&outcome, "lockstep::smp::park+");
}

#[test]
fn allocation_after_its_end_is_a_panic() {
    let words = "asked for after the guest has started";
    crashes("late-allocation", "panic", words, "lockstep::arch::crash::crash+");
}

#[test]
fn a_bad_option_is_refused_by_name_and_an_unknown_one_is_told() {
    let outcome = expect(&kernel_machine("seed=many splash"), Exit::Refused);
    says(&outcome, "option seed=many: wants a number");
    says(&outcome, "option splash is not known; ignored");
    assert_eq!(fact(&outcome, "boot"), "verdict=refused");
}

#[test]
fn the_machine_switches_itself_off() {
    expect(&kernel_machine("proof=off after=poweroff"), Exit::PowerOff);
}

#[test]
fn modules_arrive_whole_and_the_configuration_counts() {
    let dir = std::env::temp_dir().join(format!("lockstep-{}-{}", test_name(), std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let (config, data) = (dir.join("host.conf"), dir.join("blob"));
    std::fs::write(&config, "# this host\nname=from-the-file seed=3\n").unwrap();
    // CRC-32 (ISO-HDLC) of "123456789" is the check value of its definition.
    std::fs::write(&data, "123456789").unwrap();
    let module = Module::parse(data.to_str().unwrap()).unwrap();
    let image = Image {
        config: Some(config),
        modules: vec![module],
        ..Image::for_run(kernel(), "proof=off").unwrap()
    };
    let iso = dir.join("image.iso");
    image.write_iso(&iso).unwrap();
    let machine = Machine { limit: LIMIT, ..Machine::from_iso(&test_name(), &iso) };
    let outcome = expect(&machine, Exit::Success);
    let modules: Vec<_> = outcome.facts("module").collect();
    assert_eq!(modules.len(), 2, "{}", outcome.console);
    assert!(modules[0].starts_with("index=0 name=config bytes=38 crc32="), "{}", modules[0]);
    assert_eq!(modules[1], "index=1 name=blob bytes=9 crc32=cbf43926");
    says(&outcome, "on host from-the-file");
    std::fs::remove_dir_all(&dir).unwrap();
}
