//! Drives a machine through the properties and judges what it counts.

use crate::landing::{Action, Cause, Counter, Key, Landing, Seen, Target};
use crate::margin::margin;
use crate::point::{BranchPoint, Point, RegistersHash};
use crate::seed::Seed;

use super::machine::{Entry, Exit, Machine, Why};
use super::report::{Reason, Report, Row, Verdict};
use super::spec::{Counts, Disturbance, HANDLER_INSTRUCTIONS, Kind, PROPERTIES, Property, Stub, VECTOR};

/// The watchdog on every run that nothing else bounds, in cycles of the time-stamp counter.
const WATCHDOG_CYCLES: u64 = 1 << 20;
/// How many exits a run may take. Disturbances come every few instructions and can hit before any progress, so this is
/// far above the few thousand that a run takes.
const RUN_EXITS_MAX: u32 = 1 << 20;
/// Disturbing periods are 1 to 2^this cycles, each power of two as likely as the next: short ones for an emulator, where
/// an instruction is a cycle, long ones for silicon, where an entry alone takes a thousand.
const PERIOD_BITS_MAX: u64 = 13;
/// Loop count of the program that overflows are measured in, and how far ahead they are armed at most. The rest of the
/// program is room for the skid: 800 instructions, 200 branches.
const OVERFLOW_COUNT: u64 = 300;
const OVERFLOW_AHEAD_MAX: (u64, u64) = (2000, 400);

/// Runs of a property at least: equal to itself once is not much.
const RUNS_MIN: u32 = 6;
/// Rounds added at most when chance has left a disturbance out: the first timers all too long, for instance.
const ROUNDS_MORE: u32 = 20;
/// While recording, an interrupt is injected at one in this many boundaries that can take it.
const RECORDED_INJECTION_ONE_IN: u64 = 48;
/// Replays of one recording before the next is made.
const RECORDING_LAPS: usize = 16;
/// Landings in one replay at most, so that a lap's length varies with its targets and not with the form.
const LANDINGS_PER_REPLAY: u32 = 64;
/// One landing in this many goes by the fallback key.
const BRANCH_LANDING_ONE_IN: u64 = 5;

/// Loop count of the programs that tell one branch event from another.
const SELECTOR_COUNT: u64 = 100;

/// How much of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Where every random choice comes from.
    pub seed: u64,
    /// Runs per property and disturbance.
    pub runs: u32,
    /// Landings per property.
    pub landings: u32,
    /// About how many boundaries a program has.
    pub steps: u64,
    /// Overflows measured, per counter.
    pub overflows: u32,
}

impl Form {
    /// The slice run at every boot: a few seconds on an emulator, well below one on silicon.
    #[must_use]
    pub const fn short(seed: u64) -> Self {
        Self { seed, runs: 1, landings: 12, steps: 600, overflows: 32 }
    }

    /// The long form.
    #[must_use]
    pub const fn long(seed: u64) -> Self {
        Self { seed, runs: 3, landings: 1000, steps: 3000, overflows: 500 }
    }

    /// Room for marks that a recording needs.
    #[must_use]
    pub const fn marks(&self) -> usize {
        // Injected interrupts add to what the program takes by itself.
        self.steps as usize * 2
    }
}

/// One boundary of a recorded run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    point: Point,
    c: u64,
    registers: RegistersHash,
    /// A breakpoint cannot be lost here.
    breakpoint: bool,
    /// A place worth aiming at: a shadow, RF, the middle of a REP, a handler's first instruction.
    hazard: bool,
    /// An interrupt was injected here.
    inject: bool,
}

/// Do taken and not-taken conditional branches both count exactly, as the machine's counter C is programmed now? Tells
/// the right event from those of other microarchitectures before the proof begins.
pub fn counts_branches<M: Machine>(machine: &mut M) -> bool {
    [Stub::Taken, Stub::NotTaken].into_iter().all(|stub| {
        machine.reset(stub, SELECTOR_COUNT);
        let exit = machine.enter(&Entry { timer: Some(WATCHDOG_CYCLES), ..Entry::default() });
        exit.why == Why::Done && exit.c == stub.expected(SELECTOR_COUNT).c
    })
}

