//! The lock server's client: asks again until there is an answer, and does not guess when there is none.

use super::super::record::{Record, VmId};
use super::super::{Answer, Arbiter, Ask};
use super::wire::{Operation, REQUEST, Reply, Request, Verdict};
use crate::keys::Incarnation;
use crate::side::Side;

/// What a client is made with.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The virtual machine.
    pub vm: VmId,
    /// This host.
    pub side: Side,
    /// This start of it.
    pub nonce: Incarnation,
    /// How long it waits before it sends a request again, nanoseconds.
    pub again_ns: u64,
    /// How long it asks before it gives up, nanoseconds.
    pub give_up_ns: u64,
}

impl Settings {
    /// Default of [`again_ns`](Self::again_ns): some round trips of a local network.
    pub const AGAIN_NS: u64 = 10_000_000;
    /// Default of [`give_up_ns`](Self::give_up_ns).
    pub const GIVE_UP_NS: u64 = 200_000_000;
}

/// A question under way.
#[derive(Clone, Copy, Debug)]
struct Pending {
    ask: Ask,
    request: [u8; REQUEST],
    id: u64,
    /// When it is sent next, and when it is given up.
    send_at: u64,
    until: u64,
}

/// The client.
#[derive(Debug)]
pub struct Client {
    settings: Settings,
    pending: Option<Pending>,
    answer: Option<Answer>,
    record: Option<Record>,
    next_id: u64,
    /// Datagrams that were no reply to what is asked.
    strays: u64,
}

impl Client {
    /// A client that has asked nothing yet.
    #[must_use]
    pub const fn new(settings: Settings) -> Self {
        Self { settings, pending: None, answer: None, record: None, next_id: 1, strays: 0 }
    }

    /// The datagram that is to be sent to the server now, if any. To be called until there is none.
    pub fn transmit(&mut self, now: u64) -> Option<[u8; REQUEST]> {
        let pending = self.pending.as_mut()?;
        if now < pending.send_at || now >= pending.until {
            return None;
        }
        pending.send_at = now.saturating_add(self.settings.again_ns.max(1));
        Some(pending.request)
    }

    /// Takes a datagram from the server. What is no reply to the question under way is counted and dropped.
    pub fn receive(&mut self, datagram: &[u8]) {
        let reply = Reply::parse(datagram);
        let fitting = self.pending.zip(reply).filter(|(pending, reply)| self.fits(pending, reply));
        let answer = fitting.and_then(|(pending, reply)| answer(&pending.ask, reply.verdict));
        if answer.is_none() {
            self.strays = self.strays.saturating_add(1);
            return;
        }
        (self.pending, self.answer) = (None, answer);
        self.record = reply.and_then(|reply| reply.record);
    }

    fn fits(&self, pending: &Pending, reply: &Reply) -> bool {
        let vm = reply.record.is_none_or(|record| record.vm == self.settings.vm);
        reply.id == pending.id && reply.nonce == self.settings.nonce && vm
    }

    /// Datagrams that were dropped.
    #[must_use]
    pub const fn strays(&self) -> u64 {
        self.strays
    }
}

/// What a verdict means to a question. `None`: it is no answer to it.
const fn answer(ask: &Ask, verdict: Verdict) -> Option<Answer> {
    match (ask, verdict) {
        (_, Verdict::Refused) => Some(Answer::Refused),
        (Ask::Arm { .. }, Verdict::Armed) => Some(Answer::Armed),
        (Ask::Contend { .. } | Ask::ReadBack { .. }, Verdict::Won) => Some(Answer::Won),
        (Ask::Contend { .. } | Ask::ReadBack { .. }, Verdict::Lost) => Some(Answer::Lost),
        (Ask::ReadBack { .. }, Verdict::Free) => Some(Answer::Free),
        _ => None,
    }
}

impl Arbiter for Client {
    fn name(&self) -> &'static str {
        "lock server"
    }

    fn is_safe(&self) -> bool {
        false
    }

    fn ask(&mut self, ask: Ask, now: u64) {
        self.answer = None;
        self.pending = None;
        let operation = match ask {
            Ask::Arm { peer, .. } => Operation::Arm { peer },
            Ask::Contend { position, .. } => Operation::Contend { position },
            Ask::ReadBack { .. } => Operation::ReadBack,
            Ask::Fence { .. } => {
                // It has no disk from which anybody could be kept.
                self.answer = Some(Answer::Fenced);
                return;
            }
        };
        let Settings { vm, side, nonce, give_up_ns, .. } = self.settings;
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        let request = Request { id, vm, generation: ask.generation(), side, nonce, operation };
        let until = now.saturating_add(give_up_ns.max(1));
        self.pending = Some(Pending { ask, request: request.emit(), id, send_at: now, until });
    }

    fn poll(&mut self, now: u64) -> Option<Answer> {
        if let Some(pending) = self.pending.filter(|pending| now >= pending.until) {
            self.pending = None;
            // A request may have arrived though no reply did. Nothing that is read is changed by that.
            return Some(match pending.ask {
                Ask::ReadBack { .. } => Answer::Unreachable,
                _ => Answer::Unknown,
            });
        }
        self.answer.take()
    }

    fn record(&self) -> Option<Record> {
        self.record
    }

    fn next_deadline(&self) -> Option<u64> {
        if self.answer.is_some() {
            return Some(0);
        }
        self.pending.map(|pending| pending.send_at.min(pending.until))
    }
}
