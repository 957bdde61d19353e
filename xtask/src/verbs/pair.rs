//! `cargo xtask pair`: two emulated hosts, one virtual machine in lockstep, and what may befall them.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, anyhow, ensure};
use ft::arbiter::record::{Record, Standing, VmId};
use ft::keys::Incarnation;
use ft::side::Side;
use vm_config::HostName;

use super::machine_args::MachineArgs;
use crate::emulator::{self, Exit, Machine};
use crate::pairing::events::is_of_the_pair;
use crate::pairing::free;
use crate::pairing::incident::Incident;
use crate::pairing::marks::Moment;
use crate::pairing::outside;
use crate::pairing::plan::{PairOptions, paired, paired_on_one_card};
use crate::pairing::run::{PairOutcome, PairRun};
use crate::pairing::typed::Typed;
use crate::setup::{self, Purpose};
use crate::switch::cable::CableConfig;
use crate::switch::station::counter::CounterConfig;
use crate::switch::station::lock::LockFaults;
use crate::switch::station::ping::PingConfig;
use crate::switch::time::{Ns, parse_duration};
use crate::ui;
use crate::vm::Vm;
use crate::vm::host::Host;

/// The name of the runs' directories.
const NAME: &str = "pair";

/// Run one virtual machine on two emulated hosts in lockstep, and let something befall them.
///
/// Both hosts, their networks and the arbiter are one function of --seed: the same command gives the same run. The machine is
/// described as for `run`; without a [pair] section in its configuration one is added. Host a is the primary at the start unless the
/// configuration says otherwise. A moment is emulated time since the start (12s), or counts from when the arbiter armed the pair
/// (armed+500ms), from when a host won (won+1s), from the client's n-th answer (answer=100+3ms), or, with --client, from when all
/// programs of the machine outside are at work (note=load+50ms).
///
/// --client joins a third emulated machine to the guest's network, a plain Debian whose redis-benchmark and redis-cli, or wrk and
/// wget, or ssh, and ping use the guest's server and check every answer: --size requests of a kind, --size seconds, or --size lines of
/// a session.
///
/// With --free the runs are not in lock step and no two are alike; what must never happen must not happen there either.
///
/// Exit status 0 when at most one virtual machine lived on, no answer to the client was wrong or missing, and no host panicked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask pair --guest counter --count 500 --kill a@answer=200+3ms
  cargo xtask pair --guest redis --count 2000 --stop a@armed+2s/3s
  cargo xtask pair --guest counter --count 500 --cut log@armed+1s --json
  cargo xtask pair --guest nginx --client --size 2 --ips 500000000 --kill a@note=load+100ms
  cargo xtask pair --guest counter --count 100 --pause 20ms --free --ips 50000000 --kill a@answer=50
  cargo xtask pair --config lockstep.toml --until armed+10s

