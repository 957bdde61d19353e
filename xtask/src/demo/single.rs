//! One host by itself: the boot proof, and Debian's Linux as a guest with a shell for a person.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::emulator::{Exit, Knobs, Machine, Outcome};
use crate::image::Image;
use crate::payload::Payload;
use crate::switch::cable::CableConfig;
use crate::switch::station::{Client, Expect, StationConfig, Task, content};
use crate::vm::host::{Console, Host};
use crate::vm::outside::Outside;
use crate::vm::terminal;
use crate::{paths, ui};

/// A demonstration that runs longer hangs.
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// What to show of one host.
#[derive(Clone, Debug)]
pub struct Single {
    /// The hypervisor.
    pub kernel: PathBuf,
    /// More words for its command line.
    pub words: String,
    /// Processors.
    pub cpus: u32,
    /// How late overflow interrupts come, instructions.
    pub skid: String,
    /// Only the boot proof, no guest.
    pub proof: bool,
}

impl Single {
    /// Shows it.
    ///
    /// # Errors
    /// When something cannot be made or started; how it ended is the exit status.
    pub fn run(self) -> Result<ExitCode> {
        if !self.proof {
            return linux(self);
        }
        let iso = paths::out_dir()?.join("demo.iso");
        let step = ui::step("make the boot image");
        Image::for_run(self.kernel, &format!("proof=short {}", self.words))?.write_iso(&iso)?;
        step.done();
        ui::say("The console of the emulated machine:\n");
        let machine = Machine {
            cpus: self.cpus,
            limit: LIMIT,
            knobs: Knobs { skid: Some(self.skid), ..Knobs::default() },
            live: true,
            readable: true,
            ..Machine::from_iso("demo", iso)
        };
        let outcome = machine.run()?;
        println!("{}", summary(&machine, &outcome));
        Ok(if outcome.exit == Exit::Success { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

/// Debian's Linux as a guest, with a computer outside that fetches from it.
fn linux(args: Single) -> Result<ExitCode> {
    let person = terminal::is_there();
    let words = if person { "wl=shell" } else { "wl=serve quit=1" };
    let mut description = Payload::Cloud.describe(&format!("quiet {words}"))?;
    description.networks = 1;
    let host = Host {
        words: format!("exit-port=0xf4 after=exit proof=short {}", args.words).trim().into(),
        cpus: args.cpus,
        outside: Outside::Stations {
            seed: 1,
            cable: CableConfig::default(),
            stations: vec![("outside".into(), visitor(person))],
            capture: None,
        },
        console: if person { Console::Person } else { Console::Shown },
        paced: person,
        ips: if person { 150_000_000 } else { Machine::default().ips },
        knobs: Knobs { skid: Some(args.skid), ..Knobs::default() },
        limit: if person { Duration::MAX / 4 } else { LIMIT },
        ..Host::new("demo", args.kernel)
    };
    let started = host.start(&description.vm()?)?;
    let (outcome, told) = if person {
        let desk = crate::verbs::run::Desk::open(&started.running)?;
        started.wait_unless(|| desk.is_left())?
    } else {
        ui::say("The console of the emulated machine:\n");
        started.wait()?
    };
    let machine = Machine { cpus: host.cpus, ips: host.ips, ..Machine::default() };
    println!("{}", summary(&machine, &outcome));
    for line in told {
        println!("What the computer outside did, {line}");
    }
    Ok(if outcome.exit.is_success() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// The computer outside: it fetches a page and a file and checks them; where nobody else ends the guest, it does.
fn visitor(person: bool) -> StationConfig {
    let client = |task| Client { at: 0, to: [10, 0, 2, 15], task };
    let fetch = |path: &str, expect| client(Task::Fetch { port: 80, path: path.into(), expect });
    let mut clients = vec![
        fetch("/index.html", Expect::Text("ok\n".into())),
        fetch("/file8", Expect::Sha256(content::zeros_sha256(8 << 20))),
    ];
    if !person {
        clients.push(client(Task::Touch { port: 9 }));
    }
    StationConfig { clients, tells: true, ..StationConfig::default() }
}

/// What there was to see, in a few lines.
fn summary(machine: &Machine, outcome: &Outcome) -> String {
    let mut text = String::from("\nWhat you have seen:\n");
    let processors =
        if machine.cpus == 1 { "one processor" } else { &format!("{} processors", machine.cpus) };
    let emulated = outcome.ticks.map_or(String::new(), |ticks| {
        format!(", {:.1} s of its own time", ticks as f64 / machine.ips as f64)
    });
    text += &format!(
        "  The kernel booted on an emulated machine with {processors}; the run took {}{emulated}.\n",
        ui::seconds(outcome.time)
    );
    text += &proof_line(outcome);
    let guests = outcome.facts("guests").next().unwrap_or_default();
    if let (Some(run), Some(passed)) = (value(guests, "run"), value(guests, "passed")) {
        text += &format!(
            "  Tiny guests in VMX non-root operation, hostile ones too: {passed} of {run} ended as they should.\n"
        );
    }
    text += &format!("  {}\n", outcome.exit.sentence());
    if outcome.exit == Exit::Success {
        text += "\nGo on with `cargo xtask pmu` (the proof's long form), `cargo xtask pmu --short --fault lost-pmi` (it must fail),\n\
                 `cargo xtask doctor` (what this host can do).";
    } else {
        text += &format!("\nAll files of the run: {}", outcome.dir.display());
    }
    text
}

fn proof_line(outcome: &Outcome) -> String {
    let (passed, all) = verdicts(outcome, "proof");
    let landings: u64 =
        outcome.facts("proof").filter_map(|fact| value(fact, "landings")?.parse::<u64>().ok()).sum();
    match all {
        0 => "  There was no boot proof.\n".into(),
        _ => format!(
            "  The boot proof: {passed} of {all} properties hold; {landings} times it stopped a guest exactly at the \
             instruction it had chosen.\n"
        ),
    }
}

/// How many lines `@@ WORD ... verdict=...` say pass, and how many there are.
fn verdicts(outcome: &Outcome, word: &str) -> (usize, usize) {
    let verdicts: Vec<&str> = outcome.facts(word).filter_map(|fact| value(fact, "verdict")).collect();
    (verdicts.iter().filter(|v| **v == "pass").count(), verdicts.len())
}

/// The value of `key=` among words.
fn value<'a>(fact: &'a str, key: &str) -> Option<&'a str> {
    fact.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(console: &str, exit: Exit) -> Outcome {
        let time = Duration::from_secs(3);
        let console = console.to_owned();
        Outcome { exit, ticks: Some(100_000_000), console, time, user_time: None, dir: "/run".into() }
    }

    #[test]
    fn the_summary_tells_what_the_console_said() {
        let console = "@@ proof property=a landings=60 verdict=pass\n@@ proof property=b landings=4 verdict=fail\n\
                       @@ guests run=13 passed=12 verdict=fail\n";
        let text = summary(&Machine::default(), &outcome(console, Exit::Failed));
        assert!(text.contains("1 of 2 properties hold; 64 times"), "{text}");
        assert!(text.contains("12 of 13 ended"), "{text}");
        assert!(text.contains("2.0 s of its own time") && text.contains("/run"), "{text}");
    }

    #[test]
    fn no_proof_is_said_to_be_none() {
        let text = summary(&Machine::default(), &outcome("", Exit::Success));
        assert!(text.contains("no boot proof") && text.contains("one processor"), "{text}");
    }
}
