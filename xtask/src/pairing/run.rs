//! A run of a pair: starts both hosts and the network between them, does what is to befall them, follows both consoles, and
//! collects what came of it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use vm_config::HostName;

use super::events::History;
use super::incident::{Incident, What};
use super::marks::Marks;
use super::plan::{PairOptions, Plan, plan};
use super::typed::Typist;
use super::watch::{self, Glimpse, Pulse, Seen};
use crate::emulator::{Exit, NicMode, Outcome, Running};
use crate::payload::clients;
use crate::replaying::lines;
use crate::switch::config::{StopKind, When};
use crate::switch::core::{Summary, Switch};
use crate::switch::process::{Director, Server};
use crate::switch::station::counter::Counted;
use crate::switch::station::lock::Asked;
use crate::switch::station::ping::{Pinged, Pings};
use crate::switch::time::Ns;
use crate::vm::Vm;

/// Give up when no machine has come for so long by the wall clock.
const GIVE_UP: Duration = Duration::from_secs(900);
/// How often consoles are looked at.
const POLL: Duration = Duration::from_millis(50);

/// A pair that runs.
pub struct PairRun {
    hosts: [Running; 2],
    others: Vec<Running>,
    switch: JoinHandle<Result<Summary>>,
    marks: Marks,
    pings: Option<Pings>,
    pulse: Pulse,
    incidents: Vec<Incident>,
    since: Instant,
    limit: Duration,
    /// Bytes of each console that have been shown.
    shown: [usize; 2],
}

/// What came of a pair.
#[derive(Clone, Debug)]
pub struct PairOutcome {
    /// How each host ended, and its console.
    pub hosts: [Outcome; 2],
    /// What the hosts have said of the pair.
    pub history: History,
    /// What the counting client has seen.
    pub counted: Option<Counted>,
    /// What came of the pings.
    pub pinged: Option<Pinged>,
    /// What the arbiter was asked.
    pub asks: Vec<Asked>,
    /// What befell the pair, and when, in emulated time; what never came to pass has no time.
    pub incidents: Vec<(Incident, Option<Ns>)>,
    /// What the network says.
    pub summary: Summary,
    /// The `@@ CLIENT` lines of other machines.
    pub told: Vec<String>,
}

impl PairRun {
    /// Makes and starts everything. `vm` has a `[pair]`.
    ///
    /// # Errors
    /// When something is missing or cannot be started.
    pub fn start(vm: &Vm, options: &PairOptions) -> Result<Self> {
        // Several may run in one process; names are too long for a socket's path.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("lockstep-pair-{}-{number}.sock", std::process::id()));
        let plan = plan(vm, options)?;
        let pulse = Pulse::default();
        let mut director = director(&plan, options, pulse.clone());
        let Plan { hosts, others, config, worlds, marks, pings, .. } = plan;
        let switch = Switch::new(&config, worlds)?;
        let mut server = Server::bind(&path)?;
        server.give_up_after = Some(GIVE_UP);
        let plug = |name: &str| ("LOCKSTEP_NET".into(), format!("{name}:{}", path.display()));
        let mut running = Vec::new();
        for (name, mut machine) in HostName::ALL.into_iter().zip(hosts) {
            machine.environment.push(plug(name.name()));
            running.push(machine.start()?);
        }
        let mut beside = Vec::new();
        for (name, mut machine) in others {
            let card = machine.nics.first_mut().context("a machine on the network has no card")?;
            card.mode = NicMode::Lockstep { device: "0".into() };
            machine.environment.push(plug(&name));
            beside.push(machine.start()?);
        }
        let keyboard = |host: &Running| host.keyboard().ok();
        let keyboards = [keyboard(&running[0]), keyboard(&running[1])];
        let mut typist = Typist::new(&options.typed, keyboards, marks.clone());
        let director: Director<'static> = Box::new(move |switch| {
            typist.look(switch.now());
            director(switch);
        });
        let switch = std::thread::spawn(move || server.run(&config, switch, Some(director)));
        Ok(PairRun {
            hosts: running.try_into().ok().context("a pair has two hosts")?,
            others: beside,
            switch,
            marks,
            pings,
            pulse,
            incidents: options.incidents.clone(),
            since: Instant::now(),
            limit: options.host.limit,
            shown: [0; 2],
        })
    }

    /// Follows both consoles to the end of the run: `see` gets each whole line as it comes.
    ///
    /// # Errors
    /// When a machine cannot be watched, or the network failed.
    pub fn finish(self, mut see: impl FnMut(HostName, &str)) -> Result<PairOutcome> {
        self.follow(|seen| match seen {
            Seen::Line(host, line) => see(host, line),
            Seen::Now(_) => {}
        })
    }

    /// The same, and `see` gets what the run looks like again and again, each time after the lines that have come.
    ///
    /// # Errors
    /// As [`PairRun::finish`].
    pub fn follow(mut self, mut see: impl FnMut(Seen<'_>)) -> Result<PairOutcome> {
        loop {
            // The order matters: what was said before the end must be read after the end was seen.
            let over = self.switch.is_finished() || self.since.elapsed() >= self.limit;
            let mut ended = true;
            for (index, name) in HostName::ALL.into_iter().enumerate() {
                ended &= self.hosts[index].has_ended()?;
                self.hosts[index].watch(|_| true)?;
                let console = self.hosts[index].console();
                let end = console.rfind('\n').map_or(0, |end| end + 1).max(self.shown[index]);
                console[self.shown[index]..end].lines().for_each(|line| see(Seen::Line(name, line)));
                self.shown[index] = end;
            }
            see(Seen::Now(&self.glimpse()));
            if ended || over {
                break;
            }
            std::thread::sleep(POLL);
        }
        self.collect()
    }

    fn glimpse(&self) -> Glimpse {
        let when = |incident: &Incident| Some((*incident, self.marks.when(incident.when)?));
        Glimpse {
            beat: self.pulse.get(),
            incidents: self.incidents.iter().filter_map(when).collect(),
            asks: self.marks.asks.get(),
            counted: self.marks.tally.as_ref().map(|tally| tally.get()),
        }
    }

    /// The end: the switch has ended its hosts, or they have ended; what still runs is ended.
    fn collect(self) -> Result<PairOutcome> {
        let late = self.since.elapsed() >= self.limit;
        // A host whose network is over hears of it; give it the time.
        let mut hosts = Vec::new();
        for mut host in self.hosts {
            let patience = Instant::now();
            while !late && !host.has_ended()? && patience.elapsed() < Duration::from_secs(10) {
                std::thread::sleep(POLL);
            }
            hosts.push(if host.has_ended()? { host.wait()? } else { host.kill()? });
        }
        let mut told = Vec::new();
        for other in self.others {
            let outcome = other.kill()?;
            told.extend(outcome.facts("CLIENT").map(str::to_owned));
        }
        let summary = self.switch.join().map_err(|_| anyhow!("the switch panicked"))??;
        let hosts: [Outcome; 2] = hosts.try_into().ok().context("a pair has two hosts")?;
        let history = History::of([&hosts[0].console, &hosts[1].console]);
        let when = |incident: &Incident| (*incident, self.marks.when(incident.when));
        Ok(PairOutcome {
            history,
            counted: self.marks.tally.as_ref().map(|tally| tally.get()),
            pinged: self.pings.as_ref().map(Pings::get),
            asks: self.marks.asks.get(),
            incidents: self.incidents.iter().map(when).collect(),
            summary,
            told,
            hosts,
        })
    }
}

