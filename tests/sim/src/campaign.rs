//! Many seeds, on all processors.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

use crate::mutant::Mutant;
use crate::world::{Facts, Memory, run};

/// Seeds that a thread takes at a time.
const PORTION: u64 = 32;
/// Failures that are kept; after so many the campaign ends.
pub const FAILURES_MAX: usize = 10;

/// A seed that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The seed.
    pub seed: u64,
    /// What is wrong.
    pub what: String,
}

/// What a campaign has come to.
#[derive(Clone, Debug, Default)]
pub struct Total {
    /// Seeds that were run.
    pub seeds: u64,
    /// Failures, by seed.
    pub failed: Vec<Failed>,
    /// What happened, over all seeds.
    pub facts: Facts,
    /// Wall-clock time.
    pub time: Duration,
}

std::thread_local! {
    /// The seed that this thread runs.
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// A panic of the product's code is a failure as well: its seed is named, though the process may end with it.
fn name_the_seed_of_a_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if let Some(seed) = SEED.get() {
                eprintln!("cargo xtask sim --seed {seed} --story: a panic");
            }
            before(info);
        }));
    });
}

/// Runs the seeds from `first` on, `count` of them, on so many threads. `progress` is called by each thread after each portion,
/// with the number of seeds that are done; `found` with each failure, when it comes.
pub fn campaign(
    first: u64,
    count: u64,
    threads: usize,
    mutant: Option<Mutant>,
    progress: &(impl Fn(u64) + Sync),
    found: &(impl Fn(&Failed) + Sync),
) -> Total {
    name_the_seed_of_a_panic();
    let begun = Instant::now();
    let (next, done, enough) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let total = Mutex::new(Total::default());
    let work = || {
        let mut memory = Memory::new();
        loop {
            let from = next.fetch_add(PORTION, Ordering::Relaxed);
            if from >= count || enough.load(Ordering::Relaxed) {
                return;
            }
            let portion = PORTION.min(count - from);
            let mut own = Total { seeds: portion, ..Total::default() };
            for seed in (from..from + portion).map(|index| first.wrapping_add(index)) {
                SEED.set(Some(seed));
                match run(&mut memory, seed, mutant) {
                    Ok(facts) => own.facts.add(&facts),
                    Err(what) => {
                        let failed = Failed { seed, what };
                        found(&failed);
                        own.failed.push(failed);
                    }
                }
            }
            let mut total = total.lock().expect("no thread panics with it");
            total.seeds += own.seeds;
            total.facts.add(&own.facts);
            total.failed.append(&mut own.failed);
            enough.fetch_or(total.failed.len() >= FAILURES_MAX, Ordering::Relaxed);
            drop(total);
            progress(done.fetch_add(portion, Ordering::Relaxed) + portion);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
    });
    let mut total = total.into_inner().expect("no thread panics with it");
    total.failed.sort_by_key(|failed| failed.seed);
    total.failed.truncate(FAILURES_MAX);
    total.time = begun.elapsed();
    total
}
