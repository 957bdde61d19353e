//! Runs of a pair by seeds: each with one misfortune, drawn with its moment from the seed, and what must hold after it.

use anyhow::Result;
use vm_config::HostName;

use super::incident::{FOR_GOOD, Incident, Link, What};
use super::marks::{Mark, Moment};
use super::plan::{PairOptions, paired};
use super::run::{PairOutcome, run};
use crate::payload::Payload;
use crate::switch::rng::Rng;
use crate::switch::station::counter::CounterConfig;
use crate::switch::station::ping::PingConfig;
use crate::switch::time::Ns;
use crate::vm::Description;
use crate::vm::host::Host;

const MS: Ns = 1_000_000;
/// The latest that a misfortune comes after the arbiter armed the pair: the guest has not started by then, or has just.
const EARLY: Ns = 600 * MS;
/// The latest that it comes after an answer: in the middle of the next request, or of a pause.
const AFTER_ANSWER: Ns = 25 * MS;
/// So long after arming both hosts have the guest, and one of them may go.
const PROTECTED: Ns = 150 * MS;
/// How long a host hangs that comes back.
const HANGS: Ns = 2_000 * MS;

/// One run of a campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// Its seed.
    pub seed: u64,
    /// What befalls the pair.
    pub incident: Incident,
    /// The guest computes all the time instead of waiting for requests.
    pub busy: bool,
}

impl Draw {
    /// What this seed means, with a client of so many requests. Host a is the primary.
    pub fn of(seed: u64, requests: u32) -> Self {
        let mut rng = Rng::new(seed, "pair campaign");
        let primary = HostName::A;
        let what = match rng.below(7) {
            0 => What::Kill(primary),
            1 => What::Stop(primary, HANGS),
            2 => What::Cut(Link::Log, FOR_GOOD),
            3 => What::Cut(Link::Host(primary), FOR_GOOD),
            4 => What::Kill(primary.other()),
            5 => What::Cut(Link::All, FOR_GOOD),
            _ => What::Cut(Link::Guest, FOR_GOOD),
        };
        let early = rng.below(5) == 0;
        let when = if early {
            Moment { mark: Mark::Armed, after: rng.below(EARLY) }
        } else {
            let number = 1 + rng.below(u64::from(requests.max(1)));
            Moment { mark: Mark::Answers(number as usize), after: rng.below(AFTER_ANSWER) }
        };
        Draw { seed, incident: Incident { what, when }, busy: rng.below(2) == 0 }
    }

    /// Whether the pair protects the guest by then, so that nothing may become of the misfortune but delay. Before, there may be no
    /// second host to go on with.
    pub const fn is_protected(&self) -> bool {
        match self.incident.when.mark {
            Mark::Answers(_) => true,
            _ => self.incident.when.after >= PROTECTED,
        }
    }
}

/// Runs it: the guest that counts, on hosts like `host`.
///
/// # Errors
/// When the run cannot be made, or what must hold does not; the outcome is in neither.
pub fn judge(draw: &Draw, host: Host, requests: u32) -> Result<PairOutcome> {
    let words = format!("quiet=1 busy={}", u8::from(draw.busy));
    let guest = Payload::Counter.describe(&words)?;
    let vm = paired(&Description { networks: 1, ..guest }.vm()?, draw.seed)?;
    let options = PairOptions {
        seed: draw.seed,
        incidents: vec![draw.incident],
        counter: Some(CounterConfig { requests, ..CounterConfig::default() }),
        ping: Some(PingConfig::default()),
        linger: 3_000 * MS,
        end: Some(60_000 * MS),
        ..PairOptions::new(host)
    };
    let outcome = run(&vm, &options)?;
    outcome.check()?;
    if draw.is_protected() {
        outcome.check_client()?;
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn seeds_draw_all_misfortunes_at_all_moments() {
        let draws: Vec<Draw> = (0..200).map(|seed| Draw::of(seed, 100)).collect();
        let kinds: BTreeSet<String> = draws.iter().map(|draw| draw.incident.what.to_string()).collect();
        assert_eq!(kinds.len(), 7, "{kinds:?}");
        let protected = draws.iter().filter(|draw| draw.is_protected()).count();
        assert!((180..200).contains(&protected), "{protected}");
        let early = draws.iter().filter(|draw| draw.incident.when.mark == Mark::Armed).count();
        assert!((20..70).contains(&early), "{early}");
        assert!(draws.iter().any(|draw| draw.busy) && draws.iter().any(|draw| !draw.busy));
        assert_eq!(draws[7], Draw::of(7, 100));
        let numbers = draws.iter().filter_map(|draw| match draw.incident.when.mark {
            Mark::Answers(number) => Some(number),
            _ => None,
        });
        assert!(numbers.clone().all(|number| (1..=100).contains(&number)) && numbers.max() > Some(90));
    }
}
