//! The switch: who may run how far, who has come, what is due where. Pure: no clock, no socket, no thread.
//!
//! A conservative simulation in quanta. All hosts run the same quantum, each up to its end, and meet. A frame sent in it
//! reaches nobody before the next one begins (each cable takes half a quantum at least), so when all have come, all
//! frames that are due in the next quantum are known, and the hosts are let go with them. In between nothing but the
//! hosts' own execution decides what happens, so the order in which they come, which depends on the load of the
//! machine, is of no consequence.

use std::collections::VecDeque;

use serde::Serialize;

use super::cable::CableCounters;
use super::config::{Config, Partition, Stop, StopKind, When};
use super::fabric::{Fabric, PortCounters, Seen, StationId};
use super::time::{Ns, Rate};
use super::wire::{CardCounters, EndReason, Hello, Meet, Reason, Stamped};
use super::world::World;

/// Index of a host, as configured.
pub type HostId = usize;

/// Fewest ticks of a host in a quantum; fewer would leave no room to tell frames apart.
const MIN_TICKS: u64 = 10;
/// Most times that a world may be called at one moment: beyond it, its timer does not advance.
const WORLD_SPIN: u32 = 100_000;

/// What the switch wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// This host is to be switched on now; nothing goes on until it has joined.
    Await(HostId),
    /// Let the host run up to a tick, with these frames.
    Run {
        /// Which.
        host: HostId,
        /// The tick at which it meets again.
        until: u64,
        /// What is due until then, in order.
        frames: Vec<Stamped>,
    },
    /// End the host.
    End {
        /// Which.
        host: HostId,
        /// Why.
        reason: EndReason,
        /// For people.
        text: String,
    },
    /// The run is over.
    Finished,
}

/// How a host's life ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Its process ended by itself, with this exit code.
    Left(i32),
    /// The scenario killed it.
    Killed,
    /// The scenario was over.
    Over,
    /// Its connection broke without a word: the process was killed from outside, or crashed.
    Lost,
    /// It violated the protocol.
    Violated(String),
}

/// One life of a host that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Life {
    /// When it started.
    pub start_ns: Ns,
    /// Where its own clock stood at the end.
    pub tick: u64,
    /// Scenario time of the end.
    pub end_ns: Ns,
    /// How it ended.
    pub ended: Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Off,
    /// Awaited.
    Joining,
    /// It executes; it will meet at `until`.
    Running,
    /// It has come.
    Ready,
    /// It does not execute until then.
    Paused(Ns),
}

struct Host {
    name: String,
    starts: Vec<Ns>,
    /// How many of its starts have been.
    lives: usize,
    phase: Phase,
    rate: Rate,
    /// Scenario time at which its tick 0 was, or would have been but for pauses.
    offset: Ns,
    start: Ns,
    /// Where its clock stood when it last met.
    tick: u64,
    until: u64,
    stops: Vec<Stop>,
    cards: Vec<(u8, CardCounters)>,
    ended: Vec<Life>,
}

impl Host {
    /// Scenario time of one of its ticks.
    fn time_of(&self, tick: u64) -> Ns {
        self.rate.ns_of(tick) + self.offset
    }

    /// Its first tick not before a scenario time.
    fn tick_at(&self, ns: Ns) -> u64 {
        self.rate.tick_at(ns.saturating_sub(self.offset))
    }

    /// Takes the next stop of this life that comes not after `until`, and at which tick it is.
    fn next_stop(&self, until: u64) -> Option<(usize, u64)> {
        let mut next = None;
        for (index, stop) in self.stops.iter().enumerate() {
            let tick = match stop.when {
                When::At(ns) if ns < self.start => continue,
                When::At(ns) => self.tick_at(ns),
                When::Tick { life, .. } if life + 1 != self.lives => continue,
                When::Tick { tick, .. } => tick,
            };
            if tick <= until && next.is_none_or(|(_, best)| tick < best) {
                next = Some((index, tick));
            }
        }
        next
    }

    /// A kill that comes while it is paused, up to `until`.
    fn killed_in_pause(&self, until: Ns) -> bool {
        let due = |s: &Stop| matches!(s.when, When::At(ns) if self.start <= ns && ns <= until);
        self.stops.iter().any(|s| s.what == StopKind::Kill && due(s))
    }
}

struct WorldSlot {
    name: String,
    station: StationId,
    world: Box<dyn World>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The hosts run the quantum that ends at `now` + quantum.
    Running,
    /// The quantum that ended at `now` is settled; hosts that start now are awaited.
    Joining,
    Finished,
}

/// The switch.
pub struct Switch {
    quantum: Ns,
    seed: u64,
    end: Option<Ns>,
    now: Ns,
    stage: Stage,
    hosts: Vec<Host>,
    worlds: Vec<WorldSlot>,
    network_names: Vec<String>,
    fabric: Fabric,
    actions: VecDeque<Action>,
}

