//! Does an overflow interrupt once, where it should, and leave the status that it should?
//!
//! `skid=MIN:MAX` on the command line: instructions by which the PMI may come late (default 0:0).
#![cfg_attr(target_os = "none", no_std, no_main)]
#![deny(unsafe_code)]

use guests::{
    Report, apic, boot,
    code::{self, Piece},
    cpu, exit,
    pmu::{self, Counter, Delivery, Event, Overflow, Rings, Shape},
    println,
};

guests::program!(run);

/// Instructions that may retire late, inclusive.
#[derive(Clone, Copy)]
struct Skid {
    min: u64,
    max: u64,
}

fn run(report: &mut Report) {
    let text = boot::option("skid").unwrap_or("0:0");
    let number = |s: Option<&str>| s.and_then(boot::parse_number).unwrap_or(0);
    let mut parts = text.split(':');
    let skid = Skid { min: number(parts.next()), max: number(parts.next()) };
    let shape = pmu::shape();
    if shape.version < 2 || shape.fixed == 0 {
        println!("@@ fact missing=counters");
        exit::exit(exit::Code::Refused);
    }
    apic::enable();
    cpu::interrupts_on();
    for delivery in [Delivery::Fixed, Delivery::Nmi] {
        for counter in [Counter::Fixed(0)].into_iter().chain((0..shape.general).map(Counter::General)) {
            lands(report, delivery, counter, skid);
        }
        masks_itself(report, delivery);
    }
    branch_overflow(report, skid);
    quiet_overflow(report);
    two_at_once(report, shape);
    held_back(report, skid);
    freeze(report, shape, skid);
    pmu::reset();
}

/// Programs one counter of instructions.
fn program(counter: Counter, event: Event, overflow: Overflow) {
    match counter {
        Counter::General(n) => pmu::program_general(n, event, Rings::Both, overflow),
        Counter::Fixed(n) => pmu::program_fixed(n, Rings::Both, overflow),
    }
}

/// A value `distance` below the overflow.
fn before_overflow(distance: u64) -> u64 {
    (1 << pmu::shape().general_bits) - distance
}

/// What counting an empty piece counts, on this counter.
fn overhead(counter: Counter, event: Event) -> u64 {
    pmu::reset();
    program(counter, event, Overflow::Quiet);
    pmu::count(code::empty().routine, counter.bit());
    counter.read()
}

/// Twenty overflows at distances of all sizes in a sled of NOPs: RIP and count agree and lie within the skid.
fn lands(report: &mut Report, delivery: Delivery, counter: Counter, skid: Skid) {
    let sled = code::sled();
    let start = sled.routine.address() as usize as u64;
    let (mut late_min, mut late_max, mut apart, mut missing) = (u64::MAX, 0, 0, 0);
    for round in 0..20 {
        let distance = 100 + round * 311;
        pmu::reset();
        program(counter, pmu::INSTRUCTIONS, Overflow::Interrupt);
        counter.write(before_overflow(distance));
        pmu::catch_pmi(delivery);
        pmu::count(sled.routine, counter.bit());
        if pmu::pmis() != 1 {
            missing += 1;
            continue;
        }
        // Past the overflow when the PMI came: what is counted less the routine that stops the counters.
        let late = counter.read().wrapping_sub(pmu::PMI_ROUTINE_INSTRUCTIONS);
        // One CALL lies between the start of counting and the sled; the WRMSR that starts may count itself.
        let by_rip = (pmu::pmi_rip() - start + 1).wrapping_sub(distance);
        apart += u64::from(by_rip.abs_diff(late) > 1);
        (late_min, late_max) = (late_min.min(late), late_max.max(late));
    }
    report.equal(format_args!("pmi-once-each:{delivery:?}:{counter:?}"), missing, 0);
    report.equal(format_args!("rip-and-count-agree:{delivery:?}:{counter:?}"), apart, 0);
    report.within(format_args!("earliest:{delivery:?}:{counter:?}"), late_min, skid.min, skid.max);
    report.within(format_args!("latest:{delivery:?}:{counter:?}"), late_max, skid.min, skid.max);
}

