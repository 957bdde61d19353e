//! Whole frames for heartbeats on the guest's card: Ethernet, IPv4 and UDP around a sealed datagram.
//!
//! The host has no stack on that card, only an address for this one purpose. It does not ask for the peer's MAC: frames go to
//! everybody until an authentic one has come from the peer.

use crate::seal::{MAGIC, SEALED};
use hal::MacAddress;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpAddress, IpProtocol, Ipv4Address,
    Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};

const ETHERNET: usize = 14;
const IP: usize = 20;
const UDP: usize = 8;

/// Where the datagram begins in a frame.
const PAYLOAD: usize = ETHERNET + IP + UDP;

/// Bytes of a frame. Longer than the shortest that Ethernet has.
pub const FRAME: usize = PAYLOAD + SEALED;

/// Hops that a datagram may take: it stays in its network.
const HOPS: u8 = 1;

/// Both ends of the heartbeats on the guest's card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The host's card's own MAC.
    pub mac: MacAddress,
    /// Our IPv4 address, for nothing else.
    pub address: [u8; 4],
    /// The peer's.
    pub peer_address: [u8; 4],
    /// UDP port of both.
    pub port: u16,
}

/// Builds and recognises the frames.
#[derive(Clone, Copy, Debug)]
pub struct Wire {
    ends: Ends,
    peer_mac: Option<MacAddress>,
}

/// A frame with a datagram from the peer's address. Whose it is, only the seal tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived<'a> {
    /// The datagram.
    pub datagram: &'a [u8],
    /// The MAC that it came from: for [`Wire::learn`] if the seal is good.
    pub from: MacAddress,
}

impl Wire {
    /// Between these ends.
    #[must_use]
    pub const fn new(ends: Ends) -> Self {
        Self { ends, peer_mac: None }
    }

    /// The peer's MAC, if it is known.
    #[must_use]
    pub const fn peer_mac(&self) -> Option<MacAddress> {
        self.peer_mac
    }

    /// Sends to this MAC from now on: an authentic datagram came from it.
    pub const fn learn(&mut self, mac: MacAddress) {
        self.peer_mac = Some(mac);
    }

    /// Sends to everybody again: the peer has not been heard for long, and may have another card.
    pub const fn forget(&mut self) {
        self.peer_mac = None;
    }

    /// The frame for a datagram.
    #[must_use]
    pub fn build(&self, datagram: &[u8; SEALED]) -> [u8; FRAME] {
        let mut frame = [0; FRAME];
        let to = self.peer_mac.unwrap_or(MacAddress::BROADCAST);
        let ethernet = EthernetRepr {
            src_addr: EthernetAddress(self.ends.mac.0),
            dst_addr: EthernetAddress(to.0),
            ethertype: EthernetProtocol::Ipv4,
        };
        ethernet.emit(&mut EthernetFrame::new_unchecked(&mut frame[..]));
        let (from, to) = (Ipv4Address::from(self.ends.address), Ipv4Address::from(self.ends.peer_address));
        let ip = Ipv4Repr {
            src_addr: from,
            dst_addr: to,
            next_header: IpProtocol::Udp,
            payload_len: UDP + SEALED,
            hop_limit: HOPS,
        };
        let checksums = ChecksumCapabilities::default();
        ip.emit(&mut Ipv4Packet::new_unchecked(&mut frame[ETHERNET..]), &checksums);
        let udp = UdpRepr { src_port: self.ends.port, dst_port: self.ends.port };
        udp.emit(
            &mut UdpPacket::new_unchecked(&mut frame[ETHERNET + IP..]),
            &IpAddress::Ipv4(from),
            &IpAddress::Ipv4(to),
            SEALED,
            |payload| payload.copy_from_slice(datagram),
            &checksums,
        );
        frame
    }

    /// Whether a frame from outside is a heartbeat for us and nothing for the guest. Cheap: a few comparisons at fixed places, and
    /// the first says no to almost everything.
    #[must_use]
    pub fn is_ours(&self, frame: &[u8]) -> bool {
        // Cards pad short frames, so there may be more; never less.
        frame.len() >= FRAME
            && frame[PAYLOAD..PAYLOAD + 4] == MAGIC
            && frame[12..16] == [8, 0, 0x45, 0]
            && frame[23] == 17
            && frame[30..34] == self.ends.address
            && frame[36..38] == self.ends.port.to_be_bytes()
    }

