//! `cargo xtask switch`: the network between emulated machines, in lock-step or free-running.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::run::Owned;
use crate::switch::cable::CableConfig;
use crate::switch::config::{Config, DEFAULT_QUANTUM};
use crate::switch::core::{Ended, Summary, Switch};
use crate::switch::free::{self, Plug};
use crate::switch::pingpong::{self, Game};
use crate::switch::process::Server;
use crate::switch::scenario::Scenario;
use crate::switch::time::{Ns, Ppm, parse_duration, parse_share};
use crate::ui;

/// Joins emulated machines to a network whose faults are drawn from a seed.
///
/// In lock-step (the default) every machine meets the switch at each quantum of emulated time, and the whole run is a
/// function of the seed. Start the switch first, then the machines with LOCKSTEP_NET=NAME:SOCKET and network cards
/// `ethmod=lockstep, ethdev=CARD`. docs/switch.md has the scenario file's keys.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run this scenario file (TOML)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["host", "pingpong", "loss", "duplicate", "reorder", "latency",
        "jitter", "quantum", "capture", "end"])]
    scenario: Option<PathBuf>,
    /// Without a scenario: wait for these hosts, all on one network with their card 0
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
    /// Where machines join
    #[arg(long, value_name = "PATH", default_value = "lockstep.sock")]
    socket: PathBuf,
    /// Seed of every chance (overrides the scenario's)
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Emulated time between two meetings
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    quantum: Option<Ns>,
    /// End all machines at this emulated time
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    end: Option<Ns>,
    /// One-way latency of each cable [default: half a quantum]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    latency: Option<Ns>,
    /// Jitter of each cable
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    jitter: Option<Ns>,
    /// Share of frames that each cable loses, for instance 5%
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    loss: Option<Ppm>,
    /// Share of frames that each cable delivers twice
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    duplicate: Option<Ppm>,
    /// Share of frames that each cable holds back by up to 1 ms
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    reorder: Option<Ppm>,
    /// Write what the switch sees to this file (pcap, nanoseconds)
    #[arg(long, value_name = "FILE")]
    capture: Option<PathBuf>,
    /// End with an error when no machine has come for so long by the wall clock
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    give_up: Option<Ns>,
    /// Prove determinism: two machines play ping-pong over a bad network, twice with the seed and once with another
    #[arg(long)]
    pingpong: bool,
    /// With --pingpong: kill one machine at an exact tick instead, twice, and compare
    #[arg(long, value_name = "TICK", requires = "pingpong")]
    kill: Option<u64>,
    /// Run free, paced by the wall clock, between UDP ports (Bochs: `ethmod=socket, ethdev=PORT`; QEMU: `-netdev
    /// dgram` or `socket,udp=`)
    #[arg(long, requires = "udp")]
    free: bool,
    /// With --free: the machine NAME (or its card, NAME:CARD) receives on UDP port PORT and sends to PORT + 1
    #[arg(long, value_name = "NAME=PORT", requires = "free", value_parser = Plug::parse)]
    udp: Vec<Plug>,
    /// With --free: join this TAP interface of this host too, as the machine NAME of a --udp (needs the program socat and
    /// the right to make interfaces)
    #[arg(long, value_name = "NAME=INTERFACE", requires = "free")]
    tap: Option<String>,
    /// Pings that must be answered
    #[arg(long, value_name = "N", default_value_t = 10_000, requires = "pingpong")]
    frames: u32,
    /// Print JSON: the summary of a run, or the rows of the proof
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
///
/// # Errors
/// When the scenario means nothing, the socket cannot be made, or the machines do not come.
pub fn run(args: Args) -> Result<ExitCode> {
    if args.pingpong {
        return play(&args);
    }
    if args.free {
        return run_free(&args);
    }
    let Scenario { config, worlds } = args.scenario()?;
    let switch = Switch::new(&config, worlds)?;
    let mut server = Server::bind(&std::path::absolute(&args.socket)?)?;
    server.verbose = true;
    server.give_up_after = args.give_up.map(Duration::from_nanos);
    let names: Vec<&str> = config.hosts.iter().map(|h| h.name.as_str()).collect();
    ui::say(format!(
        "switch: seed {}; waiting for {} at {}",
        config.seed,
        names.join(", "),
        server.path().display()
    ));
    let summary = server.run(&config, switch, None)?;
    print_summary(&summary, args.json)?;
    Ok(if is_well(&summary) { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn play(args: &Args) -> Result<ExitCode> {
    let mut game = Game::new(args.seed.unwrap_or(1));
    game.frames = args.frames;
    game.quantum = args.quantum.unwrap_or(game.quantum);
    game.cable.latency = game.quantum.div_ceil(2);
    args.apply(&mut game.cable);
    game.capture.clone_from(&args.capture);
    let report = match args.kill {
        Some(tick) => pingpong::prove_kill(&game, tick)?,
        None => pingpong::prove(&game)?,
    };
    Ok(report.finish(args.json))
}

fn run_free(args: &Args) -> Result<ExitCode> {
    let config = match &args.scenario {
        Some(path) => Scenario::read(path)?.config,
        None => args.lan(args.udp.iter().map(|plug| plug.port.station.as_str()).collect()),
    };
    let config = Config { seed: args.seed.unwrap_or(config.seed), ..config };
    let _tap = match args.tap.as_deref().map(|tap| tap.split_once('=')) {
        None => None,
        Some(Some((name, interface))) => {
            let plug = args.udp.iter().find(|plug| plug.port.station == name);
            let plug = plug.with_context(|| format!("--tap names `{name}`, which no --udp does"))?;
            Some(Owned::spawn(&mut free::tap(interface, plug)?)?)
        }
        Some(None) => bail!("write --tap NAME=INTERFACE, for instance outside=tap0"),
    };
    let plugs: Vec<String> = args.udp.iter().map(|p| format!("{} at UDP {}", p.port, p.udp)).collect();
    ui::say(format!("switch: running free, seed {}: {}; Ctrl-C ends it", config.seed, plugs.join(", ")));
    free::run(&config, &args.udp)?;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn scenario(&self) -> Result<Scenario> {
        let mut scenario = match &self.scenario {
            Some(path) => Scenario::read(path)?,
            None if self.host.is_empty() => {
                bail!("whom to join? give --scenario FILE, or --host NAME for each host")
            }
            None => self.plain(),
        };
        scenario.config.seed = self.seed.unwrap_or(scenario.config.seed);
        Ok(scenario)
    }

    fn plain(&self) -> Scenario {
        let config = self.lan(self.host.iter().map(String::as_str).collect());
        Scenario { config, worlds: Vec::new() }
    }

    /// One network as the flags describe it. Running free there is no quantum that a latency could fall short of.
    fn lan(&self, hosts: Vec<&str>) -> Config {
        let quantum = self.quantum.unwrap_or(DEFAULT_QUANTUM);
        let latency = if self.free { 0 } else { quantum.div_ceil(2) };
        let mut cable = CableConfig { latency, ..CableConfig::default() };
        self.apply(&mut cable);
        let mut config = Config { quantum, end: self.end, ..Config::lan(1, &hosts, &cable) };
        config.networks[0].capture.clone_from(&self.capture);
        config
    }

    fn apply(&self, cable: &mut CableConfig) {
        cable.latency = self.latency.unwrap_or(cable.latency);
        cable.jitter = self.jitter.unwrap_or(cable.jitter);
        cable.loss = self.loss.unwrap_or(cable.loss);
        cable.duplicate = self.duplicate.unwrap_or(cable.duplicate);
        cable.reorder = self.reorder.unwrap_or(cable.reorder);
    }
}

/// Whether no host was lost or violated the protocol. What it left with is its own affair.
fn is_well(summary: &Summary) -> bool {
    let bad = |ended: &Ended| matches!(ended, Ended::Lost | Ended::Violated(_));
    !summary.hosts.iter().flat_map(|h| &h.lives).any(|life| bad(&life.ended))
}

fn print_summary(summary: &Summary, json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string(summary)?);
        return Ok(());
    }
    println!("{:.6} s of emulated time, digest {}", summary.time_ns as f64 / 1e9, summary.digest);
    for host in &summary.hosts {
        for life in &host.lives {
            println!("host {}: {:?} at tick {} ({} ns)", host.name, life.ended, life.tick, life.end_ns);
        }
    }
    for p in &summary.ports {
        println!(
            "port {} on {}: sent {}, heard {}; lost {}, doubled {}, held back {}, overflowed {}, cut {}, unheard {}",
            p.port,
            p.network,
            p.up.frames,
            p.down.frames,
            p.up.lost + p.down.lost,
            p.up.duplicated + p.down.duplicated,
            p.up.reordered + p.down.reordered,
            p.up.overflowed + p.down.overflowed,
            p.at_switch.cut,
            p.at_switch.unheard,
        );
    }
    for (name, text) in &summary.worlds {
        println!("world {name}: {text}");
    }
    Ok(())
}
