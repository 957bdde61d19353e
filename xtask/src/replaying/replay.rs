//! Replaying: a separate emulated host with the recorded virtual machine's kernel, configuration and files, and its log.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use vm_config::Medium;

use super::inspect::{self, Answer, PROMPT};
use super::lines::{self, Fields};
use super::logfile::{self, LogFile};
use super::points::{Plant, Restore, Until};
use super::progress::Progress;
use super::sidecar::Sidecar;
use crate::emulator::{Exit, Outcome};
use crate::vm::Vm;
use crate::vm::host::{Console, Host, Started};
use crate::vm::outside::Outside;
use crate::{paths, ui};

/// The name by which the kernel finds the log among its modules.
pub const LOG_MODULE: &str = "run.log";
/// How long the host may take to end, wall-clock time, when the kernel has said how the replay ended.
const FAREWELL: Duration = Duration::from_secs(30);
/// What is said of a flipped bit that no checkpoint has found.
const UNREAD: &str = "\nThe flipped bit made no difference: it was written over before anything read it, or flipped after the last checkpoint.";
/// Memory of the hypervisor and of the firmware, MiB, where a checkpoint is kept.
const OWN_MIB: u64 = 192;

/// How to replay.
#[derive(Clone, Debug)]
pub struct ReplayOptions {
    /// The emulated host. Its network is nothing, its `log` none.
    pub host: Host,
    /// Where files of the virtual machine are now, by name; the others are where the sidecar says.
    pub modules: Vec<(String, PathBuf)>,
    /// Where to stop.
    pub until: Option<Until>,
    /// Seed of what this host does differently than others would.
    pub variation: Option<u64>,
    /// A bit to flip.
    pub plant: Option<Plant>,
    /// A checkpoint to keep and to go back to.
    pub restore: Option<Restore>,
    /// Commands for Lockstep's shell when the replay has ended otherwise than equal.
    pub inspect: Vec<String>,
}

impl ReplayOptions {
    /// Replays all of a log on this host.
    pub fn new(host: Host) -> Self {
        ReplayOptions {
            host,
            modules: Vec::new(),
            until: None,
            variation: None,
            plant: None,
            restore: None,
            inspect: Vec::new(),
        }
    }

    /// The words that they are for the kernel.
    fn words(&self) -> String {
        let mut words = String::new();
        let mut add = |key: &str, value: &dyn std::fmt::Display| words += &format!(" {key}={value}");
        if let Some(until) = &self.until {
            add("until", until);
        }
        if let Some(seed) = &self.variation {
            add("variation", seed);
        }
        if let Some(plant) = &self.plant {
            add("plant", plant);
        }
        if let Some(restore) = &self.restore {
            add("restore", restore);
        }
        words
    }
}

/// What a replay has come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The log's end, and everything was equal.
    Equal,
    /// This execution is not the recorded one.
    Diverged,
    /// Where it was told to stop, or where a log that was cut ends.
    Stopped,
    /// The host did not come to a verdict, for this reason.
    Failed(String),
}

/// What the kernel says at the end of a replay, and its host.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// What it has come to.
    pub kind: Kind,
    /// The kernel's explanation.
    pub explanation: Vec<String>,
    /// What differs at a checkpoint, a sentence each.
    pub findings: Vec<String>,
    /// Whether the bit was flipped that was to be; none if the replay did not come so far.
    pub planted: Option<bool>,
    /// Entries that were applied.
    pub entries: u64,
    /// Checkpoints that were compared.
    pub checkpoints: u64,
    /// Synchronous exits.
    pub exits: u64,
    /// The guest's instructions.
    pub instructions: u64,
    /// The guest's clock, nanoseconds.
    pub virtual_ns: u64,
    /// The guest's time in HLT, which a replay skips, nanoseconds.
    pub idle_ns: u64,
    /// The host's time, nanoseconds.
    pub real_ns: u64,
    /// Landings on execution points.
    pub landings: u64,
    /// VM exits that they took.
    pub landing_exits: u64,
    /// The most that one took.
    pub landing_max: u64,
    /// What the shell answered.
    pub inspected: Vec<Answer>,
    /// How the host ended, and its console.
    #[serde(skip)]
    pub outcome: Outcome,
}

