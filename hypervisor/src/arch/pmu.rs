//! This processor's performance counters: reads and writes as `replay::pmu` plans them.
//!
//! The counters count nothing but the guest: IA32_PERF_GLOBAL_CTRL is 0 in root mode, and a VM entry loads
//! [`GUEST_GLOBAL_CTRL`](replay::pmu::GUEST_GLOBAL_CTRL).

use super::{apic, proof};
use core::arch::x86_64::{__cpuid, __cpuid_count};
use replay::landing::Counter;
use replay::pmu::{self, Identity, Lacking, Selector, Tally, Unit, msr};
use x86_64::registers::model_specific::Msr;

/// CPUID leaf 01h ECX: IA32_PERF_CAPABILITIES exists.
const PDCM: u32 = 1 << 15;
const LEAF_PERFMON: u32 = 0x0A;

/// What this processor says of itself.
#[allow(clippy::disallowed_methods)] // this is the place that reads CPUID for the pure code
pub fn identity() -> Identity {
    let one = __cpuid(1);
    let ten = if __cpuid(0).eax >= LEAF_PERFMON {
        __cpuid_count(LEAF_PERFMON, 0)
    } else {
        return Identity::default();
    };
    Identity {
        signature: one.eax,
        leaf: [ten.eax, ten.ebx, ten.ecx, ten.edx],
        capabilities: if one.ecx & PDCM != 0 { read(msr::PERF_CAPABILITIES) } else { 0 },
    }
}

fn read(register: u32) -> u64 {
    // SAFETY: callers name registers of the unit that `identity` or `Unit::decode` has shown to exist; reading them has
    // no side effect.
    unsafe { Msr::new(register).read() }
}

fn write(register: u32, value: u64) {
    debug_assert!(
        matches!(register, 0xC1..=0xC8 | 0x186..=0x18D | 0x309..=0x30C | 0x38D..=0x390 | 0x4C1..=0x4C8)
    );
    // SAFETY: 1. The register is one of the unit's (asserted). 2. The values are the unit's own plan, without reserved
    // bits. 3. Counting has no effect but the overflow interrupt, for which the IDT has a gate.
    unsafe { Msr::new(register).write(value) }
}

/// The three counters the proof uses, carried on as counts of 64 bits.
#[derive(Debug)]
pub struct Counters {
    unit: Unit,
    instructions: Tally,
    general: Tally,
    branches: Tally,
    armed: Option<Counter>,
}

impl Counters {
    /// The unit of this processor, programmed to count its guest.
    ///
    /// # Errors
    /// What the unit lacks.
    pub fn new(selector: Selector) -> Result<Self, Lacking> {
        let unit = Unit::decode(&identity())?;
        let mut counters = Self {
            unit,
            instructions: Tally::new(unit.fixed_width),
            general: Tally::new(unit.general_width),
            branches: Tally::new(unit.general_width),
            armed: None,
        };
        counters.program(selector);
        Ok(counters)
    }

    /// The unit.
    pub const fn unit(&self) -> &Unit {
        &self.unit
    }

    /// Programs all counters, from zero, with this event for conditional branches.
    pub fn program(&mut self, selector: Selector) {
        apic::set_overflow(apic::Overflow::Masked);
        self.unit.setup(selector).into_iter().for_each(|(register, value)| write(register, value));
        self.zero();
    }

    /// Sets all counts to zero, nothing armed, and lets pending overflow interrupts run out.
    pub fn zero(&mut self) {
        apic::set_overflow(apic::Overflow::Masked);
        proof::drain_interrupts();
        write(msr::FIXED_CTR0, 0);
        write(msr::FULL_WIDTH_PMC0, 0);
        write(msr::FULL_WIDTH_PMC0 + 1, 0);
        write(msr::GLOBAL_STATUS_RESET, pmu::GUEST_GLOBAL_CTRL);
        self.instructions = Tally::new(self.unit.fixed_width);
        self.general = Tally::new(self.unit.general_width);
        self.branches = Tally::new(self.unit.general_width);
        self.armed = None;
    }

    /// Instructions retired, by fixed counter 0.
    pub fn instructions(&self) -> u64 {
        self.instructions.count(read(msr::FIXED_CTR0))
    }

    /// Instructions retired, by general counter 1.
    pub fn general(&self) -> u64 {
        self.general.count(read(msr::FULL_WIDTH_PMC0 + 1))
    }

    /// Conditional branches retired.
    pub fn branches(&self) -> u64 {
        self.branches.count(read(msr::FULL_WIDTH_PMC0))
    }

    /// Arms the overflow interrupt of one counter, `ahead` events from now, or none. What was armed before is not any more.
    pub fn arm(&mut self, wanted: Option<(Counter, u64)>) {
        if let Some(counter) = self.armed.take() {
            let register = pmu::register(counter);
            let value = self.tally(counter).disarm(read(register));
            write(register, value);
        }
        let Some((counter, ahead)) = wanted else { return apic::set_overflow(apic::Overflow::Masked) };
        write(msr::GLOBAL_STATUS_RESET, pmu::status(counter));
        let register = pmu::register(counter);
        let value = self.tally(counter).arm(read(register), ahead);
        write(register, value);
        self.armed = Some(counter);
        apic::set_overflow(apic::Overflow::Fixed);
    }

    /// The overflow status of a counter.
    pub fn overflowed(&self, counter: Counter) -> bool {
        read(msr::GLOBAL_STATUS) & pmu::status(counter) != 0
    }

    /// Writes a counter, which is off in root mode, and reads it back.
    pub fn write_read(&mut self, counter: Counter, value: u64) -> u64 {
        let register = pmu::register(counter);
        write(register, value);
        read(register)
    }

    const fn tally(&mut self, counter: Counter) -> &mut Tally {
        match counter {
            Counter::Instructions => &mut self.instructions,
            Counter::Branches => &mut self.branches,
        }
    }
}

impl Drop for Counters {
    fn drop(&mut self) {
        apic::set_overflow(apic::Overflow::Masked);
        Unit::OFF.into_iter().for_each(|(register, value)| write(register, value));
        proof::drain_interrupts();
    }
}
