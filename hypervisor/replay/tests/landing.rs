//! Landing against the simulated processor, by the truth: the whole guest state, not only its key.

mod sim;

use replay::landing::{
    Action, Cause, Counter, Failure, ITERATIONS_PER_CYCLE_MAX, Key, Landing, STEPPED_ITERATIONS_MAX, Seen,
    Target,
};
use replay::point::{BranchPoint, Point};
use replay::proof::{Entry, Exit, Machine, Stub, Why};
use replay::seed::Seed;
use sim::program::{Op, Program, rounds};
use sim::{Faults, Sim, State};

const STUBS: [Stub; 16] = [
    Stub::Mixed,
    Stub::Taken,
    Stub::NotTaken,
    Stub::Pages,
    Stub::RepMovs,
    Stub::RepMovsBackward,
    Stub::RepStos,
    Stub::RepCompare,
    Stub::RepEdges,
    Stub::SoftwareInterrupts,
    Stub::Syscall,
    Stub::Faults,
    Stub::PageFaults,
    Stub::Emulated,
    Stub::Shadows,
    Stub::TrapFlag,
];

/// A boundary of the true run.
struct Place {
    exit: Exit,
    state: State,
    retired: u64,
}

/// The guest's state without what is the host's business.
fn visible(state: &State) -> String {
    format!("{state:?}").replace("resume: true", "resume: false")
}

fn step() -> Entry {
    Entry { step: true, ..Entry::default() }
}

fn true_run(stub: Stub, count: u64) -> Vec<Place> {
    let mut sim = Sim::new(0, Faults::default());
    let mut exit = sim.reset(stub, count);
    let mut places: Vec<Place> = Vec::new();
    while exit.why != Why::Done {
        if !exit.delivering {
            places.push(Place { exit, state: sim.state.clone(), retired: sim.retired });
        }
        exit = sim.enter(&step());
    }
    places
}

fn key(place: &Place, by: Counter) -> Key {
    let registers = &place.exit.registers;
    match by {
        Counter::Instructions => Key::Instructions {
            point: Point { n: place.exit.n, rip: registers.rip, rcx: registers.rcx() },
            branches: Some(place.exit.c),
        },
        Counter::Branches => {
            Key::Branches(BranchPoint { c: place.exit.c, rip: registers.rip, registers: registers.hash() })
        }
    }
}

fn seen(exit: &Exit, cause: Cause) -> Seen {
    Seen {
        n: exit.n,
        c: exit.c,
        rip: exit.registers.rip,
        rcx: exit.registers.rcx(),
        registers: exit.registers.hash(),
        cause,
        delivering: exit.delivering,
        breakpoint_free: exit.breakpoint_free,
    }
}

/// Enters the guest, for so many iterations of a REP if any.
fn run(sim: &mut Sim, entry: &Entry, iterations: Option<u64>) -> Exit {
    let iterated = iterations.and_then(|iterations| sim.iterate(iterations, entry));
    iterated.unwrap_or_else(|| sim.enter(&Entry { step: entry.step || iterations.is_some(), ..*entry }))
}