/// What happened, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The seed.
    pub seed: u64,
    /// Emulated time that passed, in nanoseconds.
    pub time_ns: Ns,
    /// Digest of every frame and every order with its time.
    pub digest: String,
    /// The hosts' lives.
    pub hosts: Vec<HostSummary>,
    /// What happened at each port.
    pub ports: Vec<PortSummary>,
    /// What the stations inside the switch say.
    pub worlds: Vec<(String, String)>,
}

/// A host in the summary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostSummary {
    /// Its name.
    pub name: String,
    /// Its lives that have ended.
    pub lives: Vec<Life>,
}

/// A port in the summary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortSummary {
    /// Its name.
    pub port: String,
    /// Its network.
    pub network: String,
    /// Station to switch.
    pub up: CableCounters,
    /// Switch to station.
    pub down: CableCounters,
    /// What else became of frames for it.
    pub at_switch: PortCounters,
    /// What the card says, in its last life.
    pub card: CardCounters,
}

impl Switch {
    /// A switch for a checked configuration, with a world for each of its names.
    ///
    /// # Errors
    /// When the configuration is wrong, or a world is missing or unknown.
    pub fn new(config: &Config, worlds: Vec<(String, Box<dyn World>)>) -> anyhow::Result<Self> {
        config.check()?;
        let mut fabric = Fabric::new(config);
        let mut slots = Vec::new();
        for (name, world) in worlds {
            let index = config.worlds.iter().position(|w| *w == name);
            let index = index.ok_or_else(|| anyhow::anyhow!("the scenario has no world `{name}`"))?;
            let station = config.hosts.len() + index;
            fabric.plug(station, true);
            slots.push(WorldSlot { name, station, world });
        }
        slots.sort_by_key(|slot| slot.station);
        anyhow::ensure!(
            slots.len() == config.worlds.len(),
            "a world of the scenario is missing or given twice"
        );
        let hosts = config.hosts.iter().map(|h| Host {
            name: h.name.clone(),
            starts: h.starts.clone(),
            lives: 0,
            phase: Phase::Off,
            rate: Rate::new(1).expect("1 is a rate"),
            offset: 0,
            start: 0,
            tick: 0,
            until: 0,
            stops: config.stops.iter().filter(|s| s.host == h.name).cloned().collect(),
            cards: Vec::new(),
            ended: Vec::new(),
        });
        let mut switch = Self {
            quantum: config.quantum,
            seed: config.seed,
            end: config.end,
            now: 0,
            stage: Stage::Joining,
            hosts: hosts.collect(),
            worlds: slots,
            network_names: config.networks.iter().map(|n| n.name.clone()).collect(),
            fabric,
            actions: VecDeque::new(),
        };
        switch.admit();
        Ok(switch)
    }

    /// The next thing to do.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Emulated time up to which everything is settled.
    pub fn now(&self) -> Ns {
        self.now
    }

    /// Nanoseconds between meetings.
    pub fn quantum(&self) -> Ns {
        self.quantum
    }

    /// Whether the run is over.
    pub fn finished(&self) -> bool {
        self.stage == Stage::Finished
    }

    /// A host's name.
    pub fn name(&self, host: HostId) -> &str {
        &self.hosts[host].name
    }

    /// Takes what the captured networks have seen since the last call.
    pub fn take_seen(&mut self) -> Vec<Seen> {
        self.fabric.take_seen()
    }

    /// Hosts that everybody waits for, and whether each is still to join (else: to meet).
    pub fn waiting_for(&self) -> impl Iterator<Item = (&str, bool)> {
        let waiting = |h: &&Host| matches!(h.phase, Phase::Joining | Phase::Running);
        self.hosts.iter().filter(waiting).map(|h| (h.name.as_str(), h.phase == Phase::Joining))
    }

    /// Stops a host beside what the scenario says. Called between two quanta (when [`Switch::now`] has just grown), it
    /// is as deterministic as what decided it. A moment that is past means at once.
    pub fn stop(&mut self, host: HostId, when: When, what: StopKind) {
        let name = self.hosts[host].name.clone();
        self.hosts[host].stops.push(Stop { host: name, when, what });
    }

    /// The host of this name.
    pub fn host(&self, name: &str) -> Option<HostId> {
        self.hosts.iter().position(|host| host.name == name)
    }

    /// Cuts some ports off from others beside what the scenario says; called as [`Switch::stop`]. What has passed the switch already
    /// arrives.
    pub fn cut(&mut self, partition: &Partition) {
        self.fabric.cut(partition);
    }

    /// Ends all hosts at this moment, if the scenario does not end them earlier; called as [`Switch::stop`].
    pub fn end_at(&mut self, at: Ns) {
        self.end = Some(self.end.map_or(at, |end| end.min(at)));
    }

