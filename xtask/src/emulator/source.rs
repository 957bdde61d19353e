//! The emulator's source: which archives are the right ones, and where to look for one.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{fetch, paths, ui};

/// An archive of the source that we accept.
#[derive(Debug, PartialEq)]
pub struct Archive {
    /// Its file name.
    pub name: &'static str,
    /// Its SHA-256.
    pub sha256: &'static str,
}

/// Bochs 3.0 as Debian packs it (upstream's release without the firmware blobs).
pub const DEBIAN: Archive = Archive {
    name: "bochs_3.0+dfsg.orig.tar.xz",
    sha256: "78f6c73d4a6472d5130a87ab9dc306d02c7c71ed8e25b3a8ef642e2a7acd282b",
};
/// Bochs 3.0 as its authors released it.
pub const UPSTREAM: Archive = Archive {
    name: "bochs-3.0.tar.gz",
    sha256: "cb6f542b51f35a2cc9206b2a980db5602b7cd1b7cf2e4ed4f116acd5507781aa",
};
/// Where the authors' release is.
const UPSTREAM_URL: &str = "https://downloads.sourceforge.net/project/bochs/bochs/3.0/bochs-3.0.tar.gz";
/// A package made of the same source: it tells which directory of the machine's own archive has the source.
const SIBLING_PACKAGE: &str = "bochsbios";

/// Every archive we accept.
pub const ARCHIVES: [&Archive; 2] = [&DEBIAN, &UPSTREAM];

/// Finds the source: the file that `LOCKSTEP_BOCHS_SOURCE` names, the cache, this machine's package archive, the authors'
/// release. Gives the checked file and which archive it is.
///
/// # Errors
/// When none of the places has it; the message lists each with its reason, and how to bring the file by hand.
pub fn locate() -> Result<(PathBuf, &'static Archive)> {
    if let Some(file) = env::var_os("LOCKSTEP_BOCHS_SOURCE").filter(|v| !v.is_empty()) {
        return given(Path::new(&file));
    }
    let dir = paths::cache_dir()?.join("downloads");
    fs::create_dir_all(&dir)?;
    for archive in ARCHIVES {
        let file = dir.join(archive.name);
        if file.is_file() && fetch::sha256(&file)? == archive.sha256 {
            return Ok((file, archive));
        }
    }
    let mut reasons = Vec::new();
    for (what, archive, attempt) in [
        ("this machine's package archive", &DEBIAN, from_archive as fn(&Path) -> Result<()>),
        ("the authors' release", &UPSTREAM, from_upstream),
    ] {
        let file = dir.join(archive.name);
        let step = ui::step(format!("fetch the emulator's source ({})", archive.name));
        match attempt(&file) {
            Ok(()) => {
                step.done_with(format!("from {what}"));
                return Ok((file, archive));
            }
            Err(error) => {
                step.failed(format!("not from {what}"));
                reasons.push(format!("{what}: {error:#}"));
            }
        }
    }
    bail!(
        "the emulator's source is nowhere to be had.\n{}\nBring {} (SHA-256 {}) here by other means, for instance with \
         `apt-get source --download-only bochs` on Debian 13, and name it: LOCKSTEP_BOCHS_SOURCE=FILE",
        crate::run::indent(&reasons.join("\n")),
        DEBIAN.name,
        DEBIAN.sha256,
    )
}

fn given(file: &Path) -> Result<(PathBuf, &'static Archive)> {
    let file = std::path::absolute(file)?;
    let sum = fetch::sha256(&file).context("LOCKSTEP_BOCHS_SOURCE names a file that is not there")?;
    match ARCHIVES.into_iter().find(|archive| archive.sha256 == sum) {
        Some(archive) => Ok((file, archive)),
        None => bail!(
            "LOCKSTEP_BOCHS_SOURCE={} is not Bochs 3.0 as we know it: its SHA-256 is {sum}, not {} ({}) or {} ({})",
            file.display(),
            DEBIAN.sha256,
            DEBIAN.name,
            UPSTREAM.sha256,
            UPSTREAM.name,
        ),
    }
}

/// Debian's suites share one pool, so any Debian's archive has it, also one whose own Bochs is older.
fn from_archive(file: &Path) -> Result<()> {
    let sibling = fetch::archive_file(SIBLING_PACKAGE)?;
    fetch::download(&sibling.sibling(DEBIAN.name), file, DEBIAN.sha256)
}

fn from_upstream(file: &Path) -> Result<()> {
    fetch::download(UPSTREAM_URL, file, UPSTREAM.sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_file_is_refused_with_the_sums_it_should_have() {
        let file = std::env::temp_dir().join(format!("lockstep-source-{}", std::process::id()));
        fs::write(&file, b"not bochs").unwrap();
        let error = given(&file).unwrap_err().to_string();
        fs::remove_file(&file).unwrap();
        assert!(error.contains(DEBIAN.sha256) && error.contains(UPSTREAM.sha256), "{error}");
    }
}
