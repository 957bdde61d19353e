//! Do the clocks of the machine agree with each other and with what CPUID says of them?
#![cfg_attr(target_os = "none", no_std, no_main)]
#![deny(unsafe_code)]

use core::sync::atomic::{AtomicU64, Ordering};

use guests::{Report, apic, cpu, println, timers, traps};

guests::program!(run);

/// Parts in a million by which two clocks may differ over the longest span measured here.
const TOLERANCE: u64 = 1000;

fn run(report: &mut Report) {
    apic::enable();
    let (tsc_hz, crystal_hz) = (timers::tsc_hz(), timers::crystal_hz());
    println!("@@ fact tsc-hz={tsc_hz} crystal-hz={crystal_hz}");
    report.holds("leaf-15-says-the-tsc", tsc_hz != 0);
    report.holds("leaf-15-says-the-crystal", crystal_hz != 0);
    report.holds("tsc-invariant", cpu::cpuid(0x8000_0007, 0)[3] & 1 << 8 != 0);
    for count in [5966, 59659] {
        let ticks = timers::over_pit(count);
        near(
            report,
            format_args!("tsc-over-pit:{count}"),
            ticks.tsc,
            tsc_hz * u64::from(count) / timers::PIT_HZ,
        );
        near(
            report,
            format_args!("apic-over-pit:{count}"),
            ticks.apic,
            crystal_hz * u64::from(count) / timers::PIT_HZ,
        );
    }
    near(report, format_args!("tsc-over-rtc-second"), timers::tsc_over_a_second(), tsc_hz);
    monotonic(report);
    deadline(report, tsc_hz);
}

/// `got` within the tolerance of `want`, and 20 microseconds' worth of polling.
fn near(report: &mut Report, name: core::fmt::Arguments, got: u64, want: u64) {
    let slack = want * TOLERANCE / 1_000_000 + timers::tsc_hz() / 50_000;
    report.within(name, got, want.saturating_sub(slack), want + slack);
}

/// The TSC never stands still or goes back from one RDTSC to the next.
fn monotonic(report: &mut Report) {
    let mut before = cpu::rdtsc();
    let mut bad = 0;
    for _ in 0..10_000 {
        let now = cpu::rdtsc();
        bad += u64::from(now <= before);
        before = now;
    }
    report.equal("tsc-not-monotonic", bad, 0);
}

static FIRED_AT: AtomicU64 = AtomicU64::new(0);

/// The APIC timer's TSC deadline fires at its deadline, never before.
fn deadline(report: &mut Report, tsc_hz: u64) {
    const VECTOR: u8 = 0x62;
    if cpu::cpuid(1, 0)[2] & 1 << 24 == 0 {
        println!("@@ fact missing=tsc-deadline");
        return;
    }
    traps::set_handler(
        VECTOR,
        Some(|_| {
            FIRED_AT.store(cpu::rdtsc(), Ordering::SeqCst);
            apic::end_of_interrupt();
        }),
    );
    apic::write(apic::Register::LvtTimer, 2 << 17 | u32::from(VECTOR));
    for microseconds in [10, 1000, 20_000] {
        FIRED_AT.store(0, Ordering::SeqCst);
        let want = cpu::rdtsc() + tsc_hz / 1_000_000 * microseconds;
        cpu::wrmsr(0x6e0, want).expect("IA32_TSC_DEADLINE");
        while FIRED_AT.load(Ordering::SeqCst) == 0 {
            cpu::wait_for_interrupt();
        }
        let late = FIRED_AT.load(Ordering::SeqCst).wrapping_sub(want);
        report.within(format_args!("deadline-late:{microseconds}us"), late, 0, tsc_hz / 50_000);
    }
}
