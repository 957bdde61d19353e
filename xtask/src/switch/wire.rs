//! The byte protocol between a host's emulator and the switch (docs/switch.md), written and read with checks.
//!
//! A message is its length (32 bits: of what follows), its kind (8 bits) and its body; all numbers little-endian. The
//! other side is `xtask/bochs/src/iodev/network/eth_lockstep.cc`.

use std::fmt;
use std::sync::Arc;

/// Version of the protocol; both sides must have the same.
pub const VERSION: u16 = 1;
/// First bytes of a HELLO.
pub const MAGIC: [u8; 4] = *b"LKSN";
/// Longest message in bytes.
pub const MAX_MESSAGE: usize = 64 << 20;
/// Shortest and longest frame in bytes, without FCS.
pub const FRAME_BYTES: std::ops::RangeInclusive<usize> = 14..=16384;
/// Cards per host.
pub const MAX_PORTS: usize = 8;
/// Longest name of a host in bytes.
pub const MAX_NAME: usize = 31;

const HELLO: u8 = 0x01;
const MEET: u8 = 0x02;
const WELCOME: u8 = 0x81;
const RUN: u8 = 0x82;
const END: u8 = 0x83;

/// An Ethernet frame without FCS, shared between those who get it.
pub type Frame = Arc<[u8]>;

/// A frame with a tick of the host that sent it or is to get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamped {
    /// When it was sent, or is due.
    pub tick: u64,
    /// Number of the card.
    pub port: u8,
    /// The frame.
    pub frame: Frame,
}

/// A host introduces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Its name.
    pub name: String,
    /// Ticks per emulated second.
    pub ips: u64,
    /// Where its clock stands.
    pub tick: u64,
    /// Its cards: number and address.
    pub ports: Vec<(u8, [u8; 6])>,
}

/// Why a host meets the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It has come to the tick up to which it was allowed to run.
    Reached,
    /// Its process ends with this exit code.
    Leaving(i32),
}

/// What a card did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct CardCounters {
    /// Frames handed to the card.
    pub delivered: u64,
    /// Of these, frames that had to wait for a free receive buffer.
    pub held: u64,
    /// Frames that found neither a buffer nor room to wait.
    pub missed: u64,
}

/// A host has come to a tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meet {
    /// Where its clock stands.
    pub tick: u64,
    /// Why it meets.
    pub reason: Reason,
    /// Totals of its cards.
    pub cards: Vec<(u8, CardCounters)>,
    /// What they sent since the last meeting, in order.
    pub frames: Vec<Stamped>,
}

/// Why the switch ends a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The scenario kills it here.
    Killed,
    /// The scenario is over.
    Over,
    /// It may not join, or violated the protocol.
    Refused,
}

impl EndReason {
    const fn code(self) -> u8 {
        match self {
            Self::Killed => 1,
            Self::Over => 2,
            Self::Refused => 3,
        }
    }

    /// The exit code with which the emulator's process ends.
    pub const fn exit_code(self) -> i32 {
        match self {
            Self::Killed => 40,
            Self::Over => 46,
            Self::Refused => 44,
        }
    }
}

/// The exit code of an emulator that lost the switch.
pub const EXIT_LOST: i32 = 42;

/// What a host says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromHost {
    /// The first message.
    Hello(Hello),
    /// Every message after it.
    Meet(Meet),
}

/// What the switch says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToHost {
    /// Joined; the length of a quantum in nanoseconds, for the record.
    Welcome {
        /// Nanoseconds.
        quantum: u64,
    },
    /// Run up to a tick and meet there.
    Run {
        /// The tick, included.
        until: u64,
        /// Frames due after now and not after `until`, in order.
        frames: Vec<Stamped>,
    },
    /// End the process now.
    End {
        /// Why.
        reason: EndReason,
        /// For people.
        text: String,
    },
}

