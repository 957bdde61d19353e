//! Is the computer that a virtual machine sees in order, device by device?
//!
//! Run it as a guest of the hypervisor, with a blank disk.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![deny(unsafe_code)]

use core::sync::atomic::{AtomicU64, Ordering};

use guests::traps::{self, Frame, GP0};
use guests::virtio::{self, BUFFERS, Descriptor, Device, peek, poke};
use guests::{Report, apic, cpu, devices, exits, timers};

guests::program!(run);

/// A nanosecond of the TSC that CPUID promises: 1 GHz.
const MS: u64 = 1_000_000;
/// How late an interrupt may be that nothing keeps off, in ticks of the TSC.
const LATE: u64 = 300_000;
/// The same within a string instruction, whose iterations are done in steps: two of them on the emulated machine.
const STEPS: u64 = 30_000_000;

static COUNT: AtomicU64 = AtomicU64::new(0);
static WHEN: AtomicU64 = AtomicU64::new(0);

fn note(_: &mut Frame) {
    COUNT.fetch_add(1, Ordering::SeqCst);
    WHEN.store(cpu::rdtsc(), Ordering::SeqCst);
}

fn by_apic(frame: &mut Frame) {
    note(frame);
    apic::end_of_interrupt();
}

fn by_pic(frame: &mut Frame) {
    note(frame);
    devices::pic_end_of_interrupt();
}

/// Lets interrupts come for `ms` while the guest does nothing but exit by RDTSC. How many came.
fn spin(ms: u64) -> u64 {
    COUNT.store(0, Ordering::SeqCst);
    let end = cpu::rdtsc() + ms * MS;
    cpu::interrupts_on();
    while cpu::rdtsc() < end {}
    cpu::interrupts_off();
    COUNT.load(Ordering::SeqCst)
}

fn run(report: &mut Report) {
    profile(report);
    clocks(report);
    serial(report);
    pic_and_io_apic(report);
    local_apic(report);
    virtio_devices(report);
    x2apic(report);
}

fn profile(report: &mut Report) {
    let [.., ecx, edx] = cpu::cpuid(1, 0);
    report.equal("cpuid-hides-vmx-and-monitor", u64::from(ecx & (1 << 5 | 1 << 3)), 0);
    report.equal(
        "cpuid-has-apic-tsc-x2apic",
        u64::from(edx >> 9 & 1) + u64::from(edx >> 4 & 1) + u64::from(ecx >> 21 & 1),
        3,
    );
    report.equal("cpuid-hides-pmu", u64::from(cpu::cpuid(0xa, 0)[0]), 0);
    report.equal("cpuid-tsc-hz", timers::tsc_hz(), 1_000_000_000);
    for msr in [0xc1, 0x38f, 0x480, 0x1234, 0x4000_0000, 0xc001_0015] {
        report.same(format_args!("msr-{msr:x}-denied"), cpu::rdmsr(msr), Err(GP0));
    }
    for (name, bit) in [("vmxe", 13), ("smxe", 14), ("pks", 24), ("cet", 23), ("reserved", 40)] {
        report.same(format_args!("cr4-{name}"), exits::set_cr4(cpu::cr4() | 1 << bit), Err(GP0));
    }
    report.equal_hex("pci-host-bridge", virtio::config(0, 0).into(), 0x1237_8086);
    report.equal_hex("pci-isa-bridge", virtio::config(1, 0).into(), 0x7000_8086);
    report.equal_hex("pci-nothing", virtio::config(31, 0).into(), 0xffff_ffff);
}

fn clocks(report: &mut Report) {
    let mut last = cpu::rdtsc();
    let back = (0..3000).filter(|_| core::mem::replace(&mut last, cpu::rdtsc()) > cpu::rdtsc()).count();
    report.equal("tsc-never-back", back as u64, 0);
    // 50 ms by the PIT.
    let ticks = timers::over_pit(59_659);
    report.within("pit-and-tsc", ticks.tsc, 49_950_000, 50_050_000);
    report.within("pit-and-apic-timer", ticks.apic, 1_248_750, 1_251_250);
    let (start, from) = (devices::pm_timer(), cpu::rdtsc());
    while cpu::rdtsc() < from + 50 * MS {}
    report.within(
        "pm-timer-and-tsc",
        u64::from(devices::pm_timer().wrapping_sub(start) & 0xff_ffff),
        178_798,
        179_200,
    );
    report.within("rtc-and-tsc", timers::tsc_over_a_second(), 999_000_000, 1_001_000_000);
}

