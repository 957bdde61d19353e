//! What exits of a KVM guest cost: loops of two lengths, and the difference by the time-stamp counter, which counts
//! instructions on the emulated machine.

use crate::{
    kvm::{insert_modules, load, to_the_end},
    report::Report,
    sys::{kvm::Machine, machine::time_stamp},
};

/// Rounds of the two runs whose difference is measured.
const ROUNDS: [u32; 2] = [1_000, 21_000];

/// A loop: what is measured, and its rounds in 16-bit code, `dec esi; jnz` behind it.
const LOOPS: [(&str, &[u8]); 3] = [
    // xor eax, eax; cpuid
    ("cpuid", &[0x66, 0x31, 0xc0, 0x0f, 0xa2]),
    // out 10h, al: nothing of KVM's own is there, so it goes to user space
    ("out", &[0xe6, 0x10]),
    // rdtsc
    ("rdtsc", &[0x0f, 0x31]),
];

/// Prints `@@ kvm-cost reason=... per-round=...`: instructions of a round, the loop's own included.
pub fn run(report: &mut Report) {
    insert_modules();
    for (reason, round) in LOOPS {
        let ticks = ROUNDS.map(|rounds| least(round, rounds));
        let per_round = (ticks[1] - ticks[0]) as f64 / f64::from(ROUNDS[1] - ROUNDS[0]);
        println!("@@ kvm-cost reason={reason} per-round={per_round:.1}");
        report.within(&format!("cost:{reason}"), per_round as u64, 1, 100_000);
    }
}

/// The least time of some runs, each in a fresh virtual machine.
fn least(round: &[u8], rounds: u32) -> u64 {
    let back = -(round.len() as i8 + 4);
    // mov esi, rounds; 1: round; dec esi; jnz 1b; hlt
    let code = [&load(0xbe, rounds)[..], round, &[0x66, 0x4e, 0x75, back as u8, 0xf4]].concat();
    let run = || {
        let mut vm = Machine::new().expect("a virtual machine");
        vm.load(&code).expect("a program");
        let start = time_stamp();
        to_the_end(&mut vm);
        time_stamp() - start
    };
    (0..3).map(|_| run()).min().unwrap_or(0)
}
