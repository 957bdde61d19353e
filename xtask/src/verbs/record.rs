//! `cargo xtask record`: a virtual machine on Lockstep, and the log of its execution.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, anyhow};
use vm_config::Paging;

use super::machine_args::MachineArgs;
use super::run::Desk;
use crate::replaying::progress::{seconds, size};
use crate::replaying::recording::{RecordOptions, Recording, Session};
use crate::setup::{self, Purpose};
use crate::vm::host::Console;
use crate::{emulator, ui};

/// Run a virtual machine on Lockstep and record its execution, exact to the instruction.
///
/// The machine is described as for `run`. Without a [record] section in its configuration one is added: the log leaves the host by
/// TCP over a network card of its own, to this tool, which writes it to a file. The guest starts when the connection stands.
/// Beside the log stands LOG.files, which says where the machine's files are; `cargo xtask replay` needs both, or --module.
///
/// Exit status 0 when the guest switched itself off and all of the log has arrived, 1 if not. A run that is broken off leaves a
/// log that can be replayed as far as it goes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask record -o run.log
  cargo xtask record --config lockstep.toml -o run.log
  cargo xtask record --load boot,netrx --size 8 --batch -o run.log
  cargo xtask record --load fork --paging fast --checkpoint 500 --skid 5:40 --quiet -o run.log
  cargo xtask record --guest redis --client --size 1000 --batch -o redis.log

Then: cargo xtask replay run.log; cargo xtask log stat run.log. docs/replay.md tells more.")]
pub struct Args {
    #[command(flatten)]
    machine: MachineArgs,
    /// The file that gets the log
    #[arg(short, long, value_name = "LOG", default_value = "run.log", help_heading = "Recording")]
    output: PathBuf,
    /// How the guest's accessed and dirty bits are kept: strict (the same in every execution) or fast (as the processor sets them)
    #[arg(long, value_name = "MODE", value_parser = paging, help_heading = "Recording")]
    paging: Option<Paging>,
    /// Milliseconds of guest time from one checkpoint to the next, 0 for none [default: as configured, else 4000]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(..=i64::from(vm_config::limits::CHECKPOINT)),
        help_heading = "Recording")]
    checkpoint: Option<u32>,
    /// Let this host differ from others by seed, where it may: timers, interrupts of its own, the order in which memory is mapped
    #[arg(long, value_name = "SEED", help_heading = "Recording")]
    host_variation: Option<u64>,
    /// Show how far the recording is instead of the console
    #[arg(long, help_heading = "Recording")]
    quiet: bool,
    /// Print what came of it as JSON
    #[arg(long, help_heading = "Recording")]
    json: bool,
}

/// Parses a mode of paging.
///
/// # Errors
/// When it is none.
pub fn paging(text: &str) -> Result<Paging> {
    Paging::parse(text).ok_or_else(|| anyhow!("the modes are strict and fast"))
}

/// Runs the verb.
///
/// # Errors
/// When something is missing or wrong; how the recording ended is the exit status.
pub fn run(args: Args) -> Result<ExitCode> {
    setup::ensure(Purpose::Demo, false)?;
    let quiet = args.quiet || args.json;
    let person = args.machine.person() && !quiet;
    let vm = args.machine.vm(person)?;
    let mut host = args.machine.host("record", person)?;
    if quiet {
        host.console = Console::File;
    }
    let options = RecordOptions {
        host,
        log: args.output.clone(),
        paging: args.paging,
        checkpoint: args.checkpoint,
        variation: args.host_variation,
    };
    emulator::binary()?;
    let session = Session::start(&vm, &options)?;
    let recording = if person {
        let desk = Desk::open(&session.started.running)?;
        session.finish_unless(|| desk.is_left())?
    } else {
        finish(session, quiet && !args.json, &args.output)?
    };
    if args.json {
        println!("{}", json(&recording));
    } else {
        recording.told.iter().for_each(ui::say);
        ui::say(sentence(&recording));
    }
    match recording.check() {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            ui::error(&error);
            Ok(ExitCode::FAILURE)
        }
    }
}

fn finish(session: Session, shown: bool, log: &std::path::Path) -> Result<Recording> {
    if !shown {
        return session.finish();
    }
    let step = ui::step(format!("record to {}", log.display()));
    let recording =
        session.finish_with_progress(|progress, bytes| step.detail(progress.of_recording(bytes)))?;
    match recording.check() {
        Ok(()) => step.done(),
        Err(_) => step.failed("not whole"),
    }
    Ok(recording)
}

/// What the recording came to, for people.
fn sentence(recording: &Recording) -> String {
    let number = |key| recording.number(key).unwrap_or_default();
    let wall = ui::seconds(Duration::from_secs(recording.outcome.time.as_secs()));
    format!(
        "Recorded {} to {}: {} entries, {:.1} s of the guest, {} instructions. {} ({wall}; files in {})",
        size(recording.bytes),
        recording.log.display(),
        number("entries"),
        seconds(number("virtual-ns")),
        number("instructions"),
        recording.outcome.exit.sentence(),
        recording.outcome.dir.display()
    )
}

fn json(recording: &Recording) -> serde_json::Value {
    let number = |key: &str| recording.number(key);
    serde_json::json!({
        "log": recording.log,
        "bytes": recording.bytes,
        "whole": recording.check().is_ok(),
        "entries": number("entries"),
        "instructions": number("instructions"),
        "virtual_ns": number("virtual-ns"),
        "real_ns": number("real-ns"),
        "ticks": recording.outcome.ticks,
        "seconds": recording.outcome.time.as_secs_f64(),
        "end": recording.outcome.exit.sentence(),
        "console": recording.outcome.dir.join("console"),
    })
}
