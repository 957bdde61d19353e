//! The emulated machine: Bochs with our performance-counter model, from source to a run's outcome.
//!
//! [`Machine`] describes one; [`Machine::run`] runs it to its end, [`Machine::start`] gives a handle for scenarios.

pub mod bochsrc;
pub mod build;
pub mod knobs;
pub mod machine;
pub mod source;
pub mod typing;

use std::path::PathBuf;

use anyhow::{Result, bail};

pub use bochsrc::{Boot, Cdrom, Disk, Machine, Nic, NicMode, Serial};
pub use build::Variant;
pub use knobs::Knobs;
pub use machine::{Exit, Outcome, Running};

/// The emulator to use: the one that `LOCKSTEP_BOCHS` names, else ours, built if need be.
///
/// # Errors
/// When the named one is not there, or ours cannot be built.
pub fn binary() -> Result<PathBuf> {
    match std::env::var_os("LOCKSTEP_BOCHS").filter(|v| !v.is_empty()) {
        Some(path) => {
            let path = std::path::absolute(path)?;
            if !path.is_file() {
                bail!("LOCKSTEP_BOCHS={} is no file; unset it to have ours built", path.display());
            }
            Ok(path)
        }
        None => build::ensure(Variant::Ours),
    }
}
