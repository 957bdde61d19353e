//! The test kernels of `tests/guests`: which there are, building them, one bootable image for each way of running one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::image::{Image, Words};
use crate::verbs::build::cargo;
use crate::{fetch, paths};

/// The names of all test kernels: the files of `tests/guests/src/bin`.
///
/// # Errors
/// When the directory cannot be read.
pub fn programs() -> Result<Vec<String>> {
    let dir = paths::root().join("tests/guests/src/bin");
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "rs") {
            names.extend(path.file_stem().and_then(|stem| stem.to_str()).map(String::from));
        }
    }
    names.sort();
    Ok(names)
}

/// What a test kernel asks: the first sentence of its file, up to the question mark.
pub fn question(name: &str) -> String {
    let file = paths::root().join(format!("tests/guests/src/bin/{name}.rs"));
    let text = fs::read_to_string(file).unwrap_or_default();
    let header = text.lines().take_while(|line| line.starts_with("//!")).map(|line| line[3..].trim());
    let header = header.collect::<Vec<_>>().join(" ");
    header.split_inclusive('?').next().unwrap_or_default().to_owned()
}

/// Builds all test kernels (cheap when nothing changed).
///
/// # Errors
/// When one does not compile.
pub fn build_all() -> Result<()> {
    cargo(["build", "--release", "-p", "guests", "--bins", "--target", paths::KERNEL_TARGET])
        .check()
        .map(drop)
}

/// Builds one test kernel and gives its ELF file.
///
/// # Errors
/// When there is none of that name (the message lists them), or it does not compile.
pub fn build(name: &str) -> Result<PathBuf> {
    let all = programs()?;
    if !all.iter().any(|known| known == name) {
        bail!("no test kernel `{name}`; there are: {}", all.join(", "));
    }
    cargo(["build", "--release", "-p", "guests", "--bin", name, "--target", paths::KERNEL_TARGET]).check()?;
    Ok(paths::target_dir().join(paths::KERNEL_TARGET).join("release").join(name))
}

/// An ISO image that boots this Multiboot2 kernel with this command line. One file per kernel name and command line, in
/// `out/iso`.
///
/// # Errors
/// When GRUB's tools are missing or fail.
pub fn iso(kernel: &Path, command_line: &str) -> Result<PathBuf> {
    let name = kernel.file_name().and_then(|n| n.to_str()).context("the kernel's file has no name")?;
    let tag = fetch::hex(&Sha256::digest(command_line.as_bytes())[..4]);
    let dir = paths::out_dir()?.join("iso");
    fs::create_dir_all(&dir)?;
    let iso = dir.join(format!("{name}-{tag}.iso"));
    // Several tests may want the same image at once: each makes its own, the last one stays.
    let partial = iso.with_extension(format!("{}.{:?}.iso", std::process::id(), std::thread::current().id()));
    let image = Image { words: Words::parse(command_line)?, timeout: 0, ..Image::new(kernel) };
    image.write_iso(&partial)?;
    fs::rename(&partial, &iso).with_context(|| format!("cannot write {}", iso.display()))?;
    Ok(iso)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_kernel_asks_its_question() {
        let programs = programs().unwrap();
        assert!(!programs.is_empty());
        for name in programs {
            assert!(question(&name).ends_with('?'), "{name}.rs must begin with the one question it asks");
        }
    }
}
