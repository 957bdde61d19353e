//! Do two machines on a network that loses, duplicates and reorders frames see the same, tick for tick, in every run of
//! one seed? `role=a` sends `frames=` pings one after another, each until it is answered; `role=b` answers. Each prints
//! a hash of everything it saw with the time at which it saw it; the host compares runs.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![deny(unsafe_code)]

use e1000::Rings;
use guests::net::{Card, TscClock, start_card};
use guests::{Report, boot, cpu, exit, println};
use hal::{Clock, NetDevice};

guests::program!(run);

/// Type of our frames: "local experimental 2" (IEEE 802).
const ETHERTYPE: [u8; 2] = [0x88, 0xb6];
const HEADER_BYTES: usize = 14;
/// After the header: kind, sequence number, hash of the body; then the body.
const BODY: usize = HEADER_BYTES + 1 + 4 + 8;
/// With it a frame has 60 bytes, so that no card pads it.
const MIN_BODY: u64 = 60 - BODY as u64;
const MAX_BODY: u64 = 1400;
/// An unanswered ping is sent again after this long, in nanoseconds.
const RETRANSMIT_NS: u64 = 2_000_000;
/// Silence after which B, having been told that it is over, believes it: A repeats itself more often.
const LINGER_NS: u64 = 50_000_000;
/// Silence after which a side gives up, in milliseconds, unless `patience-ms=` says otherwise.
const PATIENCE_MS: u64 = 20_000;

const PING: u8 = 1;
const PONG: u8 = 2;
const OVER: u8 = 3;
const OVER_TOO: u8 = 4;

/// FNV-1a, 64 bits.
#[derive(Clone, Copy)]
struct Hash(u64);

impl Hash {
    const NEW: Self = Self(0xcbf2_9ce4_8422_2325);

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn of(bytes: &[u8]) -> u64 {
        let mut hash = Self::NEW;
        hash.add(bytes);
        hash.0
    }
}

/// A message as received.
#[derive(Clone, Copy)]
struct Message {
    kind: u8,
    sequence: u32,
}

struct Player {
    card: Card,
    clock: TscClock,
    random: u64,
    peer: [u8; 6],
    patience_ns: u64,
    /// Everything seen and done, with its time.
    hash: Hash,
    sent: u64,
    received: u64,
    repeated: u64,
    corrupt: u64,
}

impl Player {
    fn note(&mut self, what: u8, bytes: &[u8]) {
        self.hash.add(&[what]);
        self.hash.add(&cpu::rdtsc().to_le_bytes());
        self.hash.add(bytes);
    }

    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Sends a message with a body of random length and content.
    fn send(&mut self, kind: u8, sequence: u32) {
        let mut frame = [0u8; BODY + MAX_BODY as usize];
        let len = BODY + (MIN_BODY + self.next_random() % (MAX_BODY - MIN_BODY + 1)) as usize;
        for chunk in 0..(len - BODY).div_ceil(8) {
            let word = self.next_random().to_le_bytes();
            let start = BODY + chunk * 8;
            let n = (len - start).min(8);
            frame[start..start + n].copy_from_slice(&word[..n]);
        }
        frame[..6].copy_from_slice(&self.peer);
        frame[6..12].copy_from_slice(&self.card.mac().0);
        frame[12..14].copy_from_slice(&ETHERTYPE);
        frame[14] = kind;
        frame[15..19].copy_from_slice(&sequence.to_le_bytes());
        let hash = Hash::of(&frame[BODY..len]).to_le_bytes();
        frame[19..BODY].copy_from_slice(&hash);
        // One message is under way at a time, so the ring has room; if not, that is a finding.
        match self.card.transmit(&frame[..len]) {
            Ok(()) => self.sent += 1,
            Err(_) => self.corrupt += 1,
        }
        self.note(b's', &frame[14..BODY]);
    }

