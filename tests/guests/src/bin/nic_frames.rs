//! Do frames of all sizes go both ways through the card with none wrong, polled and by interrupts, in bursts, through filters and
//! over a link that is lost and comes back? A peer on the cable (the tools') sends the like and judges what it gets.
//! `frames=` each way, half of them polled; `burst=` frames at once; `flaps=` of the link, where the peer can.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![deny(unsafe_code)]

use e1000::{Family, Rings};
use guests::net::{Card, TscClock, find_card, start};
use guests::net_interrupts as interrupts;
use guests::{Report, boot, cpu, exit, println};
use hal::{Clock, Filter, Link, MacAddress, NetDevice, NetEvents};

guests::program!(run);

/// Type of our frames: "local experimental 1" (IEEE 802).
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
/// Where the peer is.
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
/// After the header of 14 bytes: kind, number, argument (little-endian); then the content.
const CONTENT: usize = 14 + 1 + 4 + 4;
const MIN_LEN: usize = 60;
const MAX_LEN: usize = 1514;
/// Frames that may be under way.
const WINDOW: u32 = 24;
/// Silence after which what is missing counts as lost, in nanoseconds.
const PATIENCE_NS: u64 = 10_000_000_000;
/// How long a burst is left on the card, in nanoseconds.
const AWAY_NS: u64 = 20_000_000;
/// After which silence a burst is over, in nanoseconds.
const QUIET_NS: u64 = 300_000_000;
const RINGS: Rings = Rings { receive: 64, transmit: 32 };

/// A numbered frame of the long sequence, whose number tells its size and content.
const DATA: u8 = 1;
/// Please send so many of the sequence at once; for none, please say which number is the next.
const BURST: u8 = 2;
/// Please pull the cable for so many milliseconds.
const FLAP: u8 = 3;
/// Please send one frame each to the addresses of the filter test, then one of this kind.
const FILTER: u8 = 4;
/// How many of my sequence have come, and how many were wrong?
const TELL: u8 = 5;

/// Whose sequence: part of the content.
const MINE: u64 = 0x6d69_6e65;
const YOURS: u64 = 0x796f_7572;

struct Side {
    card: Card,
    clock: TscClock,
    seed: u64,
    sent: u32,
    received: u32,
    /// Of those, the ones that are no answers: a burst's.
    unasked: u32,
    /// Frames of the sequence that are not the next one, byte for byte.
    wrong: u32,
    /// Frames of the sequence that are missing, where some may be: in a burst that is larger than the ring.
    lossy: bool,
    lost: u32,
    /// The last answer that is not of the sequence: kind, number, argument.
    answer: Option<(u8, u32, u32)>,
    /// Frames by the address they were sent to: the filter test's.
    seen: [u32; ADDRESSES],
    others: u32,
}

/// Addresses of the filter test: ours, another's, a group's, everybody's.
const ADDRESSES: usize = 4;
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 0x77];
const GROUP: [u8; 6] = [1, 0, 0x5e, 0, 0, 0x11];

/// Every 1455 numbers, each length comes once.
fn length(number: u32) -> usize {
    MIN_LEN + (u64::from(number) * 677 % (MAX_LEN - MIN_LEN + 1) as u64) as usize
}

/// Fills in the content of a number of a sequence.
fn fill(seed: u64, whose: u64, number: u32, content: &mut [u8]) {
    let mut state = seed ^ whose << 32 ^ u64::from(number);
    for chunk in content.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let word = (z ^ (z >> 31)).to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
}

fn header(frame: &mut [u8], from: MacAddress, kind: u8, number: u32, argument: u32) {
    frame[..6].copy_from_slice(&PEER);
    frame[6..12].copy_from_slice(&from.0);
    frame[12..14].copy_from_slice(&ETHERTYPE);
    frame[14] = kind;
    frame[15..19].copy_from_slice(&number.to_le_bytes());
    frame[19..23].copy_from_slice(&argument.to_le_bytes());
}

