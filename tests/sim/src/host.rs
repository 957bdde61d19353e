//! A simulated host: the protocol's core, what it asks the arbiter with, and a guest.

use std::collections::VecDeque;

use ft::arbiter::lock::{Client, Settings as LockSettings};
use ft::arbiter::record::VmId;
use ft::channel::Channel;
use ft::heartbeat::Beat;
use ft::keys::Incarnation;
use ft::lag::Lag;
use ft::outputs::Outputs;
use ft::pair::{Action, Event, Pair, Role, Settings, State};
use ft::side::Side;
use replay::log::block::BLOCK_MAX;
use replay::log::stream::WORKING_BYTES;
use replay::log::writer::BUFFER;
use replay::seed::Seed;

use crate::clock::Clock;
use crate::guest::{Arrival, Guest, Tape, Track};
use crate::plan::Plan;

/// Bytes for what has arrived of the log: little, so that it is full at times.
pub const RING: usize = BLOCK_MAX + 4096;
/// What arrives at a host that stands still, and waits on its cards: of more, the newest is lost.
pub const BACKLOG: usize = 48;
/// Arrivals for the guest that wait at most.
const ARRIVALS: usize = 16;

/// The name of the virtual machine.
pub const VM: &str = "sim";

/// The memory of one life of a host.
pub struct Set<'m> {
    /// Of a primary: the block that is being written, and the log buffer.
    pub buffer: &'m mut [u8],
    /// The log buffer.
    pub log: &'m mut [u8],
    /// Of a backup: what has arrived, and what is being read of it.
    pub ring: &'m mut [u8],
    /// Blocks and payloads.
    pub working: &'m mut [u8],
}

/// Bytes of an output: a packet's number and sum.
pub const PACKET: usize = 16;

/// The memory of four lives: two of each host.
pub struct Memory {
    lives: [[Vec<u8>; 5]; 4],
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// All that a simulation needs; it can be used for one after another.
    pub fn new() -> Self {
        let life =
            || [vec![0; BUFFER], vec![0; 64 * 1024], vec![0; RING], vec![0; WORKING_BYTES], vec![0; 1 << 14]];
        Self { lives: [life(), life(), life(), life()] }
    }

    /// The memory of each life.
    pub fn sets(&mut self, log: usize, outputs: usize) -> Vec<(Set<'_>, Outputs<'_>)> {
        self.lives
            .iter_mut()
            .map(|[buffer, all, ring, working, held]| {
                let set = Set { buffer, log: &mut all[..log], ring, working };
                (set, Outputs::new(&mut held[..outputs]))
            })
            .collect()
    }
}

/// What the host's processor does for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gear {
    /// Nothing: there is no guest, or it was stopped.
    Off,
    /// It leads and records.
    Leads,
    /// It follows the log.
    Follows,
    /// It follows what there is of it, to go live.
    Drains,
    /// It leads, and nobody follows.
    Alone,
}

/// What comes to a host.
#[derive(Clone, Debug)]
pub enum Incoming {
    /// A heartbeat, on the path of this index.
    Beat(usize, [u8; ft::heartbeat::BEAT]),
    /// A datagram from the disk.
    Disk(Vec<u8>),
    /// Bytes on this connection.
    Stream(u64),
    /// This connection stands; the peer's incarnation.
    Established(u64, Incarnation),
    /// This connection is gone.
    Hangup(u64),
    /// Something for the guest.
    Arrival(Arrival),
    /// The operator switches the virtual machine off.
    PowerOff,
    /// The time has come that the host waits for.
    Tick,
    /// The guest's turn.
    Run,
}

/// A host.
pub struct Host<'m> {
    /// 0 or 1.
    pub id: usize,
    /// It has power.
    pub alive: bool,
    /// It stands still until then.
    pub paused: Option<u64>,
    /// What waits on its cards meanwhile.
    pub backlog: VecDeque<Incoming>,
    /// What it was about to do.
    pub deferred: VecDeque<Action>,
    /// Events for its own core.
    pub events: VecDeque<Event>,
    /// Its clock.
    pub clock: Clock,
    /// This start of it.
    pub incarnation: Incarnation,
    /// The protocol's core.
    pub pair: Pair,
    /// The arbiter's client.
    pub client: Client,
    /// The memory for this life.
    pub set: Option<Set<'m>>,
    /// The guest.
    pub guest: Option<Guest>,
    /// What the host does for it.
    pub gear: Gear,
    /// What it records on.
    pub tape: Option<Tape<'m>>,
    /// What it follows.
    pub track: Option<Track<'m>>,
    /// What the guest has sent and has not left.
    pub outputs: Outputs<'m>,
    /// Of a backup: the position that was executed when the guest sent something last.
    pub open_at: u64,
    /// The number of the last packet that the guest has computed.
    pub computed: u64,
    /// What comes to the guest.
    pub arrived: VecDeque<Arrival>,
    /// The host's time at which the guest's clock was zero, or would have been.
    pub born: u64,
    /// Until when the guest's last turn takes.
    pub busy: u64,
    /// What it has taken, nanoseconds.
    pub turn: u64,
    /// When the block was closed last, by the host's clock.
    pub closed_at: u64,
    /// The position up to which the log was sent on this connection; none until the backup says where to go on.
    pub sent: Option<u64>,
    /// What the backup has acknowledged last on the connection.
    pub acknowledged: u64,
    /// What the peer has said that it has sent.
    pub peer_sent: u64,
    /// Of a primary: how much of its time the guest has.
    pub lag: Lag,
    /// Of a backup: when it has acknowledged last, by its clock, and that it had executed so much.
    pub acked_at: u64,
    /// See [`acked_at`](Self::acked_at).
    pub acked_executed: u64,
    /// The channel is closed for good.
    pub closed: bool,
    /// The real channel, if this world has it, and bytes that it has not taken.
    pub channel: Option<Box<Channel>>,
    /// See [`channel`](Self::channel).
    pub unread: Vec<u8>,
    /// The one start of the peer that is accepted.
    pub pinned: Option<Incarnation>,
    /// The log's end is wanted.
    pub ending: bool,
    /// When a tick is on its way.
    pub tick_at: Option<u64>,
    /// The guest's turn is on its way.
    pub run_at: Option<u64>,
    /// A step takes so many thousandths of its time.
    pub cost: u64,
    /// Actions so far: all, and those that are rare.
    pub actions: [u64; 2],
    /// The rest of this life was lost for good: no more is to be seen of it.
    pub lives: u64,
}

