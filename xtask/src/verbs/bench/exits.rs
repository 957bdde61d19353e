//! `cargo xtask bench exits`: what an exit of the guest and the way back cost, in instructions, here and in KVM.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::emulator::{Exit, Machine};
use crate::payload::tiny::{self, Loop};
use crate::report::{Goal, Report, Row};
use crate::setup::{self, Purpose};
use crate::vm::host::Host;
use crate::vm::{Description, Start};
use crate::{linux_image, paths, ui};

/// A run that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(20 * 60);
/// Rounds of the two runs whose difference is measured.
const ROUNDS: [u32; 2] = [1_000, 101_000];

/// The cost of an exit and the way back, in instructions, against KVM in an unmodified Linux on the same machine.
///
/// A guest of a few instructions runs a loop of each kind, twice with different numbers of rounds; the difference of the
/// emulated machine's instruction counts, divided by the difference of the rounds and without the loop's own
/// instructions, is the cost. KVM runs the same loops, its OUT with a program in user space that does nothing.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// One JSON object per line
    #[arg(long)]
    json: bool,
    /// Do not measure KVM
    #[arg(long)]
    without_peer: bool,
    /// Install what is missing without asking
    #[arg(long)]
    yes: bool,
    /// Use this build of Lockstep instead of building it
    #[arg(long, value_name = "FILE")]
    hypervisor: Option<std::path::PathBuf>,
}

/// What is measured: the loop, the row, the goal.
const KINDS: [(Loop, &str, f64); 3] = [
    (tiny::CPUID, "CPUID exit and back", 300.0),
    (tiny::OUT, "OUT to a device model and back", 450.0),
    (tiny::RDTSC, "RDTSC exit and back", 300.0),
];

/// Runs the benchmark.
///
/// # Errors
/// When something cannot be run or does not end as it should.
pub fn run(args: Args) -> Result<ExitCode> {
    setup::ensure(Purpose::Bench, args.yes)?;
    crate::emulator::binary()?;
    let kernel = args.hypervisor.map_or_else(crate::verbs::build::kernel, Ok)?;
    let kvm = if args.without_peer { BTreeMap::new() } else { kvm()? };
    let mut report = Report::default();
    for (body, name, goal) in KINDS {
        let mut ticks = [0; 2];
        for (ticks, rounds) in ticks.iter_mut().zip(ROUNDS) {
            *ticks = measure(&kernel, &body, rounds)?;
        }
        let row =
            Row::new("exits", name, cost(ticks, body.overhead), "instructions").goal(Goal::AtMost(goal));
        report.push(match kvm.get(body.name) {
            Some(value) => row.peer("KVM", *value),
            None => row,
        });
    }
    Ok(report.finish(args.json))
}

/// Instructions of one round without the loop's own.
fn cost(ticks: [u64; 2], overhead: u64) -> f64 {
    let rounds = f64::from(ROUNDS[1] - ROUNDS[0]);
    (ticks[1] as f64 - ticks[0] as f64) / rounds - overhead as f64
}

/// Instructions of a whole run.
fn measure(kernel: &std::path::Path, body: &Loop, rounds: u32) -> Result<u64> {
    let name = format!("bench-exits-{}-{rounds}", body.name);
    let step = ui::step(format!("run {rounds} rounds of {}", body.name));
    let file = paths::out_dir()?.join(format!("{name}.bzimage"));
    std::fs::write(&file, tiny::guest(body, rounds))?;
    let start = Start::Kernel { kernel: file, initrd: None, command_line: String::new() };
    let vm = Description::new("loop", start).vm()?;
    let host = Host::new(&name, kernel.to_owned());
    let host = Host { limit: LIMIT, ..host };
    let (outcome, _) = host.run(&vm)?;
    outcome.expect(&Exit::Success)?;
    ensure!(
        outcome.console.contains("reason=power-off"),
        "the guest did not switch itself off.\n{}",
        outcome.last_words()
    );
    step.done();
    outcome.ticks.context("the emulator did not tell its instructions")
}

/// What KVM needs, by the loop's name.
fn kvm() -> Result<BTreeMap<String, f64>> {
    let iso = linux_image::iso("exit-port=0xf4 skip=host skip=kvm cost=1")?;
    let step = ui::step("run the same loops in KVM");
    let machine = Machine {
        memory_mib: linux_image::MEMORY_MIB,
        limit: LIMIT,
        ..Machine::from_iso("bench-exits-kvm", iso)
    };
    let outcome = machine.run()?;
    outcome.expect(&Exit::Success)?;
    let value = |fact: &str, key: &str| {
        fact.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('=').map(String::from))
    };
    let mut costs = BTreeMap::new();
    for fact in outcome.facts("kvm-cost") {
        let name = value(fact, "reason").context("a cost without its reason")?;
        let ticks: f64 = value(fact, "per-round").context("a cost without its value")?.parse()?;
        let overhead =
            KINDS.iter().find(|(body, ..)| body.name == name).map_or(0, |(body, ..)| body.overhead);
        costs.insert(name, ticks - overhead as f64);
    }
    ensure!(costs.len() == KINDS.len(), "KVM's costs are missing.\n{}", outcome.last_words());
    step.done();
    Ok(costs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_the_difference_of_two_runs() {
        assert_eq!(cost([5_000_000, 5_000_000 + 100_000 * 250], 3), 247.0);
    }
}
