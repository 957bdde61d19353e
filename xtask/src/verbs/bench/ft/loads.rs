//! Loads on Debian's Linux, unprotected and protected.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use vm_config::HostName;

use super::alone::Alone;
use super::table::{BASE, Figures, NOTHING, Pair, Runs, Streams};
use super::{Bench, wire};
use crate::emulator::{Exit, Outcome};
use crate::pairing::plan::{PairOptions, paired};
use crate::pairing::run::{PairOutcome, run};
use crate::payload::{Payload, tiny};
use crate::replaying::lines;
use crate::switch::cable::CableConfig;
use crate::switch::station::{Station, StationConfig};
use crate::switch::time::Ns;
use crate::vm::outside::Outside;
use crate::vm::{Description, Start, Vm};
use crate::{paths, ui};

/// Loads of the part work.
pub const WORK: [&str; 5] = ["boot", "cpu", "gzip", "fork", "redis"];
/// A pair's run that has not come to its end by then will not, emulated nanoseconds.
const END: Ns = 600_000_000_000;
/// Requests of each of redis-benchmark's four tests per megabyte of the loads' size.
const REQUESTS: u32 = 128;
/// The station's ports: files, and the sink.
const FILES: u16 = 8000;
const SINK: u16 = 8001;

/// One run of a load.
struct One {
    /// From the guest's start to its end, emulated seconds.
    seconds: f64,
    /// What passed on the guest's network.
    packets: Vec<wire::Packet>,
    /// What the primary has told at its end; nothing of an unprotected run.
    figures: Figures,
}

/// Runs the loads that measure work, each unprotected and protected, and those that they are compared with.
///
/// # Errors
/// When a run cannot be made or does not end as it should.
pub fn work(bench: &Bench, loads: &[String], runs: &mut Runs, figures: &mut Vec<Figures>) -> Result<()> {
    let has = |load: &str| loads.iter().any(|wanted| wanted == load);
    let mut all = vec![BASE];
    all.extend(WORK.into_iter().filter(|load| has(load) && *load != BASE));
    if has(BASE) {
        all.push(NOTHING);
    }
    if has("redis") {
        all.push("redis-start");
    }
    for load in all {
        let pair = both(bench, load, figures, &mut |one| Ok(one.seconds))?;
        runs.insert(load, pair);
    }
    Ok(())
}

/// Runs the two streams, each unprotected and protected.
///
/// # Errors
/// As [`work`].
pub fn network(bench: &Bench, streams: &mut Streams, figures: &mut Vec<Figures>) -> Result<()> {
    let bytes = u64::from(bench.size) << 20;
    for (load, port) in [("netrx", FILES), ("nettx", SINK)] {
        let pair = both(bench, load, figures, &mut |one| {
            wire::rate(&one.packets, port, bytes).context("the capture has no such stream")
        })?;
        streams.insert(load, pair);
    }
    Ok(())
}

/// A load unprotected and protected; `measure` makes one figure of each.
fn both(
    bench: &Bench,
    load: &'static str,
    figures: &mut Vec<Figures>,
    measure: &mut dyn FnMut(&One) -> Result<f64>,
) -> Result<Pair> {
    let mut one = |protected: bool| -> Result<f64> {
        let how = if protected { "protected" } else { "unprotected" };
        let step = ui::step(format!("run {load}, {how}"));
        let one = if protected { protected_run(bench, load)? } else { plain_run(bench, load)? };
        let figure = measure(&one)?;
        step.done_with(format!("{:.3} s of emulated time", one.seconds));
        if protected {
            figures.push(one.figures);
        }
        Ok(figure)
    };
    Ok(Pair { plain: one(false)?, protected: one(true)? })
}

fn plain_run(bench: &Bench, load: &str) -> Result<One> {
    let capture = capture(load)?;
    let world: Box<Station> = Box::new(Station::new(&StationConfig::default()));
    let alone = Alone {
        host: bench.host(&format!("{load}-alone")),
        seed: bench.seed,
        worlds: vec![("world".into(), world)],
        capture: capture.clone(),
        end: Some(END),
    };
    let outcome = alone.run(&machine(bench, load)?)?;
    let stopped = switched_off(&outcome)?;
    let seconds = stopped.number("real-ns").context("the kernel does not say how long the guest ran")?;
    Ok(One { seconds: seconds as f64 / 1e9, packets: seen(capture)?, figures: Figures::default() })
}

fn protected_run(bench: &Bench, load: &'static str) -> Result<One> {
    let capture = capture(load)?;
    let outside = Outside::Stations {
        seed: bench.seed,
        cable: CableConfig::default(),
        stations: vec![("world".into(), StationConfig::default())],
        capture: capture.clone(),
    };
    let mut host = bench.host(&format!("{load}-pair"));
    host.outside = outside;
    let vm = protected(bench, load)?;
    let outcome = run(&vm, &PairOptions { end: Some(END), ..bench.pair(host) })?;
    outcome.check()?;
    ensure!(outcome.history.alone().is_empty(), "a host went on alone\n{}", outcome.last_words());
    outcome.hosts.iter().try_for_each(|host| host.expect(&Exit::Success))?;
    switched_off(&outcome.hosts[0])?;
    let seconds = protected_seconds(&outcome)?;
    Ok(One { seconds, packets: seen(capture)?, figures: figures(load, &outcome, seconds) })
}

