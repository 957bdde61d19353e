//! Does a guest that can see what the processor has cached of its page tables see the same again?
//!
//! Words: see `guests::diverge`; part=relax|bits|fork|reclaim. Where nothing of what is cached shows (strict mode), `spurious` and
//! `stale` are 0.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![deny(unsafe_code)]

use guests::{Report, diverge, println};

guests::program!(run);

fn run(report: &mut Report) {
    use diverge::paging::{bits, fork, reclaim, relax, seen};
    diverge::run(
        report,
        "replay_paging",
        &[("relax", relax), ("bits", bits), ("fork", fork), ("reclaim", reclaim)],
    );
    let (spurious, stale) = seen();
    println!("@@ cached spurious={spurious} stale={stale}");
}
