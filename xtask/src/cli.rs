//! The command line: parses it, calls the verb, turns an error into a message for people.

use std::process::ExitCode;

use clap::Parser;

use crate::verbs::Verb;

/// Builds, boots, tests and measures Lockstep. No Intel hardware is needed: guests run on an emulated machine
/// that this tool builds once and keeps in a cache.
///
/// New here? `cargo xtask demo` shows it working, `cargo xtask doctor` says what this host can do,
/// `cargo xtask test` runs every test.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    version,
    disable_help_subcommand = true,
    after_help = "Environment:
  LOCKSTEP_CACHE         where the emulator and downloads are kept (default: ~/.cache/lockstep)
  LOCKSTEP_BOCHS         run this emulator binary instead of building ours
  LOCKSTEP_BOCHS_SOURCE  take the emulator's source from this file instead of the network
  CI=true                never ask; the same as --yes

Exit status: 0 all is well; 1 a test, a proof or a goal failed; 2 the command line is wrong or something is missing."
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.verb.run() {
        Ok(code) => code,
        Err(error) => {
            crate::ui::error(&error);
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_explains_itself() {
        for verb in super::Cli::command().get_subcommands() {
            let about = verb.get_about().map(|a| a.to_string()).unwrap_or_default();
            assert!(about.len() >= 20, "`{}` needs a doc comment that says what it does", verb.get_name());
        }
    }
}
