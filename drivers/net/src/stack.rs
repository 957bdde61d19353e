//! The stack: an interface, its lines, and datagrams beside them.

use crate::datagrams::{DatagramCounters, Datagrams};
use crate::device::Card;
use crate::line::{ASK_NS, Around, Line, PORTS, Wish};
use crate::neighbor;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use hal::NetDevice;
use smoltcp::iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketSet, SocketStorage};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, Ipv4Address};

/// Frames that one [`Stack::poll`] takes in at most: a flood must leave time for others.
pub const BUDGET: usize = 64;

/// Lines of a stack at most.
pub const LINES: usize = 8;

/// How long an acknowledgement of what came waits for bytes that it can go with, milliseconds. Two full segments are
/// acknowledged at once, and a segment is taken for lost after 50 ms at the earliest.
const ACK_DELAY_MS: u64 = 5;

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
    /// Lines: connections at a time, from 1 to [`LINES`].
    pub lines: usize,
    /// Bytes that may be sent on a line and not acknowledged; allocated at once.
    pub send_bytes: usize,
    /// Bytes that may have arrived on a line and not been read; allocated at once. A receiver that holds more than its sender may
    /// have under way, and reads, never closes its window: smoltcp 0.14 can stall for good when a late acknowledgement says so.
    pub receive_bytes: usize,
    /// For how long a peer that owes an acknowledgement may be silent before the connection is given up, milliseconds. Any frame
    /// counts as heard. A peer that does not read is asked once a minute in the end: with less than two minutes, it counts as gone.
    pub patience_ms: u64,
    /// How many times as fast as ours the clock of TCP runs. Its times are made for the Internet, and smoltcp's are constants: a
    /// segment that is lost with nothing behind it is repeated after a second. (With three segments behind it that arrive, at once.)
    /// With 20, that is 50 ms, and as long as a peer is silent it is repeated every 3 s at least; ARP entries last for 3 s, and
    /// connections that are half open as well. 1 unless the peer is near.
    pub haste: u32,
    /// The only address that may connect to us, or that we connect to; segments of others are dropped unseen.
    pub only: Option<[u8; 4]>,
    /// The port of our datagrams, if there are any.
    pub datagrams: Option<u16>,
}

/// Where a line's connection is in its life.
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

/// What a stack has counted, over all its lines.
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
    /// Attempts to connect, and to listen.
    pub attempts: u64,
    /// Times the card's ring was full.
    pub card_full: u64,
    /// Frames of impossible length, either way.
    pub bad_length: u64,
    /// Frames with segments of somebody else than [`Settings::only`].
    pub strangers: u64,
    /// Segments whose checksum was wrong.
    pub damaged: u64,
    /// Connections that somebody has begun and not completed.
    pub half_open: u64,
}

/// A TCP/IP stack on one card.
pub struct Stack<N> {
    card: Card<N>,
    address: [u8; 4],
    interface: Interface,
    /// Those of the lines. Datagrams have theirs, so that who sends a segment is not asked for every one of them.
    sockets: SocketSet<'static>,
    lines: Vec<Line>,
    /// The lines that have something to do, a bit each: those that do not [rest](Line::rests), and maybe others.
    awake: u8,
    haste: u64,
    port: u16,
    datagrams: Option<Datagrams>,
}

impl<N: NetDevice> Stack<N> {
    /// A stack on this card, whose own address it has.
    pub fn new(device: N, settings: &Settings) -> Self {
        let mac = HardwareAddress::Ethernet(EthernetAddress(device.mac().0));
        let mut card = Card::new(device, settings.only, settings.datagrams.is_some());
        let mut config = Config::new(mac);
        config.random_seed = settings.seed;
        let mut interface = Interface::new(config, &mut card, Instant::ZERO);
        let address = IpAddress::Ipv4(Ipv4Address::from(settings.address));
        interface.update_ip_addrs(|addresses| {
            // There is room for one.
            let _ = addresses.push(IpCidr::new(address, settings.prefix.min(32)));
        });
        let count = settings.lines.clamp(1, LINES);
        let mut places: Vec<SocketStorage<'static>> = Vec::new();
        places.resize_with(count, || SocketStorage::EMPTY);
        let mut sockets = SocketSet::new(places);
        let haste = u64::from(settings.haste.max(1));
        let patience_ns = settings.patience_ms.saturating_mul(1_000_000);
        let lines =
            (0..count).map(|_| Line::new(sockets.add(tcp_socket(settings)), patience_ns, haste)).collect();
        let datagrams = settings.datagrams.map(|port| Datagrams::new(port, ASK_NS / haste));
        Self {
            card,
            address: settings.address,
            interface,
            sockets,
            lines,
            awake: 0,
            haste,
            port: (settings.seed >> 16) as u16 % PORTS,
            datagrams,
        }
    }

