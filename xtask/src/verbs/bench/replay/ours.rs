//! The loads on Lockstep: not recorded, recorded, replayed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use replay::log::entry::{Event, Place};
use replay::log::open::Log;
use vm_config::{Memory, Paging};

use super::table::{NOTHING, Replayed, Run, Side};
use crate::emulator::{Exit, Knobs, Outcome};
use crate::log::item::items;
use crate::payload::{Payload, tiny};
use crate::replaying::{self, Kind, RecordOptions, ReplayOptions, lines};
use crate::vm::host::Host;
use crate::vm::outside::Outside;
use crate::vm::{Description, DiskSource, Start, Vm};
use crate::{paths, ui};

/// A run that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(40 * 60);

/// What is measured.
#[derive(Clone, Debug)]
pub struct Bench {
    /// The hypervisor.
    pub kernel: PathBuf,
    /// Size of the loads, MB.
    pub size: u32,
    /// Instructions per emulated second.
    pub ips: u64,
    /// Skid of the replaying host.
    pub skid: String,
    /// Replays of each recording.
    pub replays: u32,
    /// Loads.
    pub loads: Vec<&'static str>,
}

/// How a run is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Plain,
    Recorded(Paging),
}

/// The words for `tests/workload/init` that make a load.
pub fn words(load: &str, size: u32) -> String {
    match load {
        "disk" => format!("quiet wl=diskw,diskr n={size}"),
        _ => format!("quiet wl={load} n={size}"),
    }
}

impl Bench {
    /// Runs all of it.
    ///
    /// # Errors
    /// When a run cannot be made or does not end as it should. A replay that is not equal is no error: it is counted.
    pub fn run(&self) -> Result<Side> {
        let mut side = Side::default();
        let has = |load: &str| self.loads.contains(&load);
        for load in [NOTHING, "boot", "cpu", "gzip", "fork"].into_iter().filter(|load| has(load)) {
            side.plain.insert(load, self.one(load, Mode::Plain)?.0);
        }
        for load in [NOTHING, "boot", "fork"].into_iter().filter(|load| has(load)) {
            side.fast.insert(load, self.one(load, Mode::Recorded(Paging::Fast))?.0);
        }
        for load in &self.loads {
            let (run, outcome) = self.one(load, Mode::Recorded(Paging::Strict))?;
            side.recorded.insert(load, run);
            if *load == NOTHING {
                continue;
            }
            if *load == "cpu" {
                side.timer = timer_entries(&self.log(load, Mode::Recorded(Paging::Strict)))?;
            }
            for number in 0..self.replays {
                side.replays.push(self.replay(load, number, &outcome)?);
            }
        }
        Ok(side)
    }

    fn one(&self, load: &'static str, mode: Mode) -> Result<(Run, Outcome)> {
        let what = match mode {
            Mode::Plain => "without recording".to_owned(),
            Mode::Recorded(paging) => format!("recorded, {}", paging.name()),
        };
        let step = ui::step(format!("run {load} {what}"));
        let host = self.host(&format!("bench-replay-{load}-{}", mode.name()));
        let outside = if load.starts_with("net") { Outside::world(1) } else { Outside::Nothing };
        let host = Host { outside, ..host };
        let vm = self.vm(load)?;
        let (outcome, bytes) = match mode {
            Mode::Plain => (host.run(&vm)?.0, 0),
            Mode::Recorded(paging) => {
                let options =
                    RecordOptions { paging: Some(paging), ..RecordOptions::new(host, self.log(load, mode)) };
                let recording = replaying::record(&vm, &options)?;
                recording.check()?;
                (recording.outcome, recording.bytes)
            }
        };
        outcome.expect(&Exit::Success)?;
        let stopped = lines::last(&outcome.console, "vm", "stopped")
            .context("the kernel does not say how the guest ended")?;
        ensure!(
            stopped.get("reason") == Some("power-off"),
            "the guest did not switch itself off.\n{}",
            outcome.last_words()
        );
        let number = |key: &str| stopped.number(key).unwrap_or_default() as f64;
        let run = Run {
            // Without boot, boot proof and last words, which wait for the serial line: 100 lines of it are a second. And
            // without the time for which the guest was halted: it ends at a tick, wherever between two it began.
            cost: (number("real-ns") + number("stood-ns")) * self.ips as f64 / 1e9 - halted(&outcome.console),
            bytes: bytes as f64,
            guest_seconds: number("virtual-ns") / 1e9,
            instructions: number("instructions"),
        };
        step.done_with(format!("{:.1} M instructions, {bytes} bytes of log", run.cost / 1e6));
        Ok((run, outcome))
    }

