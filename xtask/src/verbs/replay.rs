//! `cargo xtask replay`: a recorded execution again, on another emulated host.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};

use super::run::Desk;
use crate::emulator::{self, Knobs};
use crate::replaying::inspect;
use crate::replaying::progress::seconds;
use crate::replaying::replay::{self, Session};
use crate::replaying::sidecar::{ResultFacts, Sidecar};
use crate::replaying::{Kind, Plant, ReplayOptions, Restore, Until, Verdict};
use crate::setup::{self, Purpose};
use crate::ui;
use crate::vm::host::{Console, Host};
use crate::vm::terminal;

/// Replay a recorded execution on another emulated host, exact to the instruction.
///
/// Starts a host with the configuration that stands in the log, the machine's files and the log; their contents must be those
/// of the recording. Every input is applied at the instruction at which it was recorded. The state is compared at every
/// synchronous exit (a hash), and at every checkpoint as a whole: registers, devices, memory.
///
/// The verdict is `equal`, `diverged` with what differs and where, or `stopped` (--until, or a log that was cut). After the latter
/// two the virtual machine stands still and can be inspected: on a terminal you are in Lockstep's shell then (regs, mem, disasm,
/// walk, log N; Ctrl-\ then q leads out); otherwise by --inspect.
///
/// Exit status 0 when it was equal to the end, or to where it was told to stop; 1 if not.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask replay run.log
  cargo xtask replay run.log --skid 64:128 --host-variation 7
  cargo xtask replay run.log --until entry:1200 --inspect \"regs; disasm; log 5\"
  cargo xtask replay run.log --until checkpoint:3
  cargo xtask replay run.log --plant memory:0x1234567:3@2     (flip a bit after checkpoint 2: the replay must notice)
  cargo xtask replay run.log --plant register:rbx:17@1
  cargo xtask replay run.log --restore 2:4                    (at checkpoint 4 back to checkpoint 2, and on)
  cargo xtask replay run.log --module kernel=/srv/vmlinuz     (a file that has moved)")]
pub struct Args {
    /// The log
    log: PathBuf,
    /// Stop there: after an entry of the log (from 0), a synchronous exit (from 1), so many instructions, a checkpoint (from 1)
    #[arg(long, value_name = "entry:K|exit:K|n:K|checkpoint:K", value_parser = Until::parse)]
    until: Option<Until>,
    /// Let this host differ from others by seed, where it may: timers, interrupts of its own, the order in which memory is mapped
    #[arg(long, value_name = "SEED")]
    host_variation: Option<u64>,
    /// Flip a bit of the replayed machine right after checkpoint C: memory:ADDR:BIT@C, register:NAME:BIT@C or device:NAME:BIT@C.
    /// Devices: pic, io-apic, local-apic, msrs, uart, pit, rtc, pm, keyboard, diagnostics, fw-cfg, random, pci, pci-0 to pci-7
    #[arg(long, value_name = "WHAT", value_parser = Plant::parse)]
    plant: Option<Plant>,
    /// Keep checkpoint C, and go back to it once when checkpoint D is reached
    #[arg(long, value_name = "C:D", value_parser = Restore::parse)]
    restore: Option<Restore>,
    /// Commands for Lockstep's shell when the replay has stopped or diverged, separated by semicolons
    #[arg(long, value_name = "COMMANDS", default_value = "")]
    inspect: String,
    /// Where a file of the recorded machine is now; may be given several times
    #[arg(long, value_name = "NAME=FILE", value_parser = module)]
    module: Vec<(String, PathBuf)>,
    /// Show the console: the guest's output comes again
    #[arg(long, conflicts_with_all = ["quiet", "json"])]
    console: bool,
    /// Only the verdict
    #[arg(long)]
    quiet: bool,
    /// Print the verdict as JSON
    #[arg(long)]
    json: bool,
    /// Nobody sits at the terminal: end when the replay has ended
    #[arg(long)]
    batch: bool,
    /// Use this build of Lockstep instead of building it
    #[arg(long, value_name = "FILE")]
    hypervisor: Option<PathBuf>,
    /// More words for Lockstep's own command line, such as log=debug
    #[arg(long, value_name = "WORDS", default_value = "")]
    words: String,
    /// The emulated host's memory, MiB [default: what the virtual machine and the log need]
    #[arg(long, value_name = "MIB")]
    host_memory: Option<u32>,
    /// Emulated instructions per emulated second [default: as recorded]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1_000_000..))]
    ips: Option<u64>,
    /// Stop after so many seconds of wall-clock time [default: 1800, on a terminal never]
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    #[command(flatten)]
    knobs: Knobs,
}