/// Bytes that are no message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WireError {
    /// A length that no message has.
    Length(usize),
    /// A kind that this side does not take.
    Kind(u8),
    /// The body ends inside this field.
    Short(&'static str),
    /// The body goes on after the last field by so many bytes.
    Long(usize),
    /// The first bytes are not the protocol's.
    Magic([u8; 4]),
    /// The other side speaks another version.
    Version(u16),
    /// A field holds what it may not.
    Value(&'static str, u64),
    /// A name that is not 1 to 31 letters, digits, `-` or `_`.
    Name(String),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(n) => write!(f, "a message of {n} bytes; it may have 1 to {MAX_MESSAGE}"),
            Self::Kind(kind) => write!(f, "a message of kind {kind:#04x}, which has no meaning here"),
            Self::Short(field) => write!(f, "the message ends within the field `{field}`"),
            Self::Long(n) => write!(f, "the message has {n} bytes too many"),
            Self::Magic(m) => write!(f, "the first bytes are {m:02x?}; this is no lock-step host"),
            Self::Version(v) => write!(
                f,
                "the emulator speaks version {v} of the protocol, the switch {VERSION}: build both from the same tree"
            ),
            Self::Value(field, v) => write!(f, "the field `{field}` holds {v}, which it may not"),
            Self::Name(name) => write!(
                f,
                "`{}` is no name of a host: 1 to {MAX_NAME} letters, digits, - or _",
                name.escape_debug()
            ),
        }
    }
}

impl std::error::Error for WireError {}

/// Whether a host may be called so.
pub fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Takes one whole message off the front of `buffer`: its kind and body. `None`: more bytes are needed.
///
/// # Errors
/// When the length cannot be right.
pub fn split(buffer: &mut Vec<u8>) -> Result<Option<(u8, Vec<u8>)>, WireError> {
    let Some(head) = buffer.first_chunk::<4>() else { return Ok(None) };
    let len = u32::from_le_bytes(*head) as usize;
    if !(1..=MAX_MESSAGE).contains(&len) {
        return Err(WireError::Length(len));
    }
    if buffer.len() < 4 + len {
        return Ok(None);
    }
    let message: Vec<u8> = buffer.drain(..4 + len).collect();
    Ok(Some((message[4], message[5..].to_vec())))
}

impl FromHost {
    /// Reads what a host says.
    ///
    /// # Errors
    /// When the bytes are no such message; the error names the field.
    pub fn parse(kind: u8, body: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader(body);
        let message = match kind {
            HELLO => Self::Hello(Hello::read(&mut r)?),
            MEET => Self::Meet(Meet::read(&mut r)?),
            _ => return Err(WireError::Kind(kind)),
        };
        r.end()?;
        Ok(message)
    }

    /// The bytes of the message, with length and kind.
    pub fn emit(&self) -> Vec<u8> {
        match self {
            Self::Hello(hello) => message(HELLO, |w| hello.write(w)),
            Self::Meet(meet) => message(MEET, |w| meet.write(w)),
        }
    }
}

impl ToHost {
    /// Reads what the switch says. (The emulator does this in C++; this is for tests and other hosts.)
    ///
    /// # Errors
    /// When the bytes are no such message; the error names the field.
    pub fn parse(kind: u8, body: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader(body);
        let message = match kind {
            WELCOME => {
                read_version(&mut r)?;
                Self::Welcome { quantum: r.u64("quantum")? }
            }
            RUN => Self::Run { until: r.u64("until")?, frames: read_frames(&mut r)? },
            END => {
                let reason = match r.u8("reason")? {
                    1 => EndReason::Killed,
                    2 => EndReason::Over,
                    3 => EndReason::Refused,
                    other => return Err(WireError::Value("reason", other.into())),
                };
                let text = String::from_utf8_lossy(std::mem::take(&mut r.0)).into_owned();
                Self::End { reason, text }
            }
            _ => return Err(WireError::Kind(kind)),
        };
        r.end()?;
        Ok(message)
    }

    /// The bytes of the message, with length and kind.
    pub fn emit(&self) -> Vec<u8> {
        match self {
            Self::Welcome { quantum } => message(WELCOME, |w| {
                w.extend(VERSION.to_le_bytes());
                w.extend(quantum.to_le_bytes());
            }),
            Self::Run { until, frames } => message(RUN, |w| {
                w.extend(until.to_le_bytes());
                write_frames(w, frames);
            }),
            Self::End { reason, text } => message(END, |w| {
                w.push(reason.code());
                w.extend(text.as_bytes());
            }),
        }
    }
}

impl Hello {
    fn read(r: &mut Reader) -> Result<Self, WireError> {
        let magic = r.array("magic")?;
        if magic != MAGIC {
            return Err(WireError::Magic(magic));
        }
        read_version(r)?;
        let (ips, tick) = (r.u64("ips")?, r.u64("tick")?);
        if ips == 0 {
            return Err(WireError::Value("ips", 0));
        }
        let len = r.u8("name length")?;
        let name = String::from_utf8_lossy(r.take(len.into(), "name")?).into_owned();
        if !is_name(&name) {
            return Err(WireError::Name(name));
        }
        let mut ports: Vec<(u8, [u8; 6])> = Vec::new();
        for _ in 0..r.u8("number of ports")? {
            let (port, mac) = (read_port(r)?, r.array("address")?);
            if ports.last().is_some_and(|last| last.0 >= port) {
                return Err(WireError::Value("port", port.into()));
            }
            ports.push((port, mac));
        }
        Ok(Self { name, ips, tick, ports })
    }

