//! Where facts about a host come from: the running system, or a recording.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Device;
use crate::run::Cmd;

/// A command that says what a program is must have said it by then.
const LIMIT: Duration = Duration::from_secs(30);

/// What can be asked about a host. Everything may be absent.
pub trait Source {
    /// The content of a file.
    fn read(&self, path: &str) -> Option<String>;
    /// The names in a directory.
    fn list(&self, path: &str) -> Vec<String>;
    /// What a command prints.
    fn command(&self, words: &[&str]) -> Option<String>;
    /// What `/dev/kvm` is.
    fn kvm_device(&self) -> Device;
}

/// The running system.
#[derive(Clone, Copy, Debug)]
pub struct Live;

impl Source for Live {
    fn read(&self, path: &str) -> Option<String> {
        fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn list(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    fn command(&self, words: &[&str]) -> Option<String> {
        let (program, args) = words.split_first()?;
        Cmd::new(program).args(args).timeout(LIMIT).check().ok()
    }

    fn kvm_device(&self) -> Device {
        let opened = fs::File::options().read(true).write(true).open("/dev/kvm");
        match opened {
            Ok(_) => Device::Usable,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Device::Missing,
            Err(_) => Device::Denied,
        }
    }
}

/// A recording of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// Which host, and how it was recorded.
    pub note: String,
    /// What `/dev/kvm` is.
    pub kvm: Device,
    /// What commands print, by their words.
    pub commands: BTreeMap<String, String>,
    /// Files by path. A directory is there if a file in it is.
    pub files: BTreeMap<String, String>,
}

impl Source for Recorded {
    fn read(&self, path: &str) -> Option<String> {
        self.files.get(path).cloned()
    }

    fn list(&self, path: &str) -> Vec<String> {
        let prefix = format!("{path}/");
        let inside = self.files.keys().filter_map(|file| file.strip_prefix(&prefix));
        let names: BTreeSet<&str> = inside.filter_map(|rest| rest.split('/').next()).collect();
        names.into_iter().map(String::from).collect()
    }

    fn command(&self, words: &[&str]) -> Option<String> {
        self.commands.get(&words.join(" ")).cloned()
    }

    fn kvm_device(&self) -> Device {
        self.kvm
    }
}
