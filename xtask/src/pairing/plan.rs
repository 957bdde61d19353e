//! What a run of a pair is made of: the virtual machine with its `[pair]`, two emulated hosts, two networks, and who is on them.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use vm_config::{Arbiter, Card, HostName, Pair};

use super::incident::{ARBITER, Incident};
use super::marks::{Marks, Moment};
use super::typed::Typed;
use crate::emulator::{Knobs, Machine, Nic, NicMode};
use crate::fetch::hex;
use crate::switch::cable::CableConfig;
use crate::switch::config::{Config, DEFAULT_QUANTUM, Host as SwitchHost, Network, PortName};
use crate::switch::station::counter::{Counter, CounterConfig};
use crate::switch::station::lock::{AskLog, LockConfig, LockFaults, LockStation};
use crate::switch::station::notes::{NoteLog, Notes};
use crate::switch::station::ping::{Ping, PingConfig, Pings};
use crate::switch::station::{Station, StationConfig};
use crate::switch::time::Ns;
use crate::switch::world::World;
use crate::vm::Vm;
use crate::vm::host::{Console, Host};
use crate::vm::outside::Outside;

/// The pinging station's name on the network.
const PING: &str = "ping";
/// The name of the station that other machines' programs tell how far they are.
const NOTES: &str = "notes";
/// The counting client's name on the network.
const COUNTER: &str = "counter";
/// The last bytes of the hosts' cards' addresses: those of host a, of host b.
const CARDS: [u8; 2] = [0x50, 0x58];
/// How late the hosts' overflow interrupts come, instructions: of host a, of host b. The seeds differ as well.
const SKIDS: [&str; 2] = ["5:40", "20:80"];

/// The logging network's name.
pub const LOG: &str = "log";

/// Stations with their names.
pub type Worlds = Vec<(String, Box<dyn World>)>;

/// How to run a pair.
#[derive(Clone, Debug)]
pub struct PairOptions {
    /// Both hosts: kernel, words, memory, speed, limit, what the guest's network is joined to. The directories of their runs are
    /// called NAME-a and NAME-b.
    pub host: Host,
    /// More words for one host's command line: of host a, of host b.
    pub words: [String; 2],
    /// What is typed on the hosts' consoles.
    pub typed: Vec<Typed>,
    /// Each host's kernel behaves otherwise wherever it may: shorter runs, interrupts for nothing, pages out of reach. It finds bugs, and
    /// costs the guest some of its time.
    pub vary: bool,
    /// How many times as slow as the other each host is: of host a, of host b.
    pub slow: [u64; 2],
    /// Another virtual machine for host b, which must not become a pair with host a's.
    pub other: Option<Vm>,
    /// Another build of the kernel for host b, which must not either.
    pub other_kernel: Option<PathBuf>,
    /// Seed of everything that differs between the hosts, and of the network.
    pub seed: u64,
    /// What befalls them.
    pub incidents: Vec<Incident>,
    /// The run is over at this moment.
    pub until: Option<Moment>,
    /// The run is over so long after the counting client is done, ns.
    pub linger: Ns,
    /// The run is over at this emulated time at the latest.
    pub end: Option<Ns>,
    /// The client that checks.
    pub counter: Option<CounterConfig>,
    /// The station that pings.
    pub ping: Option<PingConfig>,
    /// Each cable of the logging network.
    pub log_cable: CableConfig,
    /// Where to write what passes on the logging network.
    pub log_capture: Option<PathBuf>,
    /// What is wrong with the arbiter.
    pub arbiter: LockFaults,
}

impl PairOptions {
    /// A pair without misfortune.
    pub fn new(host: Host) -> Self {
        PairOptions {
            host,
            words: Default::default(),
            typed: Vec::new(),
            vary: true,
            slow: [1; 2],
            other: None,
            other_kernel: None,
            seed: 1,
            incidents: Vec::new(),
            until: None,
            linger: 10_000_000_000,
            end: None,
            counter: None,
            ping: None,
            log_cable: CableConfig::default(),
            log_capture: None,
            arbiter: LockFaults::default(),
        }
    }
}

