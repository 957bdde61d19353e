//! What a pair that runs looks like from outside, for those who follow it: not part of what happens.

use std::sync::{Arc, Mutex, PoisonError};

use vm_config::HostName;

use super::incident::Incident;
use super::plan::LOG;
use crate::switch::core::{Summary, Switch};
use crate::switch::station::counter::Counted;
use crate::switch::station::lock::Asked;
use crate::switch::time::Ns;

/// Emulated time from one look at the cables to the next, ns.
const EVERY: Ns = 20_000_000;

/// What somebody who follows a run sees.
pub enum Seen<'a> {
    /// A whole line of a host's console.
    Line(HostName, &'a str),
    /// How it stands, after the lines that have come.
    Now(&'a Glimpse),
}

/// How a run stands.
#[derive(Clone, Debug, Default)]
pub struct Glimpse {
    /// Time and cables.
    pub beat: Beat,
    /// What is to befall the pair and has its moment, which may lie ahead.
    pub incidents: Vec<(Incident, Ns)>,
    /// What the arbiter was asked.
    pub asks: Vec<Asked>,
    /// What the counting client has seen, if there is one.
    pub counted: Option<Counted>,
}

/// The network's time and traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beat {
    /// Emulated time since the hosts were switched on.
    pub at: Ns,
    /// Bytes that host a and host b have sent on the logging network.
    pub log_bytes: [u64; 2],
}

/// The last [`Beat`], as the switch's thread leaves it.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<Mutex<Beat>>);

impl Pulse {
    /// The last one.
    pub fn get(&self) -> Beat {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the switch, unless it has done so a moment ago.
    pub fn beat(&self, switch: &Switch) {
        let mut beat = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if switch.now() >= beat.at.saturating_add(EVERY) {
            *beat = Beat { at: switch.now(), log_bytes: log_bytes(&switch.summary()) };
        }
    }
}

/// Bytes that each host has sent on the logging network, heartbeats and all headers among them.
pub fn log_bytes(summary: &Summary) -> [u64; 2] {
    HostName::ALL.map(|host| {
        let own = |port: &str| port.split_once(':').is_some_and(|(name, _)| name == host.name());
        let ports = summary.ports.iter().filter(|port| port.network == LOG && own(&port.port));
        ports.map(|port| port.up.bytes).sum()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::switch::cable::CableConfig;
    use crate::switch::config::Config;

    #[test]
    fn only_the_hosts_cards_on_the_logging_network_count() {
        let mut config = Config::lan(1, &["a", "b"], &CableConfig::default());
        config.networks[0].name = LOG.into();
        let mut summary = Switch::new(&config, Vec::new()).unwrap().summary();
        for (number, port) in summary.ports.iter_mut().enumerate() {
            port.up.bytes = 10 + number as u64;
            port.down.bytes = 1_000;
        }
        let guest = crate::switch::core::PortSummary { network: "guest".into(), ..summary.ports[0].clone() };
        summary.ports.push(guest);
        assert_eq!(log_bytes(&summary), [10, 11]);
    }
}
