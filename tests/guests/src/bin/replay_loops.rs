//! Does an interrupt come back to the same iteration of a loop, where the instruction pointer does not tell one from the other?
//!
//! Words: see `guests::diverge`; part=endless|counted|wide, wide=N.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![deny(unsafe_code)]

use guests::{Report, diverge};

guests::program!(run);

fn run(report: &mut Report) {
    diverge::run(
        report,
        "replay_loops",
        &[
            ("endless", diverge::loops::endless),
            ("counted", diverge::loops::counted),
            ("wide", diverge::loops::wide),
        ],
    );
}
