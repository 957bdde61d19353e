//! The station that arbitrates: the lock server of `ft` behind UDP, as one of the outside world's computers. It can answer late, or do
//! what it is asked and never say so.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use ft::arbiter::lock::Server;
use ft::arbiter::lock::wire::{Operation, Reply, Request, Verdict};
use ft::arbiter::record::Record;
use smoltcp::iface::{Config as InterfaceConfig, Interface, SocketHandle, SocketSet};
use smoltcp::socket::udp::{PacketBuffer, PacketMetadata, Socket, UdpMetadata};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, Ipv4Address};

use super::device::Queues;
use super::{MAX_ROUNDS, instant, nanoseconds};
use crate::switch::time::Ns;
use crate::switch::wire::Frame;
use crate::switch::world::World;
use crate::ui;

/// The station's Ethernet address.
const MAC: [u8; 6] = [0x52, 0x54, 0, 0x6c, 0x73, 0xfb];
/// Datagrams that may wait in each direction.
const WAITING: usize = 16;
/// Bytes of those.
const BUFFER: usize = 4096;
/// Virtual machines that the server knows.
pub const MACHINES: usize = 16;

/// What is wrong with an arbiter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockFaults {
    /// It takes so long for an answer, ns.
    pub delay: Ns,
    /// So many of its first answers are lost, though it has done what it was asked.
    pub unsaid: u32,
    /// It is not there at all.
    pub dead: bool,
    /// Say on standard error what it is asked.
    pub tells: bool,
    /// What it knows of a virtual machine from before.
    pub knows: Option<Record>,
}

/// Where the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockConfig {
    /// The station's address.
    pub ip: [u8; 4],
    /// Bits of it that name the network.
    pub prefix: u8,
    /// Its UDP port.
    pub port: u16,
    /// What is wrong with it.
    pub faults: LockFaults,
}

/// A question that the server has answered.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Asked {
    /// When it came, ns.
    pub at: Ns,
    /// Which host: a or b.
    pub side: String,
    /// `arm`, `contend` or `read-back`.
    pub what: &'static str,
    /// The generation.
    pub generation: u64,
    /// The answer.
    pub verdict: &'static str,
    /// The answer has left; false when it was lost.
    pub said: bool,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unsaid = if self.said { "" } else { " (and the answer is lost)" };
        let Asked { side, what, generation, verdict, .. } = self;
        write!(f, "{:.6} s: host {side} asks: {what} {generation}: {verdict}{unsaid}", self.at as f64 / 1e9)
    }
}

/// One question and its answer, as far as they can be read.
pub fn asked(at: Ns, question: &[u8], answer: &[u8], said: bool) -> Option<Asked> {
    let (request, reply) = (Request::parse(question)?, Reply::parse(answer)?);
    let what = match request.operation {
        Operation::Arm { .. } => "arm",
        Operation::Contend { .. } => "contend",
        Operation::ReadBack => "read-back",
    };
    let verdict = match reply.verdict {
        Verdict::Armed => "armed",
        Verdict::Won => "won",
        Verdict::Lost => "lost",
        Verdict::Free => "free",
        Verdict::Refused => "refused",
    };
    let (side, generation) = (request.side.to_string(), request.generation);
    Some(Asked { at, side, what, generation, verdict, said })
}

/// What the server was asked, while it runs and after.
#[derive(Clone, Default)]
pub struct AskLog(Arc<Mutex<Vec<Asked>>>);

impl AskLog {
    /// As it is now.
    pub fn get(&self) -> Vec<Asked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// When the server first gave this verdict, and said so.
    pub fn first(&self, verdict: &str) -> Option<Ns> {
        let asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().find(|asked| asked.verdict == verdict).map(|asked| asked.at)
    }

    /// Adds one.
    pub fn push(&self, asked: Asked) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
    }
}

/// The station.
pub struct LockStation {
    config: LockConfig,
    queues: Queues,
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    server: Server,
    /// Answers that are under way: when they leave, to whom.
    late: VecDeque<(Ns, UdpMetadata, Vec<u8>)>,
    unsaid: u32,
    asks: AskLog,
    next: Option<Ns>,
}