fn module(text: &str) -> Result<(String, PathBuf)> {
    let (name, file) = text.split_once('=').with_context(|| format!("`{text}` is not NAME=FILE"))?;
    Ok((name.into(), file.into()))
}

/// Runs the verb.
///
/// # Errors
/// When something is missing or wrong; the verdict is the exit status.
pub fn run(args: Args) -> Result<ExitCode> {
    let recorded = Sidecar::read(&args.log)?;
    if !args.log.is_file() {
        anyhow::bail!("there is no log {}; `cargo xtask record` makes one", args.log.display());
    }
    setup::ensure(Purpose::Demo, false)?;
    let quiet = args.quiet || args.json;
    let person = terminal::is_there() && !quiet && !args.batch && args.inspect.is_empty();
    let options = args.options(person, recorded.as_ref())?;
    emulator::binary()?;
    let verdict = if person {
        attended(&args, &options)?
    } else {
        replay::replay_with_progress(&args.log, &options, quiet || args.console)?
    };
    let facts = recorded.and_then(|sidecar| sidecar.result);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&verdict)?);
    } else {
        print!("{}", report(&verdict, facts.as_ref()));
    }
    let told_to = args.until.is_some() && verdict.kind == Kind::Stopped;
    Ok(if verdict.kind == Kind::Equal || told_to { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Args {
    fn options(&self, person: bool, recorded: Option<&Sidecar>) -> Result<ReplayOptions> {
        let kernel = self.hypervisor.clone().map_or_else(super::build::kernel, Ok)?;
        if let Some(sidecar) = recorded
            && !sidecar.was_made_by(&kernel)?
        {
            ui::say("The log was recorded by another build of Lockstep than this one.");
        }
        let plain = Host::new("replay", kernel);
        let seconds = self.timeout.unwrap_or(if person { u64::MAX / 4 } else { 1800 });
        let host = Host {
            words: format!("{} {}", plain.words, self.words).trim().into(),
            memory_mib: self.host_memory,
            ips: self.ips.or(recorded.map(|sidecar| sidecar.host.ips)).unwrap_or(plain.ips),
            knobs: self.knobs.clone(),
            console: if person {
                Console::Person
            } else if self.console {
                Console::Shown
            } else {
                Console::File
            },
            limit: Duration::from_secs(seconds),
            ..plain
        };
        Ok(ReplayOptions {
            modules: self.module.clone(),
            until: self.until,
            variation: self.host_variation,
            plant: self.plant.clone(),
            restore: self.restore,
            inspect: inspect::commands(&self.inspect),
            ..ReplayOptions::new(host)
        })
    }
}

/// A replay with a person at the console: its end is the replay's if it was equal, else the person's to say.
fn attended(args: &Args, options: &ReplayOptions) -> Result<Verdict> {
    let session = Session::start_for_a_person(&args.log, options)?;
    let desk = Desk::open(&session.started.running)?;
    session.finish_at_desk(|| desk.is_left())
}

/// What the replay came to, for people.
fn report(verdict: &Verdict, recorded: Option<&ResultFacts>) -> String {
    let mut text = verdict.sentence() + "\n";
    let mut line = |words: String| text += &(words + "\n");
    for answer in &verdict.inspected {
        line(format!("\nlockstep> {}", answer.command));
        answer.lines.iter().for_each(|said| line(said.clone()));
    }
    if verdict.kind == Kind::Equal {
        line(format!(
            "{:.2} s of the guest in {:.2} s of the host; {:.2} s of idling skipped.",
            seconds(verdict.virtual_ns),
            seconds(verdict.real_ns),
            seconds(verdict.idle_ns)
        ));
        if let Some(recorded) = recorded.filter(|recorded| recorded.real_ns > 0 && verdict.real_ns > 0) {
            line(format!(
                "{:.2} times as fast as it was recorded ({:.2} s of the recording host).",
                recorded.real_ns as f64 / verdict.real_ns as f64,
                seconds(recorded.real_ns)
            ));
        }
    }
    if verdict.landings > 0 {
        line(format!(
            "{} landings, {:.1} exits each, {} at most.",
            verdict.landings,
            verdict.exits_per_landing(),
            verdict.landing_max
        ));
    }
    line(format!("(Files of the run: {})", verdict.outcome.dir.display()));
    text
}
