//! The station that pings: an ICMP echo request at fixed intervals, so that the time without an answer is the guest's, and no
//! protocol's patience.

use std::sync::{Arc, Mutex, PoisonError};

use crate::switch::time::Ns;
use crate::switch::wire::Frame;
use crate::switch::world::World;

/// How often the guest's Ethernet address is asked for, until somebody answers.
const ASK_EVERY: Ns = 100_000_000;
/// The identifier of the requests.
const IDENTIFIER: u16 = 0x4c73;
/// Bytes of a request's IPv4 packet: two headers and 56 bytes, as `ping` sends.
const PACKET: usize = 84;
/// How long a request may be under way before its number is used again.
const REMEMBERED: usize = 1 << 16;
const ARP: [u8; 2] = [8, 6];
const IPV4: [u8; 2] = [8, 0];

/// Whom to ping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PingConfig {
    /// The station's Ethernet address.
    pub mac: [u8; 6],
    /// Its address.
    pub ip: [u8; 4],
    /// The guest's address.
    pub to: [u8; 4],
    /// Emulated time from one request to the next, ns.
    pub every: Ns,
}

impl Default for PingConfig {
    /// From 10.0.2.4 to 10.0.2.15, every 5 ms.
    fn default() -> Self {
        PingConfig {
            mac: [0x52, 0x54, 0, 0x6c, 0x73, 0xfa],
            ip: [10, 0, 2, 4],
            to: [10, 0, 2, 15],
            every: 5_000_000,
        }
    }
}

/// What came of the requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pinged {
    /// Requests sent.
    pub sent: u64,
    /// Answers that came twice.
    pub doubled: u64,
    /// Of each answer, in order: when it came, and how long after its request, ns.
    pub answers: Vec<(Ns, Ns)>,
}

impl Pinged {
    /// The longest time between two answers of which the second came at `from` or later, ns.
    pub fn gap(&self, from: Ns) -> Option<Ns> {
        let pairs = self.answers.windows(2).filter(|pair| pair[1].0 >= from);
        pairs.map(|pair| pair[1].0 - pair[0].0).max()
    }

    /// The round trip that so many per mille of the answered requests did not exceed, ns.
    pub fn round_trip(&self, per_mille: usize) -> Ns {
        let mut all: Vec<Ns> = self.answers.iter().map(|(_, took)| *took).collect();
        all.sort_unstable();
        all.get((all.len() * per_mille / 1000).min(all.len().saturating_sub(1))).copied().unwrap_or(0)
    }

    /// The figures, as words for programs and people.
    pub fn words(&self) -> String {
        format!(
            "sent={} answered={} doubled={} gap-ns={} p50-ns={} p99-ns={} max-ns={}",
            self.sent,
            self.answers.len(),
            self.doubled,
            self.gap(0).unwrap_or(0),
            self.round_trip(500),
            self.round_trip(990),
            self.round_trip(1000)
        )
    }
}

/// What came of the requests, while they are sent and after.
#[derive(Clone, Debug, Default)]
pub struct Pings(Arc<Mutex<Pinged>>);

impl Pings {
    /// As it is now.
    pub fn get(&self) -> Pinged {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set<T>(&self, change: impl FnOnce(&mut Pinged) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The station.
pub struct Ping {
    config: PingConfig,
    /// The guest's Ethernet address, once it has told it.
    peer: Option<[u8; 6]>,
    next: Ns,
    number: u16,
    /// When the request of each number was sent, while it is not answered.
    waiting: Vec<Option<Ns>>,
    pings: Pings,
}

impl Ping {
    /// The station as it is at time 0.
    pub fn new(config: &PingConfig) -> Self {
        let (waiting, pings) = (vec![None; REMEMBERED], Pings::default());
        Ping { config: config.clone(), peer: None, next: 0, number: 0, waiting, pings }
    }

    /// What comes of the requests; lasts longer than the station.
    pub fn pings(&self) -> Pings {
        self.pings.clone()
    }

    fn arp(&self, operation: u8, to: [u8; 6], asked: [u8; 4]) -> Vec<u8> {
        let target = if operation == 1 { [0; 6] } else { to };
        let mut frame = [&to[..], &self.config.mac, &ARP, &[0, 1, 8, 0, 6, 4, 0, operation]].concat();
        frame.extend([&self.config.mac[..], &self.config.ip, &target, &asked].concat());
        frame.resize(60, 0);
        frame
    }

    fn request(&self, to: [u8; 6]) -> Vec<u8> {
        let mut packet = vec![0; PACKET];
        packet[..10].copy_from_slice(&[0x45, 0, 0, PACKET as u8, 0, 0, 0, 0, 64, 1]);
        packet[12..16].copy_from_slice(&self.config.ip);
        packet[16..20].copy_from_slice(&self.config.to);
        let sum = checksum(&packet[..20]);
        packet[10..12].copy_from_slice(&sum);
        packet[20] = 8;
        packet[24..26].copy_from_slice(&IDENTIFIER.to_be_bytes());
        packet[26..28].copy_from_slice(&self.number.to_be_bytes());
        let sum = checksum(&packet[20..]);
        packet[22..24].copy_from_slice(&sum);
        [&to[..], &self.config.mac, &IPV4, &packet].concat()
    }

    fn hear_arp(&mut self, now: Ns, arp: &[u8], send: &mut Vec<Vec<u8>>) {
        let Some((sender, target)) = arp.get(8..18).zip(arp.get(24..28)) else { return };
        let mut mac = [0; 6];
        mac.copy_from_slice(&sender[..6]);
        if sender[6..] == self.config.to && mac[0] & 1 == 0 {
            // An answer, a question, or an announcement: where the guest is now.
            if self.peer.replace(mac).is_none() {
                self.next = now;
            }
        }
        if arp[..8] == [0, 1, 8, 0, 6, 4, 0, 1] && target == self.config.ip {
            let mut ip = [0; 4];
            ip.copy_from_slice(&sender[6..]);
            send.push(self.arp(2, mac, ip));
        }
    }

    fn hear_packet(&mut self, now: Ns, packet: &[u8]) {
        // A plain header, ICMP, from the guest, an echo reply with our identifier.
        let ours =
            packet.len() >= 28 && packet[0] == 0x45 && packet[9] == 1 && packet[12..16] == self.config.to;
        if !ours || packet[20] != 0 || packet[24..26] != IDENTIFIER.to_be_bytes() {
            return;
        }
        let number = u16::from_be_bytes([packet[26], packet[27]]);
        match self.waiting[usize::from(number)].take() {
            Some(sent) => self.pings.set(|pinged| pinged.answers.push((now, now - sent))),
            None => self.pings.set(|pinged| pinged.doubled += 1),
        }
    }
}

/// The Internet checksum (RFC 1071) of bytes whose own checksum field is 0.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words =
        bytes.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w.get(1).copied().unwrap_or(0)])));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    (!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes()
}

