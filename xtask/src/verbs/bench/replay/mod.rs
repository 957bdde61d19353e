//! `cargo xtask bench replay`: what recording and replaying cost, beside QEMU's own record/replay on the same loads.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};

mod ours;
mod peer;
mod table;

use crate::setup::{self, Purpose};
use crate::{emulator, ui};

/// The loads, in the order in which they run.
const LOADS: [&str; 9] =
    [table::NOTHING, table::BASE, "cpu", "gzip", "fork", "idle", "disk", "netrx", "nettx"];

/// Recording and replaying: bytes of log, guest work, time, landings; beside QEMU's record/replay.
///
/// Every load runs not recorded, recorded with strict paging (and some with fast), and replayed: first on a host with another skid,
/// whose time counts, then on others that behave otherwise on purpose, too. A load's own cost and log are those of its run without those of a run that only boots. Cost is instructions of
/// the emulated host; QEMU's is its processor time in user mode, since its emulated time is a function of the guest's instructions.
///
/// The peer is the qemu-system-x86_64 that is installed, with the same kernel, initial file system and loads.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask bench replay
  cargo xtask bench replay --json
  cargo xtask bench replay --loads nothing,boot,cpu --no-peer     (rows that need other loads are left out)
  cargo xtask bench replay --replays 3 --skid 5:40")]
pub struct Args {
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    /// Size of the loads, MB
    #[arg(long, value_name = "MB", default_value_t = 32)]
    size: u32,
    /// Instructions per emulated second: how much work there is between two timer ticks
    #[arg(long, value_name = "N", default_value_t = 1_000_000_000)]
    ips: u64,
    /// Skid of the replaying hosts
    #[arg(long, value_name = "MIN:MAX", default_value = "64:128")]
    skid: String,
    /// Replays of each recording
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=20))]
    replays: u32,
    /// Only these loads, separated by commas
    #[arg(long, value_name = "LOADS", value_delimiter = ',', value_parser = load, default_values_t = LOADS.map(String::from))]
    loads: Vec<String>,
    /// Leave QEMU out
    #[arg(long)]
    no_peer: bool,
    /// Only QEMU
    #[arg(long, conflicts_with = "no_peer", hide = true)]
    only_peer: bool,
    /// Install what is missing without asking
    #[arg(long)]
    yes: bool,
    /// Use this build of Lockstep instead of building it
    #[arg(long, value_name = "FILE")]
    hypervisor: Option<PathBuf>,
}

fn load(text: &str) -> Result<String> {
    if LOADS.contains(&text) {
        return Ok(text.to_owned());
    }
    bail!("no load `{text}`; there are: {}", LOADS.join(", "))
}

/// Runs the benchmark.
///
/// # Errors
/// When something cannot be run or does not end as it should; a missed goal is the exit status.
pub fn run(args: Args) -> Result<ExitCode> {
    setup::ensure(Purpose::Bench, args.yes)?;
    emulator::binary()?;
    let loads: Vec<&'static str> =
        LOADS.into_iter().filter(|load| args.loads.iter().any(|wanted| wanted == load)).collect();
    let payload = f64::from(args.size) * f64::from(1 << 20);
    let beside = || -> Result<Option<table::Side>> {
        if args.no_peer {
            return Ok(None);
        }
        if !installed(peer::PROGRAM) {
            ui::say(format!("{} is not installed: the peer is left out.", peer::PROGRAM));
            return Ok(None);
        }
        let loads = loads.iter().copied().filter(|load| *load != table::NOTHING).collect();
        peer::Peer { size: args.size, replays: args.replays, loads }.run().map(Some)
    };
    if args.only_peer {
        let Some(peer) = beside()? else { bail!("there is no peer") };
        return Ok(table::table(&peer, None, payload).finish(args.json));
    }
    let kernel = args.hypervisor.clone().map_or_else(crate::verbs::build::kernel, Ok)?;
    let (size, ips, skid, replays) = (args.size, args.ips, args.skid.clone(), args.replays);
    let ours = ours::Bench { kernel, size, ips, skid, replays, loads: loads.clone() }.run()?;
    let peer = beside()?;
    Ok(table::table(&ours, peer.as_ref(), payload).finish(args.json))
}

fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}