    /// A host introduces itself.
    ///
    /// # Errors
    /// When it may not join; the text says why.
    pub fn join(&mut self, hello: &Hello) -> Result<HostId, String> {
        let Some(id) = self.hosts.iter().position(|h| h.name == hello.name) else {
            let known: Vec<&str> = self.hosts.iter().map(|h| h.name.as_str()).collect();
            return Err(format!("the scenario has no host `{}`; it has {}", hello.name, known.join(", ")));
        };
        if self.hosts[id].phase != Phase::Joining {
            return Err(format!(
                "host `{}` is not awaited now: it is on already, or starts later",
                hello.name
            ));
        }
        let cards: Vec<u8> = hello.ports.iter().map(|(port, _)| *port).collect();
        let wanted = self.fabric.numbers(id);
        if cards != wanted {
            return Err(format!(
                "host `{}` has the cards {cards:?}, the scenario names {wanted:?}",
                hello.name
            ));
        }
        let Some(rate) = Rate::new(hello.ips) else { return Err("a host needs a speed".into()) };
        if rate.tick_at(self.quantum) < MIN_TICKS {
            return Err(format!(
                "host `{}` has fewer than {MIN_TICKS} ticks in a quantum: raise its ips or lengthen the quantum",
                hello.name
            ));
        }
        self.fabric.note(id, "join", &[self.now, hello.ips, hello.tick]);
        self.fabric.plug(id, true);
        let host = &mut self.hosts[id];
        (host.rate, host.offset, host.start) = (rate, self.now, self.now);
        (host.tick, host.until, host.phase) = (hello.tick, hello.tick, Phase::Ready);
        host.cards.clear();
        self.advance();
        Ok(id)
    }

    /// A host has come, or leaves.
    ///
    /// # Errors
    /// When it says what cannot be. Its life has then ended; the text says why.
    pub fn meet(&mut self, id: HostId, meet: Meet) -> Result<(), String> {
        if let Err(text) = self.take_meeting(id, meet) {
            self.put_off(id, Ended::Violated(text.clone()));
            self.advance();
            return Err(text);
        }
        self.advance();
        Ok(())
    }

    fn take_meeting(&mut self, id: HostId, meet: Meet) -> Result<(), String> {
        let host = &self.hosts[id];
        if host.phase != Phase::Running {
            return Err("it met without having been let run".into());
        }
        let right = match meet.reason {
            Reason::Reached => meet.tick == host.until,
            Reason::Leaving(_) => (host.tick..=host.until).contains(&meet.tick),
        };
        if !right {
            return Err(format!(
                "it met at tick {}, but ran from {} to {}",
                meet.tick, host.tick, host.until
            ));
        }
        let mut last = host.tick;
        let mut frames = Vec::with_capacity(meet.frames.len());
        for sent in meet.frames {
            if !(last..=meet.tick).contains(&sent.tick) {
                return Err(format!("it sent a frame at tick {}, not in {last} to {}", sent.tick, meet.tick));
            }
            last = sent.tick;
            let Some(port) = self.fabric.port(id, sent.port) else {
                return Err(format!("it sent a frame through card {}, which it has not", sent.port));
            };
            frames.push((port, host.time_of(sent.tick), sent.frame));
        }
        for (port, at, frame) in frames {
            self.fabric.send(port, at, frame);
        }
        self.fabric.note(id, "meet", &[meet.tick]);
        let host = &mut self.hosts[id];
        host.cards = meet.cards;
        host.tick = meet.tick;
        host.phase = Phase::Ready;
        match meet.reason {
            Reason::Leaving(code) => self.put_off(id, Ended::Left(code)),
            // Stopped before the end of the quantum: what happens now cannot wait for it.
            Reason::Reached if host.next_stop(host.tick).is_some() => self.release(id),
            Reason::Reached => {}
        }
        Ok(())
    }

    /// A host's connection broke. Not of a host that has ended or left.
    pub fn lose(&mut self, id: HostId) {
        if self.hosts[id].phase != Phase::Off {
            self.put_off(id, Ended::Lost);
            self.advance();
        }
    }

    fn put_off(&mut self, id: HostId, ended: Ended) {
        let host = &mut self.hosts[id];
        let end_ns = host.time_of(host.tick);
        host.ended.push(Life { start_ns: host.start, tick: host.tick, end_ns, ended });
        host.phase = Phase::Off;
        self.fabric.note(id, "off", &[end_ns]);
        self.fabric.plug(id, false);
    }

    fn end_host(&mut self, id: HostId, reason: EndReason, ended: Ended) {
        let host = &self.hosts[id];
        let text = format!("tick {}, {} ns", host.tick, host.time_of(host.tick));
        self.put_off(id, ended);
        self.actions.push_back(Action::End { host: id, reason, text });
    }

    /// Goes on as far as possible without hearing from a host.
    fn advance(&mut self) {
        while self.stage != Stage::Finished {
            if self.hosts.iter().any(|h| matches!(h.phase, Phase::Running | Phase::Joining)) {
                return;
            }
            match self.stage {
                Stage::Running => {
                    self.close_quantum();
                    self.stage = Stage::Joining;
                    if self.is_over() {
                        self.finish();
                    } else {
                        self.admit();
                    }
                }
                Stage::Joining => {
                    for id in 0..self.hosts.len() {
                        self.release(id);
                    }
                    self.stage = Stage::Running;
                }
                Stage::Finished => {}
            }
        }
    }

