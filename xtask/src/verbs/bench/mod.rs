//! `cargo xtask bench`: measurements, each against a peer and a goal. A benchmark is a file here and a line in the enum.

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

pub mod boot;
pub mod emulator;
pub mod exits;
pub mod ft;
pub mod replay;

/// Measure, each figure against a peer in the same run.
///
/// Prints a table, or with --json one object per line with bench, row, value, unit, goal, peer and peer_value. Exit status
/// 1 when a row misses its goal.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    Boot(boot::Args),
    Exits(exits::Args),
    Emulator(emulator::Args),
    Replay(replay::Args),
    Ft(ft::Args),
}

/// Runs the verb.
///
/// # Errors
/// When the benchmark cannot be run; a missed goal is the exit status.
pub fn run(args: Args) -> Result<ExitCode> {
    match args.bench {
        Bench::Boot(args) => boot::run(args),
        Bench::Exits(args) => exits::run(args),
        Bench::Emulator(args) => emulator::run(args),
        Bench::Replay(args) => replay::run(args),
        Bench::Ft(args) => ft::run(args),
    }
}
