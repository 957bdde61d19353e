//! Tests of the channel: two ends, strangers, and everything that can be done to bytes.

use super::facts::tests::FACTS_HERE;
use super::*;
use aes_gcm::aead::{AeadInPlace, KeyInit};
use aes_gcm::{Aes256Gcm, Key};
use proptest::prelude::*;
use std::boxed::Box;
use std::cell::Cell;
use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

std::thread_local! {
    /// What the ends of this test seal with.
    static SEALING: Cell<Sealing> = const { Cell::new(Sealing::ChaCha20Poly1305) };
}

/// Another crate's AES-GCM, where the kernel has its own.
struct Theirs(Aes256Gcm);

impl AesGcm for Theirs {
    fn set_key(&mut self, key: &[u8; 32]) {
        self.0 = Aes256Gcm::new(key.into());
    }

    fn seal(&self, nonce: &[u8; 12], ad: &[u8], text: &[u8], out: &mut [u8]) -> [u8; 16] {
        out.copy_from_slice(text);
        self.0.encrypt_in_place_detached(nonce.into(), ad, out).unwrap().into()
    }

    fn open(&self, nonce: &[u8; 12], ad: &[u8], sealed: &[u8], out: &mut [u8], tag: &[u8; 16]) -> bool {
        out.copy_from_slice(sealed);
        self.0.decrypt_in_place_detached(nonce.into(), ad, out, tag.into()).is_ok()
    }
}

const WITH_AES: Sealing =
    Sealing::AesGcm(|| Box::new(Theirs(Aes256Gcm::new(&Key::<Aes256Gcm>::from([0; 32])))));

fn end(role: Role, key: u8, generation: u64, incarnation: u64, facts: Facts<'_>) -> Channel {
    let keys = Keys::new(&[key; 32], "vm", generation);
    let sealing = SEALING.get();
    let settings = Settings { role, sealing, keys: &keys, incarnation: Incarnation(incarnation), facts };
    let mut number = incarnation << 8;
    let seed = || {
        number += 1;
        let mut seed = [role as u8; 32];
        seed[..8].copy_from_slice(&number.to_le_bytes());
        seed
    };
    Channel::new(&settings, seed).unwrap()
}

/// The listening side A.
fn listener() -> Channel {
    end(Role::Responder, 7, 3, 100, FACTS_HERE)
}

/// The connecting side B.
fn caller() -> Channel {
    end(Role::Initiator, 7, 3, 200, FACTS_HERE)
}

fn output(channel: &mut Channel, place: usize) -> Vec<u8> {
    let mut bytes = vec![0; 1 << 20];
    let length = channel.pull(place, &mut bytes);
    bytes.truncate(length);
    bytes
}

/// Gives it all, as the owner of the sockets does; what it has said, with log pieces joined.
fn give(channel: &mut Channel, place: usize, bytes: &[u8]) -> (Vec<u8>, Vec<String>) {
    let (mut at, mut log, mut others) = (0, Vec::new(), Vec::new());
    while at < bytes.len() {
        let taken = channel.feed(place, &bytes[at..]);
        at += taken;
        let mut any = taken != 0;
        while let Some(message) = channel.next() {
            any = true;
            match message {
                Message::Log(piece) => log.extend_from_slice(piece),
                other => others.push(format!("{other:?}")),
            }
        }
        assert!(any, "it would be asked for ever");
    }
    (log, others)
}

/// What the listener and the caller say to each other, in turns, from the connection on.
fn handshake(a: &mut Channel, b: &mut Channel, place: usize, now: u64) -> [Vec<u8>; 3] {
    a.connected(place, now);
    b.connected(0, now);
    let question = output(b, 0);
    give(a, place, &question);
    let answer = output(a, place);
    give(b, 0, &answer);
    let ready = output(b, 0);
    give(a, place, &ready);
    [question, answer, ready]
}

fn pair() -> [Channel; 2] {
    let (mut a, mut b) = (listener(), caller());
    handshake(&mut a, &mut b, 1, 0);
    assert_eq!(a.take_event(), Some(Event::Secured { place: 1, peer: Incarnation(200) }));
    assert_eq!(b.take_event(), Some(Event::Secured { place: 0, peer: Incarnation(100) }));
    [a, b]
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| ((i * 31) >> 3) as u8).collect()
}