    /// All hosts have run the quantum: let the worlds run it, and settle which frames are due in the next.
    fn close_quantum(&mut self) {
        self.now += self.quantum;
        for index in 0..self.worlds.len() {
            self.run_world(index);
        }
        // What is sent from now on reaches the switch half a quantum from now at the earliest.
        self.fabric.settle(self.now + self.quantum.div_ceil(2));
    }

    fn run_world(&mut self, index: usize) {
        let WorldSlot { name, station, world } = &mut self.worlds[index];
        let (mut last, mut spin) = (0, 0);
        loop {
            let timer = world.next_timer();
            let frame = self.fabric.next_due(*station);
            let Some(at) = timer.into_iter().chain(frame).min().filter(|at| *at <= self.now) else { return };
            // A moment that is past, for instance a first timer of 0, comes now: at the start of this quantum.
            let at = at.max(self.now - self.quantum).max(last);
            spin = if at == last { spin + 1 } else { 0 };
            assert!(spin < WORLD_SPIN, "the timer of the world `{name}` stands still at {at} ns");
            last = at;
            let mut send = Vec::new();
            match self.fabric.take_due(*station, at) {
                Some(due) => world.frame(at, &due.frame, &mut send),
                None => world.timer(at, &mut send),
            }
            for bytes in send {
                let sendable = super::wire::FRAME_BYTES.contains(&bytes.len());
                assert!(sendable, "the world `{name}` sent a frame of {} bytes", bytes.len());
                if let Some(port) = self.fabric.port(*station, 0) {
                    self.fabric.send(port, at, bytes.into());
                }
            }
        }
    }

    fn is_over(&self) -> bool {
        let gone = |h: &Host| h.phase == Phase::Off && h.lives == h.starts.len();
        self.end.is_some_and(|end| self.now >= end) || self.hosts.iter().all(gone)
    }

    fn finish(&mut self) {
        for id in 0..self.hosts.len() {
            if self.hosts[id].phase != Phase::Off {
                self.end_host(id, EndReason::Over, Ended::Over);
            }
        }
        self.stage = Stage::Finished;
        self.actions.push_back(Action::Finished);
    }

    /// Awaits the hosts that start at this moment.
    fn admit(&mut self) {
        for id in 0..self.hosts.len() {
            let host = &mut self.hosts[id];
            let due = host.starts.get(host.lives).is_some_and(|start| *start <= self.now);
            if host.phase == Phase::Off && due {
                host.lives += 1;
                host.phase = Phase::Joining;
                self.actions.push_back(Action::Await(id));
            }
        }
    }

    /// Lets a host run up to the end of the quantum that begins (or has begun) at `now`, or to its next stop.
    fn release(&mut self, id: HostId) {
        let end = self.now + self.quantum;
        loop {
            let host = &mut self.hosts[id];
            let resume = match host.phase {
                Phase::Ready => None,
                Phase::Paused(resume) => Some(resume),
                _ => return,
            };
            if let Some(resume) = resume {
                if host.killed_in_pause(end.min(resume)) {
                    return self.end_host(id, EndReason::Killed, Ended::Killed);
                }
                let offset = resume - host.rate.ns_of(host.tick);
                if resume >= end || host.rate.tick_at(end - offset) <= host.tick {
                    return;
                }
                host.offset = offset;
                host.phase = Phase::Ready;
            }
            let until = host.tick_at(end);
            let Some((index, tick)) = host.next_stop(until) else { return self.run_host(id, until) };
            if tick > host.tick {
                return self.run_host(id, tick);
            }
            let stop = host.stops.remove(index);
            match stop.what {
                StopKind::Kill => return self.end_host(id, EndReason::Killed, Ended::Killed),
                StopKind::Pause(length) => host.phase = Phase::Paused(host.time_of(host.tick) + length),
            }
        }
    }

    fn run_host(&mut self, id: HostId, until: u64) {
        let host = &mut self.hosts[id];
        let mut frames = Vec::new();
        // Frames that came during a pause, or within the tick of the last meeting, are due at once.
        let mut tick = host.tick + 1;
        while let Some(at) = self.fabric.next_due(id) {
            tick = tick.max(host.tick_at(at));
            if tick > until {
                break;
            }
            let Some(due) = self.fabric.take_due(id, at) else { break };
            frames.push(Stamped { tick, port: self.fabric.number(due.port), frame: due.frame });
        }
        (host.until, host.phase) = (until, Phase::Running);
        for frame in &frames {
            self.fabric.note(id, "due", &[frame.tick, frame.port.into()]);
        }
        self.fabric.note(id, "run", &[until]);
        self.actions.push_back(Action::Run { host: id, until, frames });
    }

