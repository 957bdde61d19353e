//! The section `[pair]` of the text, read into [`Pair`].

use crate::config::{Card, Network, Paging};
use crate::error::Error;
use crate::limits;
use crate::pair::{Arbiter, HostAddress, HostName, Key, Pair, PairHost};
use crate::reader::Table;
use crate::sections::{card, name};
use crate::values::{Ipv4, ipv4_with_port, ipv4_with_prefix};

const PAIR: &[&str] = &[
    "name",
    "key",
    "first",
    "timeout",
    "heartbeat",
    "stall",
    "lag",
    "paging",
    "checkpoint",
    "beat-port",
    "a",
    "b",
    "arbiter",
];
const HOST: &[&str] = &["log-card", "log-address", "log-port", "guest-address"];
const ARBITER: &[&str] = &["kind", "address"];

/// Reads the section, if it is there. `vm` is the virtual machine's name.
pub fn pair(document: &Table<'_, '_>, vm: &str, networks: &[Network]) -> Result<Option<Pair>, Error> {
    const NAME: &str = "a name of 1 to 64 letters, digits, `.`, `_` and `-`";
    const KEY: &str = "64 hexadecimal digits, the same on both hosts";
    const FIRST: &str = "\"a\" or \"b\": the host that is the primary at power-on";
    const PAGING: &str = "\"strict\" or \"fast\"";
    const PORT: &str = "a UDP port from 1 to 65535";
    let Some(section) = document.get("pair") else { return Ok(None) };
    if document.get("record").is_some() {
        return Err(section.conflict("record"));
    }
    let table = document.table("pair", PAIR)?;
    let own = table.get("name").map_or_else(|| Ok(vm.into()), |value| value.parsed(NAME, name))?;
    // What makes a new one is said: people must not think one up.
    let key = table.required("key", "key = \"<what `openssl rand -hex 32` prints>\"")?;
    let key = Key::parse(key.string(KEY)?).ok_or_else(|| key.secret(KEY))?;
    let first = table.get("first").map_or(Ok(HostName::A), |value| value.parsed(FIRST, HostName::parse))?;
    let times = times(&table)?;
    let paging =
        table.get("paging").map_or(Ok(Paging::default()), |value| value.parsed(PAGING, Paging::parse))?;
    let beat_port = port(&table, "beat-port", limits::BEAT_PORT_DEFAULT, PORT)?;
    let hosts = hosts(&table, networks)?;
    let arbiter = arbiter(&table, &hosts)?;
    let Times { timeout, heartbeat, stall, lag, checkpoint } = times;
    Ok(Some(Pair {
        name: own,
        key,
        first,
        timeout,
        heartbeat,
        stall,
        lag,
        paging,
        checkpoint,
        beat_port,
        hosts,
        arbiter,
    }))
}

/// All that is given in milliseconds.
struct Times {
    timeout: u32,
    heartbeat: u32,
    stall: u32,
    lag: u32,
    checkpoint: u32,
}

fn times(table: &Table<'_, '_>) -> Result<Times, Error> {
    const TIMEOUT: &str = "milliseconds of silence, from 20 to 60000";
    const HEARTBEAT: &str = "milliseconds between two heartbeats, from 5 to half of `timeout`";
    const STALL: &str = "milliseconds without progress, from `timeout` to 3600000";
    const LAG: &str = "milliseconds that the backup may be behind, from 1 to 60000";
    const CHECKPOINT: &str = "milliseconds between two checkpoints, from 0 (none) to 3600000";
    let number = |key: &str, default: u32, least: u32, most: u32, wanted| match table.get(key) {
        None => Ok(default),
        Some(value) => {
            value.integer(u64::from(least)..u64::from(most) + 1, wanted).map(|number| number as u32)
        }
    };
    let timeout =
        number("timeout", limits::TIMEOUT_DEFAULT, limits::TIMEOUT_LEAST, limits::TIMEOUT_MOST, TIMEOUT)?;
    let half = timeout / 2;
    // One lost heartbeat must not be a suspicion.
    let often = limits::HEARTBEAT_DEFAULT.min(half);
    let heartbeat = number("heartbeat", often, limits::HEARTBEAT_LEAST, half, HEARTBEAT)?;
    let long = limits::STALL_DEFAULT.max(timeout);
    let stall = number("stall", long, timeout, limits::STALL_MOST, STALL)?;
    let lag = number("lag", limits::LAG_DEFAULT, 1, limits::LAG_MOST, LAG)?;
    let checkpoint = number("checkpoint", 0, 0, limits::CHECKPOINT, CHECKPOINT)?;
    Ok(Times { timeout, heartbeat, stall, lag, checkpoint })
}

