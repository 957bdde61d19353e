//! The log's sender: moves bytes from the log buffer into a TCP connection to whoever receives the log.
//!
//! It is polled whenever [`duties::LOG`] is pending and whenever something was put into the buffer. Acknowledgements are
//! looked at when there is something to do anyway: the card interrupts for them only while somebody waits for them, so that a
//! log of a few blocks a second costs the guest next to nothing.

use crate::arch::alarm::{self, Alarm};
use crate::arch::{cpu, time};
use crate::network::Nic;
use crate::network::service::{OpenError, Service};
use crate::{duties, machine_line};
use core::fmt::{self, Write};
use hal::{Filter, NetDevice, NetEvents};
use net::{Settings, Stack, State};
use replay::log::buffer::LogBuffer;
use vm_config::Record;

/// The connection's line.
const LINE: usize = 0;

/// Bytes on their way that are not acknowledged: 2 ms at gigabit speed.
const SEND_BYTES: usize = 256 << 10;

/// Bytes from the receiver, which has nothing to say yet.
const RECEIVE_BYTES: usize = 4 << 10;

/// How long a receiver that owes an acknowledgement may be silent, in milliseconds.
const SILENCE_MS: u64 = 150_000;

/// How long the receiver may take to be there when the guest is to start, in nanoseconds.
const CONNECT_NS: u64 = 60_000_000_000;

/// How long the connection's end may take, in nanoseconds.
const CLOSE_NS: u64 = 10_000_000_000;

/// While acknowledgements are awaited that nobody waits for, they are looked at as seldom as this, in nanoseconds.
const LOOK_NS: u64 = 1_000_000;

/// Why the log cannot leave.
#[derive(Debug)]
pub enum Trouble {
    /// The card.
    Card(OpenError),
    /// Nobody receives it.
    NoPeer {
        /// The receiver's address and port.
        peer: ([u8; 4], u16),
        /// Attempts that were made.
        attempts: u64,
    },
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Card(error) => write!(f, "record.card: {error}"),
            Self::NoPeer { peer: ([a, b, c, d], port), attempts } => write!(
                f,
                "record.peer: nobody receives the log at {a}.{b}.{c}.{d}:{port} ({attempts} attempts); start its receiver, \
                 and see that card and addresses are right"
            ),
        }
    }
}

/// The sender, with its connection.
pub struct LogSender {
    stack: Stack<Nic>,
    service: Service,
    peer: ([u8; 4], u16),
    /// What the card may interrupt for.
    wanted: NetEvents,
    /// When it was polled last, nanoseconds of uptime.
    polled: u64,
    /// The stack's next deadline.
    due: Option<u64>,
    polls: u64,
}

impl LogSender {
    /// Starts the card and connects to the receiver, which must come within a minute. Allocates all that it will need; on the
    /// boot processor, before the pools are closed.
    ///
    /// # Errors
    /// The card cannot be used, or nobody receives the log.
    pub fn open(record: &Record) -> Result<Self, Trouble> {
        let (mut nic, service) =
            Service::open(&record.card, duties::LOG, Alarm::Log).map_err(Trouble::Card)?;
        nic.set_filter(Filter::default());
        let settings = Settings {
            address: record.address,
            prefix: record.prefix,
            seed: cpu::random(),
            send_bytes: SEND_BYTES,
            receive_bytes: RECEIVE_BYTES,
            patience_ms: SILENCE_MS,
            lines: 1,
            haste: 1,
            only: None,
            datagrams: None,
        };
        let stack = Stack::new(nic, &settings);
        let peer = record.peer;
        let mut sender =
            Self { stack, service, peer, wanted: NetEvents::NONE, polled: 0, due: None, polls: 0 };
        let ([a, b, c, d], port) = peer;
        let (address, way) = (sender.service.address(), sender.service.way());
        log::info!(
            "the log goes to {a}.{b}.{c}.{d}:{port} by network card {address}; waiting for its receiver"
        );
        sender.stack.connect(LINE, peer);
        if !sender.wait_connected(time::now_ns().saturating_add(CONNECT_NS)) {
            return Err(Trouble::NoPeer { peer, attempts: sender.stack.counters().attempts });
        }
        let attempts = sender.stack.counters().attempts;
        machine_line!(
            "log-channel event=connected card={address} peer={a}.{b}.{c}.{d}:{port} by=\"{way}\" attempts={attempts}"
        );
        Ok(sender)
    }

    /// Waits for the connection, until the uptime `until`, nanoseconds. Whether it stands.
    fn wait_connected(&mut self, until: u64) -> bool {
        self.wait(until, |stack| stack.state(LINE) == State::Connected)
    }

    fn wait(&mut self, until: u64, done: impl Fn(&Stack<Nic>) -> bool) -> bool {
        while !done(&self.stack) {
            let now = time::now_ns();
            if now >= until || self.stack.state(LINE) == State::Lost {
                return false;
            }
            self.work(now);
        }
        true
    }

