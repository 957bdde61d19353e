//! The primary dies at seeded moments: how long is nobody there?

use anyhow::{Context, Result, ensure};
use vm_config::HostName;

use super::Bench;
use super::table::Takeover;
use crate::pairing::incident::{Incident, What};
use crate::pairing::marks::{Mark, Moment};
use crate::pairing::plan::{PairOptions, paired};
use crate::pairing::run::{PairOutcome, run as run_pair};
use crate::payload::Payload;
use crate::switch::rng::Rng;
use crate::switch::station::counter::CounterConfig;
use crate::switch::station::ping::PingConfig;
use crate::switch::time::Ns;
use crate::ui;
use crate::vm::Description;

const MS: Ns = 1_000_000;
/// Requests of the client that checks.
const REQUESTS: u32 = 60;
/// The latest that the primary dies after one of its answers: in the midst of the next, or of a pause.
const AFTER: Ns = 25 * MS;

/// A kill and what was made of it.
fn draw(seed: u64) -> (Incident, bool) {
    let mut rng = Rng::new(seed, "bench ft");
    // Not the first answers, and not the last: there is to be a client before and after.
    let answer = 5 + rng.below(u64::from(REQUESTS) - 15) as usize;
    let when = Moment { mark: Mark::Answers(answer), after: rng.below(AFTER) };
    (Incident { what: What::Kill(HostName::A), when }, rng.below(2) == 0)
}

/// Kills so many primaries.
///
/// # Errors
/// When a run cannot be made. One after which a client saw more than delay is no error: it is counted.
pub fn run(bench: &Bench, kills: u32, seen: &mut Vec<Option<Takeover>>) -> Result<()> {
    for number in 0..u64::from(kills) {
        let seed = bench.seed.wrapping_mul(1000).wrapping_add(number);
        let (incident, busy) = draw(seed);
        let guest = if busy { "a busy guest" } else { "a guest" };
        let step = ui::step(format!("kill the primary of {guest}, {}", incident.when));
        let outcome = one(bench, seed, incident, busy)?;
        let sound = outcome.check().and(outcome.check_client());
        match sound.and_then(|()| figures(&outcome)) {
            Ok(takeover) => {
                step.done_with(format!("{:.1} ms without an answer", takeover.gap_ns / 1e6));
                seen.push(Some(takeover));
            }
            Err(error) => {
                step.failed(format!("seed {seed}"));
                ui::error(&error);
                seen.push(None);
            }
        }
    }
    Ok(())
}

fn one(bench: &Bench, seed: u64, incident: Incident, busy: bool) -> Result<PairOutcome> {
    let guest = Payload::Counter.describe(&format!("quiet=1 busy={}", u8::from(busy)))?;
    let vm = paired(&Description { networks: 1, ..guest }.vm()?, seed)?;
    let options = PairOptions {
        seed,
        incidents: vec![incident],
        counter: Some(CounterConfig { requests: REQUESTS, ..CounterConfig::default() }),
        ping: Some(PingConfig::default()),
        linger: 500 * MS,
        end: Some(60_000 * MS),
        ..PairOptions::new(bench.host("takeover"))
    };
    run_pair(&vm, &options)
}

/// The figures of a takeover by host b.
///
/// # Errors
/// When there was none, or before the primary died: a false alarm.
fn figures(outcome: &PairOutcome) -> Result<Takeover> {
    let died = outcome.incidents.iter().find_map(|(_, at)| *at).context("the primary was never killed")?;
    let won = outcome.asks.iter().find(|asked| asked.verdict == "won").map(|asked| asked.at);
    let won = won.with_context(|| format!("nobody has won\n{}", outcome.last_words()))?;
    ensure!(
        won > died,
        "a takeover at {won} ns, before the primary died at {died} ns: a false alarm\n{}",
        outcome.last_words()
    );
    let at = |event: &str| {
        let fields = outcome.history.first(HostName::B, event);
        let ns = fields.and_then(|fields| fields.number("ns"));
        ns.with_context(|| format!("host b does not say when: {event}\n{}", outcome.last_words()))
    };
    Ok(Takeover {
        gap_ns: outcome.silence().context("no ping was answered after the primary's death")? as f64,
        connection_gap_ns: outcome.gap().unwrap_or_default() as f64,
        after_detection_ns: at("guest-live")?.saturating_sub(at("suspect")?) as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_drawn_between_the_client_s_answers() {
        let draws: Vec<(Incident, bool)> = (0..100).map(draw).collect();
        assert_eq!(draws[7], draw(7));
        assert!(draws.iter().any(|(_, busy)| *busy) && draws.iter().any(|(_, busy)| !busy));
        for (incident, _) in draws {
            let Mark::Answers(answer) = incident.when.mark else { panic!("{incident:?}") };
            assert!((5..50).contains(&answer) && incident.when.after < AFTER, "{incident:?}");
        }
    }
}
