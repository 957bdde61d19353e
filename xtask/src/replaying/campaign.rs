//! The campaign: guests recorded and replayed under host conditions that a seed has chosen. A run is a function of the seed
//! and its number.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use vm_config::Paging;

use super::guests::Guest;
use super::{Kind, RecordOptions, Recording, ReplayOptions, Verdict, lines, record, replay, sidecar};
use crate::emulator::Knobs;
use crate::paths;
use crate::switch::rng::Rng;
use crate::vm::host::Host;
use crate::vm::outside::Outside;

/// Skids of the counters' overflow interrupt that a host may have: none, as in the field, more than in the field.
const SKIDS: [Option<(u64, u64)>; 4] = [None, Some((0, 3)), Some((5, 40)), Some((64, 128))];
/// Instructions per emulated second of a host that records: how long its timers are in instructions. A slower one does not get
/// through the storms of interrupts that some guests ask for.
const RATES: [u64; 4] = [100_000_000, 200_000_000, 400_000_000, 1_000_000_000];
/// The same of a host that replays, whose time is no matter.
const REPLAY_RATES: [u64; 4] = [20_000_000, 50_000_000, 300_000_000, 1_000_000_000];
/// Milliseconds of guest time between checkpoints.
const CHECKPOINTS: [u32; 3] = [100, 500, 2000];
/// The most replays of one recording.
const REPLAYS: u64 = 3;

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// The seed.
    pub seed: u64,
    /// The numbers of the runs.
    pub runs: std::ops::Range<u64>,
    /// The guests to choose from.
    pub guests: Vec<Guest>,
    /// The hypervisor.
    pub kernel: PathBuf,
    /// Machines at a time.
    pub jobs: usize,
    /// Wall-clock limit of each machine.
    pub limit: Duration,
    /// Keep the logs of runs that went well.
    pub keep: bool,
    /// How the guests were selected among all: their names contain this.
    pub selection: String,
    /// Not what the seed chooses, but one guest that is interrupted so many times.
    pub interrupts: Option<u64>,
}

/// The conditions of one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Conditions {
    /// Skid of the overflow interrupt, `MIN:MAX:SEED`.
    pub skid: Option<String>,
    /// Speculative walks and TLB evictions, `SEED:WALKS:EVICTIONS`.
    pub tlb: Option<String>,
    /// Seed of the kernel's own variations.
    pub variation: Option<u64>,
    /// Instructions per emulated second.
    pub ips: u64,
    /// Seed of the processor's random numbers.
    pub seed: u64,
}

/// One run, planned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Its number.
    pub run: u64,
    /// The guest.
    pub guest: &'static str,
    /// Its clock follows the host's; otherwise it counts the guest's instructions alone.
    pub follows_host: bool,
    /// Milliseconds of guest time between checkpoints.
    pub checkpoint: u32,
    /// The host that records.
    pub record: Conditions,
    /// The hosts that replay.
    pub replays: Vec<Conditions>,
}

/// One run, done.
#[derive(Clone, Debug, Serialize)]
pub struct Done {
    /// What was planned.
    pub plan: Plan,
    /// Bytes of the log.
    pub bytes: u64,
    /// Entries of the log.
    pub entries: u64,
    /// The guest's instructions.
    pub instructions: u64,
    /// Checkpoints that were compared, all replays together.
    pub checkpoints: u64,
    /// Landings, all replays together.
    pub landings: u64,
    /// Exits of these landings.
    pub landing_exits: u64,
    /// Replays that were equal in everything.
    pub equal: usize,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// What went wrong.
    pub failure: Option<String>,
    /// The command that repeats it.
    pub repeat: Option<String>,
}

impl Conditions {
    /// The conditions that this stream of chances gives.
    fn draw(rng: &mut Rng, rates: &[u64]) -> Self {
        let skid = pick(rng, &SKIDS).map(|(least, most)| format!("{least}:{most}:{}", rng.below(1 << 32)));
        // Rates per million instructions: from none at all to what no silicon does.
        let tlb = match rng.below(3) {
            0 => None,
            1 => Some(format!("{}:100:100", rng.below(1 << 32))),
            _ => Some(format!("{}:1000:1000", rng.below(1 << 32))),
        };
        let variation = (rng.below(4) != 0).then(|| 1 + rng.below(1 << 32));
        Conditions { skid, tlb, variation, ips: pick(rng, rates), seed: rng.below(1 << 32) }
    }

