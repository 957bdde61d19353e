//! The stack: an interface, one socket, and the life of its connection.

use crate::device::Card;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use hal::NetDevice;
use smoltcp::iface::{
    Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet, SocketStorage,
};
use smoltcp::socket::tcp::{self, Socket, SocketBuffer};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, IpEndpoint, Ipv4Address};

/// Frames that one [`Stack::poll`] takes in at most: a flood must leave time for others.
pub const BUDGET: usize = 64;

/// How long a connection that was refused is not tried again, nanoseconds.
const RETRY_NS: u64 = 200_000_000;

/// How long an attempt lasts, milliseconds: the first SYN may have gone to nobody.
const ATTEMPT_MS: u64 = 3_000;

/// How long a peer that has everything may take to acknowledge the end as well, nanoseconds.
const GRACE_NS: u64 = 5_000_000_000;

/// First of the ports from which connections go out (RFC 6335: 49152 to 65535), and how many there are.
const FIRST_PORT: u16 = 49_152;
const PORTS: u16 = 16_384;

/// Address and port of the other end.
pub type Peer = ([u8; 4], u16);

/// What a stack is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Our IPv4 address.
    pub address: [u8; 4],
    /// Bits of it that name the network. There is no gateway.
    pub prefix: u8,
    /// Where sequence numbers and ports come from: another one for each start, or old segments could be taken for new.
    pub seed: u64,
    /// Bytes that may be sent and not acknowledged; allocated at once.
    pub send_bytes: usize,
    /// Bytes that may have arrived and not been read; allocated at once. A receiver that holds more than its sender may have
    /// under way, and reads, never closes its window: smoltcp 0.14 can stall for good when a late acknowledgement says so.
    pub receive_bytes: usize,
    /// For how long a peer that owes an acknowledgement may be silent before the connection is given up, milliseconds. A peer that
    /// does not read is asked once a minute in the end: with less than two minutes, it counts as gone.
    pub patience_ms: u64,
}

/// Where the connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody has asked for one.
    Idle,
    /// It is awaited, or tried, again and again.
    Connecting,
    /// Bytes pass.
    Connected,
    /// We send no more; what was sent is being delivered.
    Closing,
    /// We send no more, and all that was sent has been acknowledged.
    Closed,
    /// The peer has broken it off, or is silent for too long.
    Lost,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Closing => "closing",
            Self::Closed => "closed",
            Self::Lost => "lost",
        })
    }
}

/// What a stack has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes taken from the user.
    pub sent_bytes: u64,
    /// Bytes given to the user.
    pub received_bytes: u64,
    /// Frames that left, ARP included.
    pub sent_frames: u64,
    /// Frames that were looked at.
    pub received_frames: u64,
    /// Attempts to connect.
    pub attempts: u64,
    /// Times the card's ring was full.
    pub card_full: u64,
    /// Frames of impossible length, either way.
    pub bad_length: u64,
}

/// The end that a connection is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Connect(Peer),
    Listen(u16),
}

/// A TCP/IP stack with one connection on one card.
pub struct Stack<N> {
    card: Card<N>,
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    patience_ns: u64,
    /// When the peer was last heard, or owed nothing, nanoseconds.
    heard_at: u64,
    state: State,
    /// The peer was told that nothing follows.
    announced: bool,
    wish: Option<Wish>,
    /// An attempt is under way.
    attempting: bool,
    /// The next attempt is not before this, nanoseconds.
    retry_at: u64,
    /// The port of the next attempt, from [`FIRST_PORT`] on.
    port: u16,
    attempts: u64,
    sent_bytes: u64,
    received_bytes: u64,
}

impl<N: NetDevice> Stack<N> {
    /// A stack on this card, whose own address it has.
    pub fn new(device: N, settings: &Settings) -> Self {
        let mac = HardwareAddress::Ethernet(EthernetAddress(device.mac().0));
        let mut card = Card::new(device);
        let mut config = Config::new(mac);
        config.random_seed = settings.seed;
        let mut interface = Interface::new(config, &mut card, Instant::ZERO);
        let address = IpAddress::Ipv4(Ipv4Address::from(settings.address));
        interface.update_ip_addrs(|addresses| {
            // There is room for one.
            let _ = addresses.push(IpCidr::new(address, settings.prefix.min(32)));
        });
        let buffer = |bytes: usize| SocketBuffer::new(vec![0; bytes]);
        let mut socket = Socket::new(buffer(settings.receive_bytes), buffer(settings.send_bytes));
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        let mut places: Vec<SocketStorage<'static>> = Vec::new();
        places.resize_with(1, || SocketStorage::EMPTY);
        let mut sockets = SocketSet::new(places);
        let handle = sockets.add(socket);
        Self {
            card,
            interface,
            sockets,
            handle,
            patience_ns: settings.patience_ms.saturating_mul(1_000_000),
            heard_at: 0,
            state: State::Idle,
            announced: false,
            wish: None,
            attempting: false,
            retry_at: 0,
            port: (settings.seed >> 16) as u16 % PORTS,
            attempts: 0,
            sent_bytes: 0,
            received_bytes: 0,
        }
    }

