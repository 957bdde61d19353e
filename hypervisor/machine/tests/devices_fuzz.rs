//! A seeded fuzzer of every small device and of the interrupt controllers.
//!
//! An input is a string of bytes that is read as accesses, lines and jumps of time. Inputs that show something new (an access
//! with an outcome that had not been seen after the access before it) are kept and mutated: so the fuzzer works itself into modes
//! that plain chance does not find. After each step, what always has to hold is checked; the state is saved and restored on the way
//! and must have the same future; and states spoilt on purpose must be refused or do no harm.
//!
//! Short by default. `LOCKSTEP_FUZZ_RUNS=1000000 LOCKSTEP_FUZZ_SEED=7 cargo test --release -p machine --test devices_fuzz`
//! goes on longer and elsewhere.

use std::collections::BTreeSet;

use machine::devices::{BadState, Keyboard, Pit, Pm, Rtc, Uart};
use machine::interrupts::Interrupts;
use machine::{devices, interrupts};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Runs of each device if the environment says nothing.
const RUNS: u64 = 400;
/// Bytes of the longest input.
const LONGEST: usize = 600;

/// A device as the fuzzer sees it.
trait Subject: Sized + Clone {
    type State: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug;
    fn fresh() -> Self;
    fn save(&self) -> Self::State;
    fn restore(state: Self::State) -> Result<Self, BadState>;
    /// One access; what came of it.
    fn access(&mut self, kind: u8, value: u8, more: &mut Bytes<'_>, now: u64) -> u64;
    fn deadline(&self) -> Option<u64>;
    /// Lets time pass; what came of it.
    fn advance(&mut self, now: u64) -> u64;
    /// What the outputs are.
    fn outputs(&self) -> u64;
}

/// An input.
#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// The next byte, or 0 at the end.
    fn byte(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    fn word(&mut self) -> u32 {
        u32::from_le_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
    }
}

macro_rules! subject {
    ($device:ty, $state:ty, $fresh:expr, |$s:ident, $kind:ident, $value:ident, $more:ident, $now:ident| $access:expr,
     $deadline:expr, $advance:expr, $outputs:expr) => {
        impl Subject for $device {
            type State = $state;
            fn fresh() -> Self {
                $fresh
            }
            fn save(&self) -> Self::State {
                self.save()
            }
            fn restore(state: Self::State) -> Result<Self, BadState> {
                <$device>::restore(state)
            }
            #[allow(unused_variables)]
            fn access(&mut self, $kind: u8, $value: u8, $more: &mut Bytes<'_>, $now: u64) -> u64 {
                let $s = self;
                $access
            }
            fn deadline(&self) -> Option<u64> {
                let deadline: fn(&$device) -> Option<u64> = $deadline;
                deadline(self)
            }
            fn advance(&mut self, now: u64) -> u64 {
                let advance: fn(&mut $device, u64) -> u64 = $advance;
                advance(self, now)
            }
            fn outputs(&self) -> u64 {
                let outputs: fn(&$device) -> u64 = $outputs;
                outputs(self)
            }
        }
    };
}

fn code(byte: Option<u8>) -> u64 {
    byte.map_or(0x100, u64::from)
}

subject!(
    Uart,
    devices::uart::State,
    Uart::new(),
    |s, kind, value, more, now| match kind % 18 {
        offset @ 0..8 => u64::from(s.read(offset.into(), now)),
        offset @ 8..16 => code(s.write(u16::from(offset) - 8, value, now)),
        16 => s.receive(&[value, 1, 2, 3, 4, 5, 6, 7, 8][..usize::from(value % 9)], now) as u64,
        _ => u64::from(s.read(more.word() as u16, now)),
    },
    Uart::deadline,
    |s, now| {
        s.advance(now);
        0
    },
    |s| u64::from(s.irq()) | (s.room() as u64) << 1
);

subject!(
    Pit,
    devices::pit::State,
    Pit::new(),
    |s, kind, value, more, now| match kind % 11 {
        offset @ 0..4 => u64::from(s.read(offset.into(), now)),
        offset @ 4..8 => {
            s.write(u16::from(offset) - 4, value, now);
            0
        }
        8 => u64::from(s.read_control(now)),
        9 => {
            s.write_control(value, now);
            0
        }
        _ => {
            s.write(more.word() as u16, value, now);
            0
        }
    },
    Pit::deadline,
    |s, now| u64::from(s.advance(now)),
    |_| 0
);

subject!(
    Rtc,
    devices::rtc::State,
    Rtc::new(1_783_641_598, 1 << 30, 0),
    |s, kind, value, more, now| match kind % 4 {
        // Mostly the registers of the clock.
        0 => {
            s.write(0, if value & 0x80 != 0 { value } else { value & 0xf }, now);
            0
        }
        1 => {
            s.write(1, value, now);
            0
        }
        2 => u64::from(s.read(1, now)),
        _ => u64::from(s.read(more.word() as u16, now)),
    },
    Rtc::deadline,
    |s, now| {
        s.advance(now);
        0
    },
    |s| u64::from(s.irq())
);

subject!(
    Pm,
    devices::pm::State,
    Pm::new(),
    |s, kind, value, more, now| match kind % 26 {
        offset @ 0..12 => u64::from(s.read(offset.into(), now)),
        offset @ 12..24 => s.write(u16::from(offset) - 12, value, now).is_some().into(),
        24 => {
            s.power_button();
            0
        }
        _ => u64::from(s.read(more.word() as u16, now)),
    },
    Pm::deadline,
    |s, now| {
        s.advance(now);
        0
    },
    |s| u64::from(s.irq())
);

subject!(
    Keyboard,
    devices::keyboard::State,
    Keyboard::new(),
    |s, kind, value, more, now| match kind % 9 {
        0 => s.read(0, now).into(),
        1 => s.read(4, now).into(),
        2 => s.write(0, value, now).is_some().into(),
        3 => s.write(4, value, now).is_some().into(),
        4 => s.read_port_92().into(),
        5 => s.write_port_92(value).is_some().into(),
        6 => s.read_reset_control().into(),
        7 => s.write_reset_control(value).is_some().into(),
        _ => s.read(more.word() as u16, now).into(),
    },
    |_| None,
    |_, _| 0,
    |s| u64::from(s.irq()) | u64::from(s.a20()) << 1
);

/// The registers of the local APIC that do something, and one that is not there.
const APIC_REGISTERS: [u64; 20] = [
    0x20, 0x80, 0xa0, 0xb0, 0xd0, 0xe0, 0xf0, 0x100, 0x1f0, 0x280, 0x300, 0x310, 0x320, 0x350, 0x360, 0x370,
    0x380, 0x390, 0x3e0, 0x40,
];

/// Values for 32-bit registers: short ones, vectors with modes, anything.
fn register_value(value: u8, more: &mut Bytes<'_>) -> u32 {
    let next = more.byte();
    match next % 4 {
        0 => value.into(),
        1 => u32::from(value) | u32::from(more.byte()) << 8,
        2 => u32::from(value) | u32::from(more.byte()) << 12,
        _ => more.word(),
    }
}

fn access_interrupts(s: &mut Interrupts, kind: u8, value: u8, more: &mut Bytes<'_>, now: u64) -> u64 {
    const PORTS: [u16; 6] = [0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1];
    let port = PORTS[usize::from(value) % 6];
    let register = APIC_REGISTERS[usize::from(more.byte()) % 20];
    match kind % 20 {
        0 => s.set_line(value & 0x1f, value & 0x80 != 0),
        1 => s.pulse(value),
        2 => s.message(0xfee0_0000 | u64::from(more.word() & 0xff_ffff), register_value(value, more)),
        3 => return u64::from(s.read_port(port)),
        4 => s.write_port(port, more.byte()),
        5 => return u64::from(s.read_apic(register, now)),
        6 | 7 => s.write_apic(register, register_value(value, more), now),
        8 => return u64::from(s.read_io_apic([0, 0x10, 0x40][usize::from(value) % 3])),
        9 => s.write_io_apic(0, u32::from(value & 0x3f)),
        10 => s.write_io_apic(0x10, register_value(value, more)),
        11 => s.write_io_apic(0x40, value.into()),
        12 => return s.read_msr(0x800 + (register >> 4) as u32, now).map_or(1 << 63, |value| value & 0xff),
        13 => {
            let value = u64::from(register_value(value, more)) | u64::from(more.byte() & 1) << 32;
            return s.write_msr(0x800 + (register >> 4) as u32, value, now).is_some().into();
        }
        14 => {
            let base = 0xfee0_0000 | u64::from(value & 0xf) << 8;
            return s.write_msr(0x1b, base, now).is_some().into();
        }
        15 => {
            let at = now.saturating_add(u64::from(more.word() >> (value & 31)));
            return s.write_msr(0x6e0, if value == 0 { 0 } else { at }, now).is_some().into();
        }
        16 => s.set_task_priority(value),
        17 => return code(s.acknowledge()),
        18 => return s.take_nmi().into(),
        _ => return s.read_msr(more.word(), now).is_some().into(),
    }
    0
}

subject!(
    Interrupts,
    interrupts::State,
    {
        let mut all = Interrupts::new();
        all.set_virtual_wire();
        all
    },
    |s, kind, value, more, now| access_interrupts(s, kind, value, more, now),
    Interrupts::deadline,
    |s, now| {
        s.advance(now);
        0
    },
    |s| u64::from(s.pending()) | u64::from(s.nmi_pending()) << 1 | u64::from(s.task_priority()) << 2
);

/// One step of an input: kind, value, and what it needs more.
fn step<S: Subject>(subject: &mut S, bytes: &mut Bytes<'_>, now: &mut u64) -> Option<[u64; 3]> {
    let kind = bytes.next()?;
    let value = bytes.byte();
    let outcome = if kind < 0xc0 {
        subject.access(kind, value, bytes, *now)
    } else {
        *now = match kind % 4 {
            // To the deadline, or just before or after it.
            0 | 1 => subject
                .deadline()
                .map_or(*now, |at| at.saturating_add(u64::from(value % 3)).saturating_sub(1).max(*now)),
            2 => now.saturating_add(u64::from(value) << (bytes.byte() % 24)),
            // Rarely for years.
            _ => now.saturating_add(u64::from(value) << (bytes.byte() % 52)),
        };
        subject.advance(*now)
    };
    Some([kind.into(), outcome, subject.outputs()])
}

/// What has to hold after each step.
fn check<S: Subject>(subject: &mut S, now: u64) {
    subject.advance(now);
    let state = subject.save();
    assert_eq!(subject.advance(now), 0, "nothing happens twice");
    assert_eq!(subject.save(), state, "advance is idempotent");
    if let Some(deadline) = subject.deadline() {
        assert!(deadline > now || now == u64::MAX, "a deadline in the past: {deadline} at {now}");
    }
}

fn copy<S: Subject>(subject: &S) -> S {
    let bytes = postcard::to_allocvec(&subject.save()).expect("plain data");
    S::restore(postcard::from_bytes(&bytes).expect("as it was saved")).expect("a state that accesses led to")
}

/// Runs an input. Returns what was seen; checks as it goes. From `twin_from` on a restored copy goes along.
fn run<S: Subject>(input: &[u8], twin_from: usize) -> Vec<u64> {
    let (mut subject, mut now) = (S::fresh(), 0);
    let mut twin: Option<S> = None;
    let mut bytes = Bytes(input);
    let mut seen = Vec::new();
    let mut last = [0; 3];
    for number in 0.. {
        if number == twin_from {
            twin = Some(copy(&subject));
        }
        let (mut twins_bytes, mut twins_now) = (bytes, now);
        let Some(outcome) = step(&mut subject, &mut bytes, &mut now) else { break };
        check(&mut subject, now);
        if let Some(twin) = &mut twin {
            assert_eq!(step(twin, &mut twins_bytes, &mut twins_now), Some(outcome), "step {number}");
            check(twin, now);
            assert_eq!(twin.save(), subject.save(), "step {number}");
        }
        // A step, its outcome coarsely, and the step before.
        let feature = [last[0] % 64, last[2], outcome[0], outcome[1].min(0x200) >> 1, outcome[2]];
        seen.push(
            feature
                .iter()
                .fold(0xcbf2_9ce4_8422_2325, |hash: u64, part| (hash ^ part).wrapping_mul(0x0100_0000_01b3)),
        );
        last = outcome;
    }
    seen
}

/// A device whose saved state somebody has spoilt: refused, or harmless.
fn run_spoilt<S: Subject>(input: &[u8], random: &mut ChaCha20Rng) -> bool {
    let (mut subject, mut now) = (S::fresh(), 0);
    let mut bytes = Bytes(input);
    for _ in 0..below(random, 40) {
        if step(&mut subject, &mut bytes, &mut now).is_none() {
            break;
        }
    }
    let mut saved = postcard::to_allocvec(&subject.save()).expect("plain data");
    for _ in 0..=below(random, 3) {
        let at = below(random, saved.len() as u64) as usize;
        saved[at] ^= 1 << below(random, 8);
        if below(random, 3) == 0 {
            saved[at] = random.next_u32() as u8;
        }
    }
    let Ok(state) = postcard::from_bytes::<S::State>(&saved) else { return false };
    let Ok(mut subject) = S::restore(state) else { return false };
    while step(&mut subject, &mut bytes, &mut now).is_some() {}
    // Even a state from nowhere can be saved and restored... after an access has brought it up to date.
    subject.advance(now);
    true
}

fn below(random: &mut ChaCha20Rng, limit: u64) -> u64 {
    random.next_u64() % limit
}

/// Changes an input a little.
fn mutate(input: &mut Vec<u8>, other: &[u8], random: &mut ChaCha20Rng) {
    for _ in 0..=below(random, 4) {
        let at = below(random, input.len() as u64 + 1) as usize;
        match below(random, 5) {
            0 if at < input.len() => input[at] = random.next_u32() as u8,
            1 if at < input.len() => input[at] ^= 1 << below(random, 8),
            2 if at < input.len() => {
                input.remove(at);
            }
            3 => {
                // A piece of another input.
                let from = below(random, other.len() as u64 + 1) as usize;
                let piece = other[from..].iter().take(40).copied().collect::<Vec<_>>();
                input.splice(at..at, piece);
            }
            _ => {
                for _ in 0..below(random, 12) {
                    input.insert(at, random.next_u32() as u8);
                }
            }
        }
    }
    input.truncate(LONGEST);
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: a number")))
}

/// Returns how many different things were seen.
fn fuzz<S: Subject>() -> usize {
    let runs = from_environment("LOCKSTEP_FUZZ_RUNS", RUNS);
    let seed = from_environment("LOCKSTEP_FUZZ_SEED", 1);
    let mut random = ChaCha20Rng::seed_from_u64(seed);
    let mut corpus: Vec<Vec<u8>> = vec![Vec::new()];
    let mut seen = BTreeSet::new();
    let mut accepted = 0;
    for _ in 0..runs {
        let [one, other] = [(); 2].map(|()| below(&mut random, corpus.len() as u64) as usize);
        let mut input = corpus[one].clone();
        mutate(&mut input, &corpus[other], &mut random);
        let twin_from = below(&mut random, 60) as usize;
        let new = run::<S>(&input, twin_from).into_iter().filter(|feature| seen.insert(*feature)).count();
        accepted += u64::from(run_spoilt::<S>(&input, &mut random));
        if new != 0 {
            corpus.push(input);
        }
    }
    assert!(accepted != 0, "no spoilt state was ever accepted: nothing was tested");
    println!(
        "seed {seed}: {runs} runs, {} inputs kept, {} seen, {accepted} spoilt",
        corpus.len(),
        seen.len()
    );
    seen.len()
}

/// Runs inputs on a device whose state has numbers at the far ends of their types.
fn run_extremes<S: Subject>(spoil: impl Fn(&mut S::State, u64)) {
    let mut random = ChaCha20Rng::seed_from_u64(2);
    for number in [0, 1, 1 << 31, 1 << 32, 1 << 62, 1 << 63, u64::MAX - 1, u64::MAX] {
        for _ in 0..200 {
            let mut input = vec![0; below(&mut random, LONGEST as u64) as usize];
            random.fill_bytes(&mut input);
            let mut bytes = Bytes(&input);
            let (mut subject, mut now) = (S::fresh(), below(&mut random, 1 << 40));
            for _ in 0..below(&mut random, 100) {
                step(&mut subject, &mut bytes, &mut now);
            }
            let mut state = subject.save();
            spoil(&mut state, number);
            let Ok(mut subject) = S::restore(state) else { continue };
            while step(&mut subject, &mut bytes, &mut now).is_some() {}
        }
    }
}

#[test]
fn extremes_in_a_saved_state_do_no_harm() {
    run_extremes::<Pit>(|state, number| state.channels[0].start = number);
    run_extremes::<Pit>(|state, number| state.channels[0].seen = number);
    run_extremes::<Pit>(|state, number| state.channels[2].stopped = Some(number));
    run_extremes::<Pit>(|state, number| {
        state.channels[0].next = state.channels[0].next.map(|(count, _)| (count, number));
    });
    run_extremes::<Rtc>(|state, number| state.base = number as i64);
    run_extremes::<Rtc>(|state, number| state.second = number);
    run_extremes::<Rtc>(|state, number| state.period = number);
    run_extremes::<Pm>(|state, number| state.carries = number);
    run_extremes::<Uart>(|state, number| state.timeout_at = Some(number));
    run_extremes::<Interrupts>(|state, number| state.local.timer.expiry = Some(number));
}

// The bounds say that the fuzzer gets somewhere: what it sees by chance alone is less.

#[test]
fn uart() {
    assert!(fuzz::<Uart>() > 1500);
}

#[test]
fn pit() {
    assert!(fuzz::<Pit>() > 1500);
}

#[test]
fn rtc() {
    assert!(fuzz::<Rtc>() > 1000);
}

#[test]
fn pm() {
    assert!(fuzz::<Pm>() > 1000);
}

#[test]
fn keyboard() {
    assert!(fuzz::<Keyboard>() > 1000);
}

#[test]
fn interrupt_controllers() {
    assert!(fuzz::<Interrupts>() > 1500);
}
