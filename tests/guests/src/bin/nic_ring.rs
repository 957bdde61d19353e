//! Does a card that gets more frames than its ring has buffers keep what its FIFO holds, count the rest, and go on? A
//! station on the cable sends bursts on request.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![deny(unsafe_code)]

use e1000::{Cause, Rings};
use guests::net::{Card, TscClock, start_card};
use guests::{Report, cpu, exit, println};
use hal::{Clock, NetDevice};

guests::program!(run);

const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
/// Descriptors; one of them is never the card's.
const RING: u64 = 32;
/// What the card's FIFO holds, in bytes: the 82540EM's default (SDM 13.4.6, PBA).
const FIFO_BYTES: u64 = 48 * 1024;
/// In which a burst has come for certain, in nanoseconds.
const WAIT_NS: u64 = 10_000_000;

/// Asks for `count` frames of `len` bytes and looks away until they have come.
fn ask(card: &mut Card, clock: &TscClock, count: u16, len: u16) {
    let mut frame = [0u8; 60];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&card.mac().0);
    frame[12..14].copy_from_slice(&ETHERTYPE);
    frame[14..16].copy_from_slice(&count.to_le_bytes());
    frame[16..18].copy_from_slice(&len.to_le_bytes());
    let _ = card.transmit(&frame);
    let start = clock.now_ns();
    while clock.now_ns() - start < WAIT_NS {
        cpu::pause();
    }
}

/// Takes all that has come: how many, and how many of them were not the next in order or of another length.
fn drain(card: &mut Card, len: u16) -> (u64, u64) {
    let (mut received, mut wrong) = (0, 0);
    loop {
        let taken = card.receive(64, &mut |frame| {
            let number = frame.get(14..18).and_then(|f| f.try_into().ok()).map(u32::from_le_bytes);
            wrong += u64::from(number.map(u64::from) != Some(received) || frame.len() != usize::from(len));
            received += 1;
        });
        if taken == 0 {
            return (received, wrong);
        }
    }
}

fn run(report: &mut Report) {
    let clock = TscClock::new();
    let mut card = match start_card(0, Rings { receive: RING as usize, transmit: 8 }) {
        Ok(card) => card,
        Err(why) => {
            println!("@@ refusal {why}");
            exit::exit(exit::Code::Refused)
        }
    };
    let mut total = 0;
    for (name, count, len) in
        [("fits", 31, 200), ("fifo", 60, 1000), ("long", 100, 1000), ("short", 1000, 60)]
    {
        let room = RING - 1 + FIFO_BYTES / u64::from(len);
        let wanted = u64::from(count).min(room);
        card.interrupt_cause();
        let missed = card.counters().missed;
        ask(&mut card, &clock, count, len);
        let overrun = card.interrupt_cause().any(Cause::OVERRUN);
        let (received, wrong) = drain(&mut card, len);
        total += received;
        report.equal(format_args!("nic-ring-{name}-received"), received, wanted);
        report.equal(format_args!("nic-ring-{name}-out-of-order"), wrong, 0);
        report.equal(
            format_args!("nic-ring-{name}-missed"),
            card.counters().missed - missed,
            u64::from(count) - wanted,
        );
        report.equal(
            format_args!("nic-ring-{name}-overrun"),
            overrun.into(),
            (u64::from(count) > room).into(),
        );
    }
    println!("@@ ring received={total} missed={}", card.counters().missed);
}
