//! The logging card: the channel's connections, and datagrams beside them.

use crate::arch::alarm::Alarm;
use crate::arch::cpu;
use crate::duties;
use crate::network::seat::{self, Hold, Seat, Served};
use crate::network::service::{self, OpenError};
use alloc::boxed::Box;
use alloc::vec;
use ft::channel::{Channel, Event, Message, PLACES};
use ft::side::Side;
use hal::{Filter, NetDevice, NetEvents};
use net::{DATAGRAM, Peer, Settings, Stack, State};
use vm_config::Pair;

/// Bytes on their way on one connection that are not acknowledged.
const SEND_BYTES: usize = 256 << 10;

/// Bytes of one connection that have arrived and are not read: more than the peer may have under way.
const RECEIVE_BYTES: usize = 320 << 10;

/// Bytes that are moved at once between connection and channel.
const PIECE: usize = 16 << 10;

/// Bytes of the log that one frame carries at least, if there are so many.
const SEGMENT: usize = 1_400;

/// What was sent in a hurry is looked after so much later at the latest, nanoseconds: less than TCP's patience.
const LOOK_NS: u64 = 20_000_000;

/// How many times as fast as ours TCP's clock runs: the peer is on the same wire.
const HASTE: u32 = 20;

/// How long a peer that owes an acknowledgement may be silent before its connection is given up, milliseconds.
const PATIENCE_MS: u64 = 2_000;

/// The card, with what runs on it.
pub struct Wire {
    stack: Stack<Seat>,
    service: Hold,
    /// The channel.
    pub channel: Channel,
    end: End,
    connected: [bool; PLACES],
    /// The channel is closed for good.
    closed: bool,
    /// Something came since the card was let interrupt, and there may be more.
    busy: bool,
    more: bool,
    /// Its card is to send no interrupt for now.
    quiet: bool,
    /// What the card may interrupt for.
    wanted: NetEvents,
    /// When the stack wants to be polled, nanoseconds of uptime.
    due: Option<u64>,
    piece: Box<[u8]>,
}

