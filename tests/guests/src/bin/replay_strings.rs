//! Does an interrupt, or a page fault, come back to the same iteration of a repeated string instruction?
//!
//! Words: see `guests::diverge`; part=plain|faulting|ports|heavy|long; the last two only by their names.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![deny(unsafe_code)]

use guests::{Report, diverge};

guests::program!(run);

fn run(report: &mut Report) {
    use diverge::strings::{faulting, heavy, long, plain, ports};
    if diverge::named("long") {
        return diverge::run(report, "replay_strings", &[("long", long)]);
    }
    if diverge::named("heavy") {
        return diverge::run(report, "replay_strings", &[("heavy", heavy)]);
    }
    diverge::run(report, "replay_strings", &[("plain", plain), ("faulting", faulting), ("ports", ports)]);
}
