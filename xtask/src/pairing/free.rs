//! A run of a pair that is not in lock step: both emulators and the network go by the wall clock, each as it can. No two such runs are
//! alike, and how long something takes says nothing here; what must never happen must never happen here either.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use vm_config::HostName;

use super::events::History;
use super::incident::{FOR_GOOD, Incident, What};
use super::marks::Marks;
use super::plan::{PairOptions, Plan, plan};
use super::run::PairOutcome;
use crate::emulator::{Machine, NicMode, Outcome, Running};
use crate::switch::config::{Config, PortName};
use crate::switch::core::{PortSummary, Summary};
use crate::switch::free::{FreeEnd, Plug, run_with};
use crate::switch::station::ping::Pings;
use crate::switch::time::Ns;
use crate::switch::wire::CardCounters;
use crate::vm::Vm;

/// How often hosts and moments are looked at.
const POLL: Duration = Duration::from_millis(5);
/// Tries to find two UDP ports in a row that are free.
const PORT_TRIES: usize = 100;

/// How long a host may be silent, ms: longer than an emulator gets no processor from a busy machine.
const TIMEOUT: u32 = 5_000;
/// How long the log may make no progress, ms.
const STALL: u32 = 60_000;

/// The virtual machine with a pair that has time: a processor that is busy otherwise makes a host silent for longer than any time-out
/// of real hosts.
///
/// # Errors
/// When it has no `[pair]`, or the configuration that comes of it is refused.
pub fn patient(vm: &Vm) -> Result<Vm> {
    let (before, after) = vm.text().split_once("[pair]\n").context("the configuration has no [pair]")?;
    vm.with_text(&format!("{before}[pair]\ntimeout = {TIMEOUT}\nstall = {STALL}\n{after}"))
}

