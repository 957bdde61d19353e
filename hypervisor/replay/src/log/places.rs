//! Places as bytes, each against those before.
//!
//! What comes at a regular pace (a timer's interrupts, acknowledgements) finds the guest after about as many instructions as the
//! last time, and often at an instruction where something has found it lately.

use super::bytes::{In, NoRoom, Out, unzigzag, zigzag};
use super::codec::CodecError;
use super::entry::Place;
use crate::check::Check;
use crate::point::Point;

/// RIPs that are remembered.
pub const RECENT: usize = 32;

/// A RIP that is written as it is.
const PLAIN: u64 = RECENT as u64;
/// Differences from here on do not fit beside the marks; nor do they come between addresses that processors have.
const FAR: u64 = 1 << 62;

/// The number of a place's kind.
pub mod number {
    /// That of the entry before.
    pub const SAME: u8 = 0;
    /// After a synchronous exit.
    pub const EXIT: u8 = 1;
    /// In the HLT that is one.
    pub const HALTED: u8 = 2;
    /// Between two, no REP, breakpoint possible; N by its difference.
    pub const BEHIND: u8 = 3;
    /// The same; N by the difference of its difference from the last one.
    pub const STEADY: u8 = 4;
    /// Between two, anything: a byte of flags follows; N by the difference of its difference.
    pub const FLAGS: u8 = 5;
}

/// The byte of flags.
mod flag {
    /// Amid a repeated instruction: RCX follows.
    pub const REPEATING: u8 = 1 << 0;
    /// A breakpoint would be lost.
    pub const NO_BREAKPOINT: u8 = 1 << 1;
    /// A check follows.
    pub const CHECKED: u8 = 1 << 2;
    /// All of them.
    pub const ALL: u8 = REPEATING | NO_BREAKPOINT | CHECKED;
}

/// What places are measured from.
#[derive(Clone, Debug)]
pub struct Places {
    n: u64,
    /// By how much N has grown the last time.
    pace: u64,
    exits: u64,
    /// The last RIP of the lower and of the upper half.
    rip: [u64; 2],
    /// RIPs, the last one first.
    recent: [u64; RECENT],
    /// The last place.
    last: Option<(Place, Option<Check>)>,
}

impl Default for Places {
    fn default() -> Self {
        Self::new()
    }
}

impl Places {
    /// At the log's beginning.
    #[must_use]
    pub const fn new() -> Self {
        Self { n: 0, pace: 0, exits: 0, rip: [0; 2], recent: [0; RECENT], last: None }
    }

    /// The shortest way to write a place: its number.
    #[must_use]
    pub fn number(&self, place: Place, check: Option<Check>) -> u8 {
        if self.last == Some((place, check)) {
            return number::SAME;
        }
        match place {
            Place::Exit(_) => number::EXIT,
            Place::Halted(_) => number::HALTED,
            Place::Between { point, repeating: false, breakpoint: true } if check.is_none() => {
                let step = point.n.wrapping_sub(self.n);
                if zigzag(step.wrapping_sub(self.pace)) < step { number::STEADY } else { number::BEHIND }
            }
            Place::Between { .. } => number::FLAGS,
        }
    }

    /// Writes what follows the number. It is not gone to yet: [`go`](Self::go) does.
    ///
    /// # Errors
    /// It does not fit.
    pub fn emit(
        &self,
        number: u8,
        place: Place,
        check: Option<Check>,
        out: &mut Out<'_>,
    ) -> Result<(), NoRoom> {
        match place {
            _ if number == number::SAME => Ok(()),
            Place::Exit(at) | Place::Halted(at) => {
                out.varint(at.wrapping_sub(self.exits))?;
                out.raw(&check.unwrap_or_default().bytes())
            }
            Place::Between { point, repeating, breakpoint } => {
                let step = point.n.wrapping_sub(self.n);
                if number == number::FLAGS {
                    let flags = [
                        (repeating, flag::REPEATING),
                        (!breakpoint, flag::NO_BREAKPOINT),
                        (check.is_some(), flag::CHECKED),
                    ];
                    out.byte(
                        flags.into_iter().fold(0, |all, (set, flag)| if set { all | flag } else { all }),
                    )?;
                }
                if number == number::BEHIND {
                    out.varint(step)?;
                } else {
                    out.varint(zigzag(step.wrapping_sub(self.pace)))?;
                }
                self.emit_rip(point.rip, out)?;
                if repeating {
                    out.varint(point.rcx)?;
                }
                check.map_or(Ok(()), |check| out.raw(&check.bytes()))
            }
        }
    }