/// Lands, with the host disturbing as `rng` says. None: the program ended, or it takes for ever.
fn land(
    sim: &mut Sim,
    mut exit: Exit,
    target: Target,
    margin: u64,
    rng: &mut Seed,
) -> Option<Result<Exit, Failure>> {
    let mut landing = Landing::new(target, margin);
    let mut cause = Cause::Start;
    for _ in 0..200_000 {
        let mut entry = Entry { timer: Some(5000), ..Entry::default() };
        let mut iterate = None;
        match landing.next(&seen(&exit, cause)) {
            Action::Landed => return Some(Ok(exit)),
            Action::Failed(failure) => return Some(Err(failure)),
            Action::RunToOverflow { counter, at } => {
                entry.arm =
                    Some((counter, at - if counter == Counter::Instructions { exit.n } else { exit.c }));
            }
            Action::RunToBreakpoint { rip, resume, counter, guard } => {
                entry.breakpoint = Some(rip);
                entry.resume = resume;
                entry.arm =
                    Some((counter, guard - if counter == Counter::Instructions { exit.n } else { exit.c }));
            }
            Action::Step => entry.step = true,
            Action::Iterate { iterations } => iterate = Some(iterations),
            Action::RunBriefly { .. } => panic!("no stub has a REP that long"),
        }
        if rng.one_in(3) {
            entry.timer = Some(rng.between(0, 200));
        }
        if rng.one_in(3) {
            entry.host_interrupt = Some(rng.between(0, 200));
        }
        if rng.one_in(4) {
            sim.unmap(rng.below(u64::from(sim.pages())) as u32);
        }
        exit = run(sim, &entry, iterate);
        cause = match exit.why {
            Why::Done => return None,
            Why::Overflow => Cause::Overflow,
            Why::Breakpoint => Cause::Breakpoint,
            Why::Step => Cause::Step,
            Why::Timer => Cause::Timer,
            _ => Cause::Other,
        };
    }
    None
}

/// The places that have this place's fallback key.
fn same_branch_key(places: &[Place], place: &Place) -> usize {
    let wanted = key(place, Counter::Branches);
    places.iter().filter(|p| key(p, Counter::Branches) == wanted).count()
}

#[test]
fn always_exactly_there() {
    for seed in 0..6000_u64 {
        let mut rng = Seed::new(seed);
        let stub = STUBS[rng.below(STUBS.len() as u64) as usize];
        let count = stub.count_for(rng.between(60, 900));
        let places = true_run(stub, count);
        let high = [0, 40, 128][rng.below(3) as usize];
        let skid = (rng.between(0, high), high);
        let mut sim = Sim::new(seed, Faults { skid, ..Faults::default() });
        let mut exit = sim.reset(stub, count);
        let mut at = 0;
        for _ in 0..4 {
            at = rng.between(at as u64, places.len() as u64 - 1) as usize;
            let place = &places[at];
            let by_branches = rng.one_in(4) && same_branch_key(&places, place) == 1;
            let by = if by_branches { Counter::Branches } else { Counter::Instructions };
            let target = Target { key: key(place, by), breakpoint: place.exit.breakpoint_safe() };
            exit = land(&mut sim, exit, target, high + rng.between(1, 64), &mut rng)
                .unwrap_or_else(|| panic!("seed {seed}: {stub:?} passed {target:?} silently"))
                .unwrap_or_else(|failure| panic!("seed {seed}: {stub:?} {target:?}: {failure}"));
            assert_eq!(sim.retired, place.retired, "seed {seed}");
            assert_eq!(visible(&sim.state), visible(&place.state), "seed {seed}");
        }
    }
}

/// On bad hardware, or with a guest that diverges, a landing ends there or names a failure.
#[test]
fn never_elsewhere_and_never_silent() {
    let (mut landed, mut failed) = (0, 0);
    for seed in 0..6000_u64 {
        let mut rng = Seed::new(seed);
        let stub = STUBS[rng.below(STUBS.len() as u64) as usize];
        let count = stub.count_for(rng.between(200, 900));
        let places = true_run(stub, count);
        let last = places.len() as u64 - 1;
        let at = rng.between(last / 2, last * 3 / 4) as usize;
        let faults = match rng.below(5) {
            0 => Faults { overcount_every: rng.between(1, 9) as u32, ..Faults::default() },
            1 => Faults { undercount_rep: true, ..Faults::default() },
            2 => Faults { lost_pmi_every: 1, ..Faults::default() },
            3 => Faults { skid: (0, 400), ..Faults::default() },
            _ => Faults { diverge_at: rng.between(1, places[at].retired), ..Faults::default() },
        };
        let diverges = faults.diverge_at != 0;
        let mut sim = Sim::new(seed, faults.clone());
        let exit = sim.reset(stub, count);
        let place = &places[at];
        let target =
            Target { key: key(place, Counter::Instructions), breakpoint: place.exit.breakpoint_safe() };
        match land(&mut sim, exit, target, 64, &mut rng) {
            Some(Ok(_)) if diverges => {}
            Some(Ok(_)) => {
                landed += 1;
                assert_eq!(visible(&sim.state), visible(&place.state), "seed {seed} {stub:?} {faults:?}");
            }
            Some(Err(_)) => failed += 1,
            // A lost count: the guest comes to its end first, where the caller sees that it missed its target.
            None => failed += 1,
        }
    }
    assert!(landed > 500 && failed > 500, "{landed} landed, {failed} failed: the test does not test");
}