    /// How many lines there are.
    pub const fn lines(&self) -> usize {
        self.lines.len()
    }

    /// Has [`poll`](Self::poll) connect `line` to `peer`, again and again until it stands. A connection that there is, is broken
    /// off.
    pub fn connect(&mut self, line: usize, peer: Peer) {
        self.begin(line, Wish::Connect(peer));
    }

    /// Has [`poll`](Self::poll) await a connection for `line` at this port. Several lines may have the same port: each takes one
    /// connection. A connection that there is, is broken off.
    pub fn listen(&mut self, line: usize, port: u16) {
        self.begin(line, Wish::Listen(port));
    }

    fn begin(&mut self, line: usize, wish: Wish) {
        self.awake |= 1 << line;
        self.lines[line].begin(&mut self.sockets, wish);
    }

    /// Does what is due at `now` (nanoseconds of any clock that does not go back): takes frames in, at most [`BUDGET`], and
    /// sends what there is to send and room for. Says when it is to be called next if nothing arrives before; `now` or
    /// less means that there is more to do at once.
    pub fn poll(&mut self, now: u64) -> Option<u64> {
        let more = self.take_in(now);
        let due = self.give_out(now);
        if more { Some(now) } else { due }
    }

    /// The first half of [`poll`](Self::poll): takes frames in, at most [`BUDGET`]. Whether there may be more. The second half is to
    /// follow, with what their receiver has to say to them.
    pub fn take_in(&mut self, now: u64) -> bool {
        let at = self.instant(now);
        self.card.flush();
        self.interface.poll_maintenance(at);
        let before = self.card.received;
        let mut looks = 0;
        while looks < BUDGET {
            let sockets = match &mut self.datagrams {
                Some(datagrams) if self.card.gives_datagrams() => &mut datagrams.sockets,
                _ => &mut self.sockets,
            };
            match self.interface.poll_ingress_single(at, &mut self.card, sockets) {
                PollIngressSingleResult::None if self.card.has_the_other_kind() => continue,
                PollIngressSingleResult::None => break,
                PollIngressSingleResult::PacketProcessed => {}
                PollIngressSingleResult::SocketStateChanged => self.follow_all(now),
            }
            looks += 1;
        }
        let heard = self.card.received != before;
        self.awake = 0;
        for (line, bit) in self.lines.iter_mut().zip(bits()) {
            if !line.rests(&self.sockets) {
                line.watch_peer(&mut self.sockets, now, heard);
                line.watch_half_open(&mut self.sockets, now);
                self.awake |= bit;
            }
        }
        looks == BUDGET || core::mem::take(&mut self.card.flooded)
    }

    /// The second half of [`poll`](Self::poll): sends. When the whole is to be called next if nothing arrives before.
    pub fn give_out(&mut self, now: u64) -> Option<u64> {
        let at = self.instant(now);
        // What is broken off is said to the peer before another attempt begins.
        self.send_frames(at);
        self.follow(now);
        if self.attempt(now) {
            self.send_frames(at);
            self.follow(now);
        }
        self.ask_neighbors(now, at);
        self.next(now, at)
    }

    /// Sends a frame for each line that has something to send, as far as there is room, and takes nothing in. Whether it has sent any:
    /// then there may be more. [`poll`](Self::poll) is still to be called when something arrives, or is [`due`](Self::due).
    pub fn push(&mut self, now: u64) -> bool {
        let at = self.instant(now);
        let before = self.card.sent();
        if self.card.flush() {
            self.interface.poll_egress(at, &mut self.card, &mut self.sockets);
        }
        self.card.sent() != before
    }

    fn send_frames(&mut self, at: Instant) {
        // One frame at a time, and only with room for it: smoltcp 0.14 forgets a repetition that the card refuses, and waits for
        // its acknowledgement for ever.
        while self.card.flush() {
            if self.interface.poll_egress(at, &mut self.card, &mut self.sockets) == PollResult::None {
                break;
            }
        }
        let Some(datagrams) = self.datagrams.as_mut().filter(|datagrams| datagrams.wait()) else { return };
        while self.card.flush() {
            if self.interface.poll_egress(at, &mut self.card, &mut datagrams.sockets) == PollResult::None {
                break;
            }
        }
    }

