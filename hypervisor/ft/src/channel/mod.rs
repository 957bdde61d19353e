//! The logging channel, sans-I/O: bytes of several connections in, messages of one peer out.
//!
//! The side that listens has [`PLACES`] connections at a time, of anybody; the side that connects has one. A connection becomes the
//! peer's when its handshake has proven that, and a newer one replaces an older one. All others are to be closed by the owner of
//! the sockets, who asks [`must_close`](Channel::must_close); strangers change nothing but counters.

#![allow(
    clippy::result_large_err,
    clippy::large_enum_variant,
    reason = "a refusal names what differs, and nothing may allocate while a guest runs"
)]

pub mod facts;
mod handshake;
mod message;
mod noise;
mod session;
#[cfg(test)]
mod tests;

pub use handshake::{Refusal, VERSION};
pub use message::{Ack, Message, PIECE, Why};
pub use noise::{AesGcm, Role, Sealing};
pub use session::{Broken, Carried, OVERHEAD, RECORD};

use crate::keys::{Incarnation, Keys};
use alloc::vec::Vec;
use core::fmt;
use facts::{Facts, Unfit};
use handshake::{Handshake, Identity, PAYLOAD};
use noise::Spares;
use session::Session;

/// Connections that may be open at a time where the peer is awaited.
pub const PLACES: usize = 4;

/// How long a connection may take to become the peer's, nanoseconds.
pub const HANDSHAKE_NS: u64 = 2_000_000_000;

/// How long the side that connects waits between two handshakes at least, nanoseconds: each uses up one that was made ahead.
pub const PAUSE_NS: u64 = 500_000_000;

/// How long a connection that is refused stays open, so that our answer arrives, nanoseconds.
const LINGER_NS: u64 = 500_000_000;

/// Handshakes that are made ahead, for the time when nothing may allocate.
pub const SPARES: usize = 16;

/// What a channel is made with.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// Who speaks first: the side that connects.
    pub role: Role,
    /// What records are sealed with.
    pub sealing: Sealing,
    /// The generation's keys.
    pub keys: &'a Keys,
    /// Our incarnation.
    pub incarnation: Incarnation,
    /// What we say of ourselves.
    pub facts: Facts<'a>,
}

/// What has happened to connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections that came to stand.
    pub connections: u64,
    /// Of these, became the peer's.
    pub secured: u64,
    /// Ended, or were closed for being late, before it was known whose they are.
    pub abandoned: u64,
    /// Did not speak the protocol: scans, garbage.
    pub garbage: u64,
    /// Spoke another version, or of another generation.
    pub greeting: u64,
    /// Did not have the key.
    pub forged: u64,
    /// Repeated what was captured.
    pub replayed: u64,
    /// Had the key, but were malformed.
    pub malformed: u64,
    /// Had the key, but did not fit or had started anew.
    pub unfit: u64,
    /// Found no handshake that was left.
    pub exhausted: u64,
    /// Were the peer's and broke: a record was changed, or made no sense.
    pub broken: u64,
}

/// Something that the channel's user has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The peer is there. What was under way on an earlier connection is lost: both go on from the next [`Ack`].
    Secured {
        /// Its connection.
        place: usize,
        /// Which start of the peer this is.
        peer: Incarnation,
    },
    /// The peer's connection is gone.
    Lost,
    /// Somebody was refused, and why. Told only if it tells something about the peer: not for strangers.
    Refused(Refusal),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Closed,
    /// Our handshake begins at this time, nanoseconds.
    Waiting(u64),
    /// Whose connection it is will be known before this time, nanoseconds.
    Unknown(u64),
    Peer,
    /// It is to be closed.
    Refused,
    /// It is to be closed at this time, nanoseconds: the other end may be reading our answer.
    Lingering(u64),
}

/// The channel.
pub struct Channel {
    identity: Identity,
    spares: Spares,
    places: [Place; PLACES],
    handshakes: Vec<Handshake>,
    session: Session,
    /// Incarnation and facts of the peer that was here last.
    peer: Vec<u8>,
    events: [Option<Event>; EVENTS],
    counters: Counters,
    broken: Option<Broken>,
    /// No handshake of ours begins before this time, nanoseconds.
    not_before: u64,
}

/// Events that wait at most; of more, the oldest are forgotten.
const EVENTS: usize = 8;

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("counters", &self.counters).finish_non_exhaustive()
    }
}

