//! The rules. A new crate is added to [`CRATES`]; that is where its place in the house is decided.

use super::lexer::{code_only, has_word};
use super::{Finding, Rule, Tree};

/// How a crate stands to `unsafe`.
#[derive(Clone, Copy, PartialEq)]
enum Safety {
    /// `no_std` and `#![forbid(unsafe_code)]`: logic only.
    Pure,
    /// `no_std` and `#![deny(unsafe_code)]`: pure but for one file of instructions.
    PureButOne,
    /// A program of the host with `#![forbid(unsafe_code)]`.
    Host,
    /// The metal: `unsafe` in the files of [`UNSAFE_FILES`].
    Metal,
}

/// A crate of the workspace: its directory, its name in code, how it stands to `unsafe`, and which of our crates it may
/// depend on.
struct Crate {
    dir: &'static str,
    name: &'static str,
    safety: Safety,
    may_use: &'static [&'static str],
}

/// The house. Arrows run from the right to the left: `vmx`, `machine` -> `replay` -> `ft` -> the kernel.
const CRATES: &[Crate] = &[
    Crate { dir: "boot", name: "boot", safety: Safety::PureButOne, may_use: &[] },
    Crate { dir: "hypervisor/vmx", name: "vmx", safety: Safety::PureButOne, may_use: &[] },
    Crate { dir: "hypervisor/config", name: "vm-config", safety: Safety::Pure, may_use: &[] },
    Crate { dir: "hypervisor/machine", name: "machine", safety: Safety::Pure, may_use: &[] },
    Crate {
        dir: "hypervisor/replay",
        name: "replay",
        safety: Safety::Pure,
        may_use: &["vmx", "machine", "hal"],
    },
    Crate { dir: "hypervisor/ft", name: "ft", safety: Safety::Pure, may_use: &["replay", "hal"] },
    Crate {
        dir: "hypervisor",
        name: "lockstep",
        safety: Safety::Metal,
        may_use: &["boot", "vmx", "vm-config", "machine", "replay", "ft", "hal", "pci", "e1000", "net"],
    },
    Crate { dir: "drivers/hal", name: "hal", safety: Safety::Pure, may_use: &[] },
    Crate { dir: "drivers/pci", name: "pci", safety: Safety::Pure, may_use: &["hal"] },
    Crate { dir: "drivers/e1000", name: "e1000", safety: Safety::Pure, may_use: &["hal", "pci"] },
    Crate { dir: "drivers/net", name: "net", safety: Safety::Pure, may_use: &["hal"] },
    Crate {
        dir: "xtask",
        name: "xtask",
        safety: Safety::Host,
        may_use: &["vm-config", "machine", "replay", "ft", "sim"],
    },
    Crate { dir: "tests/guests", name: "guests", safety: Safety::Metal, may_use: &["hal", "pci", "e1000"] },
    Crate { dir: "tests/linux", name: "linux-checks", safety: Safety::Metal, may_use: &[] },
    Crate { dir: "tests/sim", name: "sim", safety: Safety::Host, may_use: &["ft", "replay", "toy"] },
    Crate { dir: "tests/toy", name: "toy", safety: Safety::Host, may_use: &["replay"] },
    Crate {
        dir: "tests/machine",
        name: "machine-tests",
        safety: Safety::Host,
        may_use: &["xtask", "vm-config", "machine", "replay"],
    },
];

/// Where `unsafe` may stand: files, or directories with everything in them.
const UNSAFE_FILES: &[&str] = &[
    "boot/src/entry.rs",
    "hypervisor/src/arch/",
    "hypervisor/src/hal.rs",
    "hypervisor/src/allocator.rs",
    "hypervisor/src/heap.rs",
    "hypervisor/vmx/src/instructions.rs",
    "tests/guests/src/",
    "tests/linux/src/sys/",
];
/// Within those, where it may not: the test kernels themselves are safe code over their runtime.
const SAFE_AGAIN: &[&str] = &["tests/guests/src/bin/"];
/// Crates whose entry point has to have an unmangled name; the attribute that gives it is spelt `unsafe`.
const ENTRY_FILES: &[&str] = &["hypervisor/src/main.rs"];
/// How far above an `unsafe` its `SAFETY:` may begin, lines.
const SAFETY_REACH: usize = 16;
/// The longest file, lines, tests at its end not counted.
const MAX_LINES: usize = 800;

