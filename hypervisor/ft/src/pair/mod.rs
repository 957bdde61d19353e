//! The state machine of one host of a pair: events and the time in, actions out.
//!
//! `ARCHITECTURE.md`, "The pair", has its table. Files: what is common here, [`state`] the words, `primary`, `backup` and
//! `arbitrating` the transitions of each.

mod arbitrating;
mod backup;
mod primary;
pub mod state;
#[cfg(test)]
mod tests;

pub use state::{Halted, Order, Role, State, Suspicion};

use crate::arbiter::{Answer, Ask};
use crate::channel::{Ack, Why};
use crate::detect::{Grace, Silence};
use crate::heartbeat::Status;
use crate::history::{History, HistoryEvent};
use crate::keys::Incarnation;
use crate::side::{PATHS, Path};
use crate::text::Text;

/// What a pair is made with. Times are nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What this host is at power-on.
    pub role: Role,
    /// The generation that will be armed.
    pub generation: u64,
    /// The paths that have heartbeats, by [`Path::index`].
    pub paths: [bool; PATHS],
    /// Between two heartbeats on a path.
    pub heartbeat_ns: u64,
    /// Silence on all paths and the channel after which the peer is suspected.
    pub timeout_ns: u64,
    /// How long the primary waits for acknowledgements, or for the channel to come back, while there are heartbeats.
    pub stall_ns: u64,
    /// Before an arbiter that could not be reached is asked again.
    pub retry_ns: u64,
}

impl Settings {
    /// Default of [`retry_ns`](Self::retry_ns).
    pub const RETRY_NS: u64 = 100_000_000;
}

/// What a host learns. Everything said of the peer is authentic: it came through the channel's cipher or a heartbeat's seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time has passed, and all that had arrived was told before. To be told at each [deadline](Pair::next_deadline) at the latest.
    Tick,
    /// A heartbeat.
    Heard {
        /// The way that it came.
        path: Path,
        /// The generation that the peer is in.
        generation: u64,
        /// What the peer is.
        status: Status,
    },
    /// The channel stands, and the two fit together.
    ChannelUp {
        /// Which start of the peer this is.
        peer: Incarnation,
    },
    /// The channel is gone.
    ChannelDown,
    /// Something came on the channel that is no other event: a piece of the log, a ping.
    ChannelHeard,
    /// A peer was refused that has the key; why.
    Refused(Text),
    /// The peer has started anew: what it had is lost.
    PeerRestarted,
    /// To the primary: its log has reached this position, bytes. To be told before the channel sends that far.
    Sent(u64),
    /// From the backup.
    Acked(Ack),
    /// The peer says that this generation is armed; from the backup, that it knows.
    Armed(u64),
    /// To the backup, which was told to [drain](Action::Drain): it has executed all that it has received.
    Drained {
        /// The position it has reached, bytes.
        position: u64,
    },
    /// To the backup: it has executed the log's end.
    LogEnded,
    /// To the primary: its guest has ended by itself.
    GuestEnded,
    /// To the primary, which was told to [end the log](Action::EndLog): the log's last byte is before this position.
    LogClosed(u64),
    /// The operator says, at this host.
    Order(Order),
    /// The operator says, at the backup.
    PeerOrder(Order),
    /// The guest stands still by order, or goes on: to the primary from whoever runs the guest, to the backup from the primary.
    Paused(bool),
    /// The arbiter says.
    Answer(Answer),
    /// The peer has left.
    Goodbye(Why),
    /// This host cannot go on: its guest has diverged, its kernel is in trouble.
    Trouble,
}

