//! What a capture of the lock-step network says: which TCP and UDP bytes went which way, and when.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::switch::time::Ns;

/// Bytes before the packets of a capture, and before each of them (see [`crate::switch::pcap`]).
const HEAD: usize = 24;
const RECORD: usize = 16;
/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// EtherType of IPv4, protocols in it.
const IPV4: [u8; 2] = [8, 0];
const TCP: u8 = 6;
const UDP: u8 = 17;
/// What a frame occupies on a cable beside its own bytes: preamble, FCS, gap (IEEE 802.3), and the shortest one.
const AROUND: usize = 24;
const SHORTEST: usize = 60;

/// One frame with IPv4 in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// When it passed the switch, ns.
    pub at: Ns,
    /// Bytes of the frame.
    pub length: usize,
    /// The addresses of sender and receiver.
    pub from: [u8; 4],
    /// The receiver.
    pub to: [u8; 4],
    /// What is in it.
    pub what: What,
}

/// What is in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// TCP: the ports, and bytes of payload.
    Tcp {
        /// The sender's and the receiver's port.
        ports: [u16; 2],
        /// Bytes of payload.
        payload: usize,
    },
    /// UDP.
    Udp,
    /// Something else.
    Other,
}

/// The packets of a capture, in their order.
///
/// # Errors
/// When the file cannot be read or is none of ours.
pub fn read(file: &Path) -> Result<Vec<Packet>> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    ensure!(bytes.len() >= HEAD, "{} is no capture", file.display());
    Ok(packets(&bytes[HEAD..]))
}

/// The packets; a last one that is cut off is left out.
fn packets(mut bytes: &[u8]) -> Vec<Packet> {
    let mut all = Vec::new();
    while bytes.len() >= RECORD {
        let word = |n: usize| u32::from_le_bytes(bytes[4 * n..][..4].try_into().unwrap_or_default());
        let at = Ns::from(word(0)) * 1_000_000_000 + Ns::from(word(1));
        let length = word(2) as usize;
        let Some(frame) = bytes.get(RECORD..RECORD + length) else { break };
        all.extend(packet(at, frame));
        bytes = &bytes[RECORD + length..];
    }
    all
}

fn packet(at: Ns, frame: &[u8]) -> Option<Packet> {
    if frame.get(12..14)? != IPV4 {
        return None;
    }
    let ip = &frame[ETHERNET..];
    let head = usize::from(ip.first()? & 15) * 4;
    let all = usize::from(u16::from_be_bytes([*ip.get(2)?, *ip.get(3)?]));
    let four = |at: usize| ip.get(at..at + 4)?.try_into().ok();
    let port = |at: usize| Some(u16::from_be_bytes([*ip.get(head + at)?, *ip.get(head + at + 1)?]));
    let what = match *ip.get(9)? {
        TCP => {
            let data = usize::from(ip.get(head + 12)? >> 4) * 4;
            let payload = all.saturating_sub(head + data);
            What::Tcp { ports: [port(0)?, port(2)?], payload }
        }
        UDP => What::Udp,
        _ => What::Other,
    };
    Some(Packet { at, length: frame.len(), from: four(12)?, to: four(16)?, what })
}

/// A stream's payload per second: of all that went to or from a port, in the direction that carried more. `None` without two
/// packets of payload. A segment that was sent again counts in the time, not in the bytes: those are the caller's.
pub fn rate(packets: &[Packet], port: u16, bytes: u64) -> Option<f64> {
    let mut ways: BTreeMap<[u8; 4], (usize, Ns, Ns)> = BTreeMap::new();
    for packet in packets {
        let What::Tcp { ports, payload } = packet.what else { continue };
        if payload == 0 || !ports.contains(&port) {
            continue;
        }
        let way = ways.entry(packet.from).or_insert((0, packet.at, packet.at));
        (way.0, way.2) = (way.0 + payload, packet.at);
    }
    let (_, first, last) = ways.into_values().max()?;
    (last > first).then(|| bytes as f64 / ((last - first) as f64 / 1e9))
}

/// What passed on a network between two hosts in a while.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Traffic {
    /// Frames with TCP from the first host to the second, their bytes, and the payload's.
    pub there: [usize; 3],
    /// The same the other way.
    pub back: [usize; 3],
    /// Bytes of frames with UDP, both ways.
    pub udp: usize,
    /// Seconds.
    pub seconds: f64,
}

/// Counts what passed between two addresses from one moment up to another.
pub fn traffic(packets: &[Packet], between: [[u8; 4]; 2], from: Ns, to: Ns) -> Traffic {
    let mut traffic = Traffic { seconds: to.saturating_sub(from) as f64 / 1e9, ..Traffic::default() };
    for packet in packets.iter().filter(|packet| (from..to).contains(&packet.at)) {
        let way = [packet.from, packet.to];
        if !way.iter().all(|end| between.contains(end)) {
            continue;
        }
        match packet.what {
            What::Tcp { payload, .. } => {
                let sum = if way == between { &mut traffic.there } else { &mut traffic.back };
                *sum = [sum[0] + 1, sum[1] + packet.length, sum[2] + payload];
            }
            What::Udp => traffic.udp += packet.length,
            What::Other => {}
        }
    }
    traffic
}

