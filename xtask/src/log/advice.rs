//! What is wrong with a log, in words, and what to do about it.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use replay::log::error::{Damage, Error};

/// The error with its remedy.
pub fn explain(path: &Path, error: &Error) -> anyhow::Error {
    anyhow!("{}: {error}\n  {}", path.display(), remedy(error))
}

/// What to do next.
pub fn remedy(error: &Error) -> &'static str {
    match error {
        Error::NotALog => "Is it the file that `cargo xtask record -o FILE` wrote?",
        Error::Version(_) => "Read it with the build of Lockstep that wrote it, or record anew.",
        Error::Header(_) => "Read it with the build of Lockstep that wrote it: this one knows other fields.",
        Error::Profile { .. } => {
            "Replay with the kernel that recorded, on a host that has this profile, or record anew."
        }
        Error::Truncated { .. } => {
            "Copy it again if it was copied. What is whole can be used: `cargo xtask log dump` shows it, and a replay \
             goes as far."
        }
        Error::NoEnd { .. } => {
            "The recording host was stopped, or its connection lost. All blocks are whole: a replay goes as far as they do."
        }
        Error::Corrupt { damage: Damage::Sequence(_) | Damage::Misplaced | Damage::AfterEnd, .. } => {
            "Parts of it were lost, doubled, or come from two logs. Copy it again from where it came, or record anew."
        }
        // The checksum is right, so these are the bytes that were written.
        Error::Corrupt { damage: Damage::Entry(..) | Damage::Kind(_) | Damage::Body(_), .. } => {
            "Its checksum is right: another build of Lockstep wrote it so. Read it with that one, or record anew."
        }
        Error::Corrupt { .. } => {
            "Copy it again from where it came, or record anew. `cargo xtask log dump` shows what is before the damage."
        }
    }
}

/// The bytes of a log's file.
///
/// # Errors
/// It cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
