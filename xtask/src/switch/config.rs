//! What a switch joins and what befalls it: hosts, networks, cables, partitions, kills, pauses. Checked as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use super::cable::CableConfig;
use super::time::{Ns, parse_duration};
use super::wire::{MAX_PORTS, is_name};

/// Default length of a quantum.
pub const DEFAULT_QUANTUM: Ns = 100_000;
/// Shortest quantum: below it a host does little else than meet.
const MIN_QUANTUM: Ns = 1_000;

/// Everything that a run is a function of, beside what the hosts execute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Seed of every chance.
    pub seed: u64,
    /// Emulated time between two meetings.
    pub quantum: Ns,
    /// When all hosts are ended; `None`: the run lasts until the last has left.
    pub end: Option<Ns>,
    /// The hosts.
    pub hosts: Vec<Host>,
    /// Names of stations inside the switch.
    pub worlds: Vec<String>,
    /// The networks.
    pub networks: Vec<Network>,
    /// Times during which some do not reach others.
    pub partitions: Vec<Partition>,
    /// Kills and pauses.
    pub stops: Vec<Stop>,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// When it is switched on; more than one for a host that comes back after it was killed or has left.
    pub starts: Vec<Ns>,
}

/// Ports that reach one another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Its ports and their cables.
    pub ports: Vec<(PortName, CableConfig)>,
    /// Where to write what the switch sees of it.
    pub capture: Option<PathBuf>,
}

/// A card of a host (`a:1`) or a station inside the switch (`outside`, which has one port).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortName {
    /// Host or station.
    pub station: String,
    /// Number of the card.
    pub port: u8,
}

impl PortName {
    /// A card of a host.
    pub fn new(station: &str, port: u8) -> Self {
        Self { station: station.into(), port }
    }

    /// Reads `a:1`; `a` alone means `a:0`.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(text: &str) -> Result<Self> {
        let (station, port) = text.split_once(':').unwrap_or((text, "0"));
        let number = port.parse().ok().filter(|n| usize::from(*n) < MAX_PORTS);
        match number {
            Some(port) if is_name(station) => Ok(Self::new(station, port)),
            _ => bail!("`{text}` is no port: write HOST:CARD, with a card from 0 to {}", MAX_PORTS - 1),
        }
    }
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.station, self.port)
    }
}

/// Ports named together: `*`, all cards of a station (`a`), or one (`a:1`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Every port.
    All,
    /// Every port of a station.
    Station(String),
    /// One port.
    Port(PortName),
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "*" => Ok(Self::All),
            name if is_name(name) => Ok(Self::Station(name.into())),
            other => Ok(Self::Port(PortName::parse(other)?)),
        }
    }

    /// Whether it means this port.
    pub fn matches(&self, port: &PortName) -> bool {
        match self {
            Self::All => true,
            Self::Station(name) => *name == port.station,
            Self::Port(name) => name == port,
        }
    }
}

/// A time during which nothing passes from one side to the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// First moment.
    pub from: Ns,
    /// First moment after; `Ns::MAX` for never healed.
    pub until: Ns,
    /// One side.
    pub a: Vec<Pattern>,
    /// The other side.
    pub b: Vec<Pattern>,
    /// Only from the first side to the second is cut.
    pub one_way: bool,
}

/// A moment in a host's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Scenario time; the first tick not before it.
    At(Ns),
    /// A tick of the host's own clock, in its `life`-th life (0: since its first start).
    Tick {
        /// The tick.
        tick: u64,
        /// Which of its starts it counts from.
        life: usize,
    },
}

/// A host is stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Which host.
    pub host: String,
    /// When.
    pub when: When,
    /// How.
    pub what: StopKind,
}

/// How a host is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopKind {
    /// Its process ends, as if the plug were pulled.
    Kill,
    /// It does not execute for so long; its own clock stands still.
    Pause(Ns),
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: 1,
            quantum: DEFAULT_QUANTUM,
            end: None,
            hosts: Vec::new(),
            worlds: Vec::new(),
            networks: Vec::new(),
            partitions: Vec::new(),
            stops: Vec::new(),
        }
    }
}

