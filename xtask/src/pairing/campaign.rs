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
/// The latest that it comes after an answer: in the middle of the next request, or of a pause.
const AFTER_ANSWER: Ns = 25 * MS;
/// So long after arming both hosts have the guest, and one of them may go.
const PROTECTED: Ns = 150 * MS;
/// How long a host hangs that comes back.
const HANGS: Ns = 2_000 * MS;

/// What runs on both hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Guest {
    /// A small kernel of our own that counts: half a minute for each run
    #[default]
    Counter,
    /// Debian's Linux with redis-server: some minutes for each run
    Redis,
}

impl Guest {
    /// The latest that a misfortune comes after the arbiter armed the pair: the guest starts until then, and is not ready much before.
    const fn early(self) -> Ns {
        match self {
            Guest::Counter => 600 * MS,
            Guest::Redis => 4_500 * MS,
        }
    }

    /// Instructions per emulated second: Linux has more to do between two answers.
    const fn ips(self, of_host: u64) -> u64 {
        match self {
            Guest::Counter => of_host,
            Guest::Redis => 500_000_000,
        }
    }

    /// Its virtual machine. `busy`: it computes all the time.
    fn describe(self, busy: bool) -> Result<Description> {
        match self {
            Guest::Counter => Payload::Counter.describe(&format!("quiet=1 busy={}", u8::from(busy))),
            Guest::Redis => Payload::Redis.describe("quiet wl=redis tick=1"),
        }
    }
}

/// One run of a campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// Its seed.
    pub seed: u64,
    /// What befalls the pair.
    pub incident: Incident,
    /// The guest computes all the time instead of waiting for requests, if it is one of ours.
    pub busy: bool,
    /// What runs on both hosts.
    pub guest: Guest,
}

impl Draw {
    /// What this seed means for a guest, with a client of so many requests. Host a is the primary.
    pub fn of(seed: u64, guest: Guest, requests: u32) -> Self {
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
            Moment { mark: Mark::Armed, after: rng.below(guest.early()) }
        } else {
            let number = 1 + rng.below(u64::from(requests.max(1)));
            Moment { mark: Mark::Answers(number as usize), after: rng.below(AFTER_ANSWER) }
        };
        Draw { seed, incident: Incident { what, when }, busy: rng.below(2) == 0, guest }
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

/// Runs it, on hosts like `host`.
///
/// # Errors
/// When the run cannot be made, or what must hold does not; the outcome is in neither.
pub fn judge(draw: &Draw, host: Host, requests: u32) -> Result<PairOutcome> {
    let guest = draw.guest.describe(draw.busy)?;
    let vm = paired(&Description { networks: 1, ..guest }.vm()?, draw.seed)?;
    let host = Host { ips: draw.guest.ips(host.ips), ..host };
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
        let draws: Vec<Draw> = (0..200).map(|seed| Draw::of(seed, Guest::Counter, 100)).collect();
        let kinds: BTreeSet<String> = draws.iter().map(|draw| draw.incident.what.to_string()).collect();
        assert_eq!(kinds.len(), 7, "{kinds:?}");
        let protected = draws.iter().filter(|draw| draw.is_protected()).count();
        assert!((180..200).contains(&protected), "{protected}");
        let early = draws.iter().filter(|draw| draw.incident.when.mark == Mark::Armed).count();
        assert!((20..70).contains(&early), "{early}");
        assert!(draws.iter().any(|draw| draw.busy) && draws.iter().any(|draw| !draw.busy));
        assert_eq!(draws[7], Draw::of(7, Guest::Counter, 100));
        let numbers = draws.iter().filter_map(|draw| match draw.incident.when.mark {
            Mark::Answers(number) => Some(number),
            _ => None,
        });
        let booting =
            |draw: &Draw| draw.incident.when.mark == Mark::Armed && draw.incident.when.after > 600 * MS;
        assert!((0..200).any(|seed| booting(&Draw::of(seed, Guest::Redis, 100))));
        assert!(numbers.clone().all(|number| (1..=100).contains(&number)) && numbers.max() > Some(90));
    }
}
