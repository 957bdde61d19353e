//! What a seed has in store: the two hosts, their networks, and what befalls them.

use ft::channel::{HANDSHAKE_NS, PAUSE_NS};
use replay::seed::Seed;
use toy::cpu::Silicon;

use crate::links::Weather;

/// A millisecond, nanoseconds.
pub const MS: u64 = 1_000_000;

/// What befalls the pair at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A host loses its power.
    Crash(usize),
    /// A host that has crashed is switched on again; it has nothing.
    Restart(usize),
    /// A host stands still for so long, nanoseconds, and goes on as if nothing had been.
    Pause(usize, u64),
    /// A host's clock jumps ahead by so much, nanoseconds.
    Jump(usize, u64),
    /// A host is slower from now on: a step takes so many thousandths of its time.
    Slow(usize, u64),
    /// Nothing passes from one host on a network for so long, nanoseconds.
    Cut(Net, usize, u64),
    /// The connection of the logging channel breaks.
    Reset,
    /// A host does not reach the disk for so long, nanoseconds.
    NoDisk(usize, u64),
    /// The operator switches the virtual machine off, at a host.
    PowerOff(usize),
}

/// A network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Net {
    /// Between the logging cards: the channel, and heartbeats.
    Logging,
    /// The guest's: its frames, and heartbeats.
    Guest,
}

/// What befalls a host in the middle of what it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strike {
    /// The host.
    pub host: usize,
    /// Before, or right after, it does what the protocol's core has told it the so many-th time.
    pub action: u64,
    /// Only actions that are not of every day count: no heartbeats, no releases.
    pub rare: bool,
    /// Before it.
    pub before: bool,
    /// What happens: it loses its power, or stands still for so long.
    pub pause: Option<u64>,
}

