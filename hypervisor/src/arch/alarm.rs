//! Deadlines of the host over the local APIC's timer, and waiting for the first of them or an interrupt.
//!
//! There are a few named alarms, one deadline each. The timer runs for the earliest; when it interrupts, those that are
//! due raise their duty. Only the boot processor sets alarms.

use super::idt::{self, vector};
use super::proof::drain_interrupts;
use super::{apic, time};
use crate::duties;
use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering};

/// Who may set a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Alarm {
    /// The loop that waits for an interrupt.
    Wait,
    /// The serial port, where it has no interrupt.
    Serial,
    /// The network card, where it has no interrupt.
    Network,
    /// The logging channel: the connection's timers, and its card where that has no interrupt.
    Log,
    /// A test that wants to be interrupted for nothing.
    Variation,
}

const ALARMS: usize = 5;

/// What each raises, by number.
const DUTIES: [u32; ALARMS] =
    [duties::DEADLINE, duties::SERIAL, duties::NETWORK, duties::LOG, duties::VARIATION];

/// No deadline.
const NEVER: u64 = u64::MAX;

/// By number: when, in nanoseconds of uptime.
static WHEN: [AtomicU64; ALARMS] = [const { AtomicU64::new(NEVER) }; ALARMS];

/// What the timer is running for.
static ARMED: AtomicU64 = AtomicU64::new(NEVER);

/// Deadlines that are nearer than this pass at once, in nanoseconds: the timer would be slower.
const NEAR_NS: u64 = 1_000;

/// Takes the timer's interrupt over. On the boot processor, when the boot work is done with it.
pub fn init() {
    idt::set_handler(vector::TIMER, |_| ring());
}

/// Has `alarm` raise its duty at `at_ns` of uptime, in place of what it had; `None` = not at all.
pub fn set(alarm: Alarm, at_ns: Option<u64>) {
    let at = at_ns.unwrap_or(NEVER);
    WHEN[alarm as usize].store(at, Ordering::Relaxed);
    // A timer that runs for longer than that is too late; one that runs shorter comes, finds nothing and goes on.
    if at < ARMED.load(Ordering::Relaxed) {
        arm(at);
    }
}

/// The deadline of `alarm`.
pub fn deadline(alarm: Alarm) -> Option<u64> {
    Some(WHEN[alarm as usize].load(Ordering::Relaxed)).filter(|at| *at != NEVER)
}

fn arm(at: u64) {
    let left = at.saturating_sub(time::now_ns()).max(NEAR_NS);
    ARMED.store(at, Ordering::Relaxed);
    apic::timer_once_ns(left);
}

/// The timer's interrupt.
fn ring() {
    ARMED.store(NEVER, Ordering::Relaxed);
    let now = time::now_ns();
    let mut next = NEVER;
    for (when, duty) in WHEN.iter().zip(DUTIES) {
        let at = when.load(Ordering::Relaxed);
        if at.saturating_sub(NEAR_NS) <= now {
            when.store(NEVER, Ordering::Relaxed);
            duties::HOST.raise(duty);
        } else {
            next = next.min(at);
        }
    }
    if next != NEVER {
        arm(next);
    }
}

/// Why [`wait_for_interrupt`] has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// There are duties of those that were named (see [`duties::pending`]).
    Duty,
    /// The time has come.
    Deadline,
}

/// Halts this processor with interrupts on until there is a duty that the caller `serves`, or the uptime is `until_ns` (`None`:
/// for as long as it takes). Other duties stay pending. Returns with interrupts off. A duty that is pending already, or a
/// time that has passed, returns at once, but not before the interrupts that are pending were served: a caller that always
/// finds something to do still hears its devices.
pub fn wait_for_interrupt(serves: u32, until_ns: Option<u64>) -> Woken {
    drain_interrupts();
    set(Alarm::Wait, until_ns);
    let woken = loop {
        if duties::pending() & serves != 0 {
            break Woken::Duty;
        }
        if until_ns.is_some_and(|until| until.saturating_sub(NEAR_NS) <= time::now_ns()) {
            break Woken::Deadline;
        }
        halt_once();
    };
    // The timer may run on: when it comes, it finds nothing due.
    WHEN[Alarm::Wait as usize].store(NEVER, Ordering::Relaxed);
    duties::take(duties::DEADLINE);
    woken
}

// An NMI can come behind STI, and ends STI's shadow: interrupts that were pending are then taken in front of HLT, and
// what they raise would wait for the next one. So the dispatcher moves every interrupt that finds this HLT not yet
// executed behind it.
global_asm!(
    r#"
    .text
    .global halt_once_code
    .global halt_once_hlt
    .global halt_once_after
    .type halt_once_code, @function
halt_once_code:
    sti
halt_once_hlt:
    hlt
halt_once_after:
    cli
    retq
    .size halt_once_code, . - halt_once_code
"#,
    options(att_syntax)
);

unsafe extern "C" {
    fn halt_once_code();
    static halt_once_hlt: u8;
    static halt_once_after: u8;
}

/// Halts until one interrupt has been served. Interrupts are off before and after.
fn halt_once() {
    // SAFETY: the code above changes nothing but the interrupt flag, and no interrupt's handler minds that; it returns.
    unsafe { halt_once_code() }
}

/// Where an interrupt that found `rip` goes on: behind the HLT of [`wait_for_interrupt`] if that was next, so that what
/// the interrupt has raised is looked at first.
pub fn past_halt(rip: u64) -> u64 {
    let (halt, after) =
        ((&raw const halt_once_hlt).addr() as u64, (&raw const halt_once_after).addr() as u64);
    if rip == halt { after } else { rip }
}
