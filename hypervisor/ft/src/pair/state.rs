//! Words for what a host of a pair is and why.

use core::fmt;

/// What a host is to the virtual machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It leads the guest, and records.
    Primary,
    /// It follows.
    Backup,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Primary => "primary",
            Self::Backup => "backup",
        })
    }
}

/// Where a host stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It looks for its peer.
    Joining,
    /// The peer is there; the generation is being armed. No guest runs yet.
    Arming,
    /// The virtual machine runs, and two hosts have it; the [role](super::Pair::role) says which one this is.
    Protected,
    /// Primary: the guest has ended, and the backup has to know before this host may leave.
    Ending,
    /// Backup: the primary is suspected, and what was received is being executed.
    Draining,
    /// The peer is suspected; the arbiter is asked, and nothing leaves.
    Arbitrating,
    /// It has consumed the generation, and runs the virtual machine alone.
    Solo,
    /// It has given up.
    Halted(Halted),
    /// The virtual machine has ended.
    Ended,
}

impl State {
    /// One word.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Arming => "arming",
            Self::Protected => "protected",
            Self::Ending => "ending",
            Self::Draining => "draining",
            Self::Arbitrating => "arbitrating",
            Self::Solo => "solo",
            Self::Halted(_) => "halted",
            Self::Ended => "ended",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Halted(why) => write!(f, "halted: {why}"),
            _ => f.write_str(self.name()),
        }
    }
}

/// Why a host has given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halted {
    /// The other host has consumed the generation.
    Lost,
    /// The arbiter does not accept this host, or not in this generation.
    Refused,
    /// The guest has diverged from the log, or the host cannot go on.
    Trouble,
}

impl fmt::Display for Halted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "the other host has the virtual machine",
            Self::Refused => "the arbiter refuses this host",
            Self::Trouble => "this host cannot go on",
        })
    }
}

/// Why the peer is suspected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspicion {
    /// Nothing was heard for the time-out.
    Silent,
    /// It has heartbeats, but acknowledges nothing.
    Stalled,
    /// It has heartbeats, but the channel is gone and does not come back.
    Channel,
    /// It has started anew.
    Restarted,
    /// It says that it has left.
    Left,
}

impl fmt::Display for Suspicion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Silent => "silence on every path",
            Self::Stalled => "it acknowledges nothing",
            Self::Channel => "the logging channel does not come back",
            Self::Restarted => "it has started anew",
            Self::Left => "it has left",
        })
    }
}

/// What an operator orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The virtual machine ends, on both hosts.
    PowerOff,
    /// It is reset.
    Reset,
    /// It stands still.
    Pause,
    /// It goes on.
    Resume,
    /// Its power button is pressed: what comes of it is the guest's matter.
    PowerButton,
}

impl Order {
    /// All of them, in the order of their numbers in messages.
    pub const ALL: [Self; 5] = [Self::PowerOff, Self::Reset, Self::Pause, Self::Resume, Self::PowerButton];
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PowerOff => "power-off",
            Self::Reset => "reset",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::PowerButton => "power button",
        })
    }
}
