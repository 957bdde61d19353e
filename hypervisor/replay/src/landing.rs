//! Landing: stopping a guest exactly at an execution point, as a state machine without I/O.
//!
//! The caller enters the guest as the last [`Action`] says, and gives what it saw after the VM exit as a [`Seen`];
//! [`Landing::next`] answers with the next action. The rules, in order of weight:
//!
//! - Truth is the counter, not the interrupt. After every exit, whatever its cause, the distance is computed anew;
//!   overflow interrupts that come late are dropped.
//! - An overflow stop is never the landing: the free run ends `margin` before the target, the rest is done by a
//!   breakpoint on the target's RIP and by the Monitor Trap Flag.
//! - Past the target is a failure with a name, never ignored: the caller must stop the virtual machine.
//!
//! Hazards of the breakpoint, and their cures. RF = 1 at the target (an IRET to an instruction that faulted) or
//! blocking by MOV SS loses it: the recorder says so in [`Target::breakpoint`], and the landing then only steps.
//! The guest's own use of the debug registers takes them away: [`Seen::breakpoint_free`]. At the breakpoint but before
//! the count, the run goes on with RF = 1, which hides the breakpoint from that one instruction (all iterations, if it is
//! a REP) and which the guest cannot see: faults push RF = 1 anyway, software interrupts and PUSHF never do (SDM 3B,
//! 19.3.1.1), and nothing is injected on such an entry.
//!
//! In a REP, RCX counts what is left. Exactly so many iterations as are missing to the target's are made in one run
//! ([`Action::Iterate`], see [`crate::repeat`]), and all that are left of a REP that a step has come into and that is not the target's.
//! Where the guest's own use of the debug registers forbids that, an iteration far from the target's is approached by runs so short
//! that no processor can come to the target in them, the last ones step by step.

use core::fmt;

use crate::point::{BranchPoint, Point, RegistersHash};

/// How many exits in a row may leave the guest where it was (host interrupts, EPT violations) before the landing
/// gives up. EPT violations of one instruction are bounded by its accesses; host interrupts are not, but thousands
/// at one place mean that something is broken.
pub const QUIET_EXITS_MAX: u32 = 4096;
/// How many exits one landing may cost in its last stretch (margin, REP iterations, breakpoint hits) before it gives up.
pub const NEAR_EXITS_MAX: u32 = 1 << 20;
/// More iterations of a REP than these are not stepped through where there is another way.
pub const STEPPED_ITERATIONS_MAX: u64 = 1 << 18;
/// Iterations that a short run keeps away from the target's: what the timer may be late by, 512 cycles at
/// [`ITERATIONS_PER_CYCLE_MAX`].
const ITERATIONS_ROOM: u64 = 1 << 17;
/// No processor executes more iterations of a REP in a cycle of its time-stamp counter. Fast string operations move up to a cache
/// line of 64 bytes in a core cycle, and cores run at most a few times as fast as that counter.
pub const ITERATIONS_PER_CYCLE_MAX: u64 = 256;

/// A counter that can be armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counter {
    /// N: instructions retired.
    Instructions,
    /// C: conditional branches retired.
    Branches,
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Instructions => "N",
            Self::Branches => "C",
        })
    }
}

/// The key of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// By instructions, with the branches retired as a cross-check where the log has them.
    Instructions {
        /// Where.
        point: Point,
        /// Conditional branches retired there.
        branches: Option<u64>,
    },
    /// By conditional branches and the register file.
    Branches(BranchPoint),
}

/// Where to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The point.
    pub key: Key,
    /// A breakpoint on the target's RIP cannot be lost there: when the point was recorded, RFLAGS.RF was 0 and
    /// there was no blocking by MOV SS.
    pub breakpoint: bool,
}

impl Target {
    /// RIP of the target.
    #[must_use]
    pub const fn rip(&self) -> u64 {
        match self.key {
            Key::Instructions { point, .. } => point.rip,
            Key::Branches(point) => point.rip,
        }
    }

    const fn counter(&self) -> Counter {
        match self.key {
            Key::Instructions { .. } => Counter::Instructions,
            Key::Branches(_) => Counter::Branches,
        }
    }

    const fn count(&self) -> u64 {
        match self.key {
            Key::Instructions { point, .. } => point.n,
            Key::Branches(point) => point.c,
        }
    }
}

