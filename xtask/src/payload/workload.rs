//! The standard workload guest: a kernel of the archive, a statically linked busybox, the drivers of the guest's devices, and
//! `tests/workload/init`, which does the loads that its command line names.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::cpio::Archive;
use crate::linux::{self, Flavour};
use crate::modules::Modules;
use crate::{fetch, paths};

/// The drivers by what they are for. The first group is inserted at the start, the others when a load wants them. The
/// cards of real machines are for the same guest without a hypervisor.
const GROUPS: &[(&str, &[&str])] = &[
    ("base", &["virtio_pci"]),
    ("network", &["virtio_net", "e1000", "8139cp"]),
    ("disk", &["virtio_blk"]),
    ("console", &["virtio_console"]),
    ("random", &["virtio_rng"]),
];

/// What the kernel is told by itself: the console, and an end where an error is one.
pub const COMMAND_LINE: &str = "console=ttyS0,115200 panic=-1";

/// A Linux with its initial file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linux {
    /// The kernel, a bzImage.
    pub kernel: PathBuf,
    /// The initial file system.
    pub initrd: PathBuf,
}

/// The workload guest of a kernel flavour, from the cache or made.
///
/// # Errors
/// When a package cannot be had.
pub fn linux(flavour: Flavour) -> Result<Linux> {
    let kernel = linux::kernel_of(flavour)?;
    let busybox = fs::read(linux::busybox_of(flavour)?)?;
    let archive = with_modules(base(&busybox)?, &Modules::of(&kernel.tree)?)?;
    Ok(Linux { kernel: kernel.kernel, initrd: stored("workload", &archive.finish())? })
}

/// The initial file system without kernel modules: `init`, busybox, a console.
///
/// # Errors
/// When `init` is not where it belongs.
pub fn base(busybox: &[u8]) -> Result<Archive> {
    let file = paths::root().join("tests/workload/init");
    let init = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let directories = ["bin", "dev", "lib", "lib/load", "lib/modules", "proc", "sys", "tmp"];
    let archive = directories.into_iter().fold(Archive::new(), Archive::directory);
    Ok(archive
        .character_device("dev/console", 5, 1)
        .character_device("dev/null", 1, 3)
        .program("bin/busybox", busybox)
        .program("init", &init))
}

/// Adds the drivers and, for each group, the list of its modules in the order of their needs.
///
/// # Errors
/// When a module cannot be read.
pub fn with_modules(mut archive: Archive, modules: &Modules) -> Result<Archive> {
    let mut added = BTreeSet::new();
    for (group, names) in GROUPS {
        let with_needs = modules.with_needs(names)?;
        let list: Vec<&str> = with_needs.iter().map(|(name, _)| name.as_str()).collect();
        archive = archive.file(&format!("lib/modules/{group}"), (list.join("\n") + "\n").as_bytes());
        for (name, bytes) in &with_needs {
            if added.insert(name.clone()) {
                archive = archive.file(&format!("lib/modules/{name}.ko"), bytes);
            }
        }
    }
    Ok(archive)
}

/// Writes an archive to a file whose name tells its contents, unless it is there.
///
/// # Errors
/// When it cannot be written.
pub fn stored(name: &str, bytes: &[u8]) -> Result<PathBuf> {
    let dir = paths::out_dir()?.join("payload");
    fs::create_dir_all(&dir)?;
    let file = dir.join(format!("{name}-{}.cpio", fetch::hex(&Sha256::digest(bytes)[..8])));
    if !file.is_file() {
        let thread = std::thread::current().id();
        let partial = file.with_extension(format!("{}.{thread:?}", std::process::id()));
        fs::write(&partial, bytes)?;
        fs::rename(&partial, &file).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_contents_make_the_same_archive() {
        let make = || base(b"busybox").unwrap().finish();
        assert_eq!(make(), make());
        let text = String::from_utf8_lossy(&make()).into_owned();
        for name in ["init\0", "dev/console\0", "bin/busybox\0", "#!/bin/busybox sh"] {
            assert!(text.contains(name), "{name:?}");
        }
    }

    #[test]
    fn init_knows_every_load() {
        let init = fs::read_to_string(paths::root().join("tests/workload/init")).unwrap();
        for load in
            ["boot", "cpu", "gzip", "fork", "idle", "diskw", "diskr", "netrx", "nettx", "serve", "dirty"]
        {
            assert!(init.contains(&format!("load_{load}() {{")), "{load}");
        }
    }
}
