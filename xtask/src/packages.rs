//! Packages of this machine's own archive, unpacked in the cache: of its own architecture, or of another one. Needs no
//! rights and changes nothing of the system.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use crate::run::Cmd;
use crate::{fetch, paths, ui};

/// Lists of another architecture are fetched anew when they are older than this.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);

/// Whose packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// This machine's, from the lists that it has.
    Own,
    /// 32-bit PC, from lists of its own in the cache.
    I386,
}

/// The archive as apt knows it.
#[derive(Clone, Debug)]
pub struct Archive {
    /// What apt is told on each call.
    options: Vec<String>,
}

impl Archive {
    /// The archive for an architecture. For another than this machine's, apt gets a state directory in the cache, and its
    /// lists are fetched when there are none or they are a day old.
    ///
    /// # Errors
    /// When the lists cannot be had.
    pub fn open(architecture: Architecture) -> Result<Self> {
        match architecture {
            Architecture::Own => Ok(Archive { options: vec![fetch::NOTHING_INSTALLED.into()] }),
            Architecture::I386 => Self::foreign("i386"),
        }
    }

    fn foreign(name: &str) -> Result<Self> {
        let dir = paths::cache_dir()?.join(format!("apt-{name}"));
        let (state, cache) = (dir.join("state"), dir.join("cache"));
        fs::create_dir_all(state.join("lists/partial"))?;
        fs::create_dir_all(cache.join("archives/partial"))?;
        let option = |key: &str, value: &Path| format!("{key}={}", value.display());
        let archive = Archive {
            options: vec![
                format!("APT::Architecture={name}"),
                format!("APT::Architectures={name}"),
                option("Dir::State", &state),
                fetch::NOTHING_INSTALLED.into(),
                option("Dir::Cache", &cache),
            ],
        };
        let fetched = dir.join("fetched");
        let age = fs::metadata(&fetched).and_then(|m| m.modified()).ok();
        if age.and_then(|time| SystemTime::now().duration_since(time).ok()).is_none_or(|age| age > STALE) {
            let step = ui::step(format!("get the package lists for {name}"));
            // A list that cannot be had (another architecture has none everywhere) is no reason to stop; a package that is
            // then not known is.
            let done = archive.apt("apt-get", &["-q", "update"]).timeout(Duration::from_secs(600)).run()?;
            if done.ok() {
                fs::write(&fetched, "")?;
                step.done();
            } else {
                step.done_with("not all of them");
            }
        }
        Ok(archive)
    }

    /// A call of one of apt's programs.
    fn apt(&self, program: &str, words: &[&str]) -> Cmd<'static> {
        let options = self.options.iter().flat_map(|option| ["-o", option.as_str()]);
        Cmd::new(program).args(options).args(words).env("LC_ALL", "C")
    }

    /// A package's record.
    ///
    /// # Errors
    /// When apt does not know it.
    pub fn record(&self, package: &str) -> Result<String> {
        self.apt("apt-cache", &["show", "--no-all-versions", package]).check()
    }

    /// A package and all that it depends on, by name: what would be installed on an empty system.
    ///
    /// # Errors
    /// When apt does not know it.
    pub fn closure(&self, packages: &[&str]) -> Result<BTreeSet<String>> {
        let words = ["-o", "Debug::NoLocking=1", "--print-uris", "-y", "-qq"];
        let words = [&words[..], &["--no-install-recommends", "install"], packages].concat();
        let text = self.apt("apt-get", &words).check()?;
        let names: BTreeSet<String> = text.lines().filter_map(package_of_uri).collect();
        if names.is_empty() {
            bail!("apt would install nothing for {}", packages.join(" "));
        }
        Ok(names)
    }

    /// Downloads a package into the cache and unpacks it there, once; its tree.
    ///
    /// # Errors
    /// When apt does not know it, or it cannot be had.
    pub fn unpacked(&self, name: &str) -> Result<PathBuf> {
        let trees = self.all_unpacked(&[name])?;
        trees.into_iter().next().with_context(|| format!("apt says nothing of `{name}`"))
    }

    /// The same for several packages, with one question to apt.
    ///
    /// # Errors
    /// As [`Archive::unpacked`].
    pub fn all_unpacked(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let cache = paths::cache_dir()?;
        let step = match names {
            [name] => ui::step(format!("get the package {name}")),
            _ => ui::step(format!("get {} packages", names.len())),
        };
        let get = || -> Result<Vec<PathBuf>> {
            let sources = fetch::archive_files_with(names, &self.options)?;
            let mut trees = Vec::new();
            for source in &sources {
                step.detail(source.name());
                let package = fetch::archived(source, &cache.join("downloads"))?;
                let tree = cache.join("packages").join(package.file_stem().unwrap_or_default());
                if !tree.is_dir() {
                    unpack(&package, &tree)?;
                }
                trees.push(tree);
            }
            Ok(trees)
        };
        let got = get();
        match &got {
            Ok(_) => step.done(),
            Err(_) => step.failed("not to be had"),
        }
        got
    }
}

/// Unpacks a package to `tree`; somebody else may do the same at the same time.
fn unpack(package: &Path, tree: &Path) -> Result<()> {
    let partial = fetch::partial(tree);
    fs::create_dir_all(&partial)?;
    Cmd::new("dpkg-deb").arg("-x").arg(package).arg(&partial).check()?;
    if let Err(error) = fs::rename(&partial, tree) {
        // Somebody else was faster, which is as good.
        fs::remove_dir_all(&partial)?;
        if !tree.is_dir() {
            return Err(error).with_context(|| format!("cannot write {}", tree.display()));
        }
    }
    Ok(())
}

/// The package's name in a line of `apt-get --print-uris`: `'URL' NAME_VERSION_ARCHITECTURE.deb ...`.
fn package_of_uri(line: &str) -> Option<String> {
    let file = line.strip_prefix('\'')?.split_once("' ")?.1.split_whitespace().next()?;
    file.ends_with(".deb").then(|| file.split_once('_').map(|(name, _)| name.to_owned())).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_apt_s_list() {
        let line =
            "'http://a.example/pool/z/zlib1g_1.2.13_amd64.deb' zlib1g_1%3a1.2.13_amd64.deb 8 MD5Sum:ec";
        assert_eq!(package_of_uri(line).as_deref(), Some("zlib1g"));
        assert_eq!(package_of_uri("E: nothing"), None);
        assert_eq!(package_of_uri("'http://a.example/x' x 1"), None);
    }
}
