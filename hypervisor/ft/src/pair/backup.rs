//! The backup: it follows, and takes over what it has received.

use super::{Action, HistoryEvent, Out, Pair, Role, State};

impl Pair {
    /// The primary says that the generation is armed: from here on this host may contend.
    pub(super) fn primary_has_armed(&mut self, now: u64, out: Out<'_>) {
        match self.state {
            State::Arming => {
                out(Action::SendArmed { generation: self.settings.generation });
                self.protect(now, out);
            }
            // It was said before, and the answer may have been lost.
            State::Protected => out(Action::SendArmed { generation: self.settings.generation }),
            _ => {}
        }
    }

    /// The primary is suspected. What it has been told was received must be executed first: outputs may have left.
    pub(super) fn drain(&mut self, now: u64, out: Out<'_>) {
        self.enter(State::Draining, now);
        self.channel_up = false;
        out(Action::CloseChannel);
        self.note(HistoryEvent::Draining, now, out);
        out(Action::Drain);
    }

    pub(super) fn drained(&mut self, position: u64, now: u64, out: Out<'_>) {
        if self.state != State::Draining {
            return;
        }
        self.position = position;
        self.note(HistoryEvent::Drained, now, out);
        self.contend(now, out);
    }

    /// The log's end was executed: the virtual machine has ended on both.
    pub(super) fn log_ended(&mut self, now: u64, out: Out<'_>) {
        if self.role == Role::Backup && matches!(self.state, State::Protected | State::Draining) {
            self.ended(now, out);
        }
    }
}
