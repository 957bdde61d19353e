//! Where interrupts and faults came: a ring of the last ones, and a hash of all.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::registers;
use crate::println;
use crate::traps::Frame;

/// Entries of the ring.
pub const LENGTH: usize = 4096;
/// Words of an entry: RIP, RSP, RFLAGS, RCX, a hash of all registers, time stamp.
const WORDS: usize = 6;
/// A hash of nothing.
pub const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

static RING: [[AtomicU64; WORDS]; LENGTH] = [const { [const { AtomicU64::new(0) }; WORDS] }; LENGTH];
static COUNT: AtomicU64 = AtomicU64::new(0);
static HASH: AtomicU64 = AtomicU64::new(SEED);

/// Takes a word into a hash.
pub fn mix(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(31) ^ word >> 17
}

/// Notes what was interrupted at this time.
pub fn note(frame: &Frame, tsc: u64) {
    let entry = [frame.rip, frame.rsp, frame.rflags, frame.rcx, registers(frame), tsc];
    let place = &RING[COUNT.load(Relaxed) as usize % LENGTH];
    let mut hash = mix(HASH.load(Relaxed), frame.vector);
    for (word, value) in place.iter().zip(entry) {
        word.store(value, Relaxed);
        hash = mix(hash, value);
    }
    HASH.store(hash, Relaxed);
    COUNT.store(COUNT.load(Relaxed) + 1, Relaxed);
}

/// Takes something into the hash that depends on where interrupts came.
pub fn add(word: u64) {
    HASH.store(mix(HASH.load(Relaxed), word), Relaxed);
}

/// How many have come.
pub fn count() -> u64 {
    COUNT.load(Relaxed)
}

/// The hash of all.
pub fn hash() -> u64 {
    HASH.load(Relaxed)
}

/// Prints a hash of the whole ring, and its last entries.
pub fn print(last: u64) {
    let whole = RING.iter().flatten().fold(SEED, |hash, word| mix(hash, word.load(Relaxed)));
    println!("ring {whole:#018x}");
    let count = count();
    for number in count.saturating_sub(last)..count {
        let [rip, rsp, rflags, rcx, registers, tsc] =
            RING[number as usize % LENGTH].each_ref().map(|word| word.load(Relaxed));
        println!(
            "came {number} rip={rip:#x} rsp={rsp:#x} rflags={rflags:#x} rcx={rcx:#x} registers={registers:#x} tsc={tsc}"
        );
    }
}