    fn host(&self, name: &str, campaign: &Campaign) -> Host {
        let knobs = Knobs {
            skid: self.skid.clone(),
            tlb: self.tlb.clone(),
            seed: Some(self.seed),
            ..Knobs::default()
        };
        Host { ips: self.ips, knobs, limit: campaign.limit, ..Host::new(name, campaign.kernel.clone()) }
    }

    /// The flags that make these conditions for `cargo xtask record` and `replay`.
    pub fn flags(&self) -> String {
        let mut flags = format!("--ips {} --seed {}", self.ips, self.seed);
        let mut add = |flag: &str, value: Option<String>| {
            if let Some(value) = value {
                flags += &format!(" {flag} {value}");
            }
        };
        add("--skid", self.skid.clone());
        add("--tlb", self.tlb.clone());
        add("--host-variation", self.variation.map(|seed| seed.to_string()));
        flags
    }
}

fn pick<T: Copy>(rng: &mut Rng, all: &[T]) -> T {
    all[usize::try_from(rng.below(all.len() as u64)).unwrap_or_default()]
}

impl Campaign {
    /// What the run of this number is.
    pub fn plan(&self, run: u64) -> Plan {
        if self.interrupts.is_some() {
            return self.plan_of_interrupts(run);
        }
        let mut rng = Rng::new(self.seed, &format!("replay run {run}"));
        let index = usize::try_from(rng.below(self.guests.len() as u64)).unwrap_or_default();
        let guest = self.guests.get(index).map(|guest| guest.name).unwrap_or_default();
        let follows_host = rng.below(4) != 0;
        let checkpoint = pick(&mut rng, &CHECKPOINTS);
        let record = Conditions::draw(&mut rng, &RATES);
        let replays = (0..=rng.below(REPLAYS)).map(|_| Conditions::draw(&mut rng, &REPLAY_RATES)).collect();
        Plan { run, guest, follows_host, checkpoint, record, replays }
    }

    /// A run with many interrupts: the replaying host is late with its overflow interrupts, and differs in all that may differ.
    fn plan_of_interrupts(&self, run: u64) -> Plan {
        let mut rng = Rng::new(self.seed, &format!("replay run {run} of many interrupts"));
        let ips = 1_000_000_000;
        let mut skid = |least: u64, most: u64| Some(format!("{least}:{most}:{}", rng.below(1 << 32)));
        let (near, far) = (skid(5, 40), skid(64, 128));
        let record = Conditions { skid: near, tlb: None, variation: None, ips, seed: rng.below(1 << 32) };
        let replay = Conditions {
            skid: far,
            // A TLB that forgets makes the emulator three times as slow.
            tlb: None,
            variation: Some(1 + rng.below(1 << 32)),
            ips,
            seed: rng.below(1 << 32),
        };
        let guest = self.guests.first().map(|guest| guest.name).unwrap_or_default();
        Plan { run, guest, follows_host: true, checkpoint: CHECKPOINTS[1], record, replays: vec![replay] }
    }

    /// Runs all of it, several at a time; `see` gets each run when it is done.
    ///
    /// # Errors
    /// When something is missing that kept a run from being made; what a run found is in it.
    pub fn run(&self, see: impl Fn(&Done) + Sync) -> Result<Vec<Done>> {
        ensure!(!self.guests.is_empty(), "there is no guest to choose");
        let next = AtomicU64::new(self.runs.start);
        let all = Mutex::new(Vec::new());
        let failed = Mutex::new(None);
        let work = || {
            loop {
                let run = next.fetch_add(1, Ordering::Relaxed);
                if run >= self.runs.end || failed.lock().is_ok_and(|failed| failed.is_some()) {
                    return;
                }
                match self.one(run) {
                    Ok(done) => {
                        see(&done);
                        all.lock().unwrap_or_else(|e| e.into_inner()).push(done);
                    }
                    Err(error) => *failed.lock().unwrap_or_else(|e| e.into_inner()) = Some(error),
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(work);
            }
        });
        if let Some(error) = failed.into_inner().unwrap_or_else(|e| e.into_inner()) {
            return Err(error);
        }
        let mut all = all.into_inner().unwrap_or_else(|e| e.into_inner());
        all.sort_by_key(|done| done.plan.run);
        Ok(all)
    }