/// Why the guest stopped, as far as the landing cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The landing begins here; the guest has not been entered yet.
    Start,
    /// The overflow interrupt of the armed counter, or a stale one.
    Overflow,
    /// The breakpoint on the target's RIP.
    Breakpoint,
    /// The Monitor Trap Flag.
    Step,
    /// The VMX-preemption timer: the watchdog.
    Timer,
    /// Anything else, already dealt with: an EPT violation filled, a host interrupt taken, an instruction emulated
    /// and counted, a guest's exception reflected.
    Other,
}

/// What the caller saw after a VM exit, once the exit was dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Instructions retired: the counter plus the emulated ones.
    pub n: u64,
    /// Conditional branches retired.
    pub c: u64,
    /// Guest RIP.
    pub rip: u64,
    /// Guest RCX.
    pub rcx: u64,
    /// Hash of the registers; only landings by branches look at it.
    pub registers: RegistersHash,
    /// Why the guest stopped.
    pub cause: Cause,
    /// The next entry delivers an event before anything else: one whose delivery the exit interrupted (IDT-vectoring
    /// information valid), a pending debug exception, or one that the caller injects. RIP is then not where the guest
    /// goes on.
    pub delivering: bool,
    /// The guest does not use the debug registers now, so that DR0 can be taken.
    pub breakpoint_free: bool,
}

/// What to do next. Every run is bounded by the caller's watchdog (the VMX-preemption timer).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run until `counter` reaches `at`: arm its overflow interrupt there.
    RunToOverflow {
        /// Which counter.
        counter: Counter,
        /// The count at which it overflows, in the terms of [`Seen::n`] and [`Seen::c`].
        at: u64,
    },
    /// Run with DR0 = `rip` as an instruction breakpoint. An overflow of `counter` at `guard`, the first count past the
    /// target, ends a run that misses it.
    RunToBreakpoint {
        /// The target's RIP.
        rip: u64,
        /// Enter with RF = 1: the guest is at the breakpoint, but not yet at the target.
        resume: bool,
        /// Which counter guards.
        counter: Counter,
        /// The count at which it overflows.
        guard: u64,
    },
    /// Enter with the Monitor Trap Flag and without the breakpoint.
    Step,
    /// Let the REP that the guest is in make so many iterations, no more; all that are left if there are no more, and stop behind
    /// it. Its faults are to exit before they are delivered. [`Action::Step`] does as well, and takes longer.
    Iterate {
        /// Iterations.
        iterations: u64,
    },
    /// Run without the breakpoint until the VMX-preemption timer ends it after so many cycles of the host's time-stamp counter,
    /// or fewer: the guest is in the target's REP, and cannot come to the target's iteration in that time. [`Action::Step`] does
    /// as well, and takes longer.
    RunBriefly {
        /// Cycles.
        cycles: u64,
    },
    /// The guest is exactly at the target.
    Landed,
    /// The guest cannot be brought to the target any more. Stop it; never let it go live.
    Failed(Failure),
}

/// Why a landing failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Already beyond the target when the landing began.
    Behind {
        /// Events past the target.
        by: u64,
    },
    /// The armed overflow interrupt never came; found out past the target.
    LostInterrupt {
        /// The count it was armed at.
        armed: u64,
        /// The count when the loss was seen.
        seen: u64,
    },
    /// The overflow interrupt came, but later than the margin allows.
    SkidBeyondMargin {
        /// Events between the armed count and the stop.
        skid: u64,
    },
    /// The guest went past the target in the last stretch: it does not execute what was recorded.
    Overshot {
        /// Events past the target; 0 when the count is the target's but the place was passed.
        by: u64,
    },
    /// At the target's count and RIP, but RCX can never become the target's.
    OtherRcx {
        /// RCX found.
        rcx: u64,
    },
    /// At the target by one counter, but the other disagrees.
    CountersDisagree {
        /// Conditional branches found.
        c: u64,
    },
    /// A counter went backwards.
    WentBack {
        /// The count before.
        from: u64,
        /// The count after.
        to: u64,
    },
    /// [`QUIET_EXITS_MAX`] exits without progress.
    Stalled,
    /// [`NEAR_EXITS_MAX`] exits in the last stretch.
    TooManyExits,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Behind { by } => write!(f, "already {by} past the target at the start"),
            Self::LostInterrupt { armed, seen } => {
                write!(f, "overflow interrupt lost: armed at {armed}, none by {seen}")
            }
            Self::SkidBeyondMargin { skid } => {
                write!(f, "overflow interrupt {skid} events late, more than the margin")
            }
            Self::Overshot { by } => write!(f, "went {by} past the target"),
            Self::OtherRcx { rcx } => write!(f, "at the target with RCX {rcx:#x}"),
            Self::CountersDisagree { c } => write!(f, "at the target by N, but C is {c}"),
            Self::WentBack { from, to } => write!(f, "counter went back from {from} to {to}"),
            Self::Stalled => f.write_str("no progress"),
            Self::TooManyExits => f.write_str("too many exits near the target"),
        }
    }
}

