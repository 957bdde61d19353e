//! `cargo xtask log`: what is in a recording's log.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use replay::log::open::Log;

use crate::log::select::{self, At, Selection};
use crate::log::{advice, diff, dump, stat};
use crate::ui;

/// Look at the log of a recording: entry by entry, against another, or in numbers.
///
/// `cargo xtask record` writes such a log. Every block of it has a checksum, and all are looked at first: what is wrong with a
/// log is named, and what is sound before it is shown all the same. docs/log-format.md is the format's specification.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask log dump run.log
  cargo xtask log dump run.log --from exit:1000 --to exit:2000 --kind frame,console --hex
  cargo xtask log dump run.log --json | jq 'select(.kind == \"look\")'
  cargo xtask log diff one.log other.log
  cargo xtask log stat run.log")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Dump(DumpArgs),
    Diff(DiffArgs),
    Stat(StatArgs),
    Receive(super::log_receive::Args),
}

/// Show the header and every entry
///
/// An entry is a number, a place, and what came in there. Places are synchronous exits by number ("exit", or "halted" in the
/// HLT that is one), or execution points: instructions retired (n), RIP, and RCX in the midst of a REP.
#[derive(Debug, clap::Args)]
struct DumpArgs {
    /// The log
    file: PathBuf,
    /// Begin there: entry:K (or K), exit:K, n:K
    #[arg(long, value_name = "POINT", value_parser = At::parse)]
    from: Option<At>,
    /// Go on to there, inclusive
    #[arg(long, value_name = "POINT", value_parser = At::parse)]
    to: Option<At>,
    /// Only entries of these kinds, separated by commas
    #[arg(long, value_name = "KIND", value_parser = select::kind, value_delimiter = ',')]
    kind: Vec<&'static str>,
    /// Show all bytes of frames and of what was typed
    #[arg(long)]
    hex: bool,
    /// Show the recorded configuration, too
    #[arg(long)]
    config: bool,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
}

/// Find the first entry in which two logs differ
///
/// Exit status 0 when all entries are equal, 1 when not. Differences of the headers are shown and do not count.
#[derive(Debug, clap::Args)]
struct DiffArgs {
    /// The one
    one: PathBuf,
    /// The other
    other: PathBuf,
    /// How many entries to show before and behind the first that differs
    #[arg(long, value_name = "N", default_value_t = 3)]
    context: usize,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Count entries and bytes by kind, per guest second and per instruction
#[derive(Debug, clap::Args)]
struct StatArgs {
    /// The logs
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// One JSON object per log
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
///
/// # Errors
/// When a log cannot be read, or is damaged.
pub fn run(args: Args) -> Result<ExitCode> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let code = match args.what {
        What::Dump(args) => dump_log(&args, &mut out),
        What::Diff(args) => diff_logs(&args, &mut out),
        What::Stat(args) => stat_logs(&args, &mut out),
        What::Receive(args) => return super::log_receive::run(&args),
    };
    match out.flush() {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        flushed => code.and_then(|code| Ok(flushed.map(|()| code)?)),
    }
}

/// The bytes' log as far as it is sound; what is wrong with the rest is said.
fn open<'l>(path: &Path, bytes: &'l [u8]) -> Result<(Log<'l>, bool)> {
    let (log, wrong) = Log::salvage(bytes).map_err(|error| advice::explain(path, &error))?;
    if let Some(error) = &wrong {
        ui::error(&advice::explain(path, error));
    }
    Ok((log, wrong.is_none()))
}

/// A damaged log was shown as far as it goes.
fn status(sound: bool) -> ExitCode {
    if sound { ExitCode::SUCCESS } else { ExitCode::from(2) }
}

fn dump_log(args: &DumpArgs, out: &mut dyn Write) -> Result<ExitCode> {
    let bytes = advice::read(&args.file)?;
    let (log, sound) = open(&args.file, &bytes)?;
    let selection = Selection { from: args.from, to: args.to, kinds: args.kind.clone() };
    let style = dump::Style { json: args.json, hex: args.hex, config: args.config };
    unless_closed(dump::dump(&log, &selection, style, out))?;
    Ok(status(sound))
}

fn diff_logs(args: &DiffArgs, out: &mut dyn Write) -> Result<ExitCode> {
    let (one, other) = (advice::read(&args.one)?, advice::read(&args.other)?);
    let ((one, sound), (other, other_sound)) = (open(&args.one, &one)?, open(&args.other, &other)?);
    let difference = diff::Difference::between(&one, &other, args.context);
    let names = [&args.one, &args.other].map(|path| path.display().to_string());
    unless_closed(match args.json {
        true => writeln!(out, "{}", difference.object()),
        false => difference.write([&names[0], &names[1]], out),
    })?;
    Ok(if difference.is_none() { status(sound && other_sound) } else { ExitCode::from(1) })
}

fn stat_logs(args: &StatArgs, out: &mut dyn Write) -> Result<ExitCode> {
    let mut all_sound = true;
    for file in &args.files {
        let bytes = advice::read(file)?;
        let (log, sound) = open(file, &bytes)?;
        all_sound &= sound;
        let stat = stat::Stat::of(&log);
        unless_closed(match args.json {
            true => {
                let mut object = stat.object();
                object["file"] = file.display().to_string().into();
                writeln!(out, "{object}")
            }
            false if args.files.len() > 1 => {
                writeln!(out, "{}:", file.display()).and_then(|()| stat.write(out))
            }
            false => stat.write(out),
        })?;
    }
    Ok(status(all_sound))
}

/// A reader that goes away is no error.
fn unless_closed(written: std::io::Result<()>) -> Result<()> {
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}