/// Everything that a run needs, made but not started.
pub struct Plan {
    /// The two hosts.
    pub hosts: [Machine; 2],
    /// Other machines on the guest's network, with their names there.
    pub others: Vec<(String, Machine)>,
    /// The networks.
    pub config: Config,
    /// The stations on them.
    pub worlds: Worlds,
    /// Number of the card of each host on the guest's network, if the guest has one.
    pub guest_cards: Option<[u8; 2]>,
    /// Number of the card of each host on the logging network.
    pub log_cards: [u8; 2],
    /// What the arbiter and the counting client note.
    pub marks: Marks,
    /// What comes of the pings.
    pub pings: Option<Pings>,
}

/// The virtual machine with a `[pair]` section: its own, or one whose key is a function of the seed, with a logging card of its own.
///
/// # Errors
/// When the configuration that comes of it is refused.
pub fn paired(vm: &Vm, seed: u64) -> Result<Vm> {
    with_pair(vm, seed, vm.cards(), has_network(vm))
}

/// The same, but the log leaves by the card of the guest's first network device.
///
/// # Errors
/// When there is none, or the configuration that comes of it is refused.
pub fn paired_on_one_card(vm: &Vm, seed: u64) -> Result<Vm> {
    let (_, card) =
        vm.card_places().into_iter().next().context("the guest has no card that the log could share")?;
    with_pair(vm, seed, card, false)
}

/// `log_card`: number of the logging card. `beats`: heartbeats go by the guest's network as well.
fn with_pair(vm: &Vm, seed: u64, log_card: usize, beats: bool) -> Result<Vm> {
    if vm.config.pair.is_some() {
        return Ok(vm.clone());
    }
    let key = hex(&Sha256::digest(format!("lockstep pair {seed}")));
    let beats = |last| if beats { format!("guest-address = \"10.0.2.{last}/24\"\n") } else { String::new() };
    let text = format!(
        "{}\n[pair]\nkey = \"{key}\"\n\n[pair.a]\nlog-card = {log_card}\nlog-address = \"10.77.0.1/24\"\n{}\n\
         [pair.b]\nlog-card = {log_card}\nlog-address = \"10.77.0.2/24\"\n{}\n\
         [pair.arbiter]\nkind = \"lock-server\"\naddress = \"10.77.0.9:5409\"\n",
        vm.text(),
        beats(251),
        beats(252),
    );
    vm.with_text(&text)
}

/// Makes everything that a run needs: media, networks, stations.
///
/// # Errors
/// When the virtual machine has no `[pair]`, or something cannot be made.
pub fn plan(vm: &Vm, options: &PairOptions) -> Result<Plan> {
    let pair = vm.config.pair.as_ref().context("the configuration has no [pair]")?;
    let vms = [vm, options.other.as_ref().unwrap_or(vm)];
    let mut log_cards = [0; 2];
    let mut hosts = Vec::new();
    for (index, (name, vm)) in HostName::ALL.into_iter().zip(vms).enumerate() {
        let (machine, log) = host(vm, name, &options.words[index], options)?;
        log_cards[index] = log;
        hosts.push(machine);
    }
    let hosts: [Machine; 2] = hosts.try_into().ok().context("a pair has two hosts")?;
    let guest_cards = guest_cards(vm);
    let networks = Networks::new(vm, options)?;
    let (worlds, marks, pings) = networks.worlds(pair, options);
    let config = networks.config(&hosts, options, log_cards, &worlds);
    config.check()?;
    let others = networks.others;
    Ok(Plan { hosts, others, config, worlds, guest_cards, log_cards, marks, pings })
}

fn has_network(vm: &Vm) -> bool {
    vm.config.networks.iter().any(|network| network.card.is_some())
}

/// The number of each host's card of the guest's first network device that has one.
fn guest_cards(vm: &Vm) -> Option<[u8; 2]> {
    let first = |host| vm.card_places_of(host).first().map_or(0, |(_, place)| *place as u8);
    has_network(vm).then(|| HostName::ALL.map(first))
}

/// Whether a host's logging card is a network device's as well.
fn shares_a_card(vm: &Vm) -> bool {
    HostName::ALL.into_iter().any(|host| {
        let mut places = vm.card_places_of(host);
        let log = places.pop().map(|(_, place)| place);
        places.iter().any(|(_, place)| Some(*place) == log)
    })
}

