//! Do tasks with address spaces of their own, changed by the timer, change at the same instructions again?
//!
//! Words: see `guests::diverge`; part=tasks.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![deny(unsafe_code)]

use guests::{Report, diverge};

guests::program!(run);

fn run(report: &mut Report) {
    diverge::run(report, "replay_tasks", &[("tasks", diverge::tasks::all)]);
}
