//! Where the guest is now: frames that tell switches and neighbours, after a takeover, that its MAC is behind another port.
//!
//! The addresses are learnt from what the guest sends. A gratuitous ARP, as request and as reply, and an unsolicited
//! neighbour advertisement (RFC 4861, 7.2.6) per address; a RARP for the MAC alone, which a switch learns from even if the guest
//! has no address.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use hal::MacAddress;

/// Addresses of the guest that are remembered at most. One more, and the one that was used least recently is forgotten.
pub const ADDRESSES: usize = 8;

/// Bytes of the longest announcement.
pub const LONGEST: usize = 86;

/// Bytes of the shortest frame without FCS: what is shorter is padded.
const SHORTEST: usize = 60;

/// When announcements are made after the takeover, nanoseconds: the first may be lost, or come before a switch's port forwards.
pub const SCHEDULE: [u64; 7] =
    [0, 50_000_000, 150_000_000, 400_000_000, 1_000_000_000, 2_000_000_000, 5_000_000_000];

const ARP: [u8; 2] = [0x08, 0x06];
const RARP: [u8; 2] = [0x80, 0x35];
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];

/// The guest's addresses on one network.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    mac: MacAddress,
    /// The one that was used last comes first.
    known: [Option<IpAddr>; ADDRESSES],
}

impl Addresses {
    /// None yet, of a guest with this MAC.
    #[must_use]
    pub const fn new(mac: MacAddress) -> Self {
        Self { mac, known: [None; ADDRESSES] }
    }

    /// Those that are known.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> {
        self.known.iter().copied().flatten()
    }

    /// Looks at a frame that the guest sends.
    pub fn learn(&mut self, frame: &[u8]) {
        if frame.get(6..12) != Some(&self.mac.0) {
            // Of something behind the guest, perhaps: not ours to announce.
            return;
        }
        if let Some(address) = sender(frame, self.mac).filter(is_announced) {
            self.note(address);
        }
    }

    fn note(&mut self, address: IpAddr) {
        if self.known[0] == Some(address) {
            return;
        }
        let at = self.known.iter().position(|known| *known == Some(address)).unwrap_or(ADDRESSES - 1);
        self.known[..=at].rotate_right(1);
        self.known[0] = Some(address);
    }

    /// Gives the frames of one round to `send`, a RARP first.
    pub fn announce(&self, send: &mut dyn FnMut(&[u8])) {
        let mac = self.mac;
        send(&arp(mac, RARP, 3, [0; 4], mac.0, [0; 4]));
        for address in self.iter() {
            match address {
                IpAddr::V4(address) => {
                    let address = address.octets();
                    send(&arp(mac, ARP, 1, address, [0; 6], address));
                    send(&arp(mac, ARP, 2, address, mac.0, address));
                }
                IpAddr::V6(address) => send(&advertisement(mac, address)),
            }
        }
    }
}

/// An address that belongs to one station, and to it alone.
fn is_announced(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, ..] = address.octets();
            // Loopback, groups and what is beyond them are nobody's; 0.x.x.x is "this host", without an address yet.
            first != 0 && first != 127 && first < 224
        }
        // Link-local ones belong to the guest as the others do.
        IpAddr::V6(address) => !address.is_unspecified() && !address.is_loopback() && !address.is_multicast(),
    }
}

fn array<const N: usize>(frame: &[u8], at: usize) -> Option<[u8; N]> {
    frame.get(at..)?.first_chunk().copied()
}

/// The address that the sender of a frame uses.
fn sender(frame: &[u8], mac: MacAddress) -> Option<IpAddr> {
    match array(frame, 12)? {
        // Ethernet and IPv4, of the frame's own sender.
        ARP if array(frame, 14)? == [0, 1, 8, 0, 6, 4] && array(frame, 22)? == mac.0 => {
            Some(Ipv4Addr::from(array::<4>(frame, 28)?).into())
        }
        IPV4 if array::<1>(frame, 14)?[0] >> 4 == 4 => Some(Ipv4Addr::from(array::<4>(frame, 26)?).into()),
        IPV6 if array::<1>(frame, 14)?[0] >> 4 == 6 => Some(Ipv6Addr::from(array::<16>(frame, 22)?).into()),
        _ => None,
    }
}

/// An ARP or RARP packet to everybody.
fn arp(
    mac: MacAddress,
    kind: [u8; 2],
    operation: u8,
    sender: [u8; 4],
    target_mac: [u8; 6],
    target: [u8; 4],
) -> [u8; SHORTEST] {
    let mut frame = [0; SHORTEST];
    let parts: [&[u8]; 8] = [
        &MacAddress::BROADCAST.0,
        &mac.0,
        &kind,
        &[0, 1, 8, 0, 6, 4, 0, operation],
        &mac.0,
        &sender,
        &target_mac,
        &target,
    ];
    put(&mut frame, &parts);
    frame
}

