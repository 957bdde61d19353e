//! The recorder: says what came into the virtual machine, and where.
//!
//! It does not write: the caller packs the entries that it makes. Its counterpart is the [`replayer`](crate::replayer).

use crate::check::Check;
use crate::course::Course;
use crate::exits_hash::ExitsHash;
use crate::log::entry::{Entry, Event, Place};
use crate::point::{Point, RFLAGS_RF, Registers};

/// After how many synchronous exits without one the hash is recorded.
pub const HASH_EVERY: u64 = 1 << 14;

/// After how many entries between two exits without a check one has it: three bytes and one for saying so.
pub const CHECK_EVERY: u32 = 8;

/// Where the guest is when something comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment<'a> {
    /// It waits in the HLT that is the synchronous exit which has begun last; the registers were noted.
    Halted,
    /// The last exit was a synchronous one; it was dealt with, the registers were noted, and the guest was not entered since.
    AfterExit,
    /// Anywhere else.
    Between {
        /// Instructions retired.
        n: u64,
        /// The registers.
        registers: &'a Registers,
        /// MOV SS blocks events there.
        mov_ss: bool,
    },
}

/// What the recorder keeps.
#[derive(Clone, Debug)]
pub struct Recorder {
    course: Course,
    /// The synchronous exit at which the hash is to be recorded next.
    hash_at: u64,
    /// Entries between two exits since one had a check.
    unchecked: u32,
    /// The last place between two exits, and the check of its entries.
    last: Option<(Place, Option<Check>)>,
    entries: u64,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder {
    /// The recorder of an execution that has not begun.
    #[must_use]
    pub const fn new() -> Self {
        Self { course: Course::new(), hash_at: HASH_EVERY, unchecked: 0, last: None, entries: 0 }
    }

    /// Synchronous exits so far.
    #[inline]
    #[must_use]
    pub const fn exits(&self) -> u64 {
        self.course.exits()
    }

    /// Entries so far.
    #[must_use]
    pub const fn entries(&self) -> u64 {
        self.entries
    }

    /// See [`Course::begin_exit`].
    #[inline]
    pub const fn begin_exit(&mut self) {
        self.course.begin_exit();
    }

    /// See [`Course::end_exit`].
    #[inline(always)]
    pub fn end_exit(&mut self, fold: impl FnOnce(&mut ExitsHash)) {
        self.course.end_exit(fold);
    }

    /// See [`Course::note`].
    #[inline]
    pub fn note(&mut self, fill: impl FnOnce(&mut Registers)) {
        self.course.note(fill);
    }

    /// Whether [`hash_due`](Self::hash_due) has an entry after this exit.
    #[inline]
    #[must_use]
    pub const fn is_hash_due(&self) -> bool {
        self.course.exits() >= self.hash_at
    }

    /// An [`Event::Hash`], if one is due. To be asked after [`end_exit`](Self::end_exit).
    #[inline]
    pub fn hash_due(&mut self) -> Option<Entry<'static>> {
        if !self.is_hash_due() {
            return None;
        }
        self.hash_at = self.course.exits().saturating_add(HASH_EVERY);
        Some(self.entry(Moment::AfterExit, Event::Hash(self.course.hash().value())))
    }

    /// The entry for what comes in now.
    pub fn entry<'e>(&mut self, moment: Moment<'_>, event: Event<'e>) -> Entry<'e> {
        self.entries += 1;
        let exits = self.course.exits();
        let (place, check) = match moment {
            Moment::Halted => (Place::Halted(exits), self.check()),
            Moment::AfterExit => (Place::Exit(exits), self.check()),
            Moment::Between { n, registers, mov_ss } => {
                let place = between(n, registers, mov_ss);
                (place, self.check_between(place, registers))
            }
        };
        Entry { place, check, event }
    }

    fn check(&mut self) -> Option<Check> {
        self.unchecked = 0;
        Some(Check::of(&self.course))
    }

    /// Now and then there is one; all entries of a place have the same.
    fn check_between(&mut self, place: Place, registers: &Registers) -> Option<Check> {
        if let Some((last, check)) = self.last
            && last == place
        {
            return check;
        }
        self.unchecked += 1;
        let due = self.unchecked >= CHECK_EVERY;
        let check = due.then(|| Check::between(&self.course, registers));
        if due {
            self.unchecked = 0;
        }
        self.last = Some((place, check));
        check
    }
}

/// The place between two synchronous exits.
///
/// RF is 1 in the midst of a REP (SDM 3B, 19.3.1.1), where RCX matters, and after an IRET that has set it, where RCX does no
/// harm. A breakpoint at a REP's first iteration is not lost; at the target of such an IRET it is, and at the instruction after
/// MOV SS.
fn between(n: u64, registers: &Registers, mov_ss: bool) -> Place {
    let repeating = registers.rflags & RFLAGS_RF != 0;
    let rcx = if repeating { registers.rcx() } else { 0 };
    Place::Between {
        point: Point { n, rip: registers.rip, rcx },
        repeating,
        breakpoint: !repeating && !mov_ss,
    }
}
