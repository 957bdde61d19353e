//! What is between the ports: cables, learning switches, partitions. Frames in with a time, deliveries out with a time.
//!
//! Order is total and a function of the input alone: by time, then by the order in which frames were put on their
//! cables, which is by time, port and the sender's own order.

use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::cable::{Cable, CableCounters};
use super::config::{Config, Partition, PortName};
use super::time::Ns;
use super::wire::Frame;

/// Addresses that a network remembers; further ones are flooded.
const TABLE_LIMIT: usize = 4096;

/// Index of a port in the fabric.
pub type PortId = usize;
/// Index of a station: hosts first, then worlds, each as configured.
pub type StationId = usize;

/// What became of frames at a port, beside what its cable did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PortCounters {
    /// Frames for this port that a partition stopped.
    pub cut: u64,
    /// Frames for this port while its station was off.
    pub unheard: u64,
}

struct Port {
    name: PortName,
    station: StationId,
    network: usize,
    /// From the station to the switch.
    up: Cable,
    /// From the switch to the station.
    down: Cable,
    plugged: bool,
    counters: PortCounters,
}

struct Network {
    ports: Vec<PortId>,
    captured: bool,
    table: BTreeMap<[u8; 6], PortId>,
}

struct Cut {
    from: Ns,
    until: Ns,
    /// By port: on the first side, on the second.
    sides: Vec<(bool, bool)>,
    one_way: bool,
}

impl Cut {
    fn new(partition: &Partition, ports: &[Port]) -> Self {
        let side =
            |name: &PortName, patterns: &[super::config::Pattern]| patterns.iter().any(|p| p.matches(name));
        let sides =
            ports.iter().map(|p| (side(&p.name, &partition.a), side(&p.name, &partition.b))).collect();
        Self { from: partition.from, until: partition.until, sides, one_way: partition.one_way }
    }

    fn stops(&self, at: Ns, from: PortId, to: PortId) -> bool {
        let (a, b) = (self.sides[from], self.sides[to]);
        (self.from..self.until).contains(&at) && (a.0 && b.1 || !self.one_way && a.1 && b.0)
    }
}

/// A frame that the switch has seen, for a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Index of the network.
    pub network: usize,
    /// When the switch had it.
    pub at: Ns,
    /// The frame.
    pub frame: Frame,
}

/// A frame that is due at a station.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// When.
    pub at: Ns,
    /// At which of its ports.
    pub port: PortId,
    /// The frame.
    pub frame: Frame,
}

/// By time, then by order of making.
type Agenda<T> = BTreeMap<(Ns, u64), T>;

/// All ports and networks.
pub struct Fabric {
    ports: Vec<Port>,
    networks: Vec<Network>,
    cuts: Vec<Cut>,
    /// Frames put on a cable since the last [`Fabric::settle`].
    sent: Vec<(Ns, PortId, Frame)>,
    /// Frames on their way to the switch.
    arriving: Agenda<(PortId, Frame)>,
    /// Frames on their way to each station.
    due: Vec<Agenda<(PortId, Frame)>>,
    order: u64,
    seen: Vec<Seen>,
    /// Of the frames that passed.
    digest: Sha256,
    /// Of what each station did and was told. Apart, since in what order stations are heard is chance.
    notes: Vec<Sha256>,
}

impl Fabric {
    /// The fabric of a checked configuration.
    pub fn new(config: &Config) -> Self {
        let stations: Vec<&String> = config.hosts.iter().map(|h| &h.name).chain(&config.worlds).collect();
        let mut ports = Vec::new();
        let mut networks = Vec::new();
        for (index, network) in config.networks.iter().enumerate() {
            let first = ports.len();
            for (name, cable) in &network.ports {
                let station = stations.iter().position(|s| **s == name.station);
                ports.push(Port {
                    name: name.clone(),
                    station: station.expect("a checked configuration names only stations that are there"),
                    network: index,
                    up: Cable::new(cable.clone(), config.seed, &format!("{name} up")),
                    down: Cable::new(cable.clone(), config.seed, &format!("{name} down")),
                    plugged: false,
                    counters: PortCounters::default(),
                });
            }
            let captured = network.capture.is_some();
            networks.push(Network {
                ports: (first..ports.len()).collect(),
                captured,
                table: BTreeMap::new(),
            });
        }
        let cuts = config.partitions.iter().map(|p| Cut::new(p, &ports)).collect();
        let due = stations.iter().map(|_| Agenda::new()).collect();
        let notes = stations.iter().map(|_| Sha256::new()).collect();
        let (arriving, digest) = (Agenda::new(), Sha256::new());
        Self { ports, networks, cuts, sent: vec![], arriving, due, order: 0, seen: vec![], digest, notes }
    }