/// All rules.
pub(super) const ALL: &[Rule] = &[
    Rule {
        name: "members",
        demands: "Workspace members are listed by name, and all of them.",
        check: members,
    },
    Rule {
        name: "arrows",
        demands: "Crates depend on each other only the way the house is built.",
        check: arrows,
    },
    Rule { name: "purity", demands: "Pure crates are no_std and forbid unsafe code.", check: purity },
    Rule {
        name: "unsafe",
        demands: "`unsafe` stands only in the files that are meant for it.",
        check: unsafe_places,
    },
    Rule {
        name: "safety",
        demands: "Every `unsafe` has a comment that lists the facts it rests on.",
        check: safety,
    },
    Rule {
        name: "headers",
        demands: "Every source file says its one subject in its first line.",
        check: headers,
    },
    Rule {
        name: "length",
        demands: "A file that grows too long has a second subject: split it.",
        check: length,
    },
    Rule { name: "licence", demands: "Files for the emulator carry its licence, the LGPL.", check: licence },
    Rule { name: "places", demands: "No file names a place on somebody's machine.", check: places },
];

fn finding(path: &str, line: usize, message: impl Into<String>) -> Finding {
    Finding { path: path.into(), line, message: message.into() }
}

/// Code lines of a file with their numbers from 1.
fn code_lines(text: &str) -> Vec<(usize, String)> {
    code_only(text).lines().map(String::from).enumerate().map(|(i, line)| (i + 1, line)).collect()
}

fn members(tree: &Tree) -> Vec<Finding> {
    let Some(root) = tree.get("Cargo.toml") else { return vec![finding("Cargo.toml", 0, "there is none")] };
    let list = root
        .split_once("\nmembers = [")
        .and_then(|(_, rest)| rest.split_once(']'))
        .map_or("", |(list, _)| list);
    let mut found = Vec::new();
    if list.contains('*') {
        found.push(finding("Cargo.toml", 0, "members are named one by one, never by a pattern"));
    }
    for (path, _) in tree.ending("/Cargo.toml") {
        let dir = path.trim_end_matches("/Cargo.toml");
        if !list.contains(&format!("\"{dir}\"")) {
            found.push(finding(
                path,
                0,
                format!("`{dir}` is no member of the workspace: list it in Cargo.toml"),
            ));
        }
        if !CRATES.iter().any(|c| c.dir == dir) {
            found.push(finding(
                path,
                0,
                "a crate without a place in the house: add it to CRATES in xtask/src/tidy/rules.rs",
            ));
        }
    }
    found
}

fn arrows(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for krate in CRATES {
        let forbidden = |name: &str| {
            name != krate.name && CRATES.iter().any(|c| c.name == name) && !krate.may_use.contains(&name)
        };
        let manifest = format!("{}/Cargo.toml", krate.dir);
        for (line, name) in dependencies(tree.get(&manifest).unwrap_or_default()) {
            if forbidden(&name) {
                found.push(finding(&manifest, line, format!("`{}` must not depend on `{name}`", krate.name)));
            }
        }
        for (path, text) in sources(tree, krate) {
            // A crate's tests may lean on the programs and machines that only tests have.
            let test = path.strip_prefix(krate.dir).is_some_and(|rest| rest.starts_with("/tests/"));
            for (line, code) in code_lines(text) {
                let used = CRATES
                    .iter()
                    .filter(|c| !(test && c.safety == Safety::Host))
                    .find(|c| forbidden(c.name) && names_crate(&code, &c.name.replace('-', "_")));
                if let Some(used) = used {
                    found.push(finding(path, line, format!("`{}` must not use `{}`", krate.name, used.name)));
                }
            }
        }
    }
    found
}

