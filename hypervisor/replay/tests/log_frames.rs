//! Frames are written against earlier ones and come back as they were, whatever they are; those of a connection cost little.

use proptest::prelude::*;
use proptest::sample::Index;
use replay::log::bytes::{In, Out};
use replay::log::codec::{Codec, CodecError, Frames};
use replay::log::entry::{Entry, Event, Place};
use replay::log::flows::{BadFrame, FRAME_MAX};
use replay::log::frame::Frame;
use replay::point::Point;

/// What a frame is made of.
#[derive(Clone, Debug)]
struct Packet {
    flow: u8,
    vlan: bool,
    version: u8,
    protocol: u8,
    id: u16,
    sequence: u32,
    acknowledged: u32,
    window: u16,
    flags: u8,
    stamps: Option<(u32, u32)>,
    payload: Vec<u8>,
    /// Zeros up to the shortest frame.
    padded: bool,
}

/// RFC 1071, plainly.
fn sum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    let mut sum = words.map(u32::from).sum::<u32>();
    while sum >> 16 != 0 {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

impl Packet {
    fn segment(&self) -> Vec<u8> {
        let ports = [0x1F, 0x40, 0x80, self.flow];
        let mut segment = Vec::new();
        match self.protocol {
            6 => {
                segment.extend(ports);
                segment.extend(self.sequence.to_be_bytes());
                segment.extend(self.acknowledged.to_be_bytes());
                segment.extend([if self.stamps.is_some() { 0x80 } else { 0x50 }, self.flags]);
                segment.extend(self.window.to_be_bytes());
                segment.extend([0; 4]);
                if let Some((value, echo)) = self.stamps {
                    segment.extend([1, 1, 8, 10]);
                    segment.extend(value.to_be_bytes());
                    segment.extend(echo.to_be_bytes());
                }
            }
            17 => {
                segment.extend(ports);
                segment.extend((8 + self.payload.len() as u16).to_be_bytes());
                segment.extend([0; 2]);
            }
            _ => segment.extend([8, 0, 0, 0, 0, self.flow, self.id as u8, 0]),
        }
        segment.extend(&self.payload);
        segment
    }

    fn frame(&self) -> Vec<u8> {
        let mut segment = self.segment();
        let mut frame = vec![0x52, 0x54, 0, 0, 0, self.flow, 0x52, 0x54, 0, 0, 0, 99];
        if self.vlan {
            frame.extend([0x81, 0, 0, 5]);
        }
        let length = segment.len() as u16;
        let addresses;
        let mut header;
        if self.version == 4 {
            header =
                vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, self.protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, self.flow];
            header[2..4].copy_from_slice(&(20 + length).to_be_bytes());
            header[4..6].copy_from_slice(&self.id.to_be_bytes());
            let right = sum(&header);
            header[10..12].copy_from_slice(&right);
            addresses = header[12..].to_vec();
            frame.extend([8, 0]);
        } else {
            header = vec![0x60, 0, 0, 0, 0, 0, self.protocol, 64];
            header[4..6].copy_from_slice(&length.to_be_bytes());
            header.extend([0xFD; 31]);
            header.push(self.flow);
            addresses = header[8..].to_vec();
            frame.extend([0x86, 0xDD]);
        }
        let pseudo = match self.protocol {
            6 | 17 => [&addresses[..], &[0, self.protocol], &length.to_be_bytes()].concat(),
            _ => Vec::new(),
        };
        let at = match self.protocol {
            6 => 16,
            17 => 6,
            _ => 2,
        };
        let right = sum(&[pseudo, segment.clone()].concat());
        segment[at..at + 2].copy_from_slice(&right);
        frame.extend(header);
        frame.extend(segment);
        if self.padded {
            frame.resize(frame.len().max(60), 0);
        }
        frame
    }
}

/// Frames, most of them of a few flows and with small changes from one to the next.
fn frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let step = (
        0_u8..12,
        prop_oneof![6 => Just(6_u8), 2 => Just(17), 1 => Just(1), 1 => Just(58)],
        prop_oneof![Just(0_u32), Just(1000), any::<u32>()],
        prop_oneof![Just(0_u16), Just(1), any::<u16>()],
        prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(any::<u8>(), 0..200), 1 => Just(vec![7; 1448])],
        (prop::bool::weighted(0.2), prop::bool::weighted(0.3), prop::bool::weighted(0.3), any::<bool>()),
        // What befalls it on its way.
        prop_oneof![5 => Just(None), 1 => any::<(Index, u8)>().prop_map(Some)],
        prop_oneof![8 => Just(None), 1 => any::<Index>().prop_map(Some)],
        any::<bool>(),
    );
    prop::collection::vec(step, 0..60).prop_map(|steps| {
        let (mut sequence, mut acknowledged, mut window, mut id) = (5_u32, 900_u32, 40_000_u16, 0_u16);
        let packets =
            steps.into_iter().map(|(flow, protocol, jump, small, payload, kinds, flipped, cut, padded)| {
                let (vlan, six, stamped, push) = kinds;
                acknowledged = acknowledged.wrapping_add(jump);
                window = window.wrapping_sub(small);
                id = id.wrapping_add(small);
                let packet = Packet {
                    flow,
                    vlan,
                    version: if six { 6 } else { 4 },
                    protocol,
                    id,
                    sequence,
                    acknowledged,
                    window,
                    flags: if push { 0x18 } else { 0x10 },
                    stamps: stamped.then_some((jump, sequence / 7)),
                    payload,
                    padded,
                };
                sequence = sequence.wrapping_add(packet.payload.len() as u32);
                let mut frame = packet.frame();
                if let Some((at, change)) = flipped {
                    let at = at.index(frame.len());
                    frame[at] ^= change;
                }
                if let Some(at) = cut {
                    frame.truncate(at.index(frame.len() + 1));
                }
                frame
            });
        packets.collect()
    })
}