/// Replays a log.
///
/// # Errors
/// When the log or a file of the virtual machine cannot be used, or the host cannot be started; what the replay found is in the
/// verdict.
pub fn replay(log: &Path, options: &ReplayOptions) -> Result<Verdict> {
    Session::start(log, options)?.finish(|_, _| false)
}

/// A replay under way.
pub struct Session {
    /// The host.
    pub started: Started,
    inspect: Vec<String>,
    since: Instant,
}

impl Session {
    /// Starts the host.
    ///
    /// # Errors
    /// As [`replay`].
    pub fn start(log: &Path, options: &ReplayOptions) -> Result<Self> {
        let vm = machine_of(log, &options.modules, &options.host.name)?;
        let mut host = options.host.clone();
        host.words += &options.words();
        host.outside = Outside::Nothing;
        host.log = None;
        if !options.inspect.is_empty() {
            host.words = with_shell(&host.words);
            if host.console != Console::Person {
                host.console = Console::Typed;
            }
        }
        if options.restore.is_some() {
            host.memory_mib = host.memory_mib.or(Some(memory_with_a_copy(&vm)));
        }
        Ok(Session { started: host.start(&vm)?, inspect: options.inspect.clone(), since: Instant::now() })
    }

    /// Starts the host for a person at its console, who finds Lockstep's shell at the end.
    ///
    /// # Errors
    /// As [`replay`].
    pub fn start_for_a_person(log: &Path, options: &ReplayOptions) -> Result<Self> {
        let mut options = options.clone();
        options.host.words = with_shell(&options.host.words);
        options.host.console = Console::Person;
        Self::start(log, &options)
    }

    /// Waits until the replay has ended equal, or until the person leaves.
    ///
    /// # Errors
    /// When the machine cannot be watched.
    pub fn finish_at_desk(mut self, leaves: impl Fn() -> bool) -> Result<Verdict> {
        let mut progress = Progress::default();
        self.started.running.watch(|console| {
            progress.see(console, "replay");
            let ended = progress.ended.as_ref().and_then(|fields| fields.get("verdict"));
            leaves() || ended == Some("equal")
        })?;
        self.end(Vec::new())
    }

    /// Ends the host if it still runs.
    fn end(mut self, inspected: Vec<Answer>) -> Result<Verdict> {
        let outcome = match self.started.running.has_ended()? {
            true => self.started.wait()?.0,
            false => self.started.stop()?.0,
        };
        Ok(Verdict::of(outcome, inspected))
    }

    /// Waits until the kernel has given its verdict. `see` gets the progress again and again; when it says so, the host is ended.
    ///
    /// # Errors
    /// When the machine cannot be watched.
    pub fn finish(mut self, mut see: impl FnMut(&Progress, Duration) -> bool) -> Result<Verdict> {
        let mut progress = Progress::default();
        let mut left = false;
        let since = self.since;
        let ended = self.started.running.watch(|console| {
            progress.see(console, "replay");
            left = see(&progress, since.elapsed());
            left || progress.ended.is_some()
        })?;
        if !ended {
            let (outcome, _) = self.started.wait()?;
            return Ok(Verdict::of(outcome, Vec::new()));
        }
        let equal = progress.ended.as_ref().and_then(|fields| fields.get("verdict")) == Some("equal");
        let inspected =
            if left || equal { Vec::new() } else { inspect::ask(&mut self.started.running, &self.inspect)? };
        if self.inspect.is_empty() && !left {
            // The kernel ends the machine by itself.
            let until = Instant::now() + FAREWELL;
            self.started.running.watch(|_| Instant::now() >= until)?;
        }
        self.end(inspected)
    }
}

