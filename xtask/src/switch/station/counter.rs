//! The station that checks a guest's server from outside: a client that counts in the guest, and knows what every answer must be.
//!
//! It speaks the inline commands of the Redis protocol over one TCP connection: INCR of one counter, and SET of ever new keys, one
//! request after another. Nobody else asks the server, so each answer is known beforehand; at the end it reads everything back. A
//! connection that breaks is an error that a user would have seen: it is counted, and the client connects anew and looks which
//! of the two possible states the server is in.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use smoltcp::iface::{Config as InterfaceConfig, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, Ipv4Address};

use super::device::Queues;
use super::server::socket;
use super::{MAX_ROUNDS, instant, nanoseconds};
use crate::switch::time::Ns;
use crate::switch::wire::Frame;
use crate::switch::world::World;

/// How long after a failed connection the next is tried.
const RETRY: Ns = 200_000_000;
/// A connection on which nothing is acknowledged for so long is given up.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The first port of the client.
const FIRST_PORT: u16 = 40_000;
/// Of so many requests one is a SET, the others are INCR.
const SET_EVERY: u32 = 4;
/// The longest answer, bytes.
const LONGEST: usize = 256;
/// What is said of wrong answers: so many of them.
const TOLD: usize = 8;

/// What the client does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterConfig {
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Its address, in a network of 24 bits.
    pub ip: [u8; 4],
    /// The server's address and port.
    pub server: ([u8; 4], u16),
    /// Seed of its sequence numbers.
    pub seed: u64,
    /// Requests before it reads everything back.
    pub requests: u32,
    /// Emulated time from an answer to the next request, ns.
    pub pause: Ns,
    /// The port that it connects to at the end, which switches the guest off.
    pub quit: Option<u16>,
}

impl Default for CounterConfig {
    /// A client at 10.0.2.3 of the server at 10.0.2.15:6379.
    fn default() -> Self {
        CounterConfig {
            mac: [0x52, 0x54, 0, 0x6c, 0x73, 0xfc],
            ip: [10, 0, 2, 3],
            server: ([10, 0, 2, 15], 6379),
            seed: 3,
            requests: 200,
            pause: 1_000_000,
            quit: Some(9),
        }
    }
}

/// What the client has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counted {
    /// When each request was answered, ns, in order.
    #[serde(skip)]
    pub answered: Vec<Ns>,
    /// Of each answered request, ns from the request to its answer.
    #[serde(skip)]
    pub delays: Vec<Ns>,
    /// INCRs that were answered.
    pub increments: u64,
    /// SETs that were answered.
    pub sets: u64,
    /// Of those, read back and found right.
    pub read_back: u64,
    /// Answers that were not what they had to be.
    pub wrong: u64,
    /// The first of them, in words.
    pub what: Vec<String>,
    /// Connections that broke.
    pub broken: u64,
    /// Tries to connect.
    pub tries: u64,
    /// Everything has been asked and read back.
    pub done: Option<Ns>,
}

impl Counted {
    /// The longest time between two answers, with the moment when it began. That of the way to the first answer is none.
    pub fn gap(&self) -> (Ns, Ns) {
        let gaps = self.answered.windows(2).map(|pair| (pair[1] - pair[0], pair[0]));
        gaps.max_by_key(|(gap, at)| (*gap, Ns::MAX - at)).unwrap_or_default()
    }

    /// The delay that so many per mille of the requests did not exceed.
    pub fn delay(&self, per_mille: usize) -> Ns {
        let mut sorted = self.delays.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        sorted.get((sorted.len() * per_mille / 1000).min(last)).copied().unwrap_or(0)
    }

    /// Whether a user would have noticed nothing but delay, and everything was asked.
    pub fn is_perfect(&self) -> bool {
        self.done.is_some() && self.wrong == 0 && self.broken == 0 && self.read_back == self.sets
    }

