//! Set-up: what is missing for a purpose, and installing it when we may.

pub mod needs;
pub mod plan;

use std::path::Path;

use anyhow::{Result, bail};

pub use needs::{Need, Probe, Purpose};
pub use plan::{Facts, Plan, Rights};

use crate::run::{Cmd, find_program};
use crate::{paths, ui};

/// Makes sure that what `purpose` needs is there; installs it when it may. `CI=true` counts as `yes`.
///
/// # Errors
/// When something is missing and cannot be installed: the message names it and the commands to run.
pub fn ensure(purpose: Purpose, yes: bool) -> Result<()> {
    let facts = facts(purpose);
    let plan = plan::plan(&facts, yes || ui::unattended());
    if plan == Plan::Nothing {
        return Ok(());
    }
    ui::say(report(&facts));
    match plan {
        Plan::Nothing => Ok(()),
        Plan::ByHand { reason, commands } => {
            bail!(
                "{reason}. Run:\n{}\nand then this command again.",
                crate::run::indent(&commands.join("\n"))
            )
        }
        Plan::Install { packages, prefix, target, ask } => {
            if ask && !ui::ask("Install them now?") {
                let line = format!(
                    "{} apt-get install --no-install-recommends {}",
                    prefix.join(" "),
                    packages.join(" ")
                );
                bail!("not installed, as you wish. To do it later:\n    {}", line.trim());
            }
            install(&packages, prefix, target)?;
            verify(purpose)
        }
    }
}

/// Looks at this system.
pub fn facts(purpose: Purpose) -> Facts {
    Facts {
        missing: plan::missing(purpose, present),
        target: target_installed(),
        rustup: find_program("rustup").is_some(),
        apt: find_program("apt-get").is_some(),
        rights: rights(),
        terminal: ui::interactive() && !ui::unattended(),
    }
}

/// Whether a need is met.
pub fn present(need: &Need) -> bool {
    match need.probe {
        Probe::Program(name) => find_program(name).is_some(),
        Probe::AnyOf(places) => places.iter().any(|place| Path::new(place).exists()),
    }
}

fn rights() -> Rights {
    if rustix::process::geteuid().is_root() {
        return Rights::Root;
    }
    if find_program("sudo").is_none() {
        return Rights::None;
    }
    match Cmd::new("sudo").args(["-n", "true"]).run() {
        Ok(done) if done.ok() => Rights::Sudo,
        _ => Rights::SudoWithPassword,
    }
}

fn target_installed() -> bool {
    let libdir = Cmd::new("rustc").args(["--print", "target-libdir", "--target", paths::KERNEL_TARGET]);
    libdir.cwd(paths::root()).check().is_ok_and(|dir| Path::new(dir.trim()).is_dir())
}

/// What is missing, for people.
fn report(facts: &Facts) -> String {
    let mut text = String::from("Missing on this system:");
    for need in &facts.missing {
        let what = match need.probe {
            Probe::Program(name) => name,
            Probe::AnyOf(places) => places[0],
        };
        text += &format!("\n  {:20} {what} {}", need.package, need.why);
    }
    if !facts.target {
        text += &format!("\n  {:20} the Rust target of the kernel", paths::KERNEL_TARGET);
    }
    text
}

fn install(packages: &[&str], prefix: &[&str], target: bool) -> Result<()> {
    if target {
        let step = ui::step(format!("add the Rust target {}", paths::KERNEL_TARGET));
        let add = Cmd::new("rustup").args(["target", "add", paths::KERNEL_TARGET]).cwd(paths::root());
        add.check()?;
        step.done();
    }
    if packages.is_empty() {
        return Ok(());
    }
    let prefix = if prefix == ["sudo"] { unlock_sudo()? } else { prefix };
    let step = ui::step(format!("install {}", packages.join(" ")));
    let mut args = vec!["install", "-y", "--no-install-recommends"];
    args.extend(packages);
    // The lists of available packages may be empty (a fresh container) or old (files gone): then fetch them and retry.
    if !apt(prefix, &args).run()?.ok() {
        step.detail("fetch the package lists");
        let lists = apt(prefix, &["update"]).run()?;
        if let Err(error) = apt(prefix, &args).check() {
            let offline = if lists.ok() {
                ""
            } else {
                "The package lists could not be fetched: is this machine offline?\n"
            };
            bail!(
                "{offline}{error}\nOnce that is mended, run:\n    {} apt-get {}",
                prefix.join(" "),
                args.join(" ")
            );
        }
    }
    step.done();
    Ok(())
}

/// Lets sudo ask for its password, now and once. Our own children cannot: they are no part of the terminal's session.
fn unlock_sudo() -> Result<&'static [&'static str]> {
    let status = std::process::Command::new("sudo").arg("-v").status()?;
    if !status.success() {
        bail!("sudo did not accept; nothing was installed");
    }
    Ok(&["sudo", "-n"])
}

fn apt(prefix: &[&str], args: &[&str]) -> Cmd<'static> {
    // Through env(1): sudo clears the environment.
    let words: Vec<&str> =
        prefix.iter().copied().chain(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]).collect();
    Cmd::new(words[0]).args(&words[1..]).args(args)
}

/// After installing, everything must be there: a package that no longer brings its file is worth a clear word.
fn verify(purpose: Purpose) -> Result<()> {
    let still = facts(purpose);
    if still.missing.is_empty() && still.target {
        return Ok(());
    }
    bail!(
        "installed, and still:\n{}\nThe package may have changed what it holds; please report it.",
        report(&still)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_names_package_thing_and_reason() {
        let missing = plan::missing(Purpose::Demo, |need| need.package != "bochsbios");
        let facts = Facts { missing, target: false, ..facts(Purpose::Demo) };
        let text = report(&facts);
        assert!(text.contains("bochsbios") && text.contains("BIOS-bochs-latest"), "{text}");
        assert!(text.contains("x86_64-unknown-none"), "{text}");
    }
}
