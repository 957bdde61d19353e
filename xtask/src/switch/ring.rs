//! What a card does with more frames than its ring holds: a machine asks a station in the switch for a burst.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::cable::CableConfig;
use super::config::{Config, PortName};
use super::core::{Summary, Switch};
use super::process::Server;
use super::time::Ns;
use super::wire::Frame;
use super::world::World;
use crate::emulator::{Cdrom, Exit, Machine, Nic, NicMode};
use crate::guests;

/// Type of the frames: "local experimental 1" (IEEE 802).
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
/// Give up when the machine has not come for so long (wall-clock).
const GIVE_UP: Duration = Duration::from_secs(300);

/// Answers a frame that holds a count and a length (16 bits each, little-endian, after the header) with so many frames of
/// that length, numbered from 0.
struct Burst;

impl World for Burst {
    fn frame(&mut self, _now: Ns, frame: &Frame, send: &mut Vec<Vec<u8>>) {
        let Some(&[a, b, c, d]) = frame.get(14..18).and_then(|f| f.first_chunk::<4>()) else { return };
        let (count, len) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
        if frame[12..14] != ETHERTYPE || !(18..=1514).contains(&len) {
            return;
        }
        for number in 0..u32::from(count) {
            let mut bytes =
                [&frame[6..12], &[2, 0, 0, 0, 0, 0xfe], &ETHERTYPE, &number.to_le_bytes()].concat();
            bytes.resize(len.into(), 0);
            send.push(bytes);
        }
    }
}

/// Runs the test kernel `nic_ring` with the bursting station on its cable; all its checks must pass, and the emulator's
/// counts must agree with the guest's. `name` is for the files of the run.
///
/// # Errors
/// When they do not, or the machine cannot be started.
pub fn prove(name: &str, limit: Duration) -> Result<Summary> {
    let socket = std::env::temp_dir().join(format!("lockstep-ring-{}-{name}.sock", std::process::id()));
    ensure!(name.len() <= 20, "the name `{name}` is too long for a socket");
    let mut config = Config::lan(1, &["a"], &CableConfig::default());
    config.worlds.push("burst".into());
    config.networks[0].ports.push((PortName::new("burst", 0), CableConfig::default()));
    let switch = Switch::new(&config, vec![("burst".into(), Box::new(Burst))])?;
    let mut server = Server::bind(&socket)?;
    server.give_up_after = Some(GIVE_UP);
    let mut machine =
        Machine { name: format!("ring-{name}-{}", std::process::id()), limit, ..Machine::default() };
    let words = format!("exit-port=0xf4 tsc-hz={}", machine.ips);
    machine.cdrom = Some(Cdrom { image: guests::iso(&guests::build("nic_ring")?, &words)? });
    machine.nics = vec![Nic::new(1, NicMode::Lockstep { device: "0".into() })];
    machine.environment = vec![("LOCKSTEP_NET".into(), format!("a:{}", socket.display()))];
    let running = machine.start()?;
    let (summary, outcome) = std::thread::scope(|scope| {
        let switch = scope.spawn(|| server.run(&config, switch, None));
        let outcome = running.wait();
        (switch.join(), outcome)
    });
    let outcome = outcome?;
    outcome.expect(&Exit::Success)?;
    let Ok(summary) = summary else { bail!("the switch panicked") };
    let summary = summary?;
    let fact = outcome.facts("ring").next().context("the machine did not report its counts")?;
    let card = &summary.ports[0].card;
    let wanted = format!("received={} missed={}", card.delivered, card.missed);
    ensure!(fact == wanted, "the guest says `{fact}`, the emulator `{wanted}`");
    ensure!(card.held > 0 && card.missed > 0, "the burst filled neither ring nor FIFO: {card:?}");
    let _ = std::fs::remove_dir_all(&outcome.dir);
    Ok(summary)
}
