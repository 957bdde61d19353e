//! A slice of the replay campaign: `cargo xtask replay-campaign` runs as much of it as one likes.

use std::sync::Mutex;

use machine_tests::{LIMIT, kernel};
use xtask::replaying::campaign::Campaign;
use xtask::replaying::guests;

/// Changing it gives other runs.
const SEED: u64 = 1;

/// Runs of the campaign with guests whose names contain this.
fn runs(selection: &str, runs: std::ops::Range<u64>) {
    let campaign = Campaign {
        seed: SEED,
        runs: runs.clone(),
        guests: guests::all().into_iter().filter(|guest| guest.name.contains(selection)).collect(),
        kernel: kernel(),
        jobs: 1,
        limit: LIMIT,
        keep: false,
        selection: selection.into(),
        interrupts: None,
    };
    let told = Mutex::new(String::new());
    let done = campaign.run(|done| {
        if let (Some(why), Some(repeat)) = (&done.failure, &done.repeat) {
            *told.lock().unwrap() += &format!("run {}: {why}\nTo repeat it: {repeat}\n", done.plan.run);
        }
    });
    let done = done.unwrap_or_else(|error| panic!("{error:#}"));
    let told = told.into_inner().unwrap();
    assert!(told.is_empty(), "{told}");
    assert_eq!(done.len() as u64, runs.end - runs.start);
    assert!(done.iter().all(|done| done.equal == done.plan.replays.len() && done.entries > 0));
    assert!(done.iter().any(|done| done.landings > 0), "nothing was landed on");
}

// The runs are chosen for their conditions: each has one replay on a host that differs in everything from the one that recorded.

#[test]
fn guests_that_try_to_diverge_do_not() {
    runs("", 3..4);
    runs("", 14..15);
}

#[test]
fn a_linux_does_not_diverge() {
    runs("linux-boot", 14..15);
}