/// The virtual machine of a log: its configuration, its files as they were, and the log.
fn machine_of(log: &Path, modules: &[(String, PathBuf)], name: &str) -> Result<Vm> {
    let file = logfile::open(log)?;
    let sidecar = Sidecar::read(log)?;
    let vm = Vm::with_files(&file.config, |name| find(name, modules, sidecar.as_ref()))?;
    compare(&vm, &file)?;
    let Some(cut) = &file.cut else { return vm.with_file(LOG_MODULE, log) };
    ui::say(format!("{cut}. Its {} whole entries are replayed.", file.entries));
    let dir = paths::out_dir()?.join("vm").join(name);
    std::fs::create_dir_all(&dir)?;
    let sound = dir.join("sound.log");
    let length = usize::try_from(file.bytes)?;
    std::fs::write(&sound, std::fs::read(log)?.get(..length).unwrap_or_default())?;
    vm.with_file(LOG_MODULE, &sound)
}

/// Where a file of the virtual machine is.
fn find(name: &str, modules: &[(String, PathBuf)], sidecar: Option<&Sidecar>) -> Result<PathBuf> {
    if let Some((_, path)) = modules.iter().find(|(known, _)| known == name) {
        return Ok(path.clone());
    }
    match sidecar.and_then(|sidecar| sidecar.module(name)) {
        Some(module) => Ok(module.file.clone()),
        None => bail!(
            "nobody says where the file `{name}` of the recorded machine is: the log has no sidecar that names it; \
             say it by --module {name}=FILE"
        ),
    }
}

/// The files must have the contents that they had.
fn compare(vm: &Vm, log: &LogFile) -> Result<()> {
    for (name, path) in vm.files() {
        let recorded = log.modules.iter().find(|module| module.name == *name);
        let recorded = recorded.with_context(|| format!("the log knows no file `{name}`"))?;
        recorded.compare(path)?;
    }
    Ok(())
}

/// The words, with Lockstep's shell at the end instead of the host's.
fn with_shell(words: &str) -> String {
    let kept = words.split_whitespace().filter(|word| !word.starts_with("after="));
    kept.chain(["after=shell"]).collect::<Vec<_>>().join(" ")
}

/// Memory of a host that keeps a checkpoint, MiB: twice what the guest can change.
fn memory_with_a_copy(vm: &Vm) -> u32 {
    let disks = vm.config.disks.iter().map(|disk| match &disk.medium {
        Medium::Blank(bytes) => *bytes,
        Medium::Image(name) => {
            let file = vm.files().iter().find(|(known, _)| known == name);
            file.and_then(|(_, path)| path.metadata().ok()).map_or(0, |meta| meta.len())
        }
    });
    let bytes = vm.host_bytes() + vm.config.vm.memory.bytes + disks.sum::<u64>();
    u32::try_from((bytes.div_ceil(1 << 20) + OWN_MIB).next_multiple_of(64)).unwrap_or(u32::MAX)
}

impl Verdict {
    /// What a host's console and end say.
    pub fn of(outcome: Outcome, inspected: Vec<Answer>) -> Self {
        let ended = lines::last(&outcome.console, "replay", "ended");
        let number = |key| ended.as_ref().and_then(|fields| fields.number(key)).unwrap_or_default();
        let kind = match ended.as_ref().and_then(|fields| fields.get("verdict")) {
            Some("equal") => Kind::Equal,
            Some("diverged") => Kind::Diverged,
            Some("stopped") => Kind::Stopped,
            Some(other) => {
                Kind::Failed(format!("the kernel gave the verdict `{other}`, which this tool does not know"))
            }
            None => Kind::Failed(failure(&outcome)),
        };
        Verdict {
            kind,
            explanation: explanation(&outcome.console),
            findings: findings(&outcome.console),
            planted: lines::last(&outcome.console, "replay", "planted")
                .map(|fields| fields.get("done") == Some("true")),
            entries: number("entries"),
            checkpoints: number("checkpoints"),
            exits: number("exits"),
            instructions: number("instructions"),
            virtual_ns: number("virtual-ns"),
            idle_ns: number("idle-ns"),
            real_ns: number("real-ns"),
            landings: number("landings"),
            landing_exits: number("landing-exits"),
            landing_max: number("landing-max"),
            inspected,
            outcome,
        }
    }

