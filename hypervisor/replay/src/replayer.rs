//! The replayer: leads the guest through its log, entry by entry.
//!
//! The caller asks for an [`Order`] before every entry into the guest, and while the guest is halted; it applies what the order
//! gives it and asks again, until it is told how to run. Everything that does not fit is a [`Divergence`], after which the
//! virtual machine must never run again.

use core::fmt;

use crate::check::{Check, Suspect};
use crate::course::Course;
use crate::exits_hash::ExitsHash;
use crate::landing::{Action, Cause, Failure, Key, Landing, Seen, Target};
use crate::log::entry::{Entry, Event, Place};
use crate::point::{Point, Registers};

/// Where entries come from.
pub trait Source<'l> {
    /// Why the next entry cannot be read.
    type Error: fmt::Debug + fmt::Display + Clone;

    /// The next entry; none at the end, or as long as there is none.
    ///
    /// # Errors
    /// It cannot be read.
    fn next(&mut self) -> Result<Option<Entry<'l>>, Self::Error>;
}

/// Where the guest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// It waits in the HLT that is the synchronous exit which has begun last.
    Halted,
    /// The last exit was a synchronous one and was dealt with.
    AfterExit,
    /// The same, and all of this exit's entries were applied and what follows from them was done; or anywhere else.
    Between,
}

/// How to enter the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// Freely: what comes next comes at a synchronous exit.
    Free,
    /// As a landing says: [`Action::RunToOverflow`], [`Action::RunToBreakpoint`], [`Action::Iterate`], [`Action::RunBriefly`]
    /// or [`Action::Step`].
    Landing(Action),
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order<'l, E> {
    /// Apply this, and ask again.
    Apply(Entry<'l>),
    /// Enter the guest.
    Run(Run),
    /// The log ends, or goes on when more of it has arrived; that it has ended is told by an [`Event::End`] before.
    Exhausted,
    /// Stop for good.
    Diverged(Divergence<E>),
}

/// This execution is not the recorded one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence<E> {
    /// The entry at which it was found, from 0 on.
    pub entry: u64,
    /// The synchronous exit that the guest was at last.
    pub exits: u64,
    /// What was found.
    pub what: What<E>,
}

impl<E: Clone> Copy for Divergence<E> where E: Copy {}

/// What shows that this execution is not the recorded one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What<E> {
    /// The entry's place lies behind.
    Missed(Place),
    /// The guest was recorded as halted there, and is not; or is, and was not.
    Halt(Place),
    /// The execution point cannot be reached.
    Landing(Failure, Point),
    /// The hash over the synchronous exits is another.
    Hash {
        /// As recorded.
        recorded: u64,
        /// Of this execution.
        own: u64,
    },
    /// What an entry says of the execution up to there is another.
    Check {
        /// As recorded.
        recorded: Check,
        /// Of this execution.
        own: Check,
        /// Which register is wrong, as far as that can be told.
        suspect: Suspect,
    },
    /// The log cannot be read.
    Log(E),
}

impl<E: fmt::Display> fmt::Display for What<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missed(place) => write!(f, "the entry belongs to a place that was passed: {place:x?}"),
            Self::Halt(place) => write!(f, "recorded and replayed guest do not halt alike: {place:x?}"),
            Self::Landing(failure, point) => write!(f, "landing on {point}: {failure}"),
            Self::Hash { recorded, own } => {
                write!(f, "hash over the synchronous exits: recorded {recorded:#018x}, here {own:#018x}")
            }
            Self::Check { recorded, own, suspect } => {
                write!(f, "the check of the execution up to here: recorded {recorded}, here {own}; {suspect}")
            }
            Self::Log(error) => write!(f, "the log cannot be read: {error}"),
        }
    }
}

/// What landings have cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Landings {
    /// Landings.
    pub count: u64,
    /// VM exits that they took: overflow interrupts, breakpoints, steps.
    pub exits: u64,
    /// The most that one took.
    pub most: u32,
}