impl LockStation {
    /// The station as it is at time 0; what it is asked goes to `asks`.
    pub fn new(config: &LockConfig, asks: AskLog) -> Self {
        let mut queues = Queues::default();
        let settings = InterfaceConfig::new(HardwareAddress::Ethernet(EthernetAddress(MAC)));
        let mut interface = Interface::new(settings, &mut queues, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            // There is room for one.
            let address = IpAddress::Ipv4(Ipv4Address::from(config.ip));
            let _ = addresses.push(IpCidr::new(address, config.prefix.min(32)));
        });
        let buffer = || PacketBuffer::new(vec![PacketMetadata::EMPTY; WAITING], vec![0; BUFFER]);
        let mut socket = Socket::new(buffer(), buffer());
        // A new socket and a port that is not 0: it cannot fail.
        let _ = socket.bind(config.port);
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(socket);
        let mut server = Server::new(MACHINES);
        if let Some(record) = config.faults.knows {
            // There is room for the first.
            let _ = server.know(record);
        }
        LockStation {
            config: config.clone(),
            queues,
            interface,
            sockets,
            handle,
            server,
            late: VecDeque::new(),
            unsaid: config.faults.unsaid,
            asks,
            next: None,
        }
    }

    fn work(&mut self, now: Ns, send: &mut Vec<Vec<u8>>) {
        let instant = instant(now);
        for _ in 0..MAX_ROUNDS {
            self.interface.poll(instant, &mut self.queues, &mut self.sockets);
            if !self.serve(now) {
                break;
            }
        }
        self.interface.poll(instant, &mut self.queues, &mut self.sockets);
        send.append(&mut self.queues.outgoing);
        let stack = self.interface.poll_at(instant, &self.sockets).map(nanoseconds);
        let late = self.late.front().map(|(at, ..)| *at);
        self.next = stack.into_iter().chain(late).min().map(|at| at.max(now + 1_000));
    }

    /// Takes what has come and sends what is due. True: something was done.
    fn serve(&mut self, now: Ns) -> bool {
        let mut worked = false;
        while let Some((question, from)) = self.receive() {
            worked = true;
            self.answer(now, &question, from);
        }
        while self.late.front().is_some_and(|(at, ..)| *at <= now) {
            let Some((_, to, answer)) = self.late.pop_front() else { break };
            // A full queue loses it, as a network may.
            let _ = self.sockets.get_mut::<Socket<'_>>(self.handle).send_slice(&answer, to);
            worked = true;
        }
        worked
    }

    fn receive(&mut self) -> Option<(Vec<u8>, UdpMetadata)> {
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
        socket.recv().ok().map(|(bytes, from)| (bytes.to_vec(), from))
    }

    fn answer(&mut self, now: Ns, question: &[u8], from: UdpMetadata) {
        if self.config.faults.dead {
            return;
        }
        let Some(answer) = self.server.datagram(question) else { return };
        let said = self.unsaid == 0;
        self.unsaid = self.unsaid.saturating_sub(1);
        if let Some(asked) = asked(now, question, &answer, said) {
            if self.config.faults.tells {
                ui::say(format!("arbiter: {asked}"));
            }
            self.asks.push(asked);
        }
        if said {
            self.late.push_back((now + self.config.faults.delay, from, answer.to_vec()));
        }
    }
}