    /// One run: a recording, and its replays.
    fn one(&self, run: u64) -> Result<Done> {
        let plan = self.plan(run);
        let since = Instant::now();
        // Another choice of guests is another campaign, and may run at the same time.
        let dash = if self.selection.is_empty() { "" } else { "-" };
        let name = format!("replay-campaign{dash}{}-{}-{run}", self.selection, self.seed);
        let log = paths::out_dir()?.join("campaign").join(format!("{name}.log"));
        std::fs::create_dir_all(log.parent().context("a log has a directory")?)?;
        let mut done = Done::new(plan);
        let found = self.found(&mut done, &name, &log);
        done.seconds = since.elapsed().as_secs_f64();
        if let Err(error) = found {
            done.failure = Some(format!("{error:#}"));
            done.repeat = Some(self.command(run));
        } else if !self.keep {
            let _ = std::fs::remove_file(&log);
            let _ = std::fs::remove_file(sidecar::path(&log));
        }
        Ok(done)
    }

    fn found(&self, done: &mut Done, name: &str, log: &std::path::Path) -> Result<()> {
        let plan = done.plan.clone();
        let guest = self.guests.iter().find(|guest| guest.name == plan.guest);
        let guest = guest.with_context(|| format!("no guest {}", plan.guest))?;
        let host = plan.record.host(&format!("{name}-record"), self);
        let host = Host { outside: guest.outside(plan.record.seed), ..host };
        let options = RecordOptions {
            paging: Some(Paging::Strict),
            checkpoint: Some(plan.checkpoint),
            variation: plan.record.variation,
            ..RecordOptions::new(host, log)
        };
        let recording = record(&guest.vm(plan.follows_host)?, &options).context("recording")?;
        recording.check().context("recording")?;
        done.bytes = recording.bytes;
        done.entries = recording.number("entries").unwrap_or_default();
        done.instructions = recording.number("instructions").unwrap_or_default();
        if let Some(wanted) = self.interrupts {
            ensure!(done.entries >= wanted, "only {} entries for {wanted} interrupts", done.entries);
        }
        for (number, conditions) in plan.replays.iter().enumerate() {
            let what = || {
                format!(
                    "replay {} of {}: cargo xtask replay {} {}",
                    number + 1,
                    plan.replays.len(),
                    log.display(),
                    conditions.flags()
                )
            };
            let host = conditions.host(&format!("{name}-replay{number}"), self);
            let host = Host { outside: Outside::Nothing, ..host };
            let options = ReplayOptions { variation: conditions.variation, ..ReplayOptions::new(host) };
            let verdict = replay(log, &options).with_context(what)?;
            done.checkpoints += verdict.checkpoints;
            done.landings += verdict.landings;
            done.landing_exits += verdict.landing_exits;
            same(&recording, &verdict).with_context(what)?;
            done.equal += 1;
        }
        Ok(())
    }

    fn command(&self, run: u64) -> String {
        let guest = match (self.interrupts, self.selection.as_str()) {
            (Some(interrupts), _) => format!(" --interrupts {interrupts}"),
            (None, "") => String::new(),
            (None, selection) => format!(" --guest {selection}"),
        };
        format!("cargo xtask replay-campaign --seed {} --from {run} --runs 1 --keep{guest}", self.seed)
    }
}

