//! The world of one seed: what is under way, and what happens when it gets there.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ft::arbiter::lock::Server;
use ft::arbiter::record::{Standing, VmId};
use ft::keys::Incarnation;
use ft::outputs::Outputs;
use ft::pair::{Action, Event, State};
use replay::seed::Seed;
use toy::program::{Program, SHORT};

use crate::god::{Broken, God};
use crate::guest::Arrival;
use crate::host::{BACKLOG, Gear, Host, Incoming, Set, VM};
use crate::links::Weather;
use crate::mutant::Mutant;
use crate::plan::{Fault, MS, Net, Plan};
use crate::transport::Connection;

pub use crate::facts::Facts;
pub use crate::host::Memory;

/// What a rule says of a step.
pub(crate) type Step<T = ()> = Result<T, Broken>;

/// Things that happen at most: a world that does more is in a loop.
const EVENTS_MAX: u64 = 3_000_000;

/// Something that will happen.
#[derive(Debug)]
enum Next {
    /// Something comes to a host, if it is still this life of it.
    Host(usize, u64, Incoming),
    /// A datagram reaches the disk.
    ToDisk(usize, Vec<u8>),
    /// Host 1 tries to connect.
    Dial,
    /// Something comes to the guest from outside.
    Outside,
    /// A fault of the plan.
    Fault(usize),
    /// A host that stands still goes on.
    Resume(usize),
    /// Nothing goes wrong any more.
    Calm,
}

#[derive(Debug)]
struct Scheduled {
    at: u64,
    number: u64,
    next: Next,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// The world.
pub struct World<'m> {
    pub(crate) plan: Plan,
    pub(crate) program: Program,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) now: u64,
    pub(crate) hosts: [Host<'m>; 2],
    pub(crate) connection: Connection,
    pub(crate) god: God,
    pub(crate) facts: Facts,
    pub(crate) rng: Seed,
    /// When a guest has executed something last.
    pub(crate) stepped_at: u64,
    pub(crate) seed: u64,
    server: Server,
    spare: Vec<(Set<'m>, Outputs<'m>)>,
    queue: BinaryHeap<Reverse<Scheduled>>,
    number: u64,
    /// Until when nothing passes, by network and sender.
    cut: [[u64; 2]; 2],
    no_disk: [u64; 2],
    done: u64,
    story: Option<Vec<String>>,
}

/// Runs the world of a seed.
///
/// # Errors
/// A rule is broken; which, and when.
pub fn run(memory: &mut Memory, seed: u64, mutant: Option<Mutant>) -> Result<Facts, String> {
    let mut world = World::new(memory, Plan::new(seed), seed, mutant, false);
    world.run().map_err(|broken| format!("at {}: {broken:?}", time(world.now)))?;
    Ok(world.facts)
}

/// Runs the world of a seed and tells everything that happens in it.
pub fn tell(memory: &mut Memory, seed: u64, mutant: Option<Mutant>) -> (Vec<String>, Result<Facts, String>) {
    let mut world = World::new(memory, Plan::new(seed), seed, mutant, true);
    let result = world.run().map_err(|broken| format!("at {}: {broken:?}", time(world.now)));
    let facts = world.facts;
    let mut story = vec![format!("{:#?}", world.plan)];
    story.extend(world.story.unwrap_or_default());
    (story, result.map(|()| facts))
}

fn time(ns: u64) -> String {
    format!("{}.{:06} ms", ns / MS, ns % MS)
}

