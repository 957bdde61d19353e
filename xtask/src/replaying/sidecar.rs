//! `RUN.log.files`, beside a log: where the files of the virtual machine are on the machine that has recorded it, and on what host.
//!
//! The log itself says what the files must contain (names, lengths, checksums). Where they lie is no business of a format
//! that crosses machines, so it stands here; without this file, `cargo xtask replay --module NAME=FILE` says it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::emulator::Knobs;
use crate::fetch;

/// The version of this file's own format.
const VERSION: u32 = 1;

/// What stands in the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Sidecar {
    /// Version of this format.
    pub version: u32,
    /// The hypervisor that recorded.
    pub hypervisor: FileFacts,
    /// The emulated host that recorded.
    pub host: HostFacts,
    /// What came of the recording. Missing when it was broken off.
    pub result: Option<ResultFacts>,
    /// The virtual machine's files.
    #[serde(default, rename = "module")]
    pub modules: Vec<ModuleFacts>,
}

/// A file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FileFacts {
    /// Where it was.
    pub file: PathBuf,
    /// The hash of its contents.
    pub sha256: String,
}

/// A file of the virtual machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ModuleFacts {
    /// Its name in the configuration.
    pub name: String,
    /// Where it was.
    pub file: PathBuf,
    /// The hash of its contents.
    pub sha256: String,
}

/// The host that recorded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HostFacts {
    /// Instructions per emulated second.
    pub ips: u64,
    /// Processors.
    pub cpus: u32,
    /// The kernel's command line.
    pub words: String,
    /// The knobs of the emulator that were turned, as `NAME=VALUE`.
    pub knobs: Vec<String>,
}

/// What came of the recording.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ResultFacts {
    /// Entries of the log.
    pub entries: u64,
    /// Bytes of the log.
    pub bytes: u64,
    /// Instructions of the guest.
    pub instructions: u64,
    /// Nanoseconds of the host from the guest's start to its end.
    pub real_ns: u64,
    /// Nanoseconds of these in which the guest was halted.
    pub idle_ns: u64,
    /// Nanoseconds of the guest's clock.
    pub virtual_ns: u64,
    /// Wall-clock seconds of the run, with the boot.
    pub seconds: f64,
}

/// The place of a log's sidecar.
pub fn path(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".files");
    name.into()
}

impl Sidecar {
    /// What is known before the recording: hashes the files.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn new(hypervisor: &Path, files: &[(String, PathBuf)], host: HostFacts) -> Result<Self> {
        let modules = files.iter().map(|(name, file)| {
            Ok(ModuleFacts { name: name.clone(), file: std::path::absolute(file)?, sha256: sha256(file)? })
        });
        Ok(Sidecar {
            version: VERSION,
            hypervisor: FileFacts { file: std::path::absolute(hypervisor)?, sha256: sha256(hypervisor)? },
            host,
            result: None,
            modules: modules.collect::<Result<_>>()?,
        })
    }

    /// Writes it beside the log.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, log: &Path) -> Result<()> {
        let file = path(log);
        let text = format!(
            "# Where the files of {} are on the machine that recorded it. See docs/replay.md.\n{}",
            log.file_name().unwrap_or_default().to_string_lossy(),
            toml::to_string(self)?
        );
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// Reads the one beside a log, if there is one.
    ///
    /// # Errors
    /// When it cannot be read or means nothing.
    pub fn read(log: &Path) -> Result<Option<Self>> {
        let file = path(log);
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", file.display()));
            }
        };
        let sidecar: Sidecar = toml::from_str(&text)
            .with_context(|| format!("{} is not what `record` writes", file.display()))?;
        if sidecar.version != VERSION {
            bail!("{} has version {}, and this tool reads {VERSION}", file.display(), sidecar.version);
        }
        Ok(Some(sidecar))
    }

    /// Whether this file is the hypervisor that recorded.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn was_made_by(&self, hypervisor: &Path) -> Result<bool> {
        Ok(sha256(hypervisor)? == self.hypervisor.sha256)
    }

    /// Where the file of this name was.
    pub fn module(&self, name: &str) -> Option<&ModuleFacts> {
        self.modules.iter().find(|module| module.name == name)
    }
}

/// The knobs that are turned, as they are kept.
pub fn knobs(knobs: &Knobs) -> Vec<String> {
    knobs.environment().into_iter().map(|(key, value)| format!("{key}={value}")).collect()
}

/// The hash of a file's contents, in hexadecimal digits.
///
/// # Errors
/// When it cannot be read.
pub fn sha256(file: &Path) -> Result<String> {
    let mut input = std::fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut hash = Sha256::new();
    std::io::copy(&mut input, &mut hash).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(fetch::hex(&hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")
    }

    #[test]
    fn what_is_written_is_read() {
        let log = std::env::temp_dir().join(format!("lockstep-sidecar-{}.log", std::process::id()));
        assert_eq!(Sidecar::read(&log).unwrap(), None);
        let host =
            HostFacts { ips: 7, cpus: 1, words: "a=b".into(), knobs: vec!["LOCKSTEP_SKID=5:40:1".into()] };
        let mut sidecar = Sidecar::new(&me(), &[("kernel".into(), me())], host).unwrap();
        sidecar.result = Some(ResultFacts { bytes: 5, seconds: 1.5, ..ResultFacts::default() });
        sidecar.write(&log).unwrap();
        let read = Sidecar::read(&log);
        let file = path(&log);
        std::fs::write(&file, "version = 9\n").unwrap();
        let bad = Sidecar::read(&log);
        std::fs::remove_file(&file).unwrap();
        assert_eq!(read.unwrap(), Some(sidecar.clone()));
        assert!(bad.is_err());
        assert_eq!(sidecar.module("kernel").unwrap().sha256, sha256(&me()).unwrap());
        assert_eq!(sidecar.module("initrd"), None);
        assert!(sidecar.was_made_by(&me()).unwrap());
    }
}