/// Everything that a seed decides.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Between two heartbeats, nanoseconds.
    pub heartbeat: u64,
    /// Silence after which the peer is suspected, nanoseconds.
    pub timeout: u64,
    /// How long the primary waits for acknowledgements, nanoseconds.
    pub stall: u64,
    /// The lag that the primary aims at, nanoseconds.
    pub lag: u64,
    /// The host that is primary first.
    pub first: usize,
    /// How the hosts' processors count.
    pub silicon: [Silicon; 2],
    /// Thousandths of its time that a step takes.
    pub cost: [u64; 2],
    /// Parts per million that their clocks are too fast.
    pub drift: [i64; 2],
    /// What their clocks show at first.
    pub offset: [u64; 2],
    /// When they are switched on.
    pub start: [u64; 2],
    /// How much slower the guest's clock is than the toy's own.
    pub slower: u32,
    /// Bytes of the log buffer.
    pub log: usize,
    /// Bytes of the queue of outputs.
    pub outputs: usize,
    /// The networks.
    pub logging: Weather,
    /// The guest's network.
    pub guest: Weather,
    /// The way to the disk, and back.
    pub disk: Weather,
    /// Between two things that come to the guest, on average, nanoseconds.
    pub arrivals: u64,
    /// The channel is the real one, with its cryptography.
    pub sealed: bool,
    /// What happens when.
    pub faults: Vec<(u64, Fault)>,
    /// What happens in the middle of something.
    pub strikes: Vec<Strike>,
    /// From here on nothing goes wrong any more.
    pub calm: u64,
    /// The end.
    pub end: u64,
}

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64) -> Self {
        let mut rng = Seed::new(seed).fork(7);
        let r = &mut rng;
        let heartbeat = r.between(2, 6) * MS;
        let timeout = heartbeat * r.between(4, 8);
        let stall = timeout * r.between(2, 5);
        let evil = r.below(8);
        let calm = timeout * r.between(5, 12);
        let mut plan = Self {
            heartbeat,
            timeout,
            stall,
            lag: r.between(4, 20) * MS,
            first: r.below(2) as usize,
            silicon: [silicon(r), silicon(r)],
            cost: [cost(r, evil), cost(r, evil)],
            drift: [drift(r), drift(r)],
            offset: [r.below(1 << 40), r.below(1 << 40)],
            start: [r.below(5 * MS), r.below(5 * MS)],
            slower: r.between(150, 400) as u32,
            log: 1024 * r.between(6, 64) as usize,
            outputs: r.between(300, 6000) as usize,
            logging: weather(r, evil),
            guest: weather(r, evil),
            disk: weather(r, evil),
            arrivals: r.between(1, 8) * MS,
            sealed: r.one_in(64),
            faults: Vec::new(),
            strikes: Vec::new(),
            calm,
            end: calm + stall + 6 * timeout + 40 * MS,
        };
        if plan.sealed {
            // A handshake that a fault has cut short is given up only after its time, and begins again only after its pause.
            plan.end += HANDSHAKE_NS + 2 * PAUSE_NS;
        }
        let count = match evil {
            0 => 0,
            1..=3 => 1,
            4 | 5 => r.between(1, 3),
            _ => r.between(2, 8),
        };
        for _ in 0..count {
            plan.misfortune(r);
        }
        plan.faults.sort_by_key(|(at, _)| *at);
        plan
    }

    fn misfortune(&mut self, r: &mut Seed) {
        let host = r.below(2) as usize;
        let at = r.below(self.calm);
        let rest = self.calm - at;
        // Short ones, some just at the time-out, some that last.
        let long = match r.below(4) {
            0 => r.below(self.timeout),
            1 => self.timeout + r.below(self.heartbeat),
            2 => r.below(4 * self.timeout),
            _ => rest,
        };
        let fault = match r.below(20) {
            0..=3 => Fault::Crash(host),
            4 => {
                self.faults.push((at, Fault::Crash(host)));
                self.faults.push((at + r.below(rest), Fault::Restart(host)));
                return;
            }
            5..=7 => Fault::Pause(host, long.min(rest)),
            8 => Fault::Jump(host, long),
            9 => Fault::Slow(host, r.between(500, 6000)),
            10..=13 => {
                let net = if r.one_in(3) { Net::Guest } else { Net::Logging };
                if r.one_in(2) {
                    self.faults.push((at, Fault::Cut(net, 1 - host, long)));
                }
                if r.one_in(3) {
                    let other = if net == Net::Guest { Net::Logging } else { Net::Guest };
                    self.faults.push((at, Fault::Cut(other, host, long)));
                    self.faults.push((at, Fault::Cut(other, 1 - host, long)));
                }
                Fault::Cut(net, host, long)
            }
            14 => Fault::Reset,
            15 => Fault::NoDisk(host, long),
            16 if r.one_in(2) => Fault::PowerOff(host),
            _ => {
                let rare = !r.one_in(4);
                let action = if rare { r.between(1, 14) } else { r.between(1, 400) };
                let pause = r.one_in(3).then_some(long.min(2 * self.timeout));
                self.strikes.push(Strike { host, action, rare, before: r.one_in(2), pause });
                return;
            }
        };
        self.faults.push((at, fault));
    }
}

fn silicon(r: &mut Seed) -> Silicon {
    let skid = [(0, 0), (5, 40), (64, 128)][r.below(3) as usize];
    Silicon { skid, overcounts: 0 }
}

fn cost(r: &mut Seed, evil: u64) -> u64 {
    if evil >= 4 && r.one_in(4) { r.between(1000, 3000) } else { r.between(300, 1000) }
}

fn drift(r: &mut Seed) -> i64 {
    let most = if r.one_in(8) { 60_000 } else { 200 };
    r.between(0, 2 * most) as i64 - most as i64
}

fn weather(r: &mut Seed, evil: u64) -> Weather {
    let low = r.between(5_000, 100_000);
    let fair = Weather { delay: (low, low + r.below(100_000)), ..Weather::FAIR };
    if evil < 4 || r.one_in(3) {
        return fair;
    }
    let often = |r: &mut Seed| if r.one_in(2) { 0 } else { r.between(2, 50) };
    Weather { loss: often(r), doubled: often(r), late: (often(r), r.below(20 * MS)), ..fair }
}