    /// Nothing if the whole log was replayed and everything was equal.
    ///
    /// # Errors
    /// What the replay came to instead, with the kernel's explanation.
    pub fn check(&self) -> Result<()> {
        ensure!(self.kind == Kind::Equal, "{}\n{}", self.sentence(), self.outcome.last_words());
        Ok(())
    }

    /// What the replay has come to, for people.
    pub fn sentence(&self) -> String {
        let place = format!("entry {}, {} instructions", self.entries, self.instructions);
        let why = self.explanation.join("\n  ");
        match &self.kind {
            Kind::Equal => format!(
                "Equal: {} entries, {} checkpoints, {} instructions, {} synchronous exits.{}",
                self.entries,
                self.checkpoints,
                self.instructions,
                self.exits,
                if self.planted == Some(true) { UNREAD } else { "" }
            ),
            Kind::Diverged if why.is_empty() => format!("Diverged at {place}."),
            Kind::Diverged => format!("Diverged at {place}:\n  {why}"),
            Kind::Stopped if self.planted == Some(false) => {
                format!("Stopped at {place}: there is no such place to flip a bit in.")
            }
            Kind::Stopped => format!("Stopped at {place}, equal so far."),
            Kind::Failed(reason) => format!("No verdict: {reason}"),
        }
    }

    /// Exits of one landing, mean.
    pub fn exits_per_landing(&self) -> f64 {
        self.landing_exits as f64 / self.landings as f64
    }
}

/// What the kernel found to differ at a checkpoint.
fn findings(console: &str) -> Vec<String> {
    let all = lines::of(console, "replay").filter(|fields| fields.event() == "finding");
    all.filter_map(|fields| fields.get("what").map(String::from)).collect()
}

/// Why there is no verdict.
fn failure(outcome: &Outcome) -> String {
    match &outcome.exit {
        Exit::Reached | Exit::Killed => "it was ended from outside before it came to one.".into(),
        Exit::Success | Exit::PowerOff => "the host ended well, but has said nothing of a replay.".into(),
        other => other.sentence(),
    }
}

/// What the kernel says about a divergence: its lines from the first that speaks of one up to the verdict, and what it found to
/// differ.
fn explanation(console: &str) -> Vec<String> {
    let mut explanation: Vec<String> = Vec::new();
    let mut speaks = false;
    for line in console.lines().map(str::trim_end) {
        let program = line.split_once("@@ replay ").map(|(_, rest)| Fields::parse(rest));
        let said = match program.as_ref().map(|fields| (fields.event(), fields)) {
            Some(("ended", _)) => break,
            Some(("finding", fields)) => fields.get("what"),
            Some(("diverged", fields)) => fields.get("why"),
            Some(("checkpoint", fields)) if fields.get("equal") == Some("false") => {
                speaks = true;
                None
            }
            Some(_) => None,
            None => {
                speaks |= line.contains("replay: diverged") || line.contains("is not equal:");
                let by_shell = line.contains(PROMPT) || line.starts_with("[the guest has ended");
                Some(line).filter(|line| speaks && !by_shell && !line.contains("@@ "))
            }
        };
        speaks |= program.is_some() && said.is_some();
        let said = said.filter(|said| !said.is_empty());
        if let Some(said) = said.filter(|said| !explanation.iter().any(|known| known.contains(said))) {
            explanation.push(said.to_owned());
        }
    }
    explanation
}

