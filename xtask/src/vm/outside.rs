//! What a virtual machine's network is joined to: nothing, stations inside this process, a UDP port, a TAP interface.

use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::emulator::{Machine, NicMode};
use crate::switch::cable::CableConfig;
use crate::switch::config::{Config, PortName};
use crate::switch::core::{Summary, Switch};
use crate::switch::process::Server;
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
    /// The first card into a UDP port of the loopback: frames come on it and go to the next.
    Udp(u16),
    /// The first card into a TAP interface.
    Tap(String),
}

/// A network under way.
pub struct Connected(Option<JoinHandle<Result<Summary>>>);

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

    /// Plugs the machine's cards in. With stations, a switch begins to run in a thread of its own.
    ///
    /// # Errors
    /// When the network cannot be made.
    pub fn connect(&self, name: &str, machine: &mut Machine) -> Result<Connected> {
        if machine.nics.is_empty() {
            return Ok(Connected(None));
        }
        match self {
            Outside::Nothing => {}
            Outside::Udp(port) => machine.nics[0].mode = NicMode::Socket { port: *port },
            Outside::Tap(interface) => machine.nics[0].mode = NicMode::Tap { interface: interface.clone() },
            Outside::Stations { seed, cable, stations, capture } => {
                return self.switch(name, machine, *seed, cable, stations, capture.as_deref());
            }
        }
        Ok(Connected(None))
    }

    fn switch(
        &self,
        name: &str,
        machine: &mut Machine,
        seed: u64,
        cable: &CableConfig,
        stations: &[(String, StationConfig)],
        capture: Option<&std::path::Path>,
    ) -> Result<Connected> {
        const HOST: &str = "host";
        let tag: String = name.chars().rev().take(16).filter(char::is_ascii_alphanumeric).collect();
        let socket = std::env::temp_dir().join(format!("lockstep-vm-{}-{tag}.sock", std::process::id()));
        let mut config = Config::lan(seed, &[HOST], cable);
        let ports = &mut config.networks[0].ports;
        for (number, nic) in machine.nics.iter_mut().enumerate() {
            if number > 0 {
                ports.push((PortName::new(HOST, number as u8), cable.clone()));
            }
            nic.mode = NicMode::Lockstep { device: number.to_string() };
        }
        ports.extend(stations.iter().map(|(name, _)| (PortName::new(name, 0), cable.clone())));
        config.worlds = stations.iter().map(|(name, _)| name.clone()).collect();
        config.networks[0].capture = capture.map(PathBuf::from);
        let worlds = stations
            .iter()
            .map(|(name, spec)| (name.clone(), Box::new(Station::new(spec)) as Box<dyn World>))
            .collect();
        let switch = Switch::new(&config, worlds)?;
        let mut server = Server::bind(&socket)?;
        server.give_up_after = Some(GIVE_UP);
        machine.environment.push(("LOCKSTEP_NET".into(), format!("{HOST}:{}", socket.display())));
        Ok(Connected(Some(std::thread::spawn(move || server.run(&config, switch, None)))))
    }
}

impl Connected {
    /// Waits for the network's end, which is that of its machines; one line from each station.
    ///
    /// # Errors
    /// When the network failed.
    pub fn finish(self) -> Result<Vec<String>> {
        let Some(thread) = self.0 else { return Ok(Vec::new()) };
        let summary = thread.join().map_err(|_| anyhow!("the switch panicked"))??;
        Ok(summary.worlds.into_iter().map(|(name, text)| format!("{name}: {text}")).collect())
    }
}