    /// What happened so far.
    pub fn summary(&self) -> Summary {
        let card = |station: &str, number: u8| {
            let host = self.hosts.iter().find(|h| h.name == station);
            let card = host.and_then(|h| h.cards.iter().find(|(port, _)| *port == number));
            card.map(|(_, counters)| *counters).unwrap_or_default()
        };
        let ports = self.fabric.totals().map(|(name, network, up, down, at_switch)| PortSummary {
            port: name.to_string(),
            network: self.network_names[network].clone(),
            up: up.clone(),
            down: down.clone(),
            at_switch: at_switch.clone(),
            card: card(&name.station, name.port),
        });
        Summary {
            seed: self.seed,
            time_ns: self.now,
            digest: self.fabric.digest(),
            hosts: self
                .hosts
                .iter()
                .map(|h| HostSummary { name: h.name.clone(), lives: h.ended.clone() })
                .collect(),
            ports: ports.collect(),
            worlds: self.worlds.iter().map(|w| (w.name.clone(), w.world.summary())).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::cable::CableConfig;
    use super::super::config::Pattern;
    use super::super::rng::Rng;
    use super::super::time::Ppm;
    use super::super::wire::Frame;
    use super::*;

    const IPS: u64 = 50_000_000;
    const QUANTUM: Ns = 100_000;
    /// Ticks per quantum.
    const Q: u64 = 5_000;

    fn mac(n: u8) -> [u8; 6] {
        [2, 0, 0, 0, 0, n]
    }

    fn hello(name: &str) -> Hello {
        Hello { name: name.into(), ips: IPS, tick: 1, ports: vec![(0, [0; 6])] }
    }

    fn frame(text: &str) -> Frame {
        [&[0xff; 6][..], &mac(1), &[0x88, 0xb5], text.as_bytes()].concat().into()
    }

    fn sent(tick: u64, text: &str) -> Stamped {
        Stamped { tick, port: 0, frame: frame(text) }
    }

    fn reached(tick: u64, frames: Vec<Stamped>) -> Meet {
        Meet { tick, reason: Reason::Reached, cards: vec![], frames }
    }

    fn leaving(tick: u64, frames: Vec<Stamped>) -> Meet {
        Meet { tick, reason: Reason::Leaving(33), cards: vec![], frames }
    }

    fn config(change: impl Fn(&mut Config)) -> Config {
        let cable = CableConfig { rate: 0, ..CableConfig::default() };
        let mut config = Config::lan(1, &["a", "b"], &cable);
        change(&mut config);
        config
    }

    fn actions(switch: &mut Switch) -> Vec<Action> {
        std::iter::from_fn(|| switch.next_action()).collect()
    }

    fn run(host: HostId, until: u64, frames: Vec<Stamped>) -> Action {
        Action::Run { host, until, frames }
    }

    /// Both hosts joined, and let run the first quantum.
    fn started(change: impl Fn(&mut Config)) -> Switch {
        let mut s = Switch::new(&config(change), vec![]).unwrap();
        assert_eq!(actions(&mut s), [Action::Await(0), Action::Await(1)]);
        s.join(&hello("a")).unwrap();
        assert_eq!(actions(&mut s), [], "nobody runs before all have joined");
        s.join(&hello("b")).unwrap();
        s
    }

    #[test]
    fn hosts_run_a_quantum_and_wait_for_each_other() {
        let mut s = started(|_| ());
        assert_eq!(actions(&mut s), [run(0, Q, vec![]), run(1, Q, vec![])]);
        s.meet(1, reached(Q, vec![])).unwrap();
        assert_eq!(actions(&mut s), []);
        assert_eq!(s.waiting_for().collect::<Vec<_>>(), [("a", false)]);
        s.meet(0, reached(Q, vec![])).unwrap();
        assert_eq!(s.now(), QUANTUM);
        assert_eq!(actions(&mut s), [run(0, 2 * Q, vec![]), run(1, 2 * Q, vec![])]);
    }

    #[test]
    fn a_frame_arrives_at_its_exact_tick() {
        let mut s = started(|_| ());
        actions(&mut s);
        s.meet(0, reached(Q, vec![sent(17, "x"), sent(Q, "y")])).unwrap();
        s.meet(1, reached(Q, vec![])).unwrap();
        // Two cables of 50 us are 5,000 ticks.
        assert_eq!(actions(&mut s)[1], run(1, 2 * Q, vec![sent(Q + 17, "x"), sent(2 * Q, "y")]));
    }

    #[test]
    fn a_cut_that_nobody_planned_is_one_as_well() {
        let mut s = started(|_| ());
        actions(&mut s);
        s.meet(0, reached(Q, vec![])).unwrap();
        s.meet(1, reached(Q, vec![])).unwrap();
        let all = vec![Pattern::All];
        s.cut(&Partition { from: s.now(), until: 2 * QUANTUM, a: all.clone(), b: all, one_way: false });
        s.end_at(4 * QUANTUM);
        for text in ["lost", "kept", "late"] {
            actions(&mut s);
            let at = s.now() / QUANTUM * Q;
            s.meet(0, reached(at + Q, vec![sent(at + 1, text)])).unwrap();
            s.meet(1, reached(at + Q, vec![])).unwrap();
        }
        assert_eq!(s.summary().ports[1].at_switch.cut, 1);
        assert!(s.finished() && s.now() == 4 * QUANTUM);
        assert_eq!((s.host("b"), s.host("z")), (Some(1), None));
    }

    #[test]
    fn who_may_not_join_hears_why() {
        let mut s = Switch::new(&config(|_| ()), vec![]).unwrap();
        let refusal = |s: &mut Switch, h: &Hello| s.join(h).unwrap_err();
        assert!(refusal(&mut s, &hello("z")).contains("no host `z`; it has a, b"));
        let two = Hello { ports: vec![(0, mac(1)), (1, mac(2))], ..hello("a") };
        assert!(refusal(&mut s, &two).contains("cards [0, 1], the scenario names [0]"));
        assert!(refusal(&mut s, &Hello { ips: 1_000, ..hello("a") }).contains("raise its ips"));
        s.join(&hello("a")).unwrap();
        assert!(refusal(&mut s, &hello("a")).contains("not awaited"));
    }

    #[test]
    fn a_liar_is_put_off_and_the_others_go_on() {
        for (lie, text) in [
            (reached(Q - 1, vec![]), "met at tick 4999"),
            (reached(Q, vec![sent(Q + 1, "")]), "a frame at tick 5001"),
            (reached(Q, vec![sent(9, ""), sent(8, "")]), "a frame at tick 8"),
            (reached(Q, vec![Stamped { port: 3, ..sent(9, "") }]), "card 3"),
            (leaving(Q + 1, vec![]), "met at tick 5001"),
        ] {
            let mut s = started(|_| ());
            actions(&mut s);
            assert!(s.meet(0, lie).unwrap_err().contains(text), "{text}");
            s.meet(1, reached(Q, vec![])).unwrap();
            assert_eq!(actions(&mut s), [run(1, 2 * Q, vec![])]);
            assert!(matches!(&s.summary().hosts[0].lives[0].ended, Ended::Violated(t) if t.contains(text)));
        }
        let mut s = started(|_| ());
        s.meet(0, reached(Q, vec![])).unwrap();
        assert!(s.meet(0, reached(Q, vec![])).unwrap_err().contains("without having been let run"));
    }

    #[test]
    fn last_words_arrive_and_the_end_is_the_last_ones() {
        let mut s = started(|_| ());
        actions(&mut s);
        s.meet(0, leaving(20, vec![sent(20, "bye")])).unwrap();
        s.meet(1, reached(Q, vec![])).unwrap();
        assert_eq!(actions(&mut s), [run(1, 2 * Q, vec![sent(Q + 20, "bye")])]);
        s.meet(1, leaving(Q + 1, vec![])).unwrap();
        assert_eq!(actions(&mut s), [Action::Finished]);
        let lives = &s.summary().hosts[0].lives;
        assert_eq!(lives[..], [Life { start_ns: 0, tick: 20, end_ns: 400, ended: Ended::Left(33) }]);
    }

    #[test]
    fn a_lost_host_is_a_dead_link() {
        let mut s = started(|_| ());
        actions(&mut s);
        s.meet(1, reached(Q, vec![sent(5, "x")])).unwrap();
        s.lose(0);
        assert_eq!(actions(&mut s), [run(1, 2 * Q, vec![])]);
        assert_eq!(s.summary().ports[0].at_switch.unheard, 1);
        assert_eq!(s.summary().hosts[0].lives[0].ended, Ended::Lost);
    }

    fn stop(when: When, what: StopKind) -> Stop {
        Stop { host: "a".into(), when, what }
    }

    #[test]
    fn killed_at_an_exact_tick() {
        for when in [When::Tick { tick: 7_001, life: 0 }, When::At(140_020)] {
            let mut s = started(|c| c.stops.push(stop(when, StopKind::Kill)));
            actions(&mut s);
            s.meet(0, reached(Q, vec![])).unwrap();
            s.meet(1, reached(Q, vec![])).unwrap();
            assert_eq!(actions(&mut s)[0], run(0, 7_001, vec![]));
            s.meet(0, reached(7_001, vec![sent(7_000, "last")])).unwrap();
            assert!(matches!(&actions(&mut s)[..], [Action::End { host: 0, reason: EndReason::Killed, .. }]));
            s.meet(1, reached(2 * Q, vec![])).unwrap();
            assert_eq!(actions(&mut s), [run(1, 3 * Q, vec![sent(12_000, "last")])]);
            assert_eq!(s.summary().hosts[0].lives[0].tick, 7_001);
        }
    }

    #[test]
    fn a_pause_freezes_the_hosts_clock_only() {
        let pause = stop(When::Tick { tick: 2_000, life: 0 }, StopKind::Pause(250_000));
        let mut s = started(|c| c.stops.push(pause.clone()));
        assert_eq!(actions(&mut s), [run(0, 2_000, vec![]), run(1, Q, vec![])]);
        // Paused at 40 us until 290 us: two quanta pass for b, which sends into them.
        s.meet(0, reached(2_000, vec![])).unwrap();
        assert_eq!(actions(&mut s), []);
        s.meet(1, reached(Q, vec![sent(100, "1")])).unwrap();
        assert_eq!(actions(&mut s), [run(1, 2 * Q, vec![])]);
        s.meet(1, reached(2 * Q, vec![sent(Q + 1, "2"), sent(2 * Q - 1, "3")])).unwrap();
        // At 200 us: a resumes at 290 us = its tick 2,000 and runs 10 us. Frame 1 came at 102 us, frame 2 at 200.02 us:
        // both at once. Frame 3 comes at 299.98 us, its tick 2,499.
        let frames = vec![sent(2_001, "1"), sent(2_001, "2"), sent(2_499, "3")];
        assert_eq!(actions(&mut s), [run(0, 2_500, frames), run(1, 3 * Q, vec![])]);
        s.meet(0, reached(2_500, vec![sent(2_400, "back")])).unwrap();
        s.meet(1, reached(3 * Q, vec![])).unwrap();
        // Sent at 298 us.
        let back = vec![sent(19_900, "back")];
        assert_eq!(actions(&mut s), [run(0, 7_500, vec![]), run(1, 4 * Q, back)]);
    }

    #[test]
    fn a_pause_within_a_quantum() {
        let pause = stop(When::Tick { tick: 2_000, life: 0 }, StopKind::Pause(20_000));
        let mut s = started(|c| c.stops.push(pause.clone()));
        assert_eq!(actions(&mut s)[0], run(0, 2_000, vec![]));
        s.meet(0, reached(2_000, vec![])).unwrap();
        assert_eq!(actions(&mut s), [run(0, 4_000, vec![])]);
        s.meet(0, reached(4_000, vec![])).unwrap();
        s.meet(1, reached(Q, vec![])).unwrap();
        assert_eq!(actions(&mut s), [run(0, 9_000, vec![]), run(1, 2 * Q, vec![])]);
    }

    #[test]
    fn killed_while_paused_and_switched_on_again() {
        let mut s = started(|c| {
            c.stops.push(stop(When::At(50_000), StopKind::Pause(10_000_000)));
            c.stops.push(stop(When::At(250_000), StopKind::Kill));
            c.hosts[0].starts = vec![0, 450_000];
        });
        let mut seen = actions(&mut s);
        s.meet(0, reached(2_500, vec![])).unwrap();
        for n in 1..=5 {
            s.meet(1, reached(n * Q, vec![])).unwrap();
            seen.extend(actions(&mut s));
        }
        let of_a: Vec<_> = seen.iter().filter(|a| !matches!(a, Action::Run { host: 1, .. })).collect();
        assert!(
            matches!(of_a[..], [Action::Run { .. }, Action::End { host: 0, .. }, Action::Await(0)]),
            "{of_a:?}"
        );
        assert_eq!(s.waiting_for().collect::<Vec<_>>(), [("a", true)], "nothing goes on without it");
        s.join(&hello("a")).unwrap();
        // It starts at 500 us, the first meeting not before 450 us, with its clock at 0.
        assert_eq!(actions(&mut s), [run(0, Q, vec![]), run(1, 6 * Q, vec![])]);
        s.meet(0, reached(Q, vec![sent(3, "new")])).unwrap();
        s.meet(1, reached(6 * Q, vec![])).unwrap();
        assert_eq!(actions(&mut s)[1], run(1, 7 * Q, vec![sent(6 * Q + 3, "new")]));
    }

    #[test]
    fn the_end_ends_all() {
        let mut s = started(|c| c.end = Some(150_000));
        for n in 1..=2 {
            actions(&mut s);
            s.meet(0, reached(n * Q, vec![])).unwrap();
            s.meet(1, reached(n * Q, vec![])).unwrap();
        }
        let over = |a: &Action| matches!(a, Action::End { reason: EndReason::Over, .. });
        let seen = actions(&mut s);
        assert!(matches!(&seen[..], [x, y, Action::Finished] if over(x) && over(y)), "{seen:?}");
        assert!(s.finished());
    }

    #[test]
    fn the_director_can_stop_hosts() {
        let mut s = started(|_| ());
        actions(&mut s);
        s.meet(0, reached(Q, vec![])).unwrap();
        s.meet(1, reached(Q, vec![])).unwrap();
        s.stop(0, When::At(220_000), StopKind::Kill);
        s.meet(0, reached(2 * Q, vec![])).unwrap();
        s.meet(1, reached(2 * Q, vec![])).unwrap();
        assert!(actions(&mut s).contains(&run(0, 11_000, vec![])));
    }

    /// Sends `n` at n ms, and counts what comes.
    struct Beacon {
        next: Ns,
        heard: Vec<(Ns, u8)>,
    }

    impl World for Beacon {
        fn frame(&mut self, now: Ns, frame: &Frame, _: &mut Vec<Vec<u8>>) {
            self.heard.push((now, frame[14]));
        }
        fn timer(&mut self, now: Ns, send: &mut Vec<Vec<u8>>) {
            assert_eq!(now, self.next);
            send.push(frame("beacon").to_vec());
            self.next += 1_000_000;
        }
        fn next_timer(&self) -> Option<Ns> {
            Some(self.next)
        }
        fn summary(&self) -> String {
            format!("{:?}", self.heard)
        }
    }

    #[test]
    fn a_world_takes_part_in_emulated_time() {
        let config = config(|c| {
            c.hosts.pop();
            c.worlds.push("w".into());
            c.networks[0].ports[1].0.station = "w".into();
        });
        assert!(Switch::new(&config, vec![]).is_err(), "a world is missing");
        let beacon = Beacon { next: 1_000_020, heard: vec![] };
        let mut s = Switch::new(&config, vec![("w".into(), Box::new(beacon))]).unwrap();
        s.join(&hello("a")).unwrap();
        let mut got = vec![];
        for n in 1..=25 {
            for action in actions(&mut s) {
                if let Action::Run { frames, .. } = action {
                    got.extend(frames.into_iter().map(|f| f.tick));
                }
            }
            let frames = if n == 3 { vec![sent(10_007, "!")] } else { vec![] };
            s.meet(0, reached(n * Q, frames)).unwrap();
        }
        assert_eq!(got, [55_001, 105_001]);
        assert_eq!(s.summary().worlds[0].1, "[(300140, 33)]");
    }

    /// A host that is a function of its seed and of what it gets.
    struct Model {
        rng: Rng,
        clock: u64,
        log: Vec<(u64, usize)>,
    }

    impl Model {
        fn execute(&mut self, id: usize, until: u64, due: &[Stamped]) -> Meet {
            let mut frames = vec![];
            for d in due {
                assert!(d.tick > self.clock && d.tick <= until, "{} not in {}..={until}", d.tick, self.clock);
                self.log.push((d.tick, d.frame.len()));
            }
            let mut at = self.clock;
            for _ in 0..self.rng.below(4) {
                at += self.rng.below((until - at).max(1));
                let to = mac(self.rng.below(4) as u8);
                let size = self.rng.below(60) as usize + due.len();
                let bytes = [&to[..], &mac(id as u8), &vec![at as u8; size + 2]].concat();
                frames.push(Stamped { tick: at, port: 0, frame: bytes.into() });
            }
            self.clock = until;
            reached(until, frames)
        }
    }

    /// Runs three models for some quanta; `load` decides who comes first. Gives all that can be seen.
    fn simulate(config: &Config, load: u64) -> (Summary, Vec<Vec<(u64, usize)>>) {
        let mut s = Switch::new(config, vec![]).unwrap();
        let mut load = Rng::new(load, "load");
        let mut models: BTreeMap<HostId, Model> = BTreeMap::new();
        let mut logs = vec![vec![]; config.hosts.len()];
        let mut running: Vec<(HostId, u64, Vec<Stamped>)> = vec![];
        let mut joining: Vec<HostId> = vec![];
        loop {
            while let Some(action) = s.next_action() {
                match action {
                    Action::Await(host) => joining.push(host),
                    Action::Run { host, until, frames } => running.push((host, until, frames)),
                    Action::End { host, .. } => logs[host].extend(models.remove(&host).unwrap().log),
                    Action::Finished => return (s.summary(), logs),
                }
            }
            let pick = load.below((joining.len() + running.len()) as u64) as usize;
            if pick < joining.len() {
                let host = joining.remove(pick);
                let rng = Rng::new(config.seed, &config.hosts[host].name);
                models.insert(host, Model { rng, clock: 1, log: vec![] });
                s.join(&hello(&config.hosts[host].name)).unwrap();
            } else {
                let (host, until, frames) = running.remove(pick - joining.len());
                let meet = models.get_mut(&host).unwrap().execute(host, until, &frames);
                s.meet(host, meet).unwrap();
            }
        }
    }

    fn stormy(seed: u64, pause: u64, kill: u64, restart: u64) -> Config {
        let cable = CableConfig {
            jitter: 120_000,
            loss: Ppm(50_000),
            duplicate: Ppm(50_000),
            reorder: Ppm(50_000),
            reorder_by: 500_000,
            rate: 10_000_000,
            queue: 2_000,
            ..CableConfig::default()
        };
        let mut c = Config::lan(seed, &["a", "b", "c"], &cable);
        c.end = Some(6_000_000);
        c.stops.push(stop(When::At(pause), StopKind::Pause(1_234_567)));
        c.stops.push(Stop {
            host: "b".into(),
            when: When::Tick { tick: kill, life: 0 },
            what: StopKind::Kill,
        });
        c.hosts[1].starts = vec![0, restart];
        let all = vec![Pattern::All];
        let c0 = vec![Pattern::Station("c".into())];
        c.partitions.push(Partition { from: 2_000_000, until: 2_500_000, a: c0, b: all, one_way: false });
        c
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whoever comes first: the same run, to the last tick. Another seed: another run.
        #[test]
        fn the_load_changes_nothing(
            seed in any::<u64>(), load in any::<u64>(), pause in 0u64..5_000_000, kill in 2u64..200_000,
            restart in 4_100_000u64..5_500_000,
        ) {
            let config = stormy(seed, pause, kill, restart);
            let one = simulate(&config, load);
            prop_assert_eq!(&one, &simulate(&config, load ^ 0x5555));
            let other = Config { seed: seed ^ 1, ..config };
            prop_assert_ne!(&one.0.digest, &simulate(&other, load).0.digest);
        }
    }
}
