//! The local APIC: xAPIC (memory mapped) or x2APIC (MSRs) behind the same functions. SDM 3A, chapter 12.

use super::idt::vector;
use super::{cpu, paging, time};
use crate::memory::OutOfFrames;
use boot::memory_map::Range;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use x86_64::registers::model_specific::Msr;

/// IA32_APIC_BASE and its bits.
const APIC_BASE: u32 = 0x1B;
const BASE_X2APIC: u64 = 1 << 10;
const BASE_ENABLE: u64 = 1 << 11;
const BASE_ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;

/// First MSR of the x2APIC; register at byte offset n of the xAPIC is MSR 0x800 + n / 16.
const X2APIC_MSRS: u32 = 0x800;

/// The highest identifier that the xAPIC can address; 255 is everybody.
pub const MAX_XAPIC_ID: u32 = 254;

/// Polls of the delivery status before an IPI is held to be sent anyway.
const DELIVERY_POLLS: u32 = 100_000;

/// Interrupt command register, both forms: level assert; destination and status in the xAPIC's form.
const ICR_ASSERT: u32 = 1 << 14;
const ICR_PENDING: u32 = 1 << 12;

const LVT_MASKED: u32 = 1 << 16;

/// Registers by their byte offset in the xAPIC's page.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
enum Register {
    Id = 0x20,
    TaskPriority = 0x80,
    EndOfInterrupt = 0xB0,
    Spurious = 0xF0,
    ErrorStatus = 0x280,
    CommandLow = 0x300,
    CommandHigh = 0x310,
    LvtTimer = 0x320,
    LvtThermal = 0x330,
    LvtPerformance = 0x340,
    LvtLint0 = 0x350,
    LvtError = 0x370,
    TimerInitial = 0x380,
    TimerCurrent = 0x390,
    TimerDivide = 0x3E0,
}

/// How the local APICs are driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Not set up yet.
    None = 0,
    /// By memory-mapped registers; identifiers of 8 bits.
    XApic = 1,
    /// By MSRs; identifiers of 32 bits.
    X2Apic = 2,
}

static MODE: AtomicU8 = AtomicU8::new(Mode::None as u8);
static ADDRESS: AtomicU64 = AtomicU64::new(0);
/// Counts of the timer (divider 1) in a second.
static TIMER_HERTZ: AtomicU64 = AtomicU64::new(0);
/// The same in a nanosecond, times 2^32.
static COUNTS_PER_NS: AtomicU64 = AtomicU64::new(0);

/// How the local APICs are driven.
pub fn mode() -> Mode {
    match MODE.load(Ordering::Relaxed) {
        1 => Mode::XApic,
        2 => Mode::X2Apic,
        _ => Mode::None,
    }
}

fn read(register: Register) -> u32 {
    match mode() {
        // SAFETY: the register exists in x2APIC mode, which this processor is in; reading changes nothing.
        Mode::X2Apic => unsafe { Msr::new(X2APIC_MSRS + register as u32 / 16).read() as u32 },
        // SAFETY: `init` has mapped the xAPIC's page, uncached, at this address.
        Mode::XApic => unsafe { address(register).read_volatile() },
        Mode::None => panic!("local APIC used before it is set up"),
    }
}

fn write(register: Register, value: u32) {
    match mode() {
        // SAFETY: 1. The register exists in x2APIC mode. 2. Interrupts it brings about have gates.
        Mode::X2Apic => unsafe { Msr::new(X2APIC_MSRS + register as u32 / 16).write(value.into()) },
        // SAFETY: 1. `init` has mapped the xAPIC's page. 2. As above.
        Mode::XApic => unsafe { address(register).write_volatile(value) },
        Mode::None => panic!("local APIC used before it is set up"),
    }
}

fn address(register: Register) -> *mut u32 {
    (ADDRESS.load(Ordering::Relaxed) + u64::from(register as u32)) as *mut u32
}

/// Chooses the mode for all processors and maps the registers. On the boot processor, with the kernel's page tables.
/// `want_x2` = use x2APIC where the processor has it; one that the firmware has turned on stays on either way.
///
/// # Errors
/// No memory for page tables.
pub fn init(want_x2: bool) -> Result<Mode, OutOfFrames> {
    let has_x2 = raw_cpuid::CpuId::new().get_feature_info().is_some_and(|f| f.has_x2apic());
    // SAFETY: every processor with a local APIC has this MSR, and every one with long mode has a local APIC.
    let base = unsafe { Msr::new(APIC_BASE).read() };
    let mode = if base & BASE_X2APIC != 0 || has_x2 && want_x2 { Mode::X2Apic } else { Mode::XApic };
    ADDRESS.store(base & BASE_ADDRESS, Ordering::Relaxed);
    if mode == Mode::XApic {
        paging::ensure(Range::from_length(base & BASE_ADDRESS, 4096), paging::Rights::DEVICE)?;
    }
    MODE.store(mode as u8, Ordering::Relaxed);
    init_this();
    Ok(mode)
}

