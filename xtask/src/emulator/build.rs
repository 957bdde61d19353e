//! Building the emulator: source, our files, our patches, one make; the result in the cache under a key that names all of
//! them, so that it is built once and never stale.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::source::{self, Archive};
use crate::run::Cmd;
use crate::{fetch, paths, ui};

/// Part of the key: raise it when the way of building changes.
const RECIPE: &str = "recipe 1";

/// Which emulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Bochs with our files and patches.
    Ours,
    /// Bochs as it comes, with the same flags: what ours is compared with.
    Stock,
}

impl Variant {
    fn name(self) -> &'static str {
        match self {
            Variant::Ours => "ours",
            Variant::Stock => "stock",
        }
    }
}

/// What an emulator is made of, beside the source.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// Flags for `configure`.
    pub flags: Vec<String>,
    /// Our files: path within the source tree, contents.
    pub files: Vec<(PathBuf, Vec<u8>)>,
    /// Our patches in the order of their names: name, contents.
    pub patches: Vec<(String, Vec<u8>)>,
    /// What the compiler says it is.
    pub compiler: String,
}

impl Recipe {
    /// Reads the recipe of `variant` from `xtask/bochs`.
    ///
    /// # Errors
    /// When a file cannot be read or there is no compiler.
    pub fn read(variant: Variant) -> Result<Self> {
        let dir = paths::root().join("xtask/bochs");
        let flags = fs::read_to_string(dir.join("configure.flags"))
            .context("cannot read xtask/bochs/configure.flags")?;
        let version = Cmd::new("g++").arg("--version").check().context("the emulator is built with g++")?;
        let mut recipe = Recipe {
            flags: parse_flags(&flags),
            files: Vec::new(),
            patches: Vec::new(),
            compiler: version.lines().next().unwrap_or_default().into(),
        };
        if variant == Variant::Ours {
            recipe.files = files_below(&dir.join("src"))?;
            recipe.patches = files_below(&dir.join("patches"))?
                .into_iter()
                .filter(|(name, _)| name.extension().is_some_and(|e| e == "patch"))
                .map(|(name, text)| (name.display().to_string(), text))
                .collect();
        }
        Ok(recipe)
    }

    /// The key of the result: equal for equal inputs, different for any change.
    pub fn key(&self, archive: &Archive) -> String {
        let mut hash = Sha256::new();
        // Each piece with its length before it, so that no two lists of pieces look alike.
        let mut add = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        add(RECIPE.as_bytes());
        add(archive.sha256.as_bytes());
        add(self.compiler.as_bytes());
        add(self.flags.join("\n").as_bytes());
        for (path, contents) in &self.files {
            add(path.as_os_str().as_encoded_bytes());
            add(contents);
        }
        add(b"patches");
        for (name, contents) in &self.patches {
            add(name.as_bytes());
            add(contents);
        }
        fetch::hex(&hash.finalize()[..12])
    }
}

/// Flags are one per line; empty lines and lines from `#` on are comments.
fn parse_flags(text: &str) -> Vec<String> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(String::from)
        .collect()
}

/// All files below a directory with their contents, sorted by path; none if there is no such directory.
fn files_below(dir: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_path_buf()];
    while let Some(next) = todo.pop() {
        let Ok(entries) = fs::read_dir(&next) else { continue };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                todo.push(path);
            } else {
                let contents = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                found.push((path.strip_prefix(dir)?.to_path_buf(), contents));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The emulator of this variant if it is in the cache, up to date.
///
/// # Errors
/// When the recipe cannot be read.
pub fn cached(variant: Variant) -> Result<Option<PathBuf>> {
    let recipe = Recipe::read(variant)?;
    let cache = paths::cache_dir()?.join("emulator");
    let binaries = source::ARCHIVES.into_iter().map(|archive| cache.join(recipe.key(archive)).join("bochs"));
    Ok(binaries.into_iter().find(|binary| binary.is_file()))
}

/// The emulator of this variant, from the cache if it is there, else built now.
///
/// # Errors
/// When the source cannot be had, a tool is missing, or the build fails.
pub fn ensure(variant: Variant) -> Result<PathBuf> {
    if let Some(binary) = cached(variant)? {
        return Ok(binary);
    }
    let recipe = Recipe::read(variant)?;
    let cache = paths::cache_dir()?.join("emulator");
    fs::create_dir_all(&cache)?;
    let (tarball, archive) = source::locate()?;
    let key = recipe.key(archive);
    let _lock = lock(&cache.join(format!("{key}.lock")))?;
    let binary = cache.join(&key).join("bochs");
    if !binary.is_file() {
        make(variant, &recipe, &tarball, &cache, &key)?;
    }
    Ok(binary)
}

/// Takes the lock, waiting for another builder if there is one. It is let go when the file is closed.
fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    if file.try_lock().is_err() {
        let step = ui::step("wait for another build of the emulator");
        file.lock()?;
        step.done();
    }
    Ok(file)
}

