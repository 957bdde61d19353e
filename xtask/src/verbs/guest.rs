//! `cargo xtask guest`: one test kernel on the emulated machine.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::emulator::{Knobs, Machine};
use crate::{guests, linux_image, setup, ui};

/// Run one of the test kernels of tests/guests on the emulated machine.
///
/// Each asks the machine one question and says what it found. Without a NAME the questions are listed. WORDS go to its
/// command line. The name `linux` is an unmodified Linux of this system's package archive with checks of its own: does it
/// count exactly, also in a guest of its KVM?
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask guest
  cargo xtask guest pmu_count
  cargo xtask guest pmu_pmi --skid 5:40 skid=5:40
  cargo xtask guest linux")]
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
        println!("{:20} Does an unmodified Linux count exactly, also in a guest of its KVM?", "linux");
        return Ok(ExitCode::SUCCESS);
    };
    setup::ensure(setup::Purpose::Demo, false)?;
    let words: Vec<&str> =
        ["exit-port=0xf4"].into_iter().chain(args.words.iter().map(String::as_str)).collect();
    let (iso, memory_mib) = image(name, &words.join(" "))?;
    let machine = Machine {
        cpus: args.cpus,
        memory_mib,
        knobs: args.knobs,
        limit: Duration::from_secs(args.limit),
        live: true,
        ..Machine::from_iso(&format!("guest-{name}"), iso)
    };
    Ok(super::bochs::conclude(&machine.run()?))
}

/// The image of a test kernel, or of Linux, with this command line; the memory it wants, MiB.
fn image(name: &str, words: &str) -> Result<(PathBuf, u32)> {
    if name == "linux" {
        return Ok((linux_image::iso(words)?, linux_image::MEMORY_MIB));
    }
    let step = ui::step(format!("build the test kernel {name}"));
    let kernel = guests::build(name)?;
    let iso = guests::iso(&kernel, words)?;
    step.done();
    Ok((iso, Machine::from_iso("", PathBuf::new()).memory_mib))
}