/// What the replayer keeps. A clone of it is a position in the log.
#[derive(Clone)]
pub struct Replayer<'l, S: Source<'l>> {
    source: S,
    course: Course,
    margin: u64,
    next: Option<Entry<'l>>,
    /// The number of `next`.
    entry: u64,
    landing: Option<Landing>,
    /// VM exits that the landing has taken so far.
    taken: u32,
    landings: Landings,
}

impl<'l, S: Source<'l>> Replayer<'l, S> {
    /// The replayer of a log from its first entry on. `margin`: how many instructions before a point the overflow of the counter
    /// is armed (see [`crate::margin`]).
    ///
    /// # Errors
    /// The first entry cannot be read.
    pub fn new(source: S, margin: u64) -> Result<Self, S::Error> {
        let mut replayer = Self {
            source,
            course: Course::new(),
            margin,
            next: None,
            entry: 0,
            landing: None,
            taken: 0,
            landings: Landings::default(),
        };
        replayer.next = replayer.source.next()?;
        Ok(replayer)
    }

    /// Synchronous exits so far.
    #[inline]
    pub const fn exits(&self) -> u64 {
        self.course.exits()
    }

    /// See [`Course::registers`].
    #[inline]
    pub fn registers(&self) -> &Registers {
        self.course.registers()
    }

    /// The number of the entry that comes next, from 0 on.
    pub const fn position(&self) -> u64 {
        self.entry
    }

    /// The entry that comes next.
    pub const fn upcoming(&self) -> Option<&Entry<'l>> {
        self.next.as_ref()
    }

    /// The same position, with entries that come from elsewhere: the same ones, from here on.
    pub fn with_source<T: Source<'l>>(&self, source: T) -> Replayer<'l, T> {
        Replayer {
            source,
            course: self.course,
            margin: self.margin,
            next: self.next,
            entry: self.entry,
            landing: self.landing.clone(),
            taken: self.taken,
            landings: self.landings,
        }
    }

    /// Where entries come from.
    pub const fn source(&self) -> &S {
        &self.source
    }

    /// Where entries come from, to give it more of them.
    pub const fn source_mut(&mut self) -> &mut S {
        &mut self.source
    }

    /// What landings have cost so far.
    pub const fn landings(&self) -> Landings {
        self.landings
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

    /// Whether the next entry is between two synchronous exits: then [`order`](Self::order) wants to see the guest after every
    /// exit.
    #[inline]
    pub fn is_landing(&self) -> bool {
        matches!(self.next, Some(Entry { place: Place::Between { .. }, .. }))
    }

    /// Whether nothing is to be done at this synchronous exit: the next entry belongs to a later one.
    #[inline]
    pub fn is_ahead(&self) -> bool {
        !self.is_landing() && self.course.exits() < self.folds_until()
    }

    /// Synchronous exits before this one have nothing to be done at but to be folded, as far as the log is known. It stays so until the next
    /// [`order`](Self::order).
    #[inline]
    pub fn folds_until(&self) -> u64 {
        match self.next {
            Some(Entry { place: Place::Exit(at) | Place::Halted(at), .. }) => at,
            Some(Entry { place: Place::Between { .. }, .. }) => u64::MAX,
            None => 0,
        }
    }

    /// What to do now. `seen` is asked for only where the next entry is between two synchronous exits, the registers only where
    /// the guest has landed on one with a check.
    pub fn order(
        &mut self,
        moment: Moment,
        seen: impl FnOnce() -> Seen,
        registers: impl FnOnce() -> Registers,
    ) -> Order<'l, S::Error> {
        if self.next.is_none() {
            match self.source.next() {
                Ok(next) => self.next = next,
                Err(error) => return self.diverged(What::Log(error)),
            }
        }
        let Some(next) = self.next else { return Order::Exhausted };
        let exits = self.course.exits();
        match (next.place, moment) {
            (Place::Exit(at) | Place::Halted(at), _) if at > exits => Order::Run(Run::Free),
            (Place::Halted(at), Moment::Halted) | (Place::Exit(at), Moment::AfterExit) if at == exits => {
                let own = Check::of(&self.course);
                self.take(next, own, *self.course.registers())
            }
            // An exit's own entries come after it was dealt with.
            (Place::Exit(at), Moment::Halted) if at == exits => Order::Run(Run::Free),
            (Place::Halted(at), _) if at == exits => self.diverged(What::Halt(next.place)),
            (Place::Exit(_) | Place::Halted(_), _) => self.diverged(What::Missed(next.place)),
            (Place::Between { .. }, Moment::Halted | Moment::AfterExit) => Order::Run(Run::Free),
            (Place::Between { .. }, Moment::Between) => self.land(next, &seen(), registers),
        }
    }

    /// The guest has passed the place of a later entry on its way to the next.
    pub const fn lost(&self, place: Place) -> Divergence<S::Error> {
        Divergence { entry: self.entry, exits: self.course.exits(), what: What::Missed(place) }
    }

    fn diverged(&self, what: What<S::Error>) -> Order<'l, S::Error> {
        Order::Diverged(Divergence { entry: self.entry, exits: self.course.exits(), what })
    }

    fn land(
        &mut self,
        next: Entry<'l>,
        seen: &Seen,
        registers: impl FnOnce() -> Registers,
    ) -> Order<'l, S::Error> {
        let Place::Between { point, repeating, breakpoint } = next.place else {
            return Order::Run(Run::Free);
        };
        // Outside of a REP any RCX will do: at that count and RIP there is no other.
        let rcx = if repeating { point.rcx } else { seen.rcx };
        let seen = Seen { cause: if self.landing.is_some() { seen.cause } else { Cause::Start }, ..*seen };
        let landing = match &mut self.landing {
            Some(landing) => landing,
            None => {
                let key = Key::Instructions { point: Point { rcx, ..point }, branches: None };
                self.taken = 0;
                self.landing.insert(Landing::new(Target { key, breakpoint }, self.margin))
            }
        };
        landing.expect_rcx(rcx);
        // All others the guest or this host would have had anyway.
        if matches!(seen.cause, Cause::Overflow | Cause::Breakpoint | Cause::Step) {
            self.taken = self.taken.saturating_add(1);
        }
        match landing.next(&seen) {
            Action::Landed => {
                self.landing = None;
                self.account();
                match next.check {
                    None => self.go_on(next),
                    Some(_) => {
                        let registers = registers();
                        self.take(next, Check::between(&self.course, &registers), registers)
                    }
                }
            }
            Action::Failed(failure) => self.diverged(What::Landing(failure, point)),
            action => Order::Run(Run::Landing(action)),
        }
    }

    fn account(&mut self) {
        self.landings.count += 1;
        self.landings.exits += u64::from(self.taken);
        self.landings.most = self.landings.most.max(self.taken);
    }

    /// The next entry is due: checks what it says of the execution so far, and moves on. `own`: what this execution says, with
    /// these registers.
    fn take(&mut self, entry: Entry<'l>, own: Check, registers: Registers) -> Order<'l, S::Error> {
        let recorded = entry.check.unwrap_or(own);
        if recorded != own {
            let suspect = own.suspect(recorded, &registers);
            return self.diverged(What::Check { recorded, own, suspect });
        }
        self.go_on(entry)
    }

    fn go_on(&mut self, entry: Entry<'l>) -> Order<'l, S::Error> {
        let own = self.course.hash().value();
        if let Event::Hash(recorded) = entry.event
            && recorded != own
        {
            return self.diverged(What::Hash { recorded, own });
        }
        match self.source.next() {
            Ok(next) => self.next = next,
            Err(error) => return self.diverged(What::Log(error)),
        }
        self.entry += 1;
        Order::Apply(entry)
    }
}