fn entry(number: usize, frame: &[u8]) -> Entry<'_> {
    let point = Point { n: 20_000 * number as u64, rip: 0xFFFF_FFFF_8100_0000, rcx: 0 };
    let place = Place::Between { point, repeating: false, breakpoint: true };
    Entry {
        place,
        check: None,
        event: Event::Frame { device: (number % 7 == 3).into(), frame: frame.into() },
    }
}

fn encode(codec: &mut Codec, entry: &Entry<'_>) -> Vec<u8> {
    let mut buffer = vec![0; FRAME_MAX + 256];
    let mut out = Out::new(&mut buffer);
    codec.emit(entry, &mut out).unwrap();
    let used = out.used();
    buffer.truncate(used);
    buffer
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn frames_come_back(frames in frames()) {
        let (mut writer, mut reader) = (Codec::new(), Codec::new());
        for (number, frame) in frames.iter().enumerate() {
            let bytes = encode(&mut writer, &entry(number, frame));
            let mut input = In::new(&bytes);
            let read = reader.parse(&mut input).unwrap();
            prop_assert_eq!(read, entry(number, frame));
            prop_assert!(input.is_empty());
            let Event::Frame { frame: read, .. } = read.event else { unreachable!() };
            prop_assert_eq!(read.parts().concat(), frame.clone());
            let mut memory = vec![0xEE; FRAME_MAX];
            prop_assert_eq!(read.assemble(&mut memory), Some(&frame[..]));
        }
    }

    #[test]
    fn plain_frames_come_back_between_predicted_ones(frames in frames(), plain in prop::collection::vec(any::<bool>(), 1..9)) {
        let (mut writer, mut reader) = (Codec::new(), Codec::new());
        for (number, frame) in frames.iter().enumerate() {
            let entry = entry(number, frame);
            let plain = plain[number % plain.len()];
            let form = if plain { Frames::Plain } else { Frames::Predicted };
            writer = writer.with_frames(form);
            let bytes = encode(&mut writer, &entry);
            let mut input = In::new(&bytes);
            let read = reader.parse(&mut input).unwrap();
            prop_assert_eq!(read, entry);
            prop_assert!(input.is_empty());
            if plain {
                prop_assert_eq!(&bytes[bytes.len() - frame.len()..], &frame[..]);
            }
        }
    }

    #[test]
    fn a_frame_in_two_pieces_is_written_as_one(frames in frames()) {
        // What was read from a log is written to another.
        let (mut first, mut reader, mut second) = (Codec::new(), Codec::new(), Codec::new());
        for (number, frame) in frames.iter().enumerate() {
            let bytes = encode(&mut first, &entry(number, frame));
            let read = reader.parse(&mut In::new(&bytes)).unwrap();
            prop_assert_eq!(encode(&mut second, &read), bytes);
        }
    }

    #[test]
    fn a_frame_that_does_not_fit_changes_nothing(frames in frames(), rooms in prop::collection::vec(any::<Index>(), 1..8)) {
        let (mut tried, mut plain) = (Codec::new(), Codec::new());
        for (number, frame) in frames.iter().enumerate() {
            let bytes = encode(&mut plain, &entry(number, frame));
            for room in &rooms {
                let mut buffer = vec![0; room.index(bytes.len())];
                tried.emit(&entry(number, frame), &mut Out::new(&mut buffer)).unwrap_err();
            }
            prop_assert_eq!(encode(&mut tried, &entry(number, frame)), bytes);
        }
    }

    #[test]
    fn what_a_peer_makes_up_is_no_panic(
        frames in frames(), changes in prop::collection::vec(any::<(Index, u8)>(), 0..6), cut: Index, more in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let (mut writer, mut reader) = (Codec::new(), Codec::new());
        let mut bytes = Vec::new();
        for (number, frame) in frames.iter().enumerate() {
            bytes.extend(encode(&mut writer, &entry(number, frame)));
        }
        let keep = cut.index(bytes.len() + 1);
        bytes.splice(keep.., more);
        for (at, change) in changes.into_iter().filter(|_| !bytes.is_empty()).collect::<Vec<_>>() {
            let at = at.index(bytes.len());
            bytes[at] ^= change;
        }
        let mut input = In::new(&bytes);
        while !input.is_empty() {
            let Ok(read) = reader.parse(&mut input) else { break };
            if let Event::Frame { frame, .. } = read.event {
                prop_assert!(frame.len() <= FRAME_MAX);
                // A reader that believes it can go on as a writer.
                let _ = encode(&mut reader.clone(), &read);
            }
        }
    }
}

