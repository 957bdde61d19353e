//! What a demonstration came to: the figures of a pair whose primary was killed, and the sentences that say them. Pure.

use std::time::Duration;

use vm_config::HostName;

use super::screen::{bytes, seconds};
use crate::pairing::run::PairOutcome;
use crate::replaying::lines::{self, Fields};
use crate::switch::time::Ns;
use crate::ui;

/// The figures. Times are emulated, ns; what did not come to pass has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Figures {
    /// When the primary was killed.
    pub killed_ns: Option<Ns>,
    /// From the death to the backup's suspicion.
    pub suspected_after_ns: Option<Ns>,
    /// How long the backup went on executing what it had received, from its suspicion on: what it lagged behind.
    pub drained_in_ns: Option<Ns>,
    /// What the backup lagged behind at most, ns; `None`: never so much that the primary was slowed.
    pub lag_most_ns: Option<Ns>,
    /// From the death to the moment when the guest went on at the other host.
    pub live_after_ns: Option<Ns>,
    /// The client's longest wait from one answer to the next, from the death on.
    pub client_gap_ns: Option<Ns>,
    /// The longest time in which no ping was answered, from the death on.
    pub silence_ns: Option<Ns>,
    /// The client's answers.
    pub answers: usize,
    /// The last number that it counted to.
    pub counted_to: u64,
    /// Answers that were wrong.
    pub wrong: u64,
    /// Connections that broke.
    pub broken: u64,
    /// Bytes that the primary sent on the logging network until its death: log, heartbeats, and all headers.
    pub log_bytes: u64,
    /// How long the pair was protected.
    pub protected_ns: Option<Ns>,
    /// All of the run.
    pub emulated_ns: Ns,
    /// By the wall clock, ms.
    pub wall_ms: u64,
}

impl Figures {
    /// Those of a run in which host a, the primary, was killed.
    pub fn of(outcome: &PairOutcome, wall: Duration) -> Self {
        let killed_ns = outcome.incidents.first().and_then(|(_, at)| *at);
        let b =
            |event: &str| outcome.history.first(HostName::B, event).and_then(|fields| fields.number("ns"));
        // Host b's clock as emulated time: its question to the arbiter is seen on both.
        let contended = outcome.asks.iter().find(|asked| asked.what == "contend").map(|asked| asked.at);
        let asked = outcome.history.0.iter().filter(|event| event.host == HostName::B);
        let asked = asked.map(|event| &event.fields).find(|fields| fields.event() == "ask").and_then(own);
        let place =
            |own: Ns| u64::try_from(i128::from(contended?) - i128::from(asked?) + i128::from(own)).ok();
        let after = |own: Option<Ns>| place(own?)?.checked_sub(killed_ns?);
        let armed = outcome.asks.iter().find(|asked| asked.verdict == "armed").map(|asked| asked.at);
        let seen = outcome.counted.clone().unwrap_or_default();
        Figures {
            killed_ns,
            suspected_after_ns: after(b("suspect")),
            drained_in_ns: b("drained").zip(b("draining")).and_then(|(end, start)| end.checked_sub(start)),
            lag_most_ns: lines::of(&outcome.hosts[0].console, "pair-lag")
                .filter_map(|f| f.number("most-ns"))
                .max(),
            live_after_ns: after(b("guest-live")),
            client_gap_ns: outcome.gap(),
            silence_ns: outcome.silence(),
            answers: seen.answered.len(),
            counted_to: seen.increments,
            wrong: seen.wrong,
            broken: seen.broken,
            log_bytes: outcome.log_bytes()[0],
            protected_ns: killed_ns.zip(armed).and_then(|(end, start)| end.checked_sub(start)),
            emulated_ns: outcome.summary.time_ns,
            wall_ms: wall.as_millis().try_into().unwrap_or(u64::MAX),
        }
    }

    /// In sentences; `guest` is what ran.
    pub fn sentences(&self, guest: &str) -> Vec<String> {
        let ms = |ns: Option<Ns>| ns.map_or("?".into(), |ns| format!("{:.1} ms", ns as f64 / 1e6));
        let mut said = vec![format!("{guest} ran on two emulated hosts at once, as one virtual machine.")];
        if let Some(killed) = self.killed_ns {
            said.push(format!(
                "At {:.3} s of emulated time host a, the primary, was killed.",
                seconds(killed)
            ));
            said.push(format!(
                "Host b noticed after {}, had executed all that it had received {} later, asked the arbiter, and the guest \
                 went on there {} after the death.",
                ms(self.suspected_after_ns),
                ms(self.drained_in_ns),
                ms(self.live_after_ns)
            ));
        }
        let order = match self.wrong + self.broken {
            0 => "on one connection, without a number left out or repeated",
            _ => "NOT as it has to be",
        };
        said.push(match self.lag_most_ns {
            Some(lag) => format!("Until then host b lagged {} behind at most.", ms(Some(lag))),
            None => "Until then host b never lagged so far behind that the primary had to be slowed.".into(),
        });
        said.push(format!(
            "The client counted to {} {order}: {} answers, {} wrong, {} broken connections.",
            self.counted_to, self.answers, self.wrong, self.broken
        ));
        let patience = match (self.client_gap_ns, self.silence_ns) {
            (Some(gap), Some(silence)) if gap > silence + silence / 2 => {
                " (the dead host took its request with it; its own TCP waits that long before it sends again)"
            }
            _ => "",
        };
        said.push(format!(
            "Its longest wait for an answer was {}{patience}; no ping was answered for {}.",
            ms(self.client_gap_ns),
            ms(self.silence_ns)
        ));
        if let Some(protected) = self.protected_ns.filter(|ns| *ns > 0) {
            let rate = self.log_bytes as f64 * 8.0 / seconds(protected) / 1e3;
            said.push(format!(
                "In {:.1} s the primary sent {} on the logging network ({rate:.0} kbit/s: the log, heartbeats, all headers).",
                seconds(protected),
                bytes(self.log_bytes)
            ));
        }
        let wall = Duration::from_millis(self.wall_ms);
        said.push(format!(
            "All of it took {:.1} s of emulated time and {} on this machine; every figure above is emulated time, and the \
             same each time.",
            seconds(self.emulated_ns),
            ui::seconds(wall)
        ));
        said
    }
}

fn own(fields: &Fields) -> Option<Ns> {
    fields.number("ns")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentences_say_the_figures() {
        let figures = Figures {
            killed_ns: Some(14_424_000_000),
            suspected_after_ns: Some(300_100_000),
            drained_in_ns: Some(0),
            live_after_ns: Some(303_500_000),
            client_gap_ns: Some(1_005_300_000),
            silence_ns: Some(319_700_000),
            lag_most_ns: Some(131_000_000),
            answers: 376,
            counted_to: 225,
            log_bytes: 1_250_000,
            protected_ns: Some(10_000_000_000),
            emulated_ns: 18_900_000_000,
            wall_ms: 61_000,
            ..Figures::default()
        };
        let text = figures.sentences("Debian").join("\n");
        for part in [
            "14.424 s",
            "after 300.1 ms",
            "303.5 ms after",
            "to 225",
            "131.0 ms behind",
            "376 answers, 0 wrong",
            "1005.3 ms (the dead",
            "1000 kbit/s",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        let none = Figures::default().sentences("Debian").join("\n");
        assert!(!none.contains("killed") && none.contains("counted to 0"), "{none}");
    }
}