impl<'m> World<'m> {
    fn new(memory: &'m mut Memory, plan: Plan, seed: u64, mutant: Option<Mutant>, story: bool) -> Self {
        let mut spare = memory.sets(plan.log, plan.outputs);
        let mut host = |id| Host::new(&plan, id, 0, 0, spare.pop().expect("four lives"));
        let hosts = [host(0), host(1)];
        let rng = Seed::new(seed).fork(11);
        Self {
            program: Program::sized(&mut rng.fork(1), &SHORT),
            mutant,
            now: 0,
            hosts,
            connection: Connection::default(),
            god: God::default(),
            facts: Facts::default(),
            stepped_at: 0,
            seed,
            server: Server::new(1),
            spare,
            queue: BinaryHeap::new(),
            number: 0,
            cut: [[0; 2]; 2],
            no_disk: [0; 2],
            done: 0,
            story: story.then(Vec::new),
            rng,
            plan,
        }
    }

    /// Adds a line to the story, if one is told.
    pub(crate) fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(format!("{:>16}  {}", time(self.now), line()));
        }
    }

    fn at(&mut self, at: u64, next: Next) {
        self.number += 1;
        self.queue.push(Reverse(Scheduled { at: at.max(self.now), number: self.number, next }));
    }

    /// Something comes to a host at this moment.
    pub(crate) fn deliver(&mut self, at: u64, host: usize, incoming: Incoming) {
        let life = self.hosts[host].lives;
        self.at(at, Next::Host(host, life, incoming));
    }

    fn run(&mut self) -> Step {
        for fault in 0..self.plan.faults.len() {
            let at = self.plan.faults[fault].0;
            self.at(at, Next::Fault(fault));
        }
        self.at(self.plan.calm, Next::Calm);
        self.at(MS, Next::Outside);
        self.at(0, Next::Dial);
        for host in 0..2 {
            let start = self.plan.start[host];
            self.deliver(start, host, Incoming::Tick);
        }
        while let Some(Reverse(Scheduled { at, next, .. })) = self.queue.pop() {
            if at > self.plan.end {
                break;
            }
            self.now = at;
            self.done += 1;
            if self.done > EVENTS_MAX {
                return Err(Broken::Stuck("too much happens".to_owned()));
            }
            self.happen(next)?;
        }
        self.now = self.plan.end;
        self.facts.seeds = 1;
        self.facts.sealed = u64::from(self.plan.sealed);
        self.facts.events = self.done;
        self.conclude()
    }

    fn happen(&mut self, next: Next) -> Step {
        match next {
            Next::Host(host, life, incoming) => {
                if self.hosts[host].lives == life && self.hosts[host].alive {
                    return self.comes(host, incoming);
                }
            }
            Next::ToDisk(host, request) => self.disk(host, &request),
            Next::Dial => self.dial(),
            Next::Outside => self.outside(),
            Next::Fault(index) => {
                let fault = self.plan.faults[index].1.clone();
                return self.fault(&fault);
            }
            Next::Resume(host) => return self.resume(host),
            Next::Calm => self.calm(),
        }
        Ok(())
    }

    /// Something comes to a host: if it stands still, to its cards.
    fn comes(&mut self, id: usize, incoming: Incoming) -> Step {
        let host = &mut self.hosts[id];
        if host.paused.is_none() {
            return self.receive(id, incoming);
        }
        match incoming {
            // It looks for itself when it goes on.
            Incoming::Tick => host.tick_at = None,
            Incoming::Run => host.run_at = None,
            Incoming::Stream(_) => {}
            Incoming::Established(..) | Incoming::Hangup(_) | Incoming::PowerOff => {
                host.backlog.push_back(incoming);
            }
            Incoming::Beat(..) | Incoming::Disk(_) | Incoming::Arrival(_) => {
                if host.backlog.len() < BACKLOG {
                    host.backlog.push_back(incoming);
                }
            }
        }
        Ok(())
    }

    /// A host goes on as if nothing had been.
    fn resume(&mut self, id: usize) -> Step {
        let host = &mut self.hosts[id];
        if !host.alive || host.paused.is_none_or(|until| until > self.now) {
            return Ok(());
        }
        host.paused = None;
        let backlog = std::mem::take(&mut host.backlog);
        let epoch = self.connection.epoch;
        self.say(|| format!("host {id} goes on, {} things wait", backlog.len()));
        // What it was in the midst of comes first.
        self.perform_deferred(id)?;
        let mut waiting: Vec<Incoming> = backlog.into();
        waiting.push(Incoming::Stream(epoch));
        for incoming in waiting {
            self.comes(id, incoming)?;
        }
        self.comes(id, Incoming::Tick)?;
        self.wake(id, self.now);
        Ok(())
    }

    /// Whether something that a host sends on a network now arrives.
    pub(crate) const fn passes(&self, net: Net, from: usize) -> bool {
        self.now >= self.cut[net as usize][from]
    }

    pub(crate) const fn weather(&self, net: Net) -> Weather {
        match net {
            Net::Logging => self.plan.logging,
            Net::Guest => self.plan.guest,
        }
    }

    /// A host sends a datagram to the other.
    pub(crate) fn datagram(&mut self, from: usize, net: Net, incoming: &Incoming) {
        if !self.passes(net, from) {
            return;
        }
        let weather = self.weather(net);
        for delay in weather.copies(&mut self.rng) {
            self.deliver(self.now + delay, 1 - from, incoming.clone());
        }
    }

    /// A host sends bytes on the channel; whether there was room.
    pub(crate) fn stream(&mut self, from: usize, bytes: &[u8]) -> bool {
        let weather = self.weather(Net::Logging);
        let mut arrive = self.now + weather.delay(&mut self.rng);
        // What is lost is sent again some time later.
        if self.rng.one_in(weather.loss) {
            arrive += self.rng.between(self.plan.heartbeat / 2, 2 * self.plan.heartbeat);
        }
        if !self.passes(Net::Logging, from) {
            arrive = arrive.max(self.cut[Net::Logging as usize][from]) + self.rng.below(self.plan.timeout);
        }
        let epoch = self.connection.epoch;
        let Some(at) = self.connection.send(from, arrive, bytes) else { return false };
        self.deliver(at, 1 - from, Incoming::Stream(epoch));
        true
    }

    /// A host sends a datagram to the disk.
    pub(crate) fn ask_disk(&mut self, from: usize, request: &[u8]) {
        if self.now < self.no_disk[from] {
            return;
        }
        let weather = self.plan.disk;
        for delay in weather.copies(&mut self.rng) {
            self.at(self.now + delay, Next::ToDisk(from, request.to_vec()));
        }
    }

    fn disk(&mut self, from: usize, request: &[u8]) {
        let Some(reply) = self.server.datagram(request) else { return };
        let standing = self.server.record(VmId::of(VM)).map(|record| (record.standing, record.owner));
        if let Some((Standing::Solo, owner)) = standing {
            self.god.owner = Some(owner.index());
        }
        self.say(|| format!("the disk serves host {from}; {standing:?}"));
        if self.now < self.no_disk[from] {
            return;
        }
        let weather = self.plan.disk;
        for delay in weather.copies(&mut self.rng) {
            self.deliver(self.now + delay, from, Incoming::Disk(reply.to_vec()));
        }
    }

    /// Host 1 connects, if it can, and if there is a reason to.
    fn dial(&mut self) {
        self.at(self.now + self.plan.heartbeat, Next::Dial);
        let [a, b] = &self.hosts;
        let free = b.is_awake() && !b.closed && !(self.connection.up[1]);
        let heard = a.is_awake() && !a.closed;
        if !free || !heard || !self.passes(Net::Logging, 0) || !self.passes(Net::Logging, 1) {
            return;
        }
        let starts = [a.incarnation, b.incarnation];
        let old = self.connection.epoch;
        if self.connection.up[0] {
            self.deliver(self.now, 0, Incoming::Hangup(old));
        }
        let up = self.connection.up;
        let epoch = self.connection.begin();
        // Who had the old one does not know yet; it has nothing to send on any more.
        let _ = up;
        for host in 0..2 {
            let delay = self.plan.logging.delay(&mut self.rng);
            self.deliver(self.now + 1 + delay, host, Incoming::Established(epoch, starts[1 - host]));
        }
    }

    fn outside(&mut self) {
        let mean = self.plan.arrivals;
        let next = self.now + self.rng.between(mean / 4, 2 * mean);
        self.at(next, Next::Outside);
        let arrival = match self.rng.below(8) {
            0..=5 => {
                let length = self.rng.between(1, 24);
                Arrival::Frame((0..length).map(|_| self.rng.next() as u8).collect())
            }
            6 => Arrival::Console(vec![self.rng.next() as u8]),
            _ => Arrival::Button,
        };
        for host in 0..2 {
            if self.passes(Net::Guest, host) {
                let delay = self.plan.guest.delay(&mut self.rng);
                self.deliver(self.now + delay, host, Incoming::Arrival(arrival.clone()));
            }
        }
    }

    fn fault(&mut self, fault: &Fault) -> Step {
        self.say(|| format!("FAULT {fault:?}"));
        match *fault {
            Fault::Crash(host) => self.crash(host),
            Fault::Restart(host) => self.restart(host),
            Fault::Pause(host, long) => self.pause(host, long),
            Fault::Jump(host, by) => {
                let now = self.now;
                self.hosts[host].clock.jump(now, by);
                self.hosts[host].tick_at = None;
                self.deliver(now, host, Incoming::Tick);
            }
            Fault::Slow(host, cost) => self.hosts[host].cost = cost,
            Fault::Cut(net, host, long) => {
                let until = &mut self.cut[net as usize][host];
                *until = (self.now + long).max(*until);
            }
            Fault::Reset => self.reset(),
            Fault::NoDisk(host, long) => self.no_disk[host] = self.now + long,
            Fault::PowerOff(host) => self.deliver(self.now, host, Incoming::PowerOff),
        }
        Ok(())
    }

    /// The connection breaks; both learn of it.
    fn reset(&mut self) {
        let epoch = self.connection.epoch;
        for host in 0..2 {
            let delay = self.plan.logging.delay(&mut self.rng);
            self.deliver(self.now + delay, host, Incoming::Hangup(epoch));
        }
    }

    /// A host loses its power.
    pub(crate) fn crash(&mut self, id: usize) {
        let host = &mut self.hosts[id];
        if !host.alive {
            return;
        }
        self.facts.crashes += 1;
        host.alive = false;
        host.gear = Gear::Off;
        (host.guest, host.tape, host.track) = (None, None, None);
        self.connection.up[id] = false;
        self.say(|| format!("host {id} is dead"));
    }

    fn restart(&mut self, id: usize) {
        if self.hosts[id].alive || self.hosts[id].lives > 0 {
            return;
        }
        let Some(memory) = self.spare.pop() else { return };
        let life = self.hosts[id].lives + 1;
        self.hosts[id] = Host::new(&self.plan, id, life, self.now, memory);
        self.deliver(self.now, id, Incoming::Tick);
        // Segments of the old connection are answered by a reset.
        let delay = self.plan.logging.delay(&mut self.rng);
        let epoch = self.connection.epoch;
        self.deliver(self.now + self.plan.heartbeat + delay, 1 - id, Incoming::Hangup(epoch));
        self.say(|| format!("host {id} starts anew"));
    }

    /// A host stands still.
    pub(crate) fn pause(&mut self, id: usize, long: u64) {
        let until = (self.now + long).min(self.plan.calm.max(self.now + 1));
        let host = &mut self.hosts[id];
        if !host.alive {
            return;
        }
        self.facts.pauses += 1;
        let until = host.paused.unwrap_or(0).max(until);
        host.paused = Some(until);
        self.at(until, Next::Resume(id));
    }

    fn calm(&mut self) {
        self.say(|| "CALM".to_owned());
        let fair = |weather: &mut Weather| *weather = Weather { delay: weather.delay, ..Weather::FAIR };
        fair(&mut self.plan.logging);
        fair(&mut self.plan.guest);
        fair(&mut self.plan.disk);
        self.plan.strikes.clear();
        self.cut = [[0; 2]; 2];
        self.no_disk = [0; 2];
        for host in &mut self.hosts {
            host.cost = host.cost.min(1000);
        }
    }

    /// Has a host's next tick come when it is due.
    pub(crate) fn schedule_tick(&mut self, id: usize) {
        let host = &mut self.hosts[id];
        if !host.is_awake() {
            return;
        }
        let due = [host.pair.next_deadline(), host_deadline(host)].into_iter().flatten().min();
        let Some(due) = due else { return };
        let at = host.clock.when(due).max(self.now + 1);
        if host.tick_at.is_none_or(|known| at < known) {
            host.tick_at = Some(at);
            self.deliver(at, id, Incoming::Tick);
        }
    }

    /// The host's own clock.
    pub(crate) const fn local(&self, id: usize) -> u64 {
        self.hosts[id].clock.at(self.now)
    }

    /// The peer's incarnation is told to the core, which sees whether it has started anew.
    pub(crate) fn established(&mut self, id: usize, epoch: u64, peer: Incarnation) -> Step {
        if self.connection.epoch != epoch || self.hosts[id].closed {
            return Ok(());
        }
        if self.plan.sealed {
            self.connection.up[id] = true;
            self.hosts[id].sent = None;
            return self.connect_sealed(id);
        }
        if self.hosts[id].pinned.is_some_and(|pinned| pinned != peer) {
            self.say(|| format!("host {id} refuses a peer that has started anew"));
            let delay = self.plan.logging.delay(&mut self.rng);
            self.deliver(self.now + delay, 1 - id, Incoming::Hangup(epoch));
            return self.tell(id, Event::PeerRestarted);
        }
        self.connection.up[id] = true;
        self.hosts[id].sent = None;
        self.tell(id, Event::ChannelUp { peer })?;
        self.greet(id)
    }

    /// Whether a strike hits here.
    pub(crate) fn struck(&mut self, id: usize, action: &Action, before: bool) -> bool {
        let rare = !matches!(action, Action::SendBeat { .. } | Action::ReleaseTo(_) | Action::Note(_));
        let counts = self.hosts[id].actions;
        let hit = self.plan.strikes.iter().position(|strike| {
            strike.host == id
                && strike.before == before
                && (!strike.rare || rare)
                && counts[usize::from(strike.rare)] == strike.action
        });
        let Some(hit) = hit else { return false };
        let strike = self.plan.strikes.swap_remove(hit);
        self.say(|| format!("STRIKE {strike:?} at {action:?}"));
        self.facts.strikes += 1;
        match strike.pause {
            Some(long) => self.pause(id, long),
            None => self.crash(id),
        }
        true
    }

    /// What the end looks like.
    fn conclude(&mut self) -> Step {
        let verdict = crate::verdict::judge(self);
        for id in 0..2 {
            let state = self.hosts[id].pair.state();
            let alive = self.hosts[id].alive;
            let host = &self.hosts[id];
            let line = format!(
                "host {id}: alive {alive}, {state}, guest's turn at {:?}, it took until {}, {:?}",
                host.run_at, host.busy, host.guest
            );
            self.say(|| line);
        }
        self.facts.packets = self.god.observer.count();
        self.facts.doubled = self.god.observer.doubled();
        let live = self.hosts.iter().any(|host| host.alive && host.pair.state() == State::Protected);
        self.facts.protected += u64::from(live);
        verdict
    }
}

/// When the arbiter's client has something to do, by the host's clock.
fn host_deadline(host: &Host<'_>) -> Option<u64> {
    use ft::arbiter::Arbiter as _;
    host.client.next_deadline()
}
