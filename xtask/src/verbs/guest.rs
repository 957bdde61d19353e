//! `cargo xtask guest`: one test kernel on the emulated machine.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::emulator::{Knobs, Machine};
use crate::{guests, setup, ui};

/// Run one of the test kernels of tests/guests on the emulated machine.
///
/// Each asks the machine one question and says what it found. Without a NAME the questions are listed. WORDS go to its
/// command line.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask guest
  cargo xtask guest pmu_count
  cargo xtask guest pmu_pmi --skid 5:40 skid=5:40")]
pub struct Args {
    /// The test kernel
    name: Option<String>,
    /// Words for its command line
    words: Vec<String>,
    /// Processors
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    cpus: u32,
    /// Stop after so many seconds of wall-clock time
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    limit: u64,
    #[command(flatten)]
    knobs: Knobs,
}

/// Runs the verb.
///
/// # Errors
/// When the test kernel does not compile or the machine cannot be started.
pub fn run(args: Args) -> Result<ExitCode> {
    let Some(name) = &args.name else {
        for name in guests::programs()? {
            println!("{name:20} {}", guests::question(&name));
        }
        return Ok(ExitCode::SUCCESS);
    };
    setup::ensure(setup::Purpose::Demo, false)?;
    let step = ui::step(format!("build the test kernel {name}"));
    let kernel = guests::build(name)?;
    let words: Vec<&str> =
        ["exit-port=0xf4"].into_iter().chain(args.words.iter().map(String::as_str)).collect();
    let iso = guests::iso(&kernel, &words.join(" "))?;
    step.done();
    let machine = Machine {
        cpus: args.cpus,
        knobs: args.knobs,
        limit: Duration::from_secs(args.limit),
        live: true,
        ..Machine::from_iso(&format!("guest-{name}"), iso)
    };
    Ok(super::bochs::conclude(&machine.run()?))
}
