//! What each processor has for itself, reached through GS.

use super::cpu;
use crate::events::{Event, Ring};
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use x86_64::VirtAddr;
use x86_64::registers::model_specific::GsBase;

/// Processors at most. More are left unstarted, and the boot says so.
pub const MAX_CPUS: usize = 64;

/// One processor's own data. GS holds its address in the first field's place.
#[repr(C, align(64))]
pub struct PerCpu {
    /// The number given by this kernel: 0 is the boot processor.
    number: AtomicU32,
    /// The local APIC's identifier.
    apic_id: AtomicU32,
    /// It runs the kernel.
    online: AtomicBool,
    /// It has been stopped by another processor's panic.
    stopped: AtomicBool,
    /// What it did last.
    events: Ring,
}

impl PerCpu {
    const fn new() -> Self {
        PerCpu {
            number: AtomicU32::new(0),
            apic_id: AtomicU32::new(0),
            online: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            events: Ring::new(),
        }
    }

    /// The number given by this kernel: 0 is the boot processor.
    pub fn number(&self) -> usize {
        self.number.load(Ordering::Relaxed) as usize
    }

    /// The local APIC's identifier.
    pub fn apic_id(&self) -> u32 {
        self.apic_id.load(Ordering::Relaxed)
    }

    /// Records the local APIC's identifier.
    pub fn set_apic_id(&self, id: u32) {
        self.apic_id.store(id, Ordering::Relaxed);
    }

    /// Adds to this processor's event ring.
    pub fn record(&self, event: Event) {
        self.events.record(cpu::tsc(), event);
    }

    /// What this processor did last.
    pub fn events(&self) -> &Ring {
        &self.events
    }

    /// Whether it runs the kernel.
    pub fn is_online(&self) -> bool {
        self.online.load(Ordering::Acquire)
    }

    /// It runs the kernel from now on.
    pub fn set_online(&self) {
        self.online.store(true, Ordering::Release);
    }

    /// Whether it has followed the call to stop.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// It follows the call to stop.
    pub fn set_stopped(&self) {
        self.stopped.store(true, Ordering::Release);
    }
}

static CPUS: [PerCpu; MAX_CPUS] = [const { PerCpu::new() }; MAX_CPUS];

/// Gives this processor its data. The first thing to be done on each processor: nearly everything else asks for it.
pub fn init(number: usize) {
    let cpu = &CPUS[number];
    cpu.number.store(number as u32, Ordering::Relaxed);
    GsBase::write(VirtAddr::from_ptr(cpu));
}

/// This processor's number.
pub fn number() -> usize {
    let number: u32;
    // SAFETY: 1. `init` ran first on this processor, so GS's base is a `PerCpu`. 2. `number` is its first field.
    unsafe {
        asm!("mov {0:e}, gs:[0]", out(reg) number, options(nostack, preserves_flags, readonly));
    }
    number as usize
}

/// This processor's data.
pub fn this() -> &'static PerCpu {
    &CPUS[number()]
}

/// Adds an event to this processor's ring.
pub fn record(event: Event) {
    this().record(event);
}

/// The processors that run the kernel.
pub fn online() -> impl Iterator<Item = &'static PerCpu> {
    CPUS.iter().filter(|c| c.is_online())
}

/// A processor's data by its number.
pub fn of(number: usize) -> &'static PerCpu {
    &CPUS[number]
}
