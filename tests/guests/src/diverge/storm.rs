//! Interrupts at a high rate and at uneven times: the local APIC's timer, shot by shot with lengths drawn from a seed, and the
//! PIT beside it.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::trail;
use crate::apic::{self, Register};
use crate::traps::{self, Frame, Handler};
use crate::{boot, cpu, devices, exits, timers};

/// Vector of the APIC's timer.
pub const TIMER: u8 = 0x60;
/// Vector of the PIT.
pub const PIT: u8 = 0x71;

/// The mean length between two interrupts is at least this many times what it takes to set the timer: on a host that is too slow for
/// the length that was asked for, the next interrupt would be due before the last one's handler is through, for ever.
const CALM: u64 = 60;

/// Where the running piece of code ends: [`crate::breakable`] stores it.
pub static EXIT: AtomicU64 = AtomicU64::new(0);
/// The timer's interrupts after which the running piece of code is left; 0: it ends by itself.
static LEFT: AtomicU64 = AtomicU64::new(0);
/// What else is done at an interrupt of the timer; 0: nothing.
static HOOK: AtomicUsize = AtomicUsize::new(0);
/// State of the random lengths.
static RANDOM: AtomicU64 = AtomicU64::new(0);
/// Mean length, ticks of the APIC's timer.
static PERIOD: AtomicU64 = AtomicU64::new(0);
/// 0: the APIC is reached by its memory, 1: by its MSRs.
static BY_MSR: AtomicU64 = AtomicU64::new(0);
/// The timer's interrupts that have come.
static CAME: AtomicU64 = AtomicU64::new(0);

/// Writes a register of the APIC, the way that was chosen.
pub fn write_apic(register: Register, value: u32) {
    if BY_MSR.load(Relaxed) == 0 {
        apic::write(register, value);
        return;
    }
    let msr = 0x800 + (register as u32 >> 4);
    cpu::wrmsr(msr, value.into()).expect("an x2APIC register");
}

/// A number from the seed.
pub fn random() -> u64 {
    let next =
        RANDOM.load(Relaxed).wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    RANDOM.store(next, Relaxed);
    next >> 33
}

fn arm() {
    let period = PERIOD.load(Relaxed);
    write_apic(Register::TimerInitial, (period / 4 + random() % (period * 3 / 2)).max(1) as u32);
}

/// How long it takes to set the timer, in its ticks.
fn time_to_arm() -> u64 {
    const TIMES: u64 = 8;
    let before = cpu::rdtsc();
    (0..TIMES).for_each(|_| arm());
    let ticks = u128::from((cpu::rdtsc() - before) / TIMES) * u128::from(timers::crystal_hz());
    (ticks / u128::from(timers::tsc_hz().max(1))) as u64
}

/// The timer's interrupts so far.
pub fn came() -> u64 {
    CAME.load(Relaxed)
}

fn on_timer(frame: &mut Frame) {
    trail::note(frame, cpu::rdtsc());
    CAME.store(came() + 1, Relaxed);
    let left = LEFT.load(Relaxed);
    if left != 0 {
        LEFT.store(left - 1, Relaxed);
        if left == 1 {
            frame.rip = EXIT.load(Relaxed);
        }
    }
    let hook = HOOK.load(Relaxed);
    // The hook may give the frame to something else, which is then interrupted next: all else comes before.
    write_apic(Register::EndOfInterrupt, 0);
    arm();
    if hook != 0 {
        // SAFETY: only `set_hook` stores there.
        unsafe { core::mem::transmute::<usize, Handler>(hook)(frame) };
    }
}

fn on_pit(frame: &mut Frame) {
    trail::note(frame, cpu::rdtsc());
    write_apic(Register::EndOfInterrupt, 0);
}

/// Goes on after somebody else has used the timer.
pub fn resume() {
    write_apic(Register::LvtTimer, TIMER.into());
    arm();
}

/// Does this at each interrupt of the timer, too.
pub fn set_hook(hook: Option<Handler>) {
    HOOK.store(hook.map_or(0, |hook| hook as usize), Relaxed);
}

/// The next piece of code is left at the `interrupts`th interrupt of the timer from now.
pub fn leave_after(interrupts: u64) {
    LEFT.store(interrupts, Relaxed);
}

/// Begins, with interrupts let in.
pub fn start() {
    let seed = boot::number("seed", 1);
    RANDOM.store(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), Relaxed);
    let ticks = u128::from(boot::number("period", 60_000)) * u128::from(timers::crystal_hz()) / 1_000_000_000;
    PERIOD.store((ticks as u64).max(8), Relaxed);
    apic::enable();
    traps::set_handler(TIMER, Some(on_timer));
    traps::set_handler(PIT, Some(on_pit));
    if boot::number("x2apic", 1) == 1 {
        devices::set_x2apic(0xfee0_0900).expect("x2APIC mode");
        BY_MSR.store(1, Relaxed);
    }
    write_apic(Register::TimerDivide, 0xb);
    write_apic(Register::LvtTimer, TIMER.into());
    PERIOD.store(PERIOD.load(Relaxed).max(CALM * time_to_arm()), Relaxed);
    let count = boot::number("pit", 1511);
    if count != 0 {
        devices::pit_every(count as u16);
        exits::set_pin(2, PIT.into());
    }
    arm();
    cpu::interrupts_on();
}

/// Ends, with interrupts kept out.
pub fn stop() {
    cpu::interrupts_off();
    write_apic(Register::LvtTimer, apic::LVT_MASKED);
    exits::set_pin(2, 0x1_0000);
    devices::pit_stop();
}
