//! Entries as bytes, each against the one before.
//!
//! The state of the codec goes on over all blocks, so they are read in their order.

use super::bytes::{In, Malformed, NoRoom, Out};
use super::entry::{Correction, Entry, Event, Place};
use super::flows::{BadFrame, FRAME_MAX, Flows, Wrong};
use super::frame::Frame;
use super::places::Places;
use super::rates::{put_rate, put_step, take_rate, take_step};
use crate::check::Check;
use crate::point::Point;
use core::fmt;

/// How far an execution has come: an index to the log.
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
    /// For network device 0, like the last one.
    pub const FRAME_NEXT: u8 = 17;
    /// The clock's rate is corrected, and it does not step.
    pub const CORRECT_RATE: u8 = 18;
    /// For any network device, as it is, and no flow remembers it.
    pub const FRAME_PLAIN: u8 = 19;
}

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
    /// At the place of the entry before, and there is none.
    NoPlace,
    /// A step of the clock of more than 32 bits.
    Step(u64),
    /// A rate of the clock of more than 64 bits.
    Rate,
    /// A word that is not UTF-8.
    Text,
    /// A frame that cannot be read.
    Frame(BadFrame),
}

impl From<Wrong> for CodecError {
    fn from(wrong: Wrong) -> Self {
        match wrong {
            Wrong::Malformed(malformed) => Self::Malformed(malformed),
            Wrong::Bad(bad) => Self::Frame(bad),
        }
    }
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
            Self::NoPlace => f.write_str("the first entry refers to the place of one before"),
            Self::Step(step) => write!(f, "a step of the clock of {step} ns"),
            Self::Rate => f.write_str("a rate of the clock of more than 64 bits"),
            Self::Text => f.write_str("a word that is not UTF-8"),
            Self::Frame(bad) => bad.fmt(f),
        }
    }
}

/// How frames are written. Whoever reads them takes both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Frames {
    /// Against earlier ones of the same flow: the fewest bytes, for a log that is stored.
    #[default]
    Predicted,
    /// As they are: the fewest instructions, for a log that another host reads at once.
    Plain,
}

/// What entries are measured from.
///
/// It goes on from block to block: a log is read from its beginning, and a clone of this is a place in it.
#[derive(Clone, Debug, Default)]
pub struct Codec {
    places: Places,
    flows: Flows,
    rate: u64,
    frames: Frames,
}

impl Codec {
    /// At the log's beginning.
    #[must_use]
    pub const fn new() -> Self {
        Self { places: Places::new(), flows: Flows::new(), rate: 0, frames: Frames::Predicted }
    }

    /// The same, for a writer that writes frames like this.
    #[must_use]
    pub const fn with_frames(self, frames: Frames) -> Self {
        Self { frames, ..self }
    }

