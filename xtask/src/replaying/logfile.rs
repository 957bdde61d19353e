//! A log as the tools open it: checked whole, with what its header says of the recorded machine.

use std::path::Path;

use anyhow::{Context, Result, bail};
use replay::log::checksum;
use replay::log::error::Error;
use replay::log::open::Log;

/// What the header says, and how much there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// The configuration's text.
    pub config: String,
    /// The machine's files.
    pub modules: Vec<RecordedFile>,
    /// The kernel that recorded.
    pub kernel: String,
    /// Entries.
    pub entries: u64,
    /// The sound bytes: less than the file has only where the recording was cut.
    pub bytes: u64,
    /// Why it has no end.
    pub cut: Option<String>,
}

/// A file of the machine as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedFile {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub length: u64,
    /// The CRC-32 of its contents.
    pub crc: u32,
}

/// Opens a log. One that was cut off is opened as far as it goes.
///
/// # Errors
/// When it cannot be read, or is not a sound log; the message says what to do.
pub fn open(path: &Path) -> Result<LogFile> {
    let bytes = std::fs::read(path)
        .with_context(|| format!("cannot read the log {}; `cargo xtask record` makes one", path.display()))?;
    parse(&bytes).with_context(|| format!("the log {} cannot be replayed", path.display()))
}

fn parse(bytes: &[u8]) -> Result<LogFile> {
    let (log, wrong) = Log::salvage(bytes).map_err(|error| anyhow::anyhow!("{}", advice(&error)))?;
    let cut = match wrong {
        None => None,
        Some(error @ (Error::NoEnd { .. } | Error::Truncated { .. })) => Some(error.to_string()),
        Some(error) => bail!("{}", advice(&error)),
    };
    let header = log.header();
    let modules = header.modules.as_slice().iter().map(|module| RecordedFile {
        name: module.name.into(),
        length: module.length,
        crc: module.crc,
    });
    Ok(LogFile {
        config: header.config.into(),
        modules: modules.collect(),
        kernel: header.kernel.into(),
        entries: log.entries(),
        bytes: log.bytes().len() as u64,
        cut,
    })
}

/// What is wrong with a log, and what a person can do about it.
fn advice(error: &Error) -> String {
    let advice = match error {
        Error::NotALog => "was it written by `cargo xtask record`?",
        Error::Version(_) => {
            "replay it with the build of Lockstep that recorded it (--hypervisor), or record anew"
        }
        Error::Corrupt { .. } => {
            "copy it again from where it came, or record anew; `cargo xtask log dump` shows what is sound"
        }
        _ => "record anew",
    };
    format!("{error}; {advice}")
}

impl RecordedFile {
    /// Nothing if this file has the contents that the recorded one had.
    ///
    /// # Errors
    /// It cannot be read or has others; the message names it.
    pub fn compare(&self, path: &Path) -> Result<()> {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let (length, crc) = (bytes.len() as u64, checksum::contents(&bytes));
        if (length, crc) == (self.length, self.crc) {
            return Ok(());
        }
        bail!(
            "the file `{}` of the recorded machine has changed: {} has {length} bytes with the checksum {crc:08x}, and it was \
             recorded with {} bytes and {:08x}. Bring back the old one and name it by --module {}=FILE, or record anew",
            self.name,
            path.display(),
            self.length,
            self.crc,
            self.name
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_log_is_refused_with_advice() {
        let error = format!("{:#}", parse(b"hello, this is no log at all").unwrap_err());
        assert!(error.contains("no log of Lockstep") && error.contains("record"), "{error}");
        assert!(parse(b"").is_err());
    }

    #[test]
    fn a_file_that_has_changed_is_named() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let bytes = std::fs::read(&path).unwrap();
        let name = "kernel".to_owned();
        let same = RecordedFile { name, length: bytes.len() as u64, crc: checksum::contents(&bytes) };
        same.compare(&path).unwrap();
        let other = RecordedFile { crc: !same.crc, ..same };
        let error = other.compare(&path).unwrap_err().to_string();
        assert!(error.contains("`kernel`") && error.contains("--module kernel=FILE"), "{error}");
    }
}
