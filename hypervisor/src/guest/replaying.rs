//! A replay under way: where it is in its log, where it is to stop, and how it ended.

use super::board::Board;
use super::checkpoint::Checkpoint;
use super::digest::StateDigest;
use super::feed::Follower;
use super::tape::Tape;
use crate::arch::crc::Crc32;
use crate::arch::time;
use crate::machine_line;
use crate::options::replay::{ReplayOptions, Until};
use crate::vcpu::Active;
use alloc::boxed::Box;
use alloc::vec;
use core::fmt;
use heapless::HistoryBuf;
use replay::digest::packed::Malformed;
use replay::landing::Seen;
use replay::log::error::{Error as LogError, Label};
use replay::log::flows::FRAME_MAX;
use replay::log::open::Entries;
use replay::replayer::{Divergence, Replayer, Run, What};

/// Synchronous exits remembered for the operator.
const TRAIL: usize = 32;

/// Exits on the way to an entry that are remembered.
const APPROACH: usize = 12;

/// Host time between two lines of progress, nanoseconds.
const PROGRESS_NS: u64 = 500_000_000;

/// After how many synchronous exits the time is looked at for a line of progress.
const PROGRESS_EXITS: u64 = 1 << 10;

/// A synchronous exit that the guest has been at.
#[derive(Clone, Copy, Debug, Default)]
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

/// Where the guest has stopped running by itself, and the recorded one has not.
#[derive(Clone, Copy, Debug)]
pub struct Whereabouts {
    /// The entry that would have come next, from 0 on.
    pub entry: u64,
    /// The last synchronous exit.
    pub exits: u64,
    /// N.
    pub n: u64,
    /// RIP.
    pub rip: u64,
}

impl fmt::Display for Whereabouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entry, exits, n, rip } = self;
        write!(f, "diverged before entry {entry}, after synchronous exit {exits}, at n {n} and rip {rip:#x}")
    }
}

/// How a replay has ended.
#[derive(Clone, Debug)]
pub enum Ended {
    /// At the log's end; everything was equal. The recording ended for this reason.
    Equal(Label),
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
    /// A checkpoint's digest cannot be read.
    BadCheckpoint {
        /// The checkpoint's number, from 1 on.
        checkpoint: u64,
        /// Why.
        error: Malformed,
    },
    /// What was asked for at a checkpoint cannot be done; it was said.
    NoReturn,
    /// The guest halts, and nothing in the log wakes it.
    Asleep(Whereabouts),
    /// The guest has come to its end, and the recorded one has not.
    Early(Whereabouts),
}

impl Ended {
    /// The verdict, one word.
    pub const fn verdict(&self) -> &'static str {
        match self {
            Self::Equal(_) => "equal",
            Self::Stopped | Self::Exhausted | Self::NoReturn => "stopped",
            Self::Diverged(_)
            | Self::Unequal { .. }
            | Self::BadCheckpoint { .. }
            | Self::Asleep(_)
            | Self::Early(_) => "diverged",
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equal(why) => {
                write!(f, "the recording ends here ({}); everything was equal", why.as_str())
            }
            Self::Stopped => f.write_str("stopped here, as told"),
            Self::Exhausted => f.write_str("the log ends here without an end: the recording was cut"),
            Self::Diverged(Divergence { entry, exits, what }) => {
                write!(f, "diverged at entry {entry}, after synchronous exit {exits}: {what}")
            }
            Self::Unequal { checkpoint } => write!(f, "diverged: checkpoint {checkpoint} is not equal"),
            Self::BadCheckpoint { checkpoint, error } => {
                write!(f, "the digest of checkpoint {checkpoint} cannot be read: {error}")
            }
            Self::NoReturn => f.write_str("what was asked for at a checkpoint cannot be done"),
            Self::Early(at) => write!(f, "{at}: the guest has come to its end, and the recorded one had not"),
            Self::Asleep(at) => write!(f, "{at}: the guest halts, and nothing in the log wakes it"),
        }
    }
}

/// A replay under way.
pub struct Replaying {
    /// The position in the log.
    pub replayer: Follower,
    /// See [`Replaying::passes_by`].
    pass_until: u64,
    crc: Crc32,
    /// The position before the first entry, where one can go back.
    pub first: Option<Replayer<'static, Entries<'static>>>,
    /// How it has ended.
    pub ended: Option<Ended>,
    /// Checkpoints that were compared.
    pub checkpoints: u64,
    /// The state's digest.
    pub digest: StateDigest,
    /// A checkpoint to go back to, if one was asked for.
    pub kept: Option<Box<Checkpoint>>,
    /// Where a frame of a file is put together.
    pub frame: Box<[u8]>,
    /// What was asked for.
    pub options: ReplayOptions<'static>,
    /// The last exits on the way to an entry, and how the guest was entered after each.
    pub approach: HistoryBuf<(Seen, Run), APPROACH>,
    /// The last synchronous exits, each at its number modulo [`TRAIL`]; a backup, which has to keep pace, keeps none.
    trail: [Step; TRAIL],
    keeps_trail: bool,
    /// Host time at the start, at the end and at the last line of progress, nanoseconds.
    started: u64,
    finished: u64,
    told: u64,
}

