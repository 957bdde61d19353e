//! The handshake on one connection: two messages that prove the key and carry the facts, and a third that proves that the
//! initiator is there now.
//!
//! Each of the first two is a record with a *greeting* in the clear, version, cipher and generation, so that a difference in these
//! can be named though nothing can be decrypted; it is part of the prologue, so nobody changes it unseen. A first message may be a
//! capture from another time: only the third, sealed with fresh keys, makes the connection the peer's.

use super::facts::{Difference, FACTS, Facts};
use super::message::Message;
use super::noise::{EPHEMERAL, Role, Sealing, Spares, TAG};
use crate::keys::Incarnation;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use snow::{HandshakeState, TransportState};

/// Version of what the two hosts say to each other, heartbeats included.
pub const VERSION: u16 = 2;

/// How a greeting begins.
const MAGIC: [u8; 4] = *b"LKFT";

/// Bytes of a greeting: magic, version, cipher, generation.
pub const GREETING: usize = 4 + 2 + 1 + 8;

/// Bytes of a record's length.
pub const LENGTH: usize = 2;

/// Bytes of what a handshake message carries at most: the incarnation and the facts.
pub const PAYLOAD: usize = 8 + FACTS;

/// Bytes of a handshake's record at most.
const RECORD: usize = GREETING + EPHEMERAL + PAYLOAD + TAG;

/// The greeting of this version.
#[must_use]
pub fn greeting(cipher: u8, generation: u64) -> [u8; GREETING] {
    let mut bytes = [0; GREETING];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
    bytes[6] = cipher;
    bytes[7..].copy_from_slice(&generation.to_le_bytes());
    bytes
}

/// Why a connection does not become the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It does not speak this protocol.
    Garbage,
    /// It says that it has another version, cipher or generation. Nothing proves that.
    Greeting(Difference),
    /// It does not have the key.
    Forged,
    /// It repeats what was said before.
    Replayed,
    /// It has the key, and does not keep to the protocol.
    Malformed,
    /// The peer does not fit.
    Facts(Difference),
    /// The peer has started anew: the one that we know is gone.
    Restarted,
    /// No handshake is left that was made ahead.
    Exhausted,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Garbage => f.write_str("it does not speak this protocol"),
            Self::Greeting(difference) => write!(f, "{difference} (as it says)"),
            Self::Forged => f.write_str("it does not have the key"),
            Self::Replayed => f.write_str("it repeats what was said before"),
            Self::Malformed => f.write_str("it does not keep to the protocol"),
            Self::Facts(difference) => fmt::Display::fmt(difference, f),
            Self::Restarted => f.write_str("the peer has started anew"),
            Self::Exhausted => f.write_str("no handshake is left"),
        }
    }
}

/// What this host says of itself, and what it expects.
pub struct Identity {
    /// The payload of our message: incarnation and encoded facts.
    payload: Vec<u8>,
    greeting: [u8; GREETING],
    cipher: u8,
    generation: u64,
    /// The only incarnation of the peer that is accepted.
    pinned: Option<Incarnation>,
}

impl Identity {
    /// `cipher`: its number; `facts`: encoded.
    pub fn new(cipher: u8, generation: u64, incarnation: Incarnation, facts: &[u8]) -> Self {
        let payload = [&incarnation.0.to_le_bytes(), facts].concat();
        Self { payload, greeting: greeting(cipher, generation), cipher, generation, pinned: None }
    }

    /// What the peer's first record has to begin with.
    pub const fn greeting(&self) -> &[u8; GREETING] {
        &self.greeting
    }

    /// Accepts no other incarnation of the peer from now on.
    pub const fn pin(&mut self, peer: Incarnation) {
        self.pinned = Some(peer);
    }

    /// Our facts.
    pub fn facts(&self) -> Option<Facts<'_>> {
        Facts::parse(self.payload.get(8..)?)
    }

    fn judge(&self, payload: &[u8]) -> Result<Incarnation, Refusal> {
        let (incarnation, facts) = split(payload).ok_or(Refusal::Malformed)?;
        if let Some(ours) = self.facts() {
            ours.compare(&facts).map_err(Refusal::Facts)?;
        }
        match self.pinned {
            Some(pinned) if pinned != incarnation => Err(Refusal::Restarted),
            _ => Ok(incarnation),
        }
    }

    fn judge_greeting(&self, theirs: [u8; GREETING]) -> Result<(), Refusal> {
        let [m0, m1, m2, m3, v0, v1, cipher, generation @ ..] = theirs;
        let (version, generation) = (u16::from_le_bytes([v0, v1]), u64::from_le_bytes(generation));
        let difference = if [m0, m1, m2, m3] != MAGIC {
            return Err(Refusal::Garbage);
        } else if version != VERSION {
            Difference::between("protocol version", VERSION, version)
        } else if cipher != self.cipher {
            Difference::between("cipher", Sealing::name(self.cipher), Sealing::name(cipher))
        } else if generation != self.generation {
            Difference::between("generation", self.generation, generation)
        } else {
            return Ok(());
        };
        Err(Refusal::Greeting(difference))
    }
}

