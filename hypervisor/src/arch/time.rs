//! The time-stamp counter as a clock.

use super::cpu;
use core::sync::atomic::{AtomicU64, Ordering};

static START: AtomicU64 = AtomicU64::new(0);
static HERTZ: AtomicU64 = AtomicU64::new(0);

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
