//! A whole computer of the outside world as a station inside the switch: a TCP/IP stack (smoltcp) with servers, and clients that
//! talk to a guest. Sans-I/O and driven by emulated time, so it is as deterministic as the switch.
//!
//! It answers ARP and ping; serves `/fileN` (N MiB of the content that [`content`] makes) by HTTP on 8000; takes whatever
//! comes on 8001; sends back what comes on 7. Its clients fetch from a guest's HTTP server and check the content, and
//! exchange lines with a guest's echo server.

use smoltcp::iface::{Config as InterfaceConfig, Interface, SocketSet};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, Ipv4Address};

use super::time::Ns;
use super::wire::Frame;
use super::world::World;
use crate::ui;

mod client;
pub mod content;
pub mod counter;
mod device;
pub mod lock;
pub mod notes;
pub mod ping;
mod server;
pub mod sink;

pub use client::{Client, Expect, Task};

use client::Clients;
use device::Queues;
use server::Servers;

/// Bytes of each direction's buffer of a connection.
const BUFFER: usize = 64 * 1024;
/// Most rounds of stack and programs at one moment; what is left is done at the next.
const MAX_ROUNDS: usize = 64;

/// What a station is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StationConfig {
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Its address, in a network of 24 bits.
    pub ip: [u8; 4],
    /// Seed of its sequence numbers.
    pub seed: u64,
    /// What its clients do, one after another.
    pub clients: Vec<Client>,
    /// Say on standard error what the clients have done, as they do it.
    pub tells: bool,
}

impl Default for StationConfig {
    /// The server of the standard loads, at 10.0.2.2, without clients.
    fn default() -> Self {
        StationConfig {
            mac: [0x52, 0x54, 0, 0x6c, 0x73, 0xfe],
            ip: [10, 0, 2, 2],
            seed: 1,
            clients: Vec::new(),
            tells: false,
        }
    }
}

/// A station that runs.
pub struct Station {
    queues: Queues,
    interface: Interface,
    sockets: SocketSet<'static>,
    servers: Servers,
    clients: Clients,
    next: Option<Ns>,
    tells: bool,
}

impl Station {
    /// The station as it is at time 0.
    pub fn new(config: &StationConfig) -> Self {
        let mut queues = Queues::default();
        let address = HardwareAddress::Ethernet(EthernetAddress(config.mac));
        let mut settings = InterfaceConfig::new(address);
        settings.random_seed = config.seed;
        let mut interface = Interface::new(settings, &mut queues, Instant::ZERO);
        let [a, b, c, d] = config.ip;
        interface.update_ip_addrs(|addresses| {
            // There is room for one.
            let _ = addresses.push(IpCidr::new(IpAddress::Ipv4(Ipv4Address::new(a, b, c, d)), 24));
        });
        let mut sockets = SocketSet::new(Vec::new());
        let servers = Servers::new(&mut sockets);
        let clients = Clients::new(&mut sockets, &config.clients);
        let next = config.clients.first().map(|client| client.at);
        Station { queues, interface, sockets, servers, clients, next, tells: config.tells }
    }

    /// Lets stack and programs work until nothing changes any more.
    fn work(&mut self, now: Ns, send: &mut Vec<Vec<u8>>) {
        let instant = instant(now);
        for _ in 0..MAX_ROUNDS {
            self.interface.poll(instant, &mut self.queues, &mut self.sockets);
            let served = self.servers.work(&mut self.sockets);
            let before = self.clients.left();
            let done = self.clients.work(now, self.interface.context(), &mut self.sockets);
            if self.tells && self.clients.left() != before {
                // A person's terminal may be raw.
                ui::say(format!("\r\n[outside, at {:.3} s: {}]\r", now as f64 / 1e9, self.clients.summary()));
            }
            if !served && !done {
                break;
            }
        }
        self.interface.poll(instant, &mut self.queues, &mut self.sockets);
        send.append(&mut self.queues.outgoing);
        let stack = self.interface.poll_at(instant, &self.sockets).map(nanoseconds);
        let next = stack.into_iter().chain(self.clients.next(now)).min();
        // A stack that wants to be asked at once has just been asked: time must pass.
        self.next = next.map(|at| at.max(now + 1_000));
    }
}

impl World for Station {
    fn frame(&mut self, now: Ns, frame: &Frame, send: &mut Vec<Vec<u8>>) {
        self.queues.incoming.push_back(frame.clone());
        self.work(now, send);
    }

    fn timer(&mut self, now: Ns, send: &mut Vec<Vec<u8>>) {
        self.work(now, send);
    }

    fn next_timer(&self) -> Option<Ns> {
        self.next
    }

    fn summary(&self) -> String {
        format!("{} {}", self.servers.summary(), self.clients.summary())
    }
}

/// The stack counts microseconds: a moment is the one that has begun.
fn instant(now: Ns) -> Instant {
    Instant::from_micros(i64::try_from(now / 1_000).unwrap_or(i64::MAX))
}