docs/configuration.md has the section [pair].")]
pub struct Args {
    #[command(flatten)]
    machine: MachineArgs,
    /// Seed of the network, of both hosts' timers and interrupts, and of the pair's key
    #[arg(long = "pair-seed", value_name = "N", default_value_t = 1, help_heading = "Pair")]
    pair_seed: u64,
    /// A host dies: a@12s, b@armed+500ms
    #[arg(long, value_name = "HOST@MOMENT", value_parser = Incident::kill, help_heading = "Pair")]
    kill: Vec<Incident>,
    /// A host hangs, and comes back after so long, or never: a@12s/2s, b@armed+1s
    #[arg(long, value_name = "HOST@MOMENT[/TIME]", value_parser = Incident::stop, help_heading = "Pair")]
    stop: Vec<Incident>,
    /// Cables are cut, for so long or for good: log, guest and all lie between the hosts; a, b, a:log, a:guest are a host's own;
    /// arbiter is the arbiter's
    #[arg(long, value_name = "WHAT@MOMENT[/TIME]", value_parser = Incident::cut, help_heading = "Pair")]
    cut: Vec<Incident>,
    /// A command for the hypervisor's shell is typed on a host's console: a:armed+1s:vm pause
    #[arg(long = "type", value_name = "HOST:MOMENT:COMMAND", value_parser = Typed::parse, help_heading = "Pair")]
    typed: Vec<Typed>,
    /// A host is so many times as slow as the other: b:2
    #[arg(long, value_name = "HOST:N", value_parser = slow, help_heading = "Pair")]
    slow: Option<(HostName, u64)>,
    /// Let a client count in the guest's server (port 6379) by so many requests, and check every answer
    #[arg(long, value_name = "REQUESTS", help_heading = "Pair")]
    count: Option<u32>,
    /// The client's pause between an answer and the next request
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "1ms", help_heading = "Pair")]
    pause: Ns,
    /// Ping the guest so often, and say how long it was silent
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = "Pair")]
    ping: Option<Ns>,
    /// The run is over at this moment
    #[arg(long, value_name = "MOMENT", value_parser = Moment::parse, help_heading = "Pair")]
    until: Option<Moment>,
    /// The run is over at this emulated time at the latest
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "600s", help_heading = "Pair")]
    end: Ns,
    /// The run is over so long after the client is done
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "5s", help_heading = "Pair")]
    linger: Ns,
    /// Latency of each cable of the logging network: half of what a frame takes to the other host
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "50us", help_heading = "Pair")]
    log_latency: Ns,
    /// Each host has one card, for the guest's network and the log alike
    #[arg(long, help_heading = "Pair")]
    one_card: bool,
    /// Write what passes on the logging network to this file (pcap)
    #[arg(long, value_name = "FILE", help_heading = "Pair")]
    log_capture: Option<PathBuf>,
    /// The arbiter takes so long for an answer
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "0s", help_heading = "Pair")]
    arbiter_delay: Ns,
    /// So many of the arbiter's first answers are lost, though it has done what it was asked
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Pair")]
    arbiter_unsaid: u32,
    /// The arbiter's record is from before: a host has consumed this generation: b:1
    #[arg(long, value_name = "HOST:GENERATION", value_parser = slow, help_heading = "Pair")]
    arbiter_knows: Option<(HostName, u64)>,
    /// There is no arbiter
    #[arg(long, help_heading = "Pair")]
    arbiter_dead: bool,
    /// Not in lock step: hosts and network go by the wall clock, each as it can, with time-outs of seconds. No two such runs are alike
    #[arg(long, conflicts_with_all = ["cut", "typed"], help_heading = "Pair")]
    free: bool,
    /// Say what the arbiter is asked
    #[arg(long, help_heading = "Pair")]
    say: bool,
    /// Show what the hosts say of the pair instead of their consoles
    #[arg(long, help_heading = "Pair")]
    quiet: bool,
    /// Print what came of it as JSON
    #[arg(long, help_heading = "Pair")]
    json: bool,
}

/// Runs the verb.
///
/// # Errors
/// When something is missing or wrong; what came of the pair is the exit status.
pub fn run(mut args: Args) -> Result<ExitCode> {
    setup::ensure(Purpose::Demo, false)?;
    if args.machine.client {
        args.machine.append = format!("{} {}", args.machine.append, outside::GUEST_WORDS);
    }
    let vm = args.machine.vm(false)?;
    ensure!(
        !args.one_card || vm.config.pair.is_none(),
        "the configuration has a [pair] already: say there that log-card is the network's card, and leave out --one-card"
    );
    let pair = if args.one_card { paired_on_one_card } else { paired };
    let vm = pair(&vm, args.pair_seed)?;
    let options = args.options(&vm)?;
    emulator::binary()?;
    let see = |host, line: &str| {
        let shown = if args.quiet { is_of_the_pair(line) } else { true };
        if shown && !args.json {
            println!("{host}| {}", readable(line));
        }
    };
    let outcome = if args.free {
        free::run(&free::patient(&vm)?, &options, see)?
    } else {
        PairRun::start(&vm, &options)?.finish(see)?
    };
    if args.json {
        println!("{}", outcome.json());
    } else {
        tell(&outcome);
    }
    let client = if args.count.is_some() { outcome.check_client() } else { Ok(()) };
    let outside = if args.machine.client { outcome.check_outside() } else { Ok(()) };
    match outcome.check().and(client).and(outside) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            ui::error(&error);
            Ok(ExitCode::FAILURE)
        }
    }
}