/// One host's machine, and the number of its card for the log.
fn host(vm: &Vm, name: HostName, words: &str, options: &PairOptions) -> Result<(Machine, u8)> {
    let number = u64::from(name == HostName::B);
    let seed = options.seed.wrapping_mul(2).wrapping_add(number);
    let own = &options.host;
    let variation = if options.vary { format!("variation={seed} ") } else { String::new() };
    let kernel = options.other_kernel.as_ref().filter(|_| name == HostName::B);
    let host = Host {
        name: format!("{}-{name}", own.name),
        kernel: kernel.unwrap_or(&own.kernel).clone(),
        words: format!("{} host={name} {variation}{words}", own.words).trim().to_owned(),
        knobs: knobs(&own.knobs, seed),
        console: if options.typed.iter().any(|typed| typed.host == name) {
            Console::Typed
        } else {
            Console::File
        },
        ips: own.ips / options.slow[usize::from(name == HostName::B)].max(1),
        ..own.clone()
    };
    let places = vm.card_places_of(name);
    let count = places.iter().map(|(_, place)| place + 1).max().unwrap_or(0);
    let mut nics: Vec<Nic> = (0..count as u8)
        .map(|card| {
            let mode = NicMode::Lockstep { device: card.to_string() };
            Nic::new(CARDS[number as usize] + card, mode)
        })
        .collect();
    for (card, place) in &places {
        if let Card::Mac(mac) = card {
            nics[*place].mac = mac.0;
        }
    }
    let (_, log) = places.last().context("the logging channel has no card")?;
    Ok((Machine { nics, ..host.machine(vm)? }, *log as u8))
}

/// A host's own seeds, where nothing else is wanted.
fn knobs(wanted: &Knobs, seed: u64) -> Knobs {
    let range = wanted.skid.as_deref().unwrap_or(SKIDS[(seed % 2) as usize]);
    // The least, the greatest; a seed that was given is one more difference between runs, not between hosts.
    let mut parts = range.splitn(3, ':');
    let (least, most) = (parts.next().unwrap_or("5"), parts.next().unwrap_or("40"));
    let own = parts.next().and_then(|seed| seed.parse::<u64>().ok()).unwrap_or(0);
    Knobs {
        skid: Some(format!("{least}:{most}:{}", own.wrapping_mul(1_000).wrapping_add(seed))),
        seed: Some(wanted.seed.unwrap_or(0).wrapping_mul(1_000).wrapping_add(seed)),
        ..wanted.clone()
    }
}

/// Who is on the guest's network beside the hosts.
struct Networks {
    guest: bool,
    /// The logging network is the guest's.
    one: bool,
    cable: CableConfig,
    stations: Vec<(String, StationConfig)>,
    others: Vec<(String, Machine)>,
    capture: Option<PathBuf>,
}

impl Networks {
    fn new(vm: &Vm, options: &PairOptions) -> Result<Self> {
        let guest = has_network(vm);
        let none = Networks {
            guest,
            one: shares_a_card(vm),
            cable: CableConfig::default(),
            stations: Vec::new(),
            others: Vec::new(),
            capture: None,
        };
        Ok(match &options.host.outside {
            Outside::Nothing => none,
            Outside::Stations { cable, stations, capture, .. } => Networks {
                cable: cable.clone(),
                stations: if guest { stations.clone() } else { Vec::new() },
                capture: capture.clone(),
                ..none
            },
            Outside::Machines { cable, machines, capture, .. } => Networks {
                cable: cable.clone(),
                others: machines
                    .iter()
                    .enumerate()
                    .map(|(n, m)| (format!("machine{n}"), m.clone()))
                    .collect(),
                capture: capture.clone(),
                ..none
            },
            Outside::Udp(_) | Outside::Tap(_) => {
                bail!("a pair's guest is on the lock-step network: leave out --net, or write --net none")
            }
        })
    }

