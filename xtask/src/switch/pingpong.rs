//! Two emulated machines that play ping-pong over a bad network: the proof that a run is a function of its seed.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::cable::CableConfig;
use super::config::{Config, DEFAULT_QUANTUM, Partition, Pattern, Stop, StopKind, When};
use super::core::{Ended, Summary, Switch};
use super::process::Server;
use super::time::{Ppm, Rate};
use super::wire::EndReason;
use crate::emulator::{Cdrom, Exit, Machine, Nic, NicMode, Outcome};
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
    /// Kills and pauses.
    pub stops: Vec<Stop>,
    /// Times during which nothing passes.
    pub partitions: Vec<Partition>,
    /// How long machine B waits in silence before it gives up, in emulated milliseconds.
    pub patience_ms: u32,
    /// Where to write what the switch sees.
    pub capture: Option<PathBuf>,
    /// Kill a machine after this much wall-clock time.
    pub limit: Duration,
    /// Keep so many threads of this process busy meanwhile. It must change nothing.
    pub load: usize,
}

impl Game {
    /// 10,000 frames; each cable loses 5 %, doubles 2 %, holds back 3 %, and has some jitter. B is paused for 30 ms, and for
    /// 50 ms it does not hear A.
    pub fn new(seed: u64) -> Self {
        let cable = CableConfig {
            loss: Ppm(50_000),
            duplicate: Ppm(20_000),
            reorder: Ppm(30_000),
            jitter: 20_000,
            ..CableConfig::default()
        };
        // Firmware and loader take some 2.2 s of emulated time, so that both fall into the game.
        let pause = StopKind::Pause(30_000_000);
        let stop = Stop { host: "b".into(), when: When::Tick { tick: 130_000_001, life: 0 }, what: pause };
        let side = |name: &str| vec![Pattern::Station(name.into())];
        let (from, until) = (3_000_000_000, 3_050_000_000);
        let partition = Partition { from, until, a: side("a"), b: side("b"), one_way: true };
        Self {
            seed,
            frames: 10_000,
            cable,
            quantum: DEFAULT_QUANTUM,
            stops: vec![stop],
            partitions: vec![partition],
            patience_ms: 20_000,
            capture: None,
            limit: Duration::from_secs(1_800),
            load: 0,
        }
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
    let since = Instant::now();
    let (outcomes, summary) = run(game)?;
    let mut machines = Vec::new();
    for outcome in &outcomes {
        outcome.expect(&Exit::Success)?;
        machines.push(
            outcome.facts("pingpong").next().context("a machine did not report what it saw")?.to_owned(),
        );
    }
    for host in &summary.hosts {
        if !matches!(&host.lives[..], [life] if life.ended == Ended::Left(33)) {
            bail!("host {} did not leave as it should: {:?}", host.name, host.lives);
        }
    }
    tidy_up(&outcomes);
    Ok((Played { machines, summary }, since.elapsed()))
}

/// Thousands of runs would fill the disk; what a good one leaves says nothing.
fn tidy_up(outcomes: &[Outcome]) {
    for outcome in outcomes {
        let _ = std::fs::remove_dir_all(&outcome.dir);
    }
}

/// Runs both machines and the switch to their end, whatever it is.
fn run(game: &Game) -> Result<(Vec<Outcome>, Summary)> {
    static GAMES: AtomicU32 = AtomicU32::new(0);
    let number = GAMES.fetch_add(1, Ordering::Relaxed);
    let tag = format!("{}-{number}", std::process::id());
    let socket = std::env::temp_dir().join(format!("lockstep-{tag}.sock"));
    let mut config = Config::lan(game.seed, &["a", "b"], &game.cable);
    config.quantum = game.quantum;
    config.stops.clone_from(&game.stops);
    config.partitions.clone_from(&game.partitions);
    config.networks[0].capture.clone_from(&game.capture);
    let switch = Switch::new(&config, Vec::new())?;
    let mut server = Server::bind(&socket)?;
    server.give_up_after = Some(GIVE_UP);
    let kernel = guests::build("pingpong")?;
    let mut machines = Vec::new();
    for (index, role) in ["a", "b"].into_iter().enumerate() {
        let mut machine =
            Machine { name: format!("pingpong-{role}-{tag}"), limit: game.limit, ..Machine::default() };
        let words = format!(
            "exit-port=0xf4 role={role} frames={} seed={} tsc-hz={} patience-ms={}",
            game.frames, game.seed, machine.ips, game.patience_ms
        );
        let image = guests::iso(&kernel, &words)?;
        machine.cdrom = Some(Cdrom { image });
        machine.nics = vec![Nic::new(index as u8 + 1, NicMode::Lockstep { device: "0".into() })];
        machine.environment = vec![("LOCKSTEP_NET".into(), format!("{role}:{}", socket.display()))];
        machines.push(machine.start()?);
    }
    let over = AtomicBool::new(false);
    let (summary, outcomes) = std::thread::scope(|scope| {
        for _ in 0..game.load {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let switch = scope.spawn(|| server.run(&config, switch, None));
        let outcomes: Vec<_> = machines.into_iter().map(|m| m.wait()).collect();
        over.store(true, Ordering::Relaxed);
        (switch.join(), outcomes)
    });
    let outcomes = outcomes.into_iter().collect::<Result<Vec<_>>>()?;
    let Ok(summary) = summary else { bail!("the switch panicked") };
    Ok((outcomes, summary?))
}

/// Plays a seed twice, the second time on a busy machine, and another seed once: the first two must agree in everything,
/// the third must not.
///
/// # Errors
/// As [`play`].
pub fn prove(game: &Game) -> Result<Report> {
    let mut report = Report::default();
    let step = crate::ui::step(format!("play ping-pong, seed {}, twice, once on a busy machine", game.seed));
    let (first, time) = play(game)?;
    let (second, _) = play(&Game { capture: None, load: busy_threads(), ..game.clone() })?;
    step.done_with(first.summary.digest.clone());
    let other_seed = game.seed.wrapping_add(1);
    let step = crate::ui::step(format!("play ping-pong, seed {other_seed}"));
    let (other, _) = play(&Game { seed: other_seed, capture: None, ..game.clone() })?;
    step.done_with(other.summary.digest.clone());
    let verdict = |good| if good { "pass" } else { "fail" };
    let must = |row: &str, good| Row::new("pingpong", row, verdict(good), "").goal(Goal::Is("pass".into()));
    report.push(must("two runs of the seed agree in all, however busy the machine", first == second));
    report.push(must("another seed differs", first.summary.digest != other.summary.digest));
    report.push(must("another seed differs in the guests", first.machines != other.machines));
    report.push(Row::new("pingpong", "frames answered", u64::from(game.frames), "frames"));
    report.push(must("the pause lasted its time", paused(game, &first.summary)));
    let cut: u64 = first.summary.ports.iter().map(|p| p.at_switch.cut).sum();
    report.push(Row::new("pingpong", "frames cut by the partition", cut, "frames"));
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

/// Two for each processor.
fn busy_threads() -> usize {
    2 * std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// Whether the pauses show in the lives: scenario time runs ahead of a host's clock by their length.
fn paused(game: &Game, summary: &Summary) -> bool {
    summary.hosts.iter().all(|host| {
        let Some(rate) = Rate::new(Machine::default().ips) else { return false };
        let life = &host.lives[0];
        let lengths = game.stops.iter().filter(|s| s.host == host.name).map(|s| match (s.when, s.what) {
            (When::Tick { tick, .. }, StopKind::Pause(length)) if tick < life.tick => length,
            _ => 0,
        });
        life.end_ns == rate.ns_of(life.tick) + lengths.sum::<u64>()
    })
}

/// Kills machine A at an exact tick, twice: it must end there, and B must see the same both times.
///
/// # Errors
/// When a machine cannot be started.
pub fn prove_kill(game: &Game, tick: u64) -> Result<Report> {
    let kill = Stop { host: "a".into(), when: When::Tick { tick, life: 0 }, what: StopKind::Kill };
    let game = Game { stops: vec![kill], patience_ms: 200, ..game.clone() };
    let step = crate::ui::step(format!("kill a machine at tick {tick}, twice"));
    let (first, second) = (killed(&game)?, killed(&Game { load: busy_threads(), ..game.clone() })?);
    step.done_with(first.1.digest.clone());
    let mut report = Report::default();
    let verdict = |good| if good { "pass" } else { "fail" };
    let mut must = |row: &str, good| {
        report.push(Row::new("pingpong-kill", row, verdict(good), "").goal(Goal::Is("pass".into())));
    };
    let life = &first.1.hosts[0].lives[0];
    must("the machine died of the order, at its tick", life.tick == tick && life.ended == Ended::Killed);
    must("its process says so", first.0.0 == Exit::Network(EndReason::Killed.exit_code()));
    must(
        "the other machine ran on and gave up by itself",
        first.1.hosts[1].lives[0].ended == Ended::Left(37),
    );
    must("two runs agree in all", first == second);
    Ok(report)
}

/// One run in which A dies: how A's process ended, what B saw; what the switch saw.
fn killed(game: &Game) -> Result<((Exit, String), Summary)> {
    let (outcomes, summary) = run(game)?;
    let [a, b] = &outcomes[..] else { bail!("two machines were started") };
    let saw = b.facts("pingpong").next().context("machine B did not report what it saw")?.to_owned();
    let ended = a.exit.clone();
    tidy_up(&outcomes);
    Ok(((ended, saw), summary))
}
