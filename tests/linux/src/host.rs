//! Counting in Linux itself, as `perf stat` and `perf record` do.

use crate::{
    counter::{BRANCHES, CONDITIONAL, CYCLES, Counter, Group, INSTRUCTIONS, Sampler, Scope},
    report::Report,
    sys::code,
};

/// Runs of each loop.
const RUNS: usize = 10;
/// Rounds of the short and the long loop.
const SHORT: u32 = 300_000;
const LONG: u32 = 3_000_000;

/// All checks.
pub fn run(report: &mut Report) {
    loops(report);
    kernel_and_user(report);
    strings(report);
    samples(report);
}

/// Loops in user mode, counted as `perf stat` counts them, four counters at once. A long loop against a short one:
/// conditional branches to the last one; instructions and branches too, but for the IRET that takes each interrupt back
/// to user mode, which retires there. Both count it, so what they count too many is the same number.
fn loops(report: &mut Report) {
    let rounds = u64::from(LONG - SHORT);
    for (name, work, instructions, branches) in
        [("spin", code::spin as fn(u32), 2, 1), ("spin-not-taken", code::spin_not_taken, 5, 2)]
    {
        let mut group = Group::open([INSTRUCTIONS, CYCLES, BRANCHES, CONDITIONAL], Scope::User);
        let mut wrong = [0; 3];
        let mut most_returns = 0;
        for _ in 0..RUNS {
            let (short, long) = (group.count(|| work(SHORT)), group.count(|| work(LONG)));
            let more: Vec<i64> = long.iter().zip(short).map(|(long, short)| (long - short) as i64).collect();
            let excess = |n: usize, each: u64| more[n] - (each * rounds) as i64;
            let returns = excess(0, instructions);
            wrong[0] += u64::from(excess(3, branches) != 0);
            wrong[1] += u64::from(returns != excess(2, branches));
            wrong[2] += u64::from(more[1] < (rounds / 4) as i64 || more[1] > (20 * rounds) as i64);
            most_returns = most_returns.max(returns.unsigned_abs());
        }
        report.equal(&format!("wrong-conditional:{name}"), wrong[0], 0);
        report.equal(&format!("wrong-instructions-against-branches:{name}"), wrong[1], 0);
        report.equal(&format!("wrong-cycles:{name}"), wrong[2], 0);
        // A timer tick every four milliseconds.
        report.within(&format!("returns-from-interrupts:{name}"), most_returns, 0, 400);
    }
}

/// User and kernel add up; more system calls are more instructions in the kernel and as many more as before in user mode.
fn kernel_and_user(report: &mut Report) {
    let count = |scope, calls| Counter::open(INSTRUCTIONS, scope).count(|| code::system_calls(calls));
    let (user, kernel) = (count(Scope::User, 1000), count(Scope::Kernel, 1000));
    let both = count(Scope::Both, 1000);
    report.within("user-and-kernel-add-up", both, (user + kernel) * 9 / 10, (user + kernel) * 11 / 10);
    report.within("kernel-instructions-a-call", kernel / 1000, 20, 2000);
    let more = count(Scope::Kernel, 3000);
    report.within("kernel-grows-with-calls", (more - kernel) / 2000, 20, kernel / 1000 + 50);
}

/// A string instruction over untouched pages faults in its middle, and counts once whatever its length.
fn strings(report: &mut Report) {
    let mut counter = Counter::open(CONDITIONAL, Scope::User);
    let mut instructions = Counter::open(INSTRUCTIONS, Scope::User);
    let counts: Vec<(u64, u64)> = [1, 64]
        .into_iter()
        .map(|pages| {
            let fresh = || vec![0u8; pages * 4096 + (1 << 20)];
            let (mut one, mut two) = (fresh(), fresh());
            let conditional = counter.count(|| code::fill(&mut one[1 << 20..]));
            (conditional, instructions.count(|| code::fill(&mut two[1 << 20..])))
        })
        .collect();
    report.equal("string-conditional", counts[1].0, counts[0].0);
    // One IRET for each page fault may count.
    report.within("string-instructions", counts[1].1.abs_diff(counts[0].1), 0, 70);
}

/// Samples: one for each period, none lost, all of them at instructions of the loop.
fn samples(report: &mut Report) {
    const PERIOD: u64 = 50_000;
    let mut sampler = Sampler::open(INSTRUCTIONS, Scope::User, PERIOD);
    let (counted, collected) = sampler.sample(|| code::spin(LONG));
    println!(
        "@@ fact samples={} lost={} other={}",
        collected.addresses.len(),
        collected.lost,
        collected.other
    );
    report.equal("sampling-lost", collected.lost, 0);
    report.equal("sampling-throttled", collected.other, 0);
    report.within("sampling-counted", counted, 2 * u64::from(LONG), 2 * u64::from(LONG) + 10_000);
    report.equal("samples", collected.addresses.len() as u64, counted / PERIOD);
    let middle = collected.addresses.get(collected.addresses.len() / 2).copied().unwrap_or(0);
    let inside = collected.addresses.iter().filter(|address| address.abs_diff(middle) <= 8).count() as u64;
    // The first and the last may be around the loop.
    report.within("samples-in-the-loop", inside, counted / PERIOD - 2, counted / PERIOD);
}