impl Side {
    /// Sends the next frame of the sequence, if the ring has room.
    fn send_next(&mut self) -> bool {
        let mut frame = [0; MAX_LEN];
        let len = length(self.sent);
        header(&mut frame, self.card.mac(), DATA, self.sent, len as u32);
        fill(self.seed, MINE, self.sent, &mut frame[CONTENT..len]);
        let taken = self.card.transmit(&frame[..len]).is_ok();
        self.sent += u32::from(taken);
        taken
    }

    /// Sends as much of the sequence, up to number `goal`, as may be under way.
    fn send_up_to(&mut self, goal: u32, window: u32) {
        let answered = self.received.wrapping_sub(self.unasked);
        while self.sent < goal && self.sent.wrapping_sub(answered) < window && self.send_next() {}
    }

    /// All of the sequence up to number `goal` has been answered.
    fn is_level(&self, goal: u32) -> bool {
        self.received.wrapping_sub(self.unasked) >= goal
    }

    fn ask(&mut self, kind: u8, number: u32, argument: u32) {
        let mut frame = [0; MIN_LEN];
        header(&mut frame, self.card.mac(), kind, number, argument);
        self.answer = None;
        while self.card.transmit(&frame).is_err() {
            cpu::pause();
        }
    }

    /// Takes what has come: how many frames.
    fn drain(&mut self, budget: usize) -> usize {
        let Self { card, seed, received, wrong, lossy, lost, answer, seen, others, .. } = self;
        let me = card.mac();
        card.receive(budget, &mut |frame| {
            let Some(&[a, b, c, d, e, f, g, h]) = frame.get(15..23).and_then(|f| f.first_chunk::<8>()) else {
                *others += 1;
                return;
            };
            let (kind, number) = (frame[14], u32::from_le_bytes([a, b, c, d]));
            if frame[12..14] != ETHERTYPE || frame[6..12] != PEER {
                *others += 1;
            } else if kind == DATA {
                let in_order = number == *received || *lossy && number > *received;
                let right = frame[..6] == me.0 && in_order && is_right(*seed, number, frame);
                *wrong += u32::from(!right);
                *lost += if right { number - *received } else { 0 };
                *received = number.wrapping_add(1);
            } else if kind == FILTER && number < ADDRESSES as u32 {
                seen[number as usize] += 1;
            } else {
                *answer = Some((kind, number, u32::from_le_bytes([e, f, g, h])));
            }
        })
    }

    /// Polls until `done`; false: the peer was silent for too long.
    fn poll_until(&mut self, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let mut heard = self.clock.now_ns();
        while !done(self) {
            if self.drain(64) > 0 {
                heard = self.clock.now_ns();
            } else if self.clock.now_ns() - heard > PATIENCE_NS {
                return false;
            } else {
                cpu::pause();
            }
        }
        true
    }

    /// Sends up to number `goal` of the sequence, and gets as many: the peer answers each.
    fn exchange_polled(&mut self, goal: u32) -> bool {
        self.poll_until(|side| {
            side.send_up_to(goal, WINDOW);
            side.is_level(goal)
        })
    }

    /// The same, looking at the card only after it has called. The number of frames that a tick found: none, if the card
    /// calls for each.
    fn exchange_called(&mut self, goal: u32) -> (bool, u32) {
        let (mut found, mut called) = (0, true);
        let mut heard = self.clock.now_ns();
        self.card.set_events(NetEvents { received: true, sent: true, link: true });
        while !self.is_level(goal) {
            self.card.take_events();
            let count = self.drain(64) as u32;
            found += if called { 0 } else { count };
            // One at a time: the card must call for each. Then many: it calls for what comes while others are looked at.
            let window = if (self.sent / 64).is_multiple_of(4) { 1 } else { WINDOW };
            self.send_up_to(goal, window);
            if count > 0 {
                heard = self.clock.now_ns();
                called = true;
                continue;
            }
            if self.clock.now_ns() - heard > PATIENCE_NS {
                break;
            }
            called = interrupts::wait();
        }
        self.card.set_events(NetEvents::NONE);
        self.card.take_events();
        (self.is_level(goal), found)
    }

