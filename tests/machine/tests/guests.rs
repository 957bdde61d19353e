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

programs![pmu_count, pmu_msr, pmu_pmi];

/// Programs that need more than a plain machine, or whose exit status another file here judges.
const ELSEWHERE: &[&str] = &["exit_port"];

#[test]
fn no_program_is_forgotten() {
    for name in xtask::guests::programs().unwrap() {
        let listed = PROGRAMS.contains(&name.as_str()) || ELSEWHERE.contains(&name.as_str());
        assert!(listed, "tests/guests/src/bin/{name}.rs is run by no test");
    }
}
