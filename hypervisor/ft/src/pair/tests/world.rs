//! Two hosts, an arbiter and a network with faults: at most one of them is ever live. In steps of 5 ms; positions stand for the log.
//! (The simulator in `tests/sim` has the whole system; this is the state machine's own, small enough to read a failure.)

use super::*;
use proptest::prelude::*;

const STEP: u64 = 5;
/// Faults come before, and have passed by, this moment; then the pair has the rest to settle. Milliseconds.
const CALM: u64 = 3000;
const END: u64 = 9000;

/// What goes wrong, at a host or on the way from it, until when.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Crash,
    Pause,
    NoBeats,
    NoChannel,
    NoDisk,
    PowerOff,
}

type Faults = Vec<(u64, u64, usize, Fault)>;

/// What is on its way to a host.
#[derive(Clone, Copy, Debug)]
enum Parcel {
    Event(Event),
    /// The log up to a position, and where it ends, if it has an end.
    Log(u64, Option<u64>),
}

struct Node {
    pair: Pair,
    /// What has arrived, or will: when.
    inbox: Vec<(u64, Parcel)>,
    position: u64,
    end: Option<u64>,
    draining: Option<u64>,
    live: bool,
    crashed: bool,
    released: u64,
}

struct World {
    nodes: [Node; 2],
    now: u64,
    faults: Faults,
    connected: bool,
    owner: Option<usize>,
    armed: bool,
    off: bool,
}

impl World {
    fn new(faults: Faults) -> Self {
        let nodes = [Role::Primary, Role::Backup].map(|role| Node {
            pair: Pair::new(Settings { stall_ns: 1000 * MS, ..settings(role) }, 0),
            inbox: Vec::new(),
            position: 0,
            end: None,
            draining: None,
            live: false,
            crashed: false,
            released: 0,
        });
        Self { nodes, now: 0, faults, connected: false, owner: None, armed: false, off: false }
    }

    fn fails(&self, host: usize, fault: Fault) -> bool {
        let now = self.now;
        self.faults.iter().any(|&(from, to, at, what)| at == host && what == fault && from <= now && now < to)
    }

    fn send(&mut self, to: usize, delay: u64, parcel: Parcel) {
        self.nodes[to].inbox.push((self.now + delay, parcel));
    }

    fn tell(&mut self, host: usize, event: Event) {
        let mut actions = Vec::new();
        self.nodes[host].pair.step(event, self.now * MS, &mut |action| actions.push(action));
        for action in actions {
            self.act(host, action);
        }
    }

    fn act(&mut self, host: usize, action: Action) {
        let peer = 1 - host;
        match action {
            Action::SendBeat { path, status } if !self.fails(host, Fault::NoBeats) => {
                let event = Event::Heard { path, generation: 3, status };
                self.send(peer, 1 + self.now % 7, Parcel::Event(event));
            }
            Action::SendArmed { generation } if self.connected => {
                self.send(peer, 2, Parcel::Event(Event::Armed(generation)));
            }
            Action::SendGoodbye(why) if self.connected => {
                self.send(peer, 2, Parcel::Event(Event::Goodbye(why)));
            }
            Action::CloseChannel => self.disconnect(),
            Action::Ask(ask) => {
                let answer = self.decide(host, ask);
                self.send(host, 3 + self.now % 5, Parcel::Event(Event::Answer(answer)));
            }
            Action::ReleaseTo(position) => {
                let other = &self.nodes[peer];
                assert!(position <= other.position, "released what the backup does not have");
                assert!(other.pair.state() != State::Solo || other.live && position <= other.released);
                self.nodes[host].released = position;
            }
            Action::ReleaseAll | Action::GoLive => {
                assert!(!self.nodes[peer].live && self.owner == Some(host), "two are live");
                let node = &mut self.nodes[host];
                node.live = true;
                if action == Action::GoLive {
                    assert!(!self.off, "live after the power was switched off");
                    node.released = node.position;
                }
            }
            Action::Drain => self.nodes[host].draining = Some(self.now + 10 + self.now % 60),
            Action::EndLog => {
                let node = &mut self.nodes[host];
                node.position += 7;
                node.end = Some(node.position);
                let position = node.position;
                self.tell(host, Event::LogClosed(position));
            }
            _ => {}
        }
        if host == 0 && self.nodes[0].pair.state() == State::Ended {
            self.off = true;
        }
    }