    fn worlds(&self, pair: &Pair, options: &PairOptions) -> (Worlds, Marks, Option<Pings>) {
        let asks = AskLog::default();
        let stations = self.stations.iter();
        let mut worlds: Worlds = stations
            .map(|(name, spec)| (name.clone(), Box::new(Station::new(spec)) as Box<dyn World>))
            .collect();
        let counter = options.counter.as_ref().filter(|_| self.guest).map(Counter::new);
        let tally = counter.as_ref().map(Counter::tally);
        if let Some(counter) = counter {
            worlds.push((COUNTER.into(), Box::new(counter)));
        }
        let ping = options.ping.as_ref().filter(|_| self.guest).map(Ping::new);
        let pings = ping.as_ref().map(Ping::pings);
        if let Some(ping) = ping {
            worlds.push((PING.into(), Box::new(ping)));
        }
        let mut noted = NoteLog::default();
        if !self.others.is_empty() {
            let notes = Notes::default();
            noted = notes.log();
            worlds.push((NOTES.into(), Box::new(notes)));
        }
        let Arbiter::LockServer { ip, port } = pair.arbiter;
        let prefix = pair.hosts[0].log_address.prefix;
        let lock = LockConfig { ip, prefix, port, faults: options.arbiter.clone() };
        worlds.push((ARBITER.into(), Box::new(LockStation::new(&lock, asks.clone()))));
        (worlds, Marks { asks, tally, notes: noted }, pings)
    }

