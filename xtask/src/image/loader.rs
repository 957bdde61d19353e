//! The loader images: GRUB, built by `grub-mkimage` with every module inside.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::write;
use crate::run::Cmd;
use crate::setup;
use crate::setup::needs::{NEEDS, Work};

/// Where distributions put GRUB's modules.
const GRUB_DIR: &str = "/usr/lib/grub";

/// Modules that every image has: the menu's language, the console, loading a kernel, and what one needs to look around
/// when something is wrong.
const COMMON: &[&str] = &[
    "normal",
    "configfile",
    "echo",
    "test",
    "true",
    "sleep",
    "regexp",
    "serial",
    "terminal",
    "multiboot2",
    "all_video",
    "ls",
    "cat",
    "help",
    "minicmd",
    "reboot",
    "halt",
    "lsmmap",
];
/// Modules for a medium: its file system and partitions.
const MEDIUM: &[&str] = &["iso9660", "part_gpt", "part_msdos", "search"];
/// Modules for the network.
const NETWORK: &[&str] = &["net", "tftp"];

/// The kinds of loader image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// BIOS, from a CD or a disk.
    BiosMedium,
    /// BIOS, over PXE.
    BiosNetwork,
    /// UEFI (64-bit), from a CD or a disk.
    UefiMedium,
    /// UEFI (64-bit), over PXE.
    UefiNetwork,
}

impl Kind {
    /// GRUB's name of the format.
    fn format(self) -> &'static str {
        match self {
            Kind::BiosMedium => "i386-pc",
            Kind::BiosNetwork => "i386-pc-pxe",
            Kind::UefiMedium | Kind::UefiNetwork => "x86_64-efi",
        }
    }

    fn modules(self) -> Vec<&'static str> {
        let (place, machine): (_, &[_]) = match self {
            Kind::BiosMedium => (MEDIUM, &["biosdisk", "vga"]),
            Kind::BiosNetwork => (NETWORK, &["pxe", "vga"]),
            Kind::UefiMedium => (MEDIUM, &[]),
            Kind::UefiNetwork => (NETWORK, &["efinet"]),
        };
        [COMMON, place, machine].concat()
    }
}

/// Says what is missing for a kind of work.
///
/// # Errors
/// When something is; the message has the command that installs it.
pub fn check_packages(work: Work) -> Result<()> {
    let missing = NEEDS.iter().filter(|need| need.work == work && !setup::present(need));
    let missing: BTreeSet<&str> = missing.map(|need| need.package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = Vec::from_iter(missing).join(" ");
    bail!(
        "packages are missing: {list}. `cargo xtask setup` installs them, and so does `apt-get install {list}`"
    )
}

/// A file that belongs to GRUB for BIOS.
pub fn bios_file(name: &str) -> PathBuf {
    Path::new(GRUB_DIR).join("i386-pc").join(name)
}

/// Builds a loader image that runs `early` first; `dir` is for intermediate files.
///
/// # Errors
/// When `grub-mkimage` fails.
pub fn build(kind: Kind, early: &str, dir: &Path, output: &Path) -> Result<()> {
    let script = dir.join(format!("early-{}.cfg", kind.format()));
    write(&script, early)?;
    Cmd::new("grub-mkimage")
        .args(["-O", kind.format(), "-p", "/boot/grub", "-c"])
        .arg(&script)
        .arg("-o")
        .arg(output)
        .args(kind.modules())
        .check()?;
    Ok(())
}