/// What has come on the channel.
pub enum Arrival<'a> {
    /// Something has happened to it.
    Event(&'a Event),
    /// The peer says.
    Message(Message<'a>),
}

/// How connections come about.
#[derive(Clone, Copy)]
enum End {
    Listens(u16),
    Connects(Peer),
}

/// The logging card before the channel is made: datagrams come and go, connections do not.
pub struct Card {
    /// The card and its protocols.
    pub stack: Stack<Seat>,
    service: Hold,
    end: End,
}

impl Card {
    /// Starts the card, unless it is `shared` with a guest's network and started. Allocates all that it will need; on the boot
    /// processor, before the pools are closed.
    ///
    /// # Errors
    /// The card cannot be used.
    pub fn open(pair: &Pair, side: Side, shared: Option<Served>) -> Result<Self, OpenError> {
        let [own, peer] = [side, side.other()].map(|side| pair.hosts[side.index()]);
        let served = shared.map_or_else(|| seat::open(&own.log_card, duties::LOG, Alarm::Log), Ok)?;
        let Served { mut seat, service } = served;
        seat.set_filter(Filter::default());
        service::serve_a_pair();
        let settings = Settings {
            address: own.log_address.ip,
            prefix: own.log_address.prefix,
            seed: cpu::random(),
            lines: match side {
                Side::A => PLACES,
                Side::B => 1,
            },
            send_bytes: SEND_BYTES,
            receive_bytes: RECEIVE_BYTES,
            patience_ms: PATIENCE_MS,
            haste: HASTE,
            only: Some(peer.log_address.ip),
            datagrams: Some(pair.beat_port),
        };
        let mut stack = Stack::new(seat, &settings);
        stack.stamp_with(cpu::tsc);
        let end = match side {
            Side::A => End::Listens(own.log_port),
            Side::B => End::Connects((peer.log_address.ip, peer.log_port)),
        };
        Ok(Self { stack, service, end })
    }

    /// Lets card and stack do what there is to do.
    pub fn poll(&mut self, now: u64) {
        self.stack.card().take_events();
        self.stack.poll(now);
        self.service.polled(true, false);
    }

    /// Awaits the peer there.
    pub fn with(self, channel: Channel) -> Wire {
        let Self { mut stack, service, end } = self;
        (0..stack.lines()).for_each(|line| end.begin(&mut stack, line));
        Wire {
            stack,
            service,
            channel,
            end,
            connected: [false; PLACES],
            closed: false,
            busy: false,
            more: false,
            quiet: false,
            wanted: NetEvents::NONE,
            due: None,
            piece: vec![0; PIECE].into_boxed_slice(),
        }
    }
}

impl Wire {
    /// Gives what has arrived by the last poll to `take` in its order, as long as `ready` says that it can have another piece of
    /// the log. Whether something is left because it said no.
    pub fn receive(
        &mut self,
        now: u64,
        ready: &mut dyn FnMut(usize) -> bool,
        take: &mut dyn FnMut(Arrival<'_>),
    ) -> bool {
        if self.closed {
            return false;
        }
        let mut left = false;
        for line in 0..self.stack.lines() {
            if !self.connected[line] && self.stack.state(line) == State::Connecting {
                // Nobody is there.
                continue;
            }
            self.follow(line, now);
            self.give_events(take);
            while self.stack.has_received(line) {
                if !ready(PIECE) {
                    left = true;
                    break;
                }
                if !self.give_piece(line, take) {
                    break;
                }
            }
            if self.channel.must_close(line, now) || self.stack.peer_has_ended(line) {
                self.channel.disconnected(line);
                self.connected[line] = false;
                self.begin(line);
            }
            self.give_events(take);
        }
        left
    }

    /// Gives out what has arrived on this line, a piece of the log at most. Whether there was anything.
    fn give_piece(&mut self, line: usize, take: &mut dyn FnMut(Arrival<'_>)) -> bool {
        let mut room = PIECE;
        while room != 0 && self.stack.has_received(line) {
            let channel = &mut self.channel;
            let feed = |bytes: &[u8]| channel.feed(line, bytes.get(..room).unwrap_or(bytes));
            let fed = self.stack.receive_with(line, feed);
            self.give_events(take);
            while let Some(message) = self.channel.next() {
                take(Arrival::Message(message));
            }
            if fed == 0 {
                break;
            }
            room -= fed;
        }
        room != PIECE
    }

    fn give_events(&mut self, take: &mut dyn FnMut(Arrival<'_>)) {
        while let Some(event) = self.channel.take_event() {
            take(Arrival::Event(&event));
        }
    }

    /// Follows what has become of a line's connection.
    fn follow(&mut self, line: usize, now: u64) {
        let connected = self.stack.state(line) == State::Connected;
        let was = core::mem::replace(&mut self.connected[line], connected);
        match (was, connected) {
            (false, true) => self.channel.connected(line, now),
            (true, false) => self.channel.disconnected(line),
            _ => {}
        }
        if matches!(self.stack.state(line), State::Lost | State::Closed) {
            self.begin(line);
        }
    }

    fn begin(&mut self, line: usize) {
        self.end.begin(&mut self.stack, line);
    }

    /// Moves what the channel has to send at this place to its connection, as far as there is room. How many bytes.
    fn move_out(&mut self, line: usize) -> usize {
        let mut bytes = 0;
        loop {
            let room = self.stack.room(line).min(PIECE);
            let count = self.channel.pull(line, &mut self.piece[..room]);
            if count != 0 {
                bytes += self.stack.send(line, &self.piece[..count]);
            }
            if count < room || room == 0 {
                return bytes;
            }
        }
    }

    /// Sends what the channel has to send, as far as there is room, and datagrams.
    pub fn send(&mut self, now: u64) {
        for line in 0..PLACES {
            if self.connected[line] {
                self.move_out(line);
            }
        }
        self.due = self.stack.give_out(now);
        let more = core::mem::take(&mut self.more) || self.due.is_some_and(|due| due <= now);
        self.quiet = self.service.polled(core::mem::take(&mut self.busy), more);
        self.want_events();
    }

    /// Sends what the channel has to send to the peer, and nothing else; what has arrived stays where it is. At which tick of the
    /// time-stamp counter the card was told, if all of it left. [`due`](Self::due) is a while from now at most.
    pub fn hurry(&mut self, now: u64) -> Option<u64> {
        let line = self.channel.peer_place()?;
        let bytes = self.move_out(line);
        let mut told = None;
        // Nothing is asked that a poll will find out: each question goes to all sockets.
        for _ in 0..bytes.div_ceil(SEGMENT) {
            if !self.stack.push(now) {
                break;
            }
            told = Some(self.stack.sent_at());
        }
        let look = now.saturating_add(LOOK_NS);
        self.due = Some(self.due.map_or(look, |due| due.min(look)));
        if self.stack.waits_for_card() {
            self.want_events();
        }
        told.filter(|_| self.channel.waiting() == 0)
    }

    /// Says whether somebody waits for what the peer says. If nobody, it is heard a little later under load.
    pub fn set_awaited(&mut self, awaited: bool) {
        self.service.set_awaited(awaited);
    }

    /// Closes the channel for good; what was given to it before is still delivered.
    pub fn close(&mut self) {
        if !core::mem::replace(&mut self.closed, true) {
            for line in 0..self.stack.lines() {
                self.channel.disconnected(line);
                self.stack.close(line);
            }
        }
    }

    /// Sends a datagram. It may be lost.
    pub fn send_datagram(&mut self, to: Peer, bytes: &[u8]) {
        self.stack.send_datagram(to, bytes);
    }

    /// Whether a datagram has arrived.
    pub fn has_datagram(&self) -> bool {
        self.stack.has_datagram()
    }

    /// A datagram that has arrived, and whom it says that it is from.
    pub fn datagram(&mut self, bytes: &mut [u8; DATAGRAM]) -> Option<(usize, Peer)> {
        self.stack.receive_datagram(bytes)
    }

    /// Takes in what has come to the card. [`send`](Self::send) is to follow.
    pub fn take_in(&mut self, now: u64) {
        let events = self.stack.card().take_events();
        let before = self.stack.received_frames();
        self.more |= self.stack.take_in(now);
        self.busy |= events != NetEvents::NONE || self.stack.received_frames() != before;
    }

    /// Has the card interrupt for what is waited for.
    fn want_events(&mut self) {
        let wanted = if self.quiet {
            NetEvents::NONE
        } else {
            NetEvents { received: true, sent: self.stack.waits_for_card(), link: true }
        };
        if wanted != self.wanted {
            self.wanted = wanted;
            self.stack.card().set_events(wanted);
        }
    }

    /// When this wants to be polled though nothing arrives, nanoseconds of uptime.
    pub fn due(&self) -> Option<u64> {
        [self.due, self.channel.deadline(), self.service.due()].into_iter().flatten().min()
    }

    /// The card, for people.
    pub fn address(&self) -> pci::Address {
        self.service.address()
    }
}

impl End {
    fn begin(self, stack: &mut Stack<Seat>, line: usize) {
        match self {
            Self::Listens(port) => stack.listen(line, port),
            Self::Connects(peer) => stack.connect(line, peer),
        }
    }
}
