//! A line: one TCP socket and the life of its connections, one after the other.

use super::stack::{Peer, State};
use smoltcp::iface::{Context, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{self, Socket};
use smoltcp::time::Duration;
use smoltcp::wire::{IpAddress, IpEndpoint, Ipv4Address};

/// How long a connection that was refused is not tried again, nanoseconds.
const RETRY_NS: u64 = 200_000_000;

/// How long an attempt lasts, milliseconds: the first SYN may have gone to nobody.
const ATTEMPT_MS: u64 = 3_000;

/// How long a connection waits for its answer, or a datagram for its way, before the peer's hardware address is asked for beside
/// smoltcp, and again, nanoseconds of TCP's time: a near peer whose address is known has answered by then.
pub const ASK_NS: u64 = 100_000_000;

/// How long somebody who has asked for a connection may take to complete it, in nanoseconds of TCP's time: long enough for our
/// answer to be repeated some times, since whoever has got it once counts on the connection.
const HALF_OPEN_NS: u64 = 60_000_000_000;

/// How long a peer that has everything may take to acknowledge the end as well, nanoseconds.
const GRACE_NS: u64 = 5_000_000_000;

/// First of the ports from which connections go out (RFC 6335: 49152 to 65535), and how many there are.
const FIRST_PORT: u16 = 49_152;
pub const PORTS: u16 = 16_384;

/// The end that a connection is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Connect(Peer),
    Listen(u16),
}

/// What a line needs of the stack.
pub struct Around<'a> {
    pub sockets: &'a mut SocketSet<'static>,
    /// TCP's milliseconds in one of ours.
    pub haste: u64,
    /// Port of the next attempt, from [`FIRST_PORT`] on.
    pub port: &'a mut u16,
}

/// A line.
pub struct Line {
    handle: SocketHandle,
    patience_ns: u64,
    half_open_ns: u64,
    ask_ns: u64,
    /// When the peer's hardware address is asked for next, nanoseconds.
    ask_at: u64,
    /// When the peer was last heard, or owed nothing, nanoseconds.
    heard_at: u64,
    pub state: State,
    /// The peer was told that nothing follows.
    announced: bool,
    wish: Option<Wish>,
    /// An attempt is under way.
    attempting: bool,
    /// The next attempt is not before this, nanoseconds.
    retry_at: u64,
    /// Since when somebody has been about to connect, nanoseconds.
    half_open: Option<u64>,
    pub attempts: u64,
    /// Connections that were never completed.
    pub half_opens: u64,
    pub sent_bytes: u64,
    pub received_bytes: u64,
}

impl Line {
    /// `haste`: TCP's nanoseconds in one of ours.
    pub const fn new(handle: SocketHandle, patience_ns: u64, haste: u64) -> Self {
        Self {
            handle,
            patience_ns,
            half_open_ns: HALF_OPEN_NS / haste,
            ask_ns: ASK_NS / haste,
            ask_at: 0,
            heard_at: 0,
            state: State::Idle,
            announced: false,
            wish: None,
            attempting: false,
            retry_at: 0,
            half_open: None,
            attempts: 0,
            half_opens: 0,
            sent_bytes: 0,
            received_bytes: 0,
        }
    }

    pub fn begin(&mut self, sockets: &mut SocketSet<'static>, wish: Wish) {
        self.socket(sockets).abort();
        (self.wish, self.state) = (Some(wish), State::Connecting);
        (self.attempting, self.announced, self.retry_at) = (false, false, 0);
    }

    /// Whether it awaits a connection and nobody has begun one: then it has nothing to do.
    pub fn rests(&self, sockets: &SocketSet<'static>) -> bool {
        self.state == State::Connecting
            && self.half_open.is_none()
            && self.tcp(sockets).state() == tcp::State::Listen
    }

    /// When there is something to do without anything arriving.
    pub fn due(&self, sockets: &SocketSet<'static>) -> Option<u64> {
        let retry =
            (self.state == State::Connecting && !self.tcp(sockets).is_open()).then_some(self.retry_at);
        let patience = self.owes(sockets).then(|| self.heard_at.saturating_add(self.patience()));
        let half_open = self.half_open.map(|since| since.saturating_add(self.half_open_ns));
        let ask = self.knocks_at(sockets).map(|_| self.ask_at);
        [retry, patience, half_open, ask].into_iter().flatten().min()
    }

    /// Gives a peer up that owes an acknowledgement and has said nothing for too long.
    pub fn watch_peer(&mut self, sockets: &mut SocketSet<'static>, now: u64, heard: bool) {
        if heard || !self.owes(sockets) {
            self.heard_at = now;
        } else if now.saturating_sub(self.heard_at) >= self.patience() {
            self.socket(sockets).abort();
        }
    }

    /// Forgets somebody who has begun to connect and does not go on: others wait for the line.
    pub fn watch_half_open(&mut self, sockets: &mut SocketSet<'static>, now: u64) {
        if self.tcp(sockets).state() != tcp::State::SynReceived {
            self.half_open = None;
            return;
        }
        let since = *self.half_open.get_or_insert(now);
        if now.saturating_sub(since) >= self.half_open_ns {
            self.half_open = None;
            self.half_opens += 1;
            self.socket(sockets).abort();
        }
    }

