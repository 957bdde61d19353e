//! What every part needs of the processor: stop, pause, interrupts on and off, the exit port.

use super::{port, serial};
use core::sync::atomic::{AtomicBool, Ordering};
use x86_64::instructions::{hlt, interrupts};

/// QEMU's isa-debug-exit and the same device of our Bochs: writing v ends the emulator with code (v << 1) | 1.
const EXIT_PORT: u16 = 0xF4;

static EXIT_PORT_ALLOWED: AtomicBool = AtomicBool::new(false);

/// What a run that ends says to the emulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ExitCode {
    /// All went well (process exit code 33).
    Success = 0x10,
    /// The kernel panicked (35).
    Panic = 0x11,
    /// A proof or test failed (37).
    ProofFailed = 0x12,
    /// The machine lacks something that is required (39).
    Refused = 0x13,
}

/// The command line says `exit-port=0xf4`: [`exit`] may write to the port.
pub fn allow_exit_port() {
    EXIT_PORT_ALLOWED.store(true, Ordering::Relaxed);
}

/// Whether [`exit`] ends the run.
pub fn exit_port_allowed() -> bool {
    EXIT_PORT_ALLOWED.load(Ordering::Relaxed)
}

/// Ends the emulated run with `code`; halts for good where there is no exit port.
pub fn exit(code: ExitCode) -> ! {
    serial::flush();
    if exit_port_allowed() {
        port::write_u32(EXIT_PORT, code as u32);
    }
    halt_forever()
}

/// Stops this processor for good: interrupts off; an NMI wakes it only to halt again.
pub fn halt_forever() -> ! {
    interrupts::disable();
    loop {
        hlt();
    }
}

/// The time-stamp counter, now. Not ordered against other instructions.
pub fn tsc() -> u64 {
    // SAFETY: RDTSC reads a counter; CR4.TSD does not forbid it at level 0.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Halts with interrupts on until `ready` says so; it is asked again after each interrupt, with interrupts off, so none
/// is missed. Returns with interrupts off.
pub fn halt_until_interrupt(ready: impl Fn() -> bool) {
    interrupts::disable();
    while !ready() {
        interrupts::enable_and_hlt();
        interrupts::disable();
    }
}

/// Calls the function with this address, a `fn()`.
pub fn call(address: usize) {
    // SAFETY: the one caller took the address from a `fn()` (see `smp::call`).
    let function = unsafe { core::mem::transmute::<usize, fn()>(address) };
    function();
}

/// CPUID: EAX, EBX, ECX, EDX. For comparing this processor with what a guest is to see.
#[allow(clippy::disallowed_methods)] // this is the place that reads CPUID for the pure code
pub fn cpuid(leaf: u32, sub: u32) -> [u32; 4] {
    let answer = core::arch::x86_64::__cpuid_count(leaf, sub);
    [answer.eax, answer.ebx, answer.ecx, answer.edx]
}

/// 64 bits of this processor's random generator, or, where it has none or it fails, of its time-stamp counter: for seeds that
/// need not be secret from the host.
pub fn random() -> u64 {
    const TRIES: usize = 10;
    let generator = x86_64::instructions::random::RdRand::new();
    let drawn = generator.and_then(|generator| (0..TRIES).find_map(|_| generator.get_u64()));
    drawn.unwrap_or_else(|| tsc().wrapping_mul(0x9E37_79B9_7F4A_7C15))
}
