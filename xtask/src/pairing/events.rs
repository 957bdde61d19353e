//! What the two hosts say of themselves in their `@@ pair` lines, taken together.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use vm_config::HostName;

use crate::replaying::lines::{self, Fields};

/// The word of these lines.
const WORD: &str = "pair";

/// One thing that a host has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which host.
    pub host: HostName,
    /// What.
    pub fields: Fields,
}

/// Whether a line of a console is one of these.
pub fn is_of_the_pair(line: &str) -> bool {
    lines::of(line, WORD).next().is_some()
}

/// The events of one host's console, in order.
pub fn of(host: HostName, console: &str) -> Vec<Event> {
    lines::of(console, WORD).map(|fields| Event { host, fields }).collect()
}

/// What a host has said, as questions.
#[derive(Clone, Debug, Default)]
pub struct History(pub Vec<Event>);

impl History {
    /// Of both consoles.
    pub fn of(consoles: [&str; 2]) -> Self {
        History(
            HostName::ALL.into_iter().zip(consoles).flat_map(|(host, console)| of(host, console)).collect(),
        )
    }

    /// The first event of this name that a host has told.
    pub fn first(&self, host: HostName, event: &str) -> Option<&Fields> {
        self.0.iter().find(|e| e.host == host && e.fields.event() == event).map(|e| &e.fields)
    }

    /// Whether a host has told an event.
    pub fn has(&self, host: HostName, event: &str) -> bool {
        self.first(host, event).is_some()
    }

    /// The names of a host's events, in order.
    pub fn names(&self, host: HostName) -> Vec<&str> {
        self.0.iter().filter(|e| e.host == host).map(|e| e.fields.event()).collect()
    }

    /// The hosts that have gone on alone: as the backup that took over, or the primary that lost its backup.
    pub fn alone(&self) -> Vec<HostName> {
        let alone = |host: &HostName| self.has(*host, "live") || self.has(*host, "solo");
        HostName::ALL.into_iter().filter(alone).collect()
    }

    /// That no generation was won twice, and no two hosts have gone on alone.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<()> {
        let mut winners = BTreeMap::new();
        for event in self.0.iter().filter(|e| e.fields.event() == "won") {
            let generation = event.fields.get("generation").unwrap_or_default();
            let first = *winners.entry(generation).or_insert(event.host);
            ensure!(
                first == event.host,
                "both hosts have won generation {generation}: two live virtual machines"
            );
        }
        let alone = self.alone();
        ensure!(alone.len() < 2, "both hosts have gone on alone: two live virtual machines");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "boot\n@@ pair event=joining side=a\r\n@@ pair event=armed side=a generation=1\n@@ record event=won\n\
                     half@@ pair event=suspect generation=1 why=\"no heartbeat\"\n";

    #[test]
    fn the_history_is_read_from_consoles() {
        let b = "@@ pair event=joining\n@@ pair event=won generation=1\n@@ pair event=live generation=1\n";
        let history = History::of([A, b]);
        assert_eq!(history.names(HostName::A), ["joining", "armed", "suspect"]);
        assert_eq!(history.names(HostName::B), ["joining", "won", "live"]);
        let suspect = history.first(HostName::A, "suspect").unwrap();
        assert_eq!(suspect.get("why"), Some("no heartbeat"));
        assert_eq!(history.alone(), [HostName::B]);
        history.check().unwrap();
    }

    #[test]
    fn two_live_ones_are_found() {
        let won = "@@ pair event=won generation=1\n";
        let error = History::of([won, won]).check().unwrap_err().to_string();
        assert!(error.contains("generation 1"), "{error}");
        History::of([won, "@@ pair event=won generation=2\n"]).check().unwrap();
        let (solo, live) = ("@@ pair event=solo\n", "@@ pair event=live\n");
        assert!(History::of([solo, live]).check().is_err());
        assert!(History::of([solo, "@@ pair event=halted\n"]).check().is_ok());
    }
}