    /// The figures, as words for programs and people.
    pub fn words(&self) -> String {
        let (gap, at) = self.gap();
        format!(
            "answered={} increments={} sets={} read-back={} wrong={} broken={} tries={} done={} gap-ns={gap} gap-at-ns={at} \
             delay-p50-ns={} delay-p99-ns={} delay-max-ns={}",
            self.answered.len(),
            self.increments,
            self.sets,
            self.read_back,
            self.wrong,
            self.broken,
            self.tries,
            self.done.is_some(),
            self.delay(500),
            self.delay(990),
            self.delay(1000)
        )
    }
}

/// What the client has seen, while it runs and after.
#[derive(Clone, Debug, Default)]
pub struct Tally(Arc<Mutex<Counted>>);

impl Tally {
    /// As it is now.
    pub fn get(&self) -> Counted {
        self.look(Counted::clone)
    }

    /// Looks at it without a copy.
    pub fn look<T>(&self, see: impl FnOnce(&Counted) -> T) -> T {
        see(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set<T>(&self, change: impl FnOnce(&mut Counted) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A request and what its answer must be.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Request {
    line: String,
    wanted: Wanted,
}

/// What an answer must be.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    /// `:N`, the counter after one more INCR.
    Next(u64),
    /// `+OK`.
    Stored,
    /// The counter is one of these two: the INCR before the break came or not.
    Either(u64),
    /// This value, read back.
    Value(String),
}

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No connection; not before this moment.
    Apart(Ns),
    /// The connection is being made.
    Calling,
    /// The next request is due at this moment.
    Due(Ns),
    /// A request is under way since this moment.
    Asked(Ns),
    /// Everything is asked; the guest is to be switched off.
    Quitting,
    /// Nothing is left.
    Over,
}

/// The client's station.
pub struct Counter {
    config: CounterConfig,
    queues: Queues,
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    stage: Stage,
    port: u16,
    /// Requests that were answered, of those that write.
    written: u32,
    /// What the counter is, as far as answers tell.
    counter: u64,
    /// What is to be read back.
    reading: VecDeque<Request>,
    /// All that was written has been queued for reading.
    read: bool,
    under_way: Option<Request>,
    /// The connection before this one broke.
    unsure: bool,
    heard: Vec<u8>,
    tally: Tally,
    next: Option<Ns>,
}

impl Counter {
    /// The client as it is at time 0.
    pub fn new(config: &CounterConfig) -> Self {
        let mut queues = Queues::default();
        let mut settings = InterfaceConfig::new(HardwareAddress::Ethernet(EthernetAddress(config.mac)));
        settings.random_seed = config.seed;
        let mut interface = Interface::new(settings, &mut queues, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            // There is room for one.
            let _ = addresses.push(IpCidr::new(IpAddress::Ipv4(Ipv4Address::from(config.ip)), 24));
        });
        let mut sockets = SocketSet::new(Vec::new());
        let mut socket = socket();
        socket.set_timeout(Some(TIMEOUT));
        let handle = sockets.add(socket);
        Counter {
            config: config.clone(),
            queues,
            interface,
            sockets,
            handle,
            stage: Stage::Apart(0),
            port: FIRST_PORT,
            written: 0,
            counter: 0,
            reading: VecDeque::new(),
            read: false,
            under_way: None,
            unsure: false,
            heard: Vec::new(),
            tally: Tally::default(),
            next: Some(0),
        }
    }

    /// What it has seen; lasts longer than the station.
    pub fn tally(&self) -> Tally {
        self.tally.clone()
    }

    /// Lets stack and client work until nothing changes any more.
    fn work(&mut self, now: Ns, send: &mut Vec<Vec<u8>>) {
        let instant = instant(now);
        for _ in 0..MAX_ROUNDS {
            self.interface.poll(instant, &mut self.queues, &mut self.sockets);
            if !self.step(now) {
                break;
            }
        }
        self.interface.poll(instant, &mut self.queues, &mut self.sockets);
        send.append(&mut self.queues.outgoing);
        let own = match self.stage {
            Stage::Apart(at) | Stage::Due(at) => Some(at),
            _ => None,
        };
        let stack = self.interface.poll_at(instant, &self.sockets).map(nanoseconds);
        // A stack that wants to be asked at once has just been asked: time must pass.
        self.next = stack.into_iter().chain(own).min().map(|at| at.max(now + 1_000));
    }

    /// Goes on. True: something was done, the stack may have more to do.
    fn step(&mut self, now: Ns) -> bool {
        match self.stage {
            Stage::Apart(at) if at > now => false,
            Stage::Apart(_) => self.call(now),
            Stage::Calling => self.connected(now),
            Stage::Due(_) | Stage::Asked(_) if self.is_broken() => self.lost(now),
            Stage::Due(at) if at > now => false,
            Stage::Due(_) => self.ask(now),
            Stage::Asked(since) => self.hear(now, since),
            Stage::Quitting => self.quit(),
            Stage::Over => false,
        }
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut::<Socket>(self.handle)
    }

    fn is_broken(&self) -> bool {
        self.sockets.get::<Socket>(self.handle).state() != State::Established
    }

    fn call(&mut self, now: Ns) -> bool {
        let quits = self.tally.look(|counted| counted.done.is_some());
        let (ip, port) = self.config.server;
        let port = if quits { self.config.quit.unwrap_or(port) } else { port };
        self.port = self.port.checked_add(1).unwrap_or(FIRST_PORT);
        self.tally.set(|counted| counted.tries += 1);
        let from = self.port;
        let socket = self.sockets.get_mut::<Socket>(self.handle);
        socket.abort();
        let to = (IpAddress::Ipv4(Ipv4Address::from(ip)), port);
        self.stage = match socket.connect(self.interface.context(), to, from) {
            Ok(()) if quits => Stage::Quitting,
            Ok(()) => Stage::Calling,
            Err(_) => Stage::Apart(now + RETRY),
        };
        true
    }

    fn connected(&mut self, now: Ns) -> bool {
        match self.socket().state() {
            State::SynSent | State::SynReceived => false,
            State::Established => {
                self.heard.clear();
                if std::mem::take(&mut self.unsure) {
                    let line = "GET lockstep\r\n".into();
                    self.reading.push_front(Request { line, wanted: Wanted::Either(self.counter) });
                }
                self.stage = Stage::Due(now);
                true
            }
            // Nobody listens yet: that is no broken connection.
            _ => {
                self.stage = Stage::Apart(now + RETRY);
                true
            }
        }
    }

    /// The connection broke.
    fn lost(&mut self, now: Ns) -> bool {
        self.tally.set(|counted| counted.broken += 1);
        match self.under_way.take() {
            // It may have been done: the counter tells; a SET and a reading are simply repeated.
            Some(Request { wanted: Wanted::Next(_) | Wanted::Either(_), .. }) => self.unsure = true,
            Some(request @ Request { wanted: Wanted::Value(_), .. }) => self.reading.push_front(request),
            _ => {}
        }
        self.socket().abort();
        self.stage = Stage::Apart(now + RETRY);
        true
    }

    /// What is to be asked next; `None` when everything has been.
    fn request(&mut self) -> Option<Request> {
        if let Some(request) = self.reading.pop_front() {
            return Some(request);
        }
        if self.written < self.config.requests {
            let number = self.written;
            return Some(if number % SET_EVERY == SET_EVERY - 1 {
                Request { line: format!("SET {} {}\r\n", key(number), value(number)), wanted: Wanted::Stored }
            } else {
                Request { line: "INCR lockstep\r\n".into(), wanted: Wanted::Next(self.counter + 1) }
            });
        }
        if std::mem::replace(&mut self.read, true) {
            return None;
        }
        let keys = (0..self.written).filter(|number| number % SET_EVERY == SET_EVERY - 1);
        let pairs = keys.map(|number| (key(number), value(number)));
        let pairs = pairs.chain([("lockstep".to_owned(), self.counter.to_string())]);
        self.reading = pairs
            .map(|(key, value)| Request { line: format!("GET {key}\r\n"), wanted: Wanted::Value(value) })
            .collect();
        self.reading.pop_front()
    }

    fn ask(&mut self, now: Ns) -> bool {
        let Some(request) = self.request() else {
            self.tally.set(|counted| counted.done = Some(now));
            self.socket().close();
            self.stage = if self.config.quit.is_some() { Stage::Apart(now + RETRY) } else { Stage::Over };
            return true;
        };
        // The buffer is empty and larger than any request.
        let _ = self.socket().send_slice(request.line.as_bytes());
        self.under_way = Some(request);
        self.stage = Stage::Asked(now);
        true
    }

    fn hear(&mut self, now: Ns, since: Ns) -> bool {
        let mut new = Vec::new();
        let socket = self.socket();
        while socket.can_recv() {
            let _ = socket.recv(|bytes| (bytes.len(), new.extend_from_slice(bytes)));
        }
        if new.is_empty() {
            return false;
        }
        self.heard.extend_from_slice(&new);
        let Some(answer) = whole(&self.heard) else {
            if self.heard.len() > LONGEST {
                self.complain(format!("an answer without an end: {:?}", String::from_utf8_lossy(&new)));
                return self.lost(now);
            }
            return true;
        };
        self.heard.clear();
        self.stage = Stage::Due(now + self.config.pause);
        if let Some(request) = self.under_way.take() {
            self.tally.set(|counted| {
                counted.answered.push(now);
                counted.delays.push(now - since);
            });
            self.judge(&request, &answer);
        }
        true
    }

    /// Compares an answer with what it must be.
    fn judge(&mut self, request: &Request, answer: &str) {
        let said: Option<u64> = answer.trim_start_matches(':').parse().ok();
        let right = match &request.wanted {
            Wanted::Next(number) => {
                self.written += 1;
                self.counter = said.unwrap_or(*number);
                self.tally.set(|counted| counted.increments += 1);
                said == Some(*number)
            }
            Wanted::Stored => {
                self.written += 1;
                self.tally.set(|counted| counted.sets += 1);
                answer == "+OK"
            }
            // An INCR whose answer was lost counts as done if it was.
            Wanted::Either(number) => {
                let done = said == Some(number + 1);
                self.written += u32::from(done);
                self.counter = number + u64::from(done);
                let none = *number == 0 && answer.is_empty();
                done || said == Some(*number) || none
            }
            Wanted::Value(value) => {
                let right = answer == value;
                let set = request.line != "GET lockstep\r\n";
                self.tally.set(|counted| counted.read_back += u64::from(right && set));
                right
            }
        };
        if !right {
            self.complain(format!(
                "{:?} was answered {answer:?}, not {:?}",
                request.line.trim(),
                request.wanted
            ));
        }
    }

    fn complain(&mut self, what: String) {
        self.tally.set(|counted| {
            counted.wrong += 1;
            if counted.what.len() < TOLD {
                counted.what.push(what);
            }
        });
    }

    /// The connection that switches the guest off: that it came to be is enough.
    fn quit(&mut self) -> bool {
        if matches!(self.socket().state(), State::SynSent | State::SynReceived) {
            return false;
        }
        self.socket().close();
        self.stage = Stage::Over;
        true
    }
}

/// The key of a request that sets one.
fn key(number: u32) -> String {
    format!("k{number}")
}

/// Its value: a function of the number that no other has.
fn value(number: u32) -> String {
    format!("v{:08x}", number.wrapping_mul(0x9e37_79b1))
}

/// The answer, once it is whole: a line without its first mark where it is text, or the contents of a string (RESP2).
fn whole(heard: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(heard).ok()?;
    let (line, rest) = text.split_once("\r\n")?;
    let Some(length) = line.strip_prefix('$') else { return Some(line.into()) };
    match length.parse::<usize>() {
        Ok(length) => {
            (rest.len() >= length.saturating_add(2)).then(|| rest.get(..length).unwrap_or_default().into())
        }
        // $-1: there is nothing of that name.
        Err(_) => Some(String::new()),
    }
}

impl World for Counter {
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
        self.tally.look(Counted::words)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// What the server does wrong.
    #[derive(Clone, Copy, PartialEq)]
    enum Vice {
        None,
        /// It forgets this INCR, though it answers.
        Forgets(u32),
        /// It does this request and breaks off without an answer.
        BreaksAfter(u32),
        /// It breaks off and has not done this request.
        BreaksBefore(u32),
        /// It forgets a SET.
        Loses(u32),
        /// It is silent for 700 ms before the answer to this request.
        Sleeps(u32),
    }