/// Sends `log` over; all records.
fn records(from: &mut Channel, place: usize, log: &[u8]) -> Vec<u8> {
    let (mut sent, mut bytes) = (0, Vec::new());
    while sent < log.len() {
        let count = from.send_log(&log[sent..]);
        sent += count;
        if count == 0 {
            bytes.extend(output(from, place));
        }
    }
    bytes.extend(output(from, place));
    bytes
}

/// The refusals that a channel tells of.
fn refusals(channel: &mut Channel) -> Vec<String> {
    core::iter::from_fn(|| channel.take_event())
        .filter_map(|event| match event {
            Event::Refused(refusal) => Some(format!("{refusal}")),
            _ => None,
        })
        .collect()
}

#[test]
fn a_pair_talks() {
    let [mut a, mut b] = pair();
    assert_eq!(a.peer_facts().unwrap().processor, "a processor");
    let log = pattern(300_000);
    let bytes = records(&mut a, 1, &log);
    let pieces = log.len().div_ceil(PIECE);
    assert_eq!(bytes.len(), log.len() + pieces * OVERHEAD, "as few records as there can be");
    assert_eq!(give(&mut b, 0, &bytes).0, log);
    let ack = Ack { received: 300_000, executed: 5, executed_ns: 6 };
    for message in
        [Message::Ack(ack), Message::Armed { generation: 3 }, Message::Ping, Message::Goodbye(Why::Ended)]
    {
        assert!(b.send(&message));
        let bytes = output(&mut b, 0);
        assert_eq!(give(&mut a, 1, &bytes).1, [format!("{message:?}")]);
    }
    assert_eq!((a.carried().sent_records, b.carried().received_records), (pieces as u64, pieces as u64));
    assert_eq!(a.counters(), Counters { connections: 1, secured: 1, ..Counters::default() });
}

#[test]
fn a_full_output_takes_no_more_and_leaves_room_for_messages() {
    let [mut a, mut b] = pair();
    let log = pattern(PIECE);
    let mut sent = 0;
    while a.send_log(&log[sent % PIECE..]) != 0 {
        sent = (a.waiting() / RECORD) * PIECE;
    }
    assert!(a.waiting() > 3 * PIECE && a.waiting() < 5 * PIECE);
    assert!(a.send(&Message::Ping), "there is room for it");
    let mut small = vec![0; 1_000];
    let length = a.pull(1, &mut small);
    assert_eq!(length, 1_000);
    give(&mut b, 0, &small);
    let rest = output(&mut a, 1);
    assert_eq!(give(&mut b, 0, &rest).1, ["Ping"]);
}

#[test]
fn byte_by_byte() {
    let (mut a, mut b) = (listener(), caller());
    a.connected(0, 0);
    b.connected(0, 0);
    for _ in 0..3 {
        for byte in output(&mut b, 0) {
            give(&mut a, 0, &[byte]);
        }
        for byte in output(&mut a, 0) {
            give(&mut b, 0, &[byte]);
        }
    }
    let log = pattern(2_000);
    let heard: Vec<u8> =
        records(&mut b, 0, &log).iter().flat_map(|byte| give(&mut a, 0, &[*byte]).0).collect();
    assert_eq!(heard, log);
}

#[test]
fn a_wrong_key_is_refused() {
    let others = [end(Role::Initiator, 8, 3, 200, FACTS_HERE), {
        let keys = Keys::new(&[7; 32], "another", 3);
        let (role, sealing) = (Role::Initiator, SEALING.get());
        let settings =
            Settings { role, sealing, keys: &keys, incarnation: Incarnation(1), facts: FACTS_HERE };
        Channel::new(&settings, || [3; 32]).unwrap()
    }];
    let mut a = listener();
    for mut stranger in others {
        handshake(&mut a, &mut stranger, 0, 0);
        assert_eq!(refusals(&mut a), ["it does not have the key"]);
        assert!(a.must_close(0, 0) && !a.is_secured());
        assert_eq!(a.spares(), SPARES, "nothing is used up");
    }
    // The handshakes that the strangers have had are good for the peer.
    handshake(&mut a, &mut caller(), 0, 0);
    assert!(a.is_secured());
    assert_eq!(a.counters(), Counters { connections: 3, secured: 1, forged: 2, ..Counters::default() });
    // And a false answer is none.
    let (mut b, mut false_one) = (caller(), end(Role::Responder, 8, 3, 1, FACTS_HERE));
    let [.., ready] = handshake(&mut false_one, &mut b, 0, 0);
    assert!(ready.is_empty() && !b.is_secured());
}