    /// Takes the datagram out of a frame. `None` unless everything about the frame is right, checksums included, and it comes
    /// from the peer's address.
    #[must_use]
    pub fn parse<'a>(&self, frame: &'a [u8]) -> Option<Arrived<'a>> {
        if !self.is_ours(frame) {
            return None;
        }
        let ethernet = EthernetFrame::new_checked(frame).ok()?;
        let from = MacAddress(ethernet.src_addr().0);
        let ip = Ipv4Packet::new_checked(frame.get(ETHERNET..)?).ok()?;
        let checksums = ChecksumCapabilities::default();
        let head = Ipv4Repr::parse(&ip, &checksums).ok()?;
        let ours = head.src_addr == Ipv4Address::from(self.ends.peer_address)
            && head.payload_len == UDP + SEALED
            && !ip.more_frags()
            && ip.frag_offset() == 0;
        let segment = frame.get(ETHERNET + IP..PAYLOAD + SEALED)?;
        let udp = UdpPacket::new_checked(segment).ok()?;
        let (source, target) = (IpAddress::Ipv4(head.src_addr), IpAddress::Ipv4(head.dst_addr));
        UdpRepr::parse(&udp, &source, &target, &checksums).ok()?;
        let datagram = segment.get(UDP..)?;
        let whole = usize::from(udp.len()) == UDP + SEALED;
        (ours && whole && from.is_station()).then_some(Arrived { datagram, from })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: Ends = Ends {
        mac: MacAddress([2, 0, 0, 0, 0, 1]),
        address: [10, 0, 0, 251],
        peer_address: [10, 0, 0, 252],
        port: 5408,
    };
    const B: Ends =
        Ends { mac: MacAddress([2, 0, 0, 0, 0, 2]), address: A.peer_address, peer_address: A.address, ..A };

    fn datagram() -> [u8; SEALED] {
        let mut datagram = [0x5a; SEALED];
        datagram[..4].copy_from_slice(&MAGIC);
        datagram
    }

    #[test]
    fn from_one_to_the_other() {
        let (mut a, b) = (Wire::new(A), Wire::new(B));
        let frame = a.build(&datagram());
        assert_eq!(frame[..6], [0xff; 6], "to everybody at first");
        assert!(b.is_ours(&frame) && !a.is_ours(&frame));
        let arrived = b.parse(&frame).unwrap();
        assert_eq!(arrived, Arrived { datagram: &datagram(), from: A.mac });
        a.learn(B.mac);
        assert_eq!(a.build(&datagram())[..6], B.mac.0);
        a.forget();
        assert_eq!(a.build(&datagram())[..6], [0xff; 6]);
        // Padding behind it is no harm.
        assert!(b.parse(&[&frame[..], &[0; 10]].concat()).is_some());
    }

    #[test]
    fn the_guests_frames_are_the_guests() {
        let b = Wire::new(B);
        let frame = Wire::new(A).build(&datagram());
        // Another port, address, protocol, type, datagram; with options; shorter.
        for (at, value) in [(37, 0), (33, 1), (23, 6), (13, 6), (PAYLOAD, b'X'), (14, 0x46)] {
            let mut other = frame;
            other[at] = value;
            assert!(!b.is_ours(&other), "{at}");
        }
        assert!(!b.is_ours(&frame[..FRAME - 1]));
        assert!(!b.is_ours(&[]));
    }

    proptest! {
        /// One wrong bit: it may be for us, but it is not taken, unless the bit is one that does not matter (the destination MAC, the
        /// source MAC that is only told, or one that no longer makes it a heartbeat for us).
        #[test]
        fn damage_is_seen(at in 0..FRAME, bit in 0u8..8) {
            let b = Wire::new(B);
            let mut frame = Wire::new(A).build(&datagram());
            frame[at] ^= 1 << bit;
            if let Some(arrived) = b.parse(&frame) {
                prop_assert!(at < 12, "byte {}", at);
                prop_assert_eq!(arrived.datagram, &datagram()[..]);
            }
        }

        #[test]
        fn anything_is_survived(mut frame in proptest::collection::vec(any::<u8>(), 0..300), headed: bool) {
            let b = Wire::new(B);
            let true_one = Wire::new(A).build(&datagram());
            if headed && frame.len() >= FRAME {
                for at in [12, 13, 14, 15, 23, 30, 31, 32, 33, 36, 37, 42, 43, 44, 45] {
                    frame[at] = true_one[at];
                }
                prop_assert!(b.is_ours(&frame));
            }
            prop_assert_eq!(b.parse(&frame), None);
        }
    }
}