fn serial(report: &mut Report) {
    apic::enable();
    traps::set_handler(0x44, Some(by_apic));
    let (echo, cause) = devices::uart_loopback(0xa5, || exits::set_pin(4, 0x44), || spin(2));
    report.equal_hex("uart-loopback", echo.into(), 0xa5);
    report.equal("uart-interrupt", cause, 1);
    exits::set_pin(4, 0x1_0000);
}

fn pic_and_io_apic(report: &mut Report) {
    // PIT every ms by the PIC and LINT0 as ExtINT.
    devices::pic_set_up(0x50);
    traps::set_handler(0x50, Some(by_pic));
    apic::write(apic::Register::LvtLint0, 0x700);
    devices::pit_every(1193);
    report.within("pic-ticks", spin(20), 19, 21);
    apic::write(apic::Register::LvtLint0, apic::LVT_MASKED);
    devices::pic_mask();
    traps::set_handler(0x45, Some(by_apic));
    exits::set_pin(2, 0x45);
    report.within("io-apic-ticks", spin(20), 19, 21);
    exits::set_pin(2, 0x1_0045);
    // One may have come before the mask.
    report.within("io-apic-masked", spin(5), 0, 1);
    // As NMI, with interrupts off, and nothing else to wake anybody.
    traps::set_handler(2, Some(note));
    COUNT.store(0, Ordering::SeqCst);
    exits::set_pin(2, 4 << 8);
    let end = cpu::rdtsc() + 20 * MS;
    while cpu::rdtsc() < end {}
    exits::set_pin(2, 0x1_0000);
    report.within("nmi-ticks-with-interrupts-off", COUNT.load(Ordering::SeqCst), 19, 21);
    // And in a loop without exits.
    exits::set_pin(2, 4 << 8);
    COUNT.store(0, Ordering::SeqCst);
    let came = (0..200_000_000u64).find(|_| COUNT.load(Ordering::SeqCst) >= 3).is_some();
    exits::set_pin(2, 0x1_0000);
    report.holds("nmi-without-exits", came);
    devices::pit_stop();
}

fn local_apic(report: &mut Report) {
    traps::set_handler(0x46, Some(by_apic));
    apic::write(apic::Register::TimerDivide, 0xb);
    // 25 MHz: 5 ms.
    let one_shot = |report: &mut Report, name: &str, bound: u64, wait: &dyn Fn()| {
        COUNT.store(0, Ordering::SeqCst);
        apic::write(apic::Register::LvtTimer, 0x46);
        let start = cpu::rdtsc();
        apic::write(apic::Register::TimerInitial, 125_000);
        wait();
        let late = WHEN.load(Ordering::SeqCst).wrapping_sub(start + 5 * MS);
        report.equal(format_args!("{name}-count"), COUNT.load(Ordering::SeqCst), 1);
        report.within(format_args!("{name}-late-ns"), late, 0, bound);
    };
    one_shot(report, "apic-timer-in-a-loop-of-exits", LATE, &|| {
        let end = cpu::rdtsc() + 20 * MS;
        cpu::interrupts_on();
        while cpu::rdtsc() < end {}
        cpu::interrupts_off();
    });
    one_shot(report, "apic-timer-wakes-halt", LATE, &cpu::wait_for_interrupt);
    one_shot(report, "apic-timer-in-string-output", STEPS, &|| {
        cpu::interrupts_on();
        // 64 steps of the emulator.
        let _ = exits::rep_outsb(0x80, guests::wild::DATA, 0x8000);
        cpu::interrupts_off();
    });
    apic::write(apic::Register::LvtTimer, 0x2_0046);
    apic::write(apic::Register::TimerInitial, 25_000);
    report.within("apic-timer-periodic", spin(20), 19, 21);
    apic::write(apic::Register::TimerInitial, 0);
    spin(1);
    apic::write(apic::Register::LvtTimer, 0x4_0046);
    COUNT.store(0, Ordering::SeqCst);
    let at = cpu::rdtsc() + 3 * MS;
    report.same("tsc-deadline-accepted", cpu::wrmsr(0x6e0, at), Ok(()));
    cpu::wait_for_interrupt();
    report.within("tsc-deadline-late-ns", WHEN.load(Ordering::SeqCst).wrapping_sub(at), 0, LATE);
    report.same("tsc-deadline-disarmed", cpu::rdmsr(0x6e0), Ok(0));
    apic::write(apic::Register::LvtTimer, apic::LVT_MASKED);
    // To itself, held off by the task priority.
    exits::set_cr8(5);
    report.equal_hex("cr8-is-tpr", apic::read(apic::Register::TaskPriority).into(), 0x50);
    apic::send_self(0x46);
    report.equal("ipi-below-priority", spin(1), 0);
    COUNT.store(0, Ordering::SeqCst);
    exits::set_cr8(0);
    cpu::interrupts_on();
    cpu::pause();
    cpu::interrupts_off();
    report.equal("ipi-at-last", COUNT.load(Ordering::SeqCst), 1);
}