/// What a landing cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// VM exits altogether.
    pub exits: u32,
    /// Overflow interrupts armed.
    pub arms: u32,
    /// Single steps.
    pub steps: u32,
    /// Runs with the breakpoint.
    pub breakpoints: u32,
    /// Runs within a REP, through so many iterations or so short.
    pub brief: u32,
    /// Overflow interrupts dropped because nothing was armed.
    pub stale: u32,
}

/// A landing under way.
#[derive(Clone, Debug)]
pub struct Landing {
    target: Target,
    margin: u64,
    /// The count the overflow is armed at; none once it has come.
    armed: Option<u64>,
    /// The count of the last arming whose interrupt came.
    answered: Option<u64>,
    /// The last run was the far one: the interrupt, not the breakpoint, was to end it.
    far: bool,
    /// RCX has gone down since the last exit and nothing else has happened: the guest is in a REP.
    iterates: bool,
    last: Option<Seen>,
    quiet: u32,
    near: u32,
    cost: Cost,
}

impl Landing {
    /// A landing on `target`; the overflow is armed `margin` events before it (see [`crate::margin`]).
    #[must_use]
    pub const fn new(target: Target, margin: u64) -> Self {
        let cost = Cost { exits: 0, arms: 0, steps: 0, breakpoints: 0, brief: 0, stale: 0 };
        Self {
            target,
            margin,
            armed: None,
            answered: None,
            far: false,
            iterates: false,
            last: None,
            quiet: 0,
            near: 0,
            cost,
        }
    }

    /// RCX at the target is this. Outside of a REP it is whatever the guest has there.
    pub const fn expect_rcx(&mut self, rcx: u64) {
        if let Key::Instructions { point, .. } = &mut self.target.key {
            point.rcx = rcx;
        }
    }

    /// What it has cost so far.
    #[must_use]
    pub const fn cost(&self) -> Cost {
        self.cost
    }

    /// The next action after `seen`. The first call has [`Cause::Start`].
    pub fn next(&mut self, seen: &Seen) -> Action {
        self.note_interrupt(seen);
        if let Some(failure) = self.check_progress(seen) {
            return Action::Failed(failure);
        }
        self.last = Some(*seen);
        let (count, target) = (self.count(seen), self.target.count());
        if count > target {
            return Action::Failed(self.past(count));
        }
        let action = if count == target { self.at_count(seen) } else { self.before(seen, target - count) };
        self.account(action)
    }

    const fn count(&self, seen: &Seen) -> u64 {
        match self.target.counter() {
            Counter::Instructions => seen.n,
            Counter::Branches => seen.c,
        }
    }

    fn note_interrupt(&mut self, seen: &Seen) {
        if seen.cause != Cause::Start {
            self.cost.exits = self.cost.exits.saturating_add(1);
        }
        if seen.cause != Cause::Overflow {
            return;
        }
        match self.armed {
            // Before its count: left over from an earlier arming. The run goes on armed.
            Some(at) if self.count(seen) < at => self.cost.stale += 1,
            Some(at) => {
                self.answered = Some(at);
                self.armed = None;
            }
            None => self.cost.stale += 1,
        }
    }

    fn check_progress(&mut self, seen: &Seen) -> Option<Failure> {
        let last = self.last.as_ref()?;
        for (from, to) in [(last.n, seen.n), (last.c, seen.c)] {
            if to < from {
                return Some(Failure::WentBack { from, to });
            }
        }
        self.iterates = seen.rcx < last.rcx
            && !seen.delivering
            && (last.n, last.c, last.rip) == (seen.n, seen.c, seen.rip);
        let place = |s: &Seen| (s.n, s.c, s.rip, s.rcx, s.delivering);
        self.quiet = if place(last) == place(seen) { self.quiet + 1 } else { 0 };
        (self.quiet > QUIET_EXITS_MAX).then_some(Failure::Stalled)
    }

