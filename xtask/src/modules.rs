//! Kernel modules in a kernel package: finding one by its name, its bytes, what it needs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::paths;
use crate::run::{Cmd, find_program};

/// All modules of a kernel package, by name with underscores.
#[derive(Clone, Debug)]
pub struct Modules(BTreeMap<String, PathBuf>);

impl Modules {
    /// The modules anywhere below `tree`.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn of(tree: &Path) -> Result<Self> {
        let mut all = BTreeMap::new();
        collect(tree, &mut all)?;
        Ok(Modules(all))
    }

    /// The module's bytes, unpacked; `None` when there is no such module (it may be built in).
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn bytes(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.0.get(&plain(name)).map(|file| contents(file)).transpose()
    }

    /// These modules and all that they need, each after its needs, with their bytes. Those that are not there are left out.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn with_needs(&self, names: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
        let mut ordered = Vec::new();
        for name in names {
            self.add(name, &mut ordered)?;
        }
        Ok(ordered)
    }

    fn add(&self, name: &str, ordered: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
        let name = plain(name);
        if ordered.iter().any(|(have, _)| *have == name) {
            return Ok(());
        }
        let Some(bytes) = self.bytes(&name)? else { return Ok(()) };
        for need in needs(&bytes) {
            self.add(&need, ordered)?;
        }
        ordered.push((name, bytes));
        Ok(())
    }
}

/// Those of `names` that are anywhere below `tree`, under the names given.
///
/// # Errors
/// When a file cannot be read.
pub fn found(tree: &Path, names: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
    let modules = Modules::of(tree)?;
    let mut found = Vec::new();
    for name in names {
        if let Some(bytes) = modules.bytes(name)? {
            found.push(((*name).to_owned(), bytes));
        }
    }
    Ok(found)
}

/// Dashes and underscores are the same in a module's name.
fn plain(name: &str) -> String {
    name.replace('-', "_")
}

fn collect(dir: &Path, all: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            collect(&path, all)?;
        } else if let Some(name) = module_name(&entry.file_name().to_string_lossy()) {
            all.insert(name, path);
        }
    }
    Ok(())
}

/// The module that a file of this name is; it may be compressed.
fn module_name(file: &str) -> Option<String> {
    let (stem, rest) = file.split_once(".ko")?;
    matches!(rest, "" | ".xz" | ".zst" | ".gz").then(|| plain(stem))
}

/// The modules that a module needs: the string `depends=a,b` in its section `.modinfo`.
fn needs(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let rest = &module[at + KEY.len()..];
    let text = &rest[..rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len())];
    String::from_utf8_lossy(text).split(',').filter(|name| !name.is_empty()).map(plain).collect()
}

/// The module's bytes.
fn contents(file: &Path) -> Result<Vec<u8>> {
    let tool = match file.extension().and_then(|e| e.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(file).with_context(|| format!("cannot read {}", file.display())),
    };
    if find_program(tool).is_none() {
        bail!("{} is compressed; install `{tool}` to unpack it", file.display());
    }
    let plain = paths::out_dir()?.join(format!("module-{}.ko", std::process::id()));
    let command = format!("{tool} -dc {:?} > {:?}", file.display().to_string(), plain.display().to_string());
    Cmd::new("sh").args(["-c", &command]).check()?;
    let bytes = fs::read(&plain)?;
    fs::remove_file(&plain)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_known_by_any_spelling() {
        assert_eq!(module_name("kvm-intel.ko").as_deref(), Some("kvm_intel"));
        assert_eq!(module_name("kvm_intel.ko.xz").as_deref(), Some("kvm_intel"));
        assert_eq!(module_name("kvm.ko.zst").as_deref(), Some("kvm"));
        assert_eq!(module_name("kvm.ko.sig"), None);
        assert_eq!(module_name("kvm"), None);
    }

    #[test]
    fn needs_are_read_from_the_module() {
        assert_eq!(needs(b"x\0depends=mii,net-failover\0name=a\0"), ["mii", "net_failover"]);
        assert!(needs(b"x\0depends=\0name=a\0").is_empty());
        assert!(needs(b"nothing").is_empty());
    }

    #[test]
    fn each_module_comes_after_its_needs_and_once() {
        let dir = std::env::temp_dir().join(format!("lockstep-modules-{}", std::process::id()));
        fs::create_dir_all(dir.join("a")).unwrap();
        for (name, needs) in [("top", "left,right"), ("left", "low"), ("right", "low"), ("low", "")] {
            fs::write(dir.join(format!("a/{name}.ko")), format!("\0depends={needs}\0")).unwrap();
        }
        let order = Modules::of(&dir).unwrap().with_needs(&["top", "low", "builtin"]).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(
            order.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            ["low", "left", "right", "top"]
        );
    }
}