    /// Asks for the hardware addresses of those that something waits for.
    fn ask_neighbors(&mut self, now: u64, at: Instant) {
        for line in awake(&mut self.lines, self.awake) {
            if let Some(address) = line.asks(&self.sockets, now) {
                neighbor::ask(&mut self.card, at, self.address, address);
            }
        }
        if let Some(datagrams) = self.datagrams.as_mut().filter(|datagrams| datagrams.wait()) {
            while let Some(address) = datagrams.asks(now) {
                neighbor::ask(&mut self.card, at, self.address, address);
            }
        }
    }

    /// Follows what has become of every connection: any may have been begun just now.
    fn follow_all(&mut self, now: u64) {
        for line in &mut self.lines {
            if !line.rests(&self.sockets) {
                line.follow(&mut self.sockets, now);
            }
        }
    }

    fn follow(&mut self, now: u64) {
        for line in awake(&mut self.lines, self.awake) {
            line.follow(&mut self.sockets, now);
        }
    }

    /// Whether a connection was begun or ended.
    fn attempt(&mut self, now: u64) -> bool {
        let mut around = Around { sockets: &mut self.sockets, haste: self.haste, port: &mut self.port };
        let mut begun = false;
        for line in awake(&mut self.lines, self.awake) {
            begun |= line.announce_end(around.sockets, now);
            begun |= line.attempt(&mut around, self.interface.context(), now);
        }
        begun
    }

    /// When there is something to do without anything arriving.
    fn next(&mut self, now: u64, at: Instant) -> Option<u64> {
        let lines = awake(&mut self.lines, self.awake).filter_map(|line| line.due(&self.sockets)).min();
        // What waits for room on the card waits for the card.
        let full = self.card.is_full();
        let stack = self.interface.poll_at(at, &self.sockets);
        let waiting = self.datagrams.as_ref().filter(|datagrams| datagrams.wait());
        let beside = waiting.and_then(|datagrams| self.interface.poll_at(at, &datagrams.sockets));
        let stack = [stack, beside].into_iter().flatten().min().map(|due| self.nanoseconds(due));
        let stack = stack.filter(|due| *due > now || !full);
        let datagrams = self.datagrams.as_ref().and_then(Datagrams::due);
        [stack, lines, datagrams].into_iter().flatten().min()
    }

    /// Takes bytes to be sent on `line`, as many as there is room for. None unless the connection stands.
    pub fn send(&mut self, line: usize, bytes: &[u8]) -> usize {
        self.lines[line].send(&mut self.sockets, bytes)
    }

    /// Bytes that [`send`](Self::send) would take now.
    pub fn room(&self, line: usize) -> usize {
        self.lines[line].room(&self.sockets)
    }

    /// Gives out bytes that have arrived on `line`, in order, as many as there are and fit. They are given out after the peer has
    /// closed its side as well.
    pub fn receive(&mut self, line: usize, bytes: &mut [u8]) -> usize {
        let mut filled = 0;
        // They may lie in two pieces.
        while filled < bytes.len() {
            let room = &mut bytes[filled..];
            let count = self.receive_with(line, |arrived| {
                let count = arrived.len().min(room.len());
                room[..count].copy_from_slice(&arrived[..count]);
                count
            });
            if count == 0 {
                break;
            }
            filled += count;
        }
        filled
    }

    /// The same, where they lie: `take` gets some of the bytes, and says how many of them it has taken. Called until that is 0, it has been
    /// given all of them.
    pub fn receive_with(&mut self, line: usize, take: impl FnOnce(&[u8]) -> usize) -> usize {
        self.lines[line].receive(&mut self.sockets, take)
    }

    /// Whether bytes have arrived on `line` that [`receive`](Self::receive) would give out.
    pub fn has_received(&self, line: usize) -> bool {
        self.lines[line].tcp(&self.sockets).recv_queue() != 0
    }

    /// Bytes that were taken on `line` and that the peer has not acknowledged.
    pub fn unacknowledged(&self, line: usize) -> usize {
        self.lines[line].tcp(&self.sockets).send_queue()
    }