fn put(frame: &mut [u8], parts: &[&[u8]]) {
    let mut rest = frame;
    for part in parts {
        let (place, behind) = core::mem::take(&mut rest).split_at_mut(part.len());
        place.copy_from_slice(part);
        rest = behind;
    }
}

/// An unsolicited neighbour advertisement to all nodes, with the override flag.
fn advertisement(mac: MacAddress, address: Ipv6Addr) -> [u8; LONGEST] {
    /// Bytes of the ICMPv6 message: its head, the target, the option with the MAC.
    const MESSAGE: usize = 8 + 16 + 8;
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).octets();
    let mut frame = [0; LONGEST];
    let parts: [&[u8]; 11] = [
        &[0x33, 0x33, 0, 0, 0, 1],
        &mac.0,
        &IPV6,
        // Version 6; the payload's length; ICMPv6; hop limit 255, or nobody believes it.
        &[0x60, 0, 0, 0, 0, MESSAGE as u8, 58, 255],
        &address.octets(),
        &all_nodes,
        &[136, 0, 0, 0],
        // Override.
        &[0x20, 0, 0, 0],
        &address.octets(),
        &[2, 1],
        &mac.0,
    ];
    put(&mut frame, &parts);
    let sum = icmp_checksum(&frame[22..]);
    frame[56..58].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// RFC 4443, 2.3: over both addresses, the length, the next header and the message, whose own checksum is still zero.
