//! REP of every kind, in both directions, over pages that are not there.

use super::{Leaf, Operands, storm, tables, trail};
use crate::println;

/// RAX is the pattern, RCX the count, RSI and RDI the places; RDX 1: downwards. What RCX, RSI, RDI end with, and the flags in RBX.
macro_rules! string {
    ($name:ident, $code:literal) => {
        breakable!(
            $name,
            "test rdx, rdx",
            "jz 2f",
            "std",
            "2:",
            $code,
            "pushfq",
            "pop rbx",
            "and rbx, 0x8d5"
        );
    };
}

string!(rep_movsb, "rep movsb");
string!(rep_movsw, "rep movsw");
string!(rep_movsd, "rep movsd");
string!(rep_movsq, "rep movsq");
string!(rep_stosb, "rep stosb");
string!(rep_stosw, "rep stosw");
string!(rep_stosd, "rep stosd");
string!(rep_stosq, "rep stosq");
string!(rep_lodsb, "rep lodsb");
string!(rep_lodsw, "rep lodsw");
string!(rep_lodsd, "rep lodsd");
string!(rep_lodsq, "rep lodsq");
string!(repe_scasb, "repe scasb");
string!(repe_scasw, "repe scasw");
string!(repe_scasd, "repe scasd");
string!(repe_scasq, "repe scasq");
string!(repne_scasb, "repne scasb");
string!(repne_scasw, "repne scasw");
string!(repne_scasd, "repne scasd");
string!(repne_scasq, "repne scasq");
string!(repe_cmpsb, "repe cmpsb");
string!(repe_cmpsw, "repe cmpsw");
string!(repe_cmpsd, "repe cmpsd");
string!(repe_cmpsq, "repe cmpsq");
string!(repne_cmpsb, "repne cmpsb");
string!(repne_cmpsw, "repne cmpsw");
string!(repne_cmpsd, "repne cmpsd");
string!(repne_cmpsq, "repne cmpsq");

/// Each with the bytes of its element.
const ALL: [(Leaf, u64); 28] = [
    (rep_movsb, 1),
    (rep_movsw, 2),
    (rep_movsd, 4),
    (rep_movsq, 8),
    (rep_stosb, 1),
    (rep_stosw, 2),
    (rep_stosd, 4),
    (rep_stosq, 8),
    (rep_lodsb, 1),
    (rep_lodsw, 2),
    (rep_lodsd, 4),
    (rep_lodsq, 8),
    (repe_scasb, 1),
    (repe_scasw, 2),
    (repe_scasd, 4),
    (repe_scasq, 8),
    (repne_scasb, 1),
    (repne_scasw, 2),
    (repne_scasd, 4),
    (repne_scasq, 8),
    (repe_cmpsb, 1),
    (repe_cmpsw, 2),
    (repe_cmpsd, 4),
    (repe_cmpsq, 8),
    (repne_cmpsb, 1),
    (repne_cmpsw, 2),
    (repne_cmpsd, 4),
    (repne_cmpsq, 8),
];

/// Bytes of a single run.
const LENGTH: u64 = 0x2800;
/// Where strings come from and go to: numbers of pages.
const FROM: u64 = 16;
const TO: u64 = 300;

/// Fills the places so that comparisons come far: all words alike but for a few.
fn fill(round: u64) {
    for word in 0..LENGTH / 8 + 2 {
        for page in [FROM, TO] {
            tables::store(tables::page(page) + 8 * word, 0x0101_0101_0101_0101);
        }
    }
    let odd = tables::page(TO) + (LENGTH / 2 + 509 * round) % LENGTH / 8 * 8;
    tables::store(odd, 0x0101_0201_0101_0101);
}

