//! Boot media: what goes onto them, and the two forms they take (a hybrid ISO image, a directory for PXE).
//!
//! The loader is GRUB, one image per firmware with every module it needs inside, so that a medium has few files and
//! a network boot few transfers. The kernel gets its command line, then its modules in the order given; the
//! configuration, if there is one, is the first module and its string begins with `config`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

pub mod dnsmasq;
mod grub;
mod iso;
pub mod loader;
mod pxe;

pub use pxe::{BIOS_LOADER, Host, Mac, Pxe, UEFI_LOADER};

/// The name under which the kernel finds its configuration among the modules.
pub const CONFIG_NAME: &str = "config";
/// How long the menu waits for a key by default, seconds.
pub const DEFAULT_TIMEOUT: u32 = 3;
/// The date of everything on a medium when `SOURCE_DATE_EPOCH` is not set, seconds since 1970: a constant, so that the
/// same input gives the same bytes.
const DEFAULT_DATE: u64 = 1_700_000_000;

/// What goes onto a boot medium.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The kernel's ELF file.
    pub kernel: PathBuf,
    /// The words of its command line.
    pub words: Words,
    /// The configuration module.
    pub config: Option<PathBuf>,
    /// More modules, in order.
    pub modules: Vec<Module>,
    /// How long the menu waits for a key, seconds; 0 boots at once and shows no menu.
    pub timeout: u32,
}

/// A file that the loader puts into memory for the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// The file.
    pub file: PathBuf,
    /// The first word of the module's string.
    pub name: String,
    /// The other words.
    pub words: Words,
}

/// Words for the kernel. GRUB quotes and expands in its own way and the kernel does not undo it, so only characters
/// that mean nothing to either are allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words(Vec<String>);

impl Words {
    /// Takes words apart at white space.
    ///
    /// # Errors
    /// When a character is not allowed; the message names it.
    pub fn parse(text: &str) -> Result<Self> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=.,:/@+%~".contains(c);
        match text.chars().find(|&c| !c.is_whitespace() && !plain(c)) {
            Some(c) => {
                bail!(
                    "{text:?} contains {c:?}; words for the kernel are made of letters, digits and -_=.,:/@+%~"
                )
            }
            None => Ok(Words(text.split_whitespace().map(String::from).collect())),
        }
    }

    /// These words with others added; an added `key=value` replaces an earlier one with the same key.
    pub fn with(&self, more: &Words) -> Words {
        let key = |word: &str| word.split_once('=').map(|(key, _)| key.to_owned());
        let replaced = |word: &String| more.0.iter().any(|new| key(new).is_some() && key(new) == key(word));
        let kept = self.0.iter().filter(|word| !replaced(word)).cloned();
        Words(kept.chain(more.0.iter().cloned()).collect())
    }
}

impl std::fmt::Display for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

impl Module {
    /// A module from `FILE[:WORDS]`; the file's name becomes its name.
    ///
    /// # Errors
    /// When the file's name or the words have characters that the loader would change.
    pub fn parse(text: &str) -> Result<Self> {
        let (file, words) = text.split_once(':').unwrap_or((text, ""));
        let file = PathBuf::from(file);
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if name.is_empty() {
            bail!("{text:?} names no file");
        }
        match Words::parse(&name) {
            Ok(words) if words.0.len() == 1 => {}
            Ok(_) => bail!("the module's file name {name:?} has white space in it; rename the file"),
            Err(error) => {
                return Err(error.context("the module's file name becomes its name; rename the file"));
            }
        }
        Ok(Module { file, name, words: Words::parse(words)? })
    }
}

impl Image {
    /// A medium with this kernel, an empty command line and the usual time-out.
    pub fn new(kernel: impl Into<PathBuf>) -> Self {
        Image {
            kernel: kernel.into(),
            words: Words::default(),
            config: None,
            modules: Vec::new(),
            timeout: DEFAULT_TIMEOUT,
        }
    }

