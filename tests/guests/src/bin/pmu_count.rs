//! Do all counters count exactly what a known piece of code retires: instructions, branches, rings?
#![cfg_attr(target_os = "none", no_std, no_main)]
#![deny(unsafe_code)]

use guests::{
    Report,
    code::{self, Piece},
    cpu, exit,
    pmu::{self, Counter, Event, Overflow, Rings, Shape},
    println,
};

guests::program!(run);

fn run(report: &mut Report) {
    let shape = pmu::shape();
    require(shape);
    code::prepare();
    let pieces = || code::plain().into_iter().chain(code::far());
    for piece in
        pieces().chain([code::user_short(), code::user_long(), code::user_syscalls(), code::user_ints()])
    {
        instructions_on_every_counter(report, shape, &piece);
        branches(report, shape, &piece);
    }
    rings(report);
    cycles(report, shape);
    each_counter_alone(report, shape);
}

/// Ends the run where the counters that are asked about are missing.
fn require(shape: Shape) {
    if shape.version < 2 || shape.general < 4 || shape.fixed < 3 {
        println!("@@ fact missing=counters shape={}:{}:{}", shape.version, shape.general, shape.fixed);
        exit::exit(exit::Code::Refused);
    }
}

/// Runs `piece` and takes off what an empty piece counts.
fn net(counter: Counter, piece: &Piece, program: impl Fn(), mask: u64) -> u64 {
    program();
    pmu::count(code::empty().routine, mask);
    let overhead = counter.read();
    program();
    pmu::count(piece.routine, mask);
    counter.read().wrapping_sub(overhead)
}

fn instructions_on_every_counter(report: &mut Report, shape: Shape, piece: &Piece) {
    let all = shape.every_counter();
    let program = || {
        pmu::reset();
        for n in 0..shape.general {
            pmu::program_general(n, pmu::INSTRUCTIONS, Rings::Both, Overflow::Quiet);
        }
        pmu::program_fixed(0, Rings::Both, Overflow::Quiet);
    };
    let fixed = net(Counter::Fixed(0), piece, program, all);
    report.equal(format_args!("instructions:{}", piece.name), fixed, piece.instructions);
    let differing = (0..shape.general)
        .filter(|&n| net(Counter::General(n), piece, program, all) != piece.instructions)
        .count() as u64;
    report.equal(format_args!("instructions-differing-general:{}", piece.name), differing, 0);
}

fn branches(report: &mut Report, shape: Shape, piece: &Piece) {
    // Up to Comet Lake C4/01 are all conditional branches; from Ice Lake on the taken ones, and C4/11 are all.
    let taken_apart = counts_taken_apart();
    let conditional = if taken_apart { pmu::CONDITIONAL_11 } else { pmu::CONDITIONAL_01 };
    let mut check = |name: &str, event: Event, want: u64| {
        let n = shape.general - 1;
        let program = || {
            pmu::reset();
            pmu::program_general(n, event, Rings::Both, Overflow::Quiet);
        };
        let got = net(Counter::General(n), piece, program, Counter::General(n).bit());
        report.equal(format_args!("{name}:{}", piece.name), got, want);
    };
    check("branches", pmu::BRANCHES, piece.branches);
    if let Some(want) = piece.conditional {
        check("conditional", conditional, want);
        check("conditional-not-taken", pmu::CONDITIONAL_10, want - piece.taken);
        if taken_apart {
            check("conditional-taken", pmu::CONDITIONAL_01, piece.taken);
        }
    }
}

/// Does C4/01 count only taken branches? By family and model, as software has to know it.
fn counts_taken_apart() -> bool {
    let eax = cpu::cpuid(1, 0)[0];
    let model = eax >> 4 & 0xf | eax >> 12 & 0xf0;
    // Ice Lake client and server, Tiger Lake, Rocket Lake, Alder Lake, Raptor Lake, Sapphire and Emerald Rapids.
    [0x7d, 0x7e, 0x6a, 0x6c, 0x8c, 0x8d, 0xa7, 0x97, 0x9a, 0xb7, 0xba, 0xbf, 0x8f, 0xcf].contains(&model)
}