    /// Whom it has asked for a connection and not heard of since.
    fn knocks_at(&self, sockets: &SocketSet<'static>) -> Option<[u8; 4]> {
        match self.wish {
            Some(Wish::Connect((address, _))) if self.tcp(sockets).state() == tcp::State::SynSent => {
                Some(address)
            }
            _ => None,
        }
    }

    /// Whose hardware address is to be asked for now: that of a peer that has not answered for long enough that it may not be known.
    pub fn asks(&mut self, sockets: &SocketSet<'static>, now: u64) -> Option<[u8; 4]> {
        let address = self.knocks_at(sockets).filter(|_| self.ask_at <= now)?;
        self.ask_at = now.saturating_add(self.ask_ns);
        Some(address)
    }

    /// For how long the peer may be silent.
    fn patience(&self) -> u64 {
        if self.announced { self.patience_ns.min(GRACE_NS) } else { self.patience_ns }
    }

    /// Tells the peer that nothing follows, once it has everything. Not before: smoltcp 0.14 forgets to repeat the announcement
    /// when repeated acknowledgements of data come behind it.
    /// Whether it did.
    pub fn announce_end(&mut self, sockets: &mut SocketSet<'static>, now: u64) -> bool {
        let announces =
            self.state == State::Closing && !self.announced && self.tcp(sockets).send_queue() == 0;
        if announces {
            self.announced = true;
            self.heard_at = now;
            self.socket(sockets).close();
        }
        announces
    }

    /// Whether the peer has something to acknowledge.
    fn owes(&self, sockets: &SocketSet<'static>) -> bool {
        match self.state {
            State::Connected => self.tcp(sockets).send_queue() != 0,
            State::Closing => true,
            _ => false,
        }
    }

    /// Follows what has become of the connection.
    pub fn follow(&mut self, sockets: &mut SocketSet<'static>, now: u64) {
        use tcp::State as Tcp;
        let tcp = self.tcp(sockets).state();
        self.state = match (self.state, tcp) {
            (State::Connecting, Tcp::Established | Tcp::CloseWait) => {
                // smoltcp's own time-out would end an idle connection as well.
                self.socket(sockets).set_timeout(None);
                self.heard_at = now;
                State::Connected
            }
            // Refused, or not answered.
            (State::Connecting, Tcp::Closed) => {
                if core::mem::take(&mut self.attempting) && matches!(self.wish, Some(Wish::Connect(_))) {
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

    /// Begins the next attempt to connect, if one is due. Whether it did.
    pub fn attempt(&mut self, around: &mut Around<'_>, context: &mut Context, now: u64) -> bool {
        let Some(wish) = self.wish else { return false };
        if self.state != State::Connecting || self.tcp(around.sockets).is_open() || now < self.retry_at {
            return false;
        }
        self.attempts += 1;
        self.attempting = true;
        self.ask_at = now.saturating_add(self.ask_ns);
        let socket = around.sockets.get_mut::<Socket<'static>>(self.handle);
        let begun = match wish {
            Wish::Connect((address, port)) => {
                *around.port = (*around.port + 1) % PORTS;
                let limit = ATTEMPT_MS.saturating_mul(around.haste);
                socket.set_timeout(Some(Duration::from_millis(limit)));
                let peer = IpEndpoint::new(IpAddress::Ipv4(Ipv4Address::from(address)), port);
                socket.connect(context, peer, FIRST_PORT + *around.port).is_ok()
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
        true
    }

    pub fn send(&mut self, sockets: &mut SocketSet<'static>, bytes: &[u8]) -> usize {
        if self.state != State::Connected || bytes.is_empty() {
            return 0;
        }
        let sent = self.socket(sockets).send_slice(bytes).unwrap_or(0);
        self.sent_bytes += sent as u64;
        sent
    }

    pub fn room(&self, sockets: &SocketSet<'static>) -> usize {
        let socket = self.tcp(sockets);
        if self.state == State::Connected { socket.send_capacity() - socket.send_queue() } else { 0 }
    }

    pub fn receive(&mut self, sockets: &mut SocketSet<'static>, take: impl FnOnce(&[u8]) -> usize) -> usize {
        let look = |bytes: &mut [u8]| {
            let taken = take(bytes).min(bytes.len());
            (taken, taken)
        };
        let received = self.socket(sockets).recv(look).unwrap_or(0);
        self.received_bytes += received as u64;
        received
    }

    pub fn peer_has_ended(&self, sockets: &SocketSet<'static>) -> bool {
        !matches!(self.state, State::Idle | State::Connecting) && !self.tcp(sockets).may_recv()
    }

    pub fn close(&mut self, sockets: &mut SocketSet<'static>) {
        match self.state {
            State::Connected => self.state = State::Closing,
            State::Connecting => {
                self.socket(sockets).abort();
                (self.wish, self.state) = (None, State::Idle);
            }
            _ => {}
        }
    }

    /// The socket, to be asked.
    pub fn tcp<'s>(&self, sockets: &'s SocketSet<'static>) -> &'s Socket<'static> {
        sockets.get(self.handle)
    }

    fn socket<'s>(&self, sockets: &'s mut SocketSet<'static>) -> &'s mut Socket<'static> {
        sockets.get_mut(self.handle)
    }
}
