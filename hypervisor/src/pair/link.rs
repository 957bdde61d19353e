//! The link to the other host: channel, heartbeats, arbiter and state machine, driven together.

use super::beats::Beats;
use super::open::random;
use super::wire::{Arrival, Wire};
use crate::arch::alarm::{self, Alarm};
use crate::arch::time;
use crate::guest::{Journal, Outside};
use crate::machine_line;
use alloc::boxed::Box;
use core::cell::{Cell, RefCell};
use core::fmt::{self, Write};
use ft::Text;
use ft::announce::Rounds;
use ft::arbiter::lock::Client;
use ft::arbiter::lock::wire::REPLY;
use ft::arbiter::{Arbiter, Ask};
use ft::channel::facts::Difference;
use ft::channel::{self, Ack, Message, Refusal};
use ft::heartbeat::{Beat, Status};
use ft::histogram::Histogram;
use ft::history::HistoryEvent;
use ft::lag::{FULL, Lag};
use ft::pair::{Action, Event, Halted, Order, Pair, Role, State};
use ft::side::{Path, Side};
use ft::timeline::Timeline;
use heapless::{Deque, Vec};
use net::{DATAGRAM, Peer};
use replay::log::stream::Stream;

/// Actions of one event at most.
const ACTIONS: usize = 16;

/// Fewer handshakes than this that were made ahead are few.
const FEW_SPARES: usize = 4;

/// The backup tells how far it has executed at least as often, while it does, nanoseconds.
const TELL_NS: u64 = 20_000_000;

/// What changes for the guest on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The primary goes on alone: nothing is recorded or held back any more.
    Solo,
    /// The backup goes live.
    Live,
    /// The guest stops for good: the other host has it, or nobody.
    Halted,
    /// The virtual machine has ended on both hosts.
    Ended,
}

/// What the link reaches of the guest.
pub struct Ends<'b> {
    /// The log on its way out; none on a backup.
    pub journal: Option<&'b mut Journal>,
    /// The log as it arrives; none on a primary.
    pub stream: Option<&'b mut Stream<'static>>,
    /// What the guest has sent, and the cards; none before it starts.
    pub outside: Option<&'b mut Outside>,
    /// The guest's time without what it has skipped while it was halted, nanoseconds: what there is to be executed.
    pub virtual_ns: u64,
    /// How long the guest has run by the host's clock, nanoseconds: neither halted nor held back.
    pub ran_ns: u64,
    /// A backup's guest has executed all of the log that has arrived.
    pub drained: bool,
    /// The guest is halted.
    pub halted: bool,
}

/// This host's half of the pair.
pub struct Link {
    pair: Pair,
    wire: Wire,
    beats: Beats,
    arbiter: Client,
    arbiter_at: Peer,
    peer_at: Peer,
    side: Side,
    /// Position up to which the log was given to the channel; none until the backup has said what it has.
    sent: Option<u64>,
    /// What the primary was told last, and when.
    told: Ack,
    told_at: u64,
    /// Nothing more is taken from the channel.
    draining: bool,
    started: bool,
    turn: Option<Turn>,
    /// What an operator has ordered on the other host.
    order: Option<Order>,
    /// The backup is still to be told that the guest stands still, or goes on: before any more of the log.
    paused: Option<bool>,
    /// Announcements of the guest's addresses, once this host is live.
    rounds: Option<Rounds>,
    /// How far the backup is behind, and what share of the time the primary's guest has therefore.
    lag: Lag,
    /// What the primary had run when.
    timeline: Timeline,
    /// Positions of the last round, for heartbeats and people.
    positions: Positions,
}

#[derive(Clone, Copy, Debug, Default)]
struct Positions {
    sent: u64,
    received: u64,
    executed: u64,
    virtual_ns: u64,
}

/// What a link is made from.
pub struct Parts {
    /// The state machine.
    pub pair: Pair,
    /// The logging card.
    pub wire: Wire,
    /// Heartbeats.
    pub beats: Beats,
    /// The arbiter, and where it is.
    pub arbiter: (Client, Peer),
    /// Where the peer's heartbeats go.
    pub peer_at: Peer,
    /// This host.
    pub side: Side,
    /// How far the backup's execution may be behind, nanoseconds.
    pub lag_ns: u64,
}

