//! `cargo xtask build`: the kernel.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::{paths, run::Cmd, ui};

/// Build the kernel: one ELF file that GRUB (BIOS, UEFI) and PXE can load.
///
/// The file is target/x86_64-unknown-none/release/lockstep. `cargo xtask image` makes bootable media of it.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the verb.
///
/// # Errors
/// When the kernel does not compile.
pub fn run(_args: Args) -> Result<ExitCode> {
    println!("{}", kernel()?.display());
    Ok(ExitCode::SUCCESS)
}

/// Builds the kernel (release, bare-metal target) and gives its path.
///
/// # Errors
/// When it does not compile; the message shows the compiler's.
pub fn kernel() -> Result<PathBuf> {
    let step = ui::step("build the kernel");
    cargo(["build", "--release", "-p", "lockstep", "--target", paths::KERNEL_TARGET]).check()?;
    step.done();
    Ok(paths::kernel())
}

/// A call of cargo in the workspace, with this process's target directory.
pub fn cargo<'a>(args: impl IntoIterator<Item = &'a str>) -> Cmd<'static> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    Cmd::new(cargo).args(args).cwd(paths::root()).env("CARGO_TARGET_DIR", paths::target_dir())
}
