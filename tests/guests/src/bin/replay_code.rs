//! Is code that changes itself, and is the state of FPU and vector registers, the same again under interrupts?
//!
//! Words: see `guests::diverge`; part=code|vectors.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![deny(unsafe_code)]

use guests::{Report, diverge};

guests::program!(run);

fn run(report: &mut Report) {
    diverge::run(report, "replay_code", &[("code", diverge::code::all), ("vectors", diverge::vectors::all)]);
}