impl Link {
    /// A link that looks for the peer.
    pub fn new(parts: Parts) -> Box<Self> {
        let Parts { pair, wire, beats, arbiter: (arbiter, arbiter_at), peer_at, side, lag_ns } = parts;
        Box::new(Self {
            pair,
            wire,
            beats,
            arbiter,
            arbiter_at,
            peer_at,
            side,
            sent: None,
            told: Ack::default(),
            told_at: 0,
            draining: false,
            started: false,
            turn: None,
            order: None,
            paused: None,
            rounds: None,
            lag: Lag::new(lag_ns),
            timeline: Timeline::new(),
            positions: Positions::default(),
        })
    }

    /// What this host is.
    pub fn state(&self) -> State {
        self.pair.state()
    }

    /// Its role.
    pub fn role(&self) -> Role {
        self.pair.role()
    }

    /// Whether the log goes further than this link has seen.
    pub const fn is_behind(&self, position: u64) -> bool {
        self.positions.sent < position
    }

    /// Makes handshakes again that a peer which does not fit has used up: it may be mended. Allocates, so only before the guest starts.
    pub fn refill(&mut self) {
        if self.wire.channel.spares() < FEW_SPARES {
            self.wire.channel.refill(random);
        }
    }

    /// The primary's guest has this share of the time, in 1/1024.
    pub const fn share(&self) -> u32 {
        self.lag.share()
    }

    /// How far the backup was behind at its acknowledgements, nanoseconds.
    pub const fn lags(&self) -> &Histogram {
        self.lag.lags()
    }

    /// How far it was at the last one, nanoseconds.
    pub const fn lag_ns(&self) -> u64 {
        self.lag.lag_ns()
    }

    /// How far it may be, nanoseconds.
    pub const fn lag_target_ns(&self) -> u64 {
        self.lag.target_ns()
    }

    /// Whether the guest may start.
    pub const fn has_started(&self) -> bool {
        self.started
    }

    /// Whether there is nothing to be done for the pair any more.
    pub fn is_over(&self) -> bool {
        matches!(self.pair.state(), State::Halted(_) | State::Ended)
    }

    /// Does what is due. What changes for the guest, if anything.
    pub fn serve(&mut self, ends: &mut Ends<'_>) -> Option<Turn> {
        let now = time::now_ns();
        self.announce(now, ends);
        self.note_positions(ends);
        self.receive(now, ends);
        self.ask_arbiter(now, ends);
        self.step(Event::Tick, now, ends);
        if self.draining && ends.drained {
            let position = self.positions.received;
            self.step(Event::Drained { position }, now, ends);
        }
        if let Some(outside) = &mut ends.outside {
            outside.release(self.pair.released(), now);
        }
        self.send(now, ends);
        self.set_alarm(now, ends);
        self.turn.take()
    }

    /// Tells the neighbours where the guest is now, for a while.
    fn announce(&mut self, now: u64, ends: &mut Ends<'_>) {
        if let Some(rounds) = &mut self.rounds
            && rounds.take(now)
            && let Some(outside) = &mut ends.outside
        {
            outside.announce();
        }
    }

    /// Tells the state machine something, and does what it says.
    pub fn tell(&mut self, event: Event, ends: &mut Ends<'_>) {
        self.step(event, time::now_ns(), ends);
    }

    /// Gives the primary an order. False: it cannot be reached.
    pub fn forward(&mut self, order: Order, ends: &mut Ends<'_>) -> bool {
        let reached = self.pair.role() == Role::Backup
            && self.pair.state() == State::Protected
            && self.pair.channel_is_up();
        self.tell(Event::Order(order), ends);
        reached
    }

    /// What an operator has ordered on the other host, once.
    pub const fn take_order(&mut self) -> Option<Order> {
        self.order.take()
    }

    /// Whether the guest stands still by order, as far as this host knows.
    pub const fn is_paused(&self) -> bool {
        self.pair.is_paused()
    }

    fn note_positions(&mut self, ends: &Ends<'_>) {
        self.positions.virtual_ns = ends.virtual_ns;
        if let Some(journal) = &ends.journal {
            let sent = journal.bytes().0;
            if core::mem::replace(&mut self.positions.sent, sent) != sent {
                self.timeline.note(ends.virtual_ns, ends.ran_ns);
            }
        }
        if let Some(stream) = &ends.stream {
            (self.positions.received, self.positions.executed) = (stream.received(), stream.executed());
        }
    }