fn acknowledgement(number: u32) -> Packet {
    Packet {
        flow: 1,
        vlan: false,
        version: 4,
        protocol: 6,
        id: number as u16,
        sequence: 77,
        acknowledged: 2896 * number,
        window: 501,
        flags: 0x10,
        stamps: Some((1000 + number / 3, 2000 + number / 3)),
        payload: Vec::new(),
        padded: true,
    }
}

/// Bytes of entries with these frames, without the first `skip` entries.
fn cost(packets: impl Iterator<Item = Packet>, skip: usize) -> usize {
    let mut codec = Codec::new();
    let lengths = packets.enumerate().map(|(number, packet)| {
        encode(
            &mut codec,
            &Entry {
                event: Event::Frame { device: 0, frame: packet.frame()[..].into() },
                ..entry(number, &[])
            },
        )
        .len()
    });
    lengths.skip(skip).sum()
}

#[test]
fn an_acknowledgement_costs_as_much_as_its_place_and_two_bytes() {
    let frames = 1000;
    let bytes = cost((0..frames as u32 + 3).map(acknowledgement), 3);
    // A kind, N, RIP; a mask; and every third time the two stamps.
    assert!(bytes <= frames * 5, "{bytes} bytes");
}

#[test]
fn what_is_received_costs_its_payload_and_little() {
    let (frames, payload) = (1000, 1448);
    let packets = (0..frames as u32).map(|number| Packet {
        sequence: 5 + payload as u32 * number,
        acknowledged: 9,
        payload: vec![number as u8; payload],
        ..acknowledgement(number)
    });
    let bytes = cost(packets, 0);
    assert!(bytes <= frames * (payload + 6), "{bytes} bytes");
}

#[test]
fn flows_beside_each_other_are_told_apart() {
    let frames = 1000;
    let packets =
        (0..frames as u32).map(|number| Packet { flow: (number % 6) as u8, ..acknowledgement(number / 6) });
    let bytes = cost(packets, 12);
    assert!(bytes <= frames * 7, "{bytes} bytes");
}

#[test]
fn a_frame_of_the_greatest_length_fits_and_a_longer_one_does_not() {
    let mut codec = Codec::new();
    let mut buffer = vec![0; FRAME_MAX + 1000];
    let most = vec![5; FRAME_MAX];
    for _ in 0..2 {
        codec.emit(&entry(0, &most), &mut Out::new(&mut buffer)).unwrap();
    }
    let longer = vec![5; FRAME_MAX + 1];
    codec.emit(&entry(0, &longer), &mut Out::new(&mut buffer)).unwrap_err();
    let mut plain = Codec::new().with_frames(Frames::Plain);
    plain.emit(&entry(0, &longer), &mut Out::new(&mut buffer)).unwrap_err();
    let mut out = Out::new(&mut buffer);
    plain.emit(&entry(0, &most), &mut out).unwrap();
    let used = out.used();
    let read = Codec::new().parse(&mut In::new(&buffer[..used])).unwrap();
    assert_eq!(read, entry(0, &most));
}

#[test]
fn a_plain_frame_longer_than_any_is_refused() {
    let mut plain = Codec::new().with_frames(Frames::Plain);
    let bytes = encode(&mut plain, &entry(0, &[7; 60]));
    // The length is the byte before the frame: made to say more than FRAME_MAX.
    let mut longer = bytes[..bytes.len() - 61].to_vec();
    longer.extend([0xFF, 0xFF, 0x03]);
    longer.extend(vec![7; 0xFFFF]);
    let refused = Codec::new().parse(&mut In::new(&longer)).unwrap_err();
    assert_eq!(refused, CodecError::Frame(BadFrame::Length(0xFFFF)));
}

#[test]
fn frames_are_equal_by_their_bytes() {
    assert_eq!(Frame::whole(b"abc"), (&b"abc"[..]).into());
    assert_ne!(Frame::whole(b"abc"), Frame::whole(b"abd"));
    assert_ne!(Frame::whole(b"abc"), Frame::whole(b"ab"));
    assert!(Frame::whole(b"").is_empty());
    assert_eq!(Frame::whole(b"abc").assemble(&mut [0; 2]), None);
}
