//! `cargo xtask test`: every test there is.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

use super::build::cargo;
use crate::libtest::{Counts, complaints, explanations};
use crate::run::Cmd;
use crate::setup::{self, Purpose};
use crate::{emulator, guests, paths, tidy, ui};

/// A suite that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(60 * 60);
/// How much of a suite's explanations is shown, lines; the log has all.
const SHOWN_LINES: usize = 400;

/// Run every test: formatting, lints, the architecture's rules, host tests, test kernels and scenarios on the emulated
/// machine, boots on QEMU.
///
/// Installs what is missing (asks; --yes does not) and builds the emulator once. The last line says how many tests passed
/// and failed; the exit status is 0 if none failed. Logs are in target/out/test.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask test --quick            what needs no machine, in a minute or two
  cargo xtask test --only clippy      one suite
  cargo xtask test --only exit_port   one file of tests/machine/tests
  cargo xtask test --only two_runs    the tests whose names contain this")]
pub struct Args {
    /// Only this suite (fmt, clippy, clippy-kernel, clippy-guests, tidy, host, machine), this file of scenarios, or the tests whose
    /// names contain this
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Leave out what needs a machine
    #[arg(long, conflicts_with = "only")]
    quick: bool,
    /// Install what is missing without asking
    #[arg(long)]
    yes: bool,
}

/// A group of tests.
struct Suite {
    name: &'static str,
    what: &'static str,
    /// Whether it needs the emulator and QEMU.
    machine: bool,
    kind: Kind,
}

enum Kind {
    /// A command that passes or fails as a whole.
    Command(&'static [&'static str]),
    /// The rules of the architecture, one test each.
    Tidy,
    /// `cargo test` with these arguments, and these for the test programs.
    Cargo(&'static [&'static str], &'static [&'static str]),
}