    /// Takes in what has come to the cards.
    fn receive(&mut self, now: u64, ends: &mut Ends<'_>) {
        self.wire.take_in(now);
        loop {
            let mut events: Deque<Event, ACTIONS> = Deque::new();
            let taken = Cell::new(false);
            let stream = RefCell::new(ends.stream.as_deref_mut());
            let Self { wire, draining, sent, told, told_at, beats, .. } = self;
            let mut note = |event: Event| {
                // Of several acknowledgements the last says all.
                let again = matches!((events.back(), &event), (Some(Event::Acked(_)), Event::Acked(_)));
                if again {
                    events.pop_back();
                }
                if events.back() != Some(&event) {
                    // More than fit do not come in one piece but from a peer that does not keep to the protocol.
                    let _ = events.push_back(event);
                }
            };
            let left = wire.receive(
                now,
                // What has come is to be followed up before the next piece comes.
                &mut |bytes| {
                    let room = stream.borrow().as_ref().is_none_or(|stream| stream.room() >= 2 * bytes);
                    !taken.get() && room
                },
                &mut |arrival| {
                    taken.set(true);
                    note(match arrival {
                        Arrival::Message(Message::Log(piece)) => {
                            if let Some(stream) = stream.borrow_mut().as_mut().filter(|_| !*draining) {
                                // There is room: it was asked.
                                let _ = stream.push(piece);
                            }
                            Event::ChannelHeard
                        }
                        Arrival::Message(Message::Ack(ack)) => {
                            // The first on a connection says where to go on.
                            sent.get_or_insert(ack.received);
                            Event::Acked(ack)
                        }
                        Arrival::Message(Message::Armed { generation }) => Event::Armed(generation),
                        Arrival::Message(Message::Goodbye(why)) => Event::Goodbye(why),
                        Arrival::Message(Message::Order(order)) => Event::PeerOrder(order),
                        Arrival::Message(Message::Paused(paused)) => Event::Paused(paused),
                        Arrival::Message(Message::Ready | Message::Ping) => Event::ChannelHeard,
                        Arrival::Event(&channel::Event::Secured { peer, .. }) => {
                            // The backup says again what it has.
                            (*sent, *told_at, told.received) = (None, 0, u64::MAX);
                            beats.meet(peer);
                            Event::ChannelUp { peer }
                        }
                        Arrival::Event(channel::Event::Lost) => Event::ChannelDown,
                        Arrival::Event(channel::Event::Refused(Refusal::Restarted)) => Event::PeerRestarted,
                        Arrival::Event(channel::Event::Refused(refusal)) => Event::Refused(refused(refusal)),
                    });
                },
            );
            while let Some(event) = events.pop_front() {
                if let Event::Acked(ack) = event {
                    let executed = self.timeline.ran_at(ack.executed_ns);
                    self.lag.acked(now, self.timeline.ran_ns(), executed);
                }
                self.step(event, now, ends);
            }
            // Without anything taken, the guest's side has no room for more.
            if !left || !taken.get() {
                break;
            }
        }
        self.hear(now, ends);
    }

    /// Heartbeats, and the arbiter's replies: datagrams.
    fn hear(&mut self, now: u64, ends: &mut Ends<'_>) {
        if self.wire.has_datagram() {
            self.hear_datagrams(now, ends);
        }
        while let Some(beat) = self.beats.next() {
            self.heard(Path::Guest, &beat, now, ends);
        }
    }

    fn hear_datagrams(&mut self, now: u64, ends: &mut Ends<'_>) {
        let mut bytes = [0; DATAGRAM];
        while let Some((length, from)) = self.wire.datagram(&mut bytes) {
            let datagram = &bytes[..length];
            if from == self.arbiter_at {
                if length == REPLY {
                    self.arbiter.receive(datagram);
                }
            } else if let Some(beat) = self.beats.open(datagram) {
                self.heard(Path::Logging, &beat, now, ends);
            }
        }
    }

