//! What the log says: events that come into the virtual machine, and the places at which they do.

use super::frame::Frame;
use crate::check::Check;
use crate::point::Point;

/// The clock is corrected: see `machine::clock::Correction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Correction {
    /// Nanoseconds per counted instruction from now on, 32.32 fixed point.
    pub rate: u64,
    /// Nanoseconds by which the clock steps forward now.
    pub step: u32,
}

/// Where an entry takes effect.
///
/// A *synchronous exit* is a VM exit that every execution of the guest has at the same place: an instruction that is emulated,
/// a window that opens. They are numbered from 1 on. All other exits are the host's alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// After the synchronous exit of this number was dealt with, before the next entry. 0: before the first entry.
    Exit(u64),
    /// While the guest waits in the HLT that is the synchronous exit of this number.
    Halted(u64),
    /// At an execution point between two synchronous exits.
    Between {
        /// The point. RCX is 0 where it does not matter: outside of a REP.
        point: Point,
        /// The guest is in the midst of a repeated instruction, so RCX tells the iterations apart.
        repeating: bool,
        /// A breakpoint on RIP is not lost there: see [`crate::landing::Target::breakpoint`].
        breakpoint: bool,
    },
}

/// What comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Time is looked at: the clock is corrected, if at all, and the devices do what has become due.
    Look(Option<Correction>),
    /// The halted guest's time jumps to the moment when something is due, and so many nanoseconds beyond it; the devices
    /// do what has become due.
    WakeAfterDue(u64),
    /// The halted guest's time jumps ahead by so many nanoseconds; the devices do what has become due.
    Wake(u64),
    /// Bytes typed at the serial console.
    Console(&'a [u8]),
    /// Bytes for the virtio console.
    SideConsole(&'a [u8]),
    /// A frame for the network device of this index.
    Frame {
        /// The network device.
        device: u8,
        /// The frame.
        frame: Frame<'a>,
    },
    /// There is a frame for this network device, but the guest has no buffer: it is asked to tell when it has.
    Starved {
        /// The network device.
        device: u8,
    },
    /// The link of a network device changes.
    Link {
        /// The network device.
        device: u8,
        /// Up.
        up: bool,
    },
    /// The power button is pressed.
    PowerButton,
    /// The reset button.
    Reset,
    /// What the guest has sent out up to here may leave once this entry is where it must be: on the backup. Nothing comes in.
    Output,
    /// The state hash over all synchronous exits so far.
    Hash(u64),
    /// The whole state is compared: a digest as `crate::digest` packs it. Only at a synchronous exit.
    Checkpoint(&'a [u8]),
    /// The recording ends here; one word says why.
    End(&'a str),
}

impl<'a> Event<'a> {
    /// The bytes that it carries, in two pieces.
    #[must_use]
    pub fn payload(&self) -> [&[u8]; 2] {
        match self {
            Self::Console(bytes) | Self::SideConsole(bytes) | Self::Checkpoint(bytes) => [&[], bytes],
            Self::Frame { frame, .. } => frame.parts(),
            Self::End(why) => [&[], why.as_bytes()],
            Self::Look(_)
            | Self::WakeAfterDue(_)
            | Self::Wake(_)
            | Self::Starved { .. }
            | Self::Link { .. }
            | Self::PowerButton
            | Self::Reset
            | Self::Output
            | Self::Hash(_) => [&[], &[]],
        }
    }

    /// The same event with these bytes in place of its own, if it carries any. A word that is no UTF-8 becomes none.
    #[must_use]
    pub fn with_payload<'b>(&self, payload: &'b [u8]) -> Event<'b> {
        match *self {
            Self::Console(_) => Event::Console(payload),
            Self::SideConsole(_) => Event::SideConsole(payload),
            Self::Checkpoint(_) => Event::Checkpoint(payload),
            Self::Frame { device, .. } => Event::Frame { device, frame: Frame::whole(payload) },
            Self::End(_) => Event::End(core::str::from_utf8(payload).unwrap_or_default()),
            Self::Look(correction) => Event::Look(correction),
            Self::WakeAfterDue(ns) => Event::WakeAfterDue(ns),
            Self::Wake(ns) => Event::Wake(ns),
            Self::Starved { device } => Event::Starved { device },
            Self::Link { device, up } => Event::Link { device, up },
            Self::PowerButton => Event::PowerButton,
            Self::Reset => Event::Reset,
            Self::Output => Event::Output,
            Self::Hash(hash) => Event::Hash(hash),
        }
    }
}

/// An entry of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Where.
    pub place: Place,
    /// What is known of the execution up to there. Always in entries at synchronous exits, and in some between two.
    pub check: Option<Check>,
    /// What.
    pub event: Event<'a>,
}