impl Config {
    /// Hosts that start at once and meet on one network, `lan`, each with card 0 and the same kind of cable.
    pub fn lan(seed: u64, hosts: &[&str], cable: &CableConfig) -> Self {
        let ports = hosts.iter().map(|name| (PortName::new(name, 0), cable.clone())).collect();
        Self {
            seed,
            hosts: hosts.iter().map(|name| Host { name: (*name).into(), starts: vec![0] }).collect(),
            networks: vec![Network { name: "lan".into(), ports, capture: None }],
            ..Self::default()
        }
    }

    /// Whether all of it makes sense.
    ///
    /// # Errors
    /// When it does not; the error names the part.
    pub fn check(&self) -> Result<()> {
        ensure!(self.quantum >= MIN_QUANTUM, "the quantum of {} ns is too short: at least 1us", self.quantum);
        for network in &self.networks {
            self.check_lookahead(network)?;
        }
        self.check_free()
    }

    /// Whether all of it makes sense where there are no quanta.
    ///
    /// # Errors
    /// As [`Config::check`].
    pub fn check_free(&self) -> Result<()> {
        ensure!(!self.hosts.is_empty(), "a scenario needs at least one host");
        self.check_names()?;
        self.check_starts()?;
        self.check_ports()?;
        self.check_partitions()?;
        self.check_stops()
    }

    fn check_names(&self) -> Result<()> {
        let mut seen = BTreeSet::new();
        for name in self.hosts.iter().map(|h| &h.name).chain(&self.worlds) {
            ensure!(is_name(name), "`{name}` is no name: 1 to 31 letters, digits, - or _");
            ensure!(seen.insert(name), "two stations are called `{name}`");
        }
        let mut seen = BTreeSet::new();
        for network in &self.networks {
            ensure!(is_name(&network.name), "`{}` is no name of a network", network.name);
            ensure!(seen.insert(&network.name), "two networks are called `{}`", network.name);
        }
        Ok(())
    }

    fn check_starts(&self) -> Result<()> {
        for host in &self.hosts {
            ensure!(!host.starts.is_empty(), "host `{}` never starts", host.name);
            let rising = host.starts.windows(2).all(|w| w[0] < w[1]);
            ensure!(rising, "the starts of host `{}` must come one after another", host.name);
        }
        Ok(())
    }

    fn check_ports(&self) -> Result<()> {
        let mut networks = BTreeMap::new();
        for network in &self.networks {
            for (port, _) in &network.ports {
                self.check_station(&port.station)
                    .with_context(|| format!("network `{}` has the port {port}", network.name))?;
                let world = self.worlds.contains(&port.station);
                ensure!(!world || port.port == 0, "the station `{}` has only port 0", port.station);
                if let Some(other) = networks.insert(port, &network.name) {
                    bail!("the port {port} is in two networks, `{other}` and `{}`", network.name);
                }
            }
        }
        Ok(())
    }

    fn check_station(&self, name: &str) -> Result<()> {
        let known = self.hosts.iter().any(|h| h.name == name) || self.worlds.iter().any(|w| w == name);
        ensure!(known, "there is no host or station `{name}`");
        Ok(())
    }

    /// A frame must not arrive within the quantum in which it was sent: the receiver is already running there. It passes
    /// two cables, so each must take at least half a quantum.
    fn check_lookahead(&self, network: &Network) -> Result<()> {
        for (port, cable) in &network.ports {
            ensure!(
                cable.latency >= self.quantum.div_ceil(2),
                "the cable of {port} takes {} ns, less than half a quantum ({} ns): lengthen its latency or shorten \
                 the quantum",
                cable.latency,
                self.quantum
            );
        }
        Ok(())
    }