    /// A server with its own stack.
    struct Store {
        queues: Queues,
        interface: Interface,
        sockets: SocketSet<'static>,
        handle: SocketHandle,
        vice: Vice,
        asked: u32,
        counter: u64,
        values: BTreeMap<String, String>,
        heard: Vec<u8>,
        awake: Ns,
    }

    impl Store {
        fn new(vice: Vice) -> Self {
            let mut queues = Queues::default();
            let settings =
                InterfaceConfig::new(HardwareAddress::Ethernet(EthernetAddress([2, 0, 0, 0, 0, 1])));
            let mut interface = Interface::new(settings, &mut queues, Instant::ZERO);
            interface.update_ip_addrs(|addresses| {
                let _ = addresses.push(IpCidr::new(IpAddress::v4(10, 0, 2, 15), 24));
            });
            let mut sockets = SocketSet::new(Vec::new());
            let handle = sockets.add(socket());
            let (values, heard) = (BTreeMap::new(), Vec::new());
            Store { queues, interface, sockets, handle, vice, asked: 0, counter: 0, values, heard, awake: 0 }
        }

        fn work(&mut self, now: Ns, send: &mut Vec<Vec<u8>>) {
            for _ in 0..8 {
                self.interface.poll(instant(now), &mut self.queues, &mut self.sockets);
                let socket = self.sockets.get_mut::<Socket>(self.handle);
                if socket.state() == State::CloseWait {
                    socket.close();
                }
                if !socket.is_open() {
                    self.heard.clear();
                    socket.listen(6379).unwrap();
                }
                while socket.can_recv() {
                    let heard = &mut self.heard;
                    let _ = socket.recv(|bytes| (bytes.len(), heard.extend_from_slice(bytes)));
                }
                if now < self.awake {
                    continue;
                }
                let Some(end) = self.heard.windows(2).position(|end| end == b"\r\n") else { continue };
                let line = String::from_utf8(self.heard.drain(..end + 2).take(end).collect()).unwrap();
                if self.vice == Vice::Sleeps(self.asked) {
                    (self.vice, self.awake) = (Vice::None, now + 700_000_000);
                    self.heard = [line.as_bytes(), b"\r\n"].concat();
                    continue;
                }
                self.asked += 1;
                let number = self.asked - 1;
                let answer = if self.vice == Vice::BreaksBefore(number) {
                    None
                } else {
                    Some(self.answer(&line, number))
                };
                let socket = self.sockets.get_mut::<Socket>(self.handle);
                match answer.filter(|_| self.vice != Vice::BreaksAfter(number)) {
                    Some(answer) => drop(socket.send_slice(answer.as_bytes())),
                    None => socket.abort(),
                }
            }
            self.interface.poll(instant(now), &mut self.queues, &mut self.sockets);
            send.append(&mut self.queues.outgoing);
        }