    /// Has [`poll`](Self::poll) connect to `peer`, again and again until it stands. A connection that there is, is broken off.
    pub fn connect(&mut self, peer: Peer) {
        self.begin(Wish::Connect(peer));
    }

    /// Has [`poll`](Self::poll) await a connection at this port. A connection that there is, is broken off.
    pub fn listen(&mut self, port: u16) {
        self.begin(Wish::Listen(port));
    }

    fn begin(&mut self, wish: Wish) {
        self.socket().abort();
        (self.wish, self.state) = (Some(wish), State::Connecting);
        (self.attempting, self.announced, self.retry_at) = (false, false, 0);
    }

    /// Does what is due at `now` (nanoseconds of any clock that does not go back): takes frames in, at most [`BUDGET`], and
    /// sends what there is to send and room for. Says when it is to be called next if nothing arrives before; `now` or
    /// less means that there is more to do at once.
    pub fn poll(&mut self, now: u64) -> Option<u64> {
        let at = instant(now);
        self.card.flush();
        self.interface.poll_maintenance(at);
        let before = self.card.received;
        let mut looks = 0;
        while looks < BUDGET {
            match self.interface.poll_ingress_single(at, &mut self.card, &mut self.sockets) {
                PollIngressSingleResult::None => break,
                PollIngressSingleResult::PacketProcessed => {}
                PollIngressSingleResult::SocketStateChanged => self.follow(now),
            }
            looks += 1;
        }
        self.watch_peer(now, self.card.received != before);
        // What is broken off is said to the peer before another attempt begins.
        self.send_frames(at);
        self.follow(now);
        self.announce_end(now);
        self.attempt(now);
        self.send_frames(at);
        self.follow(now);
        if looks == BUDGET { Some(now) } else { self.next(now, at) }
    }

    fn send_frames(&mut self, at: Instant) {
        // One frame at a time, and only with room for it: smoltcp 0.14 forgets a repetition that the card refuses, and waits for
        // its acknowledgement for ever.
        while self.card.flush() {
            if self.interface.poll_egress(at, &mut self.card, &mut self.sockets) == PollResult::None {
                break;
            }
        }
    }

    /// When there is something to do without anything arriving.
    fn next(&mut self, now: u64, at: Instant) -> Option<u64> {
        let retry = (self.state == State::Connecting && !self.is_open()).then_some(self.retry_at);
        let patience = self.owes().then(|| self.heard_at.saturating_add(self.patience()));
        // What waits for room on the card waits for the card.
        let full = self.card.is_full();
        let stack = self.interface.poll_at(at, &self.sockets).map(nanoseconds);
        let stack = stack.filter(|due| *due > now || !full);
        [stack, retry, patience].into_iter().flatten().min()
    }

    /// Gives a peer up that owes an acknowledgement and has said nothing for too long.
    fn watch_peer(&mut self, now: u64, heard: bool) {
        if heard || !self.owes() {
            self.heard_at = now;
        } else if now.saturating_sub(self.heard_at) >= self.patience() {
            self.socket().abort();
        }
    }

    /// For how long the peer may be silent.
    fn patience(&self) -> u64 {
        if self.announced { self.patience_ns.min(GRACE_NS) } else { self.patience_ns }
    }

    /// Tells the peer that nothing follows, once it has everything. Not before: smoltcp 0.14 forgets to repeat the announcement
    /// when repeated acknowledgements of data come behind it.
    fn announce_end(&mut self, now: u64) {
        if self.state == State::Closing && !self.announced && self.unacknowledged() == 0 {
            self.announced = true;
            self.heard_at = now;
            self.socket().close();
        }
    }

    /// Whether the peer has something to acknowledge.
    fn owes(&self) -> bool {
        match self.state {
            State::Connected => self.unacknowledged() != 0,
            State::Closing => true,
            _ => false,
        }
    }

    /// Follows what has become of the connection.
    fn follow(&mut self, now: u64) {
        use tcp::State as Tcp;
        self.state = match (self.state, self.tcp()) {
            (State::Connecting, Tcp::Established | Tcp::CloseWait) => {
                // smoltcp's own time-out would end an idle connection as well.
                self.socket().set_timeout(None);
                self.heard_at = now;
                State::Connected
            }
            // Refused, or not answered.
            (State::Connecting, Tcp::Closed) => {
                if core::mem::take(&mut self.attempting) {
                    self.retry_at = now.saturating_add(RETRY_NS);
                }
                State::Connecting
            }
            (State::Connected, Tcp::Closed) => State::Lost,
            (State::Closing, Tcp::FinWait2 | Tcp::TimeWait) => State::Closed,
            // Whatever became of our end's announcement: it leaves when the peer has everything else.
            (State::Closing, Tcp::Closed) if self.announced => State::Closed,
            (State::Closing, Tcp::Closed) => State::Lost,
            (state, _) => state,
        };
    }