impl Mark {
    /// Filler for the room that [`prove`] wants.
    pub const EMPTY: Self = Self {
        point: Point { n: 0, rip: 0, rcx: 0 },
        c: 0,
        registers: RegistersHash(0),
        breakpoint: false,
        hazard: false,
        inject: false,
    };
}

/// Tests every property on `machine`. `marks` is room for a recording, [`Form::marks`] long; `row` is told each result.
pub fn prove<M: Machine>(
    machine: &mut M,
    form: &Form,
    marks: &mut [Mark],
    mut row: impl FnMut(&Row),
) -> Report {
    let mut report = Report::default();
    for (index, property) in PROPERTIES.iter().enumerate() {
        let mut prover = Prover {
            machine: &mut *machine,
            form: *form,
            rng: Seed::new(form.seed).fork(index as u64),
            marks,
            recorded: 0,
            exits: 0,
            happened: Disturbance::NONE,
        };
        let result = match property.kind {
            Kind::Registers => prover.registers(property),
            Kind::Overflow => prover.overflows(property, &mut report),
            Kind::Neutral => prover.neutral(property),
            Kind::Counting => prover.counting(property, &report),
        };
        if result.verdict != Verdict::Pass {
            machine.failed();
        }
        row(&result);
        report.push(result);
    }
    report
}

/// The row of a property before it was tested.
fn blank(property: &Property, count: u64) -> Row {
    Row { name: property.name, claim: property.claim, expected: property.stub.expected(count), ..Row::EMPTY }
}

struct Prover<'a, M> {
    machine: &'a mut M,
    form: Form,
    rng: Seed,
    marks: &'a mut [Mark],
    recorded: usize,
    exits: u64,
    /// The disturbances seen to happen in the runs.
    happened: Disturbance,
}