    /// Writes an entry. When it does not fit, what was written is to be dropped, and the codec is as before.
    ///
    /// RCX outside of a REP has no room, and becomes 0.
    ///
    /// # Errors
    /// It does not fit.
    pub fn emit(&mut self, entry: &Entry<'_>, out: &mut Out<'_>) -> Result<(), NoRoom> {
        let (place, check) = normal(entry);
        let way = self.places.number(place, check);
        let begin = |kind: u8, out: &mut Out<'_>| {
            out.byte(way << PLACE_SHIFT | kind)?;
            self.places.emit(way, place, check, out)
        };
        match entry.event {
            Event::Frame { device, ref frame } if self.frames == Frames::Plain => {
                begin(kind::FRAME_PLAIN, out)?;
                emit_plain(device, frame, out)?;
            }
            Event::Frame { device, ref frame } => {
                let plan = self.flows.plan(frame)?;
                let implied = device == 0 && plan.is_next();
                match device {
                    0 => begin(if implied { kind::FRAME_NEXT } else { kind::FRAME_FIRST }, out)?,
                    _ => {
                        begin(kind::FRAME, out)?;
                        out.byte(device)?;
                    }
                }
                self.flows.write(&plan, implied, out)?;
            }
            ref event => {
                begin(number(event), out)?;
                self.emit_event(event, out)?;
            }
        }
        self.places.go(place, check);
        Ok(())
    }

    /// All but frames.
    fn emit_event(&mut self, event: &Event<'_>, out: &mut Out<'_>) -> Result<(), NoRoom> {
        match *event {
            Event::Look(None) | Event::PowerButton | Event::Reset | Event::Output | Event::Frame { .. } => {
                Ok(())
            }
            Event::Look(Some(Correction { rate, step })) => {
                put_rate(out, rate, self.rate)?;
                if step != 0 {
                    put_step(out, step)?;
                }
                self.rate = rate;
                Ok(())
            }
            Event::WakeAfterDue(ns) | Event::Wake(ns) => out.varint(ns),
            Event::Console(bytes) | Event::SideConsole(bytes) | Event::Checkpoint(bytes) => out.string(bytes),
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
        let (place, check) = self.places.parse(first >> PLACE_SHIFT, input)?;
        let event = self.parse_event(first & KIND_MASK, input)?;
        Ok(Entry { place, check, event })
    }

    fn parse_event<'l>(&mut self, number: u8, input: &mut In<'l>) -> Result<Event<'l>, CodecError> {
        Ok(match number {
            kind::LOOK => Event::Look(None),
            kind::CORRECT | kind::CORRECT_RATE => {
                self.rate = take_rate(input, self.rate)?;
                let step = if number == kind::CORRECT { take_step(input)? } else { 0 };
                Event::Look(Some(Correction { rate: self.rate, step }))
            }
            kind::WAKE_AFTER_DUE => Event::WakeAfterDue(input.varint()?),
            kind::WAKE => Event::Wake(input.varint()?),
            kind::CONSOLE => Event::Console(input.string()?),
            kind::SIDE_CONSOLE => Event::SideConsole(input.string()?),
            kind::FRAME_FIRST => Event::Frame { device: 0, frame: self.flows.read(false, input)? },
            kind::FRAME_NEXT => Event::Frame { device: 0, frame: self.flows.read(true, input)? },
            kind::FRAME => Event::Frame { device: input.byte()?, frame: self.flows.read(false, input)? },
            kind::FRAME_PLAIN => Event::Frame { device: input.byte()?, frame: parse_plain(input)? },
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

/// A frame as it is, for this device.
fn emit_plain(device: u8, frame: &Frame<'_>, out: &mut Out<'_>) -> Result<(), NoRoom> {
    if frame.len() > FRAME_MAX {
        return Err(NoRoom);
    }
    out.byte(device)?;
    out.varint(frame.len() as u64)?;
    frame.parts().into_iter().try_for_each(|part| out.raw(part))
}

fn parse_plain<'l>(input: &mut In<'l>) -> Result<Frame<'l>, CodecError> {
    let bytes = input.string()?;
    if bytes.len() > FRAME_MAX {
        return Err(CodecError::Frame(BadFrame::Length(bytes.len() as u64)));
    }
    Ok(Frame::whole(bytes))
}

/// The place and the check as they are written: without what has no meaning there.
fn normal(entry: &Entry<'_>) -> (Place, Option<Check>) {
    match entry.place {
        Place::Between { point, repeating: false, breakpoint } => {
            let place = Place::Between { point: Point { rcx: 0, ..point }, repeating: false, breakpoint };
            (place, entry.check)
        }
        place @ Place::Between { .. } => (place, entry.check),
        place => (place, Some(entry.check.unwrap_or_default())),
    }
}

/// The number of an event's kind.
const fn number(event: &Event<'_>) -> u8 {
    match event {
        Event::Look(None) => kind::LOOK,
        Event::Look(Some(Correction { step: 0, .. })) => kind::CORRECT_RATE,
        Event::Look(Some(_)) => kind::CORRECT,
        Event::WakeAfterDue(_) => kind::WAKE_AFTER_DUE,
        Event::Wake(_) => kind::WAKE,
        Event::Console(_) => kind::CONSOLE,
        Event::SideConsole(_) => kind::SIDE_CONSOLE,
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
