//! What a virtual machine's network is joined to: nothing, stations inside this process, other emulated machines, a UDP
//! port, a TAP interface.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::emulator::{Exit, Machine, NicMode, Outcome, Running};
use crate::switch::cable::CableConfig;
use crate::switch::config::{Config, DEFAULT_QUANTUM, Network, PortName};
use crate::switch::core::{Summary, Switch};
use crate::switch::process::Server;
use crate::switch::station::sink::{Progress, Received, Sink, SinkConfig};
use crate::switch::station::{Station, StationConfig};
use crate::switch::world::World;

/// Give up when the machine has not come for so long by the wall clock.
const GIVE_UP: Duration = Duration::from_secs(900);

/// What the host's cards are plugged into.
#[derive(Clone, Debug, PartialEq)]
pub enum Outside {
    /// Nothing.
    Nothing,
    /// All of them into one lock-step network of this process, with these stations on it.
    Stations {
        /// Seed of the network's chances.
        seed: u64,
        /// Each cable.
        cable: CableConfig,
        /// The stations: name and kind.
        stations: Vec<(String, StationConfig)>,
        /// Where to write what passes.
        capture: Option<PathBuf>,
    },
    /// All of them into one lock-step network of this process, with the first cards of these machines, which run as long as
    /// the host does. Each must switch itself off; what it says in `@@ CLIENT` lines is told.
    Machines {
        /// Seed of the network's chances.
        seed: u64,
        /// Each cable.
        cable: CableConfig,
        /// The machines.
        machines: Vec<Machine>,
        /// Where to write what passes.
        capture: Option<PathBuf>,
    },
    /// The first card into a UDP port of the loopback: frames come on it and go to the next.
    Udp(u16),
    /// The first card into a TAP interface.
    Tap(String),
}

/// The other end of the card by which a log leaves.
#[derive(Clone, Debug, PartialEq)]
pub struct LogPlug {
    /// The number of the card.
    pub card: usize,
    /// The cables.
    pub cable: CableConfig,
    /// The station.
    pub sink: SinkConfig,
}

/// A network under way.
#[derive(Default)]
pub struct Connected {
    log: Option<Progress>,
    switch: Option<JoinHandle<Result<Summary>>>,
    machines: Vec<Running>,
}

/// What makes a lock-step network, beside the host.
struct Plan<'a> {
    seed: u64,
    /// The cables of the guest's network.
    cable: &'a CableConfig,
    /// The guest's network is a lock-step one.
    joined: bool,
    stations: &'a [(String, StationConfig)],
    machines: &'a [Machine],
    capture: Option<&'a Path>,
    log: Option<LogPlug>,
}

impl Outside {
    /// Parses what a user writes: `none`, `udp:PORT`, `tap:INTERFACE`.
    ///
    /// # Errors
    /// When it is something else.
    pub fn parse(text: &str) -> Result<Self> {
        match text.split_once(':') {
            None if text == "none" => Ok(Outside::Nothing),
            None if text == "world" => Ok(Outside::world(1)),
            Some(("udp", port)) => {
                let port = port.parse().ok().filter(|port| (1024..u16::MAX).contains(port));
                Ok(Outside::Udp(
                    port.with_context(|| format!("`{text}` has no UDP port from 1024 to 65534"))?,
                ))
            }
            Some(("tap", interface)) if !interface.is_empty() => Ok(Outside::Tap(interface.into())),
            _ => bail!("the network is `world`, `none`, `udp:PORT` or `tap:INTERFACE`"),
        }
    }

    /// The usual outside world: one station with servers and clients for the guest's loads.
    pub fn world(seed: u64) -> Self {
        Outside::Stations {
            seed,
            cable: CableConfig::default(),
            stations: vec![("world".into(), StationConfig::default())],
            capture: None,
        }
    }

    /// Plugs the machine's cards in. In lock-step, a switch begins to run in a thread of its own, and the other machines
    /// start.
    ///
    /// # Errors
    /// When the network cannot be made.
    pub fn connect(&self, machine: &mut Machine) -> Result<Connected> {
        self.join(machine, None)
    }

    /// The same, and plugs one of the cards into the station that receives the log.
    ///
    /// # Errors
    /// When the network or the log's file cannot be made.
    pub fn connect_with_log(&self, machine: &mut Machine, log: LogPlug) -> Result<Connected> {
        self.join(machine, Some(log))
    }

