//! What of the machine's virtualisation and counting is missing or broken?
//!
//! Only facts: the host knows which faults it asked for.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![deny(unsafe_code)]

use guests::{
    Report, apic, code, cpu,
    pmu::{self, Counter, Overflow, Rings},
    println,
    vmx::{self, Controls, Vm, ept, fields::*},
};

guests::program!(run);

const COUNTER: Counter = Counter::Fixed(0);
/// Exits, overflows and strings that are tried.
const TRIES: u64 = 100;

fn run(report: &mut Report) {
    let signature = cpu::cpuid(1, 0)[0];
    println!("@@ fact signature={signature:#x}");
    let shape = pmu::shape();
    println!(
        "@@ fact pmu-version={} general={} fixed={} width={}",
        shape.version, shape.general, shape.fixed, shape.general_bits
    );
    println!("@@ fact global-ctrl={}", if cpu::rdmsr(pmu::GLOBAL_CTRL).is_ok() { "there" } else { "faults" });
    println!("@@ fact vmx-cpuid={}", cpu::cpuid(1, 0)[2] >> 5 & 1);
    println!("@@ fact vmxe={}", if cpu::set_cr4_vmxe().is_ok() { "settable" } else { "faults" });
    match vmx::start() {
        Ok(vm) => with_vmx(vm, shape),
        Err(missing) => println!("@@ fact vmx=missing why={missing:?}"),
    }
    if shape.version >= 2 && shape.fixed > 0 {
        strings();
        overflows();
    }
    // The last fact, so that a machine that stopped half way is seen.
    report.holds("asked-everything", true);
}

fn with_vmx(mut vm: Vm, shape: pmu::Shape) {
    let may = |name: &str, allowed: bool| {
        println!("@@ fact {name}={}", if allowed { "allowed" } else { "missing" })
    };
    println!("@@ fact vmx=on");
    let secondary = vmx::allows(0x48e, PRIMARY_SECONDARY);
    may("secondary", secondary);
    let has_ept = secondary && vmx::allows(0x48b, SECONDARY_EPT);
    may("ept", has_ept);
    may("unrestricted", secondary && vmx::allows(0x48b, SECONDARY_UNRESTRICTED));
    may("mtf", vmx::allows(0x48e, PRIMARY_MTF));
    let switched = vmx::allows(0x490, ENTRY_LOAD_GLOBAL_CTRL) && vmx::allows(0x48f, EXIT_LOAD_GLOBAL_CTRL);
    may("global-ctrl-switch", switched);
    if shape.version >= 2 && has_ept && switched {
        exits(&mut vm);
    }
}

/// How many instructions TRIES exits by CPUID add to the count of the guest.
fn exits(vm: &mut Vm) {
    let controls =
        Controls { entry: ENTRY_LOAD_GLOBAL_CTRL, exit: EXIT_LOAD_GLOBAL_CTRL, ..Controls::default() };
    pmu::reset();
    pmu::program_fixed(0, Rings::Both, Overflow::Quiet);
    let mut exits = 0;
    while exits < TRIES {
        vm.reset(code::exits().routine, controls);
        vm.write(GUEST_GLOBAL_CTRL, COUNTER.bit());
        while vm.enter().expect("VM entry").reason == reason::CPUID {
            vm.skip_instruction();
            exits += 1;
        }
        exits += 1;
    }
    // Each round: CALL, ten times (CPUID exits) NOP, RET, VMCALL exits.
    let rounds = exits / 11;
    println!("@@ fact exits={exits} counted={} want={}", COUNTER.read(), 12 * rounds);
    // One string of two pages that both violate: REP STOSB is one instruction.
    let piece = code::store_string(ept::WINDOW + 100, 4096);
    ept::protect(0, 0);
    ept::protect(1, 0);
    vm.reset(piece.routine, controls);
    vm.write(GUEST_GLOBAL_CTRL, COUNTER.bit());
    vm.invalidate();
    COUNTER.write(0);
    while vm.enter().expect("VM entry").reason == reason::EPT_VIOLATION {
        ept::protect(((vm.read(GUEST_PHYSICAL) - ept::WINDOW) >> 12) as usize, ept::RWX);
    }
    println!("@@ fact string-with-violations={} want=6", COUNTER.read());
}

/// What a piece with REP counts beyond an empty one, TRIES times.
fn strings() {
    let one = |routine| {
        pmu::reset();
        pmu::program_fixed(0, Rings::Both, Overflow::Quiet);
        pmu::count(routine, COUNTER.bit());
        COUNTER.read()
    };
    let piece = code::store_string(ept::WINDOW, 64);
    let mut counted = 0;
    for _ in 0..TRIES {
        let overhead = one(code::empty().routine);
        counted += one(piece.routine) - overhead;
    }
    println!("@@ fact strings={TRIES} counted={counted} want={}", TRIES * piece.instructions);
}

/// Of TRIES overflows, how many interrupted; all must have set the status.
fn overflows() {
    apic::enable();
    cpu::interrupts_on();
    let (mut pmis, mut status) = (0, 0);
    for _ in 0..TRIES {
        pmu::reset();
        pmu::program_fixed(0, Rings::Both, Overflow::Interrupt);
        COUNTER.write((1 << pmu::shape().fixed_bits) - 5000);
        pmu::catch_pmi(pmu::Delivery::Fixed);
        pmu::count(code::sled().routine, COUNTER.bit());
        pmis += pmu::pmis();
        status += u64::from(cpu::rdmsr(pmu::GLOBAL_STATUS) == Ok(COUNTER.bit()));
    }
    cpu::interrupts_off();
    println!("@@ fact overflows={TRIES} pmis={pmis} status={status}");
}