/// Incarnation and facts of a payload.
pub fn split(payload: &[u8]) -> Option<(Incarnation, Facts<'_>)> {
    let (incarnation, facts) = payload.split_first_chunk()?;
    Some((Incarnation(u64::from_le_bytes(*incarnation)), Facts::parse(facts)?))
}

enum Stage {
    /// No connection.
    Idle,
    /// The initiator's: our message is on its way.
    Asked(HandshakeState),
    /// The responder's: the first message is awaited.
    Awaiting,
    /// The responder's: the answer is on its way, its reader has to prove itself.
    Answered(TransportState, Incarnation),
    /// Only the peer can be at the other end.
    Proven(TransportState, Incarnation),
    Refused(Refusal),
}

/// The handshake on one connection. Its memory is its own for good.
pub struct Handshake {
    stage: Stage,
    /// The record that is being read, with its length.
    input: Vec<u8>,
    filled: usize,
    /// What the peer said of itself.
    payload: Vec<u8>,
    payload_len: usize,
    output: Vec<u8>,
    output_len: usize,
    sent: usize,
}

impl Handshake {
    /// Allocates all that it will need.
    pub fn new() -> Self {
        Self {
            stage: Stage::Idle,
            input: vec![0; LENGTH + RECORD],
            filled: 0,
            // A decrypted message has no tag, but snow wants the room in some cases.
            payload: vec![0; PAYLOAD + TAG],
            payload_len: 0,
            output: vec![0; LENGTH + RECORD + LENGTH + 1 + TAG],
            output_len: 0,
            sent: 0,
        }
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        self.stage = Stage::Idle;
        (self.filled, self.payload_len, self.output_len, self.sent) = (0, 0, 0, 0);
    }

    /// Begins on a new connection.
    pub fn begin(&mut self, spares: &mut Spares, ours: &Identity) {
        self.reset();
        self.stage = match spares.role() {
            Role::Responder => Stage::Awaiting,
            Role::Initiator => match spares.take() {
                Some(mut noise) => match self.write(&mut noise, ours) {
                    Ok(()) => Stage::Asked(noise),
                    Err(refusal) => Stage::Refused(refusal),
                },
                None => Stage::Refused(Refusal::Exhausted),
            },
        };
    }

    /// Writes our message.
    fn write(&mut self, noise: &mut HandshakeState, ours: &Identity) -> Result<(), Refusal> {
        let (length, record) = self.output.split_at_mut(LENGTH);
        let (greeting, message) = record.split_at_mut(GREETING);
        greeting.copy_from_slice(&ours.greeting);
        let written = noise.write_message(&ours.payload, message).map_err(|_| Refusal::Malformed)?;
        let written = GREETING + written;
        length.copy_from_slice(&(written as u16).to_le_bytes());
        self.output_len = LENGTH + written;
        Ok(())
    }