    /// An answer of this kind.
    fn answered(&mut self, kind: u8) -> Option<(u32, u32)> {
        self.poll_until(|side| side.answer.is_some_and(|answer| answer.0 == kind));
        self.answer.filter(|answer| answer.0 == kind).map(|(_, number, argument)| (number, argument))
    }
}

/// Whether a frame of the peer's sequence is as it must be.
fn is_right(seed: u64, number: u32, frame: &[u8]) -> bool {
    let mut wanted = [0; MAX_LEN];
    // The peer's lengths are half a round away from ours.
    let len = length(number.wrapping_add(700));
    fill(seed, YOURS, number, &mut wanted[CONTENT..len]);
    frame.len() == len && frame[CONTENT..] == wanted[CONTENT..len]
}

fn filters(side: &mut Side, report: &mut Report) {
    let filter = |station: bool, groups, everything| Filter {
        station: station.then_some(MacAddress(OTHER)),
        groups,
        everything,
    };
    for (name, filter, wanted) in [
        ("start", Filter::default(), [1, 0, 0, 1]),
        ("station", filter(true, false, false), [1, 1, 0, 1]),
        ("groups", filter(true, true, false), [1, 1, 1, 1]),
        ("everything", filter(false, false, true), [1, 1, 1, 1]),
        ("start-again", Filter::default(), [1, 0, 0, 1]),
    ] {
        side.card.set_filter(filter);
        side.seen = [0; ADDRESSES];
        side.ask(FILTER, u32::from_le_bytes([OTHER[5], GROUP[5], 0, 0]), 0);
        let done = side.answered(FILTER).is_some();
        report.holds(format_args!("nic-filter-{name}-answered"), done);
        report.same(format_args!("nic-filter-{name}"), side.seen, wanted);
    }
}

/// Asks for a burst, looks away, and takes it: more than the ring can hold. What does not come must have been counted by the
/// card; how many that was.
fn burst(side: &mut Side, report: &mut Report, count: u32) -> u64 {
    let (wrong, missed) = (side.wrong, side.card.counters().missed);
    let end = side.received + count;
    side.lossy = true;
    side.ask(BURST, count, 0);
    side.clock.delay_ns(AWAY_NS);
    let mut heard = side.clock.now_ns();
    let mut got = 0;
    while side.clock.now_ns() - heard < QUIET_NS {
        let taken = side.drain(64) as u64;
        got += taken;
        heard = if taken > 0 { side.clock.now_ns() } else { heard };
    }
    side.ask(BURST, 0, 0);
    let told = side.answered(BURST).map(|(number, _)| number);
    report.same("nic-burst-all-sent", told, Some(end));
    side.lost += end - side.received;
    (side.received, side.lossy) = (end, false);
    side.unasked += count;
    let missed = side.card.counters().missed - missed;
    println!("@@ fact burst={count} got={got} lost={} missed={missed}", side.lost);
    report.equal("nic-burst-wrong", (side.wrong - wrong).into(), 0);
    report.within("nic-burst-ring-held", got, RINGS.receive as u64 - 1, count.into());
    // QEMU's 82576 drops what its ring has no room for and does not count it.
    if side.card.family() != Family::Igb {
        report.equal("nic-burst-lost-is-missed", side.lost.into(), missed);
    }
    missed
}

