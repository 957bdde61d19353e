//! Clients and server over a network that loses, delays, doubles and reorders datagrams.

use super::super::record::{RECORD, Record, Standing, VmId};
use super::super::{Answer, Arbiter, Ask};
use super::wire::{Operation, REPLY, Request, Verdict};
use super::{Client, Server, Settings};
use crate::keys::Incarnation;
use crate::side::Side;
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

const MS: u64 = 1_000_000;

const NONCES: [Incarnation; 2] = [Incarnation(71), Incarnation(72)];

fn vm() -> VmId {
    VmId::of("test")
}

fn client(side: Side) -> Client {
    let nonce = NONCES[side.index()];
    Client::new(Settings {
        vm: vm(),
        side,
        nonce,
        again_ns: Settings::AGAIN_NS,
        give_up_ns: Settings::GIVE_UP_NS,
    })
}

/// The answer over a network that does everything right.
fn answer(client: &mut Client, server: &mut Server, ask: Ask, now: u64) -> Option<Answer> {
    client.ask(ask, now);
    if let Some(request) = client.transmit(now) {
        client.receive(&server.datagram(&request).unwrap());
    }
    client.poll(now)
}

const ARM: Ask = Ask::Arm { generation: 1, peer: NONCES[1] };
const CONTEND: Ask = Ask::Contend { generation: 1, position: 9 };
const READ_BACK: Ask = Ask::ReadBack { generation: 1 };

#[test]
fn the_first_one_wins() {
    let mut server = Server::new(1);
    let (mut a, mut b) = (client(Side::A), client(Side::B));
    assert_eq!(answer(&mut a, &mut server, CONTEND, 0), Some(Answer::Refused), "nothing is armed");
    assert_eq!(answer(&mut a, &mut server, ARM, 0), Some(Answer::Armed));
    assert_eq!(answer(&mut a, &mut server, ARM, 0), Some(Answer::Armed));
    assert_eq!(answer(&mut b, &mut server, READ_BACK, 0), Some(Answer::Free));
    assert_eq!(answer(&mut b, &mut server, CONTEND, 0), Some(Answer::Won));
    assert_eq!(answer(&mut b, &mut server, CONTEND, 0), Some(Answer::Won), "as before");
    for ask in [CONTEND, READ_BACK] {
        assert_eq!(answer(&mut a, &mut server, ask, 0), Some(Answer::Lost));
    }
    assert_eq!(answer(&mut a, &mut server, ARM, 0), Some(Answer::Refused), "it is consumed");
    assert_eq!(answer(&mut b, &mut server, Ask::Fence { generation: 1 }, 0), Some(Answer::Fenced));
    let record = server.record(vm()).unwrap();
    let expected = Record {
        vm: vm(),
        generation: 1,
        standing: Standing::Solo,
        owner: Side::B,
        nonce: NONCES[1],
        peer: NONCES[0],
        position: 9,
    };
    assert_eq!((record, server.counters().won, server.counters().lost), (&expected, 1, 1));
}

#[test]
fn a_newer_generation_ends_the_older_one() {
    let mut server = Server::new(1);
    let (mut a, mut b) = (client(Side::A), client(Side::B));
    answer(&mut a, &mut server, ARM, 0);
    let second = Ask::Arm { generation: 2, peer: NONCES[0] };
    assert_eq!(answer(&mut b, &mut server, second, 0), Some(Answer::Armed));
    assert_eq!(answer(&mut a, &mut server, CONTEND, 0), Some(Answer::Lost));
    assert_eq!(answer(&mut a, &mut server, ARM, 0), Some(Answer::Refused));
    let ask = Ask::Contend { generation: 3, position: 0 };
    assert_eq!(answer(&mut a, &mut server, ask, 0), Some(Answer::Refused));
}

#[test]
fn strangers_and_other_starts_are_refused() {
    let mut server = Server::new(1);
    answer(&mut client(Side::A), &mut server, ARM, 0);
    let before = *server.record(vm()).unwrap();
    let request = Request {
        id: 1,
        vm: vm(),
        generation: 1,
        side: Side::B,
        nonce: Incarnation(1000),
        operation: Operation::Contend { position: 0 },
    };
    for (side, nonce) in [(Side::A, Incarnation(1000)), (Side::B, Incarnation(1000)), (Side::B, NONCES[0])] {
        let reply = server.request(&Request { side, nonce, ..request });
        assert_eq!(reply.verdict, Verdict::Refused);
    }
    let reply = server.request(&Request { vm: VmId::of("other"), ..request });
    assert_eq!((reply.verdict, reply.record), (Verdict::Refused, None));
    // One more virtual machine than there is room for.
    let operation = Operation::Arm { peer: NONCES[1] };
    assert_eq!(
        server.request(&Request { vm: VmId::of("other"), operation, ..request }).verdict,
        Verdict::Refused
    );
    assert_eq!(server.record(vm()), Some(&before));
    assert_eq!((server.datagram(&[0; RECORD]), server.counters().garbage), (None, 1));
}

#[test]
fn no_answer_is_no_guess() {
    for (ask, expected) in
        [(ARM, Answer::Unknown), (CONTEND, Answer::Unknown), (READ_BACK, Answer::Unreachable)]
    {
        let mut a = client(Side::A);
        a.ask(ask, 5 * MS);
        let mut sent = 0;
        let mut now = 5 * MS;
        let got = loop {
            sent += u64::from(a.transmit(now).is_some());
            if let Some(answer) = a.poll(now) {
                break answer;
            }
            let next = a.next_deadline().unwrap();
            assert!(next > now);
            now = next;
        };
        assert_eq!((got, now, sent), (expected, 5 * MS + Settings::GIVE_UP_NS, 20));
        assert_eq!((a.next_deadline(), a.poll(now), a.transmit(now)), (None, None, None));
    }
}

