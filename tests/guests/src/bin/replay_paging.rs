//! Does a guest that can see what the processor has cached of its page tables see the same again?
//!
//! Words: see `guests::diverge`; part=relax|bits|fork|reclaim|delivery|large|writes|stepped|recycle. Where nothing of what is cached shows (strict mode), `spurious` and
//! `stale` are 0.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![deny(unsafe_code)]

use guests::diverge::{self, Part};
use guests::{Report, println};

guests::program!(run);

fn run(report: &mut Report) {
    use diverge::paging::{bits, fork, reclaim, relax, seen};
    use diverge::recycle::{recycle, stepped_writes, writes};
    use diverge::walks::{delivery, large};
    let parts: [Part; 9] = [
        ("relax", relax),
        ("bits", bits),
        ("fork", fork),
        ("reclaim", reclaim),
        ("delivery", delivery),
        ("large", large),
        ("writes", writes),
        ("stepped", stepped_writes),
        ("recycle", recycle),
    ];
    diverge::run(report, "replay_paging", &parts);
    let (spurious, stale) = seen();
    println!("@@ cached spurious={spurious} stale={stale}");
}