    fn config(
        &self,
        hosts: &[Machine; 2],
        options: &PairOptions,
        log_cards: [u8; 2],
        worlds: &[(String, Box<dyn World>)],
    ) -> Config {
        let (mut lan, mut log) = (Vec::new(), Vec::new());
        for ((name, host), log_card) in HostName::ALL.iter().zip(hosts).zip(log_cards) {
            for card in 0..host.nics.len() as u8 {
                let port = PortName::new(name.name(), card);
                if card == log_card && !self.one {
                    log.push((port, options.log_cable.clone()));
                } else {
                    lan.push((port, self.cable.clone()));
                }
            }
        }
        for (name, _) in worlds {
            let port = PortName::new(name, 0);
            if name == ARBITER && !self.one {
                log.push((port, options.log_cable.clone()));
            } else {
                lan.push((port, self.cable.clone()));
            }
        }
        lan.extend(self.others.iter().map(|(name, _)| (PortName::new(name, 0), self.cable.clone())));
        let names = HostName::ALL.iter().map(|host| host.name().to_owned());
        let names = names.chain(self.others.iter().map(|(name, _)| name.clone()));
        let mut networks = Vec::new();
        let mut shortest = Ns::MAX;
        if !lan.is_empty() {
            let log = options.log_capture.as_ref().filter(|_| self.one);
            let capture = self.capture.as_ref().or(log).cloned();
            networks.push(Network { name: "guest".into(), ports: lan, capture });
            shortest = self.cable.latency;
        }
        if !log.is_empty() {
            networks.push(Network { name: LOG.into(), ports: log, capture: options.log_capture.clone() });
            shortest = shortest.min(options.log_cable.latency);
        }
        Config {
            seed: options.seed,
            // The longest that the cables allow: what meets more often costs time, and tells no more.
            quantum: (2 * shortest).max(DEFAULT_QUANTUM / 10),
            end: options.end,
            hosts: names.map(|name| SwitchHost { name, starts: vec![0] }).collect(),
            worlds: worlds.iter().map(|(name, _)| name.clone()).collect(),
            networks,
            ..Config::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::{Description, Start};
    use std::path::Path;

    fn vm(networks: usize) -> Vm {
        let me = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let start = Start::Kernel { kernel: me, initrd: None, command_line: String::new() };
        Description { networks, ..Description::new("test", start) }.vm().unwrap()
    }

    #[test]
    fn what_is_no_pair_yet_becomes_one() {
        for networks in [0, 2] {
            let vm = vm(networks);
            let with = paired(&vm, 1).unwrap();
            let pair = with.config.pair.clone().unwrap();
            assert!(with.text().starts_with(vm.text()), "the text of a person is kept");
            assert_eq!(pair.host(HostName::B).log_card, Card::Index(networks as u8));
            assert_eq!(pair.hosts[0].guest_address.is_some(), networks > 0);
            assert_eq!(paired(&with, 2).unwrap().config, with.config);
            let other = paired(&vm, 2).unwrap().config.pair.unwrap();
            assert!(other.key != pair.key && other.hosts == pair.hosts);
        }
    }

    #[test]
    fn the_hosts_differ_where_hosts_may_differ() {
        let skid = |wanted: Option<&str>, seed| {
            let wanted = Knobs { skid: wanted.map(str::to_owned), ..Knobs::default() };
            knobs(&wanted, seed).skid.unwrap()
        };
        assert_eq!((skid(None, 2), skid(None, 3)), ("5:40:2".into(), "20:80:3".into()));
        assert_eq!((skid(Some("1:9:7"), 2), skid(Some("1:9:7"), 3)), ("1:9:7002".into(), "1:9:7003".into()));
    }

    fn shown(networks: usize, change: impl FnOnce(&mut PairOptions)) -> (Vec<String>, u64) {
        let vm = paired(&vm(networks), 1).unwrap();
        shown_of(&vm, networks, [networks as u8; 2], change)
    }

    fn shown_of(
        vm: &Vm,
        networks: usize,
        log_cards: [u8; 2],
        change: impl FnOnce(&mut PairOptions),
    ) -> (Vec<String>, u64) {
        let host = Host { outside: Outside::world(1), ..Host::new("pair", "kernel".into()) };
        let mut options = PairOptions { counter: Some(CounterConfig::default()), ..PairOptions::new(host) };
        change(&mut options);
        let cards = |number: u8| Nic::new(number, NicMode::Unplugged);
        let count = log_cards[0].max(networks.saturating_sub(1) as u8);
        let machine = Machine { nics: (0..=count).map(cards).collect(), ..Machine::default() };
        let plans = Networks::new(vm, &options).unwrap();
        let (worlds, marks, pings) = plans.worlds(vm.config.pair.as_ref().unwrap(), &options);
        assert_eq!((marks.tally.is_some(), pings.is_some()), (networks > 0, false));
        let config = plans.config(&[machine.clone(), machine], &options, log_cards, &worlds);
        config.check().unwrap();
        let ports = |network: &Network| {
            let ports: Vec<String> = network.ports.iter().map(|(port, _)| port.to_string()).collect();
            format!("{}: {}", network.name, ports.join(" "))
        };
        (config.networks.iter().map(ports).collect(), config.quantum)
    }

    #[test]
    fn a_card_that_the_log_shares_is_on_the_one_network() {
        let vm = paired_on_one_card(&vm(1), 1).unwrap();
        let pair = vm.config.pair.as_ref().unwrap();
        assert!(
            pair.hosts.iter().all(|host| host.log_card == Card::Index(0) && host.guest_address.is_none())
        );
        assert_eq!((guest_cards(&vm), shares_a_card(&vm)), (Some([0, 0]), true));
        let capture = |options: &mut PairOptions| {
            options.log_capture = Some("log.pcap".into());
            options.log_cable.latency = 1_000;
        };
        let (networks, quantum) = shown_of(&vm, 1, [0, 0], capture);
        assert_eq!(networks, ["guest: a:0 b:0 world:0 counter:0 arbiter:0"]);
        assert_eq!(quantum, 100_000, "the cables are those of the guest's network");
        assert!(paired_on_one_card(&super::tests::vm(0), 1).is_err());
        assert!(!shares_a_card(&paired(&super::tests::vm(1), 1).unwrap()));
    }

    #[test]
    fn each_card_is_on_its_network() {
        let (networks, quantum) = shown(1, |_| ());
        assert_eq!(networks, ["guest: a:0 b:0 world:0 counter:0", "log: a:1 b:1 arbiter:0"]);
        assert_eq!(quantum, 100_000);
        let slow = |options: &mut PairOptions| options.log_cable.latency = 5_000_000;
        assert_eq!(shown(1, slow).1, 100_000, "the guest's network is the faster one");
        let (networks, quantum) = shown(0, slow);
        assert_eq!((networks, quantum), (vec!["log: a:0 b:0 arbiter:0".into()], 10_000_000));
    }
}
