//! Clocks to compare with each other: PIT channel 2, the RTC's second, the APIC timer, what CPUID says.

use crate::{
    apic,
    cpu::{cpuid, inb, outb, rdtsc},
};

/// Input clock of the 8254, in Hz.
pub const PIT_HZ: u64 = 1_193_182;

/// TSC frequency in Hz by CPUID leaf 15H; 0 when the leaf does not say.
pub fn tsc_hz() -> u64 {
    let [denominator, numerator, crystal, _] = leaf_15h();
    if denominator == 0 { 0 } else { u64::from(crystal) * u64::from(numerator) / u64::from(denominator) }
}

/// Frequency of the core crystal clock, which also clocks the APIC timer, in Hz; 0 when leaf 15H does not say.
pub fn crystal_hz() -> u64 {
    leaf_15h()[2].into()
}

/// Leaf 15H; zeros where there is none: processors answer a leaf beyond the last one with the last one.
fn leaf_15h() -> [u32; 4] {
    if cpuid(0, 0)[0] >= 0x15 { cpuid(0x15, 0) } else { [0; 4] }
}

/// Ticks of the TSC and of the undivided APIC timer.
#[derive(Clone, Copy, Debug)]
pub struct Ticks {
    /// Of the TSC.
    pub tsc: u64,
    /// Of the APIC timer.
    pub apic: u64,
}

/// Starts the APIC timer at its highest count, masked, undivided.
fn start_apic_timer() {
    apic::write(apic::Register::LvtTimer, apic::LVT_MASKED);
    apic::write(apic::Register::TimerDivide, 0xb);
    apic::write(apic::Register::TimerInitial, u32::MAX);
}

/// How far TSC and APIC timer get while PIT channel 2 counts `count` down.
pub fn over_pit(count: u16) -> Ticks {
    // SAFETY: the PIT and the speaker gate touch no memory.
    unsafe {
        // Gate on, speaker off; channel 2, low and high byte, mode 0.
        outb(0x61, inb(0x61) & !2 | 1);
        outb(0x43, 0xb0);
        outb(0x42, count as u8);
    }
    start_apic_timer();
    // SAFETY: as above. The high byte starts the count.
    unsafe { outb(0x42, (count >> 8) as u8) };
    let (tsc, apic) = (rdtsc(), apic::read(apic::Register::TimerCurrent));
    while inb(0x61) & 0x20 == 0 {}
    Ticks { tsc: rdtsc() - tsc, apic: u64::from(apic - apic::read(apic::Register::TimerCurrent)) }
}

/// How far the TSC gets between two changes of the RTC's second.
pub fn tsc_over_a_second() -> u64 {
    let second = || {
        // SAFETY: the CMOS clock touches no memory.
        unsafe { outb(0x70, 0x80) };
        inb(0x71)
    };
    let change = || {
        let before = second();
        while second() == before {}
        rdtsc()
    };
    let start = change();
    change() - start
}
