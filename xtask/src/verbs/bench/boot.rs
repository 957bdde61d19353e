//! `cargo xtask bench boot`: an unmodified Linux on Lockstep against the same Linux on the bare emulated machine.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::emulator::{Exit, Outcome};
use crate::payload::{self, Payload, tiny};
use crate::report::{Goal, Report, Row};
use crate::setup::{self, Purpose};
use crate::vm::host::Host;
use crate::vm::{Description, Start};
use crate::{paths, ui};

/// A run that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// Linux on Lockstep against the same Linux without: instructions of the boot and of loads.
///
/// Counts the emulated machine's instructions from the kernel's first to userland, and those of the cpu and gzip loads. What
/// firmware, loader and hypervisor take before the kernel's first instruction is measured by a kernel of the same size that
/// switches off at once, and subtracted. The clock that the machine claims decides how often the guest's timer interrupts its work:
/// 250 times per emulated second.
#[derive(Debug, clap::Args)]
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
    /// Install what is missing without asking
    #[arg(long)]
    yes: bool,
    /// Use this build of Lockstep instead of building it
    #[arg(long, value_name = "FILE")]
    hypervisor: Option<PathBuf>,
}

/// Instructions of the same thing on both.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Pair {
    ours: f64,
    bare: f64,
}

impl Pair {
    fn minus(self, other: Pair) -> Pair {
        Pair { ours: self.ours - other.ours, bare: self.bare - other.bare }
    }
}

/// Runs the benchmark.
///
/// # Errors
/// When something cannot be run or does not end as it should.
pub fn run(args: Args) -> Result<ExitCode> {
    setup::ensure(Purpose::Bench, args.yes)?;
    crate::emulator::binary()?;
    let kernel = args.hypervisor.clone().map_or_else(crate::verbs::build::kernel, Ok)?;
    let linux = |words: &str| Payload::Cloud.describe(&format!("quiet {words} n={}", args.size));
    let both = |what: &str, description: &Description| both(what, &kernel, args.ips, description);
    let nothing = both("nothing", &nothing(&linux("off=1")?)?)?;
    let userland = both("userland", &linux("off=1")?)?;
    let boot = both("boot", &linux("wl=boot")?)?;
    let mut report = Report::default();
    to_userland(&mut report, userland.minus(nothing));
    for load in ["cpu", "gzip"] {
        let pair = both(load, &linux(&format!("wl={load}"))?)?;
        a_load(&mut report, load, pair.minus(boot));
    }
    Ok(report.finish(args.json))
}

fn to_userland(report: &mut Report, pair: Pair) {
    let row = Row::new("boot", "Linux to userland, over bare", pair.ours / pair.bare, "");
    report.push(row.goal(Goal::AtMost(1.05)).peer("bare", 1.0));
    let row = Row::new("boot", "Linux to userland", pair.ours / 1e6, "M instructions");
    report.push(row.peer("bare", pair.bare / 1e6));
}

fn a_load(report: &mut Report, load: &str, pair: Pair) {
    let row = Row::new("boot", &format!("load {load}, speed over bare"), pair.bare / pair.ours, "");
    report.push(row.goal(Goal::AtLeast(0.99)).peer("bare", 1.0));
    let row = Row::new("boot", &format!("load {load}"), pair.ours / 1e6, "M instructions");
    report.push(row.peer("bare", pair.bare / 1e6));
}

/// The same description with a kernel of the same size that does nothing.
fn nothing(description: &Description) -> Result<Description> {
    let Start::Kernel { kernel, initrd, command_line } = &description.start else {
        return Ok(description.clone());
    };
    let length = usize::try_from(std::fs::metadata(kernel)?.len())?;
    let file = paths::out_dir()?.join("bench-boot-nothing.bzimage");
    std::fs::write(&file, tiny::nothing(length))?;
    let start = Start::Kernel { kernel: file, initrd: initrd.clone(), command_line: command_line.clone() };
    Ok(Description { start, ..description.clone() })
}

/// Instructions of a run on Lockstep and of one without.
fn both(what: &str, kernel: &Path, ips: u64, description: &Description) -> Result<Pair> {
    let step = ui::step(format!("run {what} on Lockstep"));
    let name = format!("bench-boot-{what}");
    let host = Host::new(&name, kernel.to_owned());
    let host = Host { limit: LIMIT, ips, ..host };
    let (outcome, _) = host.run(&description.vm()?)?;
    outcome.expect(&Exit::Success)?;
    ensure!(
        outcome.console.contains("reason=power-off"),
        "the guest did not switch itself off.\n{}",
        outcome.last_words()
    );
    let ours = instructions(&outcome)?;
    step.done_with(format!("{:.1} M instructions", ours / 1e6));
    let step = ui::step(format!("run {what} bare"));
    let machine = payload::bare(description, &format!("{name}-bare"))?;
    let outcome = crate::emulator::Machine { limit: LIMIT, ips, ..machine }.run()?;
    ensure!(
        matches!(outcome.exit, Exit::PowerOff | Exit::Success),
        "the bare machine did not switch itself off: {}\n{}",
        outcome.exit.sentence(),
        outcome.last_words()
    );
    let bare = instructions(&outcome)?;
    step.done_with(format!("{:.1} M instructions", bare / 1e6));
    Ok(Pair { ours, bare })
}

fn instructions(outcome: &Outcome) -> Result<f64> {
    outcome.ticks.map(|ticks| ticks as f64).context("the emulator did not tell its instructions")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_about_ratios() {
        let mut report = Report::default();
        to_userland(&mut report, Pair { ours: 104.0, bare: 100.0 });
        a_load(&mut report, "cpu", Pair { ours: 100.5, bare: 100.0 });
        assert!(report.met());
        a_load(&mut report, "gzip", Pair { ours: 102.0, bare: 100.0 });
        assert!(!report.met());
        let pair = Pair { ours: 5.0, bare: 4.0 }.minus(Pair { ours: 1.0, bare: 2.0 });
        assert_eq!(pair, Pair { ours: 4.0, bare: 2.0 });
    }
}
