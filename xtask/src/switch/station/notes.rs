//! The station that is told how far the programs on another machine are: who fetches `http://10.0.2.5/NAME` has it note NAME and the
//! moment. So what befalls a run can wait for a program, and is as repeatable as the run.

use std::sync::{Arc, Mutex, PoisonError};

use smoltcp::iface::{Config as InterfaceConfig, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::Socket;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, Ipv4Address};

use super::device::Queues;
use super::server::socket;
use super::{MAX_ROUNDS, instant, nanoseconds};
use crate::switch::time::Ns;
use crate::switch::wire::Frame;
use crate::switch::world::World;

/// Its Ethernet address.
const MAC: [u8; 6] = [0x52, 0x54, 0, 0x6c, 0x73, 0xf9];
/// Its address, in a network of 24 bits.
pub const ADDRESS: [u8; 4] = [10, 0, 2, 5];
/// Where it is told.
const PORT: u16 = 80;
/// Connections that it takes at once.
const CONNECTIONS: usize = 4;
/// The longest head of a request, bytes.
const MAX_HEAD: usize = 1024;
/// What it says.
const ANSWER: &[u8] = b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// What it was told, while it runs and after.
#[derive(Clone, Debug, Default)]
pub struct NoteLog(Arc<Mutex<Vec<(Ns, String)>>>);

impl NoteLog {
    /// As it is now.
    pub fn get(&self) -> Vec<(Ns, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// When it was first told this.
    pub fn first(&self, name: &str) -> Option<Ns> {
        let notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        notes.iter().find(|(_, noted)| noted == name).map(|(at, _)| *at)
    }

    /// Adds one.
    pub fn push(&self, at: Ns, name: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((at, name));
    }
}

/// The station.
pub struct Notes {
    queues: Queues,
    interface: Interface,
    sockets: SocketSet<'static>,
    /// Each with the head of a request as far as it has come.
    connections: Vec<(SocketHandle, Vec<u8>)>,
    log: NoteLog,
    next: Option<Ns>,
}

impl Default for Notes {
    /// The station as it is at time 0.
    fn default() -> Self {
        let mut queues = Queues::default();
        let mut settings = InterfaceConfig::new(HardwareAddress::Ethernet(EthernetAddress(MAC)));
        settings.random_seed = 5;
        let mut interface = Interface::new(settings, &mut queues, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            // There is room for one.
            let _ = addresses.push(IpCidr::new(IpAddress::Ipv4(Ipv4Address::from(ADDRESS)), 24));
        });
        let mut sockets = SocketSet::new(Vec::new());
        let connections = (0..CONNECTIONS).map(|_| (sockets.add(socket()), Vec::new())).collect();
        let mut notes =
            Notes { queues, interface, sockets, connections, log: NoteLog::default(), next: None };
        notes.serve(0);
        notes
    }
}

impl Notes {
    /// What it is told; lasts longer than the station.
    pub fn log(&self) -> NoteLog {
        self.log.clone()
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
        let next = self.interface.poll_at(instant, &self.sockets).map(nanoseconds);
        // A stack that wants to be asked at once has just been asked: time must pass.
        self.next = next.map(|at| at.max(now + 1_000));
    }

    /// Goes on with every connection. True: something was done, the stack may have more to do.
    fn serve(&mut self, now: Ns) -> bool {
        let mut worked = false;
        for (handle, head) in &mut self.connections {
            let socket = self.sockets.get_mut::<Socket>(*handle);
            if !socket.is_open() {
                head.clear();
                // A socket that is not open can listen.
                worked |= socket.listen(PORT).is_ok();
                continue;
            }
            if socket.can_recv() {
                let _ = socket.recv(|bytes| (bytes.len(), head.extend_from_slice(bytes)));
                worked = true;
                if let Some(name) = noted(head) {
                    self.log.push(now, name);
                    head.clear();
                    // The buffer is empty and larger.
                    let _ = socket.send_slice(ANSWER);
                    socket.close();
                }
            } else if !socket.may_recv() && socket.may_send() {
                socket.close();
                worked = true;
            }
        }
        worked
    }
}

/// The name in a request's head, once it is whole; a head without an end is one.
fn noted(head: &[u8]) -> Option<String> {
    let whole = head.windows(4).any(|end| end == b"\r\n\r\n") || head.len() > MAX_HEAD;
    let text = whole.then(|| String::from_utf8_lossy(head))?;
    Some(text.split_whitespace().nth(1).unwrap_or_default().trim_start_matches('/').to_owned())
}

impl World for Notes {
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
        let notes = self.log.get();
        let words: Vec<String> =
            notes.iter().map(|(at, name)| format!("{name}={:.6}", *at as f64 / 1e9)).collect();
        words.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Client, Expect, Station, StationConfig, Task};
    use super::*;

    #[test]
    fn what_is_fetched_is_noted_with_its_moment() {
        let task = |path: &str| Task::Fetch { port: PORT, path: path.into(), expect: Expect::Anything };
        let clients = ["/load", "/end"].map(|path| Client { at: 3_000_000, to: ADDRESS, task: task(path) });
        let mut ends: [Box<dyn World>; 2] = [
            Box::new(Station::new(&StationConfig { clients: clients.into(), ..StationConfig::default() })),
            Box::new(Notes::default()),
        ];
        let notes = Notes::default();
        let log = notes.log();
        ends[1] = Box::new(notes);
        let (mut now, mut under_way): (Ns, Vec<(Ns, usize, Vec<u8>)>) = (0, Vec::new());
        while now < 10_000_000_000 && log.get().len() < 2 {
            let timers = ends.iter().filter_map(|end| end.next_timer());
            let Some(next) = timers.chain(under_way.iter().map(|(at, ..)| *at)).min() else { break };
            now = now.max(next);
            for (index, end) in ends.iter_mut().enumerate() {
                let mut sent = Vec::new();
                let due: Vec<Vec<u8>> = under_way
                    .extract_if(.., |(at, to, _)| *to == index && *at <= now)
                    .map(|(.., f)| f)
                    .collect();
                due.into_iter().for_each(|frame| end.frame(now, &Frame::from(frame), &mut sent));
                if end.next_timer().is_some_and(|at| at <= now) {
                    end.timer(now, &mut sent);
                }
                under_way.extend(sent.into_iter().map(|frame| (now + 10_000, 1 - index, frame)));
            }
        }
        let names: Vec<String> = log.get().into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["load", "end"]);
        assert!(log.first("load").unwrap() > 3_000_000 && log.first("end") > log.first("load"));
        assert_eq!(log.first("nothing"), None);
    }

    #[test]
    fn a_head_is_read_when_it_is_whole() {
        assert_eq!(noted(b"GET /load HTTP/1.1\r\nHost: x\r\n"), None);
        assert_eq!(noted(b"GET /load HTTP/1.1\r\nHost: x\r\n\r\n"), Some("load".into()));
        assert_eq!(noted(&[b'x'; 2000]), Some(String::new()));
    }
}