/// Delivery sets the mask bit; while it is set no PMI comes; GLOBAL_STATUS keeps the overflow until it is reset.
fn masks_itself(report: &mut Report, delivery: Delivery) {
    let counter = Counter::Fixed(0);
    let overflow = || {
        counter.write(before_overflow(500));
        pmu::count(code::sled().routine, counter.bit());
    };
    pmu::reset();
    program(counter, pmu::INSTRUCTIONS, Overflow::Interrupt);
    pmu::catch_pmi(delivery);
    report.holds(format_args!("unmasked-before:{delivery:?}"), !pmu::pmi_masked());
    overflow();
    report.equal(format_args!("first-overflow:{delivery:?}"), pmu::pmis(), 1);
    report.holds(format_args!("masked-after:{delivery:?}"), pmu::pmi_masked());
    let status = || cpu::rdmsr(pmu::GLOBAL_STATUS).expect("GLOBAL_STATUS");
    report.equal_hex(format_args!("status-after:{delivery:?}"), status(), counter.bit());
    overflow();
    report.equal(format_args!("masked-overflow-does-not-interrupt:{delivery:?}"), pmu::pmis(), 1);
    cpu::wrmsr(pmu::GLOBAL_STATUS_RESET, counter.bit()).expect("reset");
    report.equal_hex(format_args!("status-reset:{delivery:?}"), status(), 0);
    pmu::unmask_pmi(delivery);
    overflow();
    report.equal(format_args!("third-overflow:{delivery:?}"), pmu::pmis(), 2);
}

/// An overflow of the branch counter, in a loop of three instructions.
fn branch_overflow(report: &mut Report, skid: Skid) {
    let counter = Counter::General(0);
    for event in [pmu::BRANCHES, pmu::CONDITIONAL_01] {
        let piece = code::long_loop();
        let distance = 7000;
        let before = overhead(counter, event);
        pmu::reset();
        program(counter, event, Overflow::Interrupt);
        counter.write(before_overflow(distance));
        pmu::catch_pmi(Delivery::Fixed);
        pmu::count(piece.routine, counter.bit());
        let name = if event == pmu::BRANCHES { "branches" } else { "conditional" };
        report.equal(format_args!("pmi-of:{name}"), pmu::pmis(), 1);
        report.within(format_args!("late-of:{name}"), counter.read(), skid.min / 3, skid.max / 3 + 1);
        let rip = pmu::pmi_rip().wrapping_sub(piece.routine.address() as usize as u64);
        report.within(format_args!("in-the-loop:{name}"), rip, 5, 9);
        if (skid.min, skid.max) == (0, 0) {
            // Right behind the branch that overflowed: taken, so at the head of the loop.
            report.equal(format_args!("rip-behind-the-branch:{name}"), rip, 5);
        }
        report.within(format_args!("overhead-of:{name}"), before, 0, 2);
    }
}

/// Without the PMI bit an overflow sets the status and nothing else.
fn quiet_overflow(report: &mut Report) {
    for counter in [Counter::Fixed(0), Counter::General(0), Counter::General(3)] {
        pmu::reset();
        program(counter, pmu::INSTRUCTIONS, Overflow::Quiet);
        counter.write(before_overflow(1000));
        pmu::catch_pmi(Delivery::Fixed);
        pmu::count(code::sled().routine, counter.bit());
        report.equal(format_args!("quiet:{counter:?}"), pmu::pmis(), 0);
        let status = cpu::rdmsr(pmu::GLOBAL_STATUS).expect("GLOBAL_STATUS");
        report.equal_hex(format_args!("quiet-status:{counter:?}"), status, counter.bit());
        report.within(format_args!("quiet-wraps:{counter:?}"), counter.read(), 7192, 7200);
    }
}

