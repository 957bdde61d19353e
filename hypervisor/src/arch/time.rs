//! The time-stamp counter as a clock: calibration, uptime, waiting.

use super::{cpu, port};
use crate::calibration::{self, CrystalRatio, Frequency};
use core::sync::atomic::{AtomicU64, Ordering};

/// Ticks of the legacy timer (8254) in a second.
const PIT_HERTZ: u64 = 1_193_182;

/// Ticks of the legacy timer that one measurement takes: 10 ms.
const PIT_TICKS: u16 = 11_932;

/// Counts of the time-stamp counter after which a legacy timer that does not end is given up: a second or more.
const PIT_PATIENCE: u64 = 10_000_000_000;

/// Measurements; the median counts, since an emulator may be held up during one.
const MEASUREMENTS: usize = 3;

static START: AtomicU64 = AtomicU64::new(0);
static HERTZ: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds of a count, times 2^32: within 2^-32 of the truth for counters of 1 GHz, and no division on the way.
static NS_PER_TICK: AtomicU64 = AtomicU64::new(0);

/// Marks the start of uptime. First thing at boot.
pub fn start() {
    START.store(cpu::tsc(), Ordering::Relaxed);
}

/// Counts of the time-stamp counter in a second; 0 before calibration.
pub fn hertz() -> u64 {
    HERTZ.load(Ordering::Relaxed)
}

/// Seconds and microseconds since the kernel's start; zeros before calibration.
pub fn uptime() -> (u64, u64) {
    let hertz = hertz();
    if hertz == 0 {
        return (0, 0);
    }
    let ticks = cpu::tsc().wrapping_sub(START.load(Ordering::Relaxed));
    (ticks / hertz, ticks % hertz * 1_000_000 / hertz)
}

/// Nanoseconds since the kernel's start; 0 before calibration.
pub fn now_ns() -> u64 {
    let ticks = cpu::tsc().wrapping_sub(START.load(Ordering::Relaxed));
    ((u128::from(ticks) * u128::from(NS_PER_TICK.load(Ordering::Relaxed))) >> 32) as u64
}

/// Finds the counter's frequency and uses it from now on. `None`: no source says anything.
pub fn calibrate() -> Option<Frequency> {
    let id = raw_cpuid::CpuId::new();
    let ratio = id.get_tsc_info().map(|t| CrystalRatio {
        denominator: t.denominator(),
        numerator: t.numerator(),
        crystal: t.nominal_frequency(),
    });
    let base = id.get_processor_frequency_info().map(|f| f.processor_base_frequency().into());
    let chosen = calibration::choose(ratio, base, measure())?;
    HERTZ.store(chosen.hertz, Ordering::Relaxed);
    let per_tick = (1_000_000_000u128 << 32) / u128::from(chosen.hertz.max(1));
    NS_PER_TICK.store(per_tick as u64, Ordering::Relaxed);
    Some(chosen)
}

/// The median of several measurements against the legacy timer.
fn measure() -> Option<u64> {
    let mut found = [0; MEASUREMENTS];
    for f in &mut found {
        *f = measure_once()?;
    }
    found.sort_unstable();
    Some(found[MEASUREMENTS / 2])
}

/// Lets the legacy timer's channel 2 run down once (gate and output are in port 61h). Intel 8254 data sheet, mode 0.
fn measure_once() -> Option<u64> {
    const GATE: u8 = 1;
    const SPEAKER: u8 = 2;
    const OUTPUT: u8 = 1 << 5;
    let control = port::read_u8(0x61) & !(GATE | SPEAKER);
    port::write_u8(0x61, control);
    port::write_u8(0x43, 0b1011_0000); // channel 2, low byte then high byte, mode 0
    port::write_u8(0x42, PIT_TICKS as u8);
    port::write_u8(0x42, (PIT_TICKS >> 8) as u8);
    port::write_u8(0x61, control | GATE);
    let start = cpu::tsc();
    while port::read_u8(0x61) & OUTPUT == 0 {
        if cpu::tsc().wrapping_sub(start) > PIT_PATIENCE {
            return None;
        }
    }
    let ticks = cpu::tsc().wrapping_sub(start);
    port::write_u8(0x61, control);
    // A port that floats says "done" at once.
    (ticks > 1000).then(|| ticks * PIT_HERTZ / u64::from(PIT_TICKS))
}

/// The counter's value `micros` microseconds from now.
pub fn deadline(micros: u64) -> u64 {
    cpu::tsc().saturating_add((u128::from(micros) * u128::from(hertz()) / 1_000_000) as u64)
}

/// Nothing to be done by the processor until an interrupt or a time: see [`super::alarm`].
pub use super::alarm::wait_for_interrupt;

/// Waits.
pub fn wait_micros(micros: u64) {
    let end = deadline(micros);
    while cpu::tsc() < end {
        core::hint::spin_loop();
    }
}

/// Waits until `done` says so, at most `micros` microseconds. Returns whether it did.
pub fn wait_until(micros: u64, mut done: impl FnMut() -> bool) -> bool {
    let end = deadline(micros);
    while !done() {
        if cpu::tsc() >= end {
            return done();
        }
        core::hint::spin_loop();
    }
    true
}
