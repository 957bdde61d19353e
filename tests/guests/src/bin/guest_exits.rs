//! Does every instruction that exits to a hypervisor do for its guest what the processor would do?
//!
//! Run it as a guest of the hypervisor.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![deny(unsafe_code)]

use core::sync::atomic::{AtomicU64, Ordering};

use guests::traps::{self, Fault, GP0, UD};
use guests::{Report, apic, cpu, exits, virtio, wild};

guests::program!(run);

/// CR4.OSFXSR, OSXMMEXCPT, OSXSAVE.
const XSAVE: u64 = 1 << 9 | 1 << 10 | 1 << 18;
/// Bits of DR6.
const BD: u64 = 1 << 13;
const BS: u64 = 1 << 14;

static CAME_AT: AtomicU64 = AtomicU64::new(0);

fn run(report: &mut Report) {
    denied(report);
    debug_registers(report);
    strings(report);
    device_memory(report);
    vectors(report);
    report.equal("self-modifying-code", exits::self_modifying(500).into(), 500);
    apic::enable();
    traps::set_handler(
        0x48,
        Some(|frame| {
            CAME_AT.store(frame.rip, Ordering::SeqCst);
            apic::end_of_interrupt();
        }),
    );
    let behind = exits::sti_shadow(0x48);
    report.same("sti-shadow", Ok(CAME_AT.load(Ordering::SeqCst)), behind);
}

fn denied(report: &mut Report) {
    for (name, said) in exits::denied() {
        let want = if name == "rdpmc" { GP0 } else { UD };
        report.same(name, said, Err(want));
    }
    report.same("xsetbv-without-osxsave", exits::xsetbv(1), Err(UD));
}

fn vectors(report: &mut Report) {
    report.same("osxsave", exits::set_cr4(cpu::cr4() | XSAVE), Ok(()));
    report.equal("osxsave-in-cpuid", u64::from(cpu::cpuid(1, 0)[2] >> 27 & 1), 1);
    for (name, value) in [("without-x87", 6), ("avx-alone", 5), ("pkru", 0x207), ("bit-63", 1 << 63 | 1)] {
        report.same(format_args!("xcr0-{name}"), exits::xsetbv(value), Err(GP0));
    }
    report.same("xcr0-avx", exits::xsetbv(7), Ok(()));
    report.equal("xsave-size", cpu::cpuid(0xd, 0)[1].into(), 832);
    let words = [0x0123_4567_89ab_cdef, !0, 0x5555_aaaa_1234_4321, 0xfeed_f00d_dead_beef];
    report.same("ymm-across-exits", exits::through_ymm(words), Ok(words));
}

fn debug_registers(report: &mut Report) {
    exits::catch_debug();
    report.same("single-step", exits::single_step(), Ok(()));
    // NOP, CPUID, RDTSC, OUT, IN, MOV, NOP, PUSHFQ, AND, POPFQ: a trap behind each.
    report.equal("single-steps", exits::debugs()[0], 10);
    report.equal_hex("single-step-dr6", exits::debugs()[2] & (BS | BD | 0xf), BS);
    exits::catch_debug();
    let at = exits::breakpoint();
    report.same("breakpoint-once", exits::debugs()[0], 1);
    report.same("breakpoint-at", Ok(exits::debugs()[1]), at);
    report.equal_hex("breakpoint-dr6", exits::debugs()[2] & (BS | BD | 0xf), 1);
    exits::catch_debug();
    report.same("general-detect", exits::general_detect(), Ok(()));
    report.equal("general-detect-once", exits::debugs()[0], 1);
    report.equal_hex("general-detect-dr6", exits::debugs()[2] & (BS | BD | 0xf), BD);
    traps::set_handler(1, None);
}

fn strings(report: &mut Report) {
    // Across two page ends, from a port that nobody answers, which reads as ones.
    let to = wild::DATA + 0xff0;
    wild::place(to - 1, &[0; 0x1100]);
    let (result, end, left) = exits::rep_insb_to_data(0x2e, to, 0x1020);
    report.same("insb", (result, end, left), (Ok(()), to + 0x1020, 0));
    report.equal("insb-bytes", exits::count_data(to - 1, 0x1023, 0xff), 0x1020);
    report.same("outsb", exits::rep_outsb(0x80, to, 0x1020), (Ok(()), to + 0x1020, 0));
    // Into the page that is not there, behind 4 GiB; what was moved before stays moved.
    let edge = 0x1_0000_0000 - 8;
    let (result, end, left) = exits::rep_outsb(0x80, edge, 20);
    report.same("outsb-fault", result, Err(Fault { vector: 14, error: 0 }));
    let _ = (end, left);
}

fn device_memory(report: &mut Report) {
    let Some(device) = virtio::devices().next() else {
        report.holds("a-virtio-device", false);
        return;
    };
    // The common structure in BAR 1, behind the MSI-X table: device features, then the size of queue 0.
    let base = u64::from(virtio::config(device.number, 0x14) & !0xf) + 0x1000;
    let by_port = u64::from(device.queue_size(0));
    report.equal("memory-2-bytes", exits::read_device(base + 0x18, 2), by_port);
    report.equal("memory-1-byte", exits::read_device(base + 0x18, 1), by_port & 0xff);
    let word = exits::read_device(base + 0x18, 4);
    report.equal("memory-4-bytes", word & 0xffff, by_port);
    report.equal("memory-8-bytes", exits::read_device(base + 0x18, 8) & 0xffff_ffff, word);
    report.equal_hex("memory-of-nobody", exits::read_device(0xd000_0000, 4), 0xffff_ffff);
}