    /// One more time during which some do not reach others.
    pub fn cut(&mut self, partition: &Partition) {
        self.cuts.push(Cut::new(partition, &self.ports));
    }

    /// The port `number` of a station.
    pub fn port(&self, station: StationId, number: u8) -> Option<PortId> {
        self.ports.iter().position(|p| p.station == station && p.name.port == number)
    }

    /// Numbers of the ports that a station has.
    pub fn numbers(&self, station: StationId) -> Vec<u8> {
        let mut numbers: Vec<u8> =
            self.ports.iter().filter(|p| p.station == station).map(|p| p.name.port).collect();
        numbers.sort_unstable();
        numbers
    }

    /// Number of a port on its station.
    pub fn number(&self, port: PortId) -> u8 {
        self.ports[port].name.port
    }

    /// Switches the links of a station on or off. Off, what is on its way to it is lost, and the switch forgets it.
    pub fn plug(&mut self, station: StationId, on: bool) {
        for (id, port) in self.ports.iter_mut().enumerate().filter(|(_, p)| p.station == station) {
            port.plugged = on;
            if !on {
                self.networks[port.network].table.retain(|_, learned| *learned != id);
            }
        }
        if !on {
            for (port, _) in std::mem::take(&mut self.due[station]).into_values() {
                self.ports[port].counters.unheard += 1;
            }
        }
    }

    /// A station puts a frame on the cable of one of its ports.
    pub fn send(&mut self, port: PortId, at: Ns, frame: Frame) {
        self.sent.push((at, port, frame));
    }

    /// Whether something was sent that is not settled yet.
    pub fn has_sent(&self) -> bool {
        !self.sent.is_empty()
    }

    /// Lets frames pass the switch that reach it up to `horizon`. The caller promises that nothing will be sent any more
    /// that could reach it earlier than that.
    pub fn settle(&mut self, horizon: Ns) {
        let mut sent = std::mem::take(&mut self.sent);
        sent.sort_by_key(|(at, port, _)| (*at, *port));
        for (at, port, frame) in sent {
            for arrival in self.ports[port].up.pass(at, frame.len()).into_iter().flatten() {
                let key = self.key(arrival);
                self.arriving.insert(key, (port, frame.clone()));
            }
        }
        while let Some(entry) = self.arriving.first_entry() {
            let at = entry.key().0;
            if at > horizon {
                break;
            }
            let (port, frame) = entry.remove();
            self.forward(at, port, frame);
        }
    }

    fn key(&mut self, at: Ns) -> (Ns, u64) {
        self.order += 1;
        (at, self.order)
    }

    fn forward(&mut self, at: Ns, from: PortId, frame: Frame) {
        self.digest.update(at.to_le_bytes());
        self.digest.update((from as u64).to_le_bytes());
        self.digest.update(&frame[..]);
        let network = &mut self.networks[self.ports[from].network];
        if network.captured {
            self.seen.push(Seen { network: self.ports[from].network, at, frame: frame.clone() });
        }
        let (to, source) = (address(&frame, 0), address(&frame, 6));
        if source[0] & 1 == 0 && (network.table.len() < TABLE_LIMIT || network.table.contains_key(&source)) {
            network.table.insert(source, from);
        }
        let known = if to[0] & 1 == 0 { network.table.get(&to).copied() } else { None };
        match known {
            Some(port) if port == from => {}
            Some(port) => self.deliver(at, from, port, frame),
            None => {
                for port in network.ports.clone() {
                    if port != from {
                        self.deliver(at, from, port, frame.clone());
                    }
                }
            }
        }
    }