/// Turns this processor's APIC on, in the chosen mode, every local source masked but errors.
pub fn init_this() {
    let mut base = Msr::new(APIC_BASE);
    // SAFETY: 1. The MSR exists. 2. x2APIC is chosen only where the processor has it. 3. The transitions are legal:
    // disabled -> xAPIC -> x2APIC (SDM 3A, 12.12.5).
    unsafe {
        let on = base.read() | BASE_ENABLE;
        base.write(on);
        if mode() == Mode::X2Apic {
            base.write(on | BASE_X2APIC);
        }
    }
    write(Register::TaskPriority, 0);
    for lvt in [Register::LvtTimer, Register::LvtThermal, Register::LvtPerformance, Register::LvtLint0] {
        write(lvt, LVT_MASKED);
    }
    write(Register::LvtError, vector::APIC_ERROR.into());
    write(Register::Spurious, 1 << 8 | u32::from(vector::SPURIOUS));
    write(Register::ErrorStatus, 0);
}

/// This processor's identifier.
pub fn id() -> u32 {
    match mode() {
        Mode::X2Apic => read(Register::Id),
        _ => read(Register::Id) >> 24,
    }
}

/// Ends the interrupt being served. Nothing before the APIC is set up.
pub fn eoi() {
    if mode() != Mode::None {
        write(Register::EndOfInterrupt, 0);
    }
}

/// A message to another processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipi {
    /// An interrupt.
    Fixed(u8),
    /// A non-maskable interrupt.
    Nmi,
    /// INIT: the processor waits for a start-up message.
    Init,
    /// Start-up: the processor begins in real mode at this page (below 1 MiB).
    StartUp(u8),
}

/// Sends a message to the processor with this APIC identifier.
pub fn send(to: u32, ipi: Ipi) {
    let command = ICR_ASSERT
        | match ipi {
            Ipi::Fixed(vector) => u32::from(vector),
            Ipi::Nmi => 4 << 8,
            Ipi::Init => 5 << 8,
            Ipi::StartUp(page) => 6 << 8 | u32::from(page),
        };
    match mode() {
        Mode::X2Apic => {
            let whole = u64::from(to) << 32 | u64::from(command);
            // x2APIC's write is not ordered after earlier stores by itself (SDM 3A, 12.12.3).
            // SAFETY: 1. Fences order memory and change nothing. 2. The receiver has a gate for the vector, or is
            // being started by its one owner.
            unsafe {
                core::arch::asm!("mfence", "lfence", options(nostack, preserves_flags));
                Msr::new(X2APIC_MSRS + Register::CommandLow as u32 / 16).write(whole);
            }
        }
        _ => {
            assert!(to <= MAX_XAPIC_ID, "APIC id {to} cannot be addressed by the xAPIC");
            write(Register::CommandHigh, to << 24);
            write(Register::CommandLow, command);
            for _ in 0..DELIVERY_POLLS {
                if read(Register::CommandLow) & ICR_PENDING == 0 {
                    return;
                }
                core::hint::spin_loop();
            }
        }
    }
}

/// What a performance-counter overflow delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// Nothing.
    Masked,
    /// The interrupt [`vector::PERFORMANCE`].
    Fixed,
}

/// Says what a performance-counter overflow delivers on this processor. Delivery masks the entry again (SDM 3B,
/// 21.6.3), so this is to be called after each.
pub fn set_overflow(overflow: Overflow) {
    write(
        Register::LvtPerformance,
        match overflow {
            Overflow::Masked => LVT_MASKED,
            Overflow::Fixed => vector::PERFORMANCE.into(),
        },
    );
}

/// Whether the performance-counter entry is masked, as it is after a delivery.
pub fn overflow_is_masked() -> bool {
    read(Register::LvtPerformance) & LVT_MASKED != 0
}

/// Measures the timer against the time-stamp counter, for 10 ms. Returns its counts in a second.
pub fn calibrate_timer() -> u64 {
    const WINDOWS: u64 = 100;
    write(Register::TimerDivide, 0b1011); // by 1
    write(Register::LvtTimer, LVT_MASKED);
    write(Register::TimerInitial, u32::MAX);
    let start = cpu::tsc();
    time::wait_micros(1_000_000 / WINDOWS);
    let counted = u64::from(u32::MAX - read(Register::TimerCurrent));
    let ticks = cpu::tsc() - start;
    write(Register::TimerInitial, 0);
    let hertz = (u128::from(counted) * u128::from(time::hertz()) / u128::from(ticks.max(1))) as u64;
    TIMER_HERTZ.store(hertz, Ordering::Relaxed);
    COUNTS_PER_NS.store(((u128::from(hertz) << 32) / 1_000_000_000) as u64, Ordering::Relaxed);
    hertz
}

/// Interrupts this processor once, with [`vector::TIMER`], `micros` microseconds from now (at most what 32 bits of
/// counts hold, else the longest there is).
pub fn timer_once(micros: u64) {
    let counts = u128::from(micros) * u128::from(TIMER_HERTZ.load(Ordering::Relaxed)) / 1_000_000;
    write(Register::TimerDivide, 0b1011);
    write(Register::LvtTimer, vector::TIMER.into());
    write(Register::TimerInitial, counts.clamp(1, u32::MAX.into()) as u32);
}

/// As [`timer_once`], for nanoseconds, and without a division: for the way in and out of a guest.
pub fn timer_once_ns(ns: u64) {
    let counts = (u128::from(ns) * u128::from(COUNTS_PER_NS.load(Ordering::Relaxed))) >> 32;
    write(Register::LvtTimer, vector::TIMER.into());
    write(Register::TimerInitial, counts.clamp(1, u32::MAX.into()) as u32);
}

/// Stops the timer.
pub fn timer_stop() {
    write(Register::LvtTimer, LVT_MASKED);
    write(Register::TimerInitial, 0);
}