impl World for Ping {
    fn frame(&mut self, now: Ns, frame: &Frame, send: &mut Vec<Vec<u8>>) {
        let (Some(kind), Some(rest)) = (frame.get(12..14), frame.get(14..)) else { return };
        match kind {
            kind if kind == ARP => self.hear_arp(now, rest, send),
            kind if kind == IPV4 && frame[..6] == self.config.mac => self.hear_packet(now, rest),
            _ => {}
        }
    }

    fn timer(&mut self, now: Ns, send: &mut Vec<Vec<u8>>) {
        let Some(peer) = self.peer else {
            send.push(self.arp(1, [0xff; 6], self.config.to));
            self.next = now + ASK_EVERY;
            return;
        };
        send.push(self.request(peer));
        self.waiting[usize::from(self.number)] = Some(now);
        self.number = self.number.wrapping_add(1);
        self.pings.set(|pinged| pinged.sent += 1);
        self.next = now + self.config.every.max(1);
    }

    fn next_timer(&self) -> Option<Ns> {
        Some(self.next)
    }

    fn summary(&self) -> String {
        self.pings.get().words()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::world::Responder;
    use super::*;

    const GUEST: [u8; 6] = [2, 0, 0, 0, 0, 1];

    /// The station and a responder 100 us apart, until `end`; the responder is away in `away`, and is there from `start` on.
    fn run(start: Ns, away: std::ops::Range<Ns>, end: Ns) -> Pinged {
        let config = PingConfig::default();
        let (mut ping, mut guest) = (Ping::new(&config), Responder::new(GUEST, config.to));
        let mut back: Vec<(Ns, Vec<u8>)> = Vec::new();
        let mut now = 0;
        while now < end {
            let mut sent = Vec::new();
            let (due, later) = std::mem::take(&mut back).into_iter().partition(|(at, _)| *at <= now);
            back = later;
            for (_, frame) in due {
                ping.frame(now, &Frame::from(frame), &mut sent);
            }
            if ping.next_timer().unwrap() <= now {
                ping.timer(now, &mut sent);
            }
            for frame in sent.into_iter().filter(|_| now >= start && !away.contains(&now)) {
                let mut answers = Vec::new();
                guest.frame(now, &Frame::from(frame), &mut answers);
                back.extend(answers.into_iter().map(|answer| (now + 100_000, answer)));
            }
            now += 50_000;
        }
        ping.pings().get()
    }

    #[test]
    fn every_request_is_answered_once() {
        let seen = run(350_000_000, 0..0, 1_000_000_000);
        assert!((118..=122).contains(&seen.sent) && seen.sent - seen.answers.len() as u64 <= 1, "{seen:?}");
        assert_eq!((seen.doubled, seen.round_trip(500), seen.gap(0)), (0, 100_000, Some(5_000_000)));
    }

    #[test]
    fn the_longest_silence_is_told() {
        let seen = run(0, 400_000_000..733_000_000, 1_000_000_000);
        let gap = seen.gap(400_000_000).unwrap();
        assert!((333_000_000..345_000_000).contains(&gap), "{gap}");
        assert_eq!(seen.gap(740_000_000), Some(5_000_000));
        assert_eq!(seen.gap(2_000_000_000), None);
    }

    #[test]
    fn packets_are_whole_and_strangers_are_not_heard() {
        let mut ping = Ping::new(&PingConfig::default());
        let request = ping.request(GUEST);
        assert_eq!(checksum(&request[14..34]), [0, 0]);
        assert_eq!(checksum(&request[34..]), [0, 0]);
        let mut send = Vec::new();
        for cut in 14..42 {
            ping.frame(5, &Frame::from(request[..cut].to_vec()), &mut send);
        }
        let theirs = [&PingConfig::default().mac[..], &GUEST, &IPV4, &request[14..]].concat();
        ping.frame(5, &Frame::from(theirs), &mut send);
        assert!(send.is_empty() && ping.pings().get() == Pinged::default());
    }
}
