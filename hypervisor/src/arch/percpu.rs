//! What each processor has for itself, reached through GS.

use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};
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
}

impl PerCpu {
    const fn new() -> Self {
        PerCpu { number: AtomicU32::new(0), apic_id: AtomicU32::new(0) }
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

/// A processor's data by its number.
pub fn of(number: usize) -> &'static PerCpu {
    &CPUS[number]
}