    fn join(&self, machine: &mut Machine, log: Option<LogPlug>) -> Result<Connected> {
        if machine.nics.is_empty() {
            return Ok(Connected::default());
        }
        let log_card = log.as_ref().map(|plug| plug.card);
        let first = machine.nics.iter_mut().enumerate().find(|(number, _)| Some(*number) != log_card);
        let first = first.map(|(_, nic)| nic);
        let none = CableConfig::default();
        let apart = |log| Plan {
            seed: 1,
            cable: &none,
            joined: false,
            stations: &[],
            machines: &[],
            capture: None,
            log,
        };
        let plan = match self {
            Outside::Nothing => apart(log),
            // Nobody would ever speak to them.
            Outside::Stations { .. } if first.is_none() => apart(log),
            Outside::Udp(port) => {
                first.context("the guest has no network card")?.mode = NicMode::Socket { port: *port };
                apart(log)
            }
            Outside::Tap(interface) => {
                first.context("the guest has no network card")?.mode =
                    NicMode::Tap { interface: interface.clone() };
                apart(log)
            }
            Outside::Stations { seed, cable, stations, capture } => Plan {
                seed: *seed,
                cable,
                joined: true,
                stations,
                machines: &[],
                capture: capture.as_deref(),
                log,
            },
            Outside::Machines { seed, cable, machines, capture } => Plan {
                seed: *seed,
                cable,
                joined: true,
                stations: &[],
                machines,
                capture: capture.as_deref(),
                log,
            },
        };
        if plan.joined || plan.log.is_some() { plan.start(machine) } else { Ok(Connected::default()) }
    }
}

/// The host's name on its networks.
const HOST: &str = "host";
/// The name of the station that receives the log, and of its network.
const LOG: &str = "log";

impl Plan<'_> {
    fn start(&self, machine: &mut Machine) -> Result<Connected> {
        // Several may run in one process; names are too long for a socket's path.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let socket = std::env::temp_dir().join(format!("lockstep-vm-{}-{number}.sock", std::process::id()));
        let others: Vec<String> = (0..self.machines.len()).map(|number| format!("machine{number}")).collect();
        let config = self.config(&others, machine);
        let mut worlds: Vec<(String, Box<dyn World>)> = self
            .stations
            .iter()
            .map(|(name, spec)| (name.clone(), Box::new(Station::new(spec)) as Box<dyn World>))
            .collect();
        let mut log = None;
        if let Some(plug) = &self.log {
            let sink = Sink::new(&plug.sink)?;
            log = Some(sink.progress());
            worlds.push((LOG.into(), Box::new(sink)));
        }
        let switch = Switch::new(&config, worlds)?;
        let mut server = Server::bind(&socket)?;
        server.give_up_after = Some(GIVE_UP);
        let plug = |host: &str| ("LOCKSTEP_NET".into(), format!("{host}:{}", socket.display()));
        machine.environment.push(plug(HOST));
        let mut machines = Vec::new();
        for (host, other) in others.iter().zip(self.machines) {
            let mut other = other.clone();
            let card = other.nics.first_mut().context("a machine on the network has no card")?;
            card.mode = NicMode::Lockstep { device: "0".into() };
            other.environment.push(plug(host));
            machines.push(other.start()?);
        }
        let switch = std::thread::spawn(move || server.run(&config, switch, None));
        Ok(Connected { log, switch: Some(switch), machines })
    }

    /// What the switch joins, the host's cards among it.
    fn config(&self, others: &[String], machine: &mut Machine) -> Config {
        let hosts: Vec<&str> = std::iter::once(HOST).chain(others.iter().map(String::as_str)).collect();
        let mut config = Config::lan(self.seed, &hosts, self.cable);
        let log_card = self.log.as_ref().map(|plug| plug.card);
        let lan = &mut config.networks[0].ports;
        // The host has the cards that it has, and only those.
        lan.retain(|(port, _)| port.station != HOST);
        for (number, nic) in machine.nics.iter_mut().enumerate() {
            if Some(number) != log_card && self.joined {
                lan.push((PortName::new(HOST, number as u8), self.cable.clone()));
            }
            if Some(number) == log_card || self.joined {
                nic.mode = NicMode::Lockstep { device: number.to_string() };
            }
        }
        lan.extend(self.stations.iter().map(|(name, _)| (PortName::new(name, 0), self.cable.clone())));
        config.worlds = self.stations.iter().map(|(name, _)| name.clone()).collect();
        config.networks[0].capture = self.capture.map(PathBuf::from);
        // The longest that the cables allow: what meets more often costs time, and tells no more.
        config.quantum = DEFAULT_QUANTUM.max(2 * self.cable.latency);
        if let Some(plug) = &self.log {
            let ports = [PortName::new(HOST, plug.card as u8), PortName::new(LOG, 0)];
            let ports = ports.map(|port| (port, plug.cable.clone())).into();
            config.networks.push(Network { name: LOG.into(), ports, capture: None });
            config.worlds.push(LOG.into());
            let longest = 2 * plug.cable.latency;
            config.quantum = if self.joined { config.quantum.min(longest) } else { longest };
            if !self.joined {
                config.networks.remove(0);
            }
        }
        config
    }
}

