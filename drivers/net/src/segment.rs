//! The checksum of TCP segments, where the protocols leave it to the card: each byte that the logging channel carries is summed on both
//! hosts, and smoltcp takes 2.7 instructions for it.

use hal::InternetSum;

/// Bytes of Ethernet's header.
const ETHERNET: usize = 14;
/// Offset of the checksum in a segment.
const PLACE: usize = 16;
/// IP's number for TCP.
const TCP: u8 = 6;

/// Where the TCP segment of a frame with IPv4 lies. `None`: it has none, or says what cannot be.
fn find(frame: &[u8]) -> Option<core::ops::Range<usize>> {
    let ip = frame.get(ETHERNET..)?;
    let header = usize::from(ip.first()? & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes([*ip.get(2)?, *ip.get(3)?]));
    let range = ETHERNET + header..ETHERNET + total;
    let whole = header >= 20 && total >= header + PLACE + 2 && range.end <= frame.len();
    whole.then_some(range)
}

/// Whether a frame says that it has a TCP segment by IPv4.
fn has_one(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[8, 0]) && frame.get(ETHERNET + 9) == Some(&TCP)
}

/// What the checksum is to be, if there are zeros in its place; 0 if the right one is there.
fn sum(frame: &[u8], segment: core::ops::Range<usize>) -> [u8; 2] {
    let mut sum = InternetSum::new();
    // The pseudo header (RFC 9293, 3.1).
    sum.add(&frame[ETHERNET + 12..ETHERNET + 20]);
    let [high, low] = (segment.len() as u16).to_be_bytes();
    sum.add(&[0, TCP, high, low]);
    sum.add(&frame[segment]);
    sum.finish()
}

/// Writes the checksum of the TCP segment in a frame, where it has one.
pub fn write_checksum(frame: &mut [u8]) {
    if has_one(frame)
        && let Some(segment) = find(frame)
    {
        let place = segment.start + PLACE;
        frame[place..place + 2].fill(0);
        let sum = sum(frame, segment);
        frame[place..place + 2].copy_from_slice(&sum);
    }
}

/// Whether a frame has a TCP segment by IPv4 whose checksum is wrong, or that cannot be one.
pub fn is_damaged(frame: &[u8]) -> bool {
    has_one(frame) && find(frame).is_none_or(|segment| sum(frame, segment) != [0, 0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{
        IpProtocol, Ipv4Address, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
    };
    use std::vec::Vec;

    /// A frame as smoltcp makes it, with or without TCP's checksum, and so many bytes of padding.
    fn frame(payload: &[u8], summed: bool, padding: usize) -> Vec<u8> {
        let [from, to] = [Ipv4Address::new(10, 9, 8, 7), Ipv4Address::new(10, 9, 8, 200)];
        let tcp = TcpRepr {
            src_port: 4000,
            dst_port: 5000,
            control: TcpControl::Psh,
            seq_number: TcpSeqNumber(0x1234_5678),
            ack_number: Some(TcpSeqNumber(77)),
            window_len: 1000,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload,
        };
        let ip = Ipv4Repr {
            src_addr: from,
            dst_addr: to,
            next_header: IpProtocol::Tcp,
            payload_len: tcp.buffer_len(),
            hop_limit: 64,
        };
        let mut checksums = ChecksumCapabilities::default();
        if !summed {
            checksums.tcp = smoltcp::phy::Checksum::None;
        }
        let mut frame = std::vec![0; ETHERNET + ip.buffer_len() + tcp.buffer_len() + padding];
        frame[12..14].copy_from_slice(&[8, 0]);
        let (head, rest) = frame[ETHERNET..].split_at_mut(ip.buffer_len());
        ip.emit(&mut Ipv4Packet::new_unchecked(head), &checksums);
        tcp.emit(
            &mut TcpPacket::new_unchecked(&mut rest[..tcp.buffer_len()]),
            &from.into(),
            &to.into(),
            &checksums,
        );
        frame
    }

    proptest! {
        #[test]
        fn is_what_smoltcp_writes(payload: Vec<u8>, padding in 0_usize..20) {
            let right = frame(&payload, true, padding);
            let mut own = frame(&payload, false, padding);
            write_checksum(&mut own);
            prop_assert_eq!(&own, &right);
            prop_assert!(!is_damaged(&own));
        }

        #[test]
        fn a_flipped_bit_is_damage(payload: Vec<u8>, at: prop::sample::Index, bit in 0_u8..8) {
            let mut frame = frame(&payload, true, 0);
            // Of IP's header, the addresses are in the sum.
            let from = ETHERNET + 12;
            let at = from + at.index(frame.len() - from);
            frame[at] ^= 1 << bit;
            prop_assert!(is_damaged(&frame));
        }

        #[test]
        fn whatever_comes_does_no_harm(mut bytes: Vec<u8>) {
            is_damaged(&bytes);
            if bytes.len() > 24 {
                (bytes[12], bytes[13], bytes[23]) = (8, 0, TCP);
            }
            let _ = is_damaged(&bytes);
            write_checksum(&mut bytes);
        }
    }

    #[test]
    fn other_frames_are_nobodys_business() {
        let mut arp = frame(b"x", true, 0);
        arp[13] = 6;
        let before = arp.clone();
        write_checksum(&mut arp);
        assert!(!is_damaged(&arp) && arp == before);
    }

    #[test]
    fn lengths_that_cannot_be_are_damage() {
        for (at, byte) in [(ETHERNET, 0x44), (ETHERNET + 2, 0xff), (ETHERNET + 3, 20)] {
            let mut frame = frame(b"payload", true, 0);
            frame[at] = byte;
            assert!(is_damaged(&frame), "{at}");
        }
    }
}
