//! Which generation a host that starts is to take part in: the one after that of the arbiter's record.
//!
//! A generation is consumed once and never comes back, so the number must not be taken from anything that a restart forgets. Two
//! hosts come together only if both have just started: whoever has, or had, the guest has closed its channel for good. So when the next
//! generation is armed, nobody runs the guest of an older one.

use super::wire::Card;
use crate::arch::{alarm, time};
use crate::{duties, machine_line};
use ft::arbiter::lock::Client;
use ft::arbiter::lock::wire::REPLY;
use ft::arbiter::record::{Record, Standing};
use ft::arbiter::{Answer, Arbiter, Ask};
use ft::side::Side;
use net::{DATAGRAM, Peer};

/// The first generation of a virtual machine that the arbiter knows nothing of.
const FIRST: u64 = 1;

/// Between two looks at the card while the arbiter's answer is awaited, nanoseconds.
const LOOK_NS: u64 = 1_000_000;

/// How often it is said that the arbiter does not answer, nanoseconds.
const SAY_NS: u64 = 10_000_000_000;

/// Asks until the arbiter answers: without it nothing can be armed.
pub fn next(card: &mut Card, arbiter: &mut Client, at: Peer, side: Side) -> u64 {
    alarm::init();
    let mut say = time::now_ns();
    loop {
        match ask(card, arbiter, at) {
            Answer::Unknown | Answer::Unreachable => {
                if time::now_ns() >= say {
                    log::warn!("pair: the arbiter does not answer: this host waits for it");
                    machine_line!("pair event=no-arbiter side={side}");
                    say = time::now_ns().saturating_add(SAY_NS);
                }
            }
            // There is no record, or it is of a newer generation than none.
            _ => {
                let Some(record) = arbiter.record() else { return FIRST };
                tell(&record, side);
                return record.generation.saturating_add(1);
            }
        }
    }
}

fn ask(card: &mut Card, arbiter: &mut Client, at: Peer) -> Answer {
    arbiter.ask(Ask::ReadBack { generation: 0 }, time::now_ns());
    let mut bytes = [0; DATAGRAM];
    loop {
        let now = time::now_ns();
        while let Some(request) = arbiter.transmit(now) {
            card.stack.send_datagram(at, &request);
        }
        card.poll(now);
        while let Some((length, from)) = card.stack.receive_datagram(&mut bytes) {
            if from == at && length == REPLY {
                arbiter.receive(&bytes[..length]);
            }
        }
        if let Some(answer) = arbiter.poll(now) {
            return answer;
        }
        duties::take(!0);
        // The card is looked at that often, whether its interrupt comes or not.
        time::wait_for_interrupt(duties::ALL, Some(now + LOOK_NS));
    }
}

/// Says what the record means for a host that has just started.
fn tell(record: &Record, side: Side) {
    let Record { generation, standing, owner, .. } = *record;
    let (state, what) = match standing {
        Standing::Solo => ("consumed", "was consumed"),
        Standing::Protected => ("armed", "was armed"),
    };
    machine_line!("pair event=record side={side} generation={generation} state={state} owner={owner}");
    log::info!("pair: generation {generation} {what} by host {owner}, and never begins again");
    if owner != side || standing == Standing::Protected {
        log::warn!(
            "pair: if host {} still runs the virtual machine, it is alone with it, and this host cannot join: shut the machine down \
             there and start both hosts anew, which begins generation {}",
            side.other(),
            generation.saturating_add(1)
        );
    }
}