/// Shows a replay's progress while it runs, if somebody may look; then its verdict.
///
/// # Errors
/// As [`replay`].
pub fn replay_with_progress(log: &Path, options: &ReplayOptions, quiet: bool) -> Result<Verdict> {
    if quiet {
        return replay(log, options);
    }
    let recorded = Sidecar::read(log)?.and_then(|sidecar| sidecar.result);
    let session = Session::start(log, options)?;
    let step = ui::step(format!("replay {}", log.display()));
    let mut begun = None;
    let verdict = session.finish(|progress, elapsed| {
        if progress.started || progress.number("entry").is_some() {
            let begin = *begun.get_or_insert(elapsed);
            step.detail(progress.of_replay(recorded.as_ref(), elapsed.saturating_sub(begin)));
        }
        false
    })?;
    match verdict.kind {
        Kind::Equal | Kind::Stopped => step.done(),
        Kind::Diverged => step.failed("diverged"),
        Kind::Failed(_) => step.failed("no verdict"),
    }
    Ok(verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(console: &str, exit: Exit) -> Outcome {
        let (time, dir) = (Duration::ZERO, "/".into());
        Outcome { exit, ticks: None, console: console.into(), time, user_time: None, dir }
    }

    const NUMBERS: &str = "entries=12 checkpoints=3 exits=40 instructions=5000 virtual-ns=6 idle-ns=1 real-ns=7 landings=4 \
                           landing-exits=20 landing-max=9";

    #[test]
    fn the_kernel_s_last_line_is_the_verdict() {
        let console = format!("@@ replay event=started\n@@ replay event=ended verdict=equal {NUMBERS}\n");
        let verdict = Verdict::of(outcome(&console, Exit::Success), Vec::new());
        assert_eq!(verdict.kind, Kind::Equal);
        assert_eq!((verdict.entries, verdict.checkpoints, verdict.landing_max), (12, 3, 9));
        assert_eq!(verdict.exits_per_landing(), 5.0);
        assert!(verdict.check().is_ok());
        let json: serde_json::Value = serde_json::to_value(&verdict).unwrap();
        assert_eq!((&json["kind"], &json["virtual_ns"]), (&"equal".into(), &6.into()));
    }

    #[test]
    fn a_divergence_brings_its_explanation() {
        let console = format!(
            "guest text\r\n@@ replay event=planted done=true place=x bit=3\n[ 3.2] replay: diverged at entry 12: hash is another\r\n\
             @@ replay event=diverged kind=hash entry=12 why=\"hash is another\"\n@@ replay event=ended verdict=diverged {NUMBERS}\n\
             lockstep> \n"
        );
        let verdict = Verdict::of(outcome(&console, Exit::Failed), Vec::new());
        assert_eq!((&verdict.kind, verdict.planted), (&Kind::Diverged, Some(true)));
        assert_eq!(verdict.explanation, ["[ 3.2] replay: diverged at entry 12: hash is another"]);
        let error = format!("{:#}", verdict.check().unwrap_err());
        assert!(error.contains("hash is another") && error.contains("entry 12"), "{error}");
    }

    #[test]
    fn a_bit_that_nothing_reads_is_said() {
        let console = format!(
            "@@ replay event=planted done=true place=x bit=3\n@@ replay event=ended verdict=equal {NUMBERS}\n"
        );
        let verdict = Verdict::of(outcome(&console, Exit::Success), Vec::new());
        assert_eq!(verdict.kind, Kind::Equal);
        assert!(verdict.sentence().contains("made no difference"), "{}", verdict.sentence());
    }

    #[test]
    fn the_shell_s_own_lines_explain_nothing() {
        let console = format!(
            "[ 3.2] checkpoint 2 is not equal: 1 findings\n@@ replay event=finding checkpoint=2 what=\"uart is another\"\n\
             [the guest has ended; this is the hypervisor's shell, try help]\n\rlockstep> \x1b[K\n[ 3.3] replay: diverged: checkpoint 2\n\
             @@ replay event=ended verdict=diverged {NUMBERS}\n"
        );
        let verdict = Verdict::of(outcome(&console, Exit::Failed), Vec::new());
        assert_eq!(verdict.explanation.len(), 3, "{:?}", verdict.explanation);
    }

    #[test]
    fn a_place_that_is_none_is_said() {
        let console = format!(
            "@@ replay event=planted done=false place=x bit=3\n@@ replay event=ended verdict=stopped {NUMBERS}\n"
        );
        let verdict = Verdict::of(outcome(&console, Exit::Failed), Vec::new());
        assert!(verdict.sentence().contains("no such place"), "{}", verdict.sentence());
        assert!(verdict.check().is_err());
    }

    #[test]
    fn what_differs_at_a_checkpoint_is_named() {
        let console = format!(
            "@@ replay event=checkpoint number=1 equal=true\n@@ replay event=checkpoint number=2 equal=false\n\
             [ 3.2] checkpoint 2 is not equal: 2 findings\n@@ replay event=finding checkpoint=2 what=\"page 0x1234 differs\"\n\
             @@ replay event=finding checkpoint=2 what=\"rbx: 1 recorded, 3 here\"\n\
             @@ replay event=ended verdict=diverged {NUMBERS}\n"
        );
        let verdict = Verdict::of(outcome(&console, Exit::Failed), Vec::new());
        assert_eq!(verdict.findings, ["page 0x1234 differs", "rbx: 1 recorded, 3 here"]);
        assert_eq!(verdict.explanation.len(), 3, "{:?}", verdict.explanation);
        assert!(verdict.explanation[0].ends_with("checkpoint 2 is not equal: 2 findings"));
    }

    #[test]
    fn without_a_verdict_the_host_is_to_blame() {
        for (exit, word) in [(Exit::Panic, "panicked"), (Exit::Limit, "limit"), (Exit::Success, "nothing")] {
            let verdict = Verdict::of(outcome("boot\n", exit), Vec::new());
            assert!(matches!(&verdict.kind, Kind::Failed(why) if why.contains(word)), "{:?}", verdict.kind);
            assert!(verdict.check().is_err());
        }
    }

    #[test]
    fn options_become_words() {
        let mut options = ReplayOptions::new(Host::new("x", "/kernel".into()));
        assert_eq!(options.words(), "");
        options.until = Some(Until::Checkpoint(3));
        options.variation = Some(7);
        options.plant = Some(Plant::parse("memory:0x1000:3@1").unwrap());
        options.restore = Some(Restore::parse("1:2").unwrap());
        let words = options.words();
        assert_eq!(words, " until=checkpoint:3 variation=7 plant=memory:0x1000:3@1 restore=1:2");
        assert!(crate::image::Words::parse(&words).is_ok());
        assert_eq!(
            with_shell("exit-port=0xf4 after=exit proof=short"),
            "exit-port=0xf4 proof=short after=shell"
        );
    }

    #[test]
    fn files_are_found_by_flag_then_by_sidecar() {
        let facts = crate::replaying::sidecar::ModuleFacts {
            name: "kernel".into(),
            file: "/old/kernel".into(),
            sha256: String::new(),
        };
        let sidecar = Sidecar { modules: vec![facts], ..Sidecar::default() };
        let moved = [("kernel".to_owned(), PathBuf::from("/new/kernel"))];
        assert_eq!(find("kernel", &moved, Some(&sidecar)).unwrap(), Path::new("/new/kernel"));
        assert_eq!(find("kernel", &[], Some(&sidecar)).unwrap(), Path::new("/old/kernel"));
        let error = find("initrd", &moved, Some(&sidecar)).unwrap_err().to_string();
        assert!(error.contains("--module initrd=FILE"), "{error}");
        assert!(find("kernel", &[], None).is_err());
    }
}
