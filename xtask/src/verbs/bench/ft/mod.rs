//! `cargo xtask bench ft`: what protection costs, and what a takeover takes, with and without in one run.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use vm_config::Paging;

mod alone;
mod echo;
mod idle;
mod loads;
mod table;
mod takeover;
mod wire;

use crate::pairing::plan::PairOptions;
use crate::setup::{self, Purpose};
use crate::vm::host::Host;
use crate::{emulator, ui};

/// A run that takes longer by the wall clock hangs.
const LIMIT: Duration = Duration::from_secs(60 * 60);

/// The parts, in the order in which they run.
const PARTS: [&str; 5] = ["echo", "takeover", "idle", "network", "work"];

/// A protected virtual machine against the same one unprotected: guest work, network, echo, takeover, lag, log rate.
///
/// Everything is measured in emulated time, by which a host executes --ips instructions a second, and cables have a latency of
/// 50 us and carry 1 Gbit/s: the wall clock plays no part, and the same seed gives the same figures. "Protected" is a pair of hosts on
/// the lock-step network with different skids; "unprotected" is one such host with the same guest, stations and
/// cables. A load's own time is that of a run with it less that of a run without. The paper's and COLO's figures are printed beside;
/// they were measured on other machines.
///
/// work      what the guest gets done: boot, cpu, gzip, fork, redis (redis-benchmark within the guest); and how far the backup was
///           behind
/// network   a stream into the guest, and one out of it
/// echo      pings of an idle guest: the round trip that the output rule adds
/// takeover  the primary is killed at seeded moments; how long nobody answers a ping every 5 ms
/// idle      what passes on the logging network while a Linux does nothing
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:
  cargo xtask bench ft
  cargo xtask bench ft --json
  cargo xtask bench ft --only echo,takeover --kills 5
  cargo xtask bench ft --only work --loads cpu,gzip --size 8

docs/ft-cost.md explains each row and has the figures of the last full run."
)]
pub struct Args {
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    /// Only these parts, separated by commas
    #[arg(long, value_name = "PARTS", value_delimiter = ',', value_parser = part, default_values_t = PARTS.map(String::from))]
    only: Vec<String>,
    /// Of the part work, only these loads
    #[arg(long, value_name = "LOADS", value_delimiter = ',', value_parser = load, default_values_t = loads::WORK.map(String::from))]
    loads: Vec<String>,
    /// Size of the loads, MB
    #[arg(long, value_name = "MB", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=256))]
    size: u32,
    /// Instructions per emulated second
    #[arg(long, value_name = "N", default_value_t = 1_000_000_000, value_parser = clap::value_parser!(u64).range(1_000_000..))]
    ips: u64,
    /// Seed of everything that differs between hosts and between runs
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Paging of the protected guest, in the parts work and network: strict, or fast, for guests that are known to be safe with it
    #[arg(long, value_name = "MODE", default_value = "strict", value_parser = crate::verbs::record::paging)]
    paging: Paging,
    /// How many primaries are killed
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    kills: u32,
    /// How long an idle guest is looked at, emulated seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    idle: u32,
    /// Install what is missing without asking
    #[arg(long)]
    yes: bool,
    /// Use this build of Lockstep instead of building it
    #[arg(long, value_name = "FILE")]
    hypervisor: Option<PathBuf>,
}

/// What all parts are made with.
#[derive(Clone, Debug)]
struct Bench {
    kernel: PathBuf,
    size: u32,
    ips: u64,
    seed: u64,
    paging: Paging,
}

impl Bench {
    /// A host, whose run's directory has this name.
    fn host(&self, name: &str) -> Host {
        Host { limit: LIMIT, ips: self.ips, ..Host::new(&format!("bench-ft-{name}"), self.kernel.clone()) }
    }

    /// A pair on such hosts. Nothing disturbs them: what a test does to find bugs would count as protection's cost.
    fn pair(&self, host: Host) -> PairOptions {
        PairOptions { seed: self.seed, vary: false, ..PairOptions::new(host) }
    }
}

fn part(text: &str) -> Result<String> {
    one_of(text, "part", &PARTS)
}

fn load(text: &str) -> Result<String> {
    one_of(text, "load", &loads::WORK)
}

fn one_of(text: &str, what: &str, all: &[&str]) -> Result<String> {
    if all.contains(&text) {
        return Ok(text.to_owned());
    }
    bail!("no {what} `{text}`; there are: {}", all.join(", "))
}

/// Runs the benchmark.
///
/// # Errors
/// When something cannot be run or does not end as it should; a missed goal is the exit status.
pub fn run(args: Args) -> Result<ExitCode> {
    setup::ensure(Purpose::Bench, args.yes)?;
    emulator::binary()?;
    let kernel = args.hypervisor.clone().map_or_else(crate::verbs::build::kernel, Ok)?;
    let bench = Bench { kernel, size: args.size, ips: args.ips, seed: args.seed, paging: args.paging };
    let has = |part: &str| args.only.iter().any(|wanted| wanted == part);
    let mut seen = table::Seen { payload: u64::from(args.size) << 20, ..table::Seen::default() };
    // A part that cannot be run is said, and the others are measured all the same.
    let mut failed = 0;
    let mut part = |name: &str, run: &mut dyn FnMut(&mut table::Seen) -> Result<()>| {
        if has(name)
            && let Err(error) = run(&mut seen)
        {
            ui::error(&error.context(format!("the part {name} cannot be measured")));
            failed += 1;
        }
    };
    part("echo", &mut |seen| {
        let (echo, figures) = echo::run(&bench)?;
        seen.echo = Some(echo);
        seen.figures.push(figures);
        Ok(())
    });
    part("takeover", &mut |seen| takeover::run(&bench, args.kills, &mut seen.takeovers));
    part("idle", &mut |seen| {
        seen.idle = Some(idle::run(&bench, args.idle)?);
        Ok(())
    });
    part("network", &mut |seen| loads::network(&bench, &mut seen.streams, &mut seen.figures));
    part("work", &mut |seen| loads::work(&bench, &args.loads, &mut seen.runs, &mut seen.figures));
    let status = table::table(&seen).finish(args.json);
    Ok(if failed > 0 { ExitCode::from(2) } else { status })
}
