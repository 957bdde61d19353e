//! Does a guest that single-steps itself and has breakpoints of its own see the same traps and interrupts again?
//!
//! Words: see `guests::diverge`; part=steps|code|data|both.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![deny(unsafe_code)]

use guests::{Report, diverge};

guests::program!(run);

fn run(report: &mut Report) {
    diverge::run(
        report,
        "replay_debug",
        &[
            ("steps", diverge::debug::steps),
            ("code", diverge::debug::code),
            ("data", diverge::debug::data),
            ("both", diverge::debug::both),
        ],
    );
}
