//! Two emulated machines that play ping-pong over a bad network: the proof that a run is a function of its seed.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::cable::CableConfig;
use super::config::Config;
use super::core::{Ended, Summary, Switch};
use super::process::Server;
use super::time::Ppm;
use crate::emulator::{Exit, Machine, Nic, NicMode};
use crate::guests;
use crate::report::{Goal, Report, Row};

/// Give up when no host has come for so long (wall-clock): a host does not start, or is broken.
const GIVE_UP: Duration = Duration::from_secs(300);

/// What to play.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Game {
    /// Seed of the network's chances and of the frames' content.
    pub seed: u64,
    /// Pings that must be answered.
    pub frames: u32,
    /// How bad the cables are.
    pub cable: CableConfig,
    /// Emulated time between meetings, in nanoseconds.
    pub quantum: u64,
    /// Where to write what the switch sees.
    pub capture: Option<PathBuf>,
    /// Kill a machine after this much wall-clock time.
    pub limit: Duration,
}

impl Game {
    /// 10,000 frames; each cable loses 5 %, doubles 2 %, holds back 3 %, and has some jitter.
    pub fn new(seed: u64) -> Self {
        let cable = CableConfig {
            loss: Ppm(50_000),
            duplicate: Ppm(20_000),
            reorder: Ppm(30_000),
            jitter: 20_000,
            ..CableConfig::default()
        };
        let (frames, quantum, limit) = (10_000, super::config::DEFAULT_QUANTUM, Duration::from_secs(1_200));
        Self { seed, frames, cable, quantum, capture: None, limit }
    }
}

/// All that two runs of one seed must agree in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Played {
    /// What the machines printed about what they saw and when: hashes, counts, their time-stamp counters.
    pub machines: Vec<String>,
    /// What the switch saw.
    pub summary: Summary,
}

/// One game: its result, and how long it took by the wall clock.
///
/// # Errors
/// When a machine cannot be started or does not end well.
pub fn play(game: &Game) -> Result<(Played, Duration)> {
    static GAMES: AtomicU32 = AtomicU32::new(0);
    let number = GAMES.fetch_add(1, Ordering::Relaxed);
    let tag = format!("{}-{number}", std::process::id());
    let socket = std::env::temp_dir().join(format!("lockstep-{tag}.sock"));
    let mut config = Config::lan(game.seed, &["a", "b"], &game.cable);
    config.quantum = game.quantum;
    config.networks[0].capture.clone_from(&game.capture);
    let switch = Switch::new(&config, Vec::new())?;
    let mut server = Server::bind(&socket)?;
    server.give_up_after = Some(GIVE_UP);
    let kernel = guests::build("pingpong")?;
    let since = Instant::now();
    let mut machines = Vec::new();
    for (index, role) in ["a", "b"].into_iter().enumerate() {
        let mut machine =
            Machine { name: format!("pingpong-{role}-{tag}"), limit: game.limit, ..Machine::default() };
        let words = format!(
            "exit-port=0xf4 role={role} frames={} seed={} tsc-hz={}",
            game.frames, game.seed, machine.ips
        );
        let image = guests::iso(&kernel, &words)?;
        machine.cdrom = Some(crate::emulator::Cdrom { image });
        machine.nics = vec![Nic::new(index as u8 + 1, NicMode::Lockstep { device: "0".into() })];
        machine.environment = vec![("LOCKSTEP_NET".into(), format!("{role}:{}", socket.display()))];
        machines.push(machine.start()?);
    }
    let (summary, outcomes) = std::thread::scope(|scope| {
        let switch = scope.spawn(|| server.run(&config, switch, None));
        let outcomes: Vec<_> = machines.into_iter().map(|m| m.wait()).collect();
        (switch.join(), outcomes)
    });
    let mut lines = Vec::new();
    for outcome in outcomes {
        let outcome = outcome?;
        outcome.expect(&Exit::Success)?;
        let line = outcome.facts("pingpong").next().context("a machine did not report what it saw")?;
        lines.push(line.to_owned());
        // Thousands of runs would fill the disk; what a good one leaves says nothing.
        let _ = std::fs::remove_dir_all(&outcome.dir);
    }
    let Ok(summary) = summary else { bail!("the switch panicked") };
    let summary = summary?;
    for host in &summary.hosts {
        if !matches!(&host.lives[..], [life] if life.ended == Ended::Left(33)) {
            bail!("host {} did not leave as it should: {:?}", host.name, host.lives);
        }
    }
    Ok((Played { machines: lines, summary }, since.elapsed()))
}

/// Plays a seed twice and another seed once: the first two must agree in everything, the third must not.
///
/// # Errors
/// As [`play`].
pub fn prove(game: &Game) -> Result<Report> {
    let mut report = Report::default();
    let step = crate::ui::step(format!("play ping-pong, seed {}, twice", game.seed));
    let (first, time) = play(game)?;
    let (second, _) = play(&Game { capture: None, ..game.clone() })?;
    step.done_with(first.summary.digest.clone());
    let other_seed = game.seed.wrapping_add(1);
    let step = crate::ui::step(format!("play ping-pong, seed {other_seed}"));
    let (other, _) = play(&Game { seed: other_seed, capture: None, ..game.clone() })?;
    step.done_with(other.summary.digest.clone());
    let verdict = |good| if good { "pass" } else { "fail" };
    let must = |row: &str, good| Row::new("pingpong", row, verdict(good), "").goal(Goal::Is("pass".into()));
    report.push(must("two runs of the seed agree in all", first == second));
    report.push(must("another seed differs", first.summary.digest != other.summary.digest));
    report.push(must("another seed differs in the guests", first.machines != other.machines));
    report.push(Row::new("pingpong", "frames answered", u64::from(game.frames), "frames"));
    let lost: u64 = first.summary.ports.iter().map(|p| p.up.lost + p.down.lost).sum();
    report.push(Row::new("pingpong", "frames lost on the way", lost, "frames"));
    let ticks = first.summary.hosts.iter().map(|h| h.lives[0].tick).max().unwrap_or(0);
    report.push(Row::new("pingpong", "ticks of the longer host", ticks, "ticks"));
    report.push(Row::new("pingpong", "emulated time", first.summary.time_ns as f64 / 1e9, "s"));
    report.push(Row::new("pingpong", "wall-clock time of a run", time.as_secs_f64(), "s"));
    report.push(Row::new("pingpong", "digest", first.summary.digest.as_str(), ""));
    if first != second {
        let (a, b) = (serde_json::to_string_pretty(&first)?, serde_json::to_string_pretty(&second)?);
        let differing = a.lines().zip(b.lines()).find(|(x, y)| x != y);
        crate::ui::say(format!("the first difference: {differing:?}"));
    }
    Ok(report)
}