/// Whether a line of code brings this crate in: `use NAME::...`, `extern crate NAME`. A module of the same name inside the
/// crate is reached by `crate::`, `self::` or `super::`.
fn names_crate(code: &str, name: &str) -> bool {
    let code = code.trim_start();
    let code = code.split_once("use ").filter(|(before, _)| before.is_empty() || before.starts_with("pub"));
    code.is_some_and(|(_, path)| {
        path.starts_with(&format!("{name}::")) || path.starts_with(&format!("{name};"))
    })
}

/// The sources of a crate, without those of crates in directories below.
fn sources<'a>(tree: &'a Tree, krate: &'a Crate) -> impl Iterator<Item = (&'a str, &'a str)> {
    let below = move |path: &str| {
        CRATES.iter().any(|c| c.dir.len() > krate.dir.len() && path.starts_with(&format!("{}/", c.dir)))
    };
    tree.ending(".rs").filter(move |(path, _)| path.starts_with(&format!("{}/", krate.dir)) && !below(path))
}

/// The names in the tables of dependencies, development ones left out, with their line.
fn dependencies(manifest: &str) -> Vec<(usize, String)> {
    let mut names = Vec::new();
    let mut inside = false;
    for (number, line) in manifest.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            inside = line.ends_with("dependencies]") && !line.contains("dev-dependencies");
        } else if inside && !line.starts_with('#') {
            let name: String =
                line.chars().take_while(|c| c.is_alphanumeric() || "-_".contains(*c)).collect();
            if !name.is_empty() {
                names.push((number + 1, name));
            }
        }
    }
    names
}

fn purity(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for krate in CRATES {
        let wanted: &[&str] = match krate.safety {
            Safety::Pure => &["#![no_std]", "#![forbid(unsafe_code)]"],
            Safety::PureButOne => &["#![no_std]", "#![deny(unsafe_code)]"],
            Safety::Host => &["#![forbid(unsafe_code)]"],
            Safety::Metal => continue,
        };
        let path = format!("{}/src/lib.rs", krate.dir);
        let Some(text) = tree.get(&path) else { continue };
        for attribute in wanted.iter().filter(|a| !text.lines().any(|line| line.trim() == **a)) {
            found.push(finding(&path, 0, format!("the crate must say {attribute}")));
        }
    }
    found
}

fn unsafe_places(tree: &Tree) -> Vec<Finding> {
    let listed = |path: &str, list: &[&str]| {
        list.iter().any(|place| if place.ends_with('/') { path.starts_with(place) } else { path == *place })
    };
    let mut found = Vec::new();
    for (path, text) in tree.ending(".rs") {
        if listed(path, UNSAFE_FILES) && !listed(path, SAFE_AGAIN) {
            continue;
        }
        for (line, code) in code_lines(text) {
            let entry = code.contains("#[unsafe(no_mangle)]") && listed(path, ENTRY_FILES);
            if has_word(&code, "unsafe") && !entry {
                let message =
                    "no `unsafe` here: move it behind a safe function in a file that UNSAFE_FILES lists";
                found.push(finding(path, line, message));
            }
        }
    }
    found
}

fn safety(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for (path, text) in tree.ending(".rs") {
        let lines: Vec<&str> = text.lines().collect();
        for (line, code) in code_lines(text) {
            let claims = claims_safety(&code);
            let above = &lines[line.saturating_sub(SAFETY_REACH)..line];
            if claims && !above.iter().any(|l| l.contains("SAFETY:") || l.contains("# Safety")) {
                found.push(finding(path, line, "say in a `// SAFETY:` comment which facts make this sound"));
            }
        }
    }
    found
}

/// Whether a line of code says that something is sound: a block, an `impl`, a public function whose callers must know
/// its conditions. A private `unsafe fn`, a function type and a foreign block make no claim of their own.
fn claims_safety(code: &str) -> bool {
    let after = |(at, _)| code[at..].trim_start_matches("unsafe").trim_start();
    let claims = ["{", "impl"];
    let public = code.trim_start().starts_with("pub unsafe ") && code.contains("fn ");
    has_word(code, "unsafe")
        && (public
            || code.match_indices("unsafe").map(after).any(|rest| claims.iter().any(|c| rest.starts_with(c))))
}