    fn check_partitions(&self) -> Result<()> {
        for p in &self.partitions {
            ensure!(p.from < p.until, "a partition from {} ns until {} ns lasts no time", p.from, p.until);
            for pattern in p.a.iter().chain(&p.b) {
                let found =
                    self.networks.iter().flat_map(|n| &n.ports).any(|(name, _)| pattern.matches(name));
                ensure!(found, "a partition names {pattern:?}, which is no port of any network");
            }
        }
        Ok(())
    }

    fn check_stops(&self) -> Result<()> {
        for stop in &self.stops {
            let host = self.hosts.iter().find(|h| h.name == stop.host);
            let Some(host) = host else { bail!("there is no host `{}` to stop", stop.host) };
            if let When::Tick { life, .. } = stop.when {
                ensure!(life < host.starts.len(), "host `{}` has no life {life}", stop.host);
            }
            ensure!(stop.what != StopKind::Pause(0), "a pause of host `{}` lasts no time", stop.host);
        }
        Ok(())
    }
}

impl When {
    /// Reads `12ms` (scenario time) or `tick 123` (the host's clock, first life).
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(text: &str) -> Result<Self> {
        match text.trim().strip_prefix("tick") {
            Some(tick) => {
                let tick = tick.trim().parse().with_context(|| format!("`{text}` names no tick"))?;
                Ok(Self::Tick { tick, life: 0 })
            }
            None => Ok(Self::At(parse_duration(text)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Config {
        Config::lan(1, &["a", "b"], &CableConfig::default())
    }

    #[test]
    fn names_and_patterns() {
        assert_eq!(PortName::parse("a:1").unwrap(), PortName::new("a", 1));
        assert_eq!(PortName::parse("outside").unwrap().to_string(), "outside:0");
        for bad in ["", ":1", "a:8", "a:x", "a b:0", "a:-1"] {
            assert!(PortName::parse(bad).is_err(), "{bad}");
        }
        let port = PortName::new("a", 1);
        for (pattern, matches) in [("*", true), ("a", true), ("a:1", true), ("a:0", false), ("b", false)] {
            assert_eq!(Pattern::parse(pattern).unwrap().matches(&port), matches, "{pattern}");
        }
        assert_eq!(When::parse("tick 12").unwrap(), When::Tick { tick: 12, life: 0 });
        assert_eq!(When::parse("2us").unwrap(), When::At(2_000));
    }

    #[test]
    fn a_good_one_is_good() {
        good().check().unwrap();
    }

    #[test]
    fn faults_are_named() {
        let says = |change: &dyn Fn(&mut Config), text: &str| {
            let mut config = good();
            change(&mut config);
            let error = format!("{:#}", config.check().unwrap_err());
            assert!(error.contains(text), "{error}");
        };
        says(&|c| c.quantum = 10, "too short");
        says(&|c| c.hosts.clear(), "at least one host");
        says(&|c| c.worlds.push("a".into()), "two stations are called `a`");
        says(&|c| c.hosts[0].starts = vec![5, 5], "one after another");
        says(&|c| c.networks[0].ports[0].0.station = "z".into(), "no host or station `z`");
        says(&|c| c.networks[0].ports[0].1.latency = 49_999, "less than half a quantum");
        says(
            &|c| c.networks.push(Network { name: "two".into(), ..c.networks[0].clone() }),
            "in two networks",
        );
        let stop = |host: &str, when, what| Stop { host: host.into(), when, what };
        says(&|c| c.stops.push(stop("z", When::At(1), StopKind::Kill)), "no host `z`");
        says(&|c| c.stops.push(stop("a", When::Tick { tick: 1, life: 1 }, StopKind::Kill)), "no life 1");
        says(&|c| c.stops.push(stop("a", When::At(1), StopKind::Pause(0))), "no time");
        let cut =
            |a: Pattern| Partition { from: 1, until: 2, a: vec![a], b: vec![Pattern::All], one_way: false };
        says(&|c| c.partitions.push(cut(Pattern::Station("z".into()))), "no port of any network");
        says(&|c| c.partitions.push(Partition { from: 2, ..cut(Pattern::All) }), "lasts no time");
    }
}