    /// Whether nothing will come in any more on `line`: the peer has said so, or is gone, and all that came was read.
    pub fn peer_has_ended(&self, line: usize) -> bool {
        self.lines[line].peer_has_ended(&self.sockets)
    }

    /// Sends no more on `line`: the peer learns it when it has everything. Bytes still come in. Nothing if there is no connection.
    pub fn close(&mut self, line: usize) {
        self.awake |= 1 << line;
        self.lines[line].close(&mut self.sockets);
    }

    /// Where the connection of `line` is in its life, as of the last [`poll`](Self::poll).
    pub fn state(&self, line: usize) -> State {
        self.lines[line].state
    }

    /// Takes a datagram to be sent, of at most [`DATAGRAM`](crate::DATAGRAM) bytes; whether there was room for it.
    pub fn send_datagram(&mut self, to: Peer, bytes: &[u8]) -> bool {
        self.datagrams.as_mut().is_some_and(|datagrams| datagrams.send(to, bytes))
    }

    /// Whether a datagram has arrived.
    pub fn has_datagram(&self) -> bool {
        self.datagrams.as_ref().is_some_and(Datagrams::has_received)
    }

    /// Gives out a datagram that has arrived: its length, and whom it says that it is from. What does not fit is dropped.
    pub fn receive_datagram(&mut self, bytes: &mut [u8]) -> Option<(usize, Peer)> {
        self.datagrams.as_mut()?.receive(bytes)
    }

    /// What datagrams have counted.
    pub fn datagram_counters(&self) -> DatagramCounters {
        self.datagrams.as_ref().map(|datagrams| datagrams.counters).unwrap_or_default()
    }

    /// Whether a frame waits for room on the card: then [`poll`](Self::poll) is to be called when the card has sent some.
    pub const fn waits_for_card(&self) -> bool {
        self.card.is_full()
    }

    /// Asks this clock from now on when the card has taken a frame: see [`sent_at`](Self::sent_at).
    pub const fn stamp_with(&mut self, clock: fn() -> u64) {
        self.card.stamp_with(clock);
    }

    /// When the card took the last frame, by the clock of [`stamp_with`](Self::stamp_with); 0 without one.
    pub const fn sent_at(&self) -> u64 {
        self.card.sent_at()
    }

    /// Frames that were looked at so far.
    pub const fn received_frames(&self) -> u64 {
        self.card.received
    }

    /// What was counted.
    pub fn counters(&self) -> Counters {
        let sum = |value: fn(&Line) -> u64| self.lines.iter().map(value).sum();
        Counters {
            sent_bytes: sum(|line| line.sent_bytes),
            received_bytes: sum(|line| line.received_bytes),
            sent_frames: self.card.sent(),
            received_frames: self.card.received,
            attempts: sum(|line| line.attempts),
            card_full: self.card.full(),
            bad_length: self.card.refused() + self.card.too_long,
            strangers: self.card.strangers,
            damaged: self.card.damaged,
            half_open: sum(|line| line.half_opens),
        }
    }

    /// The card.
    pub const fn card(&mut self) -> &mut N {
        &mut self.card.device
    }

    /// smoltcp counts microseconds: a moment is the one that has begun.
    fn instant(&self, now: u64) -> Instant {
        let micros = u128::from(now) * u128::from(self.haste) / 1_000;
        Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }

    /// The first nanosecond at which `instant` has come.
    fn nanoseconds(&self, instant: Instant) -> u64 {
        let micros = u64::try_from(instant.total_micros()).unwrap_or(0);
        u64::try_from((u128::from(micros) * 1_000).div_ceil(u128::from(self.haste))).unwrap_or(u64::MAX)
    }
}

/// A bit for each line.
fn bits() -> impl Iterator<Item = u8> {
    (0..LINES).map(|line| 1 << line)
}

/// The lines whose bits are set.
fn awake(lines: &mut [Line], awake: u8) -> impl Iterator<Item = &mut Line> {
    lines.iter_mut().zip(bits()).filter(move |(_, bit)| awake & bit != 0).map(|(line, _)| line)
}

fn tcp_socket(settings: &Settings) -> Socket<'static> {
    let buffer = |bytes: usize| SocketBuffer::new(vec![0; bytes]);
    let mut socket = Socket::new(buffer(settings.receive_bytes), buffer(settings.send_bytes));
    socket.set_nagle_enabled(false);
    socket.set_ack_delay(Some(Duration::from_millis(ACK_DELAY_MS * u64::from(settings.haste.max(1)))));
    socket
}