/// The first nanosecond at which `instant` has come.
fn nanoseconds(instant: Instant) -> Ns {
    u64::try_from(instant.total_micros()).unwrap_or(0).saturating_mul(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two stations on a wire of 10 microseconds.
    struct Wire {
        ends: [Station; 2],
        under_way: Vec<(Ns, usize, Vec<u8>)>,
        now: Ns,
        /// Every n-th frame is lost; 0 for none.
        loss: usize,
        passed: usize,
    }

    impl Wire {
        fn new(clients: Vec<Client>) -> Self {
            let outside = Station::new(&StationConfig { clients, ..StationConfig::default() });
            let other =
                StationConfig { mac: [2, 0, 0, 0, 0, 1], ip: [10, 0, 2, 15], ..StationConfig::default() };
            let ends = [outside, Station::new(&other)];
            Wire { ends, under_way: Vec::new(), now: 0, loss: 0, passed: 0 }
        }

        fn run_until(&mut self, end: Ns) {
            while self.now < end {
                let timers = self.ends.iter().filter_map(|station| station.next_timer());
                let arrivals = self.under_way.iter().map(|(at, ..)| *at);
                let Some(next) = timers.chain(arrivals).min() else { return };
                self.now = self.now.max(next);
                let mut sent = [Vec::new(), Vec::new()];
                let (due, later) =
                    std::mem::take(&mut self.under_way).into_iter().partition(|(at, ..)| *at <= self.now);
                self.under_way = later;
                for (_, to, frame) in due {
                    self.ends[to].frame(self.now, &Frame::from(frame), &mut sent[to]);
                }
                for (end, sent) in self.ends.iter_mut().zip(&mut sent) {
                    if end.next_timer().is_some_and(|at| at <= self.now) {
                        end.timer(self.now, sent);
                    }
                }
                for (from, frames) in sent.into_iter().enumerate() {
                    for frame in frames {
                        self.passed += 1;
                        if self.loss == 0 || !self.passed.is_multiple_of(self.loss) {
                            self.under_way.push((self.now + 10_000, 1 - from, frame));
                        }
                    }
                }
                assert!(self.passed < 1_000_000, "they never come to rest");
            }
        }
    }

    fn fetch(port: u16, path: &str, expect: Expect) -> Client {
        Client { at: 1_000_000, to: [10, 0, 2, 15], task: Task::Fetch { port, path: path.into(), expect } }
    }

    #[test]
    fn a_file_is_fetched_whole_and_checked() {
        let good = fetch(8000, "/file2", Expect::Sha256(content::file_sha256(2)));
        let bad = fetch(8000, "/file1", Expect::Sha256(content::file_sha256(2)));
        let mut wire = Wire::new(vec![good, bad]);
        wire.run_until(60_000_000_000);
        let told = wire.ends[0].summary();
        assert!(told.contains("fetched=2 right=1 wrong=1") && told.contains("bytes=3145728"), "{told}");
        let told = wire.ends[1].summary();
        assert!(told.contains("served=2 served-bytes=3145728"), "{told}");
    }

    #[test]
    fn loss_is_made_good() {
        let mut wire = Wire::new(vec![fetch(8000, "/file1", Expect::Sha256(content::file_sha256(1)))]);
        wire.loss = 101;
        wire.run_until(600_000_000_000);
        assert!(wire.ends[0].summary().contains("right=1 wrong=0"), "{}", wire.ends[0].summary());
    }

    #[test]
    fn lines_come_back_from_an_echo_server() {
        let task = Task::Echo { port: 7, rounds: 5 };
        let mut wire = Wire::new(vec![Client { at: 0, to: [10, 0, 2, 15], task }]);
        wire.run_until(60_000_000_000);
        assert!(wire.ends[0].summary().contains("echoed=5"), "{}", wire.ends[0].summary());
    }

    #[test]
    fn what_is_sent_is_swallowed_and_hashed() {
        let task = Task::Send { port: 8001, mib: 1 };
        let mut wire = Wire::new(vec![Client { at: 0, to: [10, 0, 2, 15], task }]);
        wire.run_until(60_000_000_000);
        let told = wire.ends[1].summary();
        let digest = content::file_sha256(1);
        assert!(told.contains("sunk=1 sunk-bytes=1048576") && told.contains(&digest), "{told}");
    }

    #[test]
    fn a_missing_server_is_asked_again_until_it_is_there() {
        // Nobody listens on 9 for ever: the client must go on asking and not hold up the clock.
        let mut wire = Wire::new(vec![Client { at: 0, to: [10, 0, 2, 15], task: Task::Touch { port: 9 } }]);
        wire.run_until(20_000_000_000);
        let told = wire.ends[0].summary();
        assert!(told.contains("touched=0") && told.contains("tries="), "{told}");
        assert!(wire.now >= 20_000_000_000);
    }

    #[test]
    fn the_same_run_twice_is_the_same() {
        let run = || {
            let mut wire = Wire::new(vec![fetch(8000, "/file1", Expect::Anything)]);
            wire.loss = 23;
            wire.run_until(100_000_000_000);
            (wire.passed, wire.now, wire.ends.map(|end| end.summary()))
        };
        assert_eq!(run(), run());
    }
}
