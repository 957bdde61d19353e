//! A recording under way.

use super::board::Board;
use super::tape::Here;
use crate::vcpu::Active;
use replay::log::entry::Event;
use replay::recorder::{Moment, Recorder};

/// A recording under way.
pub struct Recording {
    /// Names places.
    pub recorder: Recorder,
}

impl Recording {
    /// Where the guest is, between two synchronous exits.
    pub fn here(&self, on: &Active<'_>, n: u64) -> Here {
        Here::Between { n, registers: on.place_registers(), mov_ss: on.blocked_by_mov_ss() }
    }

    /// Records an event.
    pub fn record(&mut self, here: Here, event: Event<'_>) {
        let moment = match &here {
            Here::Halted => Moment::Halted,
            Here::AfterExit => Moment::AfterExit,
            Here::Between { n, registers, mov_ss } => Moment::Between { n: *n, registers, mov_ss: *mov_ss },
        };
        let _entry = self.recorder.entry(moment, event);
    }
}

impl Board {
    /// What a recording has to do before an entry. Says why the guest cannot go on, if so.
    pub fn keep_recording(&mut self, _on: &mut Active<'_>, _exit: bool) -> Option<&'static str> {
        None
    }
}
