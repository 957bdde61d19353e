//! The primary: it arms the generation, releases what was acknowledged, and ends the virtual machine.

use super::{Action, Ask, Ending, HistoryEvent, Out, Pair, Role, State};
use crate::channel::Ack;
use crate::keys::Incarnation;

impl Pair {
    /// The arbiter has to know of the generation before the backup does.
    pub(super) fn arm(&mut self, peer: Incarnation, now: u64, out: Out<'_>) {
        self.ask(Ask::Arm { generation: self.settings.generation, peer }, now, out);
    }

    /// The arbiter knows: from here on the backup may contend, so this host must too before it goes on without it.
    pub(super) fn generation_is_armed(&mut self, now: u64, out: Out<'_>) {
        self.confirming = true;
        self.progress_at = now;
        self.note(HistoryEvent::Armed, now, out);
        if self.channel_up {
            out(Action::SendArmed { generation: self.settings.generation });
        }
    }

    /// The backup has said that it knows.
    pub(super) fn backup_knows(&mut self, now: u64, out: Out<'_>) {
        if self.state != State::Arming || !self.confirming {
            return;
        }
        let ends = self.ending == Ending::Wanted;
        self.protect(now, out);
        if ends {
            self.end_log(now, out);
        }
    }

    /// The log has become longer.
    pub(super) fn log_reached(&mut self, position: u64, now: u64) {
        if self.channel_up && !self.is_outstanding() {
            self.progress_at = now;
        }
        self.sent = self.sent.max(position);
        self.position = self.sent;
    }

    /// An acknowledgement: the output rule's one door.
    pub(super) fn acknowledged(&mut self, ack: Ack, now: u64, out: Out<'_>) {
        self.silence.heard_on_channel(now);
        if self.role != Role::Primary || !matches!(self.state, State::Protected | State::Ending) {
            return;
        }
        if ack.received > self.sent {
            return self.note(HistoryEvent::WrongAck(ack.received), now, out);
        }
        if ack.received > self.acked.received {
            self.progress_at = now;
        }
        self.acked.received = self.acked.received.max(ack.received);
        if ack.executed >= self.acked.executed {
            (self.acked.executed, self.acked.executed_ns) = (ack.executed, ack.executed_ns);
        }
        // After a pause of this host the backup may be live: first everything that has arrived is looked at.
        if self.grace.until().is_none() {
            self.release(out);
            self.finish_ending(now, out);
        }
    }

    /// Releases what was acknowledged.
    pub(super) fn release(&mut self, out: Out<'_>) {
        let protected = self.role == Role::Primary && matches!(self.state, State::Protected | State::Ending);
        if protected && self.acked.received > self.released {
            self.released = self.acked.received;
            out(Action::ReleaseTo(self.released));
        }
    }

    /// The guest's end goes through the log.
    pub(super) fn end_log(&mut self, now: u64, out: Out<'_>) {
        self.ending = Ending::Closing;
        self.enter(State::Ending, now);
        self.note(HistoryEvent::Ending, now, out);
        out(Action::EndLog);
    }

    pub(super) fn log_closed(&mut self, position: u64, now: u64, out: Out<'_>) {
        self.log_reached(position, now);
        if self.ending == Ending::Closing {
            self.ending = Ending::Closed(position);
            self.finish_ending(now, out);
        }
    }

    /// The backup has the log's end: it will not go live.
    pub(super) fn finish_ending(&mut self, now: u64, out: Out<'_>) {
        let Ending::Closed(position) = self.ending else { return };
        if self.state == State::Ending && self.acked.received >= position {
            self.ended(now, out);
        }
    }

    /// The backup is gone, or of no use: the output rule may be dropped once the generation is consumed.
    pub(super) fn give_up_backup(&mut self, now: u64, out: Out<'_>) {
        self.confirming = false;
        self.close_channel(out);
        self.contend(now, out);
    }

    fn close_channel(&mut self, out: Out<'_>) {
        self.channel_up = false;
        out(Action::CloseChannel);
    }
}
