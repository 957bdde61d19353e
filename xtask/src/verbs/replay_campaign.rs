//! `cargo xtask replay-campaign`: record and replay under host conditions that a seed has chosen.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::replaying::campaign::{Campaign, Done};
use crate::replaying::guests::{self, Guest};
use crate::replaying::progress::size;
use crate::setup::{self, Purpose};
use crate::{emulator, ui};

/// How much of a failure is shown, lines; --json has all of it.
const SHOWN_LINES: usize = 8;

/// Record and replay guests under host conditions that a seed has chosen.
///
/// Each run chooses a guest (test kernels that try to execute differently the second time, loads of Linux), a host that records and
/// one to three hosts that replay: skid of the overflow interrupt, speculative page walks and TLB evictions, clock rate,
/// and by seed everything in which the kernel may behave differently on another host. Paging is strict. Every replay must be
/// equal at every synchronous exit and every checkpoint, and give the same fingerprint.
///
/// A run is a function of the seed and its number; a failure prints the command that repeats it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask replay-campaign
  cargo xtask replay-campaign --seed 7 --runs 100 --jobs 2 --json
  cargo xtask replay-campaign --seed 7 --from 31 --runs 1 --keep     (one run, by itself; its log is kept)
  cargo xtask replay-campaign --guest linux --runs 20               (only guests whose names contain this)
  cargo xtask replay-campaign --plan --runs 20                       (says what would be run)
  cargo xtask replay-campaign --interrupts 1000000 --runs 1          (some ten minutes: a long run with many landings)")]
pub struct Args {
    /// The seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many runs
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    /// The number of the first run
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only guests whose names contain this
    #[arg(long, value_name = "NAME", default_value = "")]
    guest: String,
    /// Instead: record a guest that is interrupted so many times, and replay it under a skid of 64:128
    #[arg(long, value_name = "N", conflicts_with = "guest", value_parser = clap::value_parser!(u64).range(1..))]
    interrupts: Option<u64>,
    /// Machines at a time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64))]
    jobs: u64,
    /// Keep the logs of runs that went well, too (target/out/campaign)
    #[arg(long)]
    keep: bool,
    /// Only say what would be run
    #[arg(long)]
    plan: bool,
    /// Give a machine up after so many seconds of wall-clock time
    #[arg(long, default_value_t = 1800, value_name = "SECONDS")]
    timeout: u64,
    /// Use this build of Lockstep instead of building it
    #[arg(long, value_name = "FILE")]
    hypervisor: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
///
/// # Errors
/// When something is missing that kept the campaign from running; what it found is the exit status.
pub fn run(args: Args) -> Result<ExitCode> {
    let guests: Vec<Guest> = match args.interrupts {
        Some(times) => vec![Guest::interrupted(times)],
        None => guests::all().into_iter().filter(|guest| guest.name.contains(&args.guest)).collect(),
    };
    if guests.is_empty() {
        let names: Vec<&str> = guests::all().into_iter().map(|guest| guest.name).collect();
        bail!("no guest's name contains `{}`; there are: {}", args.guest, names.join(", "));
    }
    let mut campaign = Campaign {
        seed: args.seed,
        runs: args.from..args.from.saturating_add(args.runs),
        guests,
        kernel: PathBuf::new(),
        jobs: usize::try_from(args.jobs)?,
        limit: Duration::from_secs(args.timeout),
        keep: args.keep,
        selection: args.interrupts.map_or(args.guest.clone(), |_| "interrupts".into()),
        interrupts: args.interrupts,
    };
    if args.plan {
        for run in campaign.runs.clone() {
            println!("{}", serde_json::to_string(&campaign.plan(run))?);
        }
        return Ok(ExitCode::SUCCESS);
    }
    setup::ensure(Purpose::Demo, false)?;
    emulator::binary()?;
    campaign.kernel = args.hypervisor.clone().map_or_else(super::build::kernel, Ok)?;
    let all = campaign.run(|done| {
        if !args.json {
            tell(done);
        }
    })?;
    let failed = all.iter().filter(|done| done.failure.is_some()).count();
    if args.json {
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        print!("{}", summary(&all));
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A run that is done, on a line.
fn tell(done: &Done) {
    let (verdict, what) = match &done.failure {
        None => ("ok", format!("{} replays equal", done.equal)),
        Some(why) => ("FAIL", why.lines().take(SHOWN_LINES).collect::<Vec<_>>().join("\n        ")),
    };
    ui::say(format!(
        "  {verdict:<5} run {}: {}, {} of log, {what} ({})",
        done.plan.run,
        done.plan.guest,
        size(done.bytes),
        ui::seconds(Duration::from_secs_f64(done.seconds))
    ));
    if let Some(repeat) = &done.repeat {
        ui::say(format!("        To repeat it: {repeat}"));
    }
}

/// A line for each guest, and one for all.
fn summary(all: &[Done]) -> String {
    let mut names: Vec<&str> = all.iter().map(|done| done.plan.guest).collect();
    names.sort_unstable();
    names.dedup();
    let mut text = format!(
        "{:<18} {:>5} {:>8} {:>7} {:>9} {:>9} {:>12} {:>11} {:>9} {:>14}\n",
        "guest",
        "runs",
        "replays",
        "equal",
        "failures",
        "entries",
        "instructions",
        "checkpoints",
        "landings",
        "exits each"
    );
    for name in &names {
        let of_guest: Vec<&Done> = all.iter().filter(|done| done.plan.guest == *name).collect();
        text += &line(name, &of_guest);
    }
    text + &line("all", &all.iter().collect::<Vec<_>>())
}

fn line(name: &str, runs: &[&Done]) -> String {
    let sum = |of: fn(&Done) -> u64| runs.iter().map(|done| of(done)).sum::<u64>();
    let landings = sum(|done| done.landings);
    let each = sum(|done| done.landing_exits) as f64 / landings.max(1) as f64;
    format!(
        "{name:<18} {:>5} {:>8} {:>7} {:>9} {:>9} {:>12} {:>11} {:>9} {each:>14.2}\n",
        runs.len(),
        sum(|done| done.plan.replays.len() as u64),
        sum(|done| done.equal as u64),
        sum(|done| u64::from(done.failure.is_some())),
        sum(|done| done.entries),
        sum(|done| done.instructions),
        sum(|done| done.checkpoints),
        landings,
    )
}
