//! An unmodified Linux from this machine's own package archive, as a guest to measure and to check the emulated machine
//! with: its kernel, its modules, a busybox, an image that boots them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::packages::{Architecture, Archive};
use crate::run::Cmd;

/// Which of the archive's kernels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Flavour {
    /// The one for virtual machines
    #[default]
    Cloud,
    /// The one for any computer
    Generic,
    /// The one for 32-bit computers (PAE)
    I386,
}

impl Flavour {
    /// Packages that only point to the current kernel package, in the order to ask for them: Debian's, Ubuntu's.
    fn current(self) -> &'static [&'static str] {
        match self {
            Flavour::Cloud => &["linux-image-cloud-amd64", "linux-image-virtual", "linux-image-generic"],
            Flavour::Generic => &["linux-image-amd64", "linux-image-generic"],
            Flavour::I386 => &["linux-image-686-pae"],
        }
    }

    /// The packages' architecture, where it is not this machine's.
    fn architecture(self) -> Architecture {
        match self {
            Flavour::Cloud | Flavour::Generic => Architecture::Own,
            Flavour::I386 => Architecture::I386,
        }
    }
}

/// A Linux kernel package, unpacked.
#[derive(Clone, Debug)]
pub struct Linux {
    /// The package's name, with the kernel's version in it.
    pub package: String,
    /// Its tree: `boot/`, `lib/modules/` (or `usr/lib/modules/`).
    pub tree: PathBuf,
    /// The kernel's image.
    pub kernel: PathBuf,
}

/// Gets the current kernel package of this machine's archive, into the cache; needs no rights.
///
/// # Errors
/// When there is no apt, it knows no kernel package, or the download fails.
pub fn kernel() -> Result<Linux> {
    kernel_of(Flavour::Cloud)
}

/// Gets the current kernel package of this flavour, into the cache; needs no rights.
///
/// # Errors
/// As [`kernel`].
pub fn kernel_of(flavour: Flavour) -> Result<Linux> {
    let archive = Archive::open(flavour.architecture())?;
    let name = current(&archive, flavour)?;
    let tree = archive.unpacked(&name)?;
    let boot = tree.join("boot");
    let kernel = fs::read_dir(&boot)
        .with_context(|| format!("the package `{name}` has no boot directory"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz")))
        .with_context(|| format!("the package `{name}` has no kernel"))?;
    Ok(Linux { package: name, tree, kernel })
}

/// Gets a statically linked busybox, into the cache; needs no rights.
///
/// # Errors
/// As [`kernel`].
pub fn busybox() -> Result<PathBuf> {
    busybox_of(Flavour::Cloud)
}

/// Gets a statically linked busybox that runs on a kernel of this flavour.
///
/// # Errors
/// As [`kernel`].
pub fn busybox_of(flavour: Flavour) -> Result<PathBuf> {
    let tree = Archive::open(flavour.architecture())?.unpacked("busybox-static")?;
    let places = ["bin/busybox", "usr/bin/busybox"].map(|place| tree.join(place));
    places.into_iter().find(|file| file.is_file()).context("the package `busybox-static` has no busybox")
}

/// The package that the first known of the flavour's [`Flavour::current`] points to.
fn current(archive: &Archive, flavour: Flavour) -> Result<String> {
    let mut reasons = Vec::new();
    for meta in flavour.current() {
        match archive.record(meta) {
            Ok(text) => return points_to(&text).with_context(|| format!("`{meta}` points to no kernel")),
            Err(error) => reasons.push(error.to_string().lines().next().unwrap_or_default().to_owned()),
        }
    }
    anyhow::bail!(
        "apt knows no Linux kernel package; `apt-get update` may help:\n{}",
        crate::run::indent(&reasons.join("\n"))
    )
}

/// The first `linux-image-VERSION` among the dependencies.
fn points_to(record: &str) -> Option<String> {
    let depends = record.lines().find_map(|line| line.strip_prefix("Depends:"))?;
    let names = depends.split([',', '|']).filter_map(|dependency| dependency.split_whitespace().next());
    let is_kernel = |name: &&str| {
        let version =
            name.strip_prefix("linux-image-").or_else(|| name.strip_prefix("linux-image-unsigned-"));
        version.is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit()))
    };
    names.into_iter().find(is_kernel).map(String::from)
}

/// An ISO image that boots this kernel with this initial file system and command line by GRUB on BIOS.
///
/// # Errors
/// When GRUB's tools are missing or fail.
pub fn iso(file: &Path, linux: &Linux, initramfs: &[u8], command_line: &str) -> Result<()> {
    let initrd = file.with_extension("cpio");
    fs::write(&initrd, initramfs)?;
    let config = format!("set timeout=0\nlinux /boot/vmlinuz {command_line}\ninitrd /boot/initrd\nboot\n");
    grub_iso(file, &config, &[("vmlinuz", &linux.kernel), ("initrd", &initrd)])
}

/// An ISO image with GRUB for BIOS, its configuration, and these files in `/boot`.
///
/// # Errors
/// When GRUB's tools are missing or fail.
fn grub_iso(iso: &Path, config: &str, files: &[(&str, &Path)]) -> Result<()> {
    let tree = iso.with_extension(format!("{}.{:?}", std::process::id(), std::thread::current().id()));
    let boot = tree.join("boot");
    fs::create_dir_all(boot.join("grub"))?;
    for (name, file) in files {
        fs::copy(file, boot.join(name)).with_context(|| format!("cannot read {}", file.display()))?;
    }
    fs::write(boot.join("grub/grub.cfg"), config)?;
    let partial = tree.with_extension("partial");
    // `-d`: only the BIOS half; it is the half that the emulated machine has, and quicker to write.
    let make = Cmd::new("grub-mkrescue").args(["-d", "/usr/lib/grub/i386-pc", "-o"]).arg(&partial).arg(&tree);
    let made = make.check().map(drop);
    let _ = fs::remove_dir_all(&tree);
    made?;
    fs::rename(&partial, iso).with_context(|| format!("cannot write {}", iso.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_kernel_is_found_among_dependencies() {
        let debian =
            "Package: linux-image-cloud-amd64\nDepends: linux-image-6.1.0-49-cloud-amd64 (= 6.1.192-2)\n";
        assert_eq!(points_to(debian).as_deref(), Some("linux-image-6.1.0-49-cloud-amd64"));
        let ubuntu =
            "Depends: linux-base, linux-image-6.8.0-31-generic | linux-image-unsigned-6.8.0-31-generic, x\n";
        assert_eq!(points_to(ubuntu).as_deref(), Some("linux-image-6.8.0-31-generic"));
        assert_eq!(points_to("Depends: linux-image-amd64\n"), None);
    }
}
