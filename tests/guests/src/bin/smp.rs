//! Has every processor its own counters and its own overflow interrupt, whatever the others do?
//!
//! For a machine of two processors (APIC IDs 0 and 1).
#![cfg_attr(target_os = "none", no_std, no_main)]
#![deny(unsafe_code)]

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use guests::{
    Report, apic, code, cpu,
    pmu::{self, Counter, Overflow, Rings},
    smp, traps,
};

guests::program!(run);

const COUNTER: Counter = Counter::Fixed(0);
const ROUNDS: u64 = 20;
const OTHER: usize = 1;

static OTHER_WRONG: AtomicU64 = AtomicU64::new(0);
static OTHER_DONE: AtomicU32 = AtomicU32::new(0);

fn run(report: &mut Report) {
    apic::enable();
    report.holds("other-processor-starts", smp::start(OTHER, 1));
    // Both at once: each exact, though they count different things.
    smp::run_on(OTHER, count_on_the_other);
    let (mut wrong, mut rounds) = (0, 0);
    while OTHER_DONE.load(Ordering::SeqCst) == 0 || rounds < ROUNDS {
        wrong += u64::from(net(&code::long_loop()) != code::long_loop().instructions);
        rounds += 1;
    }
    smp::wait(OTHER);
    report.equal("wrong-here", wrong, 0);
    report.equal("wrong-there", OTHER_WRONG.load(Ordering::SeqCst), 0);
    registers(report);
    overflow(report);
}

/// What a piece counts beyond an empty one, on this processor.
fn net(piece: &code::Piece) -> u64 {
    let one = |routine| {
        pmu::reset();
        pmu::program_fixed(0, Rings::Both, Overflow::Quiet);
        pmu::count(routine, COUNTER.bit());
        COUNTER.read()
    };
    let overhead = one(code::empty().routine);
    one(piece.routine) - overhead
}

fn count_on_the_other() {
    let pieces = code::plain();
    for round in 0..ROUNDS as usize {
        let piece = &pieces[round % pieces.len()];
        OTHER_WRONG.fetch_add(u64::from(net(piece) != piece.instructions), Ordering::SeqCst);
    }
    OTHER_DONE.store(1, Ordering::SeqCst);
}

/// What one processor writes the other does not see.
fn registers(report: &mut Report) {
    pmu::reset();
    COUNTER.write(1234);
    smp::run_on(OTHER, || {
        pmu::reset();
        OTHER_WRONG.store(COUNTER.read(), Ordering::SeqCst);
        COUNTER.write(4321);
    });
    smp::wait(OTHER);
    report.equal("value-there", OTHER_WRONG.load(Ordering::SeqCst), 0);
    report.equal("value-here", COUNTER.read(), 1234);
}

static PMI_HERE: AtomicU64 = AtomicU64::new(0);
static PMI_THERE: AtomicU64 = AtomicU64::new(0);

/// An overflow interrupts the processor on which it happens.
fn overflow(report: &mut Report) {
    traps::set_handler(
        pmu::PMI_VECTOR,
        Some(|_| {
            let here = if traps::cpu_number() == 0 { &PMI_HERE } else { &PMI_THERE };
            here.fetch_add(1, Ordering::SeqCst);
            apic::end_of_interrupt();
        }),
    );
    cpu::interrupts_on();
    smp::run_on(OTHER, || {
        cpu::interrupts_on();
        overflow_once();
        cpu::interrupts_off();
    });
    smp::wait(OTHER);
    let count = || (PMI_HERE.load(Ordering::SeqCst), PMI_THERE.load(Ordering::SeqCst));
    report.same("pmi-there", count(), (0, 1));
    overflow_once();
    report.same("pmi-here", count(), (1, 1));
    report.same("status-here", cpu::rdmsr(pmu::GLOBAL_STATUS), Ok(COUNTER.bit()));
    pmu::reset();
}

fn overflow_once() {
    pmu::reset();
    pmu::program_fixed(0, Rings::Both, Overflow::Interrupt);
    COUNTER.write((1 << pmu::shape().fixed_bits) - 5000);
    pmu::unmask_pmi(pmu::Delivery::Fixed);
    pmu::count(code::sled().routine, COUNTER.bit());
}
