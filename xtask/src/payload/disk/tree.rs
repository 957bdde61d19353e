//! A root file system as a directory: unpacked packages laid over each other, with `/bin`, `/sbin` and `/lib` inside `/usr`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Directories at the root that are links into `/usr`.
const IN_USR: &[&str] = &["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// What no program needs to run: left out, for the sake of the disk's size.
const LEFT_OUT: &[&str] = &[
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/lintian",
    "usr/share/bug",
];
/// Parts of a path that are left out: the C library's character sets.
const CHARACTER_SETS: &str = "gconv";
/// Directories that every system has.
const DIRECTORIES: &[&str] = &[
    "boot/grub/i386-pc",
    "dev",
    "etc/init.d",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "usr",
    "var/lib",
    "var/log",
];

/// Makes `root` of these trees.
///
/// # Errors
/// When something cannot be read or written.
pub fn merged(root: &Path, trees: &[PathBuf]) -> Result<()> {
    for directory in DIRECTORIES {
        fs::create_dir_all(root.join(directory))?;
    }
    for name in IN_USR {
        fs::create_dir_all(root.join("usr").join(name))?;
        symlink(format!("usr/{name}"), root.join(name))?;
    }
    for tree in trees {
        lay(root, tree, Path::new("")).with_context(|| format!("cannot copy {}", tree.display()))?;
    }
    // Its package leaves this link to be made at installation.
    if !root.join("usr/bin/sh").is_symlink() {
        symlink("dash", root.join("usr/bin/sh"))?;
    }
    Ok(())
}

/// Copies what is in `tree/at` to its place in `root`.
fn lay(root: &Path, tree: &Path, at: &Path) -> Result<()> {
    for entry in fs::read_dir(tree.join(at))? {
        let entry = entry?;
        let name = at.join(entry.file_name());
        if LEFT_OUT.iter().any(|out| name == Path::new(out)) || name.ends_with(CHARACTER_SETS) {
            continue;
        }
        let (from, to) = (entry.path(), root.join(place(&name)));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            fs::create_dir_all(&to)?;
            lay(root, tree, &name)?;
        } else if kind.is_symlink() {
            // The links of a package that has its files in /usr already.
            if !to.is_dir() {
                let _ = fs::remove_file(&to);
                symlink(fs::read_link(&from)?, &to)?;
            }
        } else if kind.is_file() {
            fs::copy(&from, &to).with_context(|| format!("cannot write {}", to.display()))?;
        }
    }
    Ok(())
}

/// Where a file of a package lies: below `/usr` if its directory at the root is a link.
fn place(name: &Path) -> PathBuf {
    let merged = IN_USR.iter().any(|directory| name.starts_with(directory));
    if merged { Path::new("usr").join(name) } else { name.to_owned() }
}

/// Writes a file; its directories are made.
///
/// # Errors
/// When it cannot be written.
pub fn put(root: &Path, name: &str, contents: &[u8]) -> Result<()> {
    let file = root.join(name);
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(&file, contents).with_context(|| format!("cannot write {}", file.display()))
}

/// Writes a file that may be executed.
///
/// # Errors
/// When it cannot be written.
pub fn put_program(root: &Path, name: &str, contents: &[u8]) -> Result<()> {
    put(root, name, contents)?;
    Ok(fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o755))?)
}

/// The files in a directory, by name.
///
/// # Errors
/// When it cannot be read.
pub fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut files: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|file| file.is_file());
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_of_either_layout_end_in_usr() {
        let dir = std::env::temp_dir().join(format!("lockstep-tree-{}", std::process::id()));
        let (old, new, root) = (dir.join("old"), dir.join("new"), dir.join("root"));
        put_program(&old, "bin/dash", b"old").unwrap();
        put(&old, "usr/share/doc/dash/copyright", b"text").unwrap();
        put(&old, "usr/lib/gconv/A.so", b"text").unwrap();
        put(&new, "usr/bin/cat", b"new").unwrap();
        symlink("usr/bin", new.join("bin")).unwrap();
        merged(&root, &[old, new]).unwrap();
        assert_eq!(fs::read_link(root.join("bin")).unwrap(), Path::new("usr/bin"));
        for (name, contents) in [("usr/bin/dash", "old"), ("bin/cat", "new"), ("bin/sh", "old")] {
            assert_eq!(fs::read_to_string(root.join(name)).unwrap(), contents, "{name}");
        }
        assert_eq!(fs::metadata(root.join("bin/dash")).unwrap().permissions().mode() & 0o777, 0o755);
        assert!(!root.join("usr/share/doc").exists() && !root.join("usr/lib/gconv").exists());
        fs::remove_dir_all(dir).unwrap();
    }
}