    /// The arbiter: half of what cannot be answered was done all the same.
    fn decide(&mut self, host: usize, ask: Ask) -> Answer {
        let deaf = self.fails(host, Fault::NoDisk);
        if deaf && self.now.is_multiple_of(2) {
            return if matches!(ask, Ask::ReadBack { .. }) { Answer::Unreachable } else { Answer::Unknown };
        }
        let owner = self.owner;
        let answer = match ask {
            Ask::Arm { .. } => {
                self.armed = true;
                Answer::Armed
            }
            Ask::Contend { .. } => {
                assert!(self.armed);
                self.owner = owner.or(Some(host));
                if self.owner == Some(host) { Answer::Won } else { Answer::Lost }
            }
            Ask::ReadBack { .. } => match owner {
                None => Answer::Free,
                Some(owner) if owner == host => Answer::Won,
                Some(_) => Answer::Lost,
            },
            Ask::Fence { .. } => Answer::Fenced,
        };
        if deaf { Answer::Unknown } else { answer }
    }

    fn disconnect(&mut self) {
        if !core::mem::replace(&mut self.connected, false) {
            return;
        }
        for host in 0..2 {
            self.send(host, 1, Parcel::Event(Event::ChannelDown));
        }
    }

    fn wants_channel(&self, host: usize) -> bool {
        let node = &self.nodes[host];
        let state = node.pair.state();
        !node.crashed && matches!(state, State::Joining | State::Arming | State::Protected | State::Ending)
    }

    fn look_at_channel(&mut self) {
        let works = (0..2).all(|host| self.wants_channel(host) && !self.fails(host, Fault::NoChannel));
        if !works {
            self.disconnect();
        } else if !self.connected && self.now.is_multiple_of(40) {
            self.connected = true;
            for host in 0..2 {
                let peer = Incarnation(90 + (1 - host) as u64);
                self.send(host, 1, Parcel::Event(Event::ChannelUp { peer }));
            }
        }
    }

    /// What has come to a host, and what it does by itself.
    fn step(&mut self, host: usize) {
        let now = self.now;
        let (come, rest) =
            core::mem::take(&mut self.nodes[host].inbox).into_iter().partition(|(at, _)| *at <= now);
        self.nodes[host].inbox = rest;
        let come: Vec<(u64, Parcel)> = come;
        for (_, parcel) in come {
            match parcel {
                Parcel::Event(event) => self.tell(host, event),
                Parcel::Log(position, end) => self.take_log(host, position, end),
            }
        }
        let node = &mut self.nodes[host];
        let following = node.pair.role() == Role::Backup;
        if following && node.end == Some(node.position) && node.pair.state() == State::Protected {
            self.tell(host, Event::LogEnded);
        } else if node.draining.is_some_and(|at| at <= now) {
            node.draining = None;
            let position = node.position;
            let ended = node.end == Some(position);
            self.tell(host, if ended { Event::LogEnded } else { Event::Drained { position } });
        } else if !following && matches!(node.pair.state(), State::Protected | State::Ending) {
            self.lead(host);
        }
        if now.is_multiple_of(STEP) {
            self.tell(host, Event::Tick);
        }
    }

    fn lead(&mut self, host: usize) {
        let node = &mut self.nodes[host];
        if node.pair.state() == State::Protected {
            node.position += 10;
        }
        let (position, end) = (node.position, node.end);
        self.tell(host, Event::Sent(position));
        if self.connected {
            self.send(1 - host, 1 + self.now % 3, Parcel::Log(position, end));
        }
    }

    fn take_log(&mut self, host: usize, position: u64, end: Option<u64>) {
        let node = &mut self.nodes[host];
        if node.pair.state() != State::Protected || node.pair.role() != Role::Backup {
            return;
        }
        // The channel keeps the order; this world's delays do not.
        node.position = node.position.max(position);
        node.end = node.end.or(end);
        let received = node.position;
        if self.connected {
            self.send(
                1 - host,
                1,
                Parcel::Event(Event::Acked(Ack { received, executed: 0, executed_ns: 0 })),
            );
        }
        self.tell(host, Event::ChannelHeard);
    }