    /// Names the failure of being past the target.
    const fn past(&self, count: u64) -> Failure {
        let by = count - self.target.count();
        match (self.armed, self.answered) {
            _ if self.cost.exits == 0 => Failure::Behind { by },
            (Some(armed), _) if self.far => Failure::LostInterrupt { armed, seen: count },
            (None, Some(at)) if self.far => Failure::SkidBeyondMargin { skid: count - at },
            _ => Failure::Overshot { by },
        }
    }

    fn before(&mut self, seen: &Seen, distance: u64) -> Action {
        if distance > self.margin {
            let at = self.target.count() - self.margin;
            return Action::RunToOverflow { counter: self.target.counter(), at };
        }
        // Not by steps, however near: the next instruction may be a REP of a million iterations.
        self.approach(seen, self.is_here(seen))
    }

    /// At the target's RIP, with no delivery in the way: a breakpoint there would hit at once.
    const fn is_here(&self, seen: &Seen) -> bool {
        seen.rip == self.target.rip() && !seen.delivering
    }

    /// At the target's count: here, or still to be reached without another event being counted.
    fn at_count(&mut self, seen: &Seen) -> Action {
        match self.target.key {
            Key::Instructions { point, .. } if seen.rip != point.rip => self.approach(seen, false),
            // Beyond the instruction boundary already: CR2 and friends may have changed.
            Key::Instructions { .. } if seen.delivering => Action::Failed(Failure::Overshot { by: 0 }),
            Key::Instructions { point, branches } if seen.rcx == point.rcx => match branches {
                Some(c) if c != seen.c => Action::Failed(Failure::CountersDisagree { c: seen.c }),
                _ => Action::Landed,
            },
            // A REP on its way counts RCX down; anything else retires with the step and is seen past the target.
            Key::Instructions { point, .. } if seen.rcx > point.rcx => {
                Self::through_rep(seen, seen.rcx - point.rcx)
            }
            Key::Instructions { .. } => Action::Failed(Failure::OtherRcx { rcx: seen.rcx }),
            Key::Branches(_) if !self.is_here(seen) => self.approach(seen, false),
            Key::Branches(point) if seen.registers == point.registers => Action::Landed,
            // The same place in another round, or a REP on its way.
            Key::Branches(_) => Action::Step,
        }
    }

    /// In the target's REP, so many iterations before the target's.
    const fn through_rep(seen: &Seen, iterations: u64) -> Action {
        if seen.breakpoint_free && iterations > 1 {
            return Action::Iterate { iterations };
        }
        if iterations <= STEPPED_ITERATIONS_MAX {
            return Action::Step;
        }
        Action::RunBriefly { cycles: (iterations - ITERATIONS_ROOM) / ITERATIONS_PER_CYCLE_MAX }
    }

    /// Within the margin: by breakpoint where that is safe, else step by step.
    fn approach(&self, seen: &Seen, resume: bool) -> Action {
        if !seen.breakpoint_free {
            return Action::Step;
        }
        if !self.target.breakpoint {
            // A REP that the target is not in counts at its end only, and its faults exit: nothing is passed.
            return if self.iterates { Action::Iterate { iterations: u64::MAX } } else { Action::Step };
        }
        let (rip, counter) = (self.target.rip(), self.target.counter());
        Action::RunToBreakpoint { rip, resume, counter, guard: self.target.count() + 1 }
    }

    /// Counts what the action will cost and remembers what it arms.
    fn account(&mut self, action: Action) -> Action {
        match action {
            Action::RunToOverflow { at, .. } => {
                self.cost.arms += 1;
                self.armed = Some(at);
                self.far = true;
            }
            Action::RunToBreakpoint { .. }
            | Action::Step
            | Action::Iterate { .. }
            | Action::RunBriefly { .. } => {
                match action {
                    Action::Step => self.cost.steps += 1,
                    Action::RunToBreakpoint { .. } => self.cost.breakpoints += 1,
                    _ => self.cost.brief += 1,
                }
                self.far = false;
                self.near += 1;
                if self.near > NEAR_EXITS_MAX {
                    return Action::Failed(Failure::TooManyExits);
                }
            }
            Action::Landed | Action::Failed(_) => {}
        }
        action
    }
}