impl<M: Machine> Prover<'_, M> {
    /// Every bit of both counters can be written and read.
    fn registers(&mut self, property: &Property) -> Row {
        let mut row = blank(property, 0);
        for counter in [Counter::Instructions, Counter::Branches] {
            let ones = u64::MAX >> (64 - self.machine.width(counter).clamp(1, 64));
            for pattern in
                [ones, 0x5555_5555_5555_5555, 0xAAAA_AAAA_AAAA_AAAA, 1 << 31, 1 << 32, ones ^ (ones >> 1), 0]
            {
                let wrote = pattern & ones;
                let read = self.machine.write_read(counter, wrote);
                row.runs += 1;
                if read != wrote {
                    row.verdict = Verdict::Fail(Reason::BitsLost { counter, wrote, read });
                    return row;
                }
            }
        }
        row
    }

    /// Nothing but entries and exits.
    fn neutral(&mut self, property: &Property) -> Row {
        let mut row = blank(property, 0);
        for _ in 0..self.form.runs.max(4) {
            self.machine.reset(property.stub, 0);
            let pending = Entry { host_interrupt: Some(0), timer: Some(WATCHDOG_CYCLES), ..Entry::default() };
            for _ in 0..16 {
                self.machine.enter(&pending);
            }
            let exit = self.machine.enter(&Entry { timer: Some(WATCHDOG_CYCLES), ..Entry::default() });
            row.exits += 17;
            row.runs += 1;
            if let Err(reason) = judge(&exit, Counts::default(), Disturbance::INTERRUPTS) {
                row.verdict = Verdict::Fail(reason);
                break;
            }
        }
        row
    }

    /// Overflow interrupts of both counters; fills in the skids and the margins.
    fn overflows(&mut self, property: &Property, report: &mut Report) -> Row {
        let mut row = blank(property, OVERFLOW_COUNT);
        for _ in 0..self.form.overflows {
            for counter in [Counter::Instructions, Counter::Branches] {
                let skid = match counter {
                    Counter::Instructions => &mut report.skid_instructions,
                    Counter::Branches => &mut report.skid_branches,
                };
                row.runs += 1;
                match self.overflow(property.stub, counter) {
                    Ok(late) => skid.add(late),
                    // The first reason stands, but the skid of the others is still worth knowing.
                    Err(reason) if row.verdict == Verdict::Pass => row.verdict = Verdict::Fail(reason),
                    Err(_) => {}
                }
            }
        }
        row.exits = self.exits;
        report.margin_instructions = margin(&report.skid_instructions);
        report.margin_branches = margin(&report.skid_branches);
        for margin in [report.margin_instructions, report.margin_branches] {
            if let (Err(error), Verdict::Pass) = (margin, row.verdict) {
                row.verdict = Verdict::Fail(Reason::Margin(error));
            }
        }
        row
    }

    /// One overflow: armed, taken, masked, and the program's end in peace after it. Answers the skid.
    fn overflow(&mut self, stub: Stub, counter: Counter) -> Result<u64, Reason> {
        let most = match counter {
            Counter::Instructions => OVERFLOW_AHEAD_MAX.0,
            Counter::Branches => OVERFLOW_AHEAD_MAX.1,
        };
        let armed = self.rng.between(1, most);
        self.machine.reset(stub, OVERFLOW_COUNT);
        let watched = Entry { timer: Some(WATCHDOG_CYCLES), ..Entry::default() };
        let exit = self.enter(&Entry { arm: Some((counter, armed)), ..watched })?;
        let found = match counter {
            Counter::Instructions => exit.n,
            Counter::Branches => exit.c,
        };
        match exit.why {
            Why::Overflow if found < armed => return Err(Reason::Early { counter, armed, found }),
            Why::Overflow if !exit.overflowed => return Err(Reason::NoStatus),
            Why::Overflow if !exit.lvt_masked => return Err(Reason::NotMasked),
            Why::Overflow => {}
            _ => return Err(Reason::NoInterrupt { counter, armed, found }),
        }
        let end = self.enter(&watched)?;
        if end.why == Why::Overflow {
            return Err(Reason::Twice);
        }
        judge(&end, stub.expected(OVERFLOW_COUNT), Disturbance::NONE)?;
        Ok(found - armed)
    }

    /// Runs under each disturbance in turn, then landings.
    fn counting(&mut self, property: &Property, report: &Report) -> Row {
        let count = property.stub.count_for(self.form.steps);
        let mut row = blank(property, count);
        if let Err(reason) = self.runs(property, count, &mut row) {
            row.verdict = Verdict::Fail(reason);
        }
        row.exits = core::mem::take(&mut self.exits);
        if let (Verdict::Pass, Ok(n), Ok(c)) =
            (row.verdict, report.margin_instructions, report.margin_branches)
            && let Err(reason) = self.landings(property, count, (n, c), &mut row)
        {
            row.verdict = Verdict::Fail(reason);
        }
        row.landing_exits = self.exits;
        row
    }

    /// All rounds of all disturbances; more of them while something that was meant to happen has not.
    fn runs(&mut self, property: &Property, count: u64, row: &mut Row) -> Result<(), Reason> {
        let meant = property.under.iter().fold(Disturbance::NONE, |all, under| all.with(*under));
        let enough = self.form.runs.max(RUNS_MIN.div_ceil(property.under.len() as u32));
        for round in 0..enough + ROUNDS_MORE {
            if round >= enough && meant.without(self.happened) == Disturbance::NONE {
                return Ok(());
            }
            for &under in property.under {
                let (exit, injected) = self.run(property.stub, count, under)?;
                row.runs += 1;
                let mut expected = property.stub.expected(count);
                expected.n += injected * HANDLER_INSTRUCTIONS;
                judge(&exit, expected, under)?;
            }
        }
        Err(Reason::Undisturbed { missing: meant.without(self.happened) })
    }

    /// One run to the end; answers the last exit and how many interrupts were injected beyond the program's own.
    fn run(&mut self, stub: Stub, count: u64, under: Disturbance) -> Result<(Exit, u64), Reason> {
        let mut exit = self.machine.reset(stub, count);
        if under.has(Disturbance::EPT) {
            self.unmap_all();
        }
        let (mut injected, mut wake) = (0, false);
        for _ in 0..RUN_EXITS_MAX {
            let mut entry = self.disturbed(under);
            entry.step = under.has(Disturbance::MTF);
            if wake && exit.injectable() {
                entry.inject = Some(VECTOR);
                wake = false;
            } else if under.has(Disturbance::INJECT) && self.rng.one_in(3) {
                if exit.injectable() {
                    entry.inject = Some(VECTOR);
                    injected += 1;
                    self.happened = self.happened.with(Disturbance::INJECT);
                    if under.has(Disturbance::DELIVERY) {
                        self.unmap_all();
                    }
                } else {
                    entry.window = true;
                }
            }
            exit = self.enter(&entry)?;
            self.happened = self.happened.with(disturbance_of(&exit));
            match exit.why {
                Why::Done => return Ok((exit, injected)),
                Why::Halt => wake = true,
                _ => {}
            }
        }
        Err(Reason::Endless)
    }

    /// An entry with this disturbance's timers, after it has taken a page away or not.
    fn disturbed(&mut self, under: Disturbance) -> Entry {
        let mut entry = Entry { timer: Some(WATCHDOG_CYCLES), ..Entry::default() };
        if under.has(Disturbance::TIMER) {
            entry.timer = Some(self.period());
        }
        if under.has(Disturbance::INTERRUPTS) {
            entry.host_interrupt = Some(if self.rng.one_in(4) { 0 } else { self.period() });
        }
        if under.has(Disturbance::EPT) && self.rng.one_in(4) {
            let page = self.rng.below(u64::from(self.machine.pages())) as u32;
            self.machine.unmap(page);
        }
        entry
    }

    fn unmap_all(&mut self) {
        (0..self.machine.pages()).for_each(|page| self.machine.unmap(page));
    }

    fn period(&mut self) -> u64 {
        let bits = self.rng.between(0, PERIOD_BITS_MAX);
        self.rng.between(1, 1 << bits)
    }

    /// Enters the guest; an exit that means nothing to the proof is an error.
    fn enter(&mut self, entry: &Entry) -> Result<Exit, Reason> {
        let exit = self.machine.enter(entry);
        self.exits += 1;
        match exit.why {
            Why::Unexpected { reason, qualification } => {
                Err(Reason::Unexpected { reason, qualification, rip: exit.registers.rip })
            }
            _ => Ok(exit),
        }
    }

    /// Records a run step by step: every boundary, and the interrupts injected there.
    fn record(&mut self, stub: Stub, count: u64, under: Disturbance) -> Result<(), Reason> {
        self.recorded = 0;
        let mut exit = self.machine.reset(stub, count);
        let mut last = None;
        for _ in 0..RUN_EXITS_MAX {
            let mut entry = Entry { step: true, timer: Some(WATCHDOG_CYCLES), ..Entry::default() };
            let point = place(&exit);
            if !exit.delivering && last != Some(point) {
                let wanted = exit.why == Why::Halt
                    || under.has(Disturbance::INJECT) && self.rng.one_in(RECORDED_INJECTION_ONE_IN);
                let inject = wanted && exit.injectable();
                entry.inject = inject.then_some(VECTOR);
                // The same N as at the last boundary: an iteration of a REP, or an event just delivered.
                let still = last.is_some_and(|last| last.n == point.n);
                // A breakpoint on a REP hits before its first iteration, where RF was not yet the REP's own.
                let breakpoint = match self.recorded.checked_sub(1).map(|before| self.marks[before]) {
                    Some(before) if still && before.point.rip == point.rip => before.breakpoint,
                    _ => exit.breakpoint_safe(),
                };
                *self.marks.get_mut(self.recorded).ok_or(Reason::TooLong)? = Mark {
                    point,
                    c: exit.c,
                    registers: exit.registers.hash(),
                    breakpoint,
                    hazard: still || exit.sti || !exit.breakpoint_safe(),
                    inject,
                };
                self.recorded += 1;
                last = Some(point);
            }
            exit = self.enter(&entry)?;
            if exit.why == Why::Done {
                return Ok(());
            }
        }
        Err(Reason::Endless)
    }

    /// Landings at random targets: records, then replays the recording with this property's disturbances, stopping at
    /// targets at all distances and at every injection.
    fn landings(
        &mut self,
        property: &Property,
        count: u64,
        margins: (u64, u64),
        row: &mut Row,
    ) -> Result<(), Reason> {
        let mut lap = 0;
        while row.landings < self.form.landings {
            let under = property.under[lap % property.under.len()];
            if lap.is_multiple_of(RECORDING_LAPS) {
                // The recording's exits are not a landing's.
                let exits = self.exits;
                self.record(property.stub, count, under)?;
                self.exits = exits;
            }
            let landings =
                self.replay(property.stub, count, under, margins, self.form.landings - row.landings)?;
            row.landings += landings;
            lap += 1;
        }
        Ok(())
    }

    /// One replay of the recording with up to `most` landings; answers how many there were.
    fn replay(
        &mut self,
        stub: Stub,
        count: u64,
        under: Disturbance,
        margins: (u64, u64),
        most: u32,
    ) -> Result<u32, Reason> {
        let mut exit = self.machine.reset(stub, count);
        if under.has(Disturbance::EPT) {
            self.unmap_all();
        }
        let (mut at, mut inject, mut landed) = (0, None, 0);
        while landed < most.min(LANDINGS_PER_REPLAY) {
            let Some(next) = self.choose(at, inject.is_some(), margins.0) else { break };
            exit = self.land(next, exit, inject.take(), under, margins)?;
            at = next;
            landed += 1;
            inject = self.marks[at].inject.then_some(VECTOR);
        }
        Ok(landed)
    }

    /// The next target after mark `at`, none at the end. An injection in between is a target itself; at `at` it is
    /// due before anything else moves, unless `due` says it already waits for the next entry.
    fn choose(&mut self, at: usize, due: bool, margin: u64) -> Option<usize> {
        let left = self.recorded - 1 - at;
        if left == 0 && at != 0 {
            return None;
        }
        let margin = margin as usize;
        let distance = match self.rng.below(8) {
            0 if !due => 0,
            0 | 1 => 1,
            2 => self.rng.between(2, 16) as usize,
            3 | 4 => self.rng.between(1, margin as u64) as usize,
            5 => self.rng.between(margin as u64, 3 * margin as u64) as usize,
            _ => {
                let skip = 1 + self.rng.below(left as u64) as usize;
                let ahead = self.marks[..self.recorded].iter().skip(at + skip);
                skip + ahead.take_while(|mark| !mark.hazard).count()
            }
        };
        let next = at + distance.min(left);
        let from = if due || at != 0 { at + 1 } else { at };
        let injection = (from..next).find(|&i| self.marks[i].inject);
        Some(injection.unwrap_or(next))
    }

    /// Brings the guest from `exit` to mark `index` and checks that it is there.
    fn land(
        &mut self,
        index: usize,
        mut exit: Exit,
        mut inject: Option<u8>,
        under: Disturbance,
        margins: (u64, u64),
    ) -> Result<Exit, Reason> {
        let mark = self.marks[index];
        let missed = Reason::TargetMissed { target: mark.point };
        let by_branches = self.rng.one_in(BRANCH_LANDING_ONE_IN) && self.unique_by_branches(index);
        let (key, margin) = if by_branches {
            let point = BranchPoint { c: mark.c, rip: mark.point.rip, registers: mark.registers };
            (Key::Branches(point), margins.1)
        } else {
            (Key::Instructions { point: mark.point, branches: Some(mark.c) }, margins.0)
        };
        let mut landing = Landing::new(Target { key, breakpoint: mark.breakpoint }, margin);
        let mut cause = Cause::Start;
        loop {
            let mut entry = self.disturbed(under);
            match landing.next(&seen(&exit, cause, inject.is_some())) {
                Action::Landed => break,
                Action::Failed(failure) => {
                    return Err(Reason::Landing { target: mark.point, failure, under });
                }
                Action::RunToOverflow { counter, at } => {
                    entry.arm = Some((counter, at - counted(&exit, counter)))
                }
                Action::RunToBreakpoint { rip, resume, counter, guard } => {
                    entry.breakpoint = Some(rip);
                    entry.resume = resume;
                    entry.arm = Some((counter, guard - counted(&exit, counter)));
                }
                // A step does as well, and the stubs' REPs are short.
                Action::Step | Action::Iterate { .. } | Action::RunBriefly { .. } => entry.step = true,
            }
            if exit.why == Why::Done || exit.why == Why::Halt && inject.is_none() {
                return Err(missed);
            }
            entry.inject = inject.take();
            exit = self.enter(&entry)?;
            cause = cause_of(exit.why);
        }
        let there = place(&exit) == mark.point
            && exit.c == mark.c
            && exit.registers.hash() == mark.registers
            && exit.n_general == exit.n;
        if there { Ok(exit) } else { Err(Reason::Elsewhere { target: mark.point, found: place(&exit) }) }
    }

    /// No other boundary has this one's (C, RIP, registers): an instruction that faults and is restarted has it twice.
    fn unique_by_branches(&self, index: usize) -> bool {
        let key = |mark: &Mark| (mark.c, mark.point.rip, mark.registers);
        let wanted = key(&self.marks[index]);
        self.marks[..self.recorded].iter().filter(|mark| key(mark) == wanted).count() == 1
    }
}

