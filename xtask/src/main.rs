//! `cargo xtask`: hands the command line to the tool library and prints what went wrong, if anything did.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    xtask::cli::main()
}