/// Runs a pair to its end.
///
/// # Errors
/// As [`PairRun::start`] and [`PairRun::finish`].
pub fn run(vm: &Vm, options: &PairOptions) -> Result<PairOutcome> {
    PairRun::start(vm, options)?.finish(|_, _| ())
}

/// Does what is to befall the pair as soon as the moment is known, and ends the run.
fn director(plan: &Plan, options: &PairOptions, pulse: Pulse) -> Director<'static> {
    let (marks, guest, log) = (plan.marks.clone(), plan.guest_cards, plan.log_cards);
    let (mut pending, mut until, linger) = (options.incidents.clone(), options.until, options.linger);
    let mut done = false;
    Box::new(move |switch: &mut Switch| {
        pulse.beat(switch);
        pending.retain(|incident| {
            let Some(at) = marks.when(incident.when) else { return true };
            befall(switch, incident.what, at, guest, log);
            false
        });
        if let Some(at) = until.and_then(|until| marks.when(until)) {
            switch.end_at(at);
            until = None;
        }
        let counted = marks.tally.as_ref().and_then(|tally| tally.look(|counted| counted.done));
        if let (false, Some(at)) = (done, counted) {
            switch.end_at(at.saturating_add(linger));
            done = true;
        }
    })
}

fn befall(switch: &mut Switch, what: What, at: Ns, guest: Option<[u8; 2]>, log: [u8; 2]) {
    let (host, kind) = match what {
        What::Kill(host) => (host, StopKind::Kill),
        What::Stop(host, length) => (host, StopKind::Pause(length)),
        // What is past cannot be undone: from now on.
        What::Cut(link, length) => {
            return switch.cut(&link.partition(at.max(switch.now()), length, guest, log));
        }
    };
    if let Some(host) = switch.host(host.name()) {
        switch.stop(host, When::At(at), kind);
    }
}

impl PairOutcome {
    /// What holds after every run, whatever befell the pair: no two have lived, no answer to the client was wrong, no host
    /// panicked.
    ///
    /// # Errors
    /// What does not hold, with the consoles' ends.
    pub fn check(&self) -> Result<()> {
        self.check_all().with_context(|| self.last_words())
    }