    /// Begins the next attempt to connect, if one is due.
    fn attempt(&mut self, now: u64) {
        let Some(wish) = self.wish else { return };
        if self.state != State::Connecting || self.is_open() || now < self.retry_at {
            return;
        }
        self.attempts += 1;
        self.attempting = true;
        let socket = self.sockets.get_mut::<Socket<'static>>(self.handle);
        let begun = match wish {
            Wish::Connect((address, port)) => {
                self.port = (self.port + 1) % PORTS;
                socket.set_timeout(Some(Duration::from_millis(ATTEMPT_MS)));
                let peer = IpEndpoint::new(IpAddress::Ipv4(Ipv4Address::from(address)), port);
                socket.connect(self.interface.context(), peer, FIRST_PORT + self.port).is_ok()
            }
            Wish::Listen(port) => {
                socket.set_timeout(None);
                socket.listen(port).is_ok()
            }
        };
        if !begun {
            // Port or address 0: there will never be a connection, and each attempt says so again.
            self.retry_at = now.saturating_add(RETRY_NS);
        }
    }

    /// Takes bytes to be sent, as many as there is room for. None unless the connection stands.
    pub fn send(&mut self, bytes: &[u8]) -> usize {
        if self.state != State::Connected || bytes.is_empty() {
            return 0;
        }
        let sent = self.socket().send_slice(bytes).unwrap_or(0);
        self.sent_bytes += sent as u64;
        sent
    }

    /// Bytes that [`send`](Self::send) would take now.
    pub fn room(&self) -> usize {
        let socket = self.socket_ref();
        if self.state == State::Connected { socket.send_capacity() - socket.send_queue() } else { 0 }
    }

    /// Gives out bytes that have arrived, in order, as many as there are and fit. They are given out after the peer has closed
    /// its side as well.
    pub fn receive(&mut self, bytes: &mut [u8]) -> usize {
        if bytes.is_empty() {
            return 0;
        }
        let received = self.socket().recv_slice(bytes).unwrap_or(0);
        self.received_bytes += received as u64;
        received
    }

    /// Bytes that were taken and that the peer has not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.socket_ref().send_queue()
    }

    /// Whether nothing will come in any more: the peer has said so, or is gone, and all that came was read.
    pub fn peer_has_ended(&self) -> bool {
        !matches!(self.state, State::Idle | State::Connecting) && !self.socket_ref().may_recv()
    }

    /// Sends no more: the peer learns it when it has everything. Bytes still come in. Nothing if there is no connection.
    pub fn close(&mut self) {
        match self.state {
            State::Connected => self.state = State::Closing,
            State::Connecting => {
                self.socket().abort();
                (self.wish, self.state) = (None, State::Idle);
            }
            _ => {}
        }
    }

    /// Where the connection is in its life, as of the last [`poll`](Self::poll).
    pub const fn state(&self) -> State {
        self.state
    }

    /// Whether a frame waits for room on the card: then [`poll`](Self::poll) is to be called when the card has sent some.
    pub const fn waits_for_card(&self) -> bool {
        self.card.is_full()
    }

    /// What was counted.
    pub const fn counters(&self) -> Counters {
        Counters {
            sent_bytes: self.sent_bytes,
            received_bytes: self.received_bytes,
            sent_frames: self.card.sent(),
            received_frames: self.card.received,
            attempts: self.attempts,
            card_full: self.card.full(),
            bad_length: self.card.refused() + self.card.too_long,
        }
    }

    /// The card.
    pub const fn card(&mut self) -> &mut N {
        &mut self.card.device
    }

    fn tcp(&self) -> tcp::State {
        self.socket_ref().state()
    }

    fn is_open(&self) -> bool {
        self.socket_ref().is_open()
    }

    fn socket_ref(&self) -> &Socket<'static> {
        self.sockets.get(self.handle)
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }
}

/// smoltcp counts microseconds: a moment is the one that has begun.
fn instant(now: u64) -> Instant {
    Instant::from_micros(i64::try_from(now / 1_000).unwrap_or(i64::MAX))
}

/// The first nanosecond at which `instant` has come.
fn nanoseconds(instant: Instant) -> u64 {
    u64::try_from(instant.total_micros()).unwrap_or(0).saturating_mul(1_000)
}