    fn write(&self, w: &mut Vec<u8>) {
        w.extend(MAGIC);
        w.extend(VERSION.to_le_bytes());
        w.extend(self.ips.to_le_bytes());
        w.extend(self.tick.to_le_bytes());
        w.push(self.name.len() as u8);
        w.extend(self.name.as_bytes());
        w.push(self.ports.len() as u8);
        for (port, mac) in &self.ports {
            w.push(*port);
            w.extend(mac);
        }
    }
}

impl Meet {
    fn read(r: &mut Reader) -> Result<Self, WireError> {
        let tick = r.u64("tick")?;
        let (reason, code) = (r.u8("reason")?, r.u32("exit code")?);
        let reason = match reason {
            0 if code == 0 => Reason::Reached,
            0 => return Err(WireError::Value("exit code", code.into())),
            1 => Reason::Leaving(code as i32),
            other => return Err(WireError::Value("reason", other.into())),
        };
        let mut cards = Vec::new();
        for _ in 0..r.u8("number of cards")? {
            let port = read_port(r)?;
            let counters = CardCounters {
                delivered: r.u64("delivered")?,
                held: r.u64("held")?,
                missed: r.u64("missed")?,
            };
            cards.push((port, counters));
        }
        Ok(Self { tick, reason, cards, frames: read_frames(r)? })
    }

    fn write(&self, w: &mut Vec<u8>) {
        w.extend(self.tick.to_le_bytes());
        let (reason, code) = match self.reason {
            Reason::Reached => (0, 0),
            Reason::Leaving(code) => (1, code),
        };
        w.push(reason);
        w.extend(code.to_le_bytes());
        w.push(self.cards.len() as u8);
        for (port, c) in &self.cards {
            w.push(*port);
            for n in [c.delivered, c.held, c.missed] {
                w.extend(n.to_le_bytes());
            }
        }
        write_frames(w, &self.frames);
    }
}

fn message(kind: u8, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, kind];
    body(&mut bytes);
    let len = (bytes.len() - 4) as u32;
    bytes[..4].copy_from_slice(&len.to_le_bytes());
    bytes
}

fn read_version(r: &mut Reader) -> Result<(), WireError> {
    match r.u16("version")? {
        VERSION => Ok(()),
        other => Err(WireError::Version(other)),
    }
}

fn read_port(r: &mut Reader) -> Result<u8, WireError> {
    match r.u8("port")? {
        port if usize::from(port) < MAX_PORTS => Ok(port),
        other => Err(WireError::Value("port", other.into())),
    }
}

fn read_frames(r: &mut Reader) -> Result<Vec<Stamped>, WireError> {
    let count = r.u32("number of frames")?;
    let mut frames = Vec::new();
    for _ in 0..count {
        let (tick, port, len) = (r.u64("frame's tick")?, read_port(r)?, r.u16("frame's length")?);
        if !FRAME_BYTES.contains(&usize::from(len)) {
            return Err(WireError::Value("frame's length", len.into()));
        }
        frames.push(Stamped { tick, port, frame: r.take(len.into(), "frame")?.into() });
    }
    Ok(frames)
}

fn write_frames(w: &mut Vec<u8>, frames: &[Stamped]) {
    w.extend((frames.len() as u32).to_le_bytes());
    for f in frames {
        w.extend(f.tick.to_le_bytes());
        w.push(f.port);
        w.extend((f.frame.len() as u16).to_le_bytes());
        w.extend(f.frame.iter());
    }
}