    /// A medium for one unattended run on an emulated machine: no menu, and the kernel ends the run through the exit
    /// port. `words` come on top.
    ///
    /// # Errors
    /// When `words` are not words for the kernel.
    pub fn for_run(kernel: impl Into<PathBuf>, words: &str) -> Result<Self> {
        let words = Words::parse("exit-port=0xf4 after=exit")?.with(&Words::parse(words)?);
        Ok(Image { words, timeout: 0, ..Image::new(kernel) })
    }

    /// Writes the hybrid ISO image: for a CD drive, or written as it is to a USB stick; for BIOS and UEFI.
    ///
    /// # Errors
    /// When an input or a tool is missing, or the image cannot be written.
    pub fn write_iso(&self, file: &Path) -> Result<()> {
        self.check()?;
        iso::write_image(self, file)
    }

    /// Writes the directory that a TFTP server offers to machines which boot over PXE, with configuration files for
    /// dnsmasq. Files of hosts that `pxe` does not name stay as they are.
    ///
    /// # Errors
    /// When an input or a tool is missing, or the directory cannot be written.
    pub fn write_pxe(&self, dir: &Path, pxe: &Pxe) -> Result<()> {
        self.check()?;
        pxe::write_tree(self, dir, pxe)
    }

    /// Every input must be there, and the kernel must be one that GRUB can load.
    fn check(&self) -> Result<()> {
        let inputs = self.modules.iter().map(|module| &module.file).chain(&self.config);
        for file in inputs {
            if !file.is_file() {
                bail!("there is no file {}", file.display());
            }
        }
        let mut head = Vec::new();
        let kernel = &self.kernel;
        let file = File::open(kernel).with_context(|| {
            format!("there is no kernel {}; `cargo xtask build` makes one", kernel.display())
        })?;
        file.take(MULTIBOOT2_SEARCH).read_to_end(&mut head)?;
        if !has_multiboot2_header(&head) {
            bail!(
                "{} has no Multiboot2 header in its first 32 KiB, so GRUB cannot load it; is it the kernel that \
                 `cargo xtask build` makes?",
                kernel.display()
            );
        }
        Ok(())
    }

    /// A name for exactly this content, by which the loader tells its own medium from others.
    fn id(&self) -> Result<String> {
        let mut hash = Sha256::new();
        hash.update(format!("{} {}", self.words, self.timeout));
        for module in &self.modules {
            hash.update(format!("\n{} {}", module.name, module.words));
        }
        let modules = self.modules.iter().map(|module| &module.file);
        for file in std::iter::once(&self.kernel).chain(&self.config).chain(modules) {
            hash.update(b"\n");
            let mut input = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
            std::io::copy(&mut input, &mut hash)?;
        }
        Ok(hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
    }
}

/// Where a Multiboot2 header must be found, bytes (Multiboot2 specification, 3.1).
const MULTIBOOT2_SEARCH: u64 = 32768;
/// The first word of a Multiboot2 header.
const MULTIBOOT2_MAGIC: u32 = 0xE852_50D6;

/// Whether there is a header: at a multiple of 8, magic, architecture, length and checksum adding up to 0.
fn has_multiboot2_header(bytes: &[u8]) -> bool {
    let sum = |words: &[u8]| {
        words.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).fold(0, u32::wrapping_add)
    };
    bytes.chunks_exact(8).zip(bytes.get(8..).unwrap_or_default().chunks_exact(8)).any(|(first, second)| {
        first[..4] == MULTIBOOT2_MAGIC.to_le_bytes() && sum(first).wrapping_add(sum(second)) == 0
    })
}

/// The date that goes onto media, seconds since 1970: `SOURCE_DATE_EPOCH`, or a constant.
fn date() -> Result<u64> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) if !text.is_empty() => text.parse().with_context(|| {
            format!("SOURCE_DATE_EPOCH is {text:?}; it must be a number of seconds since 1970")
        }),
        _ => Ok(DEFAULT_DATE),
    }
}