#[test]
fn an_answer_to_what_is_not_asked_any_more_is_none() {
    let mut server = Server::new(1);
    let mut a = client(Side::A);
    answer(&mut a, &mut server, ARM, 0);
    a.ask(CONTEND, 0);
    let late = server.datagram(&a.transmit(0).unwrap()).unwrap();
    a.ask(READ_BACK, 1);
    a.receive(&late);
    assert_eq!((a.poll(1), a.strays()), (None, 1));
    // Of another client of the same number.
    let mut b = client(Side::B);
    b.ask(READ_BACK, 0);
    b.receive(&server.datagram(&a.transmit(1).unwrap()).unwrap());
    b.receive(b"garbage");
    assert_eq!((b.poll(1), b.strays()), (None, 2));
}

/// What the network does with a datagram: when its copies arrive, milliseconds later.
#[derive(Clone, Debug)]
struct Fate(Vec<u64>);

fn any_fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        4 => (0u64..3).prop_map(|delay| Fate(vec![delay])),
        2 => Just(Fate(vec![])),
        2 => proptest::collection::vec(0u64..400, 1..4).prop_map(Fate),
    ]
}

/// A client that asks until it knows.
struct Contender {
    client: Client,
    ask: Ask,
    start: u64,
    decided: Option<Answer>,
}

impl Contender {
    fn step(&mut self, now: u64) {
        let Some(answer) = self.client.poll(now) else { return };
        match answer {
            Answer::Won | Answer::Lost => self.decided = Some(answer),
            Answer::Unknown | Answer::Unreachable => self.ask = READ_BACK,
            Answer::Free => self.ask = CONTEND,
            other => panic!("{other}"),
        }
        if self.decided.is_none() {
            self.client.ask(self.ask, now);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// However datagrams travel: one winner, one loser, and the record says so too.
    #[test]
    fn one_winner(
        fates in proptest::collection::vec(any_fate(), 1..120),
        starts in proptest::array::uniform2(0u64..300),
        deaf in proptest::array::uniform2(0u64..900),
    ) {
        let mut server = Server::new(1);
        answer(&mut client(Side::A), &mut server, ARM, 0);
        let mut contenders = [Side::A, Side::B].map(|side| Contender {
            client: client(side), ask: CONTEND, start: starts[side.index()] * MS, decided: None,
        });
        let mut fates = fates.into_iter();
        let mut fate = || fates.next().unwrap_or(Fate(vec![1])).0;
        let (mut requests, mut replies) = (Vec::new(), Vec::<(u64, usize, [u8; REPLY])>::new());
        for now in (0..4000).map(|ms| ms * MS) {
            for (side, contender) in contenders.iter_mut().enumerate() {
                if now == contender.start {
                    contender.client.ask(CONTEND, now);
                }
                if contender.decided.is_some() {
                    continue;
                }
                while let Some(request) = contender.client.transmit(now) {
                    requests.extend(fate().into_iter().map(|delay| (now + delay * MS, side, request)));
                }
                // All that comes within one of its milliseconds, in the order of the list.
                replies.retain(|(at, to, reply)| {
                    if *to != side || *at > now {
                        return true;
                    }
                    contender.client.receive(&reply[..]);
                    false
                });
                contender.step(now);
            }
            requests.retain(|(at, side, request)| {
                if *at > now {
                    return true;
                }
                let reply = server.datagram(request).unwrap();
                if now >= deaf[*side] * MS {
                    replies.extend(fate().into_iter().map(|delay| (now + delay * MS, *side, reply)));
                }
                false
            });
        }
        let mut decided = contenders.each_ref().map(|contender| contender.decided.unwrap().name());
        let owner = server.record(vm()).unwrap().owner;
        prop_assert_eq!(decided[owner.index()], "won");
        decided.sort_unstable();
        prop_assert_eq!(decided, ["lost", "won"]);
        prop_assert_eq!(server.counters().won, 1);
    }

    /// Requests of any kind in any order: a generation is consumed once, and generations never go back.
    #[test]
    fn a_generation_is_consumed_once(
        requests in proptest::collection::vec((0u64..4, any::<bool>(), 0u64..3, 0u64..3, 0u8..3), 1..80),
    ) {
        let mut server = Server::new(1);
        let mut winners: Vec<(u64, Side, u64)> = Vec::new();
        let mut generation = 0;
        for (id, (wanted, b, nonce, peer, kind)) in requests.into_iter().enumerate() {
            let side = if b { Side::B } else { Side::A };
            let operation = match kind {
                0 => Operation::Arm { peer: Incarnation(peer) },
                1 => Operation::Contend { position: 0 },
                _ => Operation::ReadBack,
            };
            let request = Request {
                id: id as u64, vm: vm(), generation: wanted, side, nonce: Incarnation(nonce), operation,
            };
            let reply = server.request(&request);
            if reply.verdict == Verdict::Won {
                winners.push((wanted, side, nonce));
            }
            let record = server.record(vm()).map_or(0, |record| record.generation);
            prop_assert!(record >= generation);
            generation = record;
        }
        winners.sort_unstable();
        winners.dedup();
        let count = winners.len();
        winners.dedup_by_key(|winner| winner.0);
        prop_assert_eq!(winners.len(), count, "two winners of a generation");
    }
}