        fn answer(&mut self, line: &str, number: u32) -> String {
            let words: Vec<&str> = line.split(' ').collect();
            let string = |value: Option<&String>| match value {
                Some(value) => format!("${}\r\n{value}\r\n", value.len()),
                None => "$-1\r\n".into(),
            };
            match words[..] {
                ["INCR", "lockstep"] => {
                    self.counter += 1;
                    let answer = format!(":{}\r\n", self.counter);
                    self.counter -= u64::from(self.vice == Vice::Forgets(number));
                    answer
                }
                ["SET", key, value] => {
                    if self.vice != Vice::Loses(number) {
                        self.values.insert(key.into(), value.into());
                    }
                    "+OK\r\n".into()
                }
                ["GET", "lockstep"] => string((self.counter > 0).then(|| self.counter.to_string()).as_ref()),
                ["GET", key] => string(self.values.get(key)),
                _ => panic!("{line:?}"),
            }
        }
    }

    /// The client with a server of that vice, 10 us apart; every n-th frame is lost, 0 for none.
    fn count(vice: Vice, requests: u32, loss: usize) -> Counted {
        let config = CounterConfig { requests, quit: None, ..CounterConfig::default() };
        let (mut client, mut server) = (Counter::new(&config), Store::new(vice));
        let tally = client.tally();
        let (mut now, mut passed) = (0, 0usize);
        let mut under_way: Vec<(Ns, bool, Vec<u8>)> = Vec::new();
        while now < 300_000_000_000 && tally.look(|counted| counted.done.is_none()) {
            let (due, later) = under_way.into_iter().partition(|(at, ..)| *at <= now);
            under_way = later;
            let (mut up, mut down) = (Vec::new(), Vec::new());
            for (_, up_way, frame) in due {
                if up_way {
                    server.queues.incoming.push_back(Frame::from(frame));
                } else {
                    client.frame(now, &Frame::from(frame), &mut up);
                }
            }
            if client.next_timer().is_some_and(|at| at <= now) {
                client.timer(now, &mut up);
            }
            server.work(now, &mut down);
            let sent = up.into_iter().map(|f| (true, f)).chain(down.into_iter().map(|f| (false, f)));
            for (up_way, frame) in sent {
                passed += 1;
                if loss == 0 || !passed.is_multiple_of(loss) {
                    under_way.push((now + 10_000, up_way, frame));
                }
            }
            now += 10_000;
        }
        tally.get()
    }

