//! `cargo xtask pair-campaign`: many pairs, each with a misfortune of its own.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::pairing::campaign::{Draw, Guest, judge};
use crate::setup::{self, Purpose};
use crate::vm::host::Host;
use crate::{emulator, ui};

/// Run pairs whose hosts die, hang, or are cut off at moments that seeds draw, under a client that checks every answer.
///
/// Run n has the seed N + n, and is repeated by --seed with that number and --runs 1. A run fails when a client sees anything but
/// delay, when two virtual machines have lived, when a host panics, or when a replay has diverged. Exit status 0 when none failed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask pair-campaign --seed 1 --runs 100
  cargo xtask pair-campaign --seed 17 --runs 1
  cargo xtask pair-campaign --guest redis --seed 1 --runs 10")]
pub struct Args {
    /// Seed of the first run
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// How many runs
    #[arg(long, value_name = "M", default_value_t = 10)]
    runs: u64,
    /// What runs on both hosts
    #[arg(long, value_enum, default_value_t)]
    guest: Guest,
    /// Requests of the client in each run
    #[arg(long, value_name = "N", default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..=8000))]
    requests: u32,
    /// Use this build of Lockstep instead of building it
    #[arg(long, value_name = "FILE")]
    hypervisor: Option<PathBuf>,
    /// Stop a run after so many seconds of wall-clock time
    #[arg(long, value_name = "SECONDS", default_value_t = 1200)]
    timeout: u64,
    /// Only say what the seeds mean
    #[arg(long)]
    list: bool,
    /// Print a line of JSON for each run
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
///
/// # Errors
/// When something is missing; what the runs found is the exit status.
pub fn run(args: Args) -> Result<ExitCode> {
    let draws = (0..args.runs).map(|n| Draw::of(args.seed.wrapping_add(n), args.guest, args.requests));
    if args.list {
        draws.for_each(|draw| println!("{}", sentence(&draw)));
        return Ok(ExitCode::SUCCESS);
    }
    setup::ensure(Purpose::Demo, false)?;
    emulator::binary()?;
    let kernel = args.hypervisor.clone().map_or_else(super::build::kernel, Ok)?;
    let (mut failed, mut silences) = (Vec::new(), Vec::new());
    for draw in draws {
        let limit = Duration::from_secs(args.timeout);
        let host = Host { limit, ..Host::new("pair-campaign", kernel.clone()) };
        let result = judge(&draw, host, args.requests);
        let silence = result.as_ref().ok().and_then(|outcome| outcome.silence());
        if args.json {
            let outcome = result.as_ref().ok().map(|outcome| outcome.json());
            let error = result.as_ref().err().map(|error| format!("{error:#}"));
            println!(
                "{}",
                serde_json::json!({ "seed": draw.seed, "what": sentence(&draw), "error": error, "outcome": outcome })
            );
        } else {
            let silent =
                silence.map(|ns| format!("silent for {:.1} ms", ns as f64 / 1e6)).unwrap_or_default();
            let verdict = if result.is_ok() { "ok    " } else { "FAILED" };
            println!("{verdict} {}: {silent}", sentence(&draw));
        }
        silences.extend(silence.filter(|_| draw.is_protected()));
        if let Err(error) = result {
            if !args.json {
                ui::error(&error);
            }
            failed.push(draw.seed);
        }
    }
    silences.sort_unstable();
    let p99 = silences.get((silences.len() * 99 / 100).min(silences.len().saturating_sub(1)));
    let p99 = p99.map(|ns| format!("; silence p99 {:.1} ms", *ns as f64 / 1e6)).unwrap_or_default();
    ui::say(format!("{} runs, {} failed{p99}", args.runs, failed.len()));
    for seed in &failed {
        ui::say(format!(
            "again: cargo xtask pair-campaign{} --seed {seed} --runs 1 --requests {}",
            if args.guest == Guest::Redis { " --guest redis" } else { "" },
            args.requests
        ));
    }
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What befalls a run, and when.
fn sentence(draw: &Draw) -> String {
    let Draw { seed, incident, busy, guest } = draw;
    let guest = match (guest, busy) {
        (Guest::Redis, _) => "redis",
        (Guest::Counter, true) => "busy",
        (Guest::Counter, false) => "idle",
    };
    format!("seed {seed}, {guest} guest, {}: {}", incident.when, incident.what)
}