/// Runs a pair freely to its end; `see` gets each whole line of a host's console. Moments and the end are wall-clock time.
///
/// # Errors
/// When something cannot be made or started, or is to befall the pair that needs lock-step.
pub fn run(vm: &Vm, options: &PairOptions, mut see: impl FnMut(HostName, &str)) -> Result<PairOutcome> {
    let lives = |incident: &Incident| !matches!(incident.what, What::Cut(..));
    ensure!(options.incidents.iter().all(lives), "cables are cut in lock-step only");
    ensure!(options.typed.is_empty(), "commands are typed in lock-step only");
    let Plan { hosts, others, config, worlds, marks, pings, .. } = plan(vm, options)?;
    ensure!(others.is_empty(), "a machine outside is in lock-step only");
    let (plugs, machines) = plugged(hosts)?;
    let mut hosts = Hosts::start(machines)?;
    let (clock, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let switch = {
        let (config, clock, over) = (config.clone(), clock.clone(), over.clone());
        std::thread::spawn(move || {
            run_with(&config, &plugs, worlds, |now| {
                clock.store(now, Ordering::Relaxed);
                !over.load(Ordering::Relaxed)
            })
        })
    };
    let mut pending = options.incidents.clone();
    let since = Instant::now();
    while !switch.is_finished() && since.elapsed() < options.host.limit {
        let now = clock.load(Ordering::Relaxed);
        pending.retain(|incident| {
            let Some(at) = marks.when(incident.when) else { return true };
            hosts.deeds.extend(Deed::of(incident.what, at));
            false
        });
        hosts.befall(now)?;
        if !hosts.show(&mut see)? || is_over(&marks, options, now) {
            break;
        }
        std::thread::sleep(POLL);
    }
    over.store(true, Ordering::Relaxed);
    let [a, b] = hosts.end()?;
    let end = switch.join().map_err(|_| anyhow!("the switch panicked"))??;
    let when = |incident: &Incident| (*incident, marks.when(incident.when));
    Ok(PairOutcome {
        history: History::of([&a.console, &b.console]),
        counted: marks.tally.as_ref().map(|tally| tally.get()),
        pinged: pings.as_ref().map(Pings::get),
        asks: marks.asks.get(),
        incidents: options.incidents.iter().map(when).collect(),
        summary: summary(&config, &end),
        told: Vec::new(),
        hosts: [a, b],
    })
}

/// The hosts' cards on UDP ports, and the switch's ends of them.
fn plugged(mut hosts: [Machine; 2]) -> Result<(Vec<Plug>, [Machine; 2])> {
    let mut plugs = Vec::new();
    for (name, machine) in HostName::ALL.into_iter().zip(&mut hosts) {
        for (card, nic) in machine.nics.iter_mut().enumerate() {
            let udp = free_ports()?;
            nic.mode = NicMode::Socket { port: udp };
            plugs.push(Plug { port: PortName::new(name.name(), card as u8), udp });
        }
        machine.paced = true;
    }
    Ok((plugs, hosts))
}

/// Whether the run has come to its end: the moment that was named, or some time after the client was done.
fn is_over(marks: &Marks, options: &PairOptions, now: Ns) -> bool {
    let until = options.until.and_then(|until| marks.when(until));
    let done = marks.tally.as_ref().and_then(|tally| tally.look(|counted| counted.done));
    let done = done.map(|at| at.saturating_add(options.linger));
    until.into_iter().chain(done).any(|at| at <= now)
}

/// The emulators.
struct Hosts {
    running: [Option<Running>; 2],
    ended: [Option<Outcome>; 2],
    /// Bytes of each console that were shown.
    shown: [usize; 2],
    /// What is to be done to them, and when.
    deeds: Vec<(Ns, Deed)>,
}

impl Hosts {
    fn start([a, b]: [Machine; 2]) -> Result<Self> {
        let running = [Some(a.start()?), Some(b.start()?)];
        Ok(Hosts { running, ended: [None, None], shown: [0; 2], deeds: Vec::new() })
    }

    /// Does what is due.
    fn befall(&mut self, now: Ns) -> Result<()> {
        let due: Vec<(Ns, Deed)> = self.deeds.extract_if(.., |(at, _)| *at <= now).collect();
        for (_, deed) in due {
            let (Deed::Kill(host) | Deed::Pause(host) | Deed::Resume(host)) = deed;
            let index = usize::from(host == HostName::B);
            match (deed, &self.running[index]) {
                (Deed::Pause(_), Some(host)) => host.pause(),
                (Deed::Resume(_), Some(host)) => host.resume(),
                (Deed::Kill(_), Some(_)) => {
                    self.ended[index] = self.running[index].take().map(Running::kill).transpose()?;
                }
                (_, None) => {}
            }
        }
        Ok(())
    }

    /// Shows what they have said; whether one of them runs on.
    fn show(&mut self, see: &mut impl FnMut(HostName, &str)) -> Result<bool> {
        let mut alive = false;
        for ((name, running), shown) in HostName::ALL.into_iter().zip(&mut self.running).zip(&mut self.shown)
        {
            let Some(host) = running else { continue };
            alive |= !host.has_ended()?;
            host.watch(|_| true)?;
            *shown += lines(&host.console()[*shown..], |line| see(name, line));
        }
        Ok(alive)
    }

    /// Ends those that have not ended.
    fn end(self) -> Result<[Outcome; 2]> {
        let mut ended = self.ended;
        for (running, ended) in self.running.into_iter().zip(&mut ended) {
            if let Some(mut host) = running {
                host.resume();
                *ended = Some(if host.has_ended()? { host.wait()? } else { host.kill()? });
            }
        }
        let [Some(a), Some(b)] = ended else { bail!("a host has not ended") };
        Ok([a, b])
    }
}

/// What is done to an emulator's process.
enum Deed {
    Kill(HostName),
    Pause(HostName),
    Resume(HostName),
}

impl Deed {
    fn of(what: What, at: Ns) -> Vec<(Ns, Deed)> {
        match what {
            What::Kill(host) => vec![(at, Deed::Kill(host))],
            What::Stop(host, FOR_GOOD) => vec![(at, Deed::Pause(host))],
            What::Stop(host, length) => {
                vec![(at, Deed::Pause(host)), (at.saturating_add(length), Deed::Resume(host))]
            }
            What::Cut(..) => Vec::new(),
        }
    }
}

/// Gives each whole line to `see`; how many bytes that were.
fn lines(text: &str, see: impl FnMut(&str)) -> usize {
    let end = text.rfind('\n').map_or(0, |end| end + 1);
    text[..end].lines().for_each(see);
    end
}

/// Two UDP ports in a row that nobody has now: the first of them.
fn free_ports() -> Result<u16> {
    for _ in 0..PORT_TRIES {
        let first = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = first.local_addr()?.port();
        if port < u16::MAX - 1 && UdpSocket::bind((Ipv4Addr::LOCALHOST, port + 1)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no two UDP ports in a row are free")
}

fn summary(config: &Config, end: &FreeEnd) -> Summary {
    let port = |(name, network, up, down, counters): (&PortName, usize, _, _, _)| PortSummary {
        port: name.to_string(),
        network: config.networks[network].name.clone(),
        up: Clone::clone(up),
        down: Clone::clone(down),
        at_switch: Clone::clone(counters),
        card: CardCounters::default(),
    };
    Summary {
        seed: config.seed,
        time_ns: end.elapsed,
        digest: end.fabric.digest(),
        hosts: Vec::new(),
        ports: end.fabric.totals().map(port).collect(),
        worlds: end.worlds.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lines_are_shown() {
        let mut seen = Vec::new();
        assert_eq!(lines("a\nb\nc", |line| seen.push(line.to_owned())), 4);
        assert_eq!(seen, ["a", "b"]);
        assert_eq!(lines("c", |_| panic!("no line")), 0);
    }

    #[test]
    fn who_comes_back_is_let_go_on() {
        let deeds = Deed::of(What::Stop(HostName::A, 5), 7);
        assert!(matches!(deeds[..], [(7, Deed::Pause(HostName::A)), (12, Deed::Resume(HostName::A))]));
        assert_eq!(Deed::of(What::Stop(HostName::A, FOR_GOOD), 7).len(), 1);
    }
}