    #[test]
    fn a_right_server_is_found_right() {
        let seen = count(Vice::None, 41, 0);
        assert!(seen.is_perfect(), "{seen:?}");
        assert_eq!((seen.increments, seen.sets, seen.read_back, seen.tries), (31, 10, 10, 1));
        assert_eq!(seen.answered.len(), 41 + 11, "and everything is read back");
        // There and back, and a pause of a millisecond.
        assert!((20_000..100_000).contains(&seen.delay(1000)), "{}", seen.delay(1000));
        assert!((1_020_000..1_200_000).contains(&seen.gap().0), "{:?}", seen.gap());
    }

    #[test]
    fn lost_frames_are_only_delay() {
        let seen = count(Vice::None, 60, 13);
        assert!(seen.is_perfect(), "{seen:?}");
        assert!(seen.gap().0 > 10_000_000, "{:?}", seen.gap());
    }

    #[test]
    fn what_is_answered_and_forgotten_is_found() {
        let seen = count(Vice::Forgets(5), 20, 0);
        assert!(seen.wrong == 1 && !seen.is_perfect() && seen.what[0].contains("INCR lockstep"), "{seen:?}");
        let seen = count(Vice::Loses(7), 20, 0);
        assert_eq!((seen.wrong, seen.sets, seen.read_back), (1, 5, 4), "{seen:?}");
        assert!(seen.what[0].contains("GET k7") && !seen.is_perfect(), "{seen:?}");
    }