/// Lands on an iteration of a REP of `count` - 1 of them, in front of which stand two instructions, while the guest has its debug
/// registers for itself. `pace`: iterations in a cycle; `late`: cycles that the timer may come late. What the landing came to, and
/// how many exits it took.
fn land_in_long_rep(
    seed: u64,
    count: u64,
    left: u64,
    pace: u64,
    late: u64,
) -> (Sim, Result<Exit, Failure>, u32) {
    let mut rng = Seed::new(seed);
    let mut sim = Sim::new(seed, Faults { skid: (0, 40), ..Faults::default() });
    let mut exit = sim.reset(Stub::RepStos, count);
    let rep = exit.registers.rip + 2 * 4;
    let point = Point { n: 2, rip: rep, rcx: left };
    let target = Target { key: Key::Instructions { point, branches: None }, breakpoint: true };
    let mut landing = Landing::new(target, 128);
    let mut cause = Cause::Start;
    let end = loop {
        let mut entry = Entry::default();
        match landing.next(&Seen { breakpoint_free: false, ..seen(&exit, cause) }) {
            Action::Landed => break Ok(exit),
            Action::Failed(failure) => break Err(failure),
            Action::RunBriefly { cycles } => {
                assert!(cycles > 0);
                let time = (cycles + rng.between(0, late)) * pace;
                entry.timer = Some(time);
                if rng.one_in(3) {
                    entry.host_interrupt = Some(rng.below(time));
                }
            }
            Action::Step => entry.step = true,
            action => panic!("{action:?} though the target is near and there is no breakpoint"),
        }
        if rng.one_in(4) {
            sim.unmap(rng.below(u64::from(sim.pages())) as u32);
        }
        exit = sim.enter(&entry);
        cause = match exit.why {
            Why::Step => Cause::Step,
            Why::Timer => Cause::Timer,
            _ => Cause::Other,
        };
    };
    (sim, end, landing.cost().exits)
}

#[test]
fn far_into_a_rep() {
    for seed in 0..16_u64 {
        let mut rng = Seed::new(seed);
        let count = rng.between(1 << 21, 1 << 23);
        let left = rng.below(count - 2 * STEPPED_ITERATIONS_MAX);
        let pace = [1, 1, 3, 16, ITERATIONS_PER_CYCLE_MAX][rng.below(5) as usize];
        let (sim, end, exits) = land_in_long_rep(seed, count, left, pace, 500);
        let exit = end.unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
        assert_eq!((exit.n, exit.registers.rcx(), sim.retired), (2, left, 2), "seed {seed}");
        assert_eq!(exit.registers.general[7], count - 1 - left, "seed {seed}: iterations executed");
        assert!(u64::from(exits) < STEPPED_ITERATIONS_MAX * 7 / 4, "seed {seed}: {exits} exits");
    }
}

/// A processor that is faster than any: the landing is missed, and says so.
#[test]
fn past_an_iteration_is_a_failure() {
    let (_, end, _) = land_in_long_rep(1, 1 << 22, 1 << 20, ITERATIONS_PER_CYCLE_MAX * 5 / 4, 0);
    assert!(matches!(end, Err(Failure::OtherRcx { rcx }) if rcx < 1 << 20), "{end:?}");
    let (_, end, _) = land_in_long_rep(1, 1 << 22, 9, 4 * ITERATIONS_PER_CYCLE_MAX, 0);
    assert!(matches!(end, Err(Failure::Overshot { .. })), "{end:?}");
}

