//! `cargo xtask pmu`: the proof of the performance counters.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::emulator::{self, Exit, Knobs, Machine, knobs};
use crate::image::Image;
use crate::{paths, proof, setup, ui};

/// Prove that the machine's performance counters can be trusted, or learn which property fails.
///
/// Boots the kernel on the emulated machine and has it run the boot proof in its long form: for each property, tiny guests
/// with exactly known counts, disturbed in every way the host can, then landings at random targets. --skid makes the
/// overflow interrupt late, as silicon does; --fault breaks the machine, to see that the proof finds it.
///
/// Exit status 0 when every property holds with all its landings, 1 when not. docs/boot-proof.md explains the table.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask pmu
  cargo xtask pmu --skid 64:128
  cargo xtask pmu --fault lost-pmi
  cargo xtask pmu --skid 5:40 --seed 7 --landings 5000 --json")]
pub struct Args {
    /// Deliver overflow interrupts late by MIN to MAX instructions
    #[arg(long, value_name = "MIN:MAX[:SEED]", value_parser = skid)]
    skid: Option<Skid>,
    /// Break the machine: overcount[:N], undercount-rep, lost-pmi[:N], no-pmu, vmx-locked (several: separate by commas)
    #[arg(long, value_name = "FAULT", value_parser = knobs::fault, value_delimiter = ',')]
    fault: Vec<String>,
    /// Seed of all random choices: targets, disturbances, the skid
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Landings per property; the short form, as at every boot, has 12
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    landings: Option<u32>,
    /// The short form, as at every boot
    #[arg(long)]
    short: bool,
    /// One JSON object per line instead of the console
    #[arg(long)]
    json: bool,
    /// Install what is missing without asking
    #[arg(long)]
    yes: bool,
}

/// Landings per property that each form has by itself.
const LONG_LANDINGS: u32 = replay::proof::Form::long(0).landings;
const SHORT_LANDINGS: u32 = replay::proof::Form::short(0).landings;

/// A proof that runs longer hangs.
const LIMIT: Duration = Duration::from_secs(60 * 60);

#[derive(Clone, Debug)]
struct Skid {
    range: String,
    seeded: bool,
}

fn skid(text: &str) -> Result<Skid> {
    let range = knobs::skid(text)?;
    let seeded = text.matches(':').count() == 2;
    let end = range.rfind(':').unwrap_or(range.len());
    Ok(Skid { range: if seeded { range } else { range[..end].to_owned() }, seeded })
}

impl Args {
    fn knobs(&self) -> Knobs {
        let skid = self.skid.as_ref().map(|skid| match skid.seeded {
            true => skid.range.clone(),
            false => format!("{}:{}", skid.range, self.seed),
        });
        Knobs { skid, fault: self.fault.clone(), seed: Some(self.seed), ..Knobs::default() }
    }

    /// The run's directory: what differs between two runs that may go on at once.
    fn name(&self) -> String {
        let knobs = self.knobs();
        let parts =
            ["pmu".to_owned(), self.seed.to_string(), knobs.skid.unwrap_or_default(), knobs.fault.join("-")];
        parts
            .iter()
            .filter(|part| !part.is_empty())
            .map(|part| part.replace(':', "."))
            .collect::<Vec<_>>()
            .join("-")
    }

    fn landings(&self) -> u32 {
        self.landings.unwrap_or(if self.short { SHORT_LANDINGS } else { LONG_LANDINGS })
    }

    fn words(&self) -> String {
        let form = if self.short { "short" } else { "long" };
        format!("after=exit proof={form} seed={} landings={}", self.seed, self.landings())
    }
}

/// Runs the verb.
///
/// # Errors
/// When something is missing, cannot be built or started, or the machine ends without a verdict.
pub fn run(args: Args) -> Result<ExitCode> {
    setup::ensure(setup::Purpose::Demo, args.yes)?;
    emulator::binary()?;
    let kernel = super::build::kernel()?;
    let iso = paths::out_dir()?.join(format!("{}.iso", args.name()));
    Image::for_run(kernel, &args.words())?.write_iso(&iso)?;
    let machine = Machine {
        limit: LIMIT,
        knobs: args.knobs(),
        live: !args.json,
        readable: true,
        ..Machine::from_iso(&args.name(), iso)
    };
    let outcome = machine.run()?;
    if !matches!(outcome.exit, Exit::Success | Exit::Failed | Exit::Refused) {
        bail!("{}\n{}", outcome.exit.sentence(), outcome.last_words());
    }
    let report = proof::rows(&outcome.console, args.landings().into());
    if args.json {
        return Ok(report.finish(true));
    }
    println!("\n{}", proof::verdict(&outcome.console, &report));
    ui::say(format!("Console and logs: {}", outcome.dir.display()));
    Ok(if report.met() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(words: &[&str]) -> Args {
        Line::try_parse_from(["pmu"].iter().chain(words)).unwrap_or_else(|error| panic!("{error}")).args
    }

    #[test]
    fn one_seed_is_enough() {
        let args = args(&["--skid", "5:40", "--seed", "7"]);
        assert_eq!(args.knobs().skid.as_deref(), Some("5:40:7"));
        assert_eq!(args.words(), "after=exit proof=long seed=7 landings=1000");
        assert_eq!(self::args(&["--skid", "5:40:3"]).knobs().skid.as_deref(), Some("5:40:3"));
    }

    #[test]
    fn forms_and_faults() {
        let args = args(&["--short", "--fault", "lost-pmi,overcount:7"]);
        assert_eq!(args.words(), "after=exit proof=short seed=1 landings=12");
        assert_eq!(args.knobs().fault, ["lost-pmi", "overcount:7"]);
        assert_eq!(args.name(), "pmu-1-lost-pmi-overcount.7");
        for bad in [["--fault", "gremlins"], ["--skid", "40:5"], ["--landings", "0"]] {
            assert!(Line::try_parse_from(["pmu"].iter().chain(&bad)).is_err(), "{bad:?}");
        }
    }
}
