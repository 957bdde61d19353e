//! Entries as bytes, each against the one before.
//!
//! The state of the codec begins anew in every block, from the block's own [`Mark`], so that each block can be read alone.

use super::bytes::{In, Malformed, NoRoom, Out, unzigzag, zigzag};
use super::entry::{Correction, Entry, Event, Place};
use crate::point::Point;
use core::fmt;

/// How far an execution has come: what entries are measured from, and an index to the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Instructions retired.
    pub n: u64,
    /// Synchronous exits.
    pub exits: u64,
    /// Virtual time, nanoseconds since power-on.
    pub virtual_ns: u64,
}

/// Where the first byte has the place.
const PLACE_SHIFT: u32 = 5;
/// Where it has the kind of event.
const KIND_MASK: u8 = (1 << PLACE_SHIFT) - 1;

/// Places, as the three high bits of the first byte.
mod place {
    /// That of the entry before.
    pub const SAME: u8 = 0;
    /// After a synchronous exit.
    pub const EXIT: u8 = 1;
    /// In the HLT that is one.
    pub const HALTED: u8 = 2;
    /// Between two, in the lower half of the address space, no REP, breakpoint possible.
    pub const LOW: u8 = 3;
    /// The same in the upper half.
    pub const HIGH: u8 = 4;
    /// Between two, anything: a byte of flags follows.
    pub const FLAGS: u8 = 5;
}

/// The byte of flags.
mod flag {
    /// RIP is in the upper half of the address space.
    pub const HIGH: u8 = 1 << 0;
    /// Amid a repeated instruction: RCX follows.
    pub const REPEATING: u8 = 1 << 1;
    /// A breakpoint would be lost.
    pub const NO_BREAKPOINT: u8 = 1 << 2;
    /// All of them.
    pub const ALL: u8 = HIGH | REPEATING | NO_BREAKPOINT;
}

/// Events, as the five low bits of the first byte.
mod kind {
    pub const LOOK: u8 = 0;
    pub const CORRECT: u8 = 1;
    pub const WAKE_AFTER_DUE: u8 = 2;
    pub const WAKE: u8 = 3;
    pub const CONSOLE: u8 = 4;
    pub const SIDE_CONSOLE: u8 = 5;
    /// For network device 0.
    pub const FRAME_FIRST: u8 = 6;
    /// The number of the device follows.
    pub const FRAME: u8 = 7;
    pub const STARVED: u8 = 8;
    pub const LINK_DOWN: u8 = 9;
    pub const LINK_UP: u8 = 10;
    pub const POWER_BUTTON: u8 = 11;
    pub const RESET: u8 = 12;
    pub const HASH: u8 = 13;
    pub const CHECKPOINT: u8 = 14;
    pub const END: u8 = 15;
    pub const OUTPUT: u8 = 16;
}

/// In the first byte of a rate: it is less than the last.
const RATE_FALLS: u8 = 1 << 6;

/// Why an entry cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodecError {
    /// The block ends within an entry, or a number has more than 64 bits.
    Malformed(Malformed),
    /// The first byte names no place.
    Place(u8),
    /// The first byte names no event.
    Kind(u8),
    /// Flags that have no meaning.
    Flags(u8),
    /// At the place of the entry before, and there is none in this block.
    NoPlace,
    /// A step of the clock of more than 32 bits.
    Step(u64),
    /// A rate of the clock of more than 64 bits.
    Rate,
    /// A word that is not UTF-8.
    Text,
}

impl From<Malformed> for CodecError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(Malformed::Short) => f.write_str("it goes on beyond the end of its block"),
            Self::Malformed(Malformed::Varint) => f.write_str("a number of more than 64 bits"),
            Self::Place(place) => write!(f, "no place has the number {place}"),
            Self::Kind(kind) => write!(f, "no event has the number {kind}"),
            Self::Flags(flags) => write!(f, "flags {flags:#04x} have no meaning"),
            Self::NoPlace => f.write_str("the first entry of a block refers to the place of one before"),
            Self::Step(step) => write!(f, "a step of the clock of {step} ns"),
            Self::Rate => f.write_str("a rate of the clock of more than 64 bits"),
            Self::Text => f.write_str("a word that is not UTF-8"),
        }
    }
}

/// The change of a rate: how many zeros its binary digits end with, its sign, and the number before the zeros. Rates are
/// rounded, so that is short.
fn put_rate(out: &mut Out<'_>, rate: u64, last: u64) -> Result<(), NoRoom> {
    let falls = rate < last;
    let change = rate.abs_diff(last);
    let zeros = change.trailing_zeros() & 63;
    out.byte(zeros as u8 | if falls { RATE_FALLS } else { 0 })?;
    out.varint(change >> zeros)
}

