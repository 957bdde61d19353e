//! A secured connection: messages to records, records to messages. Its memory serves one connection after the other.
//!
//! A record is its length in two bytes and a sealed message. Records are numbered by the cipher on both ends: one that was
//! changed, dropped, repeated or moved does not open, and that ends the connection.

use super::handshake::LENGTH;
use super::message::{MESSAGE, Message, PIECE};
use super::noise::TAG;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use snow::TransportState;

/// Bytes of a record at most, its length included.
pub const RECORD: usize = LENGTH + MESSAGE + TAG;

/// Bytes that a record adds to a log piece: length, kind, tag.
pub const OVERHEAD: usize = LENGTH + 1 + TAG;

/// Bytes of records that wait to be sent at most.
pub const OUTPUT: usize = 4 * RECORD;

/// What of [`OUTPUT`] log pieces leave free for other messages, bytes.
const RESERVE: usize = 1 << 10;

/// Why a connection that was secured is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A record does not open: somebody has changed the stream.
    Forged,
    /// The peer does not keep to the protocol.
    Malformed,
    /// So many records were sent that the cipher's numbers have run out.
    Exhausted,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forged => "a record on the channel was changed on its way",
            Self::Malformed => "the peer does not keep to the protocol",
            Self::Exhausted => "the channel's numbers have run out",
        })
    }
}

/// What sessions have carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Records sent.
    pub sent_records: u64,
    /// Bytes of these.
    pub sent_bytes: u64,
    /// Records that were opened.
    pub received_records: u64,
    /// Bytes of these.
    pub received_bytes: u64,
}

/// The session.
pub struct Session {
    link: Option<TransportState>,
    broken: Option<Broken>,
    input: Vec<u8>,
    filled: usize,
    /// A message before it is sealed, and after it was opened.
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    /// Bytes of the message that was opened last.
    opened: usize,
    output: Vec<u8>,
    start: usize,
    end: usize,
    carried: Carried,
}

impl Session {
    /// One without a connection. Allocates all that it will need.
    pub fn new() -> Self {
        Self {
            link: None,
            broken: None,
            input: vec![0; RECORD],
            filled: 0,
            outgoing: vec![0; MESSAGE],
            incoming: vec![0; MESSAGE + TAG],
            opened: 0,
            output: vec![0; OUTPUT],
            start: 0,
            end: 0,
            carried: Carried::default(),
        }
    }

    /// Goes on with another connection, or none. What was not sent and not read is forgotten.
    pub fn attach(&mut self, link: Option<TransportState>) {
        (self.link, self.broken) = (link, None);
        (self.filled, self.start, self.end) = (0, 0, 0);
    }

    /// Whether there is a connection, and it is good.
    pub const fn is_open(&self) -> bool {
        self.link.is_some() && self.broken.is_none()
    }

    /// Why it is of no use any more.
    pub const fn broken(&self) -> Option<Broken> {
        self.broken
    }

    /// What was carried, over all connections.
    pub const fn carried(&self) -> Carried {
        self.carried
    }

    /// Seals a message; whether there was room, and a connection.
    pub fn send(&mut self, message: &Message<'_>) -> bool {
        let Some(length) = message.emit(&mut self.outgoing) else { return false };
        let record = LENGTH + length + TAG;
        if !self.is_open() || self.free() < record {
            return false;
        }
        if self.output.len() - self.end < record {
            self.output.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let place = &mut self.output[self.end..self.end + record];
        let (head, body) = place.split_at_mut(LENGTH);
        head.copy_from_slice(&((record - LENGTH) as u16).to_le_bytes());
        let sealed = self.link.as_mut().map(|link| link.write_message(&self.outgoing[..length], body));
        if !matches!(sealed, Some(Ok(_))) {
            self.broken = Some(Broken::Exhausted);
            return false;
        }
        self.end += record;
        self.carried.sent_records += 1;
        self.carried.sent_bytes += record as u64;
        true
    }

    /// Sends as much of the log as one record and the room allow; how many bytes.
    pub fn send_log(&mut self, log: &[u8]) -> usize {
        let room = self.free().saturating_sub(RESERVE + OVERHEAD);
        let length = log.len().min(PIECE).min(room);
        if length != 0 && self.send(&Message::Log(&log[..length])) { length } else { 0 }
    }

    fn free(&self) -> usize {
        self.output.len() - (self.end - self.start)
    }

    /// Sealed bytes that wait to be sent.
    pub const fn waiting(&self) -> usize {
        self.end - self.start
    }

    /// The bytes that wait to be sent.
    pub fn output(&self) -> &[u8] {
        &self.output[self.start..self.end]
    }

    /// So many of them were sent.
    pub fn sent(&mut self, count: usize) {
        self.start += count.min(self.waiting());
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Takes bytes that have arrived, up to the end of a record at most; how many. After each call, [`open`](Self::open).
    pub fn feed(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while self.is_open() && !self.is_complete() && taken < bytes.len() {
            let part = (bytes.len() - taken).min(self.wanted() - self.filled);
            self.input[self.filled..self.filled + part].copy_from_slice(&bytes[taken..taken + part]);
            self.filled += part;
            taken += part;
            self.check_length();
        }
        taken
    }

    /// Up to where the input is to be filled: a length, then a record.
    fn wanted(&self) -> usize {
        if self.filled < LENGTH { LENGTH } else { LENGTH + self.length() }
    }

    fn length(&self) -> usize {
        usize::from(u16::from_le_bytes([self.input[0], self.input[1]]))
    }

    fn is_complete(&self) -> bool {
        self.filled >= LENGTH && self.filled == self.wanted()
    }

    /// Nothing is waited for that cannot be a record: a forged length must not make us wait for ever.
    fn check_length(&mut self) {
        if self.filled == LENGTH && !(1 + TAG..=MESSAGE + TAG).contains(&self.length()) {
            self.broken = Some(Broken::Forged);
        }
    }

    /// Opens the record that has arrived, if one is complete. Whether there is a [`message`](Self::message) now.
    ///
    /// # Errors
    /// The connection is of no use any more.
    pub fn open(&mut self) -> Result<bool, Broken> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        if !self.is_complete() {
            return Ok(false);
        }
        let Some(link) = self.link.as_mut() else { return Ok(false) };
        let record = core::mem::take(&mut self.filled);
        let opened = link.read_message(&self.input[LENGTH..record], &mut self.incoming).ok();
        self.opened = opened.unwrap_or(0);
        self.carried.received_records += 1;
        self.carried.received_bytes += record as u64;
        if opened.is_none() {
            self.broken = Some(Broken::Forged);
        } else if self.message().is_none() {
            self.broken = Some(Broken::Malformed);
        }
        self.broken.map_or(Ok(true), Err)
    }

    /// The message of the record that was opened last.
    pub fn message(&self) -> Option<Message<'_>> {
        Message::parse(&self.incoming[..self.opened])
    }
}