    fn emit_rip(&self, rip: u64, out: &mut Out<'_>) -> Result<(), NoRoom> {
        if let Some(rank) = self.recent.iter().position(|recent| *recent == rip) {
            return out.varint(rank as u64);
        }
        let half = rip >> 63;
        let change = zigzag(rip.wrapping_sub(self.rip[half as usize]));
        if change < FAR {
            return out.varint((change << 1 | half) + PLAIN + 1);
        }
        out.varint(PLAIN)?;
        out.raw(&rip.to_le_bytes())
    }

    /// Reads what follows this number.
    ///
    /// # Errors
    /// The bytes are no place.
    pub fn parse(&mut self, number: u8, input: &mut In<'_>) -> Result<(Place, Option<Check>), CodecError> {
        let (place, check) = match number {
            number::SAME => return self.last.ok_or(CodecError::NoPlace),
            number::EXIT | number::HALTED => {
                let exits = self.exits.wrapping_add(input.varint()?);
                let place = if number == number::EXIT { Place::Exit(exits) } else { Place::Halted(exits) };
                (place, Some(Check::from_bytes(input.array()?)))
            }
            number::BEHIND | number::STEADY | number::FLAGS => self.parse_point(number, input)?,
            other => return Err(CodecError::Place(other)),
        };
        self.go(place, check);
        Ok((place, check))
    }

    fn parse_point(&self, number: u8, input: &mut In<'_>) -> Result<(Place, Option<Check>), CodecError> {
        let flags = if number == number::FLAGS { input.byte()? } else { 0 };
        if flags & !flag::ALL != 0 {
            return Err(CodecError::Flags(flags));
        }
        let step = match number {
            number::BEHIND => input.varint()?,
            _ => self.pace.wrapping_add(unzigzag(input.varint()?)),
        };
        let rip = match input.varint()? {
            PLAIN => u64::from_le_bytes(input.array()?),
            rank if rank < PLAIN => self.recent[rank as usize],
            change => {
                let change = change - PLAIN - 1;
                self.rip[(change & 1) as usize].wrapping_add(unzigzag(change >> 1))
            }
        };
        let set = |flag| flags & flag != 0;
        let repeating = set(flag::REPEATING);
        let rcx = if repeating { input.varint()? } else { 0 };
        let check = if set(flag::CHECKED) { Some(Check::from_bytes(input.array()?)) } else { None };
        let point = Point { n: self.n.wrapping_add(step), rip, rcx };
        Ok((Place::Between { point, repeating, breakpoint: !set(flag::NO_BREAKPOINT) }, check))
    }

    /// The next place is measured from this one.
    pub fn go(&mut self, place: Place, check: Option<Check>) {
        if self.last == Some((place, check)) {
            return;
        }
        self.last = Some((place, check));
        match place {
            Place::Exit(at) | Place::Halted(at) => self.exits = at,
            Place::Between { point, .. } => {
                (self.n, self.pace) = (point.n, point.n.wrapping_sub(self.n));
                self.rip[(point.rip >> 63) as usize] = point.rip;
                let rank = self.recent.iter().position(|recent| *recent == point.rip);
                let moved = self.recent.get_mut(..=rank.unwrap_or(RECENT - 1));
                if let Some(moved) = moved {
                    moved.rotate_right(1);
                }
                self.recent[0] = point.rip;
            }
        }
    }
}