#[test]
fn another_generation_or_version_is_named_by_both() {
    let (mut a, mut b) = (listener(), end(Role::Initiator, 7, 4, 200, FACTS_HERE));
    handshake(&mut a, &mut b, 0, 0);
    assert_eq!(refusals(&mut a), ["generation: here 3, there 4 (as it says)"]);
    assert_eq!(refusals(&mut b), ["generation: here 4, there 3 (as it says)"]);
    assert_eq!((a.counters().greeting, b.counters().greeting, a.spares()), (1, 1, SPARES));
    // Our answer has time to arrive.
    assert!(!a.must_close(0, 0) && a.must_close(0, LINGER_NS));

    let (mut a, mut b) = (listener(), caller());
    a.connected(0, 0);
    b.connected(0, 0);
    let mut question = output(&mut b, 0);
    question[6] = 9;
    give(&mut a, 0, &question);
    assert_eq!(refusals(&mut a), ["protocol version: here 2, there 9 (as it says)"]);
}

/// The greeting is in the clear: who changes it in both directions to hide a difference is seen.
#[test]
fn a_changed_greeting_is_seen() {
    let (mut a, mut b) = (listener(), end(Role::Initiator, 7, 4, 200, FACTS_HERE));
    a.connected(0, 0);
    b.connected(0, 0);
    let mut question = output(&mut b, 0);
    question[9] = 3;
    give(&mut a, 0, &question);
    assert_eq!(refusals(&mut a), ["it does not have the key"]);
}

#[test]
fn a_difference_is_named_by_both() {
    let (mut a, mut b) =
        (listener(), end(Role::Initiator, 7, 3, 200, Facts { signature: 0x906ea, ..FACTS_HERE }));
    handshake(&mut a, &mut b, 0, 0);
    assert_eq!(refusals(&mut a), ["processor's signature: here 0x906e9, there 0x906ea"]);
    assert_eq!(refusals(&mut b), ["processor's signature: here 0x906ea, there 0x906e9"]);
    assert!(!a.is_secured() && !b.is_secured());
    assert_eq!((a.counters().unfit, b.counters().unfit), (1, 1));
}

#[test]
fn a_peer_that_starts_anew_is_refused_once_it_counts() {
    let mut a = listener();
    handshake(&mut a, &mut caller(), 0, 0);
    handshake(&mut a, &mut end(Role::Initiator, 7, 3, 201, FACTS_HERE), 1, 0);
    assert_eq!(a.peer_place(), Some(1), "before anything depends on it, a new start is welcome");
    a.pin(Incarnation(201));
    handshake(&mut a, &mut end(Role::Initiator, 7, 3, 202, FACTS_HERE), 2, 0);
    assert_eq!(refusals(&mut a), ["the peer has started anew"]);
    assert_eq!(a.peer_place(), Some(1));
}

#[test]
fn a_newer_connection_replaces_the_older() {
    let [mut a, mut b] = pair();
    // The caller's end has broken; the listener does not know.
    b.disconnected(0);
    assert_eq!(b.take_event(), Some(Event::Lost));
    handshake(&mut a, &mut b, 2, PAUSE_NS);
    assert_eq!(a.take_event(), Some(Event::Lost));
    assert_eq!(a.take_event(), Some(Event::Secured { place: 2, peer: Incarnation(200) }));
    assert!(a.must_close(1, PAUSE_NS) && !a.must_close(2, u64::MAX));
    a.disconnected(1);
    assert!(a.is_secured(), "the old one's end is not the new one's");
    let bytes = records(&mut a, 2, &[1, 2, 3]);
    assert_eq!(give(&mut b, 0, &bytes).0, [1, 2, 3]);
}