    fn run(&mut self) {
        while self.now < END {
            self.now += STEP;
            for host in 0..2 {
                self.nodes[host].crashed |= self.fails(host, Fault::Crash);
            }
            let offs =
                self.faults.iter().filter(|(from, _, _, what)| *what == Fault::PowerOff && *from == self.now);
            let off = offs.map(|fault| fault.2).next();
            self.look_at_channel();
            for host in 0..2 {
                if self.nodes[host].crashed || self.fails(host, Fault::Pause) {
                    continue;
                }
                if off == Some(host) {
                    self.tell(host, Event::Order(Order::PowerOff));
                }
                self.step(host);
            }
        }
    }

    /// When faults have passed, somebody is live, unless who was it has died or the power was switched off.
    fn check_end(&self) {
        let states = self.nodes.each_ref().map(|node| node.pair.state());
        let crashed = self.nodes.each_ref().map(|node| node.crashed);
        let solo = |host: usize| !crashed[host] && states[host] == State::Solo;
        let well = match crashed {
            [true, true] => true,
            [false, false] => {
                self.off
                    || states.contains(&State::Ended)
                    || states == [State::Protected; 2]
                    || solo(0) != solo(1)
            }
            [a, _] => {
                let left = usize::from(a);
                let other_won = self.owner == Some(1 - left);
                let idle = matches!(states[left], State::Joining | State::Arming | State::Ended);
                solo(left) || idle || other_won && states[left] == State::Halted(Halted::Lost)
            }
        };
        assert!(well, "{states:?}, crashed {crashed:?}, owner {:?}", self.owner);
    }
}

fn any_faults() -> impl Strategy<Value = Faults> {
    let kinds =
        [Fault::Crash, Fault::Pause, Fault::NoBeats, Fault::NoChannel, Fault::NoDisk, Fault::PowerOff];
    let length = prop_oneof![1u64..400, 250u64..420, 1u64..2000];
    let fault = (0..CALM / STEP, length, 0usize..2, proptest::sample::select(kinds.to_vec()));
    proptest::collection::vec(fault, 0..6).prop_map(|faults| {
        faults
            .into_iter()
            .map(|(from, length, host, what)| (from * STEP, from * STEP + length, host, what))
            .collect()
    })
}

#[test]
fn without_faults_they_stay_protected() {
    let mut world = World::new(vec![]);
    world.run();
    assert_eq!(world.nodes.each_ref().map(|node| node.pair.state()), [State::Protected; 2]);
    assert!(world.nodes[0].released > END && world.owner.is_none());
}

#[test]
fn each_fault_leads_where_it_should() {
    let after = |what: Fault, host: usize, ms: u64| {
        let mut world = World::new(vec![(500, 500 + ms, host, what)]);
        world.run();
        world.check_end();
        world.nodes.each_ref().map(|node| (node.crashed, node.pair.state()))
    };
    let lost = State::Halted(Halted::Lost);
    assert_eq!(after(Fault::Crash, 0, 1)[1], (false, State::Solo));
    assert_eq!(after(Fault::Crash, 1, 1)[0], (false, State::Solo));
    assert_eq!(after(Fault::Pause, 0, 1000), [(false, lost), (false, State::Solo)]);
    assert_eq!(after(Fault::Pause, 1, 1000), [(false, State::Solo), (false, lost)]);
    assert_eq!(after(Fault::Pause, 0, 200), [(false, State::Protected); 2]);
    assert_eq!(after(Fault::NoChannel, 0, 5000), [(false, State::Solo), (false, lost)]);
    assert_eq!(after(Fault::NoBeats, 0, 5000), [(false, State::Protected); 2], "the log is heard");
    assert_eq!(after(Fault::PowerOff, 0, 1), [(false, State::Ended); 2]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn at_most_one_is_live(faults in any_faults()) {
        let mut world = World::new(faults);
        world.run();
        world.check_end();
    }
}