fn headers(tree: &Tree) -> Vec<Finding> {
    tree.ending(".rs")
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(path, _)| finding(path, 1, "begin the file with `//! ` and its one subject"))
        .collect()
}

fn length(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for (path, text) in tree.ending(".rs") {
        let lines = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
        if lines > MAX_LINES {
            found.push(finding(
                path,
                0,
                format!("{lines} lines, tests not counted; more than {MAX_LINES} are two subjects"),
            ));
        }
    }
    found
}

fn licence(tree: &Tree) -> Vec<Finding> {
    tree.files
        .iter()
        .filter(|(path, _)| path.starts_with("xtask/bochs/src/"))
        .filter(|(_, text)| !text.lines().take(20).collect::<String>().contains("Lesser General Public"))
        .map(|(path, _)| finding(path, 1, "files for the emulator begin with the LGPL's notice"))
        .collect()
}

fn places(tree: &Tree) -> Vec<Finding> {
    let homes = ["/home/", "/Users/"].map(String::from);
    // A tree in the root directory of a container is no place worth hiding, nor a test's empty one.
    let here = (tree.place.matches('/').count() > 1).then(|| tree.place.clone());
    let mut found = Vec::new();
    for (path, text) in &tree.files {
        // This file names them to forbid them.
        if path == "xtask/src/tidy/rules.rs" {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            if let Some(place) = homes.iter().chain(&here).find(|place| line.contains(*place)) {
                found.push(finding(
                    path,
                    number + 1,
                    format!("names a place on somebody's machine: {place}"),
                ));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tiny workspace that keeps every rule.
    fn good() -> Tree {
        let mut files = vec![
            (
                "Cargo.toml",
                "[workspace]\nmembers = [\n    \"boot\",\n    \"drivers/hal\",\n    \"drivers/pci\",\n]\n",
            ),
            ("boot/Cargo.toml", "[package]\n"),
            ("boot/src/entry.rs", "//! Entry.\n// SAFETY: one\nunsafe {}\n"),
            ("boot/src/lib.rs", "//! Boot.\n#![no_std]\n#![deny(unsafe_code)]\n"),
            ("drivers/hal/Cargo.toml", "[package]\n"),
            ("drivers/hal/src/lib.rs", "//! Hal, not unsafe.\n#![no_std]\n#![forbid(unsafe_code)]\n"),
            ("drivers/pci/Cargo.toml", "[dependencies]\nhal.workspace = true\n"),
            ("drivers/pci/src/lib.rs", "//! Pci.\n#![no_std]\n#![forbid(unsafe_code)]\nuse hal::X;\n"),
            ("xtask/bochs/src/x.cc", "// GNU Lesser General Public License\n"),
        ];
        files.sort();
        Tree {
            files: files.into_iter().map(|(p, t)| (p.into(), t.into())).collect(),
            place: "/srv/x/y".into(),
        }
    }

    /// The good tree with one file replaced or added.
    fn with(path: &str, text: &str) -> Tree {
        let mut tree = good();
        tree.files.retain(|(p, _)| p != path);
        tree.files.push((path.into(), text.into()));
        tree
    }

    /// The tree must break this rule in this file, and no other rule.
    fn breaks(tree: &Tree, rule: &str, path: &str) {
        for each in ALL {
            let found = each.check(tree);
            if each.name == rule {
                assert!(found.iter().any(|f| f.path == path), "{rule} did not find {path}: {found:?}");
            } else {
                assert!(found.is_empty(), "{} found {found:?}", each.name);
            }
        }
    }

    #[test]
    fn a_good_tree_breaks_no_rule() {
        for rule in ALL {
            assert_eq!(rule.check(&good()), [], "{}", rule.name);
        }
    }

    #[test]
    fn members_by_pattern_or_forgotten() {
        breaks(
            &with("Cargo.toml", "[workspace]\nmembers = [\n    \"boot\", \"drivers/*\",\n]\n"),
            "members",
            "Cargo.toml",
        );
        breaks(&with("drivers/e1000/Cargo.toml", "[package]\n"), "members", "drivers/e1000/Cargo.toml");
        breaks(&with("common/Cargo.toml", "[package]\n"), "members", "common/Cargo.toml");
    }

    #[test]
    fn an_arrow_turned_round() {
        let manifest = "[package]\n[dependencies]\npci.workspace = true\n";
        breaks(&with("drivers/hal/Cargo.toml", manifest), "arrows", "drivers/hal/Cargo.toml");
        let manifest = "[target.'cfg(target_os = \"none\")'.dependencies]\npci = { path = \"x\" }\n";
        breaks(&with("drivers/hal/Cargo.toml", manifest), "arrows", "drivers/hal/Cargo.toml");
        breaks(
            &with("drivers/hal/src/x.rs", "//! X.\nuse pci::Function;\n"),
            "arrows",
            "drivers/hal/src/x.rs",
        );
    }

    #[test]
    fn a_module_of_the_same_name_is_no_arrow() {
        let tree = with("drivers/hal/src/x.rs", "//! X.\nuse crate::boot::Y;\nuse super::pci::Z;\n");
        assert_eq!(arrows(&tree), []);
    }

    #[test]
    fn test_dependencies_may_be_anything() {
        assert_eq!(
            dependencies("[dev-dependencies]\na = 1\n[dependencies]\n# x\nb.workspace = true\n"),
            [(5, "b".into())]
        );
    }

    #[test]
    fn a_pure_crate_that_is_not() {
        let path = "drivers/hal/src/lib.rs";
        breaks(&with(path, "//! Hal.\n#![no_std]\n"), "purity", path);
        breaks(&with(path, "//! Hal.\n#![forbid(unsafe_code)]\n"), "purity", path);
        breaks(&with(path, "//! Hal.\n#![no_std]\n// #![forbid(unsafe_code)]\n"), "purity", path);
    }

    #[test]
    fn unsafe_in_the_wrong_place() {
        let path = "boot/src/other.rs";
        breaks(&with(path, "//! O.\n// SAFETY: none\nunsafe { x() }\n"), "unsafe", path);
        assert_eq!(unsafe_places(&with(path, "//! unsafe\nlet x = \"unsafe\";\n")), []);
    }

    #[test]
    fn unsafe_without_its_facts() {
        let path = "boot/src/entry.rs";
        breaks(&with(path, "//! E.\nunsafe { x() }\n"), "safety", path);
        let far = format!("//! E.\n// SAFETY: far\n{}unsafe {{}}\n", "x();\n".repeat(SAFETY_REACH));
        breaks(&with(path, &far), "safety", path);
        breaks(&with(path, "//! E.\npub unsafe fn x() {}\n"), "safety", path);
        assert_eq!(safety(&with(path, "//! E.\nunsafe extern \"C\" fn x() {}\nlet y: unsafe fn();\n")), []);
    }

    #[test]
    fn a_file_without_a_subject() {
        breaks(&with("boot/src/x.rs", "fn x() {}\n"), "headers", "boot/src/x.rs");
    }

    #[test]
    fn a_file_with_two_subjects() {
        let long = "//! X.\n".to_owned() + &"x();\n".repeat(MAX_LINES);
        breaks(&with("boot/src/x.rs", &long), "length", "boot/src/x.rs");
        let tested = "//! X.\n#[cfg(test)]\n".to_owned() + &"x();\n".repeat(MAX_LINES);
        assert_eq!(length(&with("boot/src/x.rs", &tested)), []);
    }

    #[test]
    fn a_file_for_the_emulator_without_its_licence() {
        breaks(&with("xtask/bochs/src/cpu/y.cc", "// mine\n"), "licence", "xtask/bochs/src/cpu/y.cc");
    }

    #[test]
    fn a_place_on_somebodys_machine() {
        breaks(&with("README.md", "see /home/me/x\n"), "places", "README.md");
        breaks(&with("README.md", "see /srv/x/y/z\n"), "places", "README.md");
    }
}
