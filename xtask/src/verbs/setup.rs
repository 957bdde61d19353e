//! `cargo xtask setup`: everything the other verbs need, ahead of time.

use std::process::ExitCode;

use anyhow::Result;

use crate::setup::{self, Plan, Purpose};
use crate::{emulator, ui};

/// Install what is needed: packages, the Rust target, the emulator.
///
/// The other verbs do this by themselves when something is missing; run it to have it done ahead of time. It names what
/// is missing and installs it as root or through sudo: on a terminal it asks, in scripts give --yes (CI=true counts as
/// that). Then it fetches the emulator's source, checks its sum, and builds it into the cache, once, in a few minutes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What you want to do afterwards
    #[arg(long = "for", value_name = "PURPOSE", default_value = "test")]
    purpose: Purpose,
    /// Install without asking
    #[arg(long)]
    yes: bool,
    /// Install nothing; exit status 0 if nothing is missing, 1 otherwise
    #[arg(long)]
    check: bool,
}

/// Runs the verb.
///
/// # Errors
/// When something is missing and cannot be installed.
pub fn run(args: Args) -> Result<ExitCode> {
    if args.check {
        return Ok(check(args.purpose));
    }
    setup::ensure(args.purpose, args.yes)?;
    let emulator = emulator::binary()?;
    ui::say(format!("Everything is there. The emulator is {}", emulator.display()));
    Ok(ExitCode::SUCCESS)
}

fn check(purpose: Purpose) -> ExitCode {
    match setup::plan::plan(&setup::facts(purpose), false) {
        Plan::Nothing => {
            ui::say("Nothing is missing.");
            ExitCode::SUCCESS
        }
        Plan::Install { packages, target, .. } => {
            let target = if target { " and the Rust target" } else { "" };
            ui::say(format!("Missing: {}{target}. `cargo xtask setup` installs it.", packages.join(" ")));
            ExitCode::from(1)
        }
        Plan::ByHand { commands, .. } => {
            ui::say(format!("Missing. To install, run:\n{}", crate::run::indent(&commands.join("\n"))));
            ExitCode::from(1)
        }
    }
}