/// A loop with REPs of up to a hundred thousand iterations, some of which meet pages that are not there; a handler with REPs.
fn with_long_reps(rng: &mut Seed) -> Program {
    let mut body = Vec::new();
    for _ in 0..rng.between(1, 4) {
        body.extend(std::iter::repeat_n(Op::Plain, rng.below(30) as usize));
        let count = [0, 1, 2, 40, 3000, 30_000, 100_000][rng.below(7) as usize];
        let faulting = rng.one_in(2) && count <= 30_000;
        body.extend([Op::Rcx(count), if faulting { Op::RepTouch(1 + count / 3) } else { Op::Rep(u64::MAX) }]);
        body.extend(std::iter::repeat_n(Op::Memory, rng.below(4) as usize));
    }
    let handler = vec![Op::Plain; rng.below(40) as usize];
    rounds(&body, &handler)
}

/// Places of a run of the program, all but most of those within a REP, and whether a breakpoint cannot be lost there as a
/// recorder sees it.
fn places_beside_reps(program: &Program, count: u64, rng: &mut Seed) -> Vec<(Place, bool)> {
    let mut sim = Sim::new(0, Faults::default());
    let mut exit = sim.load(program.clone(), count);
    let mut places: Vec<(Place, bool)> = Vec::new();
    while exit.why != Why::Done {
        let within = places.last().is_some_and(|(last, _)| {
            last.retired == sim.retired && last.exit.registers.rip == exit.registers.rip
        });
        let edge = exit.registers.rcx() < 3;
        if !exit.delivering && (!within || edge || rng.one_in(2000)) {
            let breakpoint = !within && exit.breakpoint_safe();
            places.push((Place { exit, state: sim.state.clone(), retired: sim.retired }, breakpoint));
        }
        exit = sim.enter(&step());
    }
    places
}

/// However many iterations lie before a place, or before its iteration: it costs no more exits than its margin has instructions.
#[test]
fn long_reps_cost_no_steps() {
    let (mut within, mut landings, mut most) = (0, 0, 0);
    for seed in 0..300_u64 {
        let mut rng = Seed::new(seed);
        let program = with_long_reps(&mut rng);
        let count = rng.between(1, 6);
        let places = places_beside_reps(&program, count, &mut rng);
        let high = [0, 40, 128, 192][rng.below(4) as usize];
        let mut sim = Sim::new(seed, Faults { skid: (rng.between(0, high), high), ..Faults::default() });
        let mut exit = sim.load(program, count);
        let margin = high + rng.between(1, 64);
        let (calm, mut at) = (rng.one_in(2), 0);
        for _ in 0..6 {
            at = rng.between(at as u64, places.len() as u64 - 1) as usize;
            let (place, breakpoint) = &places[at];
            let target = Target { key: key(place, Counter::Instructions), breakpoint: *breakpoint };
            let mut landing = Landing::new(target, margin);
            let mut cause = Cause::Start;
            loop {
                let mut entry = Entry::default();
                let mut iterate = None;
                match landing.next(&seen(&exit, cause)) {
                    Action::Landed => break,
                    Action::Failed(failure) => panic!("seed {seed}: {target:?}: {failure}"),
                    Action::RunToOverflow { at, .. } => {
                        entry.arm = Some((Counter::Instructions, at - exit.n));
                    }
                    Action::RunToBreakpoint { rip, resume, guard, .. } => {
                        (entry.breakpoint, entry.resume) = (Some(rip), resume);
                        entry.arm = Some((Counter::Instructions, guard - exit.n));
                    }
                    Action::Step => entry.step = true,
                    Action::Iterate { iterations } => iterate = Some(iterations),
                    Action::RunBriefly { .. } => panic!("the breakpoint is free"),
                }
                if !calm && rng.one_in(3) {
                    entry.host_interrupt = Some(rng.between(0, 2000));
                }
                if !calm && rng.one_in(4) {
                    sim.unmap(rng.below(u64::from(sim.pages())) as u32);
                }
                exit = run(&mut sim, &entry, iterate);
                assert_ne!(exit.why, Why::Done, "seed {seed}: {target:?} was passed silently");
                cause = match exit.why {
                    Why::Overflow => Cause::Overflow,
                    Why::Breakpoint => Cause::Breakpoint,
                    Why::Step => Cause::Step,
                    _ => Cause::Other,
                };
            }
            assert_eq!(sim.retired, place.retired, "seed {seed}");
            assert_eq!(visible(&sim.state), visible(&place.state), "seed {seed}");
            within += u32::from(!breakpoint);
            landings += 1;
            if calm {
                let cost = landing.cost();
                most = most.max(cost.exits);
                // A REP costs a step into it, a run to its next fault, and the fault's delivery.
                assert!(
                    u64::from(cost.exits) <= 2 * margin + 40,
                    "seed {seed}: {target:?} {margin} {cost:?}"
                );
            }
        }
    }
    assert!(
        within > 300 && landings - within > 300,
        "{within} of {landings} within a REP: the test does not test"
    );
    println!("{landings} landings, {within} of them without a breakpoint, {most} exits at most");
}