fn icmp_checksum(addresses_and_message: &[u8]) -> u16 {
    let (words, _) = addresses_and_message.as_chunks();
    let message = addresses_and_message.len() as u32 - 32;
    let sum = words.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum::<u32>() + message + 58;
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

/// The rounds of announcements after a takeover.
#[derive(Clone, Copy, Debug)]
pub struct Rounds {
    start: u64,
    done: usize,
}

impl Rounds {
    /// From `now` on, nanoseconds.
    #[must_use]
    pub const fn new(now: u64) -> Self {
        Self { start: now, done: 0 }
    }

    /// When the next round is due, nanoseconds; `None` after the last.
    #[must_use]
    pub fn due(&self) -> Option<u64> {
        SCHEDULE.get(self.done).map(|after| self.start.saturating_add(*after))
    }

    /// Whether a round is due; then it counts as done. Those that were missed are not made up for.
    pub fn take(&mut self, now: u64) -> bool {
        let before = self.done;
        while self.due().is_some_and(|due| due <= now) {
            self.done += 1;
        }
        self.done != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    const MAC: MacAddress = MacAddress([0x52, 0x54, 0, 1, 2, 3]);
    const GUEST: [u8; 4] = [10, 0, 0, 5];
    const GUEST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 5);

    fn frame(kind: [u8; 2], rest: &[&[u8]]) -> Vec<u8> {
        [&[0xff; 6], &MAC.0, &kind[..], &rest.concat()].concat()
    }

    fn ip4(source: [u8; 4]) -> Vec<u8> {
        frame(IPV4, &[&[0x45; 12], &source, &[10, 0, 0, 1], &[0; 20]])
    }

    fn ip6(source: Ipv6Addr) -> Vec<u8> {
        frame(IPV6, &[&[0x60; 8], &source.octets(), &[0; 36]])
    }

    fn learnt(frames: &[Vec<u8>]) -> Vec<IpAddr> {
        let mut addresses = Addresses::new(MAC);
        frames.iter().for_each(|frame| addresses.learn(frame));
        addresses.iter().collect()
    }

    #[test]
    fn what_is_learnt() {
        let arp_of =
            |mac: [u8; 6], ip: [u8; 4]| frame(ARP, &[&[0, 1, 8, 0, 6, 4, 0, 1], &mac, &ip, &[0; 10]]);
        assert_eq!(learnt(&[arp_of(MAC.0, GUEST)]), [IpAddr::from(GUEST)]);
        assert_eq!(learnt(&[ip4(GUEST), ip6(GUEST6), ip4(GUEST)]), [IpAddr::from(GUEST), GUEST6.into()]);
        let link_local: Ipv6Addr = "fe80::1".parse().unwrap();
        assert_eq!(learnt(&[ip6(link_local)]), [IpAddr::from(link_local)]);
        // A probe before the address is taken, DHCP, a proxy's ARP, loopback, groups, a neighbour solicitation from nobody.
        let nothing = [
            arp_of(MAC.0, [0; 4]),
            arp_of([2; 6], GUEST),
            ip4([0; 4]),
            ip4([127, 0, 0, 1]),
            ip4([224, 0, 0, 1]),
            ip4([255; 4]),
            ip6(Ipv6Addr::UNSPECIFIED),
            ip6(Ipv6Addr::LOCALHOST),
            ip6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)),
        ];
        assert!(learnt(&nothing).is_empty());
        let mut bridged = ip4(GUEST);
        bridged[6..12].copy_from_slice(&[2; 6]);
        assert!(learnt(&[bridged]).is_empty());
    }

    #[test]
    fn the_latest_are_kept() {
        let frames: Vec<_> = (1..=20).map(|last| ip4([10, 0, 0, last])).collect();
        let kept = learnt(&frames);
        let expected: Vec<IpAddr> = (13..=20).rev().map(|last| [10, 0, 0, last].into()).collect();
        assert_eq!(kept, expected);
    }

    #[test]
    fn what_is_announced() {
        use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetFrame};
        let mut addresses = Addresses::new(MAC);
        addresses.learn(&ip6(GUEST6));
        addresses.learn(&ip4(GUEST));
        let mut frames = Vec::new();
        addresses.announce(&mut |frame| frames.push(frame.to_vec()));
        assert_eq!(frames.len(), 4);
        for frame in &frames {
            assert!(frame.len() >= SHORTEST && frame.len() <= LONGEST);
            assert_eq!(frame[6..12], MAC.0);
            assert_eq!(frame[0] & 1, 1, "to many");
        }
        assert_eq!(frames[0][12..22], [0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
        assert_eq!((&frames[0][22..28], &frames[0][32..38]), (&MAC.0[..], &MAC.0[..]));
        for (frame, wanted) in frames[1..3].iter().zip([ArpOperation::Request, ArpOperation::Reply]) {
            let ethernet = EthernetFrame::new_checked(&frame[..]).unwrap();
            let packet = ArpPacket::new_checked(ethernet.payload()).unwrap();
            let ArpRepr::EthernetIpv4 {
                operation,
                source_hardware_addr,
                source_protocol_addr,
                target_protocol_addr,
                ..
            } = ArpRepr::parse(&packet).unwrap()
            else {
                panic!("no ARP");
            };
            assert_eq!(operation, wanted);
            assert_eq!(source_hardware_addr.0, MAC.0);
            assert_eq!((source_protocol_addr.octets(), target_protocol_addr.octets()), (GUEST, GUEST));
        }
    }

    /// A neighbour advertisement as Linux's `ndisc` sends it, with the checksum computed by hand.
    #[test]
    fn a_neighbour_advertisement() {
        let frame = advertisement(MAC, GUEST6);
        assert_eq!(frame[..14], [0x33, 0x33, 0, 0, 0, 1, 0x52, 0x54, 0, 1, 2, 3, 0x86, 0xdd]);
        assert_eq!(frame[18..22], [0, 32, 58, 255]);
        assert_eq!(frame[54..56], [136, 0]);
        assert_eq!(frame[58], 0x20, "override, neither router nor solicited");
        assert_eq!(frame[78..], [2, 1, 0x52, 0x54, 0, 1, 2, 3]);
        // The sum over pseudo-header and message with the checksum in it is all ones.
        let words = frame[22..].as_chunks::<2>().0;
        let mut sum = words.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum::<u32>() + 32 + 58;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        assert_eq!(sum, 0xffff);
    }

    #[test]
    fn rounds() {
        let mut rounds = Rounds::new(1_000);
        assert!(rounds.take(1_000) && !rounds.take(1_000));
        assert_eq!(rounds.due(), Some(50_001_000));
        assert!(rounds.take(200_000_000) && !rounds.take(200_000_001), "two in one");
        assert!(rounds.take(u64::MAX) && !rounds.take(u64::MAX));
        assert_eq!(rounds.due(), None);
        assert!(Rounds::new(u64::MAX).take(u64::MAX));
    }

    proptest! {
        #[test]
        fn anything_is_survived(frames in proptest::collection::vec(
            (0usize..4, proptest::collection::vec(any::<u8>(), 0..80)), 0..30,
        )) {
            let mut addresses = Addresses::new(MAC);
            for (kind, rest) in &frames {
                addresses.learn(&frame([ARP, IPV4, IPV6, RARP][*kind], &[rest]));
                addresses.learn(rest);
            }
            addresses.announce(&mut |frame| assert!(frame.len() <= LONGEST));
        }
    }
}
