//! Recording: runs a virtual machine with a `[record]` section and keeps what the host sends over its logging card.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use vm_config::Paging;

use super::lines::{self, Fields};
use super::progress::Progress;
use super::sidecar::{self, HostFacts, ResultFacts, Sidecar};
use crate::emulator::Outcome;
use crate::vm::Vm;
use crate::vm::host::{Host, Started};

/// The two ends of the logging channel where the configuration says nothing: the host, and the station of this tool.
const ADDRESSES: &str = "address = \"10.77.0.1/24\"\npeer = \"10.77.0.2:5405\"\n";

/// How to record.
#[derive(Clone, Debug)]
pub struct RecordOptions {
    /// The emulated host. Its `log` is set here.
    pub host: Host,
    /// The file that gets the log; the sidecar goes beside it.
    pub log: PathBuf,
    /// How the guest's accessed and dirty bits are kept; by default as the configuration says.
    pub paging: Option<Paging>,
    /// Milliseconds of guest time from one checkpoint to the next, 0 for none; by default as the configuration says.
    pub checkpoint: Option<u32>,
    /// Seed of what the host does differently than others would: preemption timer, interrupts of its own, EPT fills.
    pub variation: Option<u64>,
}

impl RecordOptions {
    /// Records to this file as the configuration says.
    pub fn new(host: Host, log: impl Into<PathBuf>) -> Self {
        RecordOptions { host, log: log.into(), paging: None, checkpoint: None, variation: None }
    }
}

/// A recording under way.
pub struct Session {
    /// The host.
    pub started: Started,
    log: PathBuf,
    sidecar: Sidecar,
}

/// What came of a recording.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The log.
    pub log: PathBuf,
    /// Bytes of the log.
    pub bytes: u64,
    /// How the host ended, and its console.
    pub outcome: Outcome,
    /// What the outside says.
    pub told: Vec<String>,
    /// What the kernel said at the end of the recording, if it came to it.
    pub ended: Option<Fields>,
    /// What the kernel said at the end of the guest.
    pub stopped: Option<Fields>,
}

/// Records a virtual machine to its end.
///
/// # Errors
/// When something is missing or cannot be started; what came of the recording is in it, see [`Recording::check`].
pub fn record(vm: &Vm, options: &RecordOptions) -> Result<Recording> {
    let session = Session::start(vm, options)?;
    session.finish()
}

impl Session {
    /// Starts the host, with the virtual machine and its recording.
    ///
    /// # Errors
    /// As [`record`].
    pub fn start(vm: &Vm, options: &RecordOptions) -> Result<Self> {
        let vm = recorded(vm, options.paging, options.checkpoint)?;
        let log = std::path::absolute(&options.log)?;
        // An old log must not be taken for the new one if this run fails early.
        for old in [log.clone(), sidecar::path(&log)] {
            if old.exists() {
                std::fs::remove_file(&old).with_context(|| format!("cannot replace {}", old.display()))?;
            }
        }
        let mut host = options.host.clone();
        if let Some(seed) = options.variation {
            host.words += &format!(" variation={seed}");
        }
        let facts = HostFacts {
            ips: host.ips,
            cpus: host.cpus,
            words: host.words.clone(),
            knobs: sidecar::knobs(&host.knobs),
        };
        let sidecar = Sidecar::new(&host.kernel, vm.files(), facts)?;
        host.log = Some(log.clone());
        let started = host.start(&vm)?;
        sidecar.write(&log)?;
        Ok(Session { started, log, sidecar })
    }

    /// Waits for the end, and tells again and again how far it is and how many bytes have arrived.
    ///
    /// # Errors
    /// As [`Session::finish`].
    pub fn finish_with_progress(mut self, mut see: impl FnMut(&Progress, u64)) -> Result<Recording> {
        let mut progress = Progress::default();
        let log = self.log.clone();
        self.started.running.watch(|console| {
            progress.see(console, "record");
            see(&progress, size(&log));
            false
        })?;
        self.finish()
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// When the machine cannot be watched, or the network failed.
    pub fn finish(self) -> Result<Recording> {
        let Session { started, log, sidecar } = self;
        let (outcome, told) = started.wait()?;
        conclude(log, sidecar, outcome, told)
    }

    /// Waits for the end, or until `stop` says so; then the machine is ended, and the log ends where it is.
    ///
    /// # Errors
    /// As [`Session::finish`].
    pub fn finish_unless(self, stop: impl Fn() -> bool) -> Result<Recording> {
        let Session { started, log, sidecar } = self;
        let (outcome, told) = started.wait_unless(stop)?;
        conclude(log, sidecar, outcome, told)
    }
}

fn conclude(log: PathBuf, mut sidecar: Sidecar, outcome: Outcome, told: Vec<String>) -> Result<Recording> {
    let ended = lines::last(&outcome.console, "record", "ended");
    let stopped = lines::last(&outcome.console, "vm", "stopped");
    let bytes = size(&log);
    let recording = Recording { log, bytes, outcome, told, ended, stopped };
    if recording.ended.is_some() {
        let number = |key| recording.number(key).unwrap_or_default();
        sidecar.result = Some(ResultFacts {
            entries: number("entries"),
            bytes,
            instructions: number("instructions"),
            real_ns: number("real-ns"),
            idle_ns: number("idle-ns"),
            virtual_ns: number("virtual-ns"),
            seconds: recording.outcome.time.as_secs_f64(),
        });
        sidecar.write(&recording.log)?;
    }
    Ok(recording)
}

impl Recording {
    /// A number that the kernel said at the end of the recording or of the guest.
    pub fn number(&self, key: &str) -> Option<u64> {
        let of = |fields: &Option<Fields>| fields.as_ref().and_then(|fields| fields.number(key));
        of(&self.ended).or_else(|| of(&self.stopped))
    }

