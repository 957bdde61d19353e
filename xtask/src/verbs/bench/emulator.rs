//! `cargo xtask bench emulator`: what our changes to the emulator cost, on a Linux boot, against the unpatched emulator.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cpio::Archive;
use crate::emulator::{Exit, Machine, Outcome, Variant, build};
use crate::report::{Goal, Report, Row};
use crate::setup::{self, Purpose};
use crate::{linux, paths, ui};

/// A boot that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(20 * 60);
/// The most that our emulator may take, as a multiple of the unpatched one.
const GOAL: f64 = 1.05;
/// Emulated instructions per emulated second. Chosen so that the unpatched emulator's CPUID leaf 15h, which says 3.5 GHz
/// whatever it emulates, is right: otherwise Linux mistakes its time there, waits longer, and does other work than here.
const IPS: u64 = 3_500_000_000;
/// What the Linux does after its boot: processes, pipes, memory; then it lets the serial port finish and switches off.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
echo '@@ linux stage=userland'
i=0
while [ $i -lt 150 ]; do /bin/busybox true; i=$((i+1)); done
/bin/busybox seq 1 40000 | /bin/busybox sort -r | /bin/busybox gzip | /bin/busybox md5sum
/bin/busybox dd if=/dev/zero bs=64k count=256 2>/dev/null | /bin/busybox sha256sum
echo '@@ linux stage=done'
/bin/busybox sleep 1
/bin/busybox poweroff -f
";
/// What makes both boots the same work. `nokaslr`: the unpatched emulator seeds its random numbers from the clock, and no
/// two of its boots would be alike. `nmi_watchdog=0`: it has no counters, so its Linux has no watchdog on them.
/// `clearcpuid=297` (ERMS): its IA32_MISC_ENABLE says that fast strings are off, so its Linux copies by other routines.
const COMMAND_LINE: &str = "console=ttyS0,115200 loglevel=4 nokaslr random.trust_cpu=on panic=-1 no_timer_check \
                            nmi_watchdog=0 clearcpuid=297";

/// Our emulator against the unpatched one: processor time of a Linux boot.
///
/// Boots an unmodified Linux (this machine's own kernel package) to a small workload on both, in alternation, and compares
/// the processor time that the emulators spend in user mode. The goal is a median ratio of at most 1.05.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many boots of each
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
    runs: u32,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    /// Install what is missing without asking
    #[arg(long)]
    yes: bool,
}

/// Runs the benchmark.
///
/// # Errors
/// When an emulator or the Linux cannot be had, or a boot does not end as it should.
pub fn run(args: Args) -> Result<ExitCode> {
    setup::ensure(Purpose::Bench, args.yes)?;
    let ours = crate::emulator::binary()?;
    let stock = build::ensure(Variant::Stock)?;
    let iso = image()?;
    let mut pairs = Vec::new();
    let mut ticks = Vec::new();
    for number in 1..=args.runs {
        // Each pair in the other order, so that a machine that grows slower favours nobody.
        let stock_first = number % 2 == 0;
        let early = if stock_first { Some(boot("stock", &stock, &iso, number)?) } else { None };
        let our_run = boot("ours", &ours, &iso, number)?;
        let stock_run = early.map_or_else(|| boot("stock", &stock, &iso, number), Ok)?;
        ticks.push((our_run.ticks, stock_run.ticks));
        pairs.push((user_time(&our_run)?, user_time(&stock_run)?));
    }
    Ok(report(&pairs, &ticks).finish(args.json))
}

fn image() -> Result<PathBuf> {
    let linux = linux::kernel()?;
    let busybox = std::fs::read(linux::busybox()?)?;
    let initramfs = Archive::new()
        .directory("bin")
        .directory("dev")
        .directory("proc")
        .character_device("dev/console", 5, 1)
        .character_device("dev/null", 1, 3)
        .character_device("dev/zero", 1, 5)
        .program("bin/busybox", &busybox)
        .program("init", INIT.as_bytes())
        .finish();
    let iso = paths::out_dir()?.join("bench-linux.iso");
    linux::iso(&iso, &linux, &initramfs, COMMAND_LINE)?;
    Ok(iso)
}