/// The cable is pulled and plugged: the card calls, says so, and sends and receives as before.
fn flap(side: &mut Side, report: &mut Report) {
    side.card.set_events(NetEvents { link: true, ..NetEvents::NONE });
    side.card.take_events();
    side.ask(FLAP, 50, 0);
    for (name, down) in [("down", true), ("up", false)] {
        let since = side.clock.now_ns();
        let mut told = false;
        while !(told && (side.card.link() == Link::Down) == down) && side.clock.now_ns() - since < PATIENCE_NS
        {
            if interrupts::wait() {
                told |= side.card.take_events().link;
            }
        }
        report.holds(format_args!("nic-link-{name}-told"), told);
        report.holds(format_args!("nic-link-{name}-seen"), (side.card.link() == Link::Down) == down);
    }
    side.card.set_events(NetEvents::NONE);
    report.holds("nic-link-peer", side.answered(FLAP).is_some());
    let goal = side.sent + 200;
    report.holds("nic-link-frames-again", side.exchange_polled(goal));
}

fn run(report: &mut Report) {
    let frames = boot::number("frames", 1_000) as u32;
    let started = find_card(boot::number("card", 0) as usize).and_then(|(function, model)| {
        println!("@@ fact card=\"{}\" driver={}", model.name, model.family.name());
        let card = start(&function, model, RINGS)?;
        Ok((card, interrupts::arrange(&function)?))
    });
    let (mut card, way) = match started {
        Ok(started) => started,
        Err(why) => {
            println!("@@ refusal {why}");
            exit::exit(exit::Code::Refused)
        }
    };
    let clock = TscClock::new();
    report.holds("nic-link", clock.wait_until(PATIENCE_NS, || card.link() != Link::Down));
    card.set_filter(Filter::default());
    let seed = boot::number("seed", 1);
    let mut side = Side {
        card,
        clock,
        seed,
        sent: 0,
        received: 0,
        unasked: 0,
        wrong: 0,
        lossy: false,
        lost: 0,
        answer: None,
        seen: [0; ADDRESSES],
        others: 0,
    };
    let since = side.clock.now_ns();
    report.holds("nic-polled-all", side.exchange_polled(frames / 2));
    let polled = side.clock.now_ns() - since;
    let (all, found) = side.exchange_called(frames);
    report.holds("nic-called-all", all);
    // A tick may come in the 20 us by which the card holds an interrupt back.
    report.within("nic-found-by-tick", found.into(), 0, u64::from(frames) / 100 + 5);
    report.within("nic-interrupts", interrupts::count().into(), u64::from(frames) / 20, u64::MAX);
    let called = side.clock.now_ns() - since - polled;
    filters(&mut side, report);
    let missed = match boot::number("burst", 0) as u32 {
        0 => 0,
        count => burst(&mut side, report, count),
    };
    for _ in 0..boot::number("flaps", 0) {
        flap(&mut side, report);
    }
    finish(&mut side, report, missed);
    println!(
        "@@ frames way={way} sent={} received={} wrong={} polled-ms={} called-ms={} interrupts={}",
        side.sent,
        side.received,
        side.wrong,
        polled / 1_000_000,
        called / 1_000_000,
        interrupts::count()
    );
}

/// What both sides have counted; `missed` frames were, in a burst.
fn finish(side: &mut Side, report: &mut Report, missed: u64) {
    side.ask(TELL, 0, 0);
    let told = side.answered(TELL);
    report.same("nic-peer-received-and-wrong", told, Some((side.sent, 0)));
    report.equal("nic-wrong", side.wrong.into(), 0);
    let counters = side.card.counters();
    report.equal("nic-damaged", counters.receive_errors + counters.bad_descriptors, 0);
    report.equal("nic-missed", counters.missed, missed);
    report.equal("nic-not-sent", counters.transmit_errors, 0);
    report.within("nic-counted-sent", counters.sent, side.sent.into(), u64::from(side.sent) + 100);
    let received = u64::from(side.received - side.lost);
    report.within(
        "nic-counted-received",
        counters.received,
        received,
        received + u64::from(side.others) + 100,
    );
}