    /// Nothing if the guest switched itself off, the kernel closed the log and all of it has arrived.
    ///
    /// # Errors
    /// What is wrong, with the console's end.
    pub fn check(&self) -> Result<()> {
        self.check_log()?;
        let reason = self.stopped.as_ref().and_then(|fields| fields.get("reason")).unwrap_or("unknown");
        ensure!(
            self.outcome.exit.is_success() && reason == "power-off",
            "the guest did not switch itself off ({reason}): {}\n{}",
            self.outcome.exit.sentence(),
            self.outcome.last_words()
        );
        Ok(())
    }

    /// Nothing if the kernel closed the log and all of it has arrived, whatever became of the guest.
    ///
    /// # Errors
    /// What is wrong, with the console's end.
    pub fn check_log(&self) -> Result<()> {
        let Some(ended) = &self.ended else {
            bail!(
                "the recording was broken off: {} The log has {} bytes, up to the last whole block.\n{}",
                self.outcome.exit.sentence(),
                self.bytes,
                self.outcome.last_words()
            );
        };
        ensure!(
            ended.get("complete") != Some("false"),
            "the log has not left the host whole.\n{}",
            self.outcome.last_words()
        );
        if let Some(sent) = ended.number("bytes") {
            ensure!(
                sent == self.bytes,
                "the host has sent {sent} bytes of log, and {} have arrived.\n{}",
                self.bytes,
                self.outcome.last_words()
            );
        }
        Ok(())
    }
}

/// The virtual machine with a `[record]` section: its own with these changes, or one on the first card that the guest does
/// not use.
///
/// # Errors
/// When the configuration that comes of it is refused.
pub fn recorded(vm: &Vm, paging: Option<Paging>, checkpoint: Option<u32>) -> Result<Vm> {
    let vm = match &vm.config.record {
        Some(_) => vm.clone(),
        None => vm.with_text(&format!("{}\n[record]\ncard = {}\n{ADDRESSES}", vm.text(), vm.cards()))?,
    };
    let mut config = vm.config.clone();
    let Some(record) = &mut config.record else { bail!("the configuration has lost its [record]") };
    record.paging = paging.unwrap_or(record.paging);
    record.checkpoint = checkpoint.unwrap_or(record.checkpoint);
    if config == vm.config { Ok(vm) } else { vm.with_text(&config.text()) }
}

fn size(log: &Path) -> u64 {
    std::fs::metadata(log).map_or(0, |meta| meta.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::{Description, Start};
    use vm_config::Card;

    fn vm() -> Vm {
        let me = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let start = Start::Kernel { kernel: me, initrd: None, command_line: String::new() };
        Description { networks: 1, ..Description::new("test", start) }.vm().unwrap()
    }

    #[test]
    fn what_is_not_recorded_yet_gets_a_card_of_its_own() {
        let with = recorded(&vm(), None, None).unwrap();
        let record = with.config.record.unwrap();
        assert_eq!((record.card, record.paging), (Card::Index(1), Paging::Strict));
        assert!(with.text().starts_with(vm().text()), "the text of a person is kept");
        assert_eq!(vm_config::Config::parse(with.text()).unwrap(), with.config);
        assert_eq!(with.files(), vm().files());
    }

    #[test]
    fn flags_change_what_the_configuration_says() {
        let once = recorded(&vm(), Some(Paging::Fast), Some(100)).unwrap();
        let record = once.config.record.unwrap();
        assert_eq!((record.paging, record.checkpoint), (Paging::Fast, 100));
        assert_eq!(recorded(&once, None, None).unwrap(), once);
        let twice = recorded(&once, Some(Paging::Strict), None).unwrap();
        assert_eq!(twice.config.record.unwrap().checkpoint, 100);
        assert_eq!(twice.config.record.unwrap().paging, Paging::Strict);
        assert_eq!(vm_config::Config::parse(twice.text()).unwrap(), twice.config);
    }
}