fn port(table: &Table<'_, '_>, key: &str, default: u16, wanted: &'static str) -> Result<u16, Error> {
    table.get(key).map_or(Ok(default), |value| value.integer(1..65_536, wanted).map(|port| port as u16))
}

fn hosts(pair: &Table<'_, '_>, networks: &[Network]) -> Result<[PairHost; 2], Error> {
    const OTHER_LOG: &str = "another address than host a's, in the same network";
    const OTHER_GUEST: &str = "another address than host a's, in the same network of the guest's card";
    let (at, bt) = (pair.table("a", HOST)?, pair.table("b", HOST)?);
    let (a, b) = (host(&at, networks)?, host(&bt, networks)?);
    if !are_two(a.log_address, b.log_address) {
        return Err(bt.required("log-address", "")?.wrong(OTHER_LOG));
    }
    // Heartbeats on a path need both of its ends.
    let example = "guest-address = \"10.0.0.252/24\"";
    match (a.guest_address, b.guest_address) {
        (None, Some(_)) => return Err(at.missing("guest-address", example)),
        (Some(_), None) => return Err(bt.missing("guest-address", example)),
        (Some(one), Some(other)) if !are_two(one, other) => {
            return Err(bt.required("guest-address", "")?.wrong(OTHER_GUEST));
        }
        _ => {}
    }
    Ok([a, b])
}

/// Two stations of one network.
fn are_two(a: HostAddress, b: HostAddress) -> bool {
    a.ip != b.ip && a.prefix == b.prefix && a.reaches(b.ip)
}

fn host(table: &Table<'_, '_>, networks: &[Network]) -> Result<PairHost, Error> {
    const CARD: &str = "a card of the host: its number from 0, its PCI address \"00:03.0\", or its MAC";
    const ADDRESS: &str =
        "one station's IPv4 address with the bits of its network (1 to 30), such as \"10.77.0.1/24\"";
    const PORT: &str = "a TCP port from 1 to 65535";
    const NO_CARD: &str = "of use: no [[network]] has a card of the host";
    const APART: &str = "in another network than `log-address`: two paths must not be one";
    const ONE: &str = "of use: `log-card` is the card of the guest's network, and one card is one path";
    let log_card = match table.get("log-card") {
        None => Card::Index(networks.len() as u8),
        Some(value) => card(&value, CARD)?,
    };
    // Who wants it to be the guest's as well has to say so.
    if table.get("log-card").is_none() && networks.iter().any(|network| network.card == Some(log_card)) {
        return Err(table.missing("log-card", "log-card = \"00:04.0\""));
    }
    let guest_card = networks.iter().find_map(|network| network.card);
    let address = |text: &str| ipv4_with_prefix(text).map(|(ip, prefix)| HostAddress { ip: ip.0, prefix });
    let log_address =
        table.required("log-address", "log-address = \"10.77.0.1/24\"")?.parsed(ADDRESS, address)?;
    let guest_address = match table.get("guest-address") {
        None => None,
        Some(value) if guest_card.is_none() => return Err(value.wrong(NO_CARD)),
        Some(value) if guest_card == Some(log_card) => return Err(value.wrong(ONE)),
        Some(value) => {
            let own: HostAddress = value.parsed(ADDRESS, address)?;
            if own.reaches(log_address.ip) || log_address.reaches(own.ip) {
                return Err(value.wrong(APART));
            }
            Some(own)
        }
    };
    let log_port = port(table, "log-port", limits::LOG_PORT_DEFAULT, PORT)?;
    Ok(PairHost { log_card, log_address, log_port, guest_address })
}

fn arbiter(pair: &Table<'_, '_>, hosts: &[PairHost; 2]) -> Result<Arbiter, Error> {
    const KIND: &str = "\"lock-server\", the one kind of arbiter there is so far";
    const ADDRESS: &str = "an IPv4 address of its own in the network of the hosts' `log-address`, with a UDP port, such as \"10.77.0.9:5409\"";
    let table = pair.table("arbiter", ARBITER)?;
    let kind = table.required("kind", "kind = \"lock-server\"")?;
    kind.parsed(KIND, |text| (text == "lock-server").then_some(()))?;
    let address = table.required("address", "address = \"10.77.0.9:5409\"")?;
    let fits = |ip: Ipv4| {
        hosts.iter().all(|host| {
            let own = host.log_address;
            own.ip != ip.0 && own.reaches(ip.0) && ip.is_host(own.prefix)
        })
    };
    let (ip, port) = address.parsed(ADDRESS, |text| ipv4_with_port(text).filter(|(ip, _)| fits(*ip)))?;
    Ok(Arbiter::LockServer { ip: ip.0, port })
}
