//! Which numbers do RDRAND and RDSEED give?
//!
//! The host compares runs with equal and with different seeds.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![deny(unsafe_code)]

use guests::{Report, cpu, println};

guests::program!(run);

fn run(report: &mut Report) {
    report.holds("rdrand-reported", cpu::cpuid(1, 0)[2] & 1 << 30 != 0);
    report.holds("rdseed-reported", cpu::cpuid(7, 0)[1] & 1 << 18 != 0);
    let mut seen = [0; 64];
    for n in 0..32 {
        let (random, seed) = (cpu::rdrand(), cpu::rdseed());
        report.holds(format_args!("carry:{n}"), random.is_some() && seed.is_some());
        seen[2 * n] = random.unwrap_or(0);
        seen[2 * n + 1] = seed.unwrap_or(0);
        println!("@@ number n={n} rdrand={:#018x} rdseed={:#018x}", seen[2 * n], seen[2 * n + 1]);
    }
    let repeats = (0..64).filter(|&n| seen[..n].contains(&seen[n])).count() as u64;
    report.equal("repeats", repeats, 0);
    // 4096 fair bits: far from half would be a broken generator.
    let ones = seen.iter().map(|value| u64::from(value.count_ones())).sum();
    report.within("one-bits", ones, 1900, 2200);
}
