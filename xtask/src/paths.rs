//! Where things are: the workspace, what a build leaves in it, and the cache outside it.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The target triple of the kernel and of the test guests.
pub const KERNEL_TARGET: &str = "x86_64-unknown-none";

/// The root of the workspace, that is the directory of the top `Cargo.toml`.
pub fn root() -> PathBuf {
    // Cargo rebuilds this crate when the workspace moves, so the compiled-in place is the true one.
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map(Path::to_path_buf).unwrap_or_else(|| PathBuf::from("."))
}

/// Cargo's target directory, as `CARGO_TARGET_DIR` says or as this very program lies in it.
pub fn target_dir() -> PathBuf {
    if let Some(dir) = env::var_os("CARGO_TARGET_DIR").filter(|d| !d.is_empty()) {
        return root().join(dir);
    }
    let exe = env::current_exe().unwrap_or_default();
    exe.ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").is_file())
        .map(Path::to_path_buf)
        .unwrap_or_else(|| root().join("target"))
}

/// The directory for what the tools produce (images, logs, captures): `out/` in the target directory. Created.
pub fn out_dir() -> Result<PathBuf> {
    create(target_dir().join("out"))
}

/// A fresh, empty directory `out/<name>` for one run's files; what an earlier run left there is removed.
pub fn fresh_out_dir(name: &str) -> Result<PathBuf> {
    let dir = out_dir()?.join(name);
    if dir.exists() {
        std::fs::remove_dir_all(&dir).with_context(|| format!("cannot empty {}", dir.display()))?;
    }
    create(dir)
}

/// The cache outside the tree: `$LOCKSTEP_CACHE`, else `$XDG_CACHE_HOME/lockstep`, else `~/.cache/lockstep`. Created.
pub fn cache_dir() -> Result<PathBuf> {
    let var = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let dir = cache_from(var("LOCKSTEP_CACHE"), var("XDG_CACHE_HOME"), var("HOME")).context(
        "no place for the cache: neither LOCKSTEP_CACHE, XDG_CACHE_HOME nor HOME is set; set LOCKSTEP_CACHE",
    )?;
    create(std::path::absolute(dir)?)
}

fn cache_from(own: Option<PathBuf>, xdg: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    own.or_else(|| xdg.map(|dir| dir.join("lockstep")))
        .or_else(|| home.map(|dir| dir.join(".cache/lockstep")))
}

/// The kernel's ELF file, as `cargo build --release -p lockstep --target x86_64-unknown-none` leaves it.
pub fn kernel() -> PathBuf {
    target_dir().join(KERNEL_TARGET).join("release/lockstep")
}

/// A path as people like to read it: relative to the workspace when it lies inside.
pub fn show(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn create(dir: PathBuf) -> Result<PathBuf> {
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_prefers_its_own_variable() {
        let p = |s: &str| Some(PathBuf::from(s));
        assert_eq!(cache_from(p("/a"), p("/b"), p("/c")), p("/a"));
        assert_eq!(cache_from(None, p("/b"), p("/c")), p("/b/lockstep"));
        assert_eq!(cache_from(None, None, p("/c")), p("/c/.cache/lockstep"));
        assert_eq!(cache_from(None, None, None), None);
    }

    #[test]
    fn the_root_holds_the_workspace() {
        let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[workspace]"));
    }
}