/// From the moment at which the guest of a pair began to the one at which both hosts knew of its end. (What the guest stood still
/// for the pair's sake is in it; the kernel's own `real-ns` leaves that out.)
fn protected_seconds(outcome: &PairOutcome) -> Result<f64> {
    let at = |event: &str| {
        let fields = outcome.history.first(HostName::A, event);
        let ns = fields.and_then(|fields| fields.number("ns"));
        ns.with_context(|| format!("host a does not say when it was {event}\n{}", outcome.last_words()))
    };
    Ok(at("ended")?.saturating_sub(at("protected")?) as f64 / 1e9)
}

/// What the primary has told, and what its logging card has sent.
pub fn figures(load: &'static str, outcome: &PairOutcome, seconds: f64) -> Figures {
    let console = &outcome.hosts[0].console;
    let lag = lines::of(console, "pair-lag").last();
    let wire = lines::of(console, "pair-transmit-to-wire").last();
    let stopped = lines::last(console, "vm", "stopped");
    let ports = outcome.summary.ports.iter().filter(|port| port.network == "log");
    let bytes: u64 = ports.filter(|port| port.port.starts_with("a:")).map(|port| port.up.bytes).sum();
    Figures {
        load,
        lag_p99_ns: lag.as_ref().and_then(|lag| lag.number("p99-ns")).map(|ns| ns as f64),
        lag_most_ns: lag.as_ref().and_then(|lag| lag.number("most-ns")).map(|ns| ns as f64),
        stood_ns: stopped.as_ref().and_then(|stopped| stopped.number("stood-ns")).map(|ns| ns as f64),
        to_wire: wire.as_ref().and_then(|wire| wire.number("mean")).map(|n| n as f64),
        to_wire_p99: wire.as_ref().and_then(|wire| wire.number("p99")).map(|n| n as f64),
        log_bits: (seconds > 0.0).then(|| bytes as f64 * 8.0 / seconds),
    }
}

/// That the guest has switched itself off; what the kernel says of it.
fn switched_off(outcome: &Outcome) -> Result<lines::Fields> {
    outcome.expect(&Exit::Success)?;
    let stopped = lines::last(&outcome.console, "vm", "stopped")
        .context("the kernel does not say how the guest ended")?;
    let well = stopped.get("reason") == Some("power-off");
    ensure!(well, "the guest did not switch itself off.\n{}", outcome.last_words());
    Ok(stopped)
}

/// The same machine for every load but redis's, so that only the load makes the difference; redis has a run of its own to compare with.
fn machine(bench: &Bench, load: &str) -> Result<Vm> {
    let size = bench.size;
    let description = match load {
        NOTHING => nothing(Payload::Cloud.describe("quiet off=1")?)?,
        "redis" => Payload::Redis.describe(&format!("quiet wl=redis self=1 n={}", size * REQUESTS))?,
        "redis-start" => Payload::Redis.describe("quiet wl=redis self=1 n=1")?,
        _ => Payload::Cloud.describe(&format!("quiet wl={load} n={size}"))?,
    };
    Description { networks: 1, ..description }.vm()
}

/// The same, protected.
fn protected(bench: &Bench, load: &str) -> Result<Vm> {
    let vm = paired(&machine(bench, load)?, bench.seed)?;
    let mut config = vm.config.clone();
    config.pair.as_mut().context("the configuration has lost its [pair]")?.paging = bench.paging;
    vm.with_text(&config.text())
}

/// The same machine with a kernel of the same size that switches it off at once.
fn nothing(description: Description) -> Result<Description> {
    let Start::Kernel { kernel, initrd, command_line } = &description.start else { return Ok(description) };
    let length = usize::try_from(std::fs::metadata(kernel)?.len())?;
    let file = paths::out_dir()?.join("bench-ft-nothing.bzimage");
    std::fs::write(&file, tiny::nothing(length))?;
    let start = Start::Kernel { kernel: file, initrd: initrd.clone(), command_line: command_line.clone() };
    Ok(Description { start, ..description })
}

/// Where to write what passes on the guest's network, for the loads that are measured there.
fn capture(load: &str) -> Result<Option<PathBuf>> {
    let file = paths::out_dir()?.join(format!("bench-ft-{load}.pcap"));
    Ok(load.starts_with("net").then_some(file))
}

/// What has passed; the file goes.
fn seen(capture: Option<PathBuf>) -> Result<Vec<wire::Packet>> {
    let Some(file) = capture else { return Ok(Vec::new()) };
    let packets = wire::read(&file);
    let _ = std::fs::remove_file(&file);
    packets
}
