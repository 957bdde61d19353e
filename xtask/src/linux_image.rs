//! The image that boots an unmodified Linux with our checks (`tests/linux`) as its first program.

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use anyhow::Result;
use sha2::{Digest, Sha256};

use crate::cpio::Archive;
use crate::linux::Linux;
use crate::verbs::build::cargo;
use crate::{fetch, linux, modules, paths, ui};

/// The target triple of the checks.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Memory that Linux, KVM and the checks want, MiB.
pub const MEMORY_MIB: u32 = 512;
/// Kernel modules that the checks insert, in this order. A kernel that has one built in has no file for it.
const MODULES: &[&str] = &["irqbypass", "kvm", "kvm-intel"];
/// What the kernel is told: console, no use of the counters by itself, an error ends the run.
const COMMAND_LINE: &str = "console=ttyS0,115200 quiet loglevel=1 nmi_watchdog=0 nokaslr panic=-1 oops=panic";

/// An ISO image of the current kernel package with the checks, in `out/iso`. `words` go to the kernel's command line.
///
/// # Errors
/// When the kernel cannot be had, the checks do not compile, or GRUB's tools fail.
pub fn iso(words: &str) -> Result<PathBuf> {
    // Several tests of one program may want it at once: one downloads and builds, the others find it done.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock();
    let linux = linux::kernel()?;
    let step = ui::step("build the checks that run in Linux");
    let init = checks()?;
    let initramfs = initramfs(&fs::read(&init)?, &modules::found(&linux.tree, MODULES)?);
    step.done();
    let command_line = format!("{COMMAND_LINE} {words}");
    let file = file(&linux, &initramfs, &command_line)?;
    if !file.is_file() {
        linux::iso(&file, &linux, &initramfs, command_line.trim())?;
    }
    Ok(file)
}

/// Where the image of these contents is.
fn file(linux: &Linux, initramfs: &[u8], command_line: &str) -> Result<PathBuf> {
    let mut hash = Sha256::new();
    hash.update(&linux.package);
    hash.update(command_line);
    hash.update(initramfs);
    let dir = paths::out_dir()?.join("iso");
    fs::create_dir_all(&dir)?;
    Ok(dir.join(format!("linux-{}.iso", fetch::hex(&hash.finalize()[..8]))))
}

/// Builds the checks, linked statically.
fn checks() -> Result<PathBuf> {
    // The same program wherever it is built: no paths of this machine in it, no symbols.
    let remap = format!("--remap-path-prefix={}=/lockstep", paths::root().display());
    let flags = ["-C", "target-feature=+crt-static", "-C", "strip=symbols", &remap].join("\x1f");
    cargo(["build", "--release", "-p", "linux-checks", "--target", TARGET])
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .check()?;
    Ok(paths::target_dir().join(TARGET).join("release/linux-checks"))
}

/// The initial file system: the checks as `/init`, a console, the modules.
fn initramfs(init: &[u8], modules: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Archive::new()
        .directory("dev")
        .character_device("dev/console", 5, 1)
        .directory("proc")
        .directory("sys")
        .directory("modules")
        .program("init", init);
    for (name, bytes) in modules {
        archive = archive.file(&format!("modules/{name}.ko"), bytes);
    }
    archive.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_contents_make_the_same_archive() {
        let modules = [("kvm".to_owned(), vec![1, 2, 3])];
        let archive = initramfs(b"program", &modules);
        assert_eq!(archive, initramfs(b"program", &modules));
        let text = String::from_utf8_lossy(&archive).into_owned();
        for name in ["init\0", "modules/kvm.ko\0", "dev/console\0"] {
            assert!(text.contains(name), "{name:?}");
        }
    }
}