impl World for LockStation {
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
        let counters = self.server.counters();
        format!(
            "requests={} garbage={} armed={} won={} lost={} refused={}",
            counters.requests,
            counters.garbage,
            counters.armed,
            counters.won,
            counters.lost,
            counters.refused
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ft::arbiter::record::VmId;
    use ft::keys::Incarnation;
    use ft::side::Side;

    /// A host that asks by UDP.
    struct Host {
        queues: Queues,
        interface: Interface,
        sockets: SocketSet<'static>,
        handle: SocketHandle,
    }

    impl Host {
        fn new() -> Self {
            let mut queues = Queues::default();
            let settings =
                InterfaceConfig::new(HardwareAddress::Ethernet(EthernetAddress([2, 0, 0, 0, 0, 1])));
            let mut interface = Interface::new(settings, &mut queues, Instant::ZERO);
            interface.update_ip_addrs(|addresses| {
                let _ = addresses.push(IpCidr::new(IpAddress::v4(10, 77, 0, 1), 24));
            });
            let buffer = || PacketBuffer::new(vec![PacketMetadata::EMPTY; WAITING], vec![0; BUFFER]);
            let mut socket = Socket::new(buffer(), buffer());
            socket.bind(5000).unwrap();
            let mut sockets = SocketSet::new(Vec::new());
            let handle = sockets.add(socket);
            Host { queues, interface, sockets, handle }
        }

        /// Sends a datagram and waits 100 ms for the answer: it, and how long it took.
        fn ask(&mut self, server: &mut LockStation, start: Ns, datagram: &[u8]) -> Option<(Vec<u8>, Ns)> {
            let to = (IpAddress::v4(10, 77, 0, 9), 5409);
            self.sockets.get_mut::<Socket<'_>>(self.handle).send_slice(datagram, to).unwrap();
            for step in 0..1_000 {
                let now = start + step * 100_000;
                self.interface.poll(instant(now), &mut self.queues, &mut self.sockets);
                let mut back = Vec::new();
                for frame in std::mem::take(&mut self.queues.outgoing) {
                    server.frame(now, &Frame::from(frame), &mut back);
                }
                if server.next_timer().is_some_and(|at| at <= now) {
                    server.timer(now, &mut back);
                }
                self.queues.incoming.extend(back.into_iter().map(Frame::from));
                self.interface.poll(instant(now), &mut self.queues, &mut self.sockets);
                if let Ok((answer, _)) = self.sockets.get_mut::<Socket<'_>>(self.handle).recv() {
                    return Some((answer.to_vec(), now - start));
                }
            }
            None
        }
    }

    fn station(faults: LockFaults) -> (LockStation, AskLog) {
        let log = AskLog::default();
        let config = LockConfig { ip: [10, 77, 0, 9], prefix: 24, port: 5409, faults };
        (LockStation::new(&config, log.clone()), log)
    }

    fn request(side: Side, operation: Operation) -> Vec<u8> {
        let nonce = Incarnation(side as u64 + 10);
        Request { id: 7, vm: VmId::of("web"), generation: 1, side, nonce, operation }.emit().to_vec()
    }

    fn arm() -> Vec<u8> {
        request(Side::A, Operation::Arm { peer: Incarnation(Side::B as u64 + 10) })
    }

    #[test]
    fn one_wins_and_the_other_hears_it() {
        let (mut server, log) = station(LockFaults::default());
        let mut host = Host::new();
        let contend = |side| request(side, Operation::Contend { position: 5 });
        let asks = [arm(), contend(Side::B), contend(Side::A), request(Side::B, Operation::ReadBack)];
        for (n, ask) in asks.iter().enumerate() {
            let (answer, _) = host.ask(&mut server, n as Ns * 1_000_000_000, ask).unwrap();
            assert_eq!(Reply::parse(&answer).unwrap().id, 7);
        }
        let verdicts: Vec<_> = log.get().iter().map(|asked| asked.verdict).collect();
        assert_eq!(verdicts, ["armed", "won", "lost", "won"]);
        assert!(log.first("won").unwrap() >= 1_000_000_000 && log.first("free").is_none());
        assert_eq!(log.get()[1].to_string(), "1.000000 s: host b asks: contend 1: won");
        assert!(host.ask(&mut server, 9_000_000_000, b"garbage").is_none());
        assert_eq!(server.summary(), "requests=4 garbage=1 armed=1 won=1 lost=1 refused=0");
    }

    #[test]
    fn an_answer_may_be_late_or_lost_or_never_given() {
        let (mut server, _) = station(LockFaults { delay: 30_000_000, ..LockFaults::default() });
        let (_, took) = Host::new().ask(&mut server, 0, &arm()).unwrap();
        assert!((30_000_000..31_000_000).contains(&took), "{took}");

        let (mut server, log) = station(LockFaults { unsaid: 1, ..LockFaults::default() });
        let mut host = Host::new();
        assert!(host.ask(&mut server, 0, &arm()).is_none());
        assert!(host.ask(&mut server, 1_000_000_000, &arm()).is_some());
        let said: Vec<_> = log.get().iter().map(|asked| (asked.verdict, asked.said)).collect();
        assert_eq!(said, [("armed", false), ("armed", true)], "it was done the first time");

        let (mut server, log) = station(LockFaults { dead: true, ..LockFaults::default() });
        assert!(Host::new().ask(&mut server, 0, &arm()).is_none() && log.get().is_empty());
    }
}
