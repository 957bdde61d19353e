//! Does a code written to the exit port come out as the emulator's exit status?
//!
//! The code is `code=` of the command line (default success); the host judges the status.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![deny(unsafe_code)]

use guests::{Report, boot, exit, println};

guests::program!(run);

fn run(_: &mut Report) {
    let code = boot::number("code", exit::Code::Success as u64) as u32;
    println!("@@ fact exit-code={code}");
    exit::exit_with(code)
}
