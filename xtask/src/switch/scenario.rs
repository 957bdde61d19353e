//! A scenario as people write it: a TOML file (docs/switch.md has all keys), or a few flags.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::cable::CableConfig;
use super::config::{
    Config, DEFAULT_QUANTUM, Host, Network, Partition, Pattern, PortName, Stop, StopKind, When,
};
use super::station::{Station, StationConfig};
use super::time::{Ns, Ppm, parse_duration, parse_share};
use super::world::{Responder, World};

/// A scenario: what the switch does, and the stations inside it.
pub struct Scenario {
    /// Hosts, networks, faults.
    pub config: Config,
    /// The stations inside the switch, by name.
    pub worlds: Vec<(String, Box<dyn World>)>,
}

impl Scenario {
    /// Reads a file. Captures are written beside it unless their path is absolute.
    ///
    /// # Errors
    /// When it cannot be read, or means nothing; the error names the key.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the scenario {}", path.display()))?;
        let base = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, base).with_context(|| format!("the scenario {}", path.display()))
    }

    /// Reads TOML.
    ///
    /// # Errors
    /// As [`Scenario::read`].
    pub fn parse(text: &str, base: &Path) -> Result<Self> {
        let file: File = toml::from_str(text)?;
        file.scenario(base)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    seed: Option<u64>,
    quantum: Option<String>,
    end: Option<String>,
    #[serde(default)]
    host: Vec<HostKeys>,
    #[serde(default)]
    world: Vec<WorldKeys>,
    #[serde(default)]
    network: Vec<NetworkKeys>,
    #[serde(default)]
    link: Vec<LinkKeys>,
    #[serde(default)]
    partition: Vec<PartitionKeys>,
    #[serde(default)]
    kill: Vec<KillKeys>,
    #[serde(default)]
    pause: Vec<PauseKeys>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HostKeys {
    name: String,
    start: Option<Several>,
}

/// One or more.
#[derive(Deserialize)]
#[serde(untagged)]
enum Several {
    One(String),
    Many(Vec<String>),
}

impl Several {
    fn as_slice(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WorldKeys {
    name: String,
    kind: String,
    mac: String,
    ip: String,
}

#[derive(Deserialize)]
struct NetworkKeys {
    name: String,
    ports: Vec<String>,
    capture: Option<PathBuf>,
    #[serde(flatten)]
    cable: CableKeys,
}

#[derive(Deserialize)]
struct LinkKeys {
    port: String,
    #[serde(flatten)]
    cable: CableKeys,
}

/// Keys that a network gives to all its cables and a link to its own. `flatten` and `deny_unknown_fields` do not go
/// together, so what is left over is collected and refused by hand.
#[derive(Deserialize)]
struct CableKeys {
    latency: Option<String>,
    jitter: Option<String>,
    loss: Option<String>,
    duplicate: Option<String>,
    reorder: Option<String>,
    reorder_by: Option<String>,
    rate: Option<String>,
    queue: Option<u64>,
    #[serde(flatten)]
    unknown: std::collections::BTreeMap<String, toml::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PartitionKeys {
    from: String,
    until: Option<String>,
    between: (Several, Several),
    #[serde(default)]
    one_way: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KillKeys {
    host: String,
    at: Option<String>,
    tick: Option<u64>,
    life: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PauseKeys {
    host: String,
    at: Option<String>,
    tick: Option<u64>,
    life: Option<usize>,
    #[serde(rename = "for")]
    length: String,
}

impl File {
    fn scenario(self, base: &Path) -> Result<Scenario> {
        let quantum = optional(self.quantum.as_deref(), "quantum")?.unwrap_or(DEFAULT_QUANTUM);
        let mut worlds = Vec::new();
        for keys in &self.world {
            let made = keys.make().with_context(|| format!("the world `{}`", keys.name))?;
            worlds.push((keys.name.clone(), made));
        }
        let config = Config {
            seed: self.seed.unwrap_or(1),
            quantum,
            end: optional(self.end.as_deref(), "end")?,
            hosts: self.host.iter().map(HostKeys::host).collect::<Result<_>>()?,
            worlds: worlds.iter().map(|(name, _)| name.clone()).collect(),
            networks: self.networks(quantum, base)?,
            partitions: self.partition.iter().map(PartitionKeys::partition).collect::<Result<_>>()?,
            stops: self.stops()?,
        };
        config.check()?;
        Ok(Scenario { config, worlds })
    }

    fn networks(&self, quantum: Ns, base: &Path) -> Result<Vec<Network>> {
        let mut networks = Vec::new();
        for keys in &self.network {
            // Half a quantum per cable makes a whole one from port to port, the shortest that is possible.
            let plain = CableConfig { latency: quantum.div_ceil(2), ..CableConfig::default() };
            let cable = keys.cable.apply(plain).with_context(|| format!("the network `{}`", keys.name))?;
            let ports = keys.ports.iter().map(|p| Ok((PortName::parse(p)?, cable.clone())));
            networks.push(Network {
                name: keys.name.clone(),
                ports: ports.collect::<Result<_>>()?,
                capture: keys.capture.as_ref().map(|path| base.join(path)),
            });
        }
        for keys in &self.link {
            let name = PortName::parse(&keys.port)?;
            let found = networks.iter_mut().flat_map(|n| &mut n.ports).find(|(port, _)| *port == name);
            let Some((_, cable)) = found else { bail!("the link of {name}: no network has this port") };
            *cable = keys.cable.apply(cable.clone()).with_context(|| format!("the link of {name}"))?;
        }
        Ok(networks)
    }

    fn stops(&self) -> Result<Vec<Stop>> {
        let mut stops = Vec::new();
        for k in &self.kill {
            let when = when(k.at.as_deref(), k.tick, k.life)
                .with_context(|| format!("the kill of host `{}`", k.host))?;
            stops.push(Stop { host: k.host.clone(), when, what: StopKind::Kill });
        }
        for k in &self.pause {
            let what = || format!("the pause of host `{}`", k.host);
            let when = when(k.at.as_deref(), k.tick, k.life).with_context(what)?;
            let length = parse_duration(&k.length).with_context(what)?;
            stops.push(Stop { host: k.host.clone(), when, what: StopKind::Pause(length) });
        }
        Ok(stops)
    }
}

fn when(at: Option<&str>, tick: Option<u64>, life: Option<usize>) -> Result<When> {
    match (at, tick) {
        (Some(at), None) if life.is_none() => Ok(When::At(parse_duration(at)?)),
        (None, Some(tick)) => Ok(When::Tick { tick, life: life.unwrap_or(0) }),
        _ => bail!("give either `at` (scenario time) or `tick` (and `life` for a later start)"),
    }
}

fn optional(text: Option<&str>, key: &str) -> Result<Option<Ns>> {
    text.map(parse_duration).transpose().with_context(|| format!("the key `{key}`"))
}

impl HostKeys {
    fn host(&self) -> Result<Host> {
        let starts = match &self.start {
            None => vec![0],
            Some(several) => several.as_slice().iter().map(|s| parse_duration(s)).collect::<Result<_>>()?,
        };
        Ok(Host { name: self.name.clone(), starts })
    }
}

impl PartitionKeys {
    fn partition(&self) -> Result<Partition> {
        let side = |side: &Several| side.as_slice().iter().map(|p| Pattern::parse(p)).collect::<Result<_>>();
        Ok(Partition {
            from: parse_duration(&self.from)?,
            until: optional(self.until.as_deref(), "until")?.unwrap_or(Ns::MAX),
            a: side(&self.between.0)?,
            b: side(&self.between.1)?,
            one_way: self.one_way,
        })
    }
}

impl WorldKeys {
    fn make(&self) -> Result<Box<dyn World>> {
        let (mac, ip) = (parse_mac(&self.mac)?, parse_ip(&self.ip)?);
        match self.kind.as_str() {
            "responder" => Ok(Box::new(Responder::new(mac, ip))),
            "server" => Ok(Box::new(Station::new(&StationConfig { mac, ip, ..StationConfig::default() }))),
            other => bail!("there is no kind `{other}`; there are `responder` and `server`"),
        }
    }
}

/// Reads `52:54:00:12:34:56`.
///
/// # Errors
/// When it is no such address, or one of a group.
pub fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let bytes: Option<Vec<u8>> =
        text.split(':').map(|b| (b.len() == 2).then(|| u8::from_str_radix(b, 16).ok()).flatten()).collect();
    match bytes.and_then(|b| <[u8; 6]>::try_from(b).ok()) {
        Some(mac) if mac[0] & 1 == 0 => Ok(mac),
        _ => bail!("`{text}` is no station's address; write six pairs of digits such as 52:54:00:12:34:56"),
    }
}

fn parse_ip(text: &str) -> Result<[u8; 4]> {
    let ip: std::net::Ipv4Addr = text.parse().with_context(|| format!("`{text}` is no IPv4 address"))?;
    Ok(ip.octets())
}

impl CableKeys {
    fn apply(&self, mut cable: CableConfig) -> Result<CableConfig> {
        if let Some(key) = self.unknown.keys().next() {
            bail!("there is no key `{key}` here");
        }
        let time = |value: &Option<String>, key, into: &mut Ns| -> Result<()> {
            *into = optional(value.as_deref(), key)?.unwrap_or(*into);
            Ok(())
        };
        let share = |value: &Option<String>, key: &str, into: &mut Ppm| -> Result<()> {
            if let Some(text) = value {
                *into = parse_share(text).with_context(|| format!("the key `{key}`"))?;
            }
            Ok(())
        };
        time(&self.latency, "latency", &mut cable.latency)?;
        time(&self.jitter, "jitter", &mut cable.jitter)?;
        time(&self.reorder_by, "reorder_by", &mut cable.reorder_by)?;
        share(&self.loss, "loss", &mut cable.loss)?;
        share(&self.duplicate, "duplicate", &mut cable.duplicate)?;
        share(&self.reorder, "reorder", &mut cable.reorder)?;
        if let Some(rate) = &self.rate {
            cable.rate = parse_rate(rate).context("the key `rate`")?;
        }
        cable.queue = self.queue.unwrap_or(cable.queue);
        Ok(cable)
    }
}

/// Reads bits per second: `10M`, `1G`, `64k`, `none`.
fn parse_rate(text: &str) -> Result<u64> {
    if text == "none" {
        return Ok(0);
    }
    let (number, scale) = match text.char_indices().last() {
        Some((at, 'k')) => (&text[..at], 1_000),
        Some((at, 'M')) => (&text[..at], 1_000_000),
        Some((at, 'G')) => (&text[..at], 1_000_000_000),
        _ => (text, 1),
    };
    match number.trim().parse::<u64>().ok().and_then(|n| n.checked_mul(scale)) {
        Some(rate) if rate >= 1_000 => Ok(rate),
        _ => bail!("`{text}` is no rate: write bits per second from 1k on, for instance 100M, or none"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"
        seed = 42
        quantum = "50us"
        end = "10s"
        [[host]]
        name = "a"
        start = ["0s", "3s"]
        [[host]]
        name = "b"
        [[world]]
        name = "outside"
        kind = "responder"
        mac = "52:54:00:00:00:fe"
        ip = "10.0.0.254"
        [[network]]
        name = "log"
        ports = ["a:1", "b:1"]
        loss = "1%"
        latency = "30us"
        capture = "log.pcap"
        [[network]]
        name = "lan"
        ports = ["a:0", "b:0", "outside"]
        [[link]]
        port = "b:1"
        loss = "0.5%"
        rate = "100M"
        [[partition]]
        from = "1s"
        until = "2s"
        between = ["a:1", ["b:1"]]
        [[kill]]
        host = "a"
        at = "2.5s"
        [[pause]]
        host = "b"
        tick = 1000
        for = "10ms"
    "#;

    #[test]
    fn a_full_file() {
        let s = Scenario::parse(FULL, Path::new("/dir")).unwrap();
        let c = &s.config;
        assert_eq!((c.seed, c.quantum, c.end), (42, 50_000, Some(10_000_000_000)));
        assert_eq!(c.hosts[0].starts, [0, 3_000_000_000]);
        assert_eq!(c.worlds, ["outside"]);
        let [log, lan] = &c.networks[..] else { panic!("two networks") };
        assert_eq!(log.capture.as_deref(), Some(Path::new("/dir/log.pcap")));
        let (a, b) = (&log.ports[0].1, &log.ports[1].1);
        assert_eq!((a.loss, a.latency, a.rate), (Ppm(10_000), 30_000, 1_000_000_000));
        assert_eq!((b.loss, b.latency, b.rate), (Ppm(5_000), 30_000, 100_000_000));
        assert_eq!(lan.ports[2].1.latency, 25_000);
        assert_eq!(c.partitions[0].a, [Pattern::Port(PortName::new("a", 1))]);
        assert_eq!(c.stops[0].when, When::At(2_500_000_000));
        assert_eq!(c.stops[1].what, StopKind::Pause(10_000_000));
        assert_eq!(s.worlds.len(), 1);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let says = |from: &str, to: &str, text: &str| {
            assert!(FULL.contains(from), "{from}");
            let error = Scenario::parse(&FULL.replacen(from, to, 1), Path::new("")).err().unwrap();
            let error = format!("{error:#}");
            assert!(error.contains(text), "{error}");
        };
        says("seed = 42", "sede = 42", "sede");
        says("quantum = \"50us\"", "quantum = \"50\"", "the key `quantum`");
        says("loss = \"1%\"", "lost = \"1%\"", "no key `lost`");
        says("loss = \"1%\"", "loss = \"200%\"", "the key `loss`");
        says("port = \"b:1\"", "port = \"b:7\"", "the link of b:7: no network has this port");
        says("kind = \"responder\"", "kind = \"oracle\"", "no kind `oracle`");
        says("at = \"2.5s\"", "at = \"2.5s\"\ntick = 3", "either `at`");
        says("host = \"b\"", "host = \"z\"", "no host `z`");
        says("rate = \"100M\"", "rate = \"fast\"", "no rate");
        says("latency = \"30us\"", "latency = \"10us\"", "less than half a quantum");
        says("52:54:00:00:00:fe", "53:54:00:00:00:fe", "no station's address");
    }

    #[test]
    fn rates() {
        assert_eq!(parse_rate("64k").unwrap(), 64_000);
        assert_eq!(parse_rate("none").unwrap(), 0);
        for bad in ["", "0", "M", "-1M", "1T"] {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
    }
}
