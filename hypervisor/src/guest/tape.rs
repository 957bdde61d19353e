//! Whether what comes into the virtual machine is recorded, or comes from a recording.

use super::board::Board;
use super::recording::Recording;
use super::replaying::Replaying;
use crate::vcpu::Active;
use alloc::boxed::Box;
use replay::point::Registers;

/// The log's part in a run.
pub enum Tape {
    /// None: the guest is not protected.
    Off,
    /// Everything that comes in is recorded.
    Recording(Box<Recording>),
    /// Everything that comes in comes from the log.
    Replaying(Box<Replaying>),
}

/// Where the guest is when something comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Here {
    /// In a HLT.
    Halted,
    /// At a synchronous exit that was dealt with.
    AfterExit,
    /// Elsewhere.
    Between {
        /// N.
        n: u64,
        /// The registers.
        registers: Registers,
        /// Blocked by MOV SS.
        mov_ss: bool,
    },
}

impl Tape {
    /// The guest is at a synchronous exit.
    #[inline]
    pub fn begin_exit(&mut self) {
        match self {
            Self::Off => {}
            Self::Recording(recording) => recording.recorder.begin_exit(),
            Self::Replaying(replaying) => replaying.replayer.begin_exit(),
        }
    }
}

impl Board {
    /// The synchronous exit was dealt with.
    #[inline]
    pub fn end_exit(&mut self, on: &mut Active<'_>) {
        match &mut self.tape {
            Tape::Off => {}
            Tape::Recording(recording) => recording.end_exit(on, self.time.instructions()),
            Tape::Replaying(replaying) => replaying.end_exit(on, self.time.instructions()),
        }
    }

    /// Something may come in at the synchronous exit that the guest is at.
    pub fn note_registers(&mut self, on: &Active<'_>) {
        match &mut self.tape {
            Tape::Off => {}
            Tape::Recording(recording) => recording.recorder.note(|to| on.write_place_registers(to)),
            Tape::Replaying(replaying) => replaying.replayer.note(|to| on.write_place_registers(to)),
        }
    }
}