    fn check_all(&self) -> Result<()> {
        self.history.check()?;
        let won = self.asks.iter().filter(|asked| asked.verdict == "won");
        let mut winners: Vec<(u64, &str)> = won.map(|asked| (asked.generation, &*asked.side)).collect();
        winners.sort_unstable();
        winners.dedup();
        for pair in winners.windows(2) {
            ensure!(pair[0].0 != pair[1].0, "the arbiter has let both hosts win generation {}", pair[0].0);
        }
        for (name, host) in HostName::ALL.into_iter().zip(&self.hosts) {
            ensure!(host.exit != Exit::Panic, "host {name} panicked");
            let diverged = lines::last(&host.console, "replay", "diverged");
            ensure!(diverged.is_none(), "host {name}'s execution has diverged");
        }
        if let Some(counted) = &self.counted {
            let what = counted.what.join("; ");
            ensure!(counted.wrong == 0, "the client had {} wrong answers: {what}", counted.wrong);
        }
        Ok(())
    }

    /// That the client saw nothing but delay, and got everything done.
    ///
    /// # Errors
    /// What it saw.
    pub fn check_client(&self) -> Result<()> {
        let counted = self.counted.as_ref().context("no client has counted")?;
        ensure!(counted.is_perfect(), "the client has noticed: {}\n{}", counted.words(), self.last_words());
        Ok(())
    }

    /// That the programs on the machine outside noticed nothing but delay, by their own verdict.
    ///
    /// # Errors
    /// What they said.
    pub fn check_outside(&self) -> Result<()> {
        let right = clients::verdict(&self.told).context("the machine outside has come to no verdict");
        let right =
            right.with_context(|| format!("it said:\n{}\n{}", self.told.join("\n"), self.last_words()))?;
        ensure!(right, "the programs outside have noticed:\n{}\n{}", self.told.join("\n"), self.last_words());
        Ok(())
    }

    /// Bytes that host a and host b have sent on the logging network, heartbeats and all headers among them.
    pub fn log_bytes(&self) -> [u64; 2] {
        watch::log_bytes(&self.summary)
    }

    /// How long no ping was answered at the worst from the first incident on, ns: the guest's own silence, whatever a client's
    /// protocol makes of it. `None` without pings, or without an answer after it.
    pub fn silence(&self) -> Option<Ns> {
        let at = self.incidents.iter().filter_map(|(_, at)| *at).min()?;
        self.pinged.as_ref()?.gap(at)
    }

    /// How long the client had no answer at the worst after the first incident, ns; `None` without a client, an incident, or an
    /// answer before it.
    pub fn gap(&self) -> Option<Ns> {
        let at = self.incidents.iter().filter_map(|(_, at)| *at).min()?;
        let answered = &self.counted.as_ref()?.answered;
        let gaps = answered.windows(2).filter(|pair| pair[1] >= at).map(|pair| pair[1] - pair[0]);
        gaps.max()
    }

    /// All figures and events, for programs.
    pub fn json(&self) -> serde_json::Value {
        let host = |(name, host): (HostName, &Outcome)| {
            let events = self.history.0.iter().filter(|event| event.host == name);
            let value = serde_json::json!({
                "end": host.exit.sentence(),
                "ticks": host.ticks,
                "seconds": host.time.as_secs_f64(),
                "console": host.dir.join("console"),
                "events": events.map(|event| event.fields.all()).collect::<Vec<_>>(),
            });
            (name.name().to_owned(), value)
        };
        let client = self.counted.as_ref().map(|counted| {
            let (gap, at) = counted.gap();
            serde_json::json!({
                "seen": counted,
                "perfect": counted.is_perfect(),
                "answered": counted.answered.len(),
                "gap_ns": gap,
                "gap_at_ns": at,
                "delay_p50_ns": counted.delay(500),
                "delay_p99_ns": counted.delay(990),
                "delay_max_ns": counted.delay(1000),
            })
        });
        let incidents = self
            .incidents
            .iter()
            .map(|(incident, at)| serde_json::json!({ "what": incident.what.to_string(), "at_ns": at }));
        serde_json::json!({
            "hosts": HostName::ALL.into_iter().zip(&self.hosts).map(host).collect::<serde_json::Map<_, _>>(),
            "alone": self.history.alone().iter().map(|host| host.name()).collect::<Vec<_>>(),
            "client": client,
            "ping": self.pinged.as_ref().map(|pinged| serde_json::json!({
                "sent": pinged.sent,
                "answered": pinged.answers.len(),
                "doubled": pinged.doubled,
                "round_trip_p50_ns": pinged.round_trip(500),
                "round_trip_p99_ns": pinged.round_trip(990),
                "round_trip_max_ns": pinged.round_trip(1000),
            })),
            "arbiter": self.asks,
            "incidents": incidents.collect::<Vec<_>>(),
            "client_gap_ns": self.gap(),
            "silence_ns": self.silence(),
            "network": self.summary,
            "sound": self.check().is_ok(),
        })
    }

    /// The ends of both consoles, for an error message.
    pub fn last_words(&self) -> String {
        let host = |(name, host): (HostName, &Outcome)| {
            format!("Host {name}: {}\n{}", host.exit.sentence(), host.last_words())
        };
        let mut words: Vec<String> = HostName::ALL.into_iter().zip(&self.hosts).map(host).collect();
        words.extend(self.asks.iter().map(|asked| format!("arbiter: {asked}")));
        words.join("\n")
    }
}
