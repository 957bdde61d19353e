//! A recording under way: what came in goes to the log, with the hash of what followed, and with digests of the whole state.

use super::board::{Board, reason};
use super::digest::{StateDigest, Whole};
use super::journal::Journal;
use super::tape::{Here, Tape};
use crate::arch::crc::Crc32;
use crate::arch::time;
use crate::machine_line;
use crate::vcpu::Active;
use machine::context::Instant;
use replay::log::codec::Mark;
use replay::log::entry::Event;
use replay::recorder::{Moment, Recorder};

/// A recording under way.
pub struct Recording {
    /// Names places.
    pub recorder: Recorder,
    crc: Crc32,
    journal: Journal,
    /// The state's digest.
    digest: StateDigest,
    /// Guest time between two checkpoints, nanoseconds; 0: none.
    period: u64,
    /// When the next checkpoint is due.
    checkpoint: Instant,
    checkpoints: u64,
}

impl Recording {
    /// A recording that has not begun. `checkpoint`: milliseconds of guest time between two; 0: none.
    pub const fn new(crc: Crc32, journal: Journal, digest: StateDigest, checkpoint: u32) -> Self {
        let period = checkpoint as u64 * 1_000_000;
        let first = if period == 0 { Instant::MAX } else { period };
        Self { recorder: Recorder::new(), crc, journal, digest, period, checkpoint: first, checkpoints: 0 }
    }

    /// The log's way out.
    pub const fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The log's way out.
    pub const fn journal_mut(&mut self) -> &mut Journal {
        &mut self.journal
    }

    /// The synchronous exit was dealt with; N is this now.
    #[inline(always)]
    pub fn end_exit(&mut self, on: &mut Active<'_>, n: u64) {
        self.recorder.end_exit(|hash| {
            on.fold_exit(self.crc, hash, n);
        });
    }

    /// After a synchronous exit at this guest time nothing is due but to fold it.
    #[inline]
    pub const fn only_folds(&self, reached: Instant) -> bool {
        reached < self.checkpoint && !self.recorder.is_hash_due()
    }

    /// Where the guest is, between two synchronous exits.
    pub fn here(&self, on: &Active<'_>, n: u64) -> Here {
        Here::Between { n, registers: on.place_registers(), mov_ss: on.blocked_by_mov_ss() }
    }
}

impl Board {
    /// What the log's blocks say of where they begin.
    pub fn mark(&self) -> Mark {
        let exits = match &self.tape {
            Tape::Off => 0,
            Tape::Recording(recording) => recording.recorder.exits(),
            Tape::Replaying(replaying) => replaying.replayer.exits(),
        };
        Mark { n: self.time.instructions(), exits, virtual_ns: self.time.now() }
    }

    /// Records an event where the guest is, if there is a recording.
    pub fn record(&mut self, event: &Event<'_>) {
        if let Tape::Off = self.tape {
            return;
        }
        let mark = self.mark();
        if let Tape::Recording(recording) = &mut self.tape {
            let moment = match &self.here {
                Here::Halted => Moment::Halted,
                Here::AfterExit => Moment::AfterExit,
                Here::Between { n, registers, mov_ss } => {
                    Moment::Between { n: *n, registers, mov_ss: *mov_ss }
                }
            };
            let entry = recording.recorder.entry(moment, *event);
            recording.journal.write(&entry, &mark);
        }
    }

    /// After a synchronous exit: the hash and the checkpoint, where they are due.
    #[inline]
    pub fn note_exit(&mut self, on: &mut Active<'_>) {
        let Tape::Recording(recording) = &mut self.tape else { return };
        let checkpoint = self.reached >= recording.checkpoint;
        if let Some(entry) = recording.recorder.hash_due() {
            let (n, exits) = (self.time.instructions(), recording.recorder.exits());
            recording.journal.write(&entry, &Mark { n, exits, virtual_ns: self.reached });
        }
        if checkpoint {
            self.record_checkpoint(on);
        }
    }

    /// Sends what is to be sent. Says why the guest cannot go on, if so. To be called when something came for the host.
    pub fn send_log(&mut self) -> Option<&'static str> {
        if self.pair.is_some() {
            return self.send_to_backup();
        }
        if let Tape::Off = self.tape {
            return None;
        }
        let mark = self.mark();
        let Tape::Recording(recording) = &mut self.tape else { return None };
        if !recording.journal.send(&mark, self.here == Here::Halted) {
            return Some(reason::NO_LOG);
        }
        if recording.journal.has_room() {
            return None;
        }
        // The guest stands still.
        let before = time::now_ns();
        let room = recording.journal.wait_for_room();
        self.time.stand(time::now_ns() - before);
        (!room).then_some(reason::NO_LOG)
    }

    /// The recording ends: the last entries, and all of the log is sent.
    pub fn end_recording(&mut self, on: &mut Active<'_>, why: &str) {
        if !matches!(self.tape, Tape::Recording(_)) {
            return;
        }
        // Killed, it is anywhere; else it has ended at a synchronous exit.
        if why != reason::KILLED {
            self.here = Here::AfterExit;
        }
        if self.here == Here::AfterExit {
            self.note_registers(on);
            self.record_checkpoint(on);
        }
        self.record(&Event::End(why));
        if self.pair.is_some() {
            return self.end_on_both();
        }
        let mark = self.mark();
        let Tape::Recording(recording) = &mut self.tape else { return };
        let complete = recording.journal.end(&mark);
        if !complete {
            log::error!("the log has not left this host whole");
        }
        let (bytes, most) = recording.journal.bytes();
        machine_line!(
            "record event=ended complete={complete} entries={} bytes={bytes} exits={} checkpoints={} instructions={} \
             virtual-ns={} idle-ns={} buffer-most={most}",
            recording.journal.entries(),
            recording.recorder.exits(),
            recording.checkpoints,
            mark.n,
            mark.virtual_ns,
            self.idle
        );
    }

    /// Looks at the whole state, for a replay to be compared with.
    #[cold]
    fn record_checkpoint(&mut self, on: &mut Active<'_>) {
        let (mark, now) = (self.mark(), self.time.now());
        let Tape::Recording(recording) = &mut self.tape else { return };
        if recording.period == 0 {
            return;
        }
        let whole = Whole {
            computer: &self.computer,
            vm: &mut self.vm,
            disks: &self.disks,
            time: &self.time,
            nmi_due: self.nmi_due,
        };
        let packed = recording.digest.take(whole, on);
        let entry = recording.recorder.entry(Moment::AfterExit, Event::Checkpoint(packed));
        recording.journal.write(&entry, &mark);
        recording.checkpoint = now.saturating_add(recording.period);
        recording.checkpoints += 1;
    }
}