impl Connected {
    /// What has come of the log so far; `None` if nobody receives one.
    pub fn log(&self) -> Option<Received> {
        self.log.as_ref().map(Progress::get)
    }

    /// Whether a machine on the network has ended without having come to its end.
    pub fn is_broken(&mut self) -> bool {
        self.machines.iter_mut().any(|machine| {
            let ended = machine.has_ended().unwrap_or(true);
            // Reads what the console has said up to now.
            let _ = machine.watch(|_| true);
            ended && !machine.console().contains("@@ DONE")
        })
    }

    /// Waits for the network's end, which is that of its machines: one line from each station, the `@@ CLIENT` lines of each
    /// machine. When the host was ended from outside, so are they.
    ///
    /// # Errors
    /// When the network failed, or a machine ended in another way than by switching itself off.
    pub fn finish(self, host: &Outcome) -> Result<Vec<String>> {
        let ended = matches!(host.exit, Exit::Killed | Exit::Reached | Exit::Limit);
        let mut told = Vec::new();
        for machine in self.machines {
            let outcome = if ended { machine.kill()? } else { machine.wait()? };
            told.extend(outcome.facts("CLIENT").map(|fact| format!("client: {fact}")));
            if !ended || outcome.exit != Exit::Killed {
                outcome.expect(&Exit::PowerOff).context("the machine beside Lockstep's")?;
            }
        }
        let Some(thread) = self.switch else { return Ok(told) };
        let summary = thread.join().map_err(|_| anyhow!("the switch panicked"))??;
        if let Some(error) = self.log.and_then(|log| log.get().error) {
            bail!("the log could not be written: {error}");
        }
        told.extend(summary.worlds.into_iter().map(|(name, text)| format!("{name}: {text}")));
        Ok(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulator::Nic;

    fn machine(cards: u8) -> Machine {
        let nics = (0..cards).map(|number| Nic::new(number, NicMode::Unplugged)).collect();
        Machine { nics, ..Machine::default() }
    }

    fn plug(card: usize) -> LogPlug {
        let sink = SinkConfig { ip: [10, 77, 0, 2], prefix: 24, port: 5405, seed: 1, file: "log".into() };
        LogPlug { card, cable: CableConfig { latency: 500_000, ..CableConfig::default() }, sink }
    }

    /// The networks as lists of ports, the quantum, and which of the host's cards are in lock-step.
    fn joined(cards: u8, joined: bool, log: Option<LogPlug>) -> (Vec<String>, u64, Vec<bool>) {
        let stations = if joined { vec![("world".into(), StationConfig::default())] } else { Vec::new() };
        let cable = CableConfig::default();
        let plan =
            Plan { seed: 1, cable: &cable, joined, stations: &stations, machines: &[], capture: None, log };
        let mut machine = machine(cards);
        let config = plan.config(&[], &mut machine);
        config.check().unwrap();
        let ports = |network: &Network| {
            let ports: Vec<String> = network.ports.iter().map(|(port, _)| port.to_string()).collect();
            format!("{}: {}", network.name, ports.join(" "))
        };
        let lockstep = machine.nics.iter().map(|nic| matches!(nic.mode, NicMode::Lockstep { .. }));
        (config.networks.iter().map(ports).collect(), config.quantum, lockstep.collect())
    }

    #[test]
    fn the_log_has_a_network_of_its_own() {
        let lan = String::from("lan: host:0 world:0");
        assert_eq!(joined(1, true, None), (vec![lan.clone()], 100_000, vec![true]));
        let both = vec![lan, "log: host:1 log:0".into()];
        assert_eq!(joined(2, true, Some(plug(1))), (both, 100_000, vec![true, true]));
        let first = vec!["lan: host:1 host:2 world:0".into(), "log: host:0 log:0".into()];
        assert_eq!(joined(3, true, Some(plug(0))), (first, 100_000, vec![true, true, true]));
        let alone = vec!["log: host:1 log:0".into()];
        assert_eq!(joined(2, false, Some(plug(1))), (alone, 1_000_000, vec![false, true]));
    }

    #[test]
    fn a_guest_s_card_on_a_port_of_this_host_is_not_the_log_s() {
        let mut machine = machine(2);
        // The log's file cannot be made: the cards are plugged in before.
        let mut plug = plug(0);
        plug.sink.file = "/none/log".into();
        let error = Outside::Udp(40_000).connect_with_log(&mut machine, plug).err().unwrap();
        assert!(format!("{error:#}").contains("/none/log"));
        assert_eq!(machine.nics[1].mode, NicMode::Socket { port: 40_000 });
        assert_eq!(machine.nics[0].mode, NicMode::Lockstep { device: "0".into() });
    }
}
