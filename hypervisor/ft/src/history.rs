//! What has happened to the pair, with times: for `ft events`.

use crate::arbiter::{Answer, Ask};
use crate::channel::Why;
use crate::pair::{Halted, Order, Role, Suspicion};
use crate::side::Path;
use crate::text::Text;
use core::fmt;

/// Something that has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryEvent {
    /// This host looks for its peer.
    Joining(Role),
    /// The peer is there, and fits.
    Joined,
    /// A peer was refused.
    Refused(Text),
    /// The channel stands again.
    ChannelUp,
    /// The channel is gone.
    ChannelDown,
    /// Nothing is heard on a path for the time-out.
    PathLost(Path),
    /// The path is back.
    PathBack(Path),
    /// The generation can be contended for.
    Armed,
    /// The virtual machine is protected from here on; this host's role.
    Protected(Role),
    /// This host's clock has jumped by so many nanoseconds.
    ClockJumped(u64),
    /// The peer is suspected.
    Suspect(Suspicion),
    /// The arbiter is asked.
    Ask(Ask),
    /// The arbiter's answer.
    Answered(Answer),
    /// The backup executes what it has received.
    Draining,
    /// It has.
    Drained,
    /// The backup is live.
    Live,
    /// This host runs the virtual machine alone.
    Solo,
    /// The virtual machine has ended on this host; its log has to reach the backup.
    Ending,
    /// The virtual machine has ended.
    Ended,
    /// This host has given up.
    Halted(Halted),
    /// The peer has left.
    Goodbye(Why),
    /// The peer acknowledges what was never sent.
    WrongAck(u64),
    /// The operator has ordered this at the backup.
    PeerOrders(Order),
    /// The guest stands still by order.
    Paused,
    /// It goes on by order.
    Resumed,
    /// An order cannot be followed here.
    OrderRefused(Order),
}

impl HistoryEvent {
    /// One word, for machine lines.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Joining(_) => "joining",
            Self::Joined => "joined",
            Self::Refused(_) => "refused",
            Self::ChannelUp => "channel-up",
            Self::ChannelDown => "channel-down",
            Self::PathLost(_) => "path-lost",
            Self::PathBack(_) => "path-back",
            Self::Armed => "armed",
            Self::Protected(_) => "protected",
            Self::ClockJumped(_) => "clock-jumped",
            Self::Suspect(_) => "suspect",
            Self::Ask(_) => "ask",
            Self::Answered(Answer::Won) => "won",
            Self::Answered(Answer::Lost) => "lost",
            Self::Answered(_) => "answered",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Live => "live",
            Self::Solo => "solo",
            Self::Ending => "ending",
            Self::Ended => "ended",
            Self::Halted(_) => "halted",
            Self::Goodbye(_) => "goodbye",
            Self::WrongAck(_) => "wrong-ack",
            Self::PeerOrders(_) => "peer-orders",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::OrderRefused(_) => "order-refused",
        }
    }
}

impl fmt::Display for HistoryEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Joining(role) => write!(f, "looks for its peer, to be {role}"),
            Self::Joined => f.write_str("the peer is there, and fits"),
            Self::Refused(why) => write!(f, "a peer was refused: {why}"),
            Self::ChannelUp => f.write_str("the logging channel stands again"),
            Self::ChannelDown => f.write_str("the logging channel is gone"),
            Self::PathLost(path) => write!(f, "no heartbeat on the {path}"),
            Self::PathBack(path) => write!(f, "heartbeats on the {path}"),
            Self::Armed => f.write_str("the generation is armed"),
            Self::Protected(role) => write!(f, "protected; this host is {role}"),
            Self::ClockJumped(ns) => write!(f, "this host stood still for {} ms", ns / 1_000_000),
            Self::Suspect(why) => write!(f, "the peer is suspected: {why}"),
            Self::Ask(ask) => write!(f, "the arbiter is asked: {ask}"),
            Self::Answered(answer) => write!(f, "the arbiter answers: {answer}"),
            Self::Draining => f.write_str("executes what it has received"),
            Self::Drained => f.write_str("has executed what it has received"),
            Self::Live => f.write_str("goes live"),
            Self::Solo => f.write_str("runs the virtual machine alone"),
            Self::Ending => f.write_str("the virtual machine ends: the backup is told"),
            Self::Ended => f.write_str("the virtual machine has ended"),
            Self::Halted(why) => write!(f, "halted: {why}"),
            Self::Goodbye(why) => write!(f, "the peer leaves: {why}"),
            Self::WrongAck(position) => write!(f, "the peer acknowledges {position}, which was not sent"),
            Self::PeerOrders(order) => write!(f, "{order} is ordered at the other host"),
            Self::Paused => f.write_str("the guest stands still by order"),
            Self::Resumed => f.write_str("the guest goes on by order"),
            Self::OrderRefused(order) => write!(f, "{order} is ordered where the primary runs"),
        }
    }
}

/// Events that are kept.
pub const EVENTS: usize = 64;

/// A ring of the last [`EVENTS`] events.
#[derive(Clone, Debug)]
pub struct History {
    ring: [Option<(u64, HistoryEvent)>; EVENTS],
    count: u64,
}

impl Default for History {
    fn default() -> Self {
        Self { ring: [None; EVENTS], count: 0 }
    }
}

impl History {
    /// Keeps an event of this time, nanoseconds. The oldest is forgotten when there is no room.
    pub fn push(&mut self, now: u64, event: HistoryEvent) {
        self.ring[(self.count % EVENTS as u64) as usize] = Some((now, event));
        self.count = self.count.wrapping_add(1);
    }

    /// Events ever kept.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The events that are kept, with their times, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &(u64, HistoryEvent)> {
        let start = (self.count % EVENTS as u64) as usize;
        self.ring[start..].iter().chain(&self.ring[..start]).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn the_last_ones_are_kept_in_order() {
        let mut history = History::default();
        assert_eq!(history.iter().count(), 0);
        for number in 0..EVENTS as u64 + 10 {
            history.push(number, HistoryEvent::ClockJumped(number));
            let times: Vec<u64> = history.iter().map(|(at, _)| *at).collect();
            let first = (number + 1).saturating_sub(EVENTS as u64);
            assert_eq!(times, (first..=number).collect::<Vec<_>>());
        }
        assert_eq!(history.count(), EVENTS as u64 + 10);
    }
}
