//! Every test kernel on a plain machine: one processor, no skid, no faults.

use machine_tests::passes;

/// One test for each program, and the list of them for the test of the list.
macro_rules! programs {
    ($($name:ident),* $(,)?) => {
        const PROGRAMS: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() {
                passes(stringify!($name));
            }
        )*
    };
}

programs![machine_time, pmu_count, pmu_msr, pmu_pmi, vmx_ad, vmx_mtf, vmx_pmu];

/// Programs that need more than a plain machine, or whose exit status another file here judges.
const ELSEWHERE: &[&str] = &[
    "chaos_guest",
    "counter",
    "determinism",
    "exit_port",
    "faults",
    "guest_devices",
    "guest_ends",
    "guest_exits",
    "nic_frames",
    "nic_ring",
    "pingpong",
    "rdrand",
    "replay_code",
    "replay_debug",
    "replay_devices",
    "replay_flags",
    "replay_loops",
    "replay_paging",
    "replay_strings",
    "replay_tasks",
    "smp",
    "tlb",
];

#[test]
fn no_program_is_forgotten() {
    for name in xtask::guests::programs().unwrap() {
        let listed = PROGRAMS.contains(&name.as_str()) || ELSEWHERE.contains(&name.as_str());
        assert!(listed, "tests/guests/src/bin/{name}.rs is run by no test");
    }
    let tests = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests")).unwrap();
    let paths = tests.map(|entry| entry.unwrap().path());
    let others: Vec<_> = paths.filter(|path| path.is_file() && !path.ends_with("guests.rs")).collect();
    let text: String = others.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    for name in ELSEWHERE {
        assert!(
            text.contains(&format!("\"{name}\"")),
            "no other file here runs tests/guests/src/bin/{name}.rs"
        );
    }
}