impl Args {
    /// Both hosts; with --client the guest's network has a plain Debian with the real clients on it.
    fn host(&self) -> Result<Host> {
        let machine = &self.machine;
        if !machine.client {
            return machine.host(NAME, false);
        }
        let plain = Machine { name: NAME.into(), limit: machine.limit(false), ..Machine::default() };
        let like = Machine { ips: machine.ips.unwrap_or(plain.ips), ..plain };
        let outside = outside::client(machine.guest, machine.address, machine.size, &like)?;
        machine.host_in(outside, NAME, false)
    }

    fn options(&self, vm: &Vm) -> Result<PairOptions> {
        ensure!(
            self.count.is_none() || !vm.config.networks.is_empty(),
            "--count needs a guest with a network device"
        );
        let host = self.host()?;
        let server = (self.machine.address.octets(), CounterConfig::default().server.1);
        let counter = self.count.map(|requests| CounterConfig {
            server,
            requests,
            pause: self.pause,
            ..CounterConfig::default()
        });
        let address = self.machine.address.octets();
        let ping = self.ping.map(|every| PingConfig { to: address, every, ..PingConfig::default() });
        let slow =
            HostName::ALL.map(|host| self.slow.filter(|(slow, _)| *slow == host).map_or(1, |(_, by)| by));
        Ok(PairOptions {
            slow,
            typed: self.typed.clone(),
            seed: self.pair_seed,
            incidents: [&self.kill[..], &self.stop, &self.cut].concat(),
            until: self.until,
            linger: self.linger,
            end: Some(self.end),
            counter,
            ping,
            log_cable: CableConfig { latency: self.log_latency, ..CableConfig::default() },
            log_capture: self.log_capture.clone(),
            arbiter: LockFaults {
                delay: self.arbiter_delay,
                unsaid: self.arbiter_unsaid,
                dead: self.arbiter_dead,
                tells: self.say,
                knows: self.arbiter_knows.and_then(|known| consumed(known, vm)),
            },
            ..PairOptions::new(host)
        })
    }
}

/// The arbiter's record of a generation that a host has consumed, in a life before this run.
pub fn consumed((host, generation): (HostName, u64), vm: &Vm) -> Option<Record> {
    let pair = vm.config.pair.as_ref()?;
    let owner = if host == HostName::A { Side::A } else { Side::B };
    let (nonce, peer) = (Incarnation(1), Incarnation(2));
    let vm = VmId::of(&pair.name);
    Some(Record { vm, generation, standing: Standing::Solo, owner, nonce, peer, position: 0 })
}

fn slow(text: &str) -> Result<(HostName, u64)> {
    let parts = text.split_once(':').and_then(|(host, by)| Some((HostName::parse(host)?, by.parse().ok()?)));
    parts.filter(|(_, by)| (1..=100).contains(by)).ok_or_else(|| anyhow!("`{text}`: write for instance b:2"))
}

/// A line of a console without what moves the cursor.
fn readable(line: &str) -> String {
    line.chars().filter(|c| !c.is_control() || *c == '\t').collect()
}

/// What came of it, for people.
fn tell(outcome: &PairOutcome) {
    for (incident, at) in &outcome.incidents {
        match at {
            Some(at) => ui::say(format!("at {:.6} s: {}", *at as f64 / 1e9, incident.what)),
            None => ui::say(format!("never came to pass: {}", incident.what)),
        }
    }
    outcome.asks.iter().for_each(|asked| ui::say(format!("arbiter: {asked}")));
    for (name, host) in HostName::ALL.into_iter().zip(&outcome.hosts) {
        let events = outcome.history.names(name).join(", ");
        let end = match host.exit {
            Exit::Network(40) => "It was killed.".into(),
            _ => host.exit.sentence(),
        };
        ui::say(format!("host {name}: {events}. {end} (files in {})", host.dir.display()));
    }
    for (name, text) in &outcome.summary.worlds {
        ui::say(format!("{name}: {text}"));
    }
    outcome.told.iter().for_each(|line| ui::say(format!("client: {line}")));
    if let Some(gap) = outcome.gap() {
        ui::say(format!(
            "The client's longest wait for an answer from there on: {:.3} ms.",
            gap as f64 / 1e6
        ));
    }
    if let Some(silence) = outcome.silence() {
        ui::say(format!("The longest time without an answer to a ping: {:.3} ms.", silence as f64 / 1e6));
    }
    ui::say(format!(
        "{:.3} s of emulated time, digest {}",
        outcome.summary.time_ns as f64 / 1e9,
        outcome.summary.digest
    ));
}