/// The ring filter: the loops in ring 3 differ by a known number; where the change itself counts is the processor's.
fn rings(report: &mut Report) {
    let measure = |piece: &Piece, rings| {
        let program = || {
            pmu::reset();
            pmu::program_general(1, pmu::INSTRUCTIONS, rings, Overflow::Quiet);
            pmu::program_fixed(0, rings, Overflow::Quiet);
        };
        let mask = Counter::General(1).bit() | Counter::Fixed(0).bit();
        let general = net(Counter::General(1), piece, program, mask);
        (general, net(Counter::Fixed(0), piece, program, mask))
    };
    let (short, long) = (code::user_short(), code::user_long());
    let body = |piece: &Piece| piece.instructions - code::USER_ENTER - code::USER_LEAVE - 2;
    let (user, user_fixed) = measure(&short, Rings::User);
    let (os, os_fixed) = measure(&short, Rings::Os);
    report.equal("general-and-fixed-agree-in-ring-3", user, user_fixed);
    report.equal("general-and-fixed-agree-in-ring-0", os, os_fixed);
    report.equal("rings-add-up", user + os, short.instructions);
    // INT and IRET may count on either side.
    report.within("ring-3-alone", user, body(&short), body(&short) + 2);
    let (user_long, _) = measure(&long, Rings::User);
    let (os_long, _) = measure(&long, Rings::Os);
    report.equal("ring-3-difference-of-two-loops", user_long - user, body(&long) - body(&short));
    report.equal("ring-0-difference-of-two-loops", os_long - os, 0);
    let (user_nops, _) = measure(&code::plain()[0], Rings::User);
    report.equal("ring-0-code-counted-as-ring-3", user_nops, 0);
}

/// Cycles: the general event and the fixed counter are the same clock.
fn cycles(report: &mut Report, shape: Shape) {
    pmu::reset();
    pmu::program_general(0, pmu::CYCLES, Rings::Both, Overflow::Quiet);
    pmu::program_general(1, pmu::REFERENCE_CYCLES, Rings::Both, Overflow::Quiet);
    for n in 0..3 {
        pmu::program_fixed(n, Rings::Both, Overflow::Quiet);
    }
    pmu::count(code::long_loop().routine, shape.every_counter());
    let read = |counter: Counter| counter.read();
    report.equal("cycles-general-and-fixed", read(Counter::General(0)), read(Counter::Fixed(1)));
    report.equal("reference-cycles-general-and-fixed", read(Counter::General(1)), read(Counter::Fixed(2)));
    // A superscalar processor retires a few instructions a cycle at most, the emulator one.
    let instructions = read(Counter::Fixed(0));
    report.within("cycles-per-instruction", read(Counter::Fixed(1)), instructions / 8, instructions * 8);
    report.holds("reference-cycles-run", read(Counter::Fixed(2)) > 0);
}

/// A counter counts only with its own bit of GLOBAL_CTRL.
fn each_counter_alone(report: &mut Report, shape: Shape) {
    let piece = code::plain()[1].routine;
    let counters = (0..shape.general).map(Counter::General).chain([Counter::Fixed(0)]);
    for alone in counters.clone() {
        pmu::reset();
        for n in 0..shape.general {
            pmu::program_general(n, pmu::INSTRUCTIONS, Rings::Both, Overflow::Quiet);
        }
        pmu::program_fixed(0, Rings::Both, Overflow::Quiet);
        pmu::count(piece, alone.bit());
        let others = counters.clone().filter(|&c| c != alone && c.read() != 0).count() as u64;
        report.holds(format_args!("counts-alone:{alone:?}"), alone.read() >= code::plain()[1].instructions);
        report.equal(format_args!("others-stand-still:{alone:?}"), others, 0);
    }
    pmu::reset();
}