fn string(leaf: Leaf, size: u64, round: u64, down: bool) -> u64 {
    fill(round);
    // Odd places, so that elements lie across the pages' ends.
    let (from, to) = (tables::page(FROM) + round % 7, tables::page(TO) + 3 * round % 8);
    let count = LENGTH / size - round % 5;
    let back = if down { size * (count - 1) } else { 0 };
    // SCAS with REPNE looks for what is not there but by chance.
    let pattern = if round.is_multiple_of(2) { 0x0101_0101_0101_0101 } else { 0x4242_4242_4242_4242 };
    let mut io: Operands = [pattern, 0, count, down.into(), from + back, to + back, 0, 0, 0, 0];
    leaf(io.as_mut_ptr());
    let result = io[..6].iter().fold(trail::SEED, |hash, &word| trail::mix(hash, word));
    trail::mix(result, tables::hash(tables::page(TO), LENGTH / 8 + 1))
}

fn all() -> u64 {
    let mut result = trail::SEED;
    for round in 0..super::rounds(6) {
        for (number, (leaf, size)) in (0..).zip(ALL) {
            for down in [false, true] {
                result = trail::mix(result, string(leaf, size, round * 5 + number, down));
            }
        }
    }
    result
}

/// With all pages there.
pub fn plain() -> u64 {
    all()
}

/// With pages that go at an interrupt, a dozen at a time.
pub fn faulting() -> u64 {
    storm::set_hook(Some(|frame| (0..12).for_each(|_| tables::take_one_away(frame))));
    let result = all();
    storm::set_hook(None);
    result
}

/// Each with its iterations. The byte to look for is what was stored.
const LONG: [(Leaf, u64); 2] = [(rep_stosb, 250_000_000), (repe_scasb, 100_000_000)];

/// Strings so long that what comes from outside comes in the midst of them, however long it waits for their end. No time passes for
/// the guest in one of them, so its own timer does not interrupt it.
pub fn long() -> u64 {
    let at = tables::gigabyte(tables::current());
    let mut result = trail::SEED;
    for (leaf, count) in LONG {
        println!("long: {count} iterations begin");
        let mut io: Operands = [0x5a, 0, count, 0, at, at, 0, 0, 0, 0];
        leaf(io.as_mut_ptr());
        result = io[..6].iter().fold(result, |hash, &word| trail::mix(hash, word));
    }
    result
}

/// Each with its iterations: together they take many times as long as a host waits for their ends.
const HEAVY: [(Leaf, u64); 5] = [
    (rep_stosb, 1 << 20),
    (rep_movsb, 300_000),
    (rep_stosq, 100_000),
    (repe_scasb, 200_000),
    (rep_movsq, 50_000),
];

/// Strings of a million iterations, one after the other with a handful of instructions between them: whatever comes, comes in one.
pub fn heavy() -> u64 {
    let at = tables::gigabyte(tables::current());
    let mut result = trail::SEED;
    for round in 0..super::rounds(40) {
        for (leaf, count) in HEAVY {
            let mut io: Operands = [0x5a, 0, count + round, 0, at + 7 * round, at + 0x10_0003, 0, 0, 0, 0];
            leaf(io.as_mut_ptr());
            result = io[..6].iter().fold(result, |hash, &word| trail::mix(hash, word));
        }
    }
    result
}

breakable!(outs, "rep outsb");
breakable!(ins, "mov rdi, rsi", "rep insb", "mov rsi, rdi");

/// REP OUTS and INS, whose every element exits, from and to pages that go.
pub fn ports() -> u64 {
    storm::set_hook(Some(|frame| (0..40).for_each(|_| tables::take_one_away(frame))));
    let mut result = trail::SEED;
    for round in 0..super::rounds(6) {
        fill(round);
        for leaf in [outs as Leaf, ins] {
            let from = tables::page(FROM) + 4096 - 100 - round;
            let mut io: Operands = [0, 0, 600, 0x80, from, 0, 0, 0, 0, 0];
            leaf(io.as_mut_ptr());
            result = io[..6].iter().fold(result, |hash, &word| trail::mix(hash, word));
        }
        result = trail::mix(result, tables::hash(tables::page(FROM), 1024));
    }
    storm::set_hook(None);
    result
}
