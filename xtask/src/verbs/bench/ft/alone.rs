//! A virtual machine on one emulated host without protection, on a lock-step network of the same kind as that of a pair's guest.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::emulator::{NicMode, Outcome};
use crate::pairing::plan::Worlds;
use crate::switch::cable::CableConfig;
use crate::switch::config::{Config, PortName};
use crate::switch::core::Switch;
use crate::switch::process::Server;
use crate::switch::time::Ns;
use crate::vm::Vm;
use crate::vm::host::Host;

/// The host's name on the network.
const HOST: &str = "a";
/// Give up when the machine has not come for so long by the wall clock.
const GIVE_UP: Duration = Duration::from_secs(900);

/// A run of it.
pub struct Alone {
    /// The host.
    pub host: Host,
    /// Seed of the network.
    pub seed: u64,
    /// The stations on it, with their names.
    pub worlds: Worlds,
    /// Where to write what passes.
    pub capture: Option<PathBuf>,
    /// The run is over at this emulated time at the latest.
    pub end: Option<Ns>,
}

impl Alone {
    /// Runs it to its end.
    ///
    /// # Errors
    /// When something cannot be made or started, or the network failed.
    pub fn run(self, vm: &Vm) -> Result<Outcome> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let socket =
            std::env::temp_dir().join(format!("lockstep-alone-{}-{number}.sock", std::process::id()));
        let mut machine = self.host.machine(vm)?;
        for (card, nic) in machine.nics.iter_mut().enumerate() {
            nic.mode = NicMode::Lockstep { device: card.to_string() };
        }
        let config = self.config(machine.nics.len());
        config.check()?;
        let switch = Switch::new(&config, self.worlds)?;
        let mut server = Server::bind(&socket)?;
        server.give_up_after = Some(GIVE_UP);
        machine.environment.push(("LOCKSTEP_NET".into(), format!("{HOST}:{}", socket.display())));
        let running = machine.start()?;
        let switch = std::thread::spawn(move || server.run(&config, switch, None));
        let outcome = running.wait()?;
        switch.join().map_err(|_| anyhow!("the switch panicked"))??;
        Ok(outcome)
    }

    /// The network, with the quantum of a pair's.
    fn config(&self, cards: usize) -> Config {
        let cable = CableConfig::default();
        let mut config = Config::lan(self.seed, &[HOST], &cable);
        let hosts = (0..cards).map(|card| PortName::new(HOST, card as u8));
        let worlds = self.worlds.iter().map(|(name, _)| PortName::new(name, 0));
        config.networks[0].ports = hosts.chain(worlds).map(|port| (port, cable.clone())).collect();
        config.networks[0].capture.clone_from(&self.capture);
        config.worlds = self.worlds.iter().map(|(name, _)| name.clone()).collect();
        config.quantum = 2 * cable.latency;
        config.end = self.end;
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::switch::station::{Station, StationConfig};

    #[test]
    fn all_cards_and_stations_are_on_one_network() {
        let world = Box::new(Station::new(&StationConfig::default()));
        let alone = Alone {
            host: Host::new("x", "kernel".into()),
            seed: 3,
            worlds: vec![("world".into(), world)],
            capture: None,
            end: Some(7),
        };
        let config = alone.config(2);
        config.check().unwrap();
        let ports: Vec<String> = config.networks[0].ports.iter().map(|(port, _)| port.to_string()).collect();
        assert_eq!(
            (ports.join(" "), config.quantum, config.end),
            ("a:0 a:1 world:0".into(), 100_000, Some(7))
        );
    }
}