    /// Sends what the buffer holds, as far as there is room, and does what is due for the connection. Costs next to nothing
    /// when there is nothing to do. To be called whenever [`duties::LOG`] is pending and whenever there is something in the
    /// buffer; takes the duty.
    #[inline]
    pub fn poll(&mut self, buffer: &mut LogBuffer<'_>) {
        let called = duties::pending() & duties::LOG != 0;
        if called || !buffer.is_empty() || self.stack.unacknowledged(LINE) != 0 {
            self.poll_now(buffer, called);
        }
    }

    fn poll_now(&mut self, buffer: &mut LogBuffer<'_>, called: bool) {
        let now = time::now_ns();
        let moved = self.take_from(buffer);
        let early = now.saturating_sub(self.polled) < LOOK_NS;
        if early && !called && !moved && buffer.is_empty() {
            return;
        }
        duties::take(duties::LOG);
        self.work(now);
        // What was acknowledged has made room.
        if self.take_from(buffer) {
            self.work(now);
        }
        self.want(!buffer.is_empty());
        self.set_alarm();
    }

    /// Moves bytes from the buffer to the connection; whether there were any.
    fn take_from(&mut self, buffer: &mut LogBuffer<'_>) -> bool {
        let (near, far) = buffer.readable();
        let mut moved = self.stack.send(LINE, near);
        if moved == near.len() {
            moved += self.stack.send(LINE, far);
        }
        buffer.consume(moved);
        moved != 0
    }

    /// Lets card and stack do what there is to do.
    fn work(&mut self, now: u64) {
        self.polls += 1;
        self.polled = now;
        let events = self.stack.card().take_events();
        let before = self.stack.counters().received_frames;
        self.due = self.stack.poll(now);
        let busy = events != NetEvents::NONE || self.stack.counters().received_frames != before;
        let more = self.due.is_some_and(|due| due <= now);
        self.service.polled(busy, more);
    }

    /// Chooses what the card interrupts for. `waiting`: the guest's log waits for room.
    fn want(&mut self, waiting: bool) {
        let sent = self.stack.waits_for_card();
        let received = waiting || self.stack.state(LINE) != State::Connected;
        let quiet = self.service.is_quiet();
        let wanted = if quiet { NetEvents::NONE } else { NetEvents { received, sent, link: false } };
        if wanted != self.wanted {
            self.wanted = wanted;
            self.stack.card().set_events(wanted);
        }
    }

    /// Has [`duties::LOG`] raised when the stack wants to be polled.
    fn set_alarm(&self) {
        alarm::set(Alarm::Log, self.due.into_iter().chain(self.service.due()).min());
    }

    /// Whether everything that was in the buffer has left and the receiver has acknowledged it.
    pub fn drained(&self, buffer: &LogBuffer<'_>) -> bool {
        buffer.is_empty() && self.stack.unacknowledged(LINE) == 0 && self.stack.state(LINE) != State::Lost
    }

    /// Bytes that the receiver has acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.stack.counters().sent_bytes - self.stack.unacknowledged(LINE) as u64
    }

    /// Whether the connection is lost for good: the log has a hole from here on.
    pub fn is_lost(&self) -> bool {
        self.stack.state(LINE) == State::Lost
    }

    /// Ends the connection: the receiver learns that it has everything. Waits for that, a few seconds at most; whether it has
    /// said so. The card is out of service afterwards.
    pub fn close(&mut self) -> bool {
        self.stack.close(LINE);
        let closed =
            self.wait(time::now_ns().saturating_add(CLOSE_NS), |stack| stack.state(LINE) == State::Closed);
        let counters = self.stack.counters();
        machine_line!(
            "log-channel event=closed whole={closed} bytes={} frames-sent={} frames-received={} card-full={} polls={}",
            counters.sent_bytes,
            counters.sent_frames,
            counters.received_frames,
            counters.card_full,
            self.polls
        );
        alarm::set(Alarm::Log, None);
        self.service.close(self.stack.card());
        closed
    }

    /// Tells about the channel, for the shell.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn tell(&self, out: &mut dyn Write) -> fmt::Result {
        let (counters, ([a, b, c, d], port)) = (self.stack.counters(), self.peer);
        let (address, way, state) = (self.service.address(), self.service.way(), self.stack.state(LINE));
        writeln!(out, "logging channel to {a}.{b}.{c}.{d}:{port}: {state}, card {address}, by {way}")?;
        writeln!(
            out,
            "  sent {} bytes, {} not acknowledged; frames {} sent, {} received, {} waited for room; polled {} times",
            counters.sent_bytes,
            self.stack.unacknowledged(LINE),
            counters.sent_frames,
            counters.received_frames,
            counters.card_full,
            self.polls
        )
    }
}