fn boot(who: &str, emulator: &Path, iso: &Path, number: u32) -> Result<Outcome> {
    let machine = Machine {
        ips: IPS,
        memory_mib: 512,
        limit: LIMIT,
        // The unpatched emulator knows no IA32_MISC_ENABLE, which Linux reads without asking.
        strict_msrs: false,
        ..Machine::from_iso(&format!("bench-{who}"), iso)
    };
    let step = ui::step(format!("boot Linux, {who}, run {number}"));
    let outcome = machine.start_with(emulator)?.wait()?;
    if outcome.exit != Exit::PowerOff || !outcome.console.contains("@@ linux stage=done") {
        step.failed(outcome.exit.sentence());
        bail!("the Linux did not come to its end on the emulator ({who}).\n{}", outcome.last_words());
    }
    let time = outcome.user_time.map(ui::seconds).unwrap_or_default();
    step.done_with(format!("{time} of processor time"));
    Ok(outcome)
}

fn user_time(outcome: &Outcome) -> Result<f64> {
    outcome
        .user_time
        .map(|time| time.as_secs_f64())
        .context("the kernel did not tell the emulator's processor time")
}

/// The rows: `pairs` are seconds of ours and stock, `ticks` their emulated times.
fn report(pairs: &[(f64, f64)], ticks: &[(Option<u64>, Option<u64>)]) -> Report {
    const BENCH: &str = "emulator";
    let mut report = Report::default();
    let ratios = pairs.iter().map(|(ours, stock)| ours / stock).collect();
    let row = Row::new(BENCH, "Linux boot, user time over the peer's, median", median(ratios), "");
    report.push(row.goal(Goal::AtMost(GOAL)).peer("Bochs 3.0", 1.0));
    // Noise only ever adds: on a busy host the best boots say most.
    let best = |times: &mut dyn Iterator<Item = f64>| times.fold(f64::INFINITY, f64::min);
    let (ours, stock) = (best(&mut pairs.iter().map(|p| p.0)), best(&mut pairs.iter().map(|p| p.1)));
    report.push(Row::new(BENCH, "Linux boot, user time, best", ours, "s").peer("Bochs 3.0", stock));
    let ours = median(pairs.iter().map(|pair| pair.0).collect());
    let stock = median(pairs.iter().map(|pair| pair.1).collect());
    report.push(Row::new(BENCH, "Linux boot, user time, median", ours, "s").peer("Bochs 3.0", stock));
    let rate = |ticks: Option<u64>, seconds: f64| ticks.map_or(f64::NAN, |t| t as f64 / seconds / 1e6);
    let mine = ticks.iter().zip(pairs).map(|(t, p)| rate(t.0, p.0)).collect();
    let theirs = ticks.iter().zip(pairs).map(|(t, p)| rate(t.1, p.1)).collect();
    let row = Row::new(BENCH, "ticks per second of user time, median", median(mine), "M/s");
    report.push(row.peer("Bochs 3.0", median(theirs)));
    if ticks.len() > 1 {
        let agree = ticks.iter().all(|pair| pair.0.is_some() && pair.0 == ticks[0].0);
        let row = Row::new(BENCH, "boots agree to the last tick", if agree { "yes" } else { "no" }, "");
        report.push(row.goal(Goal::Is("yes".into())));
    }
    report
}

/// The middle value; of an even number of values the mean of the middle two.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(vec![]).is_nan());
    }

    #[test]
    fn the_ratio_is_that_of_pairs_and_decides() {
        let same = (Some(7), Some(8));
        assert!(report(&[(1.04, 1.0), (2.0, 2.0), (9.0, 3.0)], &[same; 3]).met(), "one noisy pair of three");
        assert!(!report(&[(1.06, 1.0), (2.12, 2.0)], &[same; 2]).met());
        assert!(!report(&[(1.0, 1.0), (1.0, 1.0)], &[same, (Some(9), Some(8))]).met(), "ticks differ");
        assert!(!report(&[(1.0, 1.0)], &[(None, None)]).rows.is_empty());
    }
}