/// A whole session is captured, and sent again, to the one or to the other, now or after a new start.
#[test]
fn a_captured_session_is_good_for_nothing() {
    let (mut a, mut b) = (listener(), caller());
    let [question, answer, ready] = handshake(&mut a, &mut b, 0, 0);
    let capture = [question.clone(), ready, records(&mut b, 0, &pattern(5_000))].concat();
    let before = a.spares();
    for place in 1..4 {
        a.connected(place, 0);
        assert_eq!(give(&mut a, place, &capture), (vec![], vec![]));
        assert!(a.must_close(place, 0));
    }
    assert_eq!((a.spares(), a.counters().replayed), (before, 3));
    assert!(a.is_secured());

    // The listener has started anew and does not remember. It answers, but the capture cannot go on.
    let mut anew = end(Role::Responder, 7, 3, 101, FACTS_HERE);
    anew.connected(0, 0);
    assert_eq!(give(&mut anew, 0, &capture), (vec![], vec![]));
    assert_eq!(anew.counters(), Counters { connections: 1, replayed: 1, ..Counters::default() });
    assert!(!anew.is_secured());

    // To the caller: an old answer.
    let mut anew = end(Role::Initiator, 7, 3, 201, FACTS_HERE);
    anew.connected(0, 0);
    output(&mut anew, 0);
    give(&mut anew, 0, &answer);
    assert_eq!(anew.counters().forged, 1);
    // And what it has said itself, reflected.
    let mut anew = end(Role::Initiator, 7, 3, 202, FACTS_HERE);
    anew.connected(0, 0);
    let own = output(&mut anew, 0);
    give(&mut anew, 0, &own);
    assert_eq!(anew.counters().forged, 1);
}

/// A question of somebody who had the key, and never goes on: all places are taken, until they are late.
#[test]
fn places_that_are_held_are_given_up() {
    let mut a = listener();
    for place in 0..PLACES {
        a.connected(place, 5);
    }
    assert_eq!(a.deadline(), Some(5 + HANDSHAKE_NS));
    for place in 0..PLACES {
        assert!(!a.must_close(place, 4 + HANDSHAKE_NS) && a.must_close(place, 5 + HANDSHAKE_NS));
        a.disconnected(place);
    }
    assert_eq!((a.counters().abandoned, a.spares(), a.deadline()), (4, SPARES, None));
}

#[test]
fn scans_and_garbage() {
    let mut a = listener();
    let scans: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &[0; 5_000],
        &[0xff; 70_000],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaaaaaaaaaaaaaaaaaaaa",
        // The greeting, and a record that is too short, or too long.
        b"\x0f\x00LKFT\x02\x00\x01\x03\0\0\0\0\0\0\0",
    ];
    for scan in scans {
        a.connected(0, 0);
        give(&mut a, 0, scan);
        assert!(a.must_close(0, 0), "at once");
    }
    assert_eq!((a.counters().garbage, a.take_event()), (5, None));
}

#[test]
fn the_caller_waits_between_two_handshakes() {
    let mut b = caller();
    for (time, spoken) in
        [(0, true), (1_000, false), (PAUSE_NS - 1, false), (PAUSE_NS, true), (PAUSE_NS + 1, false)]
    {
        b.connected(0, time);
        assert_eq!(!output(&mut b, 0).is_empty(), spoken, "{time}");
    }
    assert_eq!(b.deadline(), Some(2 * PAUSE_NS));
    assert!(!b.must_close(0, 2 * PAUSE_NS));
    assert!(!output(&mut b, 0).is_empty(), "it begins by itself");
}

#[test]
fn handshakes_run_out_and_are_made_again() {
    let mut b = caller();
    for round in 0..=SPARES as u64 {
        b.connected(0, round * PAUSE_NS);
    }
    assert_eq!((b.spares(), refusals(&mut b)), (0, vec![String::from("no handshake is left")]));
    b.refill(|| [9; 32]);
    assert_eq!(b.spares(), SPARES);
    b.connected(0, u64::MAX);
    assert!(!output(&mut b, 0).is_empty());
}

/// Everything that these tests say of the one cipher holds for the other.
#[test]
fn with_aes() {
    SEALING.set(WITH_AES);
    a_pair_talks();
    a_full_output_takes_no_more_and_leaves_room_for_messages();
    byte_by_byte();
    a_wrong_key_is_refused();
    another_generation_or_version_is_named_by_both();
    a_changed_greeting_is_seen();
    a_newer_connection_replaces_the_older();
    a_captured_session_is_good_for_nothing();
    any_pieces();
    nothing_can_be_changed();
    no_handshake_can_be_changed();
    garbage_is_survived();
}