    fn deliver(&mut self, at: Ns, from: PortId, to: PortId, frame: Frame) {
        let port = &mut self.ports[to];
        if self.cuts.iter().any(|cut| cut.stops(at, from, to)) {
            port.counters.cut += 1;
            return;
        }
        if !port.plugged {
            port.counters.unheard += 1;
            return;
        }
        let station = port.station;
        for arrival in port.down.pass(at, frame.len()).into_iter().flatten() {
            let key = self.key(arrival);
            self.due[station].insert(key, (to, frame.clone()));
        }
    }

    /// When the next frame that is under way reaches the switch.
    pub fn next_arrival(&self) -> Option<Ns> {
        self.arriving.first_key_value().map(|((at, _), _)| *at)
    }

    /// When the next frame is due at a station.
    pub fn next_due(&self, station: StationId) -> Option<Ns> {
        self.due[station].first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes the next frame that is due at a station, if it is due not after `until`.
    pub fn take_due(&mut self, station: StationId, until: Ns) -> Option<Due> {
        let entry = self.due[station].first_entry().filter(|e| e.key().0 <= until)?;
        let at = entry.key().0;
        let (port, frame) = entry.remove();
        Some(Due { at, port, frame })
    }

    /// Takes what the captured networks have seen since the last call.
    pub fn take_seen(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.seen)
    }

    /// Adds a fact about a station to the digest of the run.
    pub fn note(&mut self, station: StationId, what: &str, numbers: &[u64]) {
        self.notes[station].update(what.as_bytes());
        for n in numbers {
            self.notes[station].update(n.to_le_bytes());
        }
    }

    /// A digest of all that happened so far: two runs that agree in it saw the same frames at the same times, and ran and
    /// ended their hosts at the same ticks.
    pub fn digest(&self) -> String {
        let mut all = self.digest.clone();
        for station in &self.notes {
            all.update(station.clone().finalize());
        }
        all.finalize()[..16].iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Totals by port: its name, index of its network, up, down, the rest.
    pub fn totals(
        &self,
    ) -> impl Iterator<Item = (&PortName, usize, &CableCounters, &CableCounters, &PortCounters)> {
        self.ports.iter().map(|p| (&p.name, p.network, p.up.counters(), p.down.counters(), &p.counters))
    }
}

/// The address at `offset`; frames are at least 14 bytes long (checked on the way in).
fn address(frame: &Frame, offset: usize) -> [u8; 6] {
    let mut mac = [0; 6];
    mac.copy_from_slice(&frame[offset..offset + 6]);
    mac
}

#[cfg(test)]
mod tests {
    use super::super::cable::CableConfig;
    use super::super::config::Pattern;
    use super::*;

    const ALL: [u8; 6] = [0xff; 6];

    fn mac(n: u8) -> [u8; 6] {
        [2, 0, 0, 0, 0, n]
    }

    fn frame(to: [u8; 6], from: [u8; 6]) -> Frame {
        [&to[..], &from, &[0x88, 0xb5, 7]].concat().into()
    }

    fn fabric(change: impl Fn(&mut Config)) -> Fabric {
        let cable = CableConfig { rate: 0, ..CableConfig::default() };
        let mut config = Config::lan(1, &["a", "b", "c"], &cable);
        change(&mut config);
        config.check().unwrap();
        let mut fabric = Fabric::new(&config);
        for station in 0..3 {
            fabric.plug(station, true);
        }
        fabric
    }

    /// Who got something by 1 s, and when.
    fn got(fabric: &mut Fabric) -> Vec<(StationId, Ns)> {
        fabric.settle(1_000_000_000);
        let mut got = vec![];
        for station in 0..3 {
            while let Some(due) = fabric.take_due(station, 1_000_000_000) {
                got.push((station, due.at));
            }
        }
        got
    }

