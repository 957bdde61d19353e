//! The pair as data: what `[pair]` says of the two hosts that run one virtual machine.

use alloc::string::String;
use core::fmt;

use crate::config::{Card, Paging};
use crate::values::Ipv4;

/// An IPv4 address of a host, and how many of its bits name the network (1 to 30).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostAddress {
    /// The address.
    pub ip: [u8; 4],
    /// Bits of it that name the network.
    pub prefix: u8,
}

impl HostAddress {
    /// Whether a station with this other address can be reached without a gateway.
    pub const fn reaches(&self, other: [u8; 4]) -> bool {
        Ipv4(self.ip).network(self.prefix) == Ipv4(other).network(self.prefix)
    }
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4(self.ip), self.prefix)
    }
}

/// One of the two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostName {
    /// The host of `[pair.a]`: it listens on the logging channel, whoever is primary.
    A,
    /// The host of `[pair.b]`: it connects.
    B,
}

impl HostName {
    /// Both.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    /// `a` or `b`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    /// The host of this name: the value of the kernel's word `host=`, and of `pair.first`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|host| host.name() == name)
    }

    /// The other one.
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the two hosts know and nobody else does. Nothing prints it but [`Config::text`](crate::Config::text).
#[derive(Clone, PartialEq, Eq)]
pub struct Key(pub [u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut key = [0; 32];
        if text.len() != 64 {
            return None;
        }
        for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digit = |digit: u8| char::from(digit).to_digit(16);
            *byte = (digit(digits[0])? << 4 | digit(digits[1])?) as u8;
        }
        Some(Self(key))
    }
}

/// The two hosts of a virtual machine, and how they watch each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The name of the pair at the arbiter; the virtual machine's unless told otherwise.
    pub name: String,
    /// The key that both hosts have.
    pub key: Key,
    /// Which host is the primary at power-on.
    pub first: HostName,
    /// Milliseconds of silence on every path after which the peer is suspected.
    pub timeout: u32,
    /// Milliseconds between two heartbeats on each path.
    pub heartbeat: u32,
    /// Milliseconds without progress on the channel after which the primary gives up a backup that still has a heartbeat.
    pub stall: u32,
    /// Milliseconds that the backup's execution may be behind before the primary is slowed.
    pub lag: u32,
    /// How the guest's page tables are treated.
    pub paging: Paging,
    /// Milliseconds of guest time between two checkpoints; 0 for none.
    pub checkpoint: u32,
    /// UDP port of the heartbeats, on both hosts and paths.
    pub beat_port: u16,
    /// `[pair.a]` and `[pair.b]`.
    pub hosts: [PairHost; 2],
    /// `[pair.arbiter]`.
    pub arbiter: Arbiter,
}

impl Pair {
    /// What is said of one host.
    pub const fn host(&self, name: HostName) -> &PairHost {
        match name {
            HostName::A => &self.hosts[0],
            HostName::B => &self.hosts[1],
        }
    }
}

/// One host of the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairHost {
    /// Its card for the logging channel; a network device of the guest may be bridged to it as well.
    pub log_card: Card,
    /// Its address on that card.
    pub log_address: HostAddress,
    /// The TCP port that it accepts the channel on. Host B connects and never listens.
    pub log_port: u16,
    /// Its own address on the guest's first card, for heartbeats; `None` has them on the logging card alone. None if that is the
    /// logging card.
    pub guest_address: Option<HostAddress>,
}

/// Who decides which host goes on alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arbiter {
    /// A lock server, for tests: a process of the tools. What it knows is lost with it.
    LockServer {
        /// Its IPv4 address in the network of the logging cards.
        ip: [u8; 4],
        /// Its UDP port.
        port: u16,
    },
}

impl Arbiter {
    /// The value of `pair.arbiter.kind`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::LockServer { .. } => "lock-server",
        }
    }
}

/// Writes the section; the key is dots unless it is asked for.
pub fn write(f: &mut fmt::Formatter<'_>, pair: &Pair, with_key: bool) -> fmt::Result {
    write!(f, "\n[pair]\nname = \"{}\"\nkey = \"", pair.name)?;
    if with_key {
        pair.key.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
    } else {
        f.write_str("...")?;
    }
    writeln!(f, "\"\nfirst = \"{}\"", pair.first)?;
    let Pair { timeout, heartbeat, stall, lag, checkpoint, beat_port, .. } = pair;
    writeln!(f, "timeout = {timeout}\nheartbeat = {heartbeat}\nstall = {stall}\nlag = {lag}")?;
    let paging = pair.paging.name();
    writeln!(f, "paging = \"{paging}\"\ncheckpoint = {checkpoint}\nbeat-port = {beat_port}")?;
    for (name, host) in HostName::ALL.iter().zip(&pair.hosts) {
        writeln!(f, "\n[pair.{name}]\nlog-card = {}", host.log_card)?;
        writeln!(f, "log-address = \"{}\"\nlog-port = {}", host.log_address, host.log_port)?;
        if let Some(address) = host.guest_address {
            writeln!(f, "guest-address = \"{address}\"")?;
        }
    }
    let Arbiter::LockServer { ip, port } = pair.arbiter;
    writeln!(f, "\n[pair.arbiter]\nkind = \"{}\"\naddress = \"{}:{port}\"", pair.arbiter.kind(), Ipv4(ip))
}