    fn heard(&mut self, path: Path, beat: &Beat, now: u64, ends: &mut Ends<'_>) {
        let (generation, status) = (beat.generation, beat.status);
        if self.pair.role() == Role::Backup
            && matches!(status, Status::Primary | Status::Paused)
            && let Some(outside) = &mut ends.outside
        {
            // What the primary has let out need not be kept here.
            outside.forget(beat.received);
        }
        self.step(Event::Heard { path, generation, status }, now, ends);
    }

    fn ask_arbiter(&mut self, now: u64, ends: &mut Ends<'_>) {
        while let Some(request) = self.arbiter.transmit(now) {
            self.wire.send_datagram(self.arbiter_at, &request);
        }
        while let Some(answer) = self.arbiter.poll(now) {
            self.step(Event::Answer(answer), now, ends);
            while let Some(request) = self.arbiter.transmit(now) {
                self.wire.send_datagram(self.arbiter_at, &request);
            }
        }
    }

    fn step(&mut self, event: Event, now: u64, ends: &mut Ends<'_>) {
        let mut actions: Vec<Action, ACTIONS> = Vec::new();
        self.pair.step(event, now, &mut |action| {
            actions.push(action).expect("no event has so many actions");
        });
        for action in actions {
            self.act(action, now, ends);
        }
    }

    fn act(&mut self, action: Action, now: u64, ends: &mut Ends<'_>) {
        match action {
            Action::SendBeat { path, status } => self.beat(path, status, ends),
            Action::Ask(ask) => self.ask(ask, now),
            Action::SendArmed { generation } => {
                self.wire.channel.send(&Message::Armed { generation });
            }
            Action::StartGuest => {
                if let Some(peer) = self.pair.peer() {
                    self.wire.channel.pin(peer);
                }
                self.started = true;
            }
            Action::ReleaseTo(position) => {
                if let Some(outside) = &mut ends.outside {
                    outside.release(position, now);
                }
            }
            Action::ReleaseAll => self.turn = Some(Turn::Solo),
            Action::Drain => self.draining = true,
            Action::GoLive => {
                self.turn = Some(Turn::Live);
                self.rounds = Some(Rounds::new(now));
            }
            Action::SendGoodbye(why) => {
                self.wire.channel.send(&Message::Goodbye(why));
                self.wire.send(now);
            }
            Action::CloseChannel => self.wire.close(),
            Action::Halt(_) => self.turn = Some(Turn::Halted),
            Action::StopGuest => {
                if self.pair.state() == State::Ended {
                    self.turn = Some(Turn::Ended);
                }
            }
            Action::Forward(order) => {
                self.wire.channel.send(&Message::Order(order));
                self.wire.send(now);
            }
            Action::SendPaused(paused) => self.paused = Some(paused),
            Action::Apply(order) => self.order = Some(order),
            // Whoever ends the guest closes the log himself; if it was ordered on the other host, nobody does yet.
            Action::EndLog => self.order = Some(Order::PowerOff),
            Action::Note(event) => {
                log::info!("pair: {event}");
                machine_line!(
                    "pair event={} side={} role={} generation={} ns={now}",
                    event.name(),
                    self.side,
                    self.pair.role(),
                    self.pair.generation()
                );
                if let HistoryEvent::PathLost(path) | HistoryEvent::PathBack(path) = event {
                    let (sent, seen) = self.beats.counters(path);
                    machine_line!(
                        "pair-path path=\"{path}\" sent={sent} accepted={} missed={} refused={}",
                        seen.accepted,
                        seen.missed,
                        seen.refused()
                    );
                }
            }
        }
    }

    fn ask(&mut self, ask: Ask, now: u64) {
        if !self.arbiter.is_safe() && matches!(ask, Ask::Arm { .. }) {
            log::warn!(
                "UNSAFE: {} arbitrates, not a shared disk: what it knows does not outlast it",
                self.arbiter.name()
            );
        }
        self.arbiter.ask(ask, now);
        while let Some(request) = self.arbiter.transmit(now) {
            self.wire.send_datagram(self.arbiter_at, &request);
        }
    }