/// Counters that overflow at one instruction: one PMI, every status bit.
fn two_at_once(report: &mut Report, shape: Shape) {
    pmu::reset();
    let counters = || [Counter::Fixed(0)].into_iter().chain((0..shape.general).map(Counter::General));
    for counter in counters() {
        program(counter, pmu::INSTRUCTIONS, Overflow::Interrupt);
        counter.write(before_overflow(2000));
    }
    let all = counters().fold(0, |bits, counter| bits | counter.bit());
    pmu::catch_pmi(Delivery::Fixed);
    pmu::count(code::sled().routine, all);
    report.equal("one-pmi-for-all", pmu::pmis(), 1);
    report.equal_hex("status-of-all", cpu::rdmsr(pmu::GLOBAL_STATUS).expect("GLOBAL_STATUS"), all);
}

/// A fixed-vector PMI waits for IF, an NMI does not.
fn held_back(report: &mut Report, skid: Skid) {
    let counter = Counter::Fixed(0);
    let piece: Piece = code::long_loop();
    for (delivery, want) in [(Delivery::Fixed, 0), (Delivery::Nmi, 1)] {
        pmu::reset();
        program(counter, pmu::INSTRUCTIONS, Overflow::Interrupt);
        counter.write(before_overflow(3000));
        pmu::catch_pmi(delivery);
        cpu::interrupts_off();
        pmu::count(piece.routine, counter.bit());
        report.equal(format_args!("pmis-with-if-clear:{delivery:?}"), pmu::pmis(), want);
        if delivery == Delivery::Fixed {
            report.within("counted-on", counter.read(), piece.instructions - 3000, piece.instructions - 2980);
        } else {
            let late = counter.read().wrapping_sub(pmu::PMI_ROUTINE_INSTRUCTIONS);
            report.within("nmi-with-if-clear", late, skid.min, skid.max);
        }
        cpu::interrupts_on();
        report.equal(format_args!("pmis-with-if-set:{delivery:?}"), pmu::pmis(), 1);
    }
}

/// FREEZE_PERFMON_ON_PMI: the PMI's own routine is not counted, and from version 4 on a status bit keeps the counters
/// still until it is reset.
fn freeze(report: &mut Report, shape: Shape, skid: Skid) {
    const FREEZE_ON_PMI: u64 = 1 << 12;
    const COUNTERS_FROZEN: u64 = 1 << 59;
    let counter = Counter::Fixed(0);
    pmu::reset();
    program(counter, pmu::INSTRUCTIONS, Overflow::Interrupt);
    counter.write(before_overflow(3000));
    pmu::catch_pmi(Delivery::Fixed);
    cpu::wrmsr(pmu::DEBUGCTL, FREEZE_ON_PMI).expect("DEBUGCTL");
    pmu::count(code::sled().routine, counter.bit());
    report.equal("freeze-pmi", pmu::pmis(), 1);
    report.within("frozen-at", counter.read(), 0, skid.max);
    let status = cpu::rdmsr(pmu::GLOBAL_STATUS).expect("GLOBAL_STATUS");
    let frozen = if shape.version >= 4 { COUNTERS_FROZEN } else { 0 };
    report.equal_hex("freeze-status", status, counter.bit() | frozen);
    cpu::wrmsr(pmu::DEBUGCTL, 0).expect("DEBUGCTL");
    if shape.version >= 4 {
        counter.write(0);
        pmu::count(code::sled().routine, counter.bit());
        report.equal("stands-still-while-frozen", counter.read(), 0);
        cpu::wrmsr(pmu::GLOBAL_STATUS_RESET, COUNTERS_FROZEN | counter.bit()).expect("reset");
    }
    counter.write(0);
    pmu::count(code::sled().routine, counter.bit());
    report.holds("counts-after-the-freeze", counter.read() >= code::SLED);
}
