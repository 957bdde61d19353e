//! What passes on the logging network while a protected Linux does nothing.

use anyhow::{Result, ensure};

use super::echo::HOSTS;
use super::table::Idle;
use super::{Bench, wire};
use crate::pairing::marks::Moment;
use crate::pairing::plan::{PairOptions, paired};
use crate::pairing::run as pair;
use crate::payload::Payload;
use crate::switch::time::Ns;
use crate::vm::Description;
use crate::{paths, ui};

const SECOND: Ns = 1_000_000_000;
/// By when Linux has booted and come to rest, instructions since the pair was armed.
const AT_REST: u64 = 6_000_000_000;

/// Looks at it for so many emulated seconds.
///
/// # Errors
/// When the run cannot be made, or a host went on alone.
pub fn run(bench: &Bench, seconds: u32) -> Result<Idle> {
    let step = ui::step(format!("watch an idle guest for {seconds} s"));
    let capture = paths::out_dir()?.join("bench-ft-idle.pcap");
    let rest = (AT_REST * SECOND / bench.ips).max(2 * SECOND);
    let length = Ns::from(seconds) * SECOND;
    let guest = Payload::Cloud.describe("quiet wl=boot stay=1")?;
    let vm = paired(&Description { networks: 1, ..guest }.vm()?, bench.seed)?;
    let options = PairOptions {
        until: Some(Moment::parse(&format!("armed+{}ns", rest + length))?),
        log_capture: Some(capture.clone()),
        ..bench.pair(bench.host("idle-pair"))
    };
    let outcome = pair::run(&vm, &options)?;
    let packets = wire::read(&capture);
    let _ = std::fs::remove_file(&capture);
    outcome.check()?;
    ensure!(outcome.history.alone().is_empty(), "a host went on alone\n{}", outcome.last_words());
    ensure!(
        outcome.hosts[0].console.contains("@@ DONE"),
        "the guest had not booted by then\n{}",
        outcome.last_words()
    );
    let end = outcome.summary.time_ns;
    let traffic = wire::traffic(&packets?, HOSTS, end.saturating_sub(length), end);
    step.done_with(format!("{:.1} kbit/s", traffic.bits(traffic.there[1]) / 1e3));
    Ok(Idle {
        log_bits: traffic.bits(traffic.there[1]),
        payload_bits: traffic.bits(traffic.there[2]),
        ack_bits: traffic.bits(traffic.back[1]),
        heartbeat_bits: traffic.bits(traffic.udp),
    })
}