    fn replay(&self, load: &'static str, number: u32, recorded: &Outcome) -> Result<Replayed> {
        let step = ui::step(format!("replay {load}"));
        let host = self.host(&format!("bench-replay-{load}-replay"));
        let skid = Some(format!("{}:{}", self.skid, number + 1));
        let host = Host { knobs: Knobs { skid, ..Knobs::default() }, ..host };
        // What a host does to itself on purpose is no cost of replaying.
        let variation = (number > 0).then_some(number.into());
        let options = ReplayOptions { variation, ..ReplayOptions::new(host) };
        let verdict = replaying::replay(&self.log(load, Mode::Recorded(Paging::Strict)), &options)?;
        let fingerprints = [recorded, &verdict.outcome]
            .map(|outcome| lines::fingerprint(&outcome.console).as_deref().map(lines::squeezed));
        let equal = verdict.kind == Kind::Equal && fingerprints[0] == fingerprints[1];
        let stopped = lines::last(&recorded.console, "vm", "stopped");
        let real = stopped.and_then(|fields| fields.number("real-ns")).unwrap_or_default() as f64;
        if equal {
            step.done_with(format!("equal at {} checkpoints", verdict.checkpoints));
        } else {
            step.failed(verdict.sentence());
        }
        Ok(Replayed {
            load,
            equal,
            seconds: if number == 0 { verdict.real_ns as f64 / 1e9 } else { f64::NAN },
            // Virtual time that a halt skips need not have passed on the host: its clock may be ahead of the guest's.
            recorded: real / 1e9 - halted(&recorded.console) / self.ips as f64,
            landings: verdict.landings,
            landing_exits: verdict.landing_exits,
        })
    }

    fn host(&self, name: &str) -> Host {
        Host { limit: LIMIT, ips: self.ips, ..Host::new(name, self.kernel.clone()) }
    }

    fn log(&self, load: &str, mode: Mode) -> PathBuf {
        paths::out_dir().unwrap_or_default().join(format!("bench-replay-{load}-{}.log", mode.name()))
    }

    /// The same machine for every load, so that only the load makes the difference.
    fn vm(&self, load: &str) -> Result<Vm> {
        let words = if load == NOTHING { "quiet off=1".to_owned() } else { words(load, self.size) };
        let description = Payload::Cloud.describe(&words)?;
        let description = Description {
            disks: vec![DiskSource::Blank(Memory { bytes: u64::from(self.size) << 21 })],
            networks: 1,
            ..description
        };
        if load == NOTHING { nothing(description)?.vm() } else { description.vm() }
    }
}

impl Mode {
    const fn name(self) -> &'static str {
        match self {
            Mode::Plain => "plain",
            Mode::Recorded(paging) => paging.name(),
        }
    }
}

/// Cycles of the host, that is instructions of the emulated one, for which the guest was halted.
fn halted(console: &str) -> f64 {
    let exits = lines::of(console, "vm-exits").filter(|fields| fields.get("reason") == Some("hlt"));
    exits.last().and_then(|fields| fields.number("cycles")).unwrap_or_default() as f64
}

/// The same machine with a kernel of the same size that switches it off at once.
fn nothing(description: Description) -> Result<Description> {
    let Start::Kernel { kernel, initrd, command_line } = &description.start else { return Ok(description) };
    let length = usize::try_from(std::fs::metadata(kernel)?.len())?;
    let file = paths::out_dir()?.join("bench-replay-nothing.bzimage");
    std::fs::write(&file, tiny::nothing(length))?;
    let start = Start::Kernel { kernel: file, initrd: initrd.clone(), command_line: command_line.clone() };
    Ok(Description { start, ..description })
}

/// How many looks at the time a log has at points between two synchronous exits (a timer's interrupt while the guest computes),
/// and their bytes.
fn timer_entries(log: &Path) -> Result<(u64, u64)> {
    let bytes = std::fs::read(log)?;
    let log = Log::open(&bytes).map_err(|error| anyhow::anyhow!("{error}"))?;
    let looks = items(&log).filter(|item| {
        matches!((item.entry.event, item.entry.place), (Event::Look(_), Place::Between { .. }))
    });
    Ok(looks.fold((0, 0), |(count, bytes), item| (count + 1, bytes + item.length as u64)))
}
