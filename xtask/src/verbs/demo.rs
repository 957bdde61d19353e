//! `cargo xtask demo`: the main job, from nothing to seen working.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::demo::pair::{Guest, PairDemo, Show};
use crate::demo::single::Single;
use crate::emulator::{self, knobs};
use crate::setup::{self, Purpose};

/// How late the overflow interrupts of a single host come, instructions.
const SKID: &str = "5:40";

/// See it work: two emulated hosts run one Debian in lockstep, a client counts in it, and the demo kills the primary.
///
/// Both hosts' consoles are on one screen, with the client's count and what happens. The client is to notice nothing but a delay;
/// at the end the demo says what it came to, in figures. No Intel hardware is needed: the hosts are emulated, their network is in
/// lock-step with them, and a seed says everything that is left to chance. Emulated time is not the wall's; both are shown.
///
/// The first call installs what is missing (it asks; --yes does not) and builds the emulator, which takes a few minutes; later
/// calls take a minute or two, with --guest counter less than half a minute. Without a terminal, or with --plain, all of it comes as lines.
///
/// --single shows one host by itself: the boot proof, then Debian's Linux as a guest; on a terminal it gives you a shell.
/// --proof ends after the boot proof.
///
/// Exit status 0 when the client saw nothing but delay and one virtual machine lived on.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask demo
  cargo xtask demo --guest counter
  cargo xtask demo --single
  cargo xtask demo --proof")]
pub struct Args {
    /// Install what is missing without asking
    #[arg(long)]
    yes: bool,
    /// What runs on both hosts: Debian's Linux with redis-server, or a small kernel of our own that counts
    #[arg(long, value_enum, default_value_t, conflicts_with_all = ["single", "proof"])]
    guest: Guest,
    /// Requests of the client; the primary dies in the middle
    #[arg(long, value_name = "N", default_value_t = 600, value_parser = clap::value_parser!(u32).range(20..=8000))]
    count: u32,
    /// Seed of the network and of all in which the hosts differ
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Print lines instead of drawing a screen
    #[arg(long, conflicts_with_all = ["single", "proof"])]
    plain: bool,
    /// Print only what came of it, as JSON
    #[arg(long, conflicts_with_all = ["single", "proof", "plain"])]
    json: bool,
    /// Record the screen as a moving picture
    #[arg(long, value_name = "FILE.svg", conflicts_with_all = ["single", "proof"])]
    record: Option<PathBuf>,
    /// Use this build of Lockstep instead of building it
    #[arg(long, value_name = "FILE")]
    hypervisor: Option<PathBuf>,
    /// One host by itself
    #[arg(long)]
    single: bool,
    /// One host, only its boot proof, no guest
    #[arg(long)]
    proof: bool,
    /// More words for the kernel's command line
    #[arg(long, value_name = "WORDS", default_value = "")]
    words: String,
    /// Processors of a host
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    cpus: u32,
    /// Deliver overflow interrupts late by MIN to MAX instructions [default: 5:40; host b 20:80]
    #[arg(long, value_name = "MIN:MAX[:SEED]", value_parser = knobs::skid)]
    skid: Option<String>,
}

/// Runs the verb.
///
/// # Errors
/// When something is missing, or cannot be built or started.
pub fn run(args: Args) -> Result<ExitCode> {
    setup::ensure(Purpose::Demo, args.yes)?;
    emulator::binary()?;
    let kernel = args.hypervisor.map_or_else(super::build::kernel, Ok)?;
    if args.single || args.proof {
        let Args { words, cpus, skid, proof, .. } = args;
        let skid = skid.unwrap_or_else(|| SKID.into());
        return Single { kernel, words, cpus, skid, proof }.run();
    }
    let show = match (args.json, args.plain) {
        (true, _) => Show::Json,
        (_, true) => Show::Lines,
        _ => Show::fitting(),
    };
    PairDemo {
        kernel,
        guest: args.guest,
        requests: args.count,
        seed: args.seed,
        words: args.words,
        cpus: args.cpus,
        skid: args.skid,
        show,
        record: args.record,
    }
    .run()
}
