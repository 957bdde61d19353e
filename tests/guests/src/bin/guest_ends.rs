//! Does the machine start anew when it is told to?
//!
//! Words: way=0 the reset control register, 1 the keyboard controller, 2 port 92h, 3 a triple fault, 4 the FADT's way.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![deny(unsafe_code)]

use guests::{Report, boot, wild};

guests::program!(run);

fn run(_: &mut Report) {
    wild::reset(boot::number("way", 0))
}