    fn beat(&mut self, path: Path, status: Status, ends: &mut Ends<'_>) {
        let Positions { sent, received, executed, virtual_ns, .. } = self.positions;
        // A primary receives no log; it says there what it has released.
        let received = if self.pair.role() == Role::Primary { self.pair.released() } else { received };
        let generation = self.pair.generation();
        let beat = Beat { generation, status, sent, received, executed, virtual_ns };
        match path {
            Path::Logging => {
                if let Some(datagram) = self.beats.datagram(&beat) {
                    self.wire.send_datagram(self.peer_at, &datagram);
                }
            }
            Path::Guest => {
                if let Some(outside) = &mut ends.outside
                    && let Some(frame) = self.beats.frame(&beat)
                {
                    outside.send_aside(&frame);
                }
            }
        }
    }

    /// Has the log leave before anything else is done, as far as the channel and the card have room; [`serve`](Self::serve) is to
    /// follow when something comes. At which tick the card was told, if all of it left.
    pub fn hurry(&mut self, ends: &mut Ends<'_>) -> Option<u64> {
        let now = time::now_ns();
        self.note_positions(ends);
        if self.paused.is_some() {
            // That is told before any more of the log.
            self.send(now, ends);
            self.set_alarm(now, ends);
            return None;
        }
        let journal = ends.journal.as_deref_mut()?;
        self.send_log(journal);
        if ends.outside.as_ref().is_some_and(|outside| outside.holds()) {
            self.wire.set_awaited(true);
        }
        let on_wire = self.wire.hurry(now);
        self.step(Event::Sent(self.positions.sent), now, &mut Ends::nothing());
        if alarm::deadline(Alarm::Log).is_none_or(|at| self.wire.due().is_some_and(|due| due < at)) {
            self.set_alarm(now, ends);
        }
        on_wire
    }

    /// Gives the channel what it has to carry, and sends.
    fn send(&mut self, now: u64, ends: &mut Ends<'_>) {
        self.fill(now, ends);
        // A primary with no output to let out can hear later what the backup has.
        let holds = ends.outside.as_ref().is_some_and(|outside| outside.holds());
        let protected = self.pair.role() == Role::Primary && self.pair.state() == State::Protected;
        self.wire.set_awaited(holds || !protected);
        self.wire.send(now);
    }

    /// Gives the channel what it has to carry.
    fn fill(&mut self, now: u64, ends: &mut Ends<'_>) {
        if let Some(journal) = &mut ends.journal {
            let position = journal.bytes().0;
            self.step(Event::Sent(position), now, &mut Ends::nothing());
            if let Some(paused) = self.paused
                && self.wire.channel.send(&Message::Paused(paused))
            {
                self.paused = None;
            }
            if self.paused.is_none() {
                self.send_log(journal);
            }
        }
        if let Some(stream) = &ends.stream {
            let ack = Ack {
                received: stream.received(),
                executed: stream.executed(),
                executed_ns: ends.virtual_ns,
            };
            let news = ack.received != self.told.received
                || ack.executed != self.told.executed && now.saturating_sub(self.told_at) >= TELL_NS;
            if news && !self.draining && self.wire.channel.send(&Message::Ack(ack)) {
                (self.told, self.told_at) = (ack, now);
            }
        }
    }

    /// Gives the log to the channel, from where the backup has it on.
    fn send_log(&mut self, journal: &mut Journal) {
        let buffer = journal.buffer();
        let acked = self.pair.acked().received;
        if acked > buffer.consumed() {
            buffer.consume((acked - buffer.consumed()) as usize);
        }
        let Some(mut sent) = self.sent else { return };
        while sent != buffer.pushed() {
            let Some(skip) = sent.checked_sub(buffer.consumed()) else {
                // The backup has less than it has acknowledged: no such peer is believed.
                self.sent = None;
                return;
            };
            let (near, far) = buffer.readable();
            let rest = match near.get(skip as usize..) {
                Some(rest) if !rest.is_empty() => rest,
                _ => far.get(skip as usize - near.len()..).unwrap_or_default(),
            };
            let count = self.wire.channel.send_log(rest);
            if count == 0 {
                break;
            }
            sent += count as u64;
        }
        self.sent = Some(sent);
    }