const SUITES: &[Suite] = &[
    Suite {
        name: "fmt",
        what: "formatting",
        machine: false,
        kind: Kind::Command(&["fmt", "--all", "--check"]),
    },
    Suite { name: "tidy", what: "the architecture's rules", machine: false, kind: Kind::Tidy },
    Suite {
        name: "clippy",
        what: "lints",
        machine: false,
        kind: Kind::Command(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    },
    Suite {
        name: "clippy-kernel",
        what: "lints for the bare machine",
        machine: false,
        kind: Kind::Command(&[
            "clippy",
            "-p",
            "lockstep",
            "--target",
            paths::KERNEL_TARGET,
            "--",
            "-D",
            "warnings",
        ]),
    },
    Suite {
        // Not in one call with the kernel: what that wants of smoltcp would bring an allocator's absence into the test kernels.
        name: "clippy-guests",
        what: "lints for the test kernels",
        machine: false,
        kind: Kind::Command(&[
            "clippy",
            "-p",
            "guests",
            "--target",
            paths::KERNEL_TARGET,
            "--",
            "-D",
            "warnings",
        ]),
    },
    Suite {
        name: "host",
        what: "tests on the host",
        machine: false,
        kind: Kind::Cargo(&["--workspace", "--exclude", "machine-tests"], &["--test-threads=2"]),
    },
    Suite {
        name: "machine",
        what: "scenarios on emulated machines",
        machine: true,
        // Two at a time however few processors: a machine that waits for another costs nothing.
        kind: Kind::Cargo(&["-p", "machine-tests"], &["--test-threads=2"]),
    },
];

/// Runs the verb.
///
/// # Errors
/// When something is missing that the tests need, or `--only` fits nothing.
pub fn run(args: Args) -> Result<ExitCode> {
    let only = args.only.as_deref();
    let suite_named = only.filter(|name| SUITES.iter().any(|suite| suite.name == *name));
    let filter = if suite_named.is_some() { None } else { only };
    let chosen: Vec<&Suite> = SUITES
        .iter()
        .filter(|suite| match (suite_named, filter) {
            (Some(name), _) => suite.name == name,
            (None, Some(_)) => matches!(suite.kind, Kind::Cargo(..)),
            (None, None) => !(args.quick && suite.machine),
        })
        .collect();
    let mut counts = Counts::default();
    if chosen.iter().any(|suite| suite.machine) {
        setup::ensure(Purpose::Test, args.yes)?;
        emulator::binary()?;
        counts.add(build_kernels(filter.is_some()));
    }
    std::fs::create_dir_all(paths::out_dir()?.join("test"))?;
    for suite in chosen {
        counts.add(run_suite(suite, filter)?);
    }
    if let Some(name) = filter.filter(|_| counts.passed + counts.failed == 0) {
        bail!("no suite and no test is called `{name}`");
    }
    Ok(conclude(&counts))
}

/// The kernel and the test kernels, once, before tests that run at the same time want them.
fn build_kernels(quietly: bool) -> Counts {
    let mut counts = Counts::default();
    for (name, built) in
        [("build kernel", super::build::kernel().map(drop)), ("build guests", guests::build_all())]
    {
        match built {
            Ok(()) if quietly => {}
            Ok(()) => counts.add(Counts::pass()),
            Err(error) => {
                ui::error(&error);
                counts.add(Counts::fail(name));
            }
        }
    }
    counts
}

fn run_suite(suite: &Suite, filter: Option<&str>) -> Result<Counts> {
    let step = ui::step(format!("{}: {}", suite.name, suite.what));
    let log = paths::out_dir()?.join(format!("test/{}.log", suite.name));
    let counts = match suite.kind {
        Kind::Tidy => tidy_rules()?,
        Kind::Command(words) => {
            let done = cargo(words.iter().copied()).timeout(LIMIT).log(&log).run()?;
            if !done.ok() {
                ui::say(format!("\n{}", done.output.trim_end()));
            }
            if done.ok() { Counts::pass() } else { Counts::fail(suite.name) }
        }
        Kind::Cargo(select, options) => {
            // `NAME` may be a file of scenarios: then all of it runs.
            let file = filter.filter(|name| suite.machine && scenarios(name).is_file());
            let mut words: Vec<&str> = ["test", "--no-fail-fast"].iter().chain(select).copied().collect();
            words.extend(file.iter().flat_map(|name| ["--test", *name]));
            words.extend(["--"].iter().chain(options));
            words.extend(filter.filter(|_| file.is_none()));
            let command = cargo(words).timeout(LIMIT).log(&log);
            cargo_tests(suite.name, command, &step)?
        }
    };
    let result = format!("{} passed, {} failed", counts.passed, counts.failed);
    if counts.failed == 0 {
        step.done_with(result);
    } else {
        step.failed(format!("{result}; log: {}", log.display()));
    }
    Ok(counts)
}

/// The file of scenarios of that name.
fn scenarios(name: &str) -> std::path::PathBuf {
    paths::root().join(format!("tests/machine/tests/{name}.rs"))
}

fn tidy_rules() -> Result<Counts> {
    let tree = tidy::Tree::read(&paths::root())?;
    let mut counts = Counts::default();
    for rule in tidy::RULES {
        let broken = rule.check(&tree);
        for finding in &broken {
            ui::say(format!("{}:{}: [{}] {}", finding.path, finding.line, rule.name, finding.message));
        }
        counts.add(if broken.is_empty() {
            Counts::pass()
        } else {
            Counts::fail(&format!("tidy {}", rule.name))
        });
    }
    Ok(counts)
}

fn cargo_tests(name: &str, command: Cmd<'_>, step: &ui::Step) -> Result<Counts> {
    let mut counts = Counts::default();
    let mut aborted = Vec::new();
    let done = command
        .on_line(|line| {
            if let Some(test) = counts.read_line(line) {
                let so_far = format!("{} passed, {} failed, last {test}", counts.passed, counts.failed);
                step.detail(so_far);
            } else if line.contains("(signal: ") || line.starts_with("error: could not compile") {
                aborted.push(line.trim().to_owned());
            }
        })
        .run()?;
    if !done.ok() {
        let text = complaints(&done.output) + &explanations(&done.output);
        let lines: Vec<&str> = text.lines().filter(|line| !is_backtrace(line)).collect();
        ui::say(format!("\n{}", lines[..lines.len().min(SHOWN_LINES)].join("\n")));
    }
    // A test program that does not compile or dies counts as one failure for each complaint, and no failure at all may
    // hide behind a good-looking count.
    for complaint in aborted {
        ui::say(&complaint);
        counts.add(Counts::fail(&format!("{name}: {complaint}")));
    }
    if !done.ok() && counts.failed == 0 {
        ui::say(done.tail());
        counts.add(Counts::fail(&format!("{name}: cargo test {}", done.ending())));
    }
    Ok(counts)
}

/// Lines of a stack backtrace, which RUST_BACKTRACE brings and nobody needs here.
fn is_backtrace(line: &str) -> bool {
    let trimmed = line.trim_start();
    let numbered = trimmed.split_once(": ").is_some_and(|(n, _)| n.parse::<u32>().is_ok());
    (line.starts_with("  ") && (numbered || trimmed.starts_with("at "))) || line == "stack backtrace:"
}

/// Says what failed and, on the very last line, how many passed and failed.
fn conclude(counts: &Counts) -> ExitCode {
    if !counts.failures.is_empty() {
        println!("failed:");
    }
    for failure in &counts.failures {
        println!("  {failure}");
    }
    if counts.ignored > 0 {
        println!("{} ignored", counts.ignored);
    }
    println!("{} passed, {} failed", counts.passed, counts.failed);
    if counts.failed == 0 && counts.passed > 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backtraces_are_told_from_explanations() {
        assert!(
            is_backtrace("   3: core::panicking::panic_fmt")
                && is_backtrace("             at ./src/lib.rs:2:3")
        );
        assert!(
            !is_backtrace("thread 'x' panicked at src/lib.rs:1:1:")
                && !is_backtrace("    @@ check name=a: b")
        );
    }

    fn cargo_output(script: &str) -> Counts {
        cargo_tests("suite", Cmd::new("sh").args(["-c", script]), &ui::step("test the tests")).unwrap()
    }

    #[test]
    fn a_suite_that_dies_is_a_failure() {
        assert_eq!(cargo_output("echo 'test a ... ok'; exit 101").failed, 1);
        assert_eq!(cargo_output("echo 'error: could not compile `x`'; exit 101").failed, 1);
        assert_eq!(
            cargo_output("echo 'process did not exit successfully (signal: 11, SIGSEGV)'; exit 101").failed,
            1
        );
        assert_eq!(cargo_output("echo 'test a ... FAILED'; exit 101").failed, 1);
        assert_eq!(cargo_output("echo 'test a ... ok'").failed, 0);
    }
}
