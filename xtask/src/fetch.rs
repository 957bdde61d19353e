//! Getting a file from the network by its checksum, and what the machine's own package tool knows about where files are.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::run::{Cmd, find_program};

/// A download that takes longer than this is given up.
const LIMIT: Duration = Duration::from_secs(600);
/// apt's own downloader: it knows the proxy and the certificates that the machine's administrator set up.
const APT_HELPER: &str = "/usr/lib/apt/apt-helper";

/// The SHA-256 of a file, as lower-case hexadecimal digits.
///
/// # Errors
/// When the file cannot be read.
pub fn sha256(file: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let mut input = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match input.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// The SHA-256 of bytes, as lower-case hexadecimal digits.
pub fn sha256_of(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where to make a file or a tree before it gets its name: a place of this process's and this thread's own, since tests that run side by side
/// want the same packages.
pub fn partial(of: &Path) -> PathBuf {
    let mut name = of.as_os_str().to_owned();
    name.push(format!(".partial{}.{:?}", std::process::id(), std::thread::current().id()));
    PathBuf::from(name)
}

/// Downloads `url` to `file` if its SHA-256 is `sum`; otherwise nothing is left at `file`.
///
/// # Errors
/// When nothing can download, the network says no, or the sum is another.
pub fn download(url: &str, file: &Path, sum: &str) -> Result<()> {
    let partial = partial(file);
    let done = transfer(url, &partial).and_then(|()| {
        let got = sha256(&partial)?;
        if got != sum {
            bail!("{url} is not the file it should be: its SHA-256 is {got}, not {sum}");
        }
        fs::rename(&partial, file).with_context(|| format!("cannot write {}", file.display()))
    });
    let _ = fs::remove_file(&partial);
    done
}

fn transfer(url: &str, file: &Path) -> Result<()> {
    let cmd = if Path::new(APT_HELPER).is_file() {
        Cmd::new(APT_HELPER).args(["-q", "download-file", url]).arg(file)
    } else if find_program("curl").is_some() {
        Cmd::new("curl").args(["--fail", "--silent", "--show-error", "--location", url, "--output"]).arg(file)
    } else if find_program("wget").is_some() {
        Cmd::new("wget").args(["--quiet", url, "-O"]).arg(file)
    } else {
        bail!("nothing here can download: there is no apt, curl or wget");
    };
    cmd.timeout(LIMIT).check().map(drop)
}

/// The option for apt with which it answers as if nothing were installed here: a version that is installed and that the archive has
/// withdrawn would be its answer otherwise, and nowhere to be had.
pub const NOTHING_INSTALLED: &str = "Dir::State::status=/dev/null";

/// A file of the package archive as apt names it.
#[derive(Clone, Debug, PartialEq)]
pub struct ArchiveFile {
    /// Where it is.
    pub url: String,
    /// Its SHA-256, if apt told one.
    pub sha256: Option<String>,
}

impl ArchiveFile {
    /// The last part of the address, decoded: the file's name.
    pub fn name(&self) -> String {
        self.url
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .replace("%2b", "+")
            .replace("%3a", ":")
            .replace("%7e", "~")
    }

    /// The address of a file beside this one.
    pub fn sibling(&self, name: &str) -> String {
        let dir = self.url.rsplit_once('/').map_or("", |(dir, _)| dir);
        format!("{dir}/{name}")
    }
}

/// Where this machine's apt would get `package` from.
///
/// # Errors
/// When there is no apt, or it knows no such package (its lists may never have been fetched).
pub fn archive_file(package: &str) -> Result<ArchiveFile> {
    let file = archive_files_with(&[package], &[NOTHING_INSTALLED.into()])?.into_iter().next();
    file.with_context(|| format!("apt does not know `{package}`; `apt-get update` may help"))
}

/// The same for several packages, with options for apt (`KEY=VALUE`), such as another architecture.
///
/// # Errors
/// As [`archive_file`].
pub fn archive_files_with(packages: &[&str], options: &[String]) -> Result<Vec<ArchiveFile>> {
    if find_program("apt-get").is_none() {
        bail!("this system has no apt");
    }
    // Not from a directory that holds the package: apt prints nothing for a file that is there.
    let dir = std::env::temp_dir();
    let options = options.iter().flat_map(|option| ["-o", option.as_str()]);
    let question = Cmd::new("apt-get").args(options).args(["--print-uris", "download"]).args(packages);
    let files: Vec<ArchiveFile> = question.cwd(dir).check()?.lines().filter_map(parse_uris).collect();
    if files.len() != packages.len() {
        bail!("apt does not know all of {}; `apt-get update` may help", packages.join(" "));
    }
    Ok(files)
}

/// Parses a line of `apt-get --print-uris`: `'URL' FILE SIZE SHA256:...`.
fn parse_uris(line: &str) -> Option<ArchiveFile> {
    let (url, rest) = line.strip_prefix('\'')?.split_once('\'')?;
    let sha256 = rest.split_whitespace().find_map(|word| word.strip_prefix("SHA256:")).map(str::to_owned);
    Some(ArchiveFile { url: url.into(), sha256 })
}

/// Downloads a package of this machine's archive into `dir`, checked, and gives the file. Not downloaded again if there.
///
/// # Errors
/// When apt does not know it, tells no SHA-256 for it, or the download fails.
pub fn package(package: &str, dir: &Path) -> Result<PathBuf> {
    archived(&archive_file(package)?, dir)
}

/// Downloads a file of the archive into `dir`, checked, and gives the file. Not downloaded again if there.
///
/// # Errors
/// When apt told no SHA-256 for it, or the download fails.
pub fn archived(source: &ArchiveFile, dir: &Path) -> Result<PathBuf> {
    let sum = source.sha256.clone().with_context(|| format!("apt tells no SHA-256 for {}", source.url))?;
    let file = dir.join(source.name());
    if !(file.is_file() && sha256(&file)? == sum) {
        fs::create_dir_all(dir)?;
        download(&source.url, &file, &sum)?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apts_answer_is_understood() {
        let text = "'http://a.example/debian/pool/main/b/bochs/bochsbios_2.7%2bdfsg-4_all.deb' bochsbios_2.7+dfsg-4_all.deb \
                    121032 SHA256:ab91\n";
        let file = parse_uris(text).unwrap();
        assert_eq!(file.sha256.as_deref(), Some("ab91"));
        assert_eq!(file.name(), "bochsbios_2.7+dfsg-4_all.deb");
        assert_eq!(file.sibling("x.tar.xz"), "http://a.example/debian/pool/main/b/bochs/x.tar.xz");
        assert_eq!(parse_uris("E: Unable to locate package"), None);
    }

    #[test]
    fn what_is_made_at_the_same_time_is_made_in_different_places() {
        let file = Path::new("/cache/downloads/a.deb");
        let other = std::thread::spawn(move || partial(file)).join().unwrap();
        assert_ne!(partial(file), other);
        assert_eq!(partial(file), partial(file));
        assert_ne!(partial(file), partial(&file.with_extension("dsc")));
    }

    #[test]
    fn sums_are_right() {
        let file = std::env::temp_dir().join(format!("lockstep-sum-{}", std::process::id()));
        fs::write(&file, b"abc").unwrap();
        let sum = sha256(&file).unwrap();
        fs::remove_file(&file).unwrap();
        assert_eq!(sum, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