impl Traffic {
    /// Bits per second of so many bytes.
    pub fn bits(&self, bytes: usize) -> f64 {
        bytes as f64 * 8.0 / self.seconds
    }

    /// The round trip of the logging network for frames of the mean lengths seen, ns: each passes two cables of this latency and
    /// rate.
    pub fn round_trip(&self, latency: Ns, bits_per_second: u64) -> f64 {
        let mean = |way: [usize; 3]| way[1].checked_div(way[0]).unwrap_or(0).max(SHORTEST) + AROUND;
        let on_wire = |bytes: usize| bytes as f64 * 8e9 / bits_per_second as f64;
        4.0 * latency as f64 + 2.0 * (on_wire(mean(self.there)) + on_wire(mean(self.back)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::switch::pcap::Pcap;

    const A: [u8; 4] = [10, 0, 0, 1];
    const B: [u8; 4] = [10, 0, 0, 2];

    fn frame(protocol: u8, from: [u8; 4], to: [u8; 4], ports: [u16; 2], payload: usize) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend(IPV4);
        let all = 40 + payload as u16;
        frame.extend([0x45, 0, (all >> 8) as u8, all as u8, 0, 0, 0, 0, 64, protocol, 0, 0]);
        frame.extend([from, to].concat());
        frame.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
        frame.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0, 0]);
        frame.extend(vec![7; payload]);
        frame.resize(frame.len().max(60), 0);
        frame
    }

    fn capture(frames: &[(Ns, Vec<u8>)]) -> Vec<Packet> {
        let mut pcap = Pcap::new(Vec::new()).unwrap();
        for (at, frame) in frames {
            pcap.frame(*at, frame).unwrap();
        }
        let bytes = pcap.finish().unwrap();
        let cut = packets(&bytes[HEAD..bytes.len() - 1]);
        let all = packets(&bytes[HEAD..]);
        assert_eq!(cut, all[..all.len() - 1], "a packet that is cut off is none");
        all
    }

    #[test]
    fn packets_are_read_from_a_capture() {
        let arp = [vec![0xff; 12], vec![8, 6], vec![0; 46]].concat();
        let seen = capture(&[
            (1_500_000_000, arp),
            (2_000_000_001, frame(TCP, A, B, [8000, 5], 100)),
            (2_000_000_002, frame(TCP, B, A, [5, 8000], 0)),
            (2_000_000_003, frame(UDP, A, B, [1, 2], 4)),
        ]);
        let what: Vec<What> = seen.iter().map(|packet| packet.what).collect();
        let tcp = |ports, payload| What::Tcp { ports, payload };
        assert_eq!(what, [tcp([8000, 5], 100), tcp([5, 8000], 0), What::Udp], "padding is no payload");
        assert_eq!((seen[0].at, seen[0].length, seen[0].from, seen[0].to), (2_000_000_001, 154, A, B));
    }

    #[test]
    fn the_rate_is_that_of_the_fuller_direction() {
        let seen = capture(&[
            (0, frame(TCP, A, B, [5, 8000], 30)),
            (1_000_000_000, frame(TCP, B, A, [8000, 5], 1000)),
            (2_000_000_000, frame(TCP, A, B, [7, 9], 2000)),
            (3_000_000_000, frame(TCP, B, A, [8000, 5], 1000)),
            (9_000_000_000, frame(TCP, A, B, [5, 8000], 0)),
        ]);
        assert_eq!(rate(&seen, 8000, 2000), Some(1000.0));
        assert_eq!(rate(&seen, 9, 2000), None, "one packet has no time");
        assert_eq!(rate(&seen, 1, 2000), None);
    }

    #[test]
    fn traffic_is_counted_by_way_and_time() {
        let seen = capture(&[
            (0, frame(TCP, A, B, [5, 6], 500)),
            (10, frame(TCP, A, B, [5, 6], 100)),
            (11, frame(TCP, B, A, [6, 5], 10)),
            (12, frame(UDP, B, A, [6, 5], 10)),
            (13, frame(TCP, A, [1, 1, 1, 1], [5, 6], 10)),
            (2_000_000_010, frame(TCP, A, B, [5, 6], 500)),
        ]);
        let traffic = traffic(&seen, [A, B], 10, 2_000_000_010);
        assert_eq!((traffic.there, traffic.back, traffic.udp), ([1, 154, 100], [1, 64, 10], 64));
        assert_eq!(traffic.bits(traffic.there[2]), 400.0);
        // 178 and 88 bytes on each of two cables at 1 Gbit/s.
        assert_eq!(traffic.round_trip(50_000, 1_000_000_000), 200_000.0 + 2.0 * (1424.0 + 704.0));
    }
}