impl Channel {
    /// Allocates all that it will need, [`SPARES`] handshakes included. `seed`: 32 random bytes at each call.
    ///
    /// # Errors
    /// Our facts do not keep to their limits.
    pub fn new(settings: &Settings<'_>, seed: impl FnMut() -> [u8; 32]) -> Result<Self, Unfit> {
        let generation = settings.keys.generation();
        let cipher = settings.sealing.number();
        let identity = Identity::new(cipher, generation, settings.incarnation, &settings.facts.encode()?);
        let key = settings.keys.channel();
        let mut spares = Spares::new(settings.role, settings.sealing, key, identity.greeting());
        spares.refill(SPARES, seed);
        let count = match settings.role {
            Role::Initiator => 1,
            Role::Responder => PLACES,
        };
        Ok(Self {
            identity,
            spares,
            places: [Place::Closed; PLACES],
            handshakes: core::iter::repeat_with(Handshake::new).take(count).collect(),
            session: Session::new(),
            peer: Vec::with_capacity(PAYLOAD),
            events: [None; EVENTS],
            counters: Counters::default(),
            broken: None,
            not_before: 0,
        })
    }

    /// Makes handshakes again that were used up. Allocates: only while no guest runs.
    pub fn refill(&mut self, seed: impl FnMut() -> [u8; 32]) {
        self.spares.refill(SPARES, seed);
    }

    /// Handshakes that are left.
    pub const fn spares(&self) -> usize {
        self.spares.left()
    }

    /// Accepts no other start of the peer from now on: once the generation is armed, a peer that starts anew has lost what it had.
    pub const fn pin(&mut self, peer: Incarnation) {
        self.identity.pin(peer);
    }

    /// Connections that this channel has use for at a time.
    pub const fn places(&self) -> usize {
        self.handshakes.len()
    }

    /// The connection of this place has come to stand.
    pub fn connected(&mut self, place: usize, now: u64) {
        self.disconnected(place);
        if place >= self.handshakes.len() {
            return;
        }
        self.counters.connections += 1;
        if now < self.not_before {
            self.places[place] = Place::Waiting(self.not_before);
        } else {
            self.begin(place, now);
        }
    }

    fn begin(&mut self, place: usize, now: u64) {
        if self.spares.role() == Role::Initiator {
            self.not_before = now.saturating_add(PAUSE_NS);
        }
        self.places[place] = Place::Unknown(now.saturating_add(HANDSHAKE_NS));
        self.handshakes[place].begin(&mut self.spares, &self.identity);
        self.judge(place);
    }

    /// The connection of this place is gone.
    pub fn disconnected(&mut self, place: usize) {
        let Some(handshake) = self.handshakes.get_mut(place) else { return };
        handshake.reset();
        match core::mem::replace(&mut self.places[place], Place::Closed) {
            Place::Closed | Place::Refused | Place::Lingering(_) => {}
            Place::Waiting(_) | Place::Unknown(_) => self.counters.abandoned += 1,
            Place::Peer => self.lose(),
        }
    }

    fn lose(&mut self) {
        self.session.attach(None);
        self.tell(Event::Lost);
    }

    /// Takes bytes that have arrived at this place; how many. The rest is to be offered again, after [`next`](Self::next).
    /// Bytes for a connection that is to be closed are dropped.
    pub fn feed(&mut self, place: usize, bytes: &[u8]) -> usize {
        match self.places.get(place) {
            Some(Place::Unknown(_)) => {
                let taken = self.handshakes[place].feed(bytes, &mut self.spares, &self.identity);
                self.judge(place);
                taken
            }
            Some(Place::Peer) => {
                let taken = self.session.feed(bytes);
                self.watch(place);
                if self.places[place] == Place::Peer { taken } else { bytes.len() }
            }
            _ => bytes.len(),
        }
    }

    /// Gives out bytes that are to be sent at this place; how many.
    pub fn pull(&mut self, place: usize, out: &mut [u8]) -> usize {
        let Some(handshake) = self.handshakes.get_mut(place) else { return 0 };
        let count = if handshake.is_silent() { 0 } else { handshake.pull(out) };
        self.judge(place);
        if self.places[place] != Place::Peer {
            return count;
        }
        let waiting = self.session.output();
        let room = &mut out[count..];
        let more = waiting.len().min(room.len());
        room[..more].copy_from_slice(&waiting[..more]);
        self.session.sent(more);
        count + more
    }