#[test]
fn a_lost_interrupt_is_named() {
    let places = true_run(Stub::Mixed, 100);
    let mut sim = Sim::new(1, Faults { lost_pmi_every: 1, ..Faults::default() });
    let exit = sim.reset(Stub::Mixed, 100);
    let target = Target { key: key(&places[500], Counter::Instructions), breakpoint: true };
    let mut landing = Landing::new(target, 128);
    assert_eq!(
        landing.next(&seen(&exit, Cause::Start)),
        Action::RunToOverflow { counter: Counter::Instructions, at: 372 }
    );
    let exit =
        sim.enter(&Entry { arm: Some((Counter::Instructions, 372)), timer: Some(700), ..Entry::default() });
    assert_eq!(exit.why, Why::Timer);
    assert_eq!(
        landing.next(&seen(&exit, Cause::Timer)),
        Action::Failed(Failure::LostInterrupt { armed: 372, seen: 700 })
    );
}

mod script {
    //! The state machine by itself, step by step.
    use super::*;
    use replay::landing::QUIET_EXITS_MAX;
    use replay::point::RegistersHash;

    const TARGET: Target = Target {
        key: Key::Instructions { point: Point { n: 1000, rip: 0x500, rcx: 7 }, branches: None },
        breakpoint: true,
    };

    fn at(n: u64, rip: u64, rcx: u64, cause: Cause) -> Seen {
        let registers = RegistersHash(0);
        Seen { n, c: 0, rip, rcx, registers, cause, delivering: false, breakpoint_free: true }
    }

    const NEAR: Action =
        Action::RunToBreakpoint { rip: 0x500, resume: false, counter: Counter::Instructions, guard: 1001 };
    const PAST: Action =
        Action::RunToBreakpoint { rip: 0x500, resume: true, counter: Counter::Instructions, guard: 1001 };
    const FAR: Action = Action::RunToOverflow { counter: Counter::Instructions, at: 900 };

    #[track_caller]
    fn script(target: Target, steps: &[(Seen, Action)]) -> Landing {
        let mut landing = Landing::new(target, 100);
        for (index, (seen, action)) in steps.iter().enumerate() {
            assert_eq!(landing.next(seen), *action, "step {index}");
        }
        landing
    }

    #[test]
    fn far_then_near_then_there() {
        let landing = script(
            TARGET,
            &[
                (at(0, 0x100, 0, Cause::Start), FAR),
                (at(300, 0x110, 0, Cause::Other), FAR),
                (at(917, 0x120, 0, Cause::Overflow), NEAR),
                (at(950, 0x500, 9, Cause::Breakpoint), PAST),
                (at(950, 0x500, 9, Cause::Other), PAST),
                (at(951, 0x504, 9, Cause::Timer), NEAR),
                (at(1000, 0x500, 7, Cause::Breakpoint), Action::Landed),
            ],
        );
        assert_eq!((landing.cost().exits, landing.cost().arms, landing.cost().stale), (6, 2, 0));
    }

