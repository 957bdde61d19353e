//! Heartbeats on both paths: sealed, numbered, and counted.

use ft::datagram::{Arrived, Ends, FRAME, Wire};
use ft::heartbeat::Beat;
use ft::keys::{Incarnation, Keys};
use ft::seal::{Opener, SEALED, Sealer, Seen};
use ft::side::{PATHS, Path, Side};
use hal::MacAddress;
use heapless::Deque;
use vm_config::Pair;

/// Heartbeats from the guest's card that wait to be looked at, at most.
const QUEUE: usize = 8;

/// The heartbeats of one host.
pub struct Beats {
    keys: Keys,
    side: Side,
    own: Incarnation,
    /// For the peer's incarnation; none until it is known.
    seals: Option<[(Sealer, Opener); PATHS]>,
    /// The frames on the guest's card; none if there is no address for them.
    frames: Option<Wire>,
    arrived: Deque<[u8; SEALED], QUEUE>,
    sent: [u64; PATHS],
}

impl Beats {
    /// None are sent before the peer is known.
    pub fn new(pair: &Pair, keys: Keys, side: Side, own: Incarnation, card: Option<MacAddress>) -> Self {
        let [us, peer] = [side, side.other()].map(|side| pair.hosts[side.index()].guest_address);
        let ends = card.zip(us).zip(peer).map(|((mac, us), peer)| Ends {
            mac,
            address: us.ip,
            peer_address: peer.ip,
            port: pair.beat_port,
        });
        let frames = ends.map(Wire::new);
        Self { keys, side, own, seals: None, frames, arrived: Deque::new(), sent: [0; PATHS] }
    }

    /// Whether there is a path over the guest's card.
    pub const fn has_guest_path(&self) -> bool {
        self.frames.is_some()
    }

    /// The peer is this start of the other host.
    pub fn meet(&mut self, peer: Incarnation) {
        let starts = match self.side {
            Side::A => [self.own, peer],
            Side::B => [peer, self.own],
        };
        self.seals = Some(Path::ALL.map(|path| {
            (
                Sealer::new(&self.keys, self.side, path, starts),
                Opener::new(&self.keys, self.side.other(), path, starts),
            )
        }));
    }

    /// A heartbeat as a datagram for the logging card.
    pub fn datagram(&mut self, beat: &Beat) -> Option<[u8; SEALED]> {
        self.seal(Path::Logging, beat)
    }

    /// A heartbeat as a frame for the guest's card.
    pub fn frame(&mut self, beat: &Beat) -> Option<[u8; FRAME]> {
        let wire = self.frames?;
        self.seal(Path::Guest, beat).map(|sealed| wire.build(&sealed))
    }

    fn seal(&mut self, path: Path, beat: &Beat) -> Option<[u8; SEALED]> {
        let (sealer, _) = &mut self.seals.as_mut()?[path.index()];
        self.sent[path.index()] += 1;
        sealer.seal(beat)
    }

    /// Opens what has come to the logging card.
    pub fn open(&mut self, datagram: &[u8]) -> Option<Beat> {
        self.seals.as_mut()?[Path::Logging.index()].1.open(datagram)
    }

    /// Keeps a frame from the guest's card if it is a heartbeat for this host: then it is nothing for the guest.
    pub fn take(&mut self, frame: &[u8]) -> bool {
        let Some(wire) = &self.frames else { return false };
        if !wire.is_ours(frame) {
            return false;
        }
        if let Some(Arrived { datagram, .. }) = wire.parse(frame)
            && let Ok(datagram) = datagram.try_into()
        {
            // Of more than fit, the newest are lost.
            let _ = self.arrived.push_back(datagram);
        }
        true
    }

    /// The next heartbeat that has come to the guest's card.
    pub fn next(&mut self) -> Option<Beat> {
        while let Some(datagram) = self.arrived.pop_front() {
            let Some(seals) = &mut self.seals else { continue };
            // The peer's MAC is not learned: this host's card lets only the guest's frames through, and those to everybody.
            if let Some(beat) = seals[Path::Guest.index()].1.open(&datagram) {
                return Some(beat);
            }
        }
        None
    }

    /// What was sent and seen on a path.
    pub fn counters(&self, path: Path) -> (u64, Seen) {
        let seen = self.seals.as_ref().map(|seals| seals[path.index()].1.seen());
        (self.sent[path.index()], seen.unwrap_or_default())
    }
}