    #[test]
    fn unknown_is_flooded_known_is_not() {
        let mut f = fabric(|_| ());
        f.send(0, 10, frame(mac(1), mac(0)));
        assert_eq!(got(&mut f), [(1, 100_010), (2, 100_010)]);
        f.send(1, 200_000, frame(mac(0), mac(1)));
        assert_eq!(got(&mut f), [(0, 300_000)]);
        f.send(0, 400_000, frame(mac(1), mac(0)));
        assert_eq!(got(&mut f), [(1, 500_000)]);
        f.send(0, 600_000, frame(ALL, mac(0)));
        assert_eq!(got(&mut f).len(), 2);
        f.send(0, 700_000, frame([1, 0, 0x5e, 0, 0, 1], mac(0)));
        assert_eq!(got(&mut f).len(), 2);
        f.send(0, 800_000, frame(mac(0), mac(0)));
        assert_eq!(got(&mut f), [], "a frame to its own port is filtered");
    }

    #[test]
    fn a_station_that_moves_is_learned_anew() {
        let mut f = fabric(|_| ());
        f.send(1, 0, frame(ALL, mac(9)));
        got(&mut f);
        f.send(2, 1_000, frame(ALL, mac(9)));
        got(&mut f);
        f.send(0, 2_000, frame(mac(9), mac(0)));
        assert_eq!(got(&mut f), [(2, 102_000)]);
    }

    #[test]
    fn an_unplugged_station_hears_nothing_and_is_forgotten() {
        let mut f = fabric(|_| ());
        f.send(1, 0, frame(ALL, mac(1)));
        got(&mut f);
        f.send(0, 1_000, frame(mac(1), mac(0)));
        f.settle(1_000_000);
        f.plug(1, false);
        assert_eq!(got(&mut f), [], "on its way when the plug was pulled");
        f.send(0, 2_000_000, frame(mac(1), mac(0)));
        assert_eq!(got(&mut f), [(2, 2_100_000)], "unknown again: flooded");
        assert_eq!(f.totals().map(|t| t.4.unheard).collect::<Vec<_>>(), [0, 2, 0]);
    }

    #[test]
    fn partitions_cut_by_time_and_direction() {
        let cut = |one_way| Partition {
            from: 1_000_000,
            until: 2_000_000,
            a: vec![Pattern::Station("a".into())],
            b: vec![Pattern::Port(PortName::new("b", 0))],
            one_way,
        };
        for one_way in [false, true] {
            let mut f = fabric(|c| c.partitions.push(cut(one_way)));
            for (at, from, reached) in [
                (0, 0, vec![1, 2]),
                (960_000, 0, vec![2]),
                (960_000, 1, if one_way { vec![0, 2] } else { vec![2] }),
                (960_000, 2, vec![0, 1]),
                (1_949_999, 0, vec![2]),
                (1_950_000, 0, vec![1, 2]),
            ] {
                f.send(from, at, frame(ALL, mac(from as u8)));
                let reached_now: Vec<_> = got(&mut f).into_iter().map(|(s, _)| s).collect();
                assert_eq!(reached_now, reached, "{one_way} {at} {from}");
            }
        }
    }

    #[test]
    fn nothing_beyond_the_horizon_passes() {
        let mut f = fabric(|_| ());
        f.send(0, 0, frame(ALL, mac(0)));
        f.settle(49_999);
        assert_eq!(f.next_due(1), None);
        f.settle(50_000);
        assert_eq!(f.next_due(1), Some(100_000));
    }

    #[test]
    fn order_does_not_depend_on_who_is_asked_first() {
        let digest = |reverse: bool| {
            let mut f = fabric(|_| ());
            let mut sends = vec![(0, 5), (1, 5), (2, 3), (1, 9)];
            if reverse {
                sends.reverse();
            }
            for (port, at) in sends {
                f.send(port, at, frame(ALL, mac(port as u8)));
            }
            f.settle(1_000_000);
            f.digest()
        };
        assert_eq!(digest(false), digest(true));
    }

    #[test]
    fn only_captured_networks_are_seen() {
        let mut f = fabric(|c| c.networks[0].capture = Some("x".into()));
        f.send(0, 7, frame(ALL, mac(0)));
        f.settle(1_000_000);
        assert_eq!(f.take_seen(), [Seen { network: 0, at: 50_007, frame: frame(ALL, mac(0)) }]);
        assert!(f.take_seen().is_empty());
    }
}