/// What a host has to do, in the order told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A heartbeat with this status. The positions in it are the owner's matter.
    SendBeat {
        /// The way.
        path: Path,
        /// What this host is.
        status: Status,
    },
    /// The arbiter is asked. What it was asked before is void.
    Ask(Ask),
    /// The peer is told that the generation is armed.
    SendArmed {
        /// Its number.
        generation: u64,
    },
    /// The guest starts: led by this host on a primary, by the log on a backup. If the state is [`State::Solo`], without a log.
    StartGuest,
    /// Outputs up to this position may leave.
    ReleaseTo(u64),
    /// All outputs may leave, now and from now on: there is no backup any more, nor a log.
    ReleaseAll,
    /// The backup takes no more from the channel, acknowledges nothing more, and executes all that it has; then it tells
    /// [`Event::Drained`], or [`Event::LogEnded`] if the log's end was in it.
    Drain,
    /// The backup goes live: clock, devices, vCPU; then the guest's address is announced.
    GoLive,
    /// The guest's end, and why it came, are written to the log and the log is closed; then [`Event::LogClosed`].
    EndLog,
    /// The guest is stopped for good. Nothing leaves any more that was not released.
    StopGuest,
    /// The order is given to the guest, through the log if there is one.
    Apply(Order),
    /// The primary is told what the operator has ordered here.
    Forward(Order),
    /// The backup is told that the guest stands still, or goes on; before any more of the log.
    SendPaused(bool),
    /// The peer is told that this host leaves.
    SendGoodbye(Why),
    /// The channel is closed, after what is to be sent was sent, and never opened again.
    CloseChannel,
    /// This host gives up; its guest is stopped, and nothing leaves any more.
    Halt(Halted),
    /// Something for people; it is in the [history](Pair::history) too.
    Note(HistoryEvent),
}

/// Where the actions go.
type Out<'o> = &'o mut dyn FnMut(Action);

/// Questions to the arbiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    None,
    /// Asked; the answer is awaited.
    Waiting(Ask),
    /// To be asked at this time.
    Again(Ask, u64),
}

/// The end of the guest on the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    No,
    /// It was ordered before the guest has started.
    Wanted,
    /// The log is being closed.
    Closing,
    /// The log's last byte is before this position.
    Closed(u64),
}

/// The state machine.
#[derive(Clone, Debug)]
pub struct Pair {
    settings: Settings,
    state: State,
    role: Role,
    peer: Option<Incarnation>,
    silence: Silence,
    grace: Grace,
    /// When heartbeats are due.
    beats: [u64; PATHS],
    /// Paths on which the peer is heard.
    alive: [bool; PATHS],
    channel_up: bool,
    /// When the channel was lost, or an acknowledgement brought something new, or nothing was outstanding: what is later.
    progress_at: u64,
    sent: u64,
    acked: Ack,
    released: u64,
    /// The position that a contender tells.
    position: u64,
    question: Question,
    /// The arbiter knows of the generation, and the backup has to say that it does.
    confirming: bool,
    started: bool,
    ending: Ending,
    /// The guest stands still by order; on a backup: where its log has arrived to.
    paused: bool,
    history: History,
}

impl Pair {
    /// A host that looks for its peer.
    #[must_use]
    pub fn new(settings: Settings, now: u64) -> Self {
        let jump = settings.heartbeat_ns.saturating_add(settings.heartbeat_ns / 2);
        let mut pair = Self {
            settings,
            state: State::Joining,
            role: settings.role,
            peer: None,
            silence: Silence::new(now),
            grace: Grace::new(jump, settings.heartbeat_ns),
            beats: [now; PATHS],
            alive: [false; PATHS],
            channel_up: false,
            progress_at: now,
            sent: 0,
            acked: Ack::default(),
            released: 0,
            position: 0,
            question: Question::None,
            confirming: false,
            started: false,
            ending: Ending::No,
            paused: false,
            history: History::default(),
        };
        pair.history.push(now, HistoryEvent::Joining(settings.role));
        pair
    }

