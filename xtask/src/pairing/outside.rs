//! The outside world as a third emulated machine: a plain Debian with the real clients of the guest's server.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};

use crate::emulator::Machine;
use crate::payload::{Payload, clients, server};
use crate::switch::cable::CableConfig;
use crate::vm::outside::Outside;

/// Words for the guest's command line with which its server has what these clients ask for.
pub const GUEST_WORDS: &str = "lines=1";
/// Each cable of the guest's network, ns one way.
const LATENCY: u64 = 50_000;

/// The network with the client of a guest's server on it, which asks `n` times, or for `n` seconds. `like` lends name, speed and limit.
///
/// # Errors
/// When the guest has no such client, or its machine cannot be made.
pub fn client(guest: Payload, server: Ipv4Addr, n: u32, like: &Machine) -> Result<Outside> {
    let programs = clients::of(guest).context("--client needs a guest with a server: redis, nginx or ssh")?;
    let machine = server::client(programs, &format!("{}-client", like.name), server, n)?;
    let machine = Machine { ips: like.ips, limit: like.limit, ..machine };
    let cable = CableConfig { latency: LATENCY, ..CableConfig::default() };
    Ok(Outside::Machines { seed: 1, cable, machines: vec![machine], capture: None })
}
