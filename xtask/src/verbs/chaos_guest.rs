//! `cargo xtask chaos-guest`: a guest that does what no guest should, and a hypervisor that must live on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::Serialize;
use vm_config::Memory;

use crate::emulator::Running;
use crate::setup::{self, Purpose};
use crate::vm::host::{Console, Host};
use crate::vm::{Description, DiskSource, Start};
use crate::{emulator, guests, ui};

/// Let a hostile guest loose on the hypervisor, by seed.
///
/// The guest (tests/guests, chaos_guest) issues random port, memory and MSR accesses, control, debug and extended control
/// registers, broken descriptor tables, broken virtio rings, code that changes itself, storms of interrupts, random bytes in
/// long, protected and real mode, and resets itself in every way a PC has. An episode is a function of the seed and its
/// number. Meanwhile somebody types on Lockstep's console: its shell must answer. Good ends are a guest that goes on to
/// its last episode, or a stop whose reason the hypervisor names; then the next episodes get a fresh machine.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask chaos-guest
  cargo xtask chaos-guest --seed 7 --runs 10 --json
  cargo xtask chaos-guest --seed 7 --from 132 --episodes 133    (one episode, by itself)
  cargo xtask chaos-guest --theme rings")]
pub struct Args {
    /// The first run's seed; the next ones follow
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Runs, each with a seed of its own
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    /// The first episode of each run
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// The last episode of each run is the one before this
    #[arg(long, default_value_t = 200)]
    episodes: u64,
    /// Only episodes of this kind: ports, memory, msrs, registers, tables, exits, smc, bytes, storm, rings, modes, mixed
    #[arg(long)]
    theme: Option<String>,
    /// Reset the guest when it has not begun an episode for so many seconds of wall-clock time
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    patience: u64,
    /// Give a machine up after so many seconds of wall-clock time
    #[arg(long, default_value_t = 1800, value_name = "SECONDS")]
    limit: u64,
    /// Use this build of Lockstep instead of building it
    #[arg(long, value_name = "FILE")]
    hypervisor: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// One run of the campaign.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Name of the run's directory.
    pub name: String,
    /// The hypervisor.
    pub kernel: PathBuf,
    /// The seed.
    pub seed: u64,
    /// The first episode, and the one behind the last.
    pub episodes: std::ops::Range<u64>,
    /// Only episodes of this kind.
    pub theme: Option<String>,
    /// How long the guest may be without a new episode, wall-clock time.
    pub patience: Duration,
    /// How long a machine may run, wall-clock time.
    pub limit: Duration,
}

/// What came of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Found {
    /// The seed.
    pub seed: u64,
    /// Episodes begun.
    pub episodes: u64,
    /// Emulated machines used.
    pub machines: u64,
    /// Resets of the guest: its own, by triple faults or on purpose.
    pub resets: u64,
    /// Resets by the operator, because the guest hung.
    pub operator_resets: u64,
    /// Answers of the hypervisor's shell, and the slowest, milliseconds of wall-clock time.
    pub answers: u64,
    /// See `answers`.
    pub slowest_answer_ms: u64,
    /// Reasons for which the guest was stopped.
    pub stops: BTreeMap<String, u64>,
    /// What the hypervisor did that it must not do.
    pub failure: Option<String>,
    /// The command that repeats it.
    pub repeat: Option<String>,
}

/// Reasons that say that the hypervisor, not the guest, is at fault.
const OUR_FAULTS: [&str; 5] =
    ["entry-refused", "ept-misconfiguration", "machine-check", "no-entry", "time-up"];
/// The shell must have answered by then, wall-clock time: the emulator may share its processor with much else.
const ANSWER: Duration = Duration::from_secs(60);
/// From one question to the shell to the next.
const QUESTIONS: Duration = Duration::from_millis(400);
/// The escape key.
const ESCAPE: &str = "\u{1d}";