fn take_rate(input: &mut In<'_>, last: u64) -> Result<u64, CodecError> {
    let first = input.byte()?;
    let zeros = u32::from(first & !RATE_FALLS);
    let digits = input.varint()?;
    if zeros > 63 || zeros > digits.leading_zeros() {
        return Err(CodecError::Rate);
    }
    let change = digits << zeros;
    let rate = if first & RATE_FALLS == 0 { last.checked_add(change) } else { last.checked_sub(change) };
    rate.ok_or(CodecError::Rate)
}

/// A step, in the same manner, in one number.
fn put_step(out: &mut Out<'_>, step: u32) -> Result<(), NoRoom> {
    let zeros = u64::from(step.trailing_zeros() & 31);
    out.varint(u64::from(step) >> zeros << 5 | zeros)
}

fn take_step(input: &mut In<'_>) -> Result<u32, CodecError> {
    let number = input.varint()?;
    let (digits, zeros) = (number >> 5, number & 31);
    let step = u32::try_from(digits).ok().filter(|digits| u64::from(digits.leading_zeros()) >= zeros);
    step.map(|digits| digits << zeros).ok_or(CodecError::Step(number))
}

/// What entries are measured from.
#[derive(Clone, Copy, Debug)]
pub struct Codec {
    n: u64,
    exits: u64,
    /// The last RIP of the lower and of the upper half.
    rip: [u64; 2],
    rate: u64,
    last: Option<(Place, u8)>,
}

impl Codec {
    /// At the beginning of a block with this mark.
    #[must_use]
    pub const fn new(mark: &Mark) -> Self {
        Self { n: mark.n, exits: mark.exits, rip: [0; 2], rate: 0, last: None }
    }

    /// Writes an entry. When it does not fit, what was written is to be dropped, and the codec is as before.
    ///
    /// `check` has no room in an entry between two exits and becomes 0; so does RCX outside of a REP.
    ///
    /// # Errors
    /// It does not fit.
    pub fn emit(&mut self, entry: &Entry<'_>, out: &mut Out<'_>) -> Result<(), NoRoom> {
        let mut next = *self;
        next.emit_place(entry, out)?;
        next.emit_event(&entry.event, out)?;
        *self = next;
        Ok(())
    }

    fn emit_place(&mut self, entry: &Entry<'_>, out: &mut Out<'_>) -> Result<(), NoRoom> {
        let kind = number(&entry.event);
        let first = |place: u8| place << PLACE_SHIFT | kind;
        let (place, check) = normal(entry);
        if self.last == Some((place, check)) {
            return out.byte(first(place::SAME));
        }
        self.last = Some((place, check));
        match place {
            Place::Exit(at) | Place::Halted(at) => {
                let halted = matches!(place, Place::Halted(_));
                out.byte(first(if halted { place::HALTED } else { place::EXIT }))?;
                out.varint(at.wrapping_sub(self.exits))?;
                self.exits = at;
                out.byte(check)
            }
            Place::Between { point, repeating, breakpoint } => {
                let half = usize::from(point.rip >> 63 != 0);
                if repeating || !breakpoint {
                    let flags = [
                        (half != 0, flag::HIGH),
                        (repeating, flag::REPEATING),
                        (!breakpoint, flag::NO_BREAKPOINT),
                    ]
                    .into_iter()
                    .fold(0, |flags, (set, flag)| if set { flags | flag } else { flags });
                    out.byte(first(place::FLAGS))?;
                    out.byte(flags)?;
                } else {
                    out.byte(first(if half == 0 { place::LOW } else { place::HIGH }))?;
                }
                out.varint(point.n.wrapping_sub(self.n))?;
                out.varint(zigzag(point.rip.wrapping_sub(self.rip[half])))?;
                self.n = point.n;
                self.rip[half] = point.rip;
                if repeating { out.varint(point.rcx) } else { Ok(()) }
            }
        }
    }

    fn emit_event(&mut self, event: &Event<'_>, out: &mut Out<'_>) -> Result<(), NoRoom> {
        match *event {
            Event::Look(None) | Event::PowerButton | Event::Reset | Event::Output => Ok(()),
            Event::Look(Some(Correction { rate, step })) => {
                put_rate(out, rate, self.rate)?;
                self.rate = rate;
                put_step(out, step)
            }
            Event::WakeAfterDue(ns) | Event::Wake(ns) => out.varint(ns),
            Event::Console(bytes) | Event::SideConsole(bytes) | Event::Checkpoint(bytes) => out.string(bytes),
            Event::Frame { device: 0, frame } => out.string(frame),
            Event::Frame { device, frame } => {
                out.byte(device)?;
                out.string(frame)
            }
            Event::Starved { device } | Event::Link { device, .. } => out.byte(device),
            Event::Hash(hash) => out.raw(&hash.to_le_bytes()),
            Event::End(why) => out.string(why.as_bytes()),
        }
    }