/// Builds in a directory of its own and moves the result into place in one step.
fn make(variant: Variant, recipe: &Recipe, tarball: &Path, cache: &Path, key: &str) -> Result<()> {
    let work = cache.join(format!("{key}.build"));
    let log = cache.join(format!("{key}.log"));
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    let tree = work.join("tree");
    fs::create_dir_all(&tree)?;
    let step = ui::step(format!("build the emulator (Bochs 3.0, {}; once, a few minutes)", variant.name()));
    step.detail("unpack");
    Cmd::new("tar").args(["--strip-components=1", "-xf"]).arg(tarball).arg("-C").arg(&tree).check()?;
    prepare(recipe, &work, &tree)?;
    step.detail("configure");
    let configure = log.with_extension("configure.log");
    Cmd::new("./configure").args(&recipe.flags).cwd(&tree).log(&configure).check()?;
    compile(&tree, &log, &step)?;
    let ready = work.join("ready");
    fs::create_dir_all(&ready)?;
    fs::copy(tree.join("bochs"), ready.join("bochs"))?;
    let what = format!("{}\n{}\n{}\n", variant.name(), recipe.compiler, recipe.flags.join(" "));
    fs::write(ready.join("made-of"), what)?;
    fs::rename(&ready, cache.join(key))?;
    fs::remove_dir_all(&work)?;
    step.done();
    Ok(())
}

/// Puts our files and patches into the tree.
fn prepare(recipe: &Recipe, work: &Path, tree: &Path) -> Result<()> {
    for (path, contents) in &recipe.files {
        let place = tree.join(path);
        if let Some(dir) = place.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::write(&place, contents)?;
    }
    for (name, contents) in &recipe.patches {
        let file = work.join(name);
        fs::write(&file, contents)?;
        // No fuzz: a hook that lands a few lines away may still compile and be wrong.
        let patch = Cmd::new("patch").args(["-p1", "--fuzz=0", "--forward", "--batch", "-i"]).arg(&file);
        patch.cwd(tree).check().with_context(|| format!("xtask/bochs/patches/{name} does not apply"))?;
    }
    Ok(())
}

fn compile(tree: &Path, log: &Path, step: &ui::Step) -> Result<()> {
    let plan = Cmd::new("make").args(["-n", "bochs"]).cwd(tree).check()?;
    let total = plan.lines().filter(|line| compiles(line)).count();
    let mut done = 0;
    let jobs = std::thread::available_parallelism().map_or(1, |n| n.get());
    let make = Cmd::new("make").arg(format!("-j{jobs}")).arg("bochs").cwd(tree).log(log).on_line(|line| {
        if compiles(line) {
            done += 1;
            step.detail(format!("{done} of {total} files"));
        }
    });
    make.check()?;
    if !tree.join("bochs").is_file() {
        bail!("make ended well and left no emulator; see {}", log.display());
    }
    Ok(())
}

/// Whether this line of make's output compiles a file.
fn compiles(line: &str) -> bool {
    let mut words = line.split_whitespace();
    matches!(words.next(), Some("g++" | "gcc" | "cc" | "c++")) && words.any(|word| word == "-c")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe() -> Recipe {
        Recipe {
            flags: vec!["--a".into(), "--b".into()],
            files: vec![("cpu/x.cc".into(), b"one".to_vec())],
            patches: vec![("01.patch".into(), b"diff".to_vec())],
            compiler: "g++ 12".into(),
        }
    }

    #[test]
    fn the_key_changes_with_every_input() {
        let key = recipe().key(&source::DEBIAN);
        assert_eq!(key, recipe().key(&source::DEBIAN));
        let mut others = vec![recipe(); 6];
        others[0].flags.pop();
        others[1].files[0].1.push(b'!');
        others[2].files[0].0 = "cpu/y.cc".into();
        others[3].patches[0].1.push(b'!');
        others[4].compiler.push('3');
        others[5].patches.clear();
        for other in others {
            assert_ne!(key, other.key(&source::DEBIAN), "{other:?}");
        }
        assert_ne!(key, recipe().key(&source::UPSTREAM));
    }

    #[test]
    fn flags_have_comments() {
        assert_eq!(parse_flags("# why\n--x\n\n  --y=1  \n"), ["--x", "--y=1"]);
    }

    #[test]
    fn compilations_are_counted_and_links_are_not() {
        assert!(compiles("g++ -O2 -c -I. main.cc -o main.o"));
        assert!(!compiles("g++ -o bochs -O2 main.o"));
        assert!(!compiles("make -C cpu -c"));
    }
}
