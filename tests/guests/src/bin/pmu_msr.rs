//! Do the PMU's registers have the shape that CPUID leaf 0AH says, and refuse what the SDM says they refuse?
//!
//! `shape=VERSION:GENERAL:FIXED:WIDTH` on the command line: what leaf 0AH has to say (default 5:4:3:48).
#![cfg_attr(target_os = "none", no_std, no_main)]
#![deny(unsafe_code)]

use guests::{
    Report, boot,
    cpu::{self, cpuid, rdmsr, rdpmc, wrmsr},
    pmu::{self, Counter, Shape},
    ring3,
    traps::GP0,
};

guests::program!(run);

fn run(report: &mut Report) {
    let shape = pmu::shape();
    ring3::init();
    report.same("global-ctrl-after-reset", rdmsr(pmu::GLOBAL_CTRL), Ok((1 << shape.general) - 1));
    pmu::reset();
    leaf(report, shape);
    counters(report, shape);
    controls(report, shape);
    status(report, shape);
    capabilities(report);
    debug_control(report);
    read_instruction(report, shape);
}

fn leaf(report: &mut Report, shape: Shape) {
    let text = boot::option("shape").unwrap_or("5:4:3:48");
    let mut wanted = text.split(':').map(|part| boot::parse_number(part).unwrap_or(0));
    let mut next = || wanted.next().unwrap_or(0);
    let (version, general, fixed, width) = (next(), next(), next(), next());
    report.equal("version", shape.version.into(), version);
    report.equal("general-counters", shape.general.into(), general);
    report.equal("fixed-counters", shape.fixed.into(), fixed);
    report.equal("general-width", shape.general_bits.into(), width);
    report.equal("fixed-width", shape.fixed_bits.into(), width);
    report.within("event-bits", shape.event_bits.into(), 7, 8);
    // Instructions, both cycles, branches: bits 0, 1, 2, 5 clear mean that the event is there.
    report.equal_hex("events-missing", (shape.missing_events & 0x27).into(), 0);
    report.holds("pdcm", cpuid(1, 0)[2] & 1 << 15 != 0);
}

/// Values of counters: widths, the sign extension of the old addresses, the ends of the ranges.
fn counters(report: &mut Report, shape: Shape) {
    let full = (1u64 << shape.general_bits) - 1;
    for n in 0..shape.general {
        let (old, wide) = (pmu::PMC0 + n, pmu::A_PMC0 + n);
        report.same(format_args!("full-width:{n}"), wrmsr(wide, full), Ok(()));
        report.same(format_args!("full-width-read:{n}"), (rdmsr(wide), rdmsr(old)), (Ok(full), Ok(full)));
        report.same(format_args!("too-wide:{n}"), wrmsr(wide, full + 1), Err(GP0));
        report.same(format_args!("refused-write-changes-nothing:{n}"), rdmsr(wide), Ok(full));
        report.same(format_args!("old-negative:{n}"), wrmsr(old, 0x8000_0000), Ok(()));
        report.same(format_args!("old-sign-extends:{n}"), rdmsr(old), Ok(full & !0x7fff_ffff));
        report.same(format_args!("old-positive:{n}"), wrmsr(old, 0x1_7654_3210), Ok(()));
        report.same(format_args!("old-takes-32-bits:{n}"), rdmsr(wide), Ok(0x7654_3210));
    }
    for n in 0..shape.fixed {
        let msr = pmu::FIXED_CTR0 + n;
        report.same(format_args!("fixed-full-width:{n}"), (wrmsr(msr, full), rdmsr(msr)), (Ok(()), Ok(full)));
        report.same(format_args!("fixed-too-wide:{n}"), wrmsr(msr, full + 1), Err(GP0));
    }
    let beyond = [
        ("pmc", pmu::PMC0 + shape.general),
        ("a-pmc", pmu::A_PMC0 + shape.general),
        ("perfevtsel", pmu::PERFEVTSEL0 + shape.general),
        ("fixed-ctr", pmu::FIXED_CTR0 + shape.fixed),
    ];
    for (name, msr) in beyond {
        report.same(format_args!("beyond:{name}"), (rdmsr(msr), wrmsr(msr, 0)), (Err(GP0), Err(GP0)));
    }
    pmu::reset();
}

/// Control registers: what is written is read; reserved bits fault.
fn controls(report: &mut Report, shape: Shape) {
    for n in 0..shape.general {
        let msr = pmu::PERFEVTSEL0 + n;
        // Every defined bit but PC (19) and AnyThread (21): event, mask, USR, OS, edge, INT, EN, INV, CMASK.
        let value = 0xffd7_ffff & !(1 << 22);
        report.same(
            format_args!("select-read-back:{n}"),
            (wrmsr(msr, value), rdmsr(msr)),
            (Ok(()), Ok(value)),
        );
        report.same(format_args!("select-reserved:{n}"), wrmsr(msr, 1 << 40), Err(GP0));
        report.same(format_args!("select-reserved-63:{n}"), wrmsr(msr, 1 << 63), Err(GP0));
        report.same(format_args!("select-kept:{n}"), rdmsr(msr), Ok(value));
    }
    // OS, USR and PMI of each fixed counter.
    let fixed = (0..shape.fixed).fold(0, |bits, n| bits | 0xb << (4 * n));
    report.same(
        "fixed-ctrl-read-back",
        (wrmsr(pmu::FIXED_CTR_CTRL, fixed), rdmsr(pmu::FIXED_CTR_CTRL)),
        (Ok(()), Ok(fixed)),
    );
    report.same("fixed-ctrl-reserved", wrmsr(pmu::FIXED_CTR_CTRL, 1 << (4 * shape.fixed)), Err(GP0));
    pmu::reset();
    let every = shape.every_counter();
    report.same(
        "global-ctrl-read-back",
        (wrmsr(pmu::GLOBAL_CTRL, every), rdmsr(pmu::GLOBAL_CTRL)),
        (Ok(()), Ok(every)),
    );
    for bit in [shape.general, 31, 32 + shape.fixed, 63] {
        report.same(format_args!("global-ctrl-reserved:{bit}"), wrmsr(pmu::GLOBAL_CTRL, 1 << bit), Err(GP0));
    }
    pmu::reset();
}

