//! A guest that is led by another's log while it arrives is the same guest.

use std::collections::VecDeque;

use replay::log::block::BLOCK_MAX;
use replay::log::stream::WORKING_BYTES;
use replay::log::writer::BUFFER;
use replay::seed::Seed;
use sim::guest::{Arrival, Followed, Guest, Led, Tape, Track};
use toy::cpu::Silicon;
use toy::program::{Program, SHORT};

#[test]
fn a_guest_that_is_led_by_an_arriving_log_is_the_same() {
    let (mut sent, mut waits) = (0, 0);
    for seed in 0..300 {
        let mut rng = Seed::new(seed);
        let program = Program::sized(&mut rng.fork(1), &SHORT);
        let mut buffer = vec![0; BUFFER];
        let mut log = vec![0; 8192];
        let mut tape = Tape::new(&mut buffer, &mut log);
        let (mut ring, mut working) = (vec![0; BLOCK_MAX + 64], vec![0; WORKING_BYTES]);
        let silicon = Silicon { skid: (5, 40), overcounts: 0 };
        let mut track = Track::new(&mut ring, &mut working, silicon).unwrap();
        let mut primary = Guest::new(&program, Silicon { skid: (0, 0), overcounts: 0 }, seed * 2, 40);
        let mut backup = Guest::new(&program, silicon, seed * 2 + 1, 40);
        let (mut arrived, mut packets, mut replayed) = (VecDeque::new(), Vec::new(), Vec::new());
        let mut now = 0;
        let mut ended = false;
        for step in 0.. {
            if rng.one_in(20) {
                arrived.push_back(match rng.below(3) {
                    0 => Arrival::Frame(vec![rng.next() as u8; 20]),
                    1 => Arrival::Console(vec![rng.next() as u8]),
                    _ => Arrival::Button,
                });
            }
            now += rng.below(200_000);
            if !ended && tape.has_room() {
                match primary.lead(Some(&mut tape), now, &mut arrived) {
                    Led::Ran(_) => {}
                    Led::Halted(until) => assert!(until > now),
                }
                if primary.has_sent() {
                    primary.close(&mut tape);
                    packets.extend(primary.take_sent());
                }
                if step > 3000 && primary.stands_well() {
                    primary.end(&mut tape, "enough");
                    ended = true;
                }
            }
            // Pieces of any size.
            let (near, _) = tape.log.readable();
            let piece = near.len().min(rng.below(300) as usize).min(track.stream().room());
            track.stream().push(&near[..piece]).unwrap();
            tape.log.consume(piece);
            if !tape.has_room() {
                primary.close(&mut tape);
            }
            if !track.is_open().unwrap() {
                continue;
            }
            let followed = backup.follow(&mut track);
            replayed.extend(backup.take_sent());
            match followed {
                Followed::Ran(_) => {}
                Followed::Waits => waits += 1,
                Followed::Ended => break,
                Followed::Diverged(what) => panic!("seed {seed}: {what}"),
            }
        }
        assert_eq!(packets, replayed, "seed {seed}");
        assert_eq!(primary.now(), backup.now(), "seed {seed}");
        sent += packets.len();
    }
    assert!(sent > 3000 && waits > 3000, "{sent} packets, {waits} waits");
}