/// Sets the modification time of everything in a directory, the directory itself last.
fn set_dates(dir: &Path, date: u64) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            set_dates(&path, date)?;
        } else {
            set_date(&path, date)?;
        }
    }
    set_date(dir, date)
}

fn set_date(path: &Path, date: u64) -> Result<()> {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(date);
    File::open(path)?.set_modified(time).with_context(|| format!("cannot set the date of {}", path.display()))
}

/// Copies `from` to `to`, without its date and rights.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let failed = || format!("cannot copy {} to {}", from.display(), to.display());
    let mut input = File::open(from).with_context(failed)?;
    let mut output = File::create(to).with_context(failed)?;
    std::io::copy(&mut input, &mut output).with_context(failed)?;
    Ok(())
}

/// Writes a text file.
fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The name of a module's file on the medium: numbered, since two modules may have the same name.
fn module_file(index: usize, module: &Module) -> String {
    format!("{index:02}-{}", module.name.replace('/', "-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_and_dangerous_ones_refused() {
        assert_eq!(Words::parse("  a=1  log=debug ").unwrap().to_string(), "a=1 log=debug");
        for bad in ["a'b", "a\"b", "a\\b", "$x", "a;b", "a*", "{", "a\u{e4}", "a\u{0}"] {
            let error = Words::parse(bad).unwrap_err().to_string();
            assert!(error.contains("made of letters"), "{error}");
        }
    }

    #[test]
    fn a_later_word_replaces_an_earlier_one_with_the_same_key() {
        let base = Words::parse("log=info json name=a").unwrap();
        assert_eq!(
            base.with(&Words::parse("log=debug json x").unwrap()).to_string(),
            "json name=a log=debug json x"
        );
    }

    #[test]
    fn modules_take_their_name_from_the_file() {
        let module = Module::parse("/a/disk.img:one two=2").unwrap();
        assert_eq!((module.name.as_str(), module.words.to_string().as_str()), ("disk.img", "one two=2"));
        assert_eq!(module.file, Path::new("/a/disk.img"));
        assert!(Module::parse("/a/my disk.img").unwrap_err().to_string().contains("white space"));
        assert!(Module::parse("/").is_err() && Module::parse("").is_err());
        assert!(Module::parse("/a/x'y").is_err());
    }

    #[test]
    fn the_multiboot2_header_is_recognised() {
        let mut kernel = vec![0u8; 4096];
        assert!(!has_multiboot2_header(&kernel) && !has_multiboot2_header(&[]));
        let words = [MULTIBOOT2_MAGIC, 0, 24, 0u32.wrapping_sub(MULTIBOOT2_MAGIC).wrapping_sub(24)];
        for (at, word) in (64..).step_by(4).zip(words) {
            kernel[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        assert!(has_multiboot2_header(&kernel));
        kernel[64 + 12] ^= 1;
        assert!(!has_multiboot2_header(&kernel), "the checksum counts");
        kernel[64 + 12] ^= 1;
        kernel.insert(0, 0);
        assert!(!has_multiboot2_header(&kernel), "the alignment counts");
    }

    #[test]
    fn media_need_their_inputs() {
        let error = Image::new("/no/such/kernel").check().unwrap_err().to_string();
        assert!(error.contains("cargo xtask build"), "{error}");
        let me = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let error = Image::new(&me).check().unwrap_err().to_string();
        assert!(error.contains("Multiboot2"), "{error}");
        let mut image = Image::new(&me);
        image.config = Some("/no/such/config".into());
        assert!(image.check().unwrap_err().to_string().contains("/no/such/config"));
    }

    #[test]
    fn an_unattended_run_ends_by_itself() {
        let image = Image::for_run("/k", "after=park seed=7").unwrap();
        assert_eq!(image.words.to_string(), "exit-port=0xf4 after=park seed=7");
        assert_eq!(image.timeout, 0);
    }
}