    /// Reads an entry.
    ///
    /// # Errors
    /// The bytes are not one.
    pub fn parse<'l>(&mut self, input: &mut In<'l>) -> Result<Entry<'l>, CodecError> {
        let first = input.byte()?;
        let (place, check) = self.parse_place(first >> PLACE_SHIFT, input)?;
        self.last = Some((place, check));
        let event = self.parse_event(first & KIND_MASK, input)?;
        Ok(Entry { place, check, event })
    }

    fn parse_place(&mut self, number: u8, input: &mut In<'_>) -> Result<(Place, u8), CodecError> {
        let (half, repeating, breakpoint) = match number {
            place::SAME => return self.last.ok_or(CodecError::NoPlace),
            place::EXIT | place::HALTED => {
                self.exits = self.exits.wrapping_add(input.varint()?);
                let exit = if number == place::EXIT { Place::Exit } else { Place::Halted };
                return Ok((exit(self.exits), input.byte()?));
            }
            place::LOW | place::HIGH => (usize::from(number == place::HIGH), false, true),
            place::FLAGS => {
                let flags = input.byte()?;
                if flags & !flag::ALL != 0 {
                    return Err(CodecError::Flags(flags));
                }
                let set = |flag| flags & flag != 0;
                (usize::from(set(flag::HIGH)), set(flag::REPEATING), !set(flag::NO_BREAKPOINT))
            }
            other => return Err(CodecError::Place(other)),
        };
        self.n = self.n.wrapping_add(input.varint()?);
        let rip = self.rip[half].wrapping_add(unzigzag(input.varint()?));
        self.rip[half] = rip;
        let rcx = if repeating { input.varint()? } else { 0 };
        Ok((Place::Between { point: Point { n: self.n, rip, rcx }, repeating, breakpoint }, 0))
    }

    fn parse_event<'l>(&mut self, number: u8, input: &mut In<'l>) -> Result<Event<'l>, CodecError> {
        Ok(match number {
            kind::LOOK => Event::Look(None),
            kind::CORRECT => {
                self.rate = take_rate(input, self.rate)?;
                Event::Look(Some(Correction { rate: self.rate, step: take_step(input)? }))
            }
            kind::WAKE_AFTER_DUE => Event::WakeAfterDue(input.varint()?),
            kind::WAKE => Event::Wake(input.varint()?),
            kind::CONSOLE => Event::Console(input.string()?),
            kind::SIDE_CONSOLE => Event::SideConsole(input.string()?),
            kind::FRAME_FIRST => Event::Frame { device: 0, frame: input.string()? },
            kind::FRAME => Event::Frame { device: input.byte()?, frame: input.string()? },
            kind::STARVED => Event::Starved { device: input.byte()? },
            kind::LINK_DOWN => Event::Link { device: input.byte()?, up: false },
            kind::LINK_UP => Event::Link { device: input.byte()?, up: true },
            kind::POWER_BUTTON => Event::PowerButton,
            kind::RESET => Event::Reset,
            kind::OUTPUT => Event::Output,
            kind::HASH => Event::Hash(u64::from_le_bytes(input.array()?)),
            kind::CHECKPOINT => Event::Checkpoint(input.string()?),
            kind::END => Event::End(core::str::from_utf8(input.string()?).map_err(|_| CodecError::Text)?),
            other => return Err(CodecError::Kind(other)),
        })
    }
}

/// The place and the check as they are written: without what has no meaning there.
fn normal(entry: &Entry<'_>) -> (Place, u8) {
    match entry.place {
        Place::Between { point, repeating: false, breakpoint } => {
            (Place::Between { point: Point { rcx: 0, ..point }, repeating: false, breakpoint }, 0)
        }
        place @ Place::Between { .. } => (place, 0),
        place => (place, entry.check),
    }
}

/// The number of an event's kind.
const fn number(event: &Event<'_>) -> u8 {
    match event {
        Event::Look(None) => kind::LOOK,
        Event::Look(Some(_)) => kind::CORRECT,
        Event::WakeAfterDue(_) => kind::WAKE_AFTER_DUE,
        Event::Wake(_) => kind::WAKE,
        Event::Console(_) => kind::CONSOLE,
        Event::SideConsole(_) => kind::SIDE_CONSOLE,
        Event::Frame { device: 0, .. } => kind::FRAME_FIRST,
        Event::Frame { .. } => kind::FRAME,
        Event::Starved { .. } => kind::STARVED,
        Event::Link { up: false, .. } => kind::LINK_DOWN,
        Event::Link { up: true, .. } => kind::LINK_UP,
        Event::PowerButton => kind::POWER_BUTTON,
        Event::Reset => kind::RESET,
        Event::Output => kind::OUTPUT,
        Event::Hash(_) => kind::HASH,
        Event::Checkpoint(_) => kind::CHECKPOINT,
        Event::End(_) => kind::END,
    }
}
