//! Programs of packages for an initial file system: each with the libraries that it needs, found among the packages that its own
//! package depends on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::cpio::Archive;
use crate::packages;

/// Packages that programs depend on for being installed, not for running.
const FOR_INSTALLING: &[&str] =
    &["perl", "dpkg", "debconf", "adduser", "passwd", "tar", "usrmerge", "init-system-helpers", "python3"];
/// Where Debian's dynamic linker looks by itself.
const LIBRARIES: &str = "lib/x86_64-linux-gnu";

/// The unpacked packages that some packages need.
pub struct Trees(Vec<PathBuf>);

impl Trees {
    /// These packages and what they depend on.
    ///
    /// # Errors
    /// When apt does not know one, or it cannot be had.
    pub fn of(names: &[&str]) -> Result<Self> {
        let archive = packages::Archive::open(packages::Architecture::Own)?;
        let needed = archive.closure(names)?;
        let wanted = needed.iter().filter(|name| !FOR_INSTALLING.iter().any(|no| name.starts_with(no)));
        let wanted: Vec<&str> = wanted.map(String::as_str).collect();
        Ok(Trees(archive.all_unpacked(&wanted)?))
    }

    /// The first of the places where a package has put a file; `path` is absolute.
    fn file(&self, path: &str) -> Option<PathBuf> {
        let path = path.trim_start_matches('/');
        let places = [path.to_owned(), format!("usr/{path}")];
        self.0
            .iter()
            .flat_map(|tree| places.iter().map(move |place| tree.join(place)))
            .find(|file| file.is_file())
    }

    /// A library by its name.
    fn library(&self, name: &str) -> Option<PathBuf> {
        ["lib/x86_64-linux-gnu", "lib64", "lib"].iter().find_map(|dir| self.file(&format!("{dir}/{name}")))
    }

    /// Adds programs, each under its own path, and all the libraries that they need, to an archive that has `bin` and `lib`.
    ///
    /// # Errors
    /// When a program or a library is in none of the packages.
    pub fn add(&self, mut archive: Archive, programs: &[&str]) -> Result<Archive> {
        archive = archive.directory("lib/x86_64-linux-gnu").directory("lib64");
        let mut directories = BTreeSet::new();
        let mut libraries = BTreeMap::new();
        for program in programs {
            let file = self.file(program).with_context(|| format!("no package has the program {program}"))?;
            let bytes = fs::read(&file)?;
            self.needs(program, &bytes, &mut libraries)?;
            for dir in Path::new(program.trim_start_matches('/'))
                .ancestors()
                .skip(1)
                .collect::<Vec<_>>()
                .iter()
                .rev()
            {
                let dir = dir.display().to_string();
                if !dir.is_empty() && directories.insert(dir.clone()) {
                    archive = archive.directory(&dir);
                }
            }
            archive = archive.program(program, &bytes);
        }
        for (name, bytes) in &libraries {
            let dir = if name.starts_with("ld-linux") { "lib64" } else { LIBRARIES };
            archive = archive.program(&format!("{dir}/{name}"), bytes);
        }
        Ok(archive)
    }

    /// The libraries of a program or library, and theirs.
    fn needs(&self, who: &str, bytes: &[u8], all: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
        for name in needed(bytes).with_context(|| format!("{who} is no 64-bit ELF file"))? {
            if all.contains_key(&name) {
                continue;
            }
            let Some(file) = self.library(&name) else { bail!("{who} needs {name}, which no package has") };
            let library = fs::read(file)?;
            all.insert(name.clone(), library.clone());
            self.needs(&name, &library, all)?;
        }
        Ok(())
    }
}

/// The names of the shared libraries that an ELF file needs, its dynamic linker included (System V ABI, "Dynamic section").
fn needed(elf: &[u8]) -> Option<Vec<String>> {
    const LOAD: u64 = 1;
    const DYNAMIC: u64 = 2;
    const INTERPRETER: u64 = 3;
    if elf.get(..5)? != [0x7f, b'E', b'L', b'F', 2] {
        return None;
    }
    let word = |at: usize, bytes: usize| -> Option<u64> {
        let field = elf.get(at..at.checked_add(bytes)?)?;
        Some(field.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    };
    let text = |at: usize| -> Option<String> {
        let rest = elf.get(at..)?;
        let end = rest.iter().position(|&byte| byte == 0)?;
        Some(String::from_utf8_lossy(&rest[..end]).into_owned())
    };
    let (table, entry, count) = (word(32, 8)? as usize, word(54, 2)? as usize, word(56, 2)? as usize);
    // Type, offset in the file, address, size in the file.
    let segments: Vec<[u64; 4]> = (0..count)
        .map(|n| {
            let at = table + n * entry;
            Some([word(at, 4)?, word(at + 8, 8)?, word(at + 16, 8)?, word(at + 32, 8)?])
        })
        .collect::<Option<_>>()?;
    let in_file = |address: u64| {
        let load = segments.iter().find(|s| s[0] == LOAD && (s[2]..s[2] + s[3]).contains(&address))?;
        Some((address - load[2] + load[1]) as usize)
    };
    let mut names = Vec::new();
    for segment in &segments {
        if segment[0] == INTERPRETER {
            names.push(text(segment[1] as usize)?.rsplit('/').next()?.to_owned());
        }
        if segment[0] != DYNAMIC {
            continue;
        }
        let entries: Vec<(u64, u64)> = (0..segment[3] as usize / 16)
            .map(|n| {
                Some((word(segment[1] as usize + n * 16, 8)?, word(segment[1] as usize + n * 16 + 8, 8)?))
            })
            .collect::<Option<_>>()?;
        // DT_STRTAB is 5, DT_NEEDED 1.
        let strings = in_file(entries.iter().find(|(tag, _)| *tag == 5)?.1)?;
        for (_, offset) in entries.iter().filter(|(tag, _)| *tag == 1) {
            names.push(text(strings + *offset as usize)?);
        }
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_s_libraries_are_read_from_it() {
        // This very program is dynamically linked.
        let me = fs::read(std::env::current_exe().unwrap()).unwrap();
        let names = needed(&me).unwrap();
        assert!(names.iter().any(|name| name.starts_with("libc.so")), "{names:?}");
        assert!(names.iter().any(|name| name.starts_with("ld-")), "{names:?}");
        assert_eq!(needed(b"#!/bin/sh"), None);
        assert_eq!(needed(&me[..100]), None);
    }
}