    /// What the host is.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// What the host was at power-on, or is after it went live.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// The generation.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.settings.generation
    }

    /// The peer, if it was ever there.
    #[must_use]
    pub const fn peer(&self) -> Option<Incarnation> {
        self.peer
    }

    /// Whether the channel stands.
    #[must_use]
    pub const fn channel_is_up(&self) -> bool {
        self.channel_up
    }

    /// What the backup has acknowledged, to the primary.
    #[must_use]
    pub const fn acked(&self) -> Ack {
        self.acked
    }

    /// Position up to which outputs were released, bytes.
    #[must_use]
    pub const fn released(&self) -> u64 {
        self.released
    }

    /// When the peer was heard.
    #[must_use]
    pub const fn silence(&self) -> &Silence {
        &self.silence
    }

    /// Whether the peer is heard on a path.
    #[must_use]
    pub const fn hears(&self, path: Path) -> bool {
        self.alive[path.index()]
    }

    /// Whether the guest stands still by order, as far as this host knows: it then does so on whoever takes it over.
    #[must_use]
    pub const fn is_paused(&self) -> bool {
        self.paused
    }

    /// What has happened.
    #[must_use]
    pub const fn history(&self) -> &History {
        &self.history
    }

    /// What heartbeats say of this host.
    #[must_use]
    pub const fn status(&self) -> Status {
        match self.state {
            State::Joining | State::Arming => Status::Starting,
            State::Protected | State::Ending => match self.role {
                Role::Primary if self.paused => Status::Paused,
                Role::Primary => Status::Primary,
                Role::Backup => Status::Backup,
            },
            State::Draining => Status::Backup,
            State::Arbitrating => Status::Arbitrating,
            State::Solo => Status::Solo,
            State::Halted(_) => Status::Halted,
            State::Ended => Status::Ended,
        }
    }

    /// Takes an event at this time of the host's clock, nanoseconds, which never goes back. `out` gets the actions.
    pub fn step(&mut self, event: Event, now: u64, out: &mut impl FnMut(Action)) {
        let out: Out<'_> = out;
        if let Some(jumped) = self.grace.look(now) {
            // Time in which this host could not look at anything is nobody's failure.
            self.progress_at = now;
            self.note(HistoryEvent::ClockJumped(jumped), now, out);
        }
        match event {
            Event::Tick => self.tick(now, out),
            Event::Heard { path, generation, status } => self.heard(path, generation, status, now, out),
            Event::ChannelUp { peer } => self.channel_is_there(peer, now, out),
            Event::ChannelDown => self.channel_is_gone(now, out),
            Event::ChannelHeard => self.silence.heard_on_channel(now),
            Event::Refused(why) => self.note(HistoryEvent::Refused(why), now, out),
            Event::PeerRestarted => self.suspect_if_watching(Suspicion::Restarted, now, out),
            Event::Sent(position) => self.log_reached(position, now),
            Event::Acked(ack) => self.acknowledged(ack, now, out),
            Event::Armed(generation) => self.armed(generation, now, out),
            Event::Drained { position } => self.drained(position, now, out),
            Event::LogEnded => self.log_ended(now, out),
            Event::GuestEnded => self.end(now, out),
            Event::LogClosed(position) => self.log_closed(position, now, out),
            Event::Order(order) => self.ordered(order, now, out),
            Event::PeerOrder(order) => self.peer_orders(order, now, out),
            Event::Paused(paused) => self.stands(paused, now, out),
            Event::Answer(answer) => self.answered(answer, now, out),
            Event::Goodbye(why) => self.left(why, now, out),
            Event::Trouble => self.trouble(now, out),
        }
    }

    /// When [`Event::Tick`] is due, nanoseconds. A host beats in every state, so there always is such a time.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let beats = Path::ALL.into_iter().filter(|path| self.settings.paths[path.index()]);
        let beats = beats.map(|path| self.beats[path.index()]).min();
        let grace = self.grace.until();
        let question = match self.question {
            Question::Again(_, at) => Some(at),
            _ => None,
        };
        let (silence, stall) = if self.is_watching() && grace.is_none() {
            (Some(self.silence.last().saturating_add(self.settings.timeout_ns)), self.stall_at())
        } else {
            (None, None)
        };
        [beats, grace, question, silence, stall].into_iter().flatten().min()
    }

    fn note(&mut self, event: HistoryEvent, now: u64, out: Out<'_>) {
        self.history.push(now, event);
        out(Action::Note(event));
    }

    /// Enters a state, and tells the peer at the next opportunity.
    fn enter(&mut self, state: State, now: u64) {
        self.state = state;
        // Not only when a heartbeat is due: the peer may wait for this.
        self.beats = [now; PATHS];
    }

    fn tick(&mut self, now: u64, out: Out<'_>) {
        let graced = self.grace.until().is_some();
        self.grace.settle(now);
        if self.grace.until().is_none() {
            if graced {
                self.release(out);
                self.finish_ending(now, out);
            }
            self.judge(now, out);
        }
        self.look_at_paths(now, out);
        if let Question::Again(ask, at) = self.question
            && now >= at
        {
            self.ask(ask, now, out);
        }
        self.beat(now, out);
    }

    fn beat(&mut self, now: u64, out: Out<'_>) {
        for path in Path::ALL {
            let due = &mut self.beats[path.index()];
            if self.settings.paths[path.index()] && now >= *due {
                // Late ones are not made up for.
                *due = now.saturating_add(self.settings.heartbeat_ns.max(1));
                let status = self.status();
                out(Action::SendBeat { path, status });
            }
        }
    }

    /// Tells when a path is lost, or back.
    fn look_at_paths(&mut self, now: u64, out: Out<'_>) {
        for path in Path::ALL {
            let silent = now.saturating_sub(self.silence.last_on(path)) >= self.settings.timeout_ns;
            if silent && core::mem::replace(&mut self.alive[path.index()], false) {
                self.note(HistoryEvent::PathLost(path), now, out);
            }
        }
    }

    /// Whether the peer's silence means something in this state.
    const fn is_watching(&self) -> bool {
        match self.state {
            State::Protected | State::Ending => true,
            // A backup that is not armed has nothing to save.
            State::Arming => self.confirming,
            _ => false,
        }
    }

    /// When the primary gives up a backup that has heartbeats but does not go on, nanoseconds.
    fn stall_at(&self) -> Option<u64> {
        let waits = !self.channel_up || self.is_outstanding();
        let primary = self.role == Role::Primary && self.is_watching();
        (primary && waits).then(|| self.progress_at.saturating_add(self.settings.stall_ns))
    }

    /// Whether the backup has to say something.
    const fn is_outstanding(&self) -> bool {
        self.confirming || self.sent > self.acked.received
    }

    fn judge(&mut self, now: u64, out: Out<'_>) {
        if !self.is_watching() {
            return;
        }
        if self.silence.silent_for(now) >= self.settings.timeout_ns {
            self.suspect(Suspicion::Silent, now, out);
        } else if self.stall_at().is_some_and(|at| now >= at) {
            let why = if self.channel_up { Suspicion::Stalled } else { Suspicion::Channel };
            self.suspect(why, now, out);
        }
    }

    fn suspect_if_watching(&mut self, why: Suspicion, now: u64, out: Out<'_>) {
        if self.is_watching() {
            self.suspect(why, now, out);
        }
    }

    fn suspect(&mut self, why: Suspicion, now: u64, out: Out<'_>) {
        self.note(HistoryEvent::Suspect(why), now, out);
        match self.role {
            Role::Primary => self.give_up_backup(now, out),
            Role::Backup => self.drain(now, out),
        }
    }

    fn heard(&mut self, path: Path, generation: u64, status: Status, now: u64, out: Out<'_>) {
        self.silence.heard(path, now);
        if !core::mem::replace(&mut self.alive[path.index()], true) {
            self.note(HistoryEvent::PathBack(path), now, out);
        }
        if generation < self.settings.generation {
            return;
        }
        match status {
            Status::Solo => self.has_lost(now, out),
            Status::Ended => self.peer_has_ended(now, out),
            Status::Halted => self.suspect_if_watching(Suspicion::Left, now, out),
            Status::Starting | Status::Primary | Status::Paused | Status::Backup | Status::Arbitrating => {}
        }
    }

    /// The peer says that it is alone.
    fn has_lost(&mut self, now: u64, out: Out<'_>) {
        let contends = self.is_watching()
            || matches!(self.state, State::Arming | State::Draining | State::Arbitrating | State::Joining);
        if contends {
            self.halt(Halted::Lost, now, out);
        }
    }

    fn channel_is_there(&mut self, peer: Incarnation, now: u64, out: Out<'_>) {
        self.silence.heard_on_channel(now);
        self.channel_up = true;
        // A channel that comes and goes is no progress.
        if !self.is_outstanding() {
            self.progress_at = now;
        }
        match self.state {
            State::Joining => {
                self.peer = Some(peer);
                self.enter(State::Arming, now);
                self.note(HistoryEvent::Joined, now, out);
                if self.role == Role::Primary {
                    self.arm(peer, now, out);
                }
            }
            State::Arming | State::Protected | State::Ending if self.peer != Some(peer) => {
                self.another_peer(peer, now, out);
            }
            State::Arming | State::Protected | State::Ending => {
                self.note(HistoryEvent::ChannelUp, now, out);
                if self.confirming {
                    out(Action::SendArmed { generation: self.settings.generation });
                }
                if self.role == Role::Primary && self.state == State::Protected {
                    // What was said last may have been lost with the connection.
                    out(Action::SendPaused(self.paused));
                }
            }
            State::Draining | State::Arbitrating | State::Solo | State::Halted(_) | State::Ended => {}
        }
    }

    /// The peer that was here has lost what it had.
    fn another_peer(&mut self, peer: Incarnation, now: u64, out: Out<'_>) {
        match (self.role, self.state) {
            // Nothing was armed here: one is as good as the other.
            (Role::Backup, State::Arming) => {
                self.peer = Some(peer);
                self.note(HistoryEvent::Joined, now, out);
            }
            // While the arbiter has not answered, the channel's loss will be seen when it has.
            (Role::Primary, State::Arming) if !self.confirming => self.channel_up = false,
            _ => self.suspect(Suspicion::Restarted, now, out),
        }
    }

    fn channel_is_gone(&mut self, now: u64, out: Out<'_>) {
        if !core::mem::replace(&mut self.channel_up, false) {
            return;
        }
        // The stall is counted from here, unless something was awaited before.
        if !self.is_outstanding() {
            self.progress_at = now;
        }
        self.note(HistoryEvent::ChannelDown, now, out);
        if self.state == State::Arming && self.role == Role::Backup {
            self.enter(State::Joining, now);
        }
    }

    fn armed(&mut self, generation: u64, now: u64, out: Out<'_>) {
        self.silence.heard_on_channel(now);
        if generation != self.settings.generation {
            return;
        }
        match self.role {
            Role::Primary => self.backup_knows(now, out),
            Role::Backup => self.primary_has_armed(now, out),
        }
    }

    /// The virtual machine is protected from here on.
    fn protect(&mut self, now: u64, out: Out<'_>) {
        self.confirming = false;
        self.started = true;
        self.progress_at = now;
        self.enter(State::Protected, now);
        self.note(HistoryEvent::Protected(self.role), now, out);
        out(Action::StartGuest);
    }

    fn ordered(&mut self, order: Order, now: u64, out: Out<'_>) {
        if self.role == Role::Backup && self.state != State::Joining {
            if self.state == State::Protected && self.channel_up {
                return out(Action::Forward(order));
            }
            return self.note(HistoryEvent::OrderRefused(order), now, out);
        }
        match (order, self.state) {
            (Order::PowerOff, _) => self.end(now, out),
            (_, State::Protected | State::Arbitrating | State::Solo) if self.started => {
                out(Action::Apply(order));
            }
            _ => self.note(HistoryEvent::OrderRefused(order), now, out),
        }
    }

    /// An order that was given at the backup.
    fn peer_orders(&mut self, order: Order, now: u64, out: Out<'_>) {
        self.silence.heard_on_channel(now);
        if self.role == Role::Primary {
            self.note(HistoryEvent::PeerOrders(order), now, out);
            self.ordered(order, now, out);
        }
    }

    /// The guest stands still by order, or goes on.
    fn stands(&mut self, paused: bool, now: u64, out: Out<'_>) {
        if self.role == Role::Backup {
            self.silence.heard_on_channel(now);
        }
        if core::mem::replace(&mut self.paused, paused) == paused || !self.started {
            return;
        }
        self.note(if paused { HistoryEvent::Paused } else { HistoryEvent::Resumed }, now, out);
        if self.role == Role::Primary && self.state == State::Protected && self.channel_up {
            out(Action::SendPaused(paused));
            self.beats = [now; PATHS];
        }
    }

    /// The guest has ended, or shall, on the host that leads it.
    fn end(&mut self, now: u64, out: Out<'_>) {
        match (self.role, self.state) {
            (_, State::Joining) | (Role::Primary, State::Solo) => self.ended(now, out),
            (Role::Primary, State::Protected) => self.end_log(now, out),
            // The backup may know already that the generation is armed.
            (Role::Primary, State::Arming) => self.ending = Ending::Wanted,
            // The generation is to be consumed before: then the backup will not go live.
            (Role::Primary, State::Arbitrating) if self.ending == Ending::No => {
                self.ending = Ending::Wanted;
                self.note(HistoryEvent::Ending, now, out);
                out(Action::StopGuest);
            }
            _ => {}
        }
    }

    /// The virtual machine has ended, and nobody will go live.
    fn ended(&mut self, now: u64, out: Out<'_>) {
        self.question = Question::None;
        self.enter(State::Ended, now);
        out(Action::StopGuest);
        self.leave(Why::Ended, out);
        self.note(HistoryEvent::Ended, now, out);
    }

    fn left(&mut self, why: Why, now: u64, out: Out<'_>) {
        self.silence.heard_on_channel(now);
        self.note(HistoryEvent::Goodbye(why), now, out);
        match why {
            Why::Ended => self.peer_has_ended(now, out),
            Why::Refused | Why::Lost | Why::Trouble => self.suspect_if_watching(Suspicion::Left, now, out),
        }
    }

    /// The peer says that the virtual machine has ended: a backup, once it has executed the log's end.
    fn peer_has_ended(&mut self, now: u64, out: Out<'_>) {
        match self.ending {
            Ending::Closed(position) if self.state == State::Ending => {
                self.acked.received = self.acked.received.max(position);
                if self.grace.until().is_none() {
                    self.release(out);
                    self.finish_ending(now, out);
                }
            }
            _ => self.suspect_if_watching(Suspicion::Left, now, out),
        }
    }

    fn trouble(&mut self, now: u64, out: Out<'_>) {
        if !matches!(self.state, State::Halted(_) | State::Ended) {
            self.halt(Halted::Trouble, now, out);
        }
    }

    fn halt(&mut self, why: Halted, now: u64, out: Out<'_>) {
        self.question = Question::None;
        self.confirming = false;
        self.enter(State::Halted(why), now);
        out(Action::Halt(why));
        self.leave(if why == Halted::Lost { Why::Lost } else { Why::Trouble }, out);
        self.note(HistoryEvent::Halted(why), now, out);
    }

    /// Nothing more is said to the peer but by heartbeats.
    fn leave(&mut self, why: Why, out: Out<'_>) {
        if core::mem::replace(&mut self.channel_up, false) {
            out(Action::SendGoodbye(why));
        }
        out(Action::CloseChannel);
    }
}