/// Nothing if the replay was equal to the recording in all that can be seen of both.
///
/// # Errors
/// What differs first.
pub fn same(recording: &Recording, verdict: &Verdict) -> Result<()> {
    let dir = verdict.outcome.dir.display();
    ensure!(verdict.kind == Kind::Equal, "{} (files in {dir})", verdict.sentence());
    let (recorded, replayed) = (&recording.outcome.console, &verdict.outcome.console);
    let fingerprint = lines::fingerprint(recorded).context("the recorded guest gave no fingerprint")?;
    ensure!(
        lines::fingerprint(replayed)
            .is_some_and(|own| lines::squeezed(&own) == lines::squeezed(&fingerprint)),
        "the fingerprints differ although the kernel says equal. Recorded:\n{fingerprint}Replayed:\n{}",
        lines::fingerprint(replayed).unwrap_or_default()
    );
    for key in ["instructions", "entries"] {
        let there = recording.number(key);
        let here = lines::last(replayed, "replay", "ended").and_then(|fields| fields.number(key));
        ensure!(there.is_none() || there == here, "{key}: {there:?} recorded, {here:?} replayed");
    }
    Ok(())
}

impl Done {
    fn new(plan: Plan) -> Self {
        Done {
            plan,
            bytes: 0,
            entries: 0,
            instructions: 0,
            checkpoints: 0,
            landings: 0,
            landing_exits: 0,
            equal: 0,
            seconds: 0.0,
            failure: None,
            repeat: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn campaign(seed: u64) -> Campaign {
        Campaign {
            seed,
            runs: 0..50,
            guests: super::super::guests::all(),
            kernel: "/kernel".into(),
            jobs: 1,
            limit: Duration::from_secs(1),
            keep: false,
            selection: String::new(),
            interrupts: None,
        }
    }

    #[test]
    fn many_interrupts_are_a_run_of_their_own() {
        let guests = vec![super::super::guests::Guest::interrupted(1000)];
        let long = Campaign { guests, interrupts: Some(1000), ..campaign(1) };
        let plan = long.plan(0);
        assert_eq!((plan.guest, plan.replays.len()), ("interrupts", 1));
        assert!(plan.replays[0].skid.as_ref().is_some_and(|skid| skid.starts_with("64:128:")));
        assert!(plan.replays[0].variation.is_some());
        assert_eq!((plan.clone(), true), (long.plan(0), plan != long.plan(1)));
        assert!(long.command(0).ends_with("--seed 1 --from 0 --runs 1 --keep --interrupts 1000"));
    }

    #[test]
    fn a_run_is_a_function_of_seed_and_number() {
        let (one, two) = (campaign(1), campaign(2));
        assert_eq!(one.plan(7), campaign(1).plan(7));
        assert_ne!(one.plan(7), one.plan(8));
        assert_ne!(one.plan(7), two.plan(7));
    }

    #[test]
    fn chances_reach_everything() {
        let plans: Vec<Plan> = (0..400).map(|run| campaign(3).plan(run)).collect();
        let sides = || plans.iter().flat_map(|plan| plan.replays.iter().chain([&plan.record]));
        for guest in super::super::guests::all() {
            assert!(plans.iter().any(|plan| plan.guest == guest.name), "{}", guest.name);
        }
        assert!(sides().any(|side| side.skid.is_none()) && sides().any(|side| side.tlb.is_none()));
        for skid in SKIDS.iter().flatten() {
            let begin = format!("{}:{}:", skid.0, skid.1);
            assert!(sides().any(|side| side.skid.as_ref().is_some_and(|text| text.starts_with(&begin))));
        }
        assert!((1..=REPLAYS as usize).all(|count| plans.iter().any(|plan| plan.replays.len() == count)));
        assert!(plans.iter().all(|plan| plan.record != plan.replays[0]), "the hosts must differ");
    }

    #[test]
    fn conditions_are_flags_that_the_verbs_take() {
        let conditions = Conditions {
            skid: Some("5:40:9".into()),
            tlb: Some("7:100:100".into()),
            variation: Some(3),
            ips: 50_000_000,
            seed: 4,
        };
        assert_eq!(
            conditions.flags(),
            "--ips 50000000 --seed 4 --skid 5:40:9 --tlb 7:100:100 --host-variation 3"
        );
    }
}