/// The rest of a body.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize, field: &'static str) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(WireError::Short(field))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], WireError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, field)?);
        Ok(array)
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, WireError> {
        self.array::<1>(field).map(|b| b[0])
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, WireError> {
        self.array(field).map(u16::from_le_bytes)
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, WireError> {
        self.array(field).map(u32::from_le_bytes)
    }

    fn u64(&mut self, field: &'static str) -> Result<u64, WireError> {
        self.array(field).map(u64::from_le_bytes)
    }

    fn end(&self) -> Result<(), WireError> {
        if self.0.is_empty() { Ok(()) } else { Err(WireError::Long(self.0.len())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stamped() -> impl Strategy<Value = Vec<Stamped>> {
        let one = (any::<u64>(), 0u8..8, proptest::collection::vec(any::<u8>(), 14..100));
        proptest::collection::vec(
            one.prop_map(|(tick, port, f)| Stamped { tick, port, frame: f.into() }),
            0..5,
        )
    }

    fn hello() -> impl Strategy<Value = FromHost> {
        let ports = proptest::collection::btree_map(0u8..8, any::<[u8; 6]>(), 0..8);
        ("[a-zA-Z0-9_-]{1,31}", 1u64.., any::<u64>(), ports).prop_map(|(name, ips, tick, ports)| {
            FromHost::Hello(Hello { name, ips, tick, ports: ports.into_iter().collect() })
        })
    }

    fn meet() -> impl Strategy<Value = FromHost> {
        let reason = prop_oneof![Just(Reason::Reached), any::<i32>().prop_map(Reason::Leaving)];
        let counters = (any::<u64>(), any::<u64>(), any::<u64>())
            .prop_map(|(delivered, held, missed)| CardCounters { delivered, held, missed });
        let cards = proptest::collection::vec((0u8..8, counters), 0..8);
        (any::<u64>(), reason, cards, stamped())
            .prop_map(|(tick, reason, cards, frames)| FromHost::Meet(Meet { tick, reason, cards, frames }))
    }

    fn to_host() -> impl Strategy<Value = ToHost> {
        let reason = prop_oneof![Just(EndReason::Killed), Just(EndReason::Over), Just(EndReason::Refused)];
        prop_oneof![
            any::<u64>().prop_map(|quantum| ToHost::Welcome { quantum }),
            (any::<u64>(), stamped()).prop_map(|(until, frames)| ToHost::Run { until, frames }),
            (reason, ".*").prop_map(|(reason, text)| ToHost::End { reason, text }),
        ]
    }

    proptest! {
        #[test]
        fn what_hosts_say_survives(m in prop_oneof![hello(), meet()]) {
            let mut bytes = m.emit();
            let (kind, body) = split(&mut bytes).unwrap().unwrap();
            prop_assert!(bytes.is_empty());
            prop_assert_eq!(FromHost::parse(kind, &body).unwrap(), m);
        }

        #[test]
        fn what_the_switch_says_survives(m in to_host()) {
            let mut bytes = m.emit();
            let (kind, body) = split(&mut bytes).unwrap().unwrap();
            prop_assert_eq!(ToHost::parse(kind, &body).unwrap(), m);
        }

        /// Any bytes are a message or an error, never a panic; and every strict prefix of a message is an error.
        #[test]
        fn garbage_is_refused(kind in any::<u8>(), body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = FromHost::parse(kind, &body);
            let _ = ToHost::parse(kind, &body);
        }

        #[test]
        fn a_cut_message_is_refused(m in prop_oneof![hello(), meet()], cut in any::<proptest::sample::Index>()) {
            let mut bytes = m.emit();
            let (kind, body) = split(&mut bytes).unwrap().unwrap();
            let cut = cut.index(body.len());
            prop_assert!(matches!(FromHost::parse(kind, &body[..cut]), Err(WireError::Short(_))));
            let mut longer = body.clone();
            longer.push(0);
            prop_assert_eq!(FromHost::parse(kind, &longer), Err(WireError::Long(1)));
        }
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let hello = FromHost::Hello(Hello { name: "a".into(), ips: 1, tick: 0, ports: vec![] }).emit();
        let body = &hello[5..];
        let with = |at: usize, value: u8| {
            let mut body = body.to_vec();
            body[at] = value;
            FromHost::parse(HELLO, &body).unwrap_err()
        };
        assert_eq!(with(0, b'x'), WireError::Magic(*b"xKSN"));
        assert_eq!(with(4, 9), WireError::Version(9));
        assert!(with(4, 9).to_string().contains("build both from the same tree"));
        assert_eq!(with(6, 0), WireError::Value("ips", 0));
        assert_eq!(with(23, b' '), WireError::Name(" ".into()));
        assert_eq!(FromHost::parse(RUN, &[]), Err(WireError::Kind(RUN)));
        assert_eq!(split(&mut vec![0, 0, 0, 0]), Err(WireError::Length(0)));
        assert_eq!(split(&mut vec![0xff; 4]), Err(WireError::Length(0xffff_ffff)));
        assert_eq!(split(&mut vec![5, 0, 0, 0, 1]), Ok(None));
    }
}