impl Replaying {
    /// A replay from the log's first entry on.
    pub fn new(crc: Crc32, replayer: Follower, digest: StateDigest, options: ReplayOptions<'static>) -> Self {
        let now = time::now_ns();
        let first = replayer.source().place().map(|entries| replayer.with_source(entries));
        Self {
            keeps_trail: first.is_some(),
            first,
            replayer,
            pass_until: 0,
            crc,
            ended: None,
            checkpoints: 0,
            digest,
            kept: None,
            frame: vec![0; FRAME_MAX].into_boxed_slice(),
            options,
            approach: HistoryBuf::new(),
            trail: [Step::default(); TRAIL],
            started: now,
            finished: now,
            told: now,
        }
    }

    /// It has ended as it should.
    pub const fn is_well(&self) -> bool {
        matches!(self.ended, Some(Ended::Equal(_) | Ended::Stopped))
    }

    /// It ends, in this way; what ended it first counts.
    pub fn end(&mut self, how: Ended) {
        if self.ended.is_none() {
            self.finished = time::now_ns();
            self.ended = Some(how);
            self.pass_until = 0;
        }
    }

    /// The guest is powered on.
    pub fn begin(&mut self) {
        self.started = time::now_ns();
    }

    /// The synchronous exit was dealt with; N is this now.
    #[inline(always)]
    pub fn end_exit(&mut self, on: &mut Active<'_>, n: u64) {
        let (mut rip, reason) = (0, on.last_reason());
        self.replayer.end_exit(|hash| rip = on.fold_exit(self.crc, hash, n));
        if self.keeps_trail {
            let exit = self.replayer.exits();
            self.trail[(exit % TRAIL as u64) as usize] = Step { exit, reason, n, rip };
        }
    }

    /// At this synchronous exit nothing is to be done but to fold it.
    #[inline(always)]
    pub const fn passes_by(&self) -> bool {
        self.replayer.exits() < self.pass_until
    }

    /// Finds out up to which synchronous exit nothing is to be done but to fold them. To be called before every entry to the guest that was
    /// made with care.
    pub fn look_ahead(&mut self) {
        let told = (self.replayer.exits() | (PROGRESS_EXITS - 1)).saturating_add(1);
        let every = self.ended.is_some() || self.options.until.is_some();
        self.pass_until = if every { 0 } else { self.replayer.folds_until().min(told) };
    }

    /// Ends the replay where it was told to end, in synchronous exits or in instructions.
    fn stop_where_told(&mut self, n: u64) {
        let stop = match self.options.until {
            Some(Until::Exit(at)) => self.replayer.exits() >= at,
            Some(Until::Count(at)) => n >= at,
            _ => false,
        };
        if stop {
            self.end(Ended::Stopped);
        }
    }

    /// The last synchronous exits of a replay from a file, so many at most, in order.
    pub fn last_exits(&self, count: usize) -> impl Iterator<Item = &Step> {
        let exits = self.replayer.exits();
        let first = exits.saturating_sub(count.min(TRAIL) as u64) + 1;
        // After a return to a checkpoint, those before it may have been written over.
        (first..=exits).filter_map(|exit| {
            Some(&self.trail[(exit % TRAIL as u64) as usize]).filter(|step| step.exit == exit)
        })
    }

    /// Whether a line of progress is due.
    fn progress_due(&mut self) -> bool {
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
        let n = self.time.instructions();
        let Tape::Replaying(replaying) = &mut self.tape else { return true };
        replaying.stop_where_told(n);
        let (going, exits) = (replaying.ended.is_none(), replaying.replayer.exits());
        if exits.is_multiple_of(PROGRESS_EXITS) {
            self.tell_progress();
        }
        going
    }

    /// Says how far the replay is, if it is time to.
    pub fn tell_progress(&mut self) {
        let (n, now) = (self.time.instructions(), self.time.now());
        let Tape::Replaying(replaying) = &mut self.tape else { return };
        if replaying.progress_due() {
            let (entry, exits) = (replaying.replayer.position(), replaying.replayer.exits());
            machine_line!(
                "replay event=progress entry={entry} exits={exits} instructions={n} virtual-ns={now}"
            );
        }
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
        if let Ended::Diverged(Divergence { what: What::Landing(..), .. }) = ended {
            for (seen, run) in replaying.approach.oldest_ordered() {
                let Seen { n, rip, rcx, cause, delivering, .. } = seen;
                log::info!(
                    "replay: n {n} rip {rip:#x} rcx {rcx:#x} {cause:?} delivering {delivering}: {run:x?}"
                );
            }
        }
        if let Ended::Asleep(at) | Ended::Early(at) = ended {
            let kind = if matches!(ended, Ended::Early(_)) { "early" } else { "asleep" };
            let Whereabouts { entry, exits, n, .. } = at;
            machine_line!(
                "replay event=diverged kind={kind} entry={entry} exits={exits} instructions={n} why=\"{ended}\""
            );
        }
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
            replaying.finished.saturating_sub(replaying.started),
            landings.count,
            landings.exits,
            landings.most
        );
    }
}
