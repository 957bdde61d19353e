//! Does an interrupt, or a page fault, come back to the same iteration of a repeated string instruction?
//!
//! Words: see `guests::diverge`; part=plain|faulting|ports.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![deny(unsafe_code)]

use guests::{Report, diverge};

guests::program!(run);

fn run(report: &mut Report) {
    use diverge::strings::{faulting, plain, ports};
    diverge::run(report, "replay_strings", &[("plain", plain), ("faulting", faulting), ("ports", ports)]);
}