impl<'m> Host<'m> {
    /// A host that is switched on.
    pub fn new(plan: &Plan, id: usize, life: u64, now: u64, memory: (Set<'m>, Outputs<'m>)) -> Self {
        let (set, outputs) = memory;
        let side = if id == 0 { Side::A } else { Side::B };
        let clock = Clock::new(plan.offset[id], plan.drift[id]);
        let local = clock.at(now);
        let mut rng = Seed::new(plan.offset[id]).fork(life + 3);
        let incarnation = Incarnation(rng.next());
        let settings = Settings {
            role: if plan.first == id { Role::Primary } else { Role::Backup },
            generation: 1,
            paths: [true; 2],
            heartbeat_ns: plan.heartbeat,
            timeout_ns: plan.timeout,
            stall_ns: plan.stall,
            retry_ns: plan.timeout / 2,
        };
        let client = Client::new(LockSettings {
            vm: VmId::of(VM),
            side,
            nonce: incarnation,
            again_ns: plan.heartbeat / 2,
            give_up_ns: 2 * plan.timeout,
        });
        Self {
            id,
            alive: true,
            paused: None,
            backlog: VecDeque::new(),
            deferred: VecDeque::new(),
            events: VecDeque::new(),
            clock,
            incarnation,
            pair: Pair::new(settings, local),
            client,
            set: Some(set),
            guest: None,
            gear: Gear::Off,
            tape: None,
            track: None,
            outputs,
            open_at: 0,
            computed: 0,
            arrived: VecDeque::new(),
            born: 0,
            busy: 0,
            turn: 0,
            closed_at: local,
            sent: None,
            acknowledged: 0,
            peer_sent: 0,
            lag: Lag::new(plan.lag),
            acked_at: local,
            acked_executed: 0,
            closed: false,
            channel: if plan.sealed { crate::sealed::channel(id, incarnation, &mut rng) } else { None },
            unread: Vec::new(),
            pinned: None,
            ending: false,
            tick_at: None,
            run_at: None,
            cost: plan.cost[id],
            actions: [0; 2],
            lives: life,
        }
    }

    /// Whether it does anything now.
    pub const fn is_awake(&self) -> bool {
        self.alive && self.paused.is_none()
    }

    /// The guest's own time as the host would have it, at this moment of the host's clock.
    pub const fn guest_time(&self, local: u64) -> u64 {
        local.saturating_sub(self.born)
    }

    /// What it says in a heartbeat.
    pub fn beat(&mut self, status: ft::heartbeat::Status) -> Beat {
        let (sent, received, executed) = match (&self.tape, &mut self.track) {
            // A primary receives no log; it says there what has left.
            (Some(tape), _) => (tape.log.pushed(), self.pair.released(), 0),
            (None, Some(track)) => {
                let stream = track.stream();
                (0, stream.received(), stream.executed())
            }
            (None, None) => (0, 0, 0),
        };
        let virtual_ns = self.guest.as_ref().map_or(0, Guest::now);
        Beat { generation: self.pair.generation(), status, sent, received, executed, virtual_ns }
    }

    /// Something for the guest has arrived.
    pub fn take_arrival(&mut self, arrival: Arrival) {
        if matches!(self.gear, Gear::Leads | Gear::Alone) && self.arrived.len() < ARRIVALS {
            self.arrived.push_back(arrival);
        }
    }

    /// Whether its state is one in which the virtual machine goes on here.
    pub fn is_live(&self) -> bool {
        self.alive
            && match self.pair.state() {
                State::Solo => true,
                State::Protected => matches!(self.pair.role(), Role::Primary),
                _ => false,
            }
    }
}
