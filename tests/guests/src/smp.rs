//! The other processors: starting them and giving them work.

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::{apic, boot, cpu};

/// How many processors have arrived in [`enter`].
static ARRIVED: AtomicU32 = AtomicU32::new(0);
/// Work of each processor: a `fn()` as a number, 0 when idle.
static WORK: [AtomicUsize; boot::MAX_CPUS] = [const { AtomicUsize::new(0) }; boot::MAX_CPUS];

/// Polls in which a started processor must arrive before it counts as missing.
const ARRIVAL_POLLS: u32 = 20_000_000;

/// Starts the processor with this APIC ID as number `number`; false if it does not come.
pub fn start(number: usize, apic_id: u32) -> bool {
    assert!(number != 0 && number < boot::MAX_CPUS, "no processor number {number}");
    let before = ARRIVED.load(Ordering::SeqCst);
    prepare(number);
    for command in
        [0xc500, 0x4600 | (boot::AP_TRAMPOLINE >> 12) as u32, 0x4600 | (boot::AP_TRAMPOLINE >> 12) as u32]
    {
        apic::write(apic::Register::CommandHigh, apic_id << 24);
        apic::write(apic::Register::CommandLow, command);
        for _ in 0..ARRIVAL_POLLS {
            if ARRIVED.load(Ordering::SeqCst) != before {
                return true;
            }
            if command == 0xc500 {
                // INIT is level-free here: no answer is to be waited for.
                break;
            }
            cpu::pause();
        }
    }
    false
}

/// Copies the trampoline and names the processor that is to come.
fn prepare(number: usize) {
    #[cfg(target_os = "none")]
    {
        unsafe extern "C" {
            static ap_trampoline: u8;
            static ap_trampoline_end: u8;
            static mut ap_number: u32;
        }
        let from = &raw const ap_trampoline;
        let length = (&raw const ap_trampoline_end) as usize - from as usize;
        // SAFETY: page 8 is free conventional memory, mapped; nobody else starts processors meanwhile.
        unsafe {
            core::ptr::copy_nonoverlapping(from, boot::AP_TRAMPOLINE as *mut u8, length);
            (&raw mut ap_number).write_volatile(number as u32);
        }
    }
    #[cfg(not(target_os = "none"))]
    let _ = number;
}

/// A started processor waits here for work, for ever.
#[cfg_attr(not(target_os = "none"), allow(dead_code))]
pub(crate) fn enter(number: usize) -> ! {
    apic::enable();
    ARRIVED.fetch_add(1, Ordering::SeqCst);
    loop {
        let work = WORK[number].load(Ordering::SeqCst);
        if work != 0 {
            // SAFETY: only `run_on` stores here, and only a `fn()`.
            let work: fn() = unsafe { core::mem::transmute::<usize, fn()>(work) };
            work();
            WORK[number].store(0, Ordering::SeqCst);
        }
        cpu::pause();
    }
}

/// Gives processor `number` a function to run and returns at once.
pub fn run_on(number: usize, work: fn()) {
    assert_eq!(WORK[number].swap(work as usize, Ordering::SeqCst), 0, "processor {number} is busy");
}

/// Waits until processor `number` has done its work.
pub fn wait(number: usize) {
    while WORK[number].load(Ordering::SeqCst) != 0 {
        cpu::pause();
    }
}