/// Runs the verb.
///
/// # Errors
/// When something is missing that kept the campaign from running; what it found is the exit status.
pub fn run(args: Args) -> Result<ExitCode> {
    setup::ensure(Purpose::Demo, false)?;
    emulator::binary()?;
    let kernel = args.hypervisor.clone().map_or_else(super::build::kernel, Ok)?;
    let mut all = Vec::new();
    for seed in (args.seed..).take(usize::try_from(args.runs)?) {
        let step = (!args.json).then(|| ui::step(format!("seed {seed}")));
        let found = campaign(&Plan {
            name: format!("chaos-guest-{seed}"),
            kernel: kernel.clone(),
            seed,
            episodes: args.from..args.episodes,
            theme: args.theme.clone(),
            patience: Duration::from_secs(args.patience),
            limit: Duration::from_secs(args.limit),
        })?;
        match (step, &found.failure) {
            (Some(step), None) => step.done_with(found.sentence()),
            (Some(step), Some(why)) => step.failed(why),
            (None, _) => {}
        }
        if let (false, Some(repeat)) = (args.json, &found.repeat) {
            ui::say(format!("To repeat it: {repeat}"));
        }
        all.push(found);
    }
    let failed = all.iter().filter(|found| found.failure.is_some()).count();
    if args.json {
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        let episodes: u64 = all.iter().map(|found| found.episodes).sum();
        ui::say(format!("{} runs, {episodes} episodes, {failed} runs failed.", all.len()));
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Found {
    fn sentence(&self) -> String {
        let stops: Vec<String> = self.stops.iter().map(|(why, count)| format!("{why} {count}")).collect();
        format!(
            "{} episodes, {} machines, {} resets, {} by the operator; the shell answered {} times, in {} ms at most; \
             stops: {}",
            self.episodes,
            self.machines,
            self.resets,
            self.operator_resets,
            self.answers,
            self.slowest_answer_ms,
            stops.join(", ")
        )
    }
}

/// Runs one seed to its last episode, on as many machines as it takes.
///
/// # Errors
/// When a machine cannot be started; what the hypervisor did wrong is in [`Found::failure`].
pub fn campaign(plan: &Plan) -> Result<Found> {
    let guest = guests::build("chaos_guest")?;
    let mut found = Found { seed: plan.seed, ..Found::default() };
    let mut next = plan.episodes.start;
    while next < plan.episodes.end && found.failure.is_none() {
        let first = next;
        let mut life = Life::start(plan, &guest, first)?;
        let ended = life.watch(plan, &mut found);
        found.machines += 1;
        life.episode = newest_episode(life.running.console());
        let (seen, resets, dir) = (life.episode, life.resets(), life.directory.clone());
        found.resets += resets;
        life.end()?;
        // At least one, or a guest that does not even start would be tried for ever.
        next = seen.map_or(first, |episode| episode + 1).max(first + u64::from(seen.is_some()));
        found.episodes += next - first;
        let failure = match ended? {
            End::Done => None,
            End::Stopped(why) => {
                *found.stops.entry(why.clone()).or_default() += 1;
                OUR_FAULTS.contains(&why.as_str()).then(|| format!("the guest was stopped: {why}"))
            }
            End::Failure(why) => Some(why),
        };
        let failure = failure.or_else(|| seen.is_none().then(|| "the guest began no episode".into()));
        if let Some(why) = failure {
            let theme = plan.theme.as_ref().map(|name| format!(" --theme {name}")).unwrap_or_default();
            // The episodes since the last start of the guest, which is where the machine's state begins.
            let end = next.max(first + 1);
            found.repeat = Some(format!(
                "cargo xtask chaos-guest --seed {} --runs 1 --from {first} --episodes {end}{theme}",
                plan.seed
            ));
            found.failure = Some(format!("{why} (episode {}; files in {})", end - 1, dir.display()));
        }
    }
    Ok(found)
}

/// How a machine's life ended.
enum End {
    /// All episodes are through.
    Done,
    /// The hypervisor has stopped the guest for this reason.
    Stopped(String),
    /// What must not be.
    Failure(String),
}

/// One machine with the guest on it.
struct Life {
    running: Running,
    directory: PathBuf,
    /// The newest episode that has begun.
    episode: Option<u64>,
    since: Instant,
}

impl Life {
    fn start(plan: &Plan, guest: &std::path::Path, from: u64) -> Result<Self> {
        let theme = plan.theme.as_ref().map(|name| format!(" theme={name}")).unwrap_or_default();
        let words = format!("seed={} from={from} episodes={}{theme}", plan.seed, plan.episodes.end);
        let start = Start::Kernel { kernel: guest.into(), initrd: None, command_line: words };
        let description = Description {
            memory: Memory { bytes: 32 << 20 },
            disks: vec![DiskSource::Blank(Memory { bytes: 1 << 20 })],
            networks: 1,
            virtio_console: true,
            seed: plan.seed,
            ..Description::new("hostile", start)
        };
        let host = Host::new(&plan.name, plan.kernel.clone());
        let host = Host {
            words: "exit-port=0xf4 after=shell proof=off".into(),
            console: Console::Typed,
            limit: plan.limit,
            ..host
        };
        let machine = host.machine(&description.vm()?)?;
        let running = machine.start()?;
        let directory = crate::paths::out_dir()?.join("run").join(&plan.name);
        Ok(Life { running, directory, episode: None, since: Instant::now() })
    }

    fn end(self) -> Result<()> {
        self.running.kill().map(drop)
    }

    /// Waits until the console satisfies `wanted`, or until `until`. False: the machine has ended.
    fn wait(&mut self, until: Instant, wanted: impl Fn(&str) -> bool) -> Result<bool> {
        self.running.watch(|text| Instant::now() >= until || wanted(text) || verdict(text).is_some())
    }

    fn watch(&mut self, plan: &Plan, found: &mut Found) -> Result<End> {
        let give_up = self.since + plan.limit;
        if !self.wait(give_up, |text| text.contains("@@ vm event=started"))? {
            return Ok(End::Failure("the machine ended before the guest started".into()));
        }
        let mut progress = Instant::now();
        loop {
            if !self.wait(Instant::now() + QUESTIONS, |_| false)? {
                return Ok(End::Failure("the machine ended by itself".into()));
            }
            if let Some(end) = verdict(self.running.console()) {
                return Ok(end);
            }
            if Instant::now() > give_up {
                return Ok(End::Failure("the time limit ran out".into()));
            }
            let newest = newest_episode(self.running.console());
            let (moved, hangs) = (newest != self.episode, progress.elapsed() > plan.patience);
            self.episode = newest;
            if moved {
                progress = Instant::now();
            }
            if let Err(why) = self.ask(hangs && !moved, found) {
                return Ok(verdict(self.running.console()).unwrap_or(End::Failure(format!("{why:#}"))));
            }
            self.episode = newest_episode(self.running.console());
            if hangs && !moved {
                progress = Instant::now();
            }
        }
    }

    /// Asks the hypervisor's shell for the guest's state, and has it reset the guest on wish.
    fn ask(&mut self, reset: bool, found: &mut Found) -> Result<()> {
        let since = Instant::now();
        self.type_and_wait(ESCAPE, "[hypervisor; attach")?;
        self.type_and_wait("vm\r", "nothing answered")?;
        found.answers += 1;
        found.slowest_answer_ms = found.slowest_answer_ms.max(since.elapsed().as_millis() as u64);
        if reset {
            // For the person who wants to know where it hangs: the newest exits, on the console.
            self.type_and_wait("exits\r", "\nall ")?;
            self.type_and_wait("events 12\r", "> ")?;
            self.type_and_wait("vm reset\r", "@@ vm event=reset")?;
            found.operator_resets += 1;
        }
        self.type_and_wait(ESCAPE, "[guest; ")
    }

    fn type_and_wait(&mut self, keys: &str, answer: &str) -> Result<()> {
        let from = self.running.console().len();
        let until = Instant::now() + ANSWER;
        self.running.send(keys)?;
        let new = |text: &str| text.get(from..).is_some_and(|new| new.contains(answer));
        if !self.wait(until, new)? {
            bail!("the machine ended by itself");
        }
        if new(self.running.console()) {
            return Ok(());
        }
        bail!("the hypervisor's shell did not answer {keys:?} by {answer:?} in {} s", ANSWER.as_secs())
    }

    /// Resets of the guest so far, without the operator's.
    fn resets(&self) -> u64 {
        self.running.console().matches("@@ vm event=reset").count() as u64
    }
}

/// What the console says about the end, if it does.
fn verdict(console: &str) -> Option<End> {
    let line = |mark: &str| console.lines().map(str::trim).find(|line| line.starts_with(mark));
    if let Some(panic) = line("@@ panic cpu=").or_else(|| line("@@ panic-in-panic")) {
        return Some(End::Failure(format!("the hypervisor panicked: {panic}")));
    }
    let stopped = line("@@ vm event=stopped")?;
    let reason = stopped.split_whitespace().find_map(|word| word.strip_prefix("reason="))?;
    let done = reason == "power-off" && console.contains("@@ wild done");
    Some(if done { End::Done } else { End::Stopped(reason.into()) })
}

/// The number of the newest episode.
fn newest_episode(console: &str) -> Option<u64> {
    console.rmatches("@@ wild e=").next()?;
    let lines = console.lines().filter_map(|line| line.split_once("@@ wild e="));
    lines.filter_map(|(_, rest)| rest.split_whitespace().next()?.parse().ok()).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_console_tells_the_end() {
        let end = |text| verdict(text);
        assert!(end("@@ wild e=3 theme=ports\n").is_none());
        let stop = "@@ wild e=3\n@@ vm event=stopped name=hostile reason=task-switch x=1\n";
        assert!(matches!(end(stop), Some(End::Stopped(why)) if why == "task-switch"));
        let done = "@@ wild done seed=1\n@@ vm event=stopped name=hostile reason=power-off x=1\n";
        assert!(matches!(end(done), Some(End::Done)));
        let early = "@@ vm event=stopped name=hostile reason=power-off x=1\n";
        assert!(matches!(end(early), Some(End::Stopped(_))));
        assert!(matches!(end("@@ panic cpu=0 cause=panic\n"), Some(End::Failure(_))));
    }

    #[test]
    fn garbage_between_the_lines_does_not_hide_an_episode() {
        assert_eq!(newest_episode("x"), None);
        assert_eq!(newest_episode("@@ wild e=1 theme=a\nxx\u{7}@@ wild e=12 theme=b\n@@ wild e=1"), Some(12));
    }
}
