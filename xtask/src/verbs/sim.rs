//! `cargo xtask sim`: the simulator of the pair.

use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use serde_json::{Map, Value, json};
use sim::campaign::{Failed, Total, campaign};
use sim::mutant::Mutant;
use sim::world::{Memory, tell};

use crate::ui;

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// Simulate the pair: two hosts, their networks, clocks and arbiter, all from a seed, and check what must hold.
///
/// A host is the kernel's own protocol and replay code around a toy virtual machine. Networks lose, delay, double and reorder, also
/// in one direction alone; hosts are slow, stand still, lose their power at any step and start anew; clocks drift and jump; the
/// arbiter is late or out of reach. Checked: at most one live virtual machine; everything that the outside world has seen is explained
/// by one execution; no output leaves before the backup has the log that led to it; buffers are bounded; when faults end, things go on;
/// a virtual machine that was switched off stays so.
///
/// Seed N is one world, always the same. A failure prints the command that repeats it; with --story it tells all that happens.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask sim --seed 7 --runs 10000
  cargo xtask sim --seed 7 --story
  cargo xtask sim --runs 1000 --mutant no-arbitration     (a planted bug: it must be caught)")]
pub struct Args {
    /// The first seed
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// How many seeds, from the first on
    #[arg(long, value_name = "M", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    /// Plant a bug, to see that it is caught: ack-before-receipt, live-before-last, release-early, no-arbitration,
    /// unknown-is-won, loser-goes-on, silent-end, forget-outputs
    #[arg(long, value_name = "NAME", value_parser = mutant)]
    mutant: Option<Mutant>,
    /// Tell everything that happens (one seed)
    #[arg(long, conflicts_with_all = ["runs", "json"])]
    story: bool,
    /// Threads; all processors by default
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

fn mutant(name: &str) -> Result<Mutant> {
    let names: Vec<&str> = Mutant::ALL.into_iter().map(Mutant::name).collect();
    Mutant::named(name).ok_or_else(|| anyhow!("there are: {}", names.join(", ")))
}

/// Runs the verb.
///
/// # Errors
/// None: what was found is the exit status.
pub fn run(args: Args) -> Result<ExitCode> {
    if args.story {
        return Ok(story(&args));
    }
    let threads = args.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let (begun, told) = (Instant::now(), Mutex::new(Instant::now()));
    let progress = |done: u64| {
        let mut told = told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if told.elapsed() >= TELL_EVERY {
            *told = Instant::now();
            ui::say(format!("  {done} of {} seeds ({})", args.runs, ui::seconds(begun.elapsed())));
        }
    };
    // A long campaign may never come to its end: what it finds is said when it is found.
    let found = |failed: &Failed| ui::say(telling(&args, failed));
    let total = campaign(args.seed, args.runs, threads, args.mutant, &progress, &found);
    if args.json {
        println!("{}", as_json(&args, &total));
    } else {
        print!("{}", as_text(&args, &total));
    }
    Ok(if total.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn story(args: &Args) -> ExitCode {
    let (lines, result) = tell(&mut Memory::new(), args.seed, args.mutant);
    for line in lines {
        println!("{line}");
    }
    match result {
        Ok(_) => ExitCode::SUCCESS,
        Err(what) => {
            println!("FAILED: {what}");
            ExitCode::FAILURE
        }
    }
}

/// The one command that repeats a failure.
fn command(args: &Args, seed: u64) -> String {
    let mutant = args.mutant.map_or_else(String::new, |mutant| format!(" --mutant {}", mutant.name()));
    format!("cargo xtask sim --seed {seed}{mutant} --story")
}

fn telling(args: &Args, failed: &Failed) -> String {
    format!("seed {}: {}\n    {}", failed.seed, failed.what, command(args, failed.seed))
}

fn as_text(args: &Args, total: &Total) -> String {
    let mut text = String::new();
    for failed in &total.failed {
        text += &format!("{}\n", telling(args, failed));
    }
    let facts = total.facts.named();
    let facts: Vec<String> = facts.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let rate = total.seeds as f64 / total.time.as_secs_f64().max(0.001);
    text += &format!("{}\n", facts.join(", "));
    text += &format!(
        "{} seeds, {} failed, {} ({rate:.0} a second)\n",
        total.seeds,
        total.failed.len(),
        ui::seconds(total.time)
    );
    text
}

fn as_json(args: &Args, total: &Total) -> Value {
    let failed: Vec<Value> = total
        .failed
        .iter()
        .map(|failed| json!({ "seed": failed.seed, "what": failed.what, "command": command(args, failed.seed) }))
        .collect();
    let facts: Map<String, Value> =
        total.facts.named().into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect();
    json!({
        "first": args.seed,
        "seeds": total.seeds,
        "mutant": args.mutant.map(Mutant::name),
        "failed": failed,
        "facts": facts,
        "seconds": total.time.as_secs_f64(),
    })
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
        Line::try_parse_from(["sim"].iter().chain(words)).unwrap_or_else(|error| panic!("{error}")).args
    }

    #[test]
    fn a_failure_prints_its_one_command() {
        let args = args(&["--runs", "40", "--mutant", "release-early"]);
        let found = std::sync::atomic::AtomicU64::new(0);
        let count = |_: &Failed| {
            found.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        };
        let total = campaign(args.seed, args.runs, 1, args.mutant, &|_| (), &count);
        assert!(found.into_inner() >= total.failed.len() as u64, "each is said when it is found");
        let first = total.failed.first().expect("the bug is caught");
        let command = format!("cargo xtask sim --seed {} --mutant release-early --story", first.seed);
        assert!(as_text(&args, &total).contains(&command));
        let json = as_json(&args, &total);
        assert_eq!((&json["failed"][0]["command"], &json["seeds"]), (&command.into(), &total.seeds.into()));
    }

    #[test]
    fn what_is_asked_for_must_be_there() {
        for bad in [&["--mutant", "gremlins"][..], &["--runs", "0"], &["--story", "--runs", "2"]] {
            assert!(Line::try_parse_from(["sim"].iter().chain(bad)).is_err(), "{bad:?}");
        }
        assert_eq!((args(&[]).seed, args(&[]).runs), (0, 1));
    }
}
