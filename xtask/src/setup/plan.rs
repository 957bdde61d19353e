//! The decision what to do about missing things. Pure: facts in, plan out.

use super::needs::{NEEDS, Need, Purpose};

/// What was found on this system.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// The needs of the purpose that are not met.
    pub missing: Vec<Need>,
    /// Whether the kernel's Rust target is installed.
    pub target: bool,
    /// Whether rustup is there to install it.
    pub rustup: bool,
    /// Whether packages come by apt here (Debian, Ubuntu and kin).
    pub apt: bool,
    /// What we may do.
    pub rights: Rights,
    /// Whether somebody can be asked.
    pub terminal: bool,
}

/// What we may do on this system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// We are root.
    Root,
    /// `sudo` lets us, without a password.
    Sudo,
    /// `sudo` is there and will want a password.
    SudoWithPassword,
    /// Neither root nor sudo.
    None,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// Everything is there.
    Nothing,
    /// Install these packages and, if set, the Rust target.
    Install {
        /// Debian packages; may be empty.
        packages: Vec<&'static str>,
        /// Words before `apt-get`: none for root, else sudo's.
        prefix: &'static [&'static str],
        /// Whether to add the Rust target.
        target: bool,
        /// Whether to ask first.
        ask: bool,
    },
    /// It cannot be done from here: the reason, and the commands that a person must run.
    ByHand {
        /// Why not.
        reason: String,
        /// The commands.
        commands: Vec<String>,
    },
}

/// The needs of `purpose` that `present` says are not met.
pub fn missing(purpose: Purpose, present: impl Fn(&Need) -> bool) -> Vec<Need> {
    NEEDS.iter().filter(|need| purpose.work().contains(&need.work) && !present(need)).copied().collect()
}

/// Decides. `yes` is the user's leave to install without being asked.
pub fn plan(facts: &Facts, yes: bool) -> Plan {
    if facts.missing.is_empty() && facts.target {
        return Plan::Nothing;
    }
    let packages = packages(&facts.missing);
    if !facts.target && !facts.rustup {
        return by_hand(facts, "the Rust target is missing, and there is no rustup to add it");
    }
    if packages.is_empty() {
        // The target goes into the user's own toolchain: no rights needed, nothing to ask.
        return Plan::Install { packages, prefix: &[], target: true, ask: false };
    }
    if !facts.apt {
        return by_hand(
            facts,
            "this system has no apt, so the packages are for you to find under their names here",
        );
    }
    let prefix: &[&str] = match facts.rights {
        Rights::Root => &[],
        Rights::Sudo => &["sudo", "-n"],
        Rights::SudoWithPassword if facts.terminal => &["sudo"],
        Rights::SudoWithPassword => {
            return by_hand(facts, "sudo wants a password, and there is no terminal to ask on");
        }
        Rights::None => return by_hand(facts, "installing needs root, and there is no sudo"),
    };
    if !yes && !facts.terminal {
        return by_hand(facts, "nobody can be asked here; give --yes to have them installed");
    }
    Plan::Install { packages, prefix, target: !facts.target, ask: !yes }
}

fn by_hand(facts: &Facts, reason: &str) -> Plan {
    let mut commands = Vec::new();
    let packages = packages(&facts.missing);
    if !packages.is_empty() {
        let sudo = if facts.rights == Rights::Root { "" } else { "sudo " };
        commands.push(format!("{sudo}apt-get install --no-install-recommends {}", packages.join(" ")));
    }
    if !facts.target {
        commands.push(format!("rustup target add {}", crate::paths::KERNEL_TARGET));
    }
    Plan::ByHand { reason: reason.into(), commands }
}

/// The packages that bring what is missing, each once.
fn packages(missing: &[Need]) -> Vec<&'static str> {
    let mut names: Vec<&str> = missing.iter().map(|need| need.package).collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        let missing = missing(Purpose::Demo, |need| need.package != "xorriso" && need.package != "g++");
        Facts { missing, target: true, rustup: true, apt: true, rights: Rights::Root, terminal: false }
    }

    fn command(plan: Plan) -> String {
        match plan {
            Plan::ByHand { commands, .. } => commands.join("; "),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_is_done_when_nothing_is_missing() {
        assert_eq!(plan(&Facts { missing: Vec::new(), ..facts() }, false), Plan::Nothing);
    }

    #[test]
    fn root_installs_with_leave_only() {
        let install =
            |ask| Plan::Install { packages: vec!["g++", "xorriso"], prefix: &[], target: false, ask };
        assert_eq!(plan(&facts(), true), install(false));
        assert_eq!(plan(&Facts { terminal: true, ..facts() }, false), install(true));
        assert_eq!(command(plan(&facts(), false)), "apt-get install --no-install-recommends g++ xorriso");
    }

    #[test]
    fn sudo_is_used_and_its_password_needs_a_terminal() {
        let with = |rights, terminal| plan(&Facts { rights, terminal, ..facts() }, true);
        let prefix = |plan| match plan {
            Plan::Install { prefix, .. } => prefix,
            other => panic!("{other:?}"),
        };
        assert_eq!(prefix(with(Rights::Sudo, false)), ["sudo", "-n"]);
        assert_eq!(prefix(with(Rights::SudoWithPassword, true)), ["sudo"]);
        assert!(command(with(Rights::SudoWithPassword, false)).starts_with("sudo apt-get install"));
        assert!(command(with(Rights::None, true)).starts_with("sudo apt-get install"));
    }

    #[test]
    fn the_target_alone_needs_no_rights() {
        let bare = Facts { missing: Vec::new(), target: false, rights: Rights::None, ..facts() };
        assert_eq!(
            plan(&bare, false),
            Plan::Install { packages: vec![], prefix: &[], target: true, ask: false }
        );
        let without_rustup = Facts { rustup: false, ..bare };
        assert_eq!(command(plan(&without_rustup, true)), "rustup target add x86_64-unknown-none");
    }

    #[test]
    fn other_systems_get_the_list() {
        let other = Facts { apt: false, target: false, ..facts() };
        let text = command(plan(&other, true));
        assert!(text.contains("g++ xorriso") && text.contains("rustup target add"), "{text}");
    }
}