const fn place(exit: &Exit) -> Point {
    Point { n: exit.n, rip: exit.registers.rip, rcx: exit.registers.rcx() }
}

const fn counted(exit: &Exit, counter: Counter) -> u64 {
    match counter {
        Counter::Instructions => exit.n,
        Counter::Branches => exit.c,
    }
}

const fn disturbance_of(exit: &Exit) -> Disturbance {
    match exit.why {
        Why::EptViolation if exit.delivering => Disturbance::EPT.with(Disturbance::DELIVERY),
        Why::EptViolation => Disturbance::EPT,
        Why::Timer => Disturbance::TIMER,
        Why::HostInterrupt => Disturbance::INTERRUPTS,
        Why::Step => Disturbance::MTF,
        _ => Disturbance::NONE,
    }
}

const fn cause_of(why: Why) -> Cause {
    match why {
        Why::Overflow => Cause::Overflow,
        Why::Step => Cause::Step,
        Why::Breakpoint => Cause::Breakpoint,
        Why::Timer => Cause::Timer,
        _ => Cause::Other,
    }
}

fn seen(exit: &Exit, cause: Cause, injecting: bool) -> Seen {
    Seen {
        n: exit.n,
        c: exit.c,
        rip: exit.registers.rip,
        rcx: exit.registers.rcx(),
        registers: exit.registers.hash(),
        cause,
        delivering: exit.delivering || injecting,
        breakpoint_free: exit.breakpoint_free,
    }
}

/// Are these the counts at the program's end?
fn judge(exit: &Exit, expected: Counts, under: Disturbance) -> Result<(), Reason> {
    if exit.why != Why::Done {
        return Err(Reason::Endless);
    }
    let found = Counts { n: exit.n, c: exit.c };
    if found != expected {
        return Err(Reason::Counts { expected, found, under });
    }
    if exit.n_general != exit.n {
        return Err(Reason::CountersDisagree { fixed: exit.n, general: exit.n_general });
    }
    Ok(())
}