    #[test]
    fn a_broken_connection_is_an_error_but_no_wrong_answer() {
        // 0: nothing is there yet; 3 is a SET; 21 is read back.
        for number in [0, 1, 3, 21] {
            for vice in [Vice::BreaksAfter(number), Vice::BreaksBefore(number)] {
                let seen = count(vice, 20, 0);
                assert_eq!((seen.wrong, seen.broken, seen.tries), (0, 1, 2), "{number}: {seen:?}");
                assert!(seen.done.is_some() && !seen.is_perfect());
                assert_eq!(seen.read_back, 5);
            }
        }
    }

    #[test]
    fn a_gap_is_measured() {
        let seen = count(Vice::Sleeps(10), 20, 0);
        let (gap, at) = seen.gap();
        assert!((700_000_000..705_000_000).contains(&gap) && at < 100_000_000, "{gap} at {at}");
        assert!(seen.is_perfect() && seen.delay(1000) >= 700_000_000 && seen.delay(500) < 1_000_000);
    }

    #[test]
    fn answers_are_whole_or_not() {
        let whole = |text: &str| whole(text.as_bytes());
        assert_eq!((whole(":5"), whole(":5\r\n")), (None, Some(":5".into())));
        assert_eq!((whole("$2\r\na"), whole("$2\r\nab\r\n")), (None, Some("ab".into())));
        assert_eq!((whole("$-1\r\n"), whole("+OK\r\n")), (Some(String::new()), Some("+OK".into())));
        assert_eq!(whole("$18446744073709551615\r\nab\r\n"), None);
    }
}