fn virtio_devices(report: &mut Report) {
    let random = virtio::devices().find(|device| device.kind == virtio::RNG);
    if let Some(device) = random.filter(|_| report.holds("rng-there", random.is_some())) {
        Device::clear(0);
        report.holds("rng-starts", device.start(1, 0));
        let read = || {
            let chain = [Descriptor { address: BUFFERS, length: 64, flags: 2, next: 0 }];
            (device.transfer(0, &chain), peek::<u64>(BUFFERS), peek::<u64>(BUFFERS + 56))
        };
        let (one, two) = (read(), read());
        report.same("rng-length", (one.0, two.0), (Some(64), Some(64)));
        report.holds("rng-random", one.1 != two.1 && one.1 != 0 && one.2 != one.1);
        device.set_status(0);
    }
    let block = virtio::devices().find(|device| device.kind == virtio::BLOCK);
    if let Some(device) = block.filter(|_| report.holds("block-there", block.is_some())) {
        Device::clear(0);
        report.holds("block-starts", device.start(1, 0));
        let request = |kind: u32, sector: u64, flags: u16| {
            poke(BUFFERS, kind);
            poke(BUFFERS + 8, sector);
            poke(BUFFERS + 0x3000, 0xffu8);
            let chain = [
                Descriptor { address: BUFFERS, length: 16, flags: 1, next: 1 },
                Descriptor { address: BUFFERS + 0x1000, length: 1024, flags: 1 | flags, next: 2 },
                Descriptor { address: BUFFERS + 0x3000, length: 1, flags: 2, next: 0 },
            ];
            let length = device.transfer(0, &chain);
            (length, peek::<u8>(BUFFERS + 0x3000))
        };
        let word = |index: u64| index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for index in 0..128 {
            poke(BUFFERS + 0x1000 + 8 * index, word(index));
        }
        report.same("block-write", request(1, 5, 0), (Some(1), 0));
        for index in 0..128 {
            poke(BUFFERS + 0x1000 + 8 * index, 0u64);
        }
        report.same("block-read", request(0, 5, 2), (Some(1025), 0));
        let same = (0..128).filter(|index| peek::<u64>(BUFFERS + 0x1000 + 8 * index) == word(*index)).count();
        report.equal("block-same-words", same as u64, 128);
        let sectors = u64::from(device.specific(0));
        report.same("block-beyond-the-end", request(0, sectors, 2).1, 1);
        device.set_status(0);
    }
}

fn x2apic(report: &mut Report) {
    let base = cpu::rdmsr(0x1b).unwrap_or(0);
    report.holds("x2apic-on", devices::set_x2apic(base).is_ok());
    traps::set_handler(
        0x47,
        Some(|frame| {
            note(frame);
            let _ = cpu::wrmsr(0x80b, 0);
        }),
    );
    report.same("x2apic-id", cpu::rdmsr(0x802), Ok(0));
    report.same("x2apic-self-ipi", cpu::wrmsr(0x83f, 0x47), Ok(()));
    report.equal("x2apic-self-ipi-came", spin(1), 1);
    report.same("x2apic-reserved", cpu::rdmsr(0x804), Err(GP0));
    report.same("x2apic-eoi-not-zero", cpu::wrmsr(0x80b, 1), Err(GP0));
}
