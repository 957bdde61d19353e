//! Does a guest that waits for clocks, disks and frames by looking wait for the same number of looks again?
//!
//! Words: see `guests::diverge`; part=clocks|disk|random|net.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![deny(unsafe_code)]

use guests::{Report, diverge};

guests::program!(run);

fn run(report: &mut Report) {
    diverge::run(
        report,
        "replay_devices",
        &[
            ("clocks", diverge::devices::clocks),
            ("disk", diverge::devices::disk),
            ("random", diverge::devices::random),
            ("net", diverge::devices::net),
        ],
    );
}