/// GLOBAL_STATUS is read-only, is set by one register and cleared by another.
fn status(report: &mut Report, shape: Shape) {
    report.same("status-read-only", wrmsr(pmu::GLOBAL_STATUS, 0), Err(GP0));
    report.same("status-clear", rdmsr(pmu::GLOBAL_STATUS), Ok(0));
    if shape.version < 4 {
        return;
    }
    let every = shape.every_counter();
    report.same(
        "status-set",
        (wrmsr(pmu::GLOBAL_STATUS_SET, every), rdmsr(pmu::GLOBAL_STATUS)),
        (Ok(()), Ok(every)),
    );
    let some = Counter::General(2).bit() | Counter::Fixed(1).bit();
    report.same("status-reset-some", wrmsr(pmu::GLOBAL_STATUS_RESET, some), Ok(()));
    report.same("status-after-reset-of-some", rdmsr(pmu::GLOBAL_STATUS), Ok(every & !some));
    report.same("status-reset-all", wrmsr(pmu::GLOBAL_STATUS_RESET, every), Ok(()));
    report.same("status-after-reset-of-all", rdmsr(pmu::GLOBAL_STATUS), Ok(0));
    for (name, msr) in [("set", pmu::GLOBAL_STATUS_SET), ("reset", pmu::GLOBAL_STATUS_RESET)] {
        report.same(format_args!("status-{name}-reserved"), wrmsr(msr, 1 << shape.general), Err(GP0));
        report.same(
            format_args!("status-{name}-reserved-fixed"),
            wrmsr(msr, 1 << (32 + shape.fixed)),
            Err(GP0),
        );
    }
    report.same("status-unharmed", rdmsr(pmu::GLOBAL_STATUS), Ok(0));
}

/// IA32_PERF_CAPABILITIES: full-width writes; read-only.
fn capabilities(report: &mut Report) {
    let value = rdmsr(pmu::PERF_CAPABILITIES);
    report.holds("full-width-writes-reported", value.is_ok_and(|v| v & 1 << 13 != 0));
    report.same("capabilities-read-only", wrmsr(pmu::PERF_CAPABILITIES, value.unwrap_or(0)), Err(GP0));
}

/// IA32_DEBUGCTL: the freeze bits that the capabilities promise, nothing that is reserved.
fn debug_control(report: &mut Report) {
    let freeze_smm = rdmsr(pmu::PERF_CAPABILITIES).is_ok_and(|v| v & 1 << 12 != 0);
    let bits = 1 << 12 | if freeze_smm { 1 << 14 } else { 0 };
    report.same("debugctl-read-back", (wrmsr(pmu::DEBUGCTL, bits), rdmsr(pmu::DEBUGCTL)), (Ok(()), Ok(bits)));
    report.same("debugctl-reserved", wrmsr(pmu::DEBUGCTL, 1 << 40), Err(GP0));
    report.same("debugctl-kept", rdmsr(pmu::DEBUGCTL), Ok(bits));
    report.same("debugctl-clear", (wrmsr(pmu::DEBUGCTL, 0), rdmsr(pmu::DEBUGCTL)), (Ok(()), Ok(0)));
}

/// RDPMC: index space, CPL and CR4.PCE.
fn read_instruction(report: &mut Report, shape: Shape) {
    let counters = || (0..shape.general).map(Counter::General).chain((0..shape.fixed).map(Counter::Fixed));
    for (value, counter) in (0x34_5678_9ab0..).zip(counters()) {
        counter.write(value);
    }
    for pce in [false, true] {
        cpu::set_cr4_pce(pce);
        for (value, counter) in (0x34_5678_9ab0..).zip(counters()) {
            report.same(format_args!("rdpmc:{counter:?}:pce={pce}"), rdpmc(counter.rdpmc_index()), Ok(value));
            let user = ring3::rdpmc(counter.rdpmc_index());
            let want = if pce { Ok(value) } else { Err(GP0) };
            report.same(format_args!("rdpmc-in-ring-3:{counter:?}:pce={pce}"), user, want);
        }
        let beyond =
            [Counter::General(shape.general).rdpmc_index(), Counter::Fixed(shape.fixed).rdpmc_index()];
        for index in beyond {
            report.same(format_args!("rdpmc-beyond:{index:#x}:pce={pce}"), rdpmc(index), Err(GP0));
        }
    }
    cpu::set_cr4_pce(false);
    pmu::reset();
}