    /// Has [`crate::duties::LOG`] raised when something is due.
    fn set_alarm(&self, now: u64, ends: &Ends<'_>) {
        // A guest that runs exits for its clock often enough.
        let block = ends.journal.as_ref().filter(|_| ends.halted).and_then(|journal| journal.block_due(true));
        let rounds = self.rounds.as_ref().and_then(Rounds::due);
        // A backup that executes what it has tells so though nothing arrives.
        let executes = self.started && !ends.drained && ends.stream.is_some();
        let tell = executes.then(|| now.saturating_add(TELL_NS));
        let dues =
            [self.pair.next_deadline(), self.arbiter.next_deadline(), self.wire.due(), block, rounds, tell];
        alarm::set(Alarm::Log, dues.into_iter().flatten().min());
    }

    /// Keeps a frame from the guest's card if it is a heartbeat: then it is nothing for the guest.
    pub fn takes(&mut self, frame: &[u8]) -> bool {
        self.beats.take(frame)
    }

    /// Tells about the pair, for the shell.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn describe(&self, out: &mut dyn Write) -> fmt::Result {
        let Positions { sent, received, executed, .. } = self.positions;
        let (pair, acked) = (&self.pair, self.pair.acked());
        writeln!(
            out,
            "host {}: {}, {}; generation {}; arbiter: {}{}",
            self.side,
            pair.role(),
            pair.state(),
            pair.generation(),
            self.arbiter.name(),
            if self.arbiter.is_safe() { "" } else { " (UNSAFE)" }
        )?;
        match pair.role() {
            Role::Primary => writeln!(
                out,
                "log: {sent} bytes, acknowledged {}, executed {}, released {}; backup {} us behind",
                acked.received,
                acked.executed,
                pair.released(),
                self.lag.lag_ns() / 1000
            )
            .and_then(|()| self.describe_lag(out))?,
            Role::Backup => writeln!(out, "log: {received} bytes received, {executed} executed")?,
        }
        let carried = self.wire.channel.carried();
        let up = if pair.channel_is_up() { "stands" } else { "is down" };
        writeln!(
            out,
            "channel {up} on card {}: {} records sent ({} bytes), {} received ({} bytes)",
            self.wire.address(),
            carried.sent_records,
            carried.sent_bytes,
            carried.received_records,
            carried.received_bytes
        )?;
        let strangers = self.wire.channel.counters();
        writeln!(
            out,
            "strangers: garbage {}, other greeting {}, forged {}, replayed {}, abandoned {}",
            strangers.garbage, strangers.greeting, strangers.forged, strangers.replayed, strangers.abandoned
        )?;
        for path in Path::ALL {
            let (sent, seen) = self.beats.counters(path);
            let hears = if pair.hears(path) { "heard" } else { "silent" };
            writeln!(
                out,
                "heartbeats on the {path}: {hears}; {sent} sent, {} accepted, {} missed, {} refused",
                seen.accepted,
                seen.missed,
                seen.refused()
            )?;
        }
        Ok(())
    }

    fn describe_lag(&self, out: &mut dyn Write) -> fmt::Result {
        let lags = self.lag.lags();
        writeln!(
            out,
            "lag: target {} us, median {} us, 99 of 100 {} us, {} us at most; the guest has {}/{FULL} of the time, slowed {} times",
            self.lag.target_ns() / 1000,
            lags.quantile(500) / 1000,
            lags.quantile(990) / 1000,
            lags.most() / 1000,
            self.lag.share(),
            self.lag.slowed()
        )
    }

    /// Tells what has happened, for the shell.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn events(&self, out: &mut dyn Write) -> fmt::Result {
        for (at, event) in self.pair.history().iter() {
            writeln!(out, "{:>8}.{:03} s {event}", at / 1_000_000_000, at / 1_000_000 % 1000)?;
        }
        Ok(())
    }

    /// Why this host has given up, if it has.
    pub fn halted(&self) -> Option<Halted> {
        match self.pair.state() {
            State::Halted(why) => Some(why),
            _ => None,
        }
    }
}

impl Ends<'_> {
    /// Nothing of the guest.
    pub const fn nothing() -> Self {
        Self {
            journal: None,
            stream: None,
            outside: None,
            virtual_ns: 0,
            ran_ns: 0,
            drained: false,
            halted: false,
        }
    }
}

/// Why a peer was refused, in words.
fn refused(refusal: &Refusal) -> Text {
    match refusal {
        Refusal::Facts(difference) | Refusal::Greeting(difference) => said(difference),
        other => Text::of(other),
    }
}

fn said(difference: &Difference) -> Text {
    Text::of(difference)
}