#[test]
fn another_cipher_is_named_by_both() {
    let mut a = listener();
    SEALING.set(WITH_AES);
    let mut b = caller();
    handshake(&mut a, &mut b, 0, 0);
    assert_eq!(refusals(&mut a), ["cipher: here ChaCha20-Poly1305, there AES-256-GCM (as it says)"]);
    assert_eq!(refusals(&mut b), ["cipher: here AES-256-GCM, there ChaCha20-Poly1305 (as it says)"]);
    assert_eq!(a.spares(), SPARES, "nothing is used up");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// However the stream is cut into pieces, the messages are the same.
    #[test]
    fn any_pieces(log in proptest::collection::vec(any::<u8>(), 1..60_000), cuts in proptest::collection::vec(1usize..20_000, 1..20)) {
        let [mut a, mut b] = pair();
        let bytes = records(&mut a, 1, &log);
        let (mut rest, mut heard) = (&bytes[..], Vec::new());
        for cut in cuts.iter().cycle() {
            let (piece, behind) = rest.split_at(rest.len().min(*cut));
            heard.extend(give(&mut b, 0, piece).0);
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert!(heard == log);
    }

    /// A bit that is changed, a byte that is left out or put in, records that change places: what is heard is a beginning of what
    /// was said, and the connection ends.
    #[test]
    fn nothing_can_be_changed(kind in 0usize..4, at: usize, bit in 0u8..8, pieces in 2usize..5) {
        let [mut a, mut b] = pair();
        let log = pattern(pieces * 700);
        let mut bytes = Vec::new();
        let mut records = Vec::new();
        for piece in log.chunks(700) {
            a.send_log(piece);
            records.push(output(&mut a, 1));
        }
        if kind == 3 {
            let first = at % (pieces - 1);
            records.swap(first, first + 1);
        }
        records.iter().for_each(|record| bytes.extend_from_slice(record));
        let place = at % (bytes.len() - 200);
        match kind {
            0 => bytes[place] ^= 1 << bit,
            1 => drop(bytes.remove(place)),
            2 => bytes.insert(place, bit),
            _ => {}
        }
        let true_one = kind == 1 && bytes[place] == bytes[place.saturating_sub(1)];
        // More behind it, so that a length that was made longer is filled.
        a.send_log(&pattern(PIECE));
        a.send_log(&pattern(PIECE));
        a.send_log(&pattern(PIECE));
        a.send_log(&pattern(PIECE));
        bytes.extend(output(&mut a, 1));
        let (heard, others) = give(&mut b, 0, &bytes);
        prop_assert!(others.is_empty() && (log.starts_with(&heard) || true_one));
        prop_assert!(heard.len() < log.len());
        prop_assert!(!b.is_secured() && b.must_close(0, 0));
        prop_assert_eq!(b.counters().broken, 1);
        prop_assert_eq!(b.broken(), Some(Broken::Forged));
        prop_assert_eq!(b.take_event(), Some(Event::Lost));
    }

    /// A handshake that is changed anywhere does not secure anything.
    #[test]
    fn no_handshake_can_be_changed(step in 0usize..3, at: usize, bit in 0u8..8) {
        let (mut a, mut b) = (listener(), caller());
        a.connected(0, 0);
        b.connected(0, 0);
        for turn in 0..3 {
            let (from, to) = if turn == 1 { (&mut a, &mut b) } else { (&mut b, &mut a) };
            let mut bytes = output(from, 0);
            if turn == step && !bytes.is_empty() {
                let at = at % bytes.len();
                bytes[at] ^= 1 << bit;
            }
            give(to, 0, &bytes);
        }
        prop_assert!(!a.is_secured());
        prop_assert!(step == 2 || !b.is_secured());
        // The peer is there a moment later all the same.
        a.disconnected(0);
        handshake(&mut a, &mut end(Role::Initiator, 7, 3, 300, FACTS_HERE), 1, HANDSHAKE_NS);
        prop_assert!(a.is_secured());
    }

    /// Bytes of anybody, at any time, also behind a true handshake's parts.
    #[test]
    fn garbage_is_survived(bytes in proptest::collection::vec(any::<u8>(), 1..400), step in 0usize..3, headed: bool) {
        let (mut a, mut b) = (listener(), caller());
        a.connected(0, 0);
        b.connected(0, 0);
        if step >= 1 {
            let question = output(&mut b, 0);
            give(&mut a, 0, &question);
        } else if headed {
            let cipher = SEALING.get().number();
            give(&mut a, 0, &[&[0, 2], &handshake::greeting(cipher, 3)[..]].concat());
        }
        if step == 2 {
            // With garbage right behind the answer.
            let answer = output(&mut a, 0);
            give(&mut b, 0, &[&answer[..], &bytes].concat());
            let _ = output(&mut b, 0);
        }
        give(&mut a, 0, &bytes);
        give(&mut b, 0, &bytes);
        prop_assert!(!a.is_secured());
    }
}
