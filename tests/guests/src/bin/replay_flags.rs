//! Does an interrupt come where it came before, where it is let in for one instruction, or where another one is being served?
//!
//! Words: see `guests::diverge`; part=halts|dances|nmis|nested.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![deny(unsafe_code)]

use guests::{Report, diverge};

guests::program!(run);

fn run(report: &mut Report) {
    diverge::run(
        report,
        "replay_flags",
        &[
            ("halts", diverge::flags::halts),
            ("dances", diverge::flags::dances),
            ("nmis", diverge::flags::nmis),
            ("nested", diverge::flags::nested),
        ],
    );
}
