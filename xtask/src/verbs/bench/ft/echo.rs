//! The round trip of a ping of an idle guest, unprotected and protected.

use anyhow::{Context, Result, ensure};

use super::alone::Alone;
use super::{Bench, loads, wire};
use crate::pairing::marks::Moment;
use crate::pairing::plan::{PairOptions, paired};
use crate::pairing::run as pair;
use crate::payload::Payload;
use crate::switch::cable::CableConfig;
use crate::switch::station::ping::{Ping, PingConfig, Pinged};
use crate::switch::time::Ns;
use crate::vm::{Description, Vm};
use crate::{paths, ui};

use super::table::{Echo, Figures};

const MS: Ns = 1_000_000;
/// How long the guest is pinged, every 5 ms.
const PINGED: Ns = 3_000 * MS;
/// By when an unprotected guest answers, after the host's start: it is not looked at for longer than that and the above.
const STARTED: Ns = 5_000 * MS;
/// The fewest answers that a figure is made of.
const FEWEST: usize = 200;
/// The hosts' addresses on the logging network, as [`paired`] gives them.
pub const HOSTS: [[u8; 4]; 2] = [[10, 77, 0, 1], [10, 77, 0, 2]];

/// Pings both.
///
/// # Errors
/// When a run cannot be made, or too few pings are answered.
pub fn run(bench: &Bench) -> Result<(Echo, Figures)> {
    let plain = answered(unprotected(bench)?)?;
    let step = ui::step("ping a guest, protected");
    let capture = paths::out_dir()?.join("bench-ft-echo.pcap");
    let options = PairOptions {
        until: Some(Moment::parse(&format!("armed+{PINGED}ns"))?),
        end: Some(60_000 * MS),
        ping: Some(PingConfig::default()),
        log_capture: Some(capture.clone()),
        ..bench.pair(bench.host("echo-pair"))
    };
    let outcome = pair::run(&paired(&vm()?, bench.seed)?, &options)?;
    outcome.check()?;
    ensure!(outcome.history.alone().is_empty(), "a host went on alone\n{}", outcome.last_words());
    let packets = wire::read(&capture);
    let _ = std::fs::remove_file(&capture);
    let pinged = outcome.pinged.clone().context("nobody has pinged")?;
    let (from, to) = (pinged.answers.first(), pinged.answers.last());
    let window = |answer: Option<&(Ns, Ns)>| answer.map_or(0, |(at, _)| *at);
    let traffic = wire::traffic(&packets?, HOSTS, window(from), window(to));
    let cable = CableConfig::default();
    let protected = answered(pinged)?;
    step.done_with(format!("{:.1} us", protected.round_trip(500) as f64 / 1e3));
    let echo = Echo {
        plain_p50_ns: plain.round_trip(500) as f64,
        plain_p99_ns: plain.round_trip(990) as f64,
        protected_p50_ns: protected.round_trip(500) as f64,
        protected_p99_ns: protected.round_trip(990) as f64,
        logging_ns: traffic.round_trip(cable.latency, cable.rate),
    };
    Ok((echo, loads::figures("echo", &outcome, 0.0)))
}

/// The guest that answers and does nothing else.
fn vm() -> Result<Vm> {
    Description { networks: 1, ..Payload::Counter.describe("quiet=1")? }.vm()
}

fn unprotected(bench: &Bench) -> Result<Pinged> {
    let step = ui::step("ping a guest, unprotected");
    let ping = Ping::new(&PingConfig::default());
    let pings = ping.pings();
    let alone = Alone {
        host: bench.host("echo-alone"),
        seed: bench.seed,
        worlds: vec![("ping".into(), Box::new(ping))],
        capture: None,
        end: Some(STARTED + PINGED),
    };
    alone.run(&vm()?)?;
    let pinged = pings.get();
    step.done_with(format!("{:.1} us", pinged.round_trip(500) as f64 / 1e3));
    Ok(pinged)
}

fn answered(pinged: Pinged) -> Result<Pinged> {
    ensure!(pinged.answers.len() >= FEWEST, "too few pings are answered: {}", pinged.words());
    Ok(pinged)
}