    /// The next message, if one has come.
    fn poll(&mut self) -> Option<Message> {
        let mut frame = [0u8; 2048];
        let mut len = 0;
        self.card.receive(1, &mut |bytes| {
            frame[..bytes.len()].copy_from_slice(bytes);
            len = bytes.len();
        });
        if len == 0 {
            return None;
        }
        self.note(b'r', &frame[..len]);
        if frame[12..14] != ETHERTYPE {
            return None;
        }
        if len < BODY || frame[19..BODY] != Hash::of(&frame[BODY..len]).to_le_bytes() {
            self.corrupt += 1;
            return None;
        }
        self.received += 1;
        self.peer.copy_from_slice(&frame[6..12]);
        let sequence = u32::from_le_bytes([frame[15], frame[16], frame[17], frame[18]]);
        Some(Message { kind: frame[14], sequence })
    }

    /// Sends a message until the answer comes. False: nobody is there.
    fn exchange(&mut self, kind: u8, answer: u8, sequence: u32) -> bool {
        let start = self.clock.now_ns();
        self.send(kind, sequence);
        let mut sent = start;
        loop {
            let now = self.clock.now_ns();
            match self.poll() {
                Some(m) if m.kind == answer && m.sequence == sequence => return true,
                Some(_) => {} // a late or doubled answer to an earlier message
                None if now - start > self.patience_ns => return false,
                None if now - sent > RETRANSMIT_NS => {
                    self.repeated += 1;
                    self.send(kind, sequence);
                    sent = now;
                }
                None => cpu::pause(),
            }
        }
    }

    /// Role A: the number of pings that were answered.
    fn serve(&mut self, frames: u32) -> u32 {
        for sequence in 0..frames {
            if !self.exchange(PING, PONG, sequence) {
                return sequence;
            }
        }
        self.exchange(OVER, OVER_TOO, frames);
        frames
    }

    /// Role B: the number of different pings that came.
    fn answer(&mut self) -> u32 {
        let (mut expected, mut over) = (0, false);
        let mut heard = self.clock.now_ns();
        loop {
            let now = self.clock.now_ns();
            let Some(message) = self.poll() else {
                let patience = if over { LINGER_NS } else { self.patience_ns };
                if now - heard > patience {
                    return expected;
                }
                cpu::pause();
                continue;
            };
            heard = now;
            match message.kind {
                PING if message.sequence <= expected => {
                    self.repeated += u64::from(message.sequence != expected);
                    expected = expected.max(message.sequence + 1);
                    self.send(PONG, message.sequence);
                }
                OVER => {
                    over = true;
                    self.send(OVER_TOO, message.sequence);
                }
                // A ping from the future: A has gone on without our answer.
                _ => self.corrupt += 1,
            }
        }
    }
}

fn run(report: &mut Report) {
    let frames = boot::number("frames", 10_000) as u32;
    let role = boot::option("role").unwrap_or("a");
    let card = match start_card(0, Rings { receive: 32, transmit: 16 }) {
        Ok(card) => card,
        Err(why) => {
            println!("@@ refusal {why}");
            exit::exit(exit::Code::Refused)
        }
    };
    let random = boot::number("seed", 1) ^ Hash::of(role.as_bytes());
    let (clock, peer) = (TscClock::new(), [0xff; 6]);
    let patience_ns = boot::number("patience-ms", PATIENCE_MS) * 1_000_000;
    let mut player = Player {
        card,
        clock,
        random,
        peer,
        patience_ns,
        hash: Hash::NEW,
        sent: 0,
        received: 0,
        repeated: 0,
        corrupt: 0,
    };
    println!("@@ fact role={role} mac={} frames={frames}", player.card.mac());
    let done = if role == "a" { player.serve(frames) } else { player.answer() };
    let tsc = cpu::rdtsc();
    let counters = player.card.counters();
    println!(
        "@@ pingpong role={role} frames={done} sent={} received={} repeated={} missed={} tsc={tsc} hash={:016x}",
        player.sent, player.received, player.repeated, counters.missed, player.hash.0
    );
    report.equal("pingpong-frames", done.into(), frames.into());
    report.equal("pingpong-corrupt", player.corrupt, 0);
    report.equal("pingpong-bad-descriptors", counters.bad_descriptors + counters.receive_errors, 0);
}