    /// Takes bytes that have arrived, up to the end of a record at most; how many. None any more when the handshake is over:
    /// what follows is the session's.
    pub fn feed(&mut self, bytes: &[u8], spares: &mut Spares, ours: &Identity) -> usize {
        let mut taken = 0;
        while matches!(self.stage, Stage::Asked(_) | Stage::Awaiting | Stage::Answered(..)) {
            let wanted = match self.wanted(ours) {
                Ok(wanted) => wanted,
                Err(refusal) => {
                    self.stage = Stage::Refused(refusal);
                    break;
                }
            };
            if self.filled == wanted {
                self.filled = 0;
                self.read(wanted, spares, ours);
                continue;
            }
            let rest = bytes.get(taken..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            let part = rest.len().min(wanted - self.filled);
            self.input[self.filled..self.filled + part].copy_from_slice(&rest[..part]);
            self.filled += part;
            taken += part;
        }
        taken
    }

    /// Up to where the input has to be filled before it can be looked at again, or why it is no use.
    fn wanted(&self, ours: &Identity) -> Result<usize, Refusal> {
        let confirming = matches!(self.stage, Stage::Answered(..));
        let head = if confirming { LENGTH } else { LENGTH + GREETING };
        if self.filled < head {
            return Ok(head);
        }
        let length = usize::from(u16::from_le_bytes([self.input[0], self.input[1]]));
        let fits = match (confirming, &self.stage) {
            (true, _) => length == 1 + TAG,
            (_, Stage::Asked(_)) if length == GREETING => true,
            _ => (GREETING + EPHEMERAL + TAG..=RECORD).contains(&length),
        };
        if !confirming {
            // Whoever does not even greet is not listened to any longer.
            let greeting = self.input[LENGTH..].first_chunk().ok_or(Refusal::Garbage)?;
            // Any other difference is named once the record is complete, so that ours can be answered.
            if ours.judge_greeting(*greeting) == Err(Refusal::Garbage) {
                return Err(Refusal::Garbage);
            }
        }
        if fits { Ok(LENGTH + length) } else { Err(Refusal::Garbage) }
    }

    /// Reads the record of `end` bytes with its length.
    fn read(&mut self, end: usize, spares: &mut Spares, ours: &Identity) {
        let stage = core::mem::replace(&mut self.stage, Stage::Idle);
        let next = match stage {
            Stage::Asked(noise) => self.read_answer(noise, end, ours),
            Stage::Awaiting => self.read_question(end, spares, ours),
            Stage::Answered(link, peer) => self.read_ready(link, peer, end),
            Stage::Idle | Stage::Proven(..) | Stage::Refused(_) => Ok(stage),
        };
        self.stage = next.unwrap_or_else(Stage::Refused);
    }

    fn read_question(&mut self, end: usize, spares: &mut Spares, ours: &Identity) -> Result<Stage, Refusal> {
        let greeting = *self.input[LENGTH..end].first_chunk().ok_or(Refusal::Garbage)?;
        if let Err(refusal) = ours.judge_greeting(greeting) {
            // So that it can name the difference as well.
            self.greet(ours);
            return Err(refusal);
        }
        let message = &self.input[LENGTH + GREETING..end];
        let ephemeral = *message.first_chunk().ok_or(Refusal::Garbage)?;
        if spares.has_seen(&ephemeral) {
            return Err(Refusal::Replayed);
        }
        let mut noise = spares.take().ok_or(Refusal::Exhausted)?;
        let Ok(length) = noise.read_message(message, &mut self.payload) else {
            // It has put itself back to where it was.
            spares.give_back(noise);
            return Err(Refusal::Forged);
        };
        spares.remember(ephemeral);
        self.payload_len = length;
        // Our facts go to whoever has the key, so that both can name what differs.
        self.write(&mut noise, ours)?;
        let incarnation = ours.judge(&self.payload[..length])?;
        let link = noise.into_transport_mode().map_err(|_| Refusal::Malformed)?;
        Ok(Stage::Answered(link, incarnation))
    }

    /// Our greeting, alone.
    fn greet(&mut self, ours: &Identity) {
        self.output[..LENGTH].copy_from_slice(&(GREETING as u16).to_le_bytes());
        self.output[LENGTH..LENGTH + GREETING].copy_from_slice(&ours.greeting);
        self.output_len = LENGTH + GREETING;
    }

    fn read_answer(
        &mut self,
        mut noise: HandshakeState,
        end: usize,
        ours: &Identity,
    ) -> Result<Stage, Refusal> {
        let greeting = *self.input[LENGTH..end].first_chunk().ok_or(Refusal::Garbage)?;
        ours.judge_greeting(greeting)?;
        let message = &self.input[LENGTH + GREETING..end];
        let length = noise.read_message(message, &mut self.payload).map_err(|_| Refusal::Forged)?;
        self.payload_len = length;
        let incarnation = ours.judge(&self.payload[..length])?;
        let mut link = noise.into_transport_mode().map_err(|_| Refusal::Malformed)?;
        self.confirm(&mut link)?;
        Ok(Stage::Proven(link, incarnation))
    }

    /// Adds the third message to the output.
    fn confirm(&mut self, link: &mut TransportState) -> Result<(), Refusal> {
        let mut message = [0; 1];
        let length = Message::Ready.emit(&mut message).ok_or(Refusal::Malformed)?;
        let start = self.output_len + LENGTH;
        let written = link
            .write_message(&message[..length], &mut self.output[start..])
            .map_err(|_| Refusal::Malformed)?;
        self.output[self.output_len..start].copy_from_slice(&(written as u16).to_le_bytes());
        self.output_len = start + written;
        Ok(())
    }

    fn read_ready(
        &mut self,
        mut link: TransportState,
        peer: Incarnation,
        end: usize,
    ) -> Result<Stage, Refusal> {
        let mut message = [0; 1 + TAG];
        let length =
            link.read_message(&self.input[LENGTH..end], &mut message).map_err(|_| Refusal::Replayed)?;
        match Message::parse(&message[..length]) {
            Some(Message::Ready) => Ok(Stage::Proven(link, peer)),
            _ => Err(Refusal::Malformed),
        }
    }

    /// Gives out bytes to be sent; how many.
    pub fn pull(&mut self, out: &mut [u8]) -> usize {
        let rest = &self.output[self.sent..self.output_len];
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        self.sent += count;
        count
    }

    /// Whether there is nothing to be sent just now.
    pub const fn is_silent(&self) -> bool {
        self.sent == self.output_len
    }

    /// Whether there was something to be sent, given out already or not.
    pub const fn has_spoken(&self) -> bool {
        self.output_len != 0
    }

    /// Why the connection is not the peer's.
    pub const fn refusal(&self) -> Option<Refusal> {
        match &self.stage {
            Stage::Refused(refusal) => Some(*refusal),
            _ => None,
        }
    }

    /// The secured connection, with the peer's incarnation and what it said of itself, once: when only the peer can be at the
    /// other end. What the handshake still has to send goes before anything of the session.
    pub fn take(&mut self) -> Option<(TransportState, Incarnation, &[u8])> {
        if !matches!(self.stage, Stage::Proven(..)) {
            return None;
        }
        match core::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Proven(link, peer) => Some((link, peer, &self.payload[..self.payload_len])),
            _ => None,
        }
    }
}