    #[test]
    fn an_overflow_stop_at_the_count_is_not_the_place() {
        // The right count, but an event is still to be delivered to the target's RIP.
        script(TARGET, &[(at(0, 0, 0, Cause::Start), FAR), (at(1000, 0x400, 7, Cause::Overflow), NEAR)]);
    }

    #[test]
    fn late_interrupts_are_dropped() {
        let landing = script(
            TARGET,
            &[
                (at(0, 0, 0, Cause::Start), FAR),
                (at(905, 0x10, 0, Cause::Other), NEAR),
                (at(905, 0x10, 0, Cause::Overflow), NEAR),
                (at(907, 0x14, 0, Cause::Overflow), NEAR),
            ],
        );
        assert_eq!(landing.cost().stale, 1);
    }

    #[test]
    fn failures_have_names() {
        let fail = |seen, failure| {
            script(TARGET, &[(at(0, 0, 0, Cause::Start), FAR), (seen, Action::Failed(failure))])
        };
        script(TARGET, &[(at(1003, 0, 0, Cause::Start), Action::Failed(Failure::Behind { by: 3 }))]);
        fail(at(1100, 0, 0, Cause::Timer), Failure::LostInterrupt { armed: 900, seen: 1100 });
        fail(at(1002, 0, 0, Cause::Overflow), Failure::SkidBeyondMargin { skid: 102 });
        fail(at(1000, 0x500, 6, Cause::Other), Failure::OtherRcx { rcx: 6 });
        let delivering = Seen { delivering: true, ..at(1000, 0x500, 7, Cause::Other) };
        fail(delivering, Failure::Overshot { by: 0 });
        let near = [(at(950, 0, 0, Cause::Start), NEAR)];
        let past = (at(1001, 0, 0, Cause::Overflow), Action::Failed(Failure::Overshot { by: 1 }));
        script(TARGET, &[near[0], past]);
        let back = (at(949, 0, 0, Cause::Other), Action::Failed(Failure::WentBack { from: 950, to: 949 }));
        script(TARGET, &[near[0], back]);
    }

    #[test]
    fn counters_that_disagree_are_named() {
        let Key::Instructions { point, .. } = TARGET.key else { unreachable!() };
        let target = Target { key: Key::Instructions { point, branches: Some(3) }, ..TARGET };
        script(
            target,
            &[(at(1000, 0x500, 7, Cause::Start), Action::Failed(Failure::CountersDisagree { c: 0 }))],
        );
    }

    #[test]
    fn hazards_mean_stepping() {
        let lossy = Target { breakpoint: false, ..TARGET };
        script(lossy, &[(at(950, 0, 0, Cause::Start), Action::Step)]);
        // Out of a REP that a step has come into; not once an event is to be delivered out of it.
        script(
            lossy,
            &[
                (at(950, 0x30, 9, Cause::Start), Action::Step),
                (at(950, 0x30, 8, Cause::Step), Action::Iterate { iterations: u64::MAX }),
                (at(950, 0x30, 5, Cause::Other), Action::Iterate { iterations: u64::MAX }),
                (Seen { delivering: true, ..at(950, 0x30, 4, Cause::Other) }, Action::Step),
            ],
        );
        let taken = Seen { breakpoint_free: false, ..at(950, 0, 0, Cause::Start) };
        script(TARGET, &[(taken, Action::Step)]);
        // However near: the instruction before may be a REP of a million iterations.
        script(TARGET, &[(at(998, 0, 0, Cause::Start), NEAR)]);
        script(
            TARGET,
            &[
                (at(1000, 0x500, 9, Cause::Start), Action::Iterate { iterations: 2 }),
                (at(1000, 0x500, 8, Cause::Other), Action::Step),
            ],
        );
    }

    #[test]
    fn no_progress_ends() {
        let mut landing = Landing::new(TARGET, 100);
        let stuck = at(950, 0x10, 0, Cause::Other);
        for _ in 0..=QUIET_EXITS_MAX {
            assert_eq!(landing.next(&stuck), NEAR);
        }
        assert_eq!(landing.next(&stuck), Action::Failed(Failure::Stalled));
    }
}
