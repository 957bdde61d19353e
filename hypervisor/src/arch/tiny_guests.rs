//! The code of the tiny guests, as bytes: it is data to the kernel and never executed by it.

use core::arch::global_asm;

global_asm!(include_str!("../vmm/tiny_guests.s"), include_str!("../vmm/tiny_checks.s"), options(att_syntax));

macro_rules! blobs {
    ($( $(#[doc = $doc:literal])+ $function:ident = $start:ident .. $end:ident; )*) => {
        unsafe extern "C" {
            $( static $start: u8; static $end: u8; )*
        }
        $( $(#[doc = $doc])+
        pub fn $function() -> &'static [u8] {
            let (start, end) = (&raw const $start, &raw const $end);
            // SAFETY: both labels are in the kernel's read-only data, in this order, with nothing but bytes between.
            unsafe { core::slice::from_raw_parts(start, end.addr() - start.addr()) }
        } )*
    };
}

blobs! {
    /// Greets, asks and faults in real mode.
    real = tiny_real..tiny_real_end;
    /// The same in protected mode.
    protected = tiny_protected..tiny_protected_end;
    /// The same in long mode, which it enters by itself from real mode.
    long = tiny_long..tiny_long_end;
    /// Triple fault.
    triple_fault = hostile_triple_fault..hostile_triple_fault_end;
    /// Writes where there is no memory.
    wild_write = hostile_wild_write..hostile_wild_write_end;
    /// Never ends and never exits.
    endless = hostile_endless..hostile_endless_end;
    /// Tries VMXON.
    vmxon = hostile_vmxon..hostile_vmxon_end;
    /// Reads a MSR that no machine has.
    unknown_msr = hostile_unknown_msr..hostile_unknown_msr_end;
    /// Counts until it is told to stop.
    counting = check_counting..check_counting_end;
    /// Writes a page that is write-protected at first.
    write = check_write..check_write_end;
    /// Executes CPUID as often as ESI says.
    cpuid = check_cpuid..check_cpuid_end;
    /// Writes a port, writes and reads a MSR.
    bitmaps = check_bitmaps..check_bitmaps_end;
    /// Takes an interrupt once it lets it.
    interrupt = check_interrupt..check_interrupt_end;
    /// Writes XCR0, badly and well, and a YMM register.
    xsetbv = check_xsetbv..check_xsetbv_end;
    /// Writes bits of CR4 that it does not have.
    cr4 = check_cr4..check_cr4_end;
    /// Uses the debug registers.
    debug = check_debug..check_debug_end;
    /// Single-steps itself over a CPUID.
    step = check_step..check_step_end;
    /// Writes a string to the console by REP OUTSB.
    strings = check_strings..check_strings_end;
    /// Turns PAE paging on.
    pae = check_pae..check_pae_end;
    /// Asks for random numbers.
    random = check_random..check_random_end;
    /// Asks for the time.
    time = check_time..check_time_end;
    /// Executes RDTSC as often as ESI says.
    rdtsc = check_rdtsc..check_rdtsc_end;
    /// Runs blocks of code that the host has made.
    chaos = check_chaos..check_chaos_end;
    /// The same in 64-bit mode.
    chaos_long = check_chaos_long..check_chaos_long_end;
    /// Writes and reads CR8.
    cr8 = check_cr8..check_cr8_end;
}
