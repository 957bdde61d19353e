//! Asking the arbiter, and what its answers mean.

use super::{Action, Answer, Ask, Ending, Halted, HistoryEvent, Out, Pair, Question, Role, State};

impl Pair {
    pub(super) fn ask(&mut self, ask: Ask, now: u64, out: Out<'_>) {
        self.question = Question::Waiting(ask);
        self.note(HistoryEvent::Ask(ask), now, out);
        out(Action::Ask(ask));
    }

    /// This host wants to be the one that goes on. There is no way back: the question may be answered without this host seeing it.
    pub(super) fn contend(&mut self, now: u64, out: Out<'_>) {
        self.enter(State::Arbitrating, now);
        let (generation, position) = (self.settings.generation, self.position);
        self.ask(Ask::Contend { generation, position }, now, out);
    }

    /// The same question, later.
    fn again(&mut self, ask: Ask, now: u64) {
        self.question = Question::Again(ask, now.saturating_add(self.settings.retry_ns.max(1)));
    }

    pub(super) fn answered(&mut self, answer: Answer, now: u64, out: Out<'_>) {
        let Question::Waiting(ask) = self.question else { return };
        self.question = Question::None;
        self.note(HistoryEvent::Answered(answer), now, out);
        let generation = self.settings.generation;
        match (ask, answer) {
            (Ask::Arm { .. }, Answer::Armed) => self.generation_is_armed(now, out),
            (Ask::Contend { .. } | Ask::ReadBack { .. }, Answer::Won) => {
                self.ask(Ask::Fence { generation }, now, out);
            }
            (Ask::Fence { .. }, Answer::Fenced) => self.won(now, out),
            (_, Answer::Lost) => self.halt(Halted::Lost, now, out),
            (_, Answer::Refused) => self.halt(Halted::Refused, now, out),
            (Ask::Contend { .. }, Answer::Unknown) => self.ask(Ask::ReadBack { generation }, now, out),
            // Not at once: what was asked first may still be on its way.
            (Ask::ReadBack { .. }, Answer::Free) => {
                self.again(Ask::Contend { generation, position: self.position }, now);
            }
            // Nothing was done, or it can be repeated, or the answer makes no sense.
            _ => self.again(ask, now),
        }
    }

    /// This host has consumed the generation, and the other one is kept out.
    fn won(&mut self, now: u64, out: Out<'_>) {
        if self.ending != Ending::No {
            out(Action::ReleaseAll);
            return self.ended(now, out);
        }
        self.enter(State::Solo, now);
        match self.role {
            Role::Primary => {
                out(Action::ReleaseAll);
                if !core::mem::replace(&mut self.started, true) {
                    out(Action::StartGuest);
                }
            }
            Role::Backup => {
                self.role = Role::Primary;
                out(Action::GoLive);
                self.note(HistoryEvent::Live, now, out);
            }
        }
        self.note(HistoryEvent::Solo, now, out);
    }
}
