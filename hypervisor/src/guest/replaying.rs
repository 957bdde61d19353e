//! A replay under way: where it is in its log, where it is to stop, and how it ended.

use super::board::Board;
use super::source::LogSource;
use super::tape::Tape;
use crate::arch::time;
use crate::machine_line;
use crate::options::{ReplayOptions, Until};
use crate::vcpu::Active;
use core::fmt;
use heapless::HistoryBuf;
use replay::log::open::LogError;
use replay::point::Registers;
use replay::replayer::{Divergence, Replayer, What};

/// Synchronous exits remembered for the operator.
pub const TRAIL: usize = 32;

/// Host time between two lines of progress, nanoseconds.
const PROGRESS_NS: u64 = 500_000_000;

/// After how many synchronous exits the time is looked at for a line of progress.
const PROGRESS_EXITS: u64 = 1 << 10;

/// A synchronous exit that the guest has been at.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Its number.
    pub exit: u64,
    /// Its basic reason.
    pub reason: u16,
    /// N after it.
    pub n: u64,
    /// RIP after it.
    pub rip: u64,
}

/// How a replay has ended.
#[derive(Clone, Debug)]
pub enum Ended {
    /// At the log's end; everything was equal. The recording ended for this reason.
    Equal(&'static str),
    /// Where it was told to.
    Stopped,
    /// The log ends without saying so.
    Exhausted,
    /// It is not the recorded execution.
    Diverged(Divergence<LogError>),
    /// A checkpoint's digest is another.
    Unequal {
        /// The checkpoint's number, from 1 on.
        checkpoint: u64,
    },
    /// The guest halts, and nothing in the log wakes it.
    Asleep,
}

impl Ended {
    /// The verdict, one word.
    pub const fn verdict(&self) -> &'static str {
        match self {
            Self::Equal(_) => "equal",
            Self::Stopped | Self::Exhausted => "stopped",
            Self::Diverged(_) | Self::Unequal { .. } | Self::Asleep => "diverged",
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equal(why) => write!(f, "the recording ends here ({why}); everything was equal"),
            Self::Stopped => f.write_str("stopped here, as told"),
            Self::Exhausted => f.write_str("the log ends here without an end: the recording was cut"),
            Self::Diverged(Divergence { entry, exits, what }) => {
                write!(f, "diverged at entry {entry}, after synchronous exit {exits}: {what}")
            }
            Self::Unequal { checkpoint } => write!(f, "diverged: checkpoint {checkpoint} is not equal"),
            Self::Asleep => f.write_str("diverged: the guest halts, and nothing in the log wakes it"),
        }
    }
}

/// A replay under way.
pub struct Replaying {
    /// The position in the log.
    pub replayer: Replayer<'static, LogSource>,
    /// How it has ended.
    pub ended: Option<Ended>,
    /// Checkpoints that were compared.
    pub checkpoints: u64,
    /// What was asked for.
    pub options: ReplayOptions,
    /// The last synchronous exits.
    pub trail: HistoryBuf<Step, TRAIL>,
    /// Host time at the start and at the last line of progress, nanoseconds.
    started: u64,
    told: u64,
}

impl Replaying {
    /// A replay from the log's first entry on.
    pub fn new(replayer: Replayer<'static, LogSource>, options: ReplayOptions) -> Self {
        let now = time::now_ns();
        Self {
            replayer,
            ended: None,
            checkpoints: 0,
            options,
            trail: HistoryBuf::new(),
            started: now,
            told: now,
        }
    }

    /// It ends, in this way; what ended it first counts.
    pub fn end(&mut self, how: Ended) {
        self.ended.get_or_insert(how);
    }

    /// The synchronous exit was dealt with.
    pub fn end_exit(&mut self, reason: u16, n: u64, registers: &Registers) {
        self.replayer.end_exit(reason, n, registers);
        let exit = self.replayer.exits();
        self.trail.write(Step { exit, reason, n, rip: registers.rip });
        let stop = match self.options.until {
            Some(Until::Exit(at)) => exit >= at,
            Some(Until::Count(at)) => n >= at,
            _ => false,
        };
        if stop {
            self.end(Ended::Stopped);
        }
    }

    /// Whether a line of progress is due.
    fn progress_due(&mut self) -> bool {
        if !self.replayer.exits().is_multiple_of(PROGRESS_EXITS) {
            return false;
        }
        let now = time::now_ns();
        let due = now - self.told >= PROGRESS_NS;
        if due {
            self.told = now;
        }
        due
    }
}

impl Board {
    /// After a synchronous exit in a replay: says how far it is, now and then. False: it ends here.
    pub fn go_along(&mut self) -> bool {
        let (n, now) = (self.time.instructions(), self.time.now());
        let Tape::Replaying(replaying) = &mut self.tape else { return true };
        if replaying.progress_due() {
            let (entry, exits) = (replaying.replayer.position(), replaying.replayer.exits());
            machine_line!("replay event=progress entry={entry} exits={exits} instructions={n} virtual-ns={now}");
        }
        replaying.ended.is_none()
    }

    /// After an entry that was applied: false if the replay is to end there.
    pub fn may_go_on(&mut self, _on: &mut Active<'_>) -> bool {
        let Tape::Replaying(replaying) = &mut self.tape else { return true };
        if let Some(Until::Entry(at)) = replaying.options.until
            && replaying.replayer.position() > at
        {
            replaying.end(Ended::Stopped);
        }
        replaying.ended.is_none()
    }

    /// Says how the replay has ended, to people and to programs.
    pub fn tell_replay(&self) {
        let Tape::Replaying(replaying) = &self.tape else { return };
        let Some(ended) = &replaying.ended else { return };
        let replayer = &replaying.replayer;
        let landings = replayer.landings();
        log::info!("replay: {ended}");
        if let Ended::Diverged(Divergence { entry, exits, what }) = ended {
            let kind = match what {
                What::Missed(_) => "missed",
                What::Halt(_) => "halt",
                What::Landing(..) => "landing",
                What::Hash { .. } => "hash",
                What::Check { .. } => "check",
                What::Log(_) => "log",
            };
            machine_line!(
                "replay event=diverged kind={kind} entry={entry} exits={exits} instructions={} why=\"{what}\"",
                self.time.instructions()
            );
        }
        machine_line!(
            "replay event=ended verdict={} entries={} checkpoints={} exits={} instructions={} virtual-ns={} idle-ns={} \
             real-ns={} landings={} landing-exits={} landing-max={}",
            ended.verdict(),
            replayer.position(),
            replaying.checkpoints,
            replayer.exits(),
            self.time.instructions(),
            self.time.now(),
            self.idle,
            time::now_ns() - replaying.started,
            landings.count,
            landings.exits,
            landings.most
        );
    }
}