    /// The next message that has arrived. To be called until there is none, after each [`feed`](Self::feed).
    #[allow(clippy::should_implement_trait, reason = "an iterator cannot lend")]
    pub fn next(&mut self) -> Option<Message<'_>> {
        match self.session.open() {
            Ok(true) => self.session.message(),
            Ok(false) => None,
            Err(_) => {
                if let Some(place) = self.peer_place() {
                    self.watch(place);
                }
                None
            }
        }
    }

    /// Ends a session that is broken.
    fn watch(&mut self, place: usize) {
        if self.places[place] == Place::Peer && self.session.broken().is_some() {
            self.broken = self.session.broken();
            self.retire(place);
            self.counters.broken += 1;
            self.lose();
        }
    }

    /// Has the peer's connection closed.
    fn retire(&mut self, place: usize) {
        self.places[place] = Place::Refused;
        self.handshakes[place].reset();
    }

    /// Follows what has become of a place's handshake.
    fn judge(&mut self, place: usize) {
        if !matches!(self.places[place], Place::Unknown(_)) {
            return;
        }
        if let Some(refusal) = self.handshakes[place].refusal() {
            self.places[place] = Place::Refused;
            self.refuse(refusal);
        } else if let Some((link, peer, payload)) = self.handshakes[place].take() {
            self.peer.clear();
            // There is room for the longest.
            self.peer.extend_from_slice(payload);
            // The peer has one connection: the one that it has proven last.
            if let Some(older) = self.places.iter().position(|other| *other == Place::Peer) {
                self.retire(older);
            }
            if self.session.is_open() {
                self.tell(Event::Lost);
            }
            self.session.attach(Some(link));
            self.places[place] = Place::Peer;
            self.counters.secured += 1;
            self.tell(Event::Secured { place, peer });
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        let counter = match refusal {
            Refusal::Garbage => &mut self.counters.garbage,
            Refusal::Greeting(_) => &mut self.counters.greeting,
            Refusal::Forged => &mut self.counters.forged,
            Refusal::Replayed => &mut self.counters.replayed,
            Refusal::Malformed => &mut self.counters.malformed,
            Refusal::Facts(_) | Refusal::Restarted => &mut self.counters.unfit,
            Refusal::Exhausted => &mut self.counters.exhausted,
        };
        *counter += 1;
        if !matches!(refusal, Refusal::Garbage | Refusal::Replayed) {
            self.tell(Event::Refused(refusal));
        }
    }

    fn tell(&mut self, event: Event) {
        // The same refusal again tells nothing new; a flood of it must not push out what does.
        if self.events.contains(&Some(event)) && matches!(event, Event::Refused(_)) {
            return;
        }
        if !self.events.contains(&None) {
            self.take_event();
        }
        if let Some(place) = self.events.iter_mut().find(|place| place.is_none()) {
            *place = Some(event);
        }
    }

    /// What has happened, oldest first.
    pub fn take_event(&mut self) -> Option<Event> {
        // Asked after each piece of each connection, and an event is long: nothing is moved for nothing.
        self.events[0].as_ref()?;
        let event = self.events[0].take();
        self.events.rotate_left(1);
        event
    }

    /// Does what is due at this place at the time `now`, nanoseconds. Whether its connection has to be broken off; then
    /// [`disconnected`](Self::disconnected) is to be called.
    pub fn must_close(&mut self, place: usize, now: u64) -> bool {
        match self.places.get(place) {
            Some(Place::Waiting(at)) if now >= *at => {
                self.begin(place, now);
                false
            }
            Some(Place::Refused) if self.handshakes[place].has_spoken() => {
                self.places[place] = Place::Lingering(now.saturating_add(LINGER_NS));
                false
            }
            Some(Place::Refused) => true,
            Some(Place::Unknown(until) | Place::Lingering(until)) => now >= *until,
            _ => false,
        }
    }

    /// When [`must_close`](Self::must_close) has something to do, nanoseconds.
    pub fn deadline(&self) -> Option<u64> {
        let due = |place: &Place| match place {
            Place::Waiting(at) | Place::Unknown(at) | Place::Lingering(at) => Some(*at),
            Place::Refused => Some(0),
            Place::Closed | Place::Peer => None,
        };
        self.places.iter().filter_map(due).min()
    }

    /// The place of the peer's connection.
    pub fn peer_place(&self) -> Option<usize> {
        self.places.iter().position(|place| *place == Place::Peer)
    }

    /// Whether messages can be sent.
    pub const fn is_secured(&self) -> bool {
        self.session.is_open()
    }

    /// What the peer that was here last said of itself.
    pub fn peer_facts(&self) -> Option<Facts<'_>> {
        handshake::split(&self.peer).map(|(_, facts)| facts)
    }

    /// Sends a message; whether there was room for it, and a peer. Log pieces rather by [`send_log`](Self::send_log).
    pub fn send(&mut self, message: &Message<'_>) -> bool {
        self.session.send(message)
    }

    /// Sends the log's next bytes, as many as one record takes and there is room for; how many. The larger the pieces, the
    /// fewer the bytes that are added ([`OVERHEAD`] each).
    pub fn send_log(&mut self, log: &[u8]) -> usize {
        self.session.send_log(log)
    }

    /// Sealed bytes that wait to be pulled.
    pub const fn waiting(&self) -> usize {
        self.session.waiting()
    }

    /// Why a session broke the last time, if one did.
    pub const fn broken(&self) -> Option<Broken> {
        self.broken
    }

    /// What was carried.
    pub const fn carried(&self) -> Carried {
        self.session.carried()
    }

    /// What has happened to connections.
    pub const fn counters(&self) -> Counters {
        self.counters
    }
}
