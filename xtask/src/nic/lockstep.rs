//! The driver on the emulated machine's card (an 82540EM): the peer is a station of the lock-step network.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::Plan;
use super::peer::Peer;
use crate::emulator::{Cdrom, Exit, Machine, Nic, NicMode, Outcome};
use crate::guests;
use crate::switch::cable::CableConfig;
use crate::switch::config::{Config, PortName};
use crate::switch::core::Switch;
use crate::switch::process::Server;
use crate::switch::time::Ns;
use crate::switch::wire::Frame;
use crate::switch::world::World;

/// Give up when the machine has not come for so long (wall-clock).
const GIVE_UP: Duration = Duration::from_secs(300);

/// The peer as a station.
struct Station(Arc<Mutex<Peer>>);

impl World for Station {
    fn frame(&mut self, _now: Ns, frame: &Frame, send: &mut Vec<Vec<u8>>) {
        // Flaps are not asked for here.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).frame(frame, send);
    }
}

/// Runs the test kernel `nic_frames` with the peer on its cable; all its checks must pass, and the peer must have nothing to
/// complain about. `name` is for the files of the run.
///
/// # Errors
/// When that is not so, or the machine cannot be started.
pub fn prove(name: &str, plan: &Plan) -> Result<Outcome> {
    ensure!(name.len() <= 20, "the name `{name}` is too long for a socket");
    let socket = std::env::temp_dir().join(format!("lockstep-nic-{}-{name}.sock", std::process::id()));
    let mut config = Config::lan(plan.seed, &["a"], &CableConfig::default());
    config.worlds.push("peer".into());
    config.networks[0].ports.push((PortName::new("peer", 0), CableConfig::default()));
    let peer = Arc::new(Mutex::new(Peer::new(plan.seed)));
    let switch = Switch::new(&config, vec![("peer".into(), Box::new(Station(peer.clone())))])?;
    let mut server = Server::bind(&socket)?;
    server.give_up_after = Some(GIVE_UP);
    let mut machine = Machine {
        name: format!("nic-{name}-{}", std::process::id()),
        limit: plan.limit,
        ..Machine::default()
    };
    let words = format!("exit-port=0xf4 tsc-hz={} frames={} seed={}", machine.ips, plan.frames, plan.seed);
    machine.cdrom = Some(Cdrom { image: guests::iso(&guests::build("nic_frames")?, &words)? });
    machine.nics = vec![Nic::new(1, NicMode::Lockstep { device: "0".into() })];
    machine.environment = vec![("LOCKSTEP_NET".into(), format!("a:{}", socket.display()))];
    let running = machine.start()?;
    let (summary, outcome) = std::thread::scope(|scope| {
        let switch = scope.spawn(|| server.run(&config, switch, None));
        let outcome = running.wait();
        (switch.join(), outcome)
    });
    let outcome = outcome?;
    let failed: Vec<&str> = outcome.facts("check").filter(|fact| fact.contains("verdict=fail")).collect();
    ensure!(failed.is_empty(), "these checks failed:\n{}\n{}", failed.join("\n"), outcome.last_words());
    outcome.expect(&Exit::Success)?;
    let Ok(summary) = summary else { bail!("the switch panicked") };
    summary?;
    let faults = peer.lock().unwrap_or_else(PoisonError::into_inner).faults();
    ensure!(faults.is_empty(), "the peer says: {faults}");
    let _ = std::fs::remove_dir_all(&outcome.dir);
    Ok(outcome)
}
