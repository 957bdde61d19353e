//! Points of a replay, as a user writes them and as the kernel reads them: where to stop, what to break, what to restore.

use std::fmt;

use anyhow::{Context, Result, bail};

/// Where a replay stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// After this entry of the log, counted from 0.
    Entry(u64),
    /// After this synchronous exit, counted from 1.
    Exit(u64),
    /// After the first synchronous exit at which so many instructions have retired.
    Instructions(u64),
    /// At this checkpoint, counted from 1.
    Checkpoint(u64),
}

impl Until {
    /// Parses `entry:K`, `exit:K`, `n:K` or `checkpoint:K`.
    ///
    /// # Errors
    /// When it is something else.
    pub fn parse(text: &str) -> Result<Self> {
        let (kind, value) = text.split_once(':').unwrap_or(("", text));
        let value = number(value)?;
        Ok(match kind {
            "entry" => Until::Entry(value),
            "exit" => Until::Exit(value),
            "n" => Until::Instructions(value),
            "checkpoint" => Until::Checkpoint(value),
            _ => bail!("`{text}` is no point of a replay; write entry:K, exit:K, n:K or checkpoint:K"),
        })
    }
}

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Until::Entry(k) => write!(f, "entry:{k}"),
            Until::Exit(k) => write!(f, "exit:{k}"),
            Until::Instructions(k) => write!(f, "n:{k}"),
            Until::Checkpoint(k) => write!(f, "checkpoint:{k}"),
        }
    }
}

/// A bit that the replayer flips in its own state, right after a checkpoint: a difference that must be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plant {
    /// In the guest's memory.
    Memory {
        /// The byte's guest-physical address.
        address: u64,
        /// The bit of this byte.
        bit: u8,
        /// After this checkpoint, counted from 1.
        checkpoint: u64,
    },
    /// In a register.
    Register {
        /// Its name, as the kernel's digest names it.
        name: String,
        /// The bit.
        bit: u8,
        /// After this checkpoint, counted from 1.
        checkpoint: u64,
    },
    /// In a device's state.
    Device {
        /// Its name, as the kernel's digest names it.
        name: String,
        /// The bit.
        bit: u8,
        /// After this checkpoint, counted from 1.
        checkpoint: u64,
    },
}

impl Plant {
    /// Parses `memory:ADDR:BIT@C`, `register:NAME:BIT@C` or `device:NAME:BIT@C`.
    ///
    /// # Errors
    /// When it is something else.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || {
            format!(
                "`{text}` plants nothing; write memory:ADDR:BIT@C, register:NAME:BIT@C or device:NAME:BIT@C"
            )
        };
        let (what, checkpoint) = text.split_once('@').with_context(wrong)?;
        let checkpoint = number(checkpoint)?;
        let mut parts = what.split(':');
        let (Some(kind), Some(place), Some(bit), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            bail!(wrong());
        };
        let name = place.to_owned();
        let narrow = |most: u8| -> Result<u8> {
            let bit = number(bit)?;
            let bit = u8::try_from(bit).ok().filter(|bit| *bit <= most);
            bit.with_context(|| format!("in `{text}` the bit is from 0 to {most}"))
        };
        Ok(match kind {
            "memory" => Plant::Memory { address: number(place)?, bit: narrow(7)?, checkpoint },
            "register" if !name.is_empty() => Plant::Register { name, bit: narrow(63)?, checkpoint },
            "device" if !name.is_empty() => Plant::Device { name, bit: narrow(63)?, checkpoint },
            _ => bail!(wrong()),
        })
    }
}

impl fmt::Display for Plant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Plant::Memory { address, bit, checkpoint } => write!(f, "memory:{address:#x}:{bit}@{checkpoint}"),
            Plant::Register { name, bit, checkpoint } => write!(f, "register:{name}:{bit}@{checkpoint}"),
            Plant::Device { name, bit, checkpoint } => write!(f, "device:{name}:{bit}@{checkpoint}"),
        }
    }
}

/// A checkpoint that is kept, and the later one at which the replay goes back to it, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restore {
    /// The checkpoint that is kept.
    pub keep: u64,
    /// The checkpoint at which the replay goes back.
    pub at: u64,
}

impl Restore {
    /// Parses `C:D`.
    ///
    /// # Errors
    /// When it is something else, or D does not come after C.
    pub fn parse(text: &str) -> Result<Self> {
        let (keep, at) = text.split_once(':').with_context(|| {
            format!("`{text}`: write C:D, to keep checkpoint C and go back to it once at checkpoint D")
        })?;
        let restore = Restore { keep: number(keep)?, at: number(at)? };
        if restore.keep == 0 || restore.at <= restore.keep {
            bail!("`{text}`: the second checkpoint must come after the first, and they are counted from 1");
        }
        Ok(restore)
    }
}

impl fmt::Display for Restore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.keep, self.at)
    }
}

/// A number, decimal or with 0x.
fn number(text: &str) -> Result<u64> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    parsed.with_context(|| format!("`{text}` is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_understood_and_shown_as_they_are_written() {
        for text in ["entry:12", "exit:3", "n:100000", "checkpoint:2"] {
            assert_eq!(Until::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Until::parse("n:0x10").unwrap(), Until::Instructions(16));
        for bad in ["", "12", "entry:", "entry:x", "page:3", "entry:1:2"] {
            assert!(Until::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn plants_are_checked() {
        for text in ["memory:0x1000:7@1", "register:rax:63@2", "device:uart:5@3"] {
            assert_eq!(Plant::parse(text).unwrap().to_string(), text);
        }
        for bad in [
            "memory:0x1000:8@1",
            "register:rax:64@1",
            "register::1@1",
            "device:uart:1",
            "memory:x:1@1",
            "register:rax:1:2@1",
            "cache:0:1@1",
            "memory:0:1@",
        ] {
            assert!(Plant::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_restored_checkpoint_lies_behind() {
        assert_eq!(Restore::parse("2:5").unwrap().to_string(), "2:5");
        for bad in ["5:2", "2:2", "0:1", "2", "a:b", ""] {
            assert!(Restore::parse(bad).is_err(), "{bad}");
        }
    }
}
