//! What the log says: events that come into the virtual machine, and the places at which they do.

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
        /// The frame, without FCS.
        frame: &'a [u8],
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
    /// The state hash over all synchronous exits so far.
    Hash(u64),
    /// The whole state is compared: a digest as `crate::digest` packs it. Only at a synchronous exit.
    Checkpoint(&'a [u8]),
    /// The recording ends here; one word says why.
    End(&'a str),
}

/// An entry of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Where.
    pub place: Place,
    /// The low byte of the state hash at the last synchronous exit before: a cheap check. Only in entries at synchronous exits;
    /// else 0.
    pub check: u8,
    /// What.
    pub event: Event<'a>,
}
