//! Tests of the channel: two ends, strangers, and everything that can be done to bytes.

use super::facts::tests::FACTS_HERE;
use super::*;
use std::vec;
use std::vec::Vec;

fn end(role: Role, key: u8, generation: u64, incarnation: u64, facts: Facts<'_>) -> Channel {
    let keys = Keys::new(&[key; 32], "vm", generation);
    let settings = Settings { role, keys: &keys, incarnation: Incarnation(incarnation), facts };
    let mut number = incarnation;
    let seed = || {
        number += 1;
        let mut seed = [role as u8; 32];
        seed[..8].copy_from_slice(&number.to_le_bytes());
        seed
    };
    Channel::new(&settings, seed).unwrap()
}

fn pair() -> [Channel; 2] {
    [(Role::Responder, 100), (Role::Initiator, 200)].map(|(role, number)| end(role, 7, 3, number, FACTS_HERE))
}

fn output(channel: &mut Channel, place: usize) -> Vec<u8> {
    let mut bytes = vec![0; 1 << 20];
    let length = channel.pull(place, &mut bytes);
    bytes.truncate(length);
    bytes
}

/// Gives it all, and calls `heard` for each message.
fn give(channel: &mut Channel, place: usize, bytes: &[u8], heard: &mut dyn FnMut(Message<'_>)) {
    let mut at = 0;
    while at < bytes.len() {
        let taken = channel.feed(place, &bytes[at..]);
        at += taken;
        let mut any = taken != 0;
        while let Some(message) = channel.next() {
            heard(message);
            any = true;
        }
        if !any && channel.must_close(place, 0) {
            return;
        }
    }
}

/// Carries bytes both ways until there are none.
fn settle(ends: &mut [Channel; 2], place: usize) {
    for _ in 0..4 {
        for from in [1, 0] {
            let (here, there) = if from == 1 { (0, place) } else { (place, 0) };
            let bytes = output(&mut ends[from], here);
            give(&mut ends[1 - from], there, &bytes, &mut |message| panic!("{message:?}"));
        }
    }
}

fn secured() -> [Channel; 2] {
    let mut ends = pair();
    ends[0].connected(1, 0);
    ends[1].connected(0, 0);
    settle(&mut ends, 1);
    assert_eq!(ends[0].take_event(), Some(Event::Secured { place: 1, peer: Incarnation(200) }));
    assert_eq!(ends[1].take_event(), Some(Event::Secured { place: 0, peer: Incarnation(100) }));
    ends
}

#[test]
fn a_pair_finds_together() {
    let mut ends = secured();
    assert!(ends[0].send(&Message::Armed { generation: 3 }));
    let bytes = output(&mut ends[0], 1);
    let mut heard = 0;
    give(&mut ends[1], 0, &bytes, &mut |message| {
        assert_eq!(message, Message::Armed { generation: 3 });
        heard += 1;
    });
    assert_eq!(heard, 1);
    assert_eq!(ends[0].peer_facts().unwrap().signature, 0x906e9);
}
