//! Is everything that a program can see the same in two runs?
//!
//! It prints one hash of it and the TSC; the host runs it twice.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![deny(unsafe_code)]

use guests::{
    Report, apic, code, cpu,
    pmu::{self, Counter, Overflow, Rings},
    println, timers,
};

guests::program!(run);

/// Rounds of looking at everything.
const ROUNDS: u64 = 200;

/// FNV-1a over 64-bit words: enough to see a difference.
struct Hash(u64);

impl Hash {
    fn add(&mut self, word: u64) {
        for byte in word.to_le_bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}

fn run(report: &mut Report) {
    let mut hash = Hash(0xcbf2_9ce4_8422_2325);
    apic::enable();
    cpu::interrupts_on();
    let counter = Counter::Fixed(0);
    for round in 0..ROUNDS {
        hash.add(cpu::rdtsc());
        hash.add(cpu::rdrand().unwrap_or(round));
        hash.add(cpu::rdseed().unwrap_or(round));
        pmu::reset();
        pmu::program_fixed(0, Rings::Both, Overflow::Interrupt);
        counter.write((1 << pmu::shape().fixed_bits) - 100 - 37 * round);
        pmu::catch_pmi(pmu::Delivery::Fixed);
        pmu::count(code::sled().routine, counter.bit());
        hash.add(pmu::pmi_rip());
        hash.add(counter.read());
        if round % 50 == 0 {
            let ticks = timers::over_pit(1000);
            hash.add(ticks.tsc);
            hash.add(ticks.apic);
            println!("@@ fact round={round} hash={:#018x} tsc={}", hash.0, cpu::rdtsc());
        }
    }
    hash.add(timers::tsc_over_a_second());
    println!("@@ fact round={ROUNDS} hash={:#018x} tsc={}", hash.0, cpu::rdtsc());
    report.holds("ran", true);
}
