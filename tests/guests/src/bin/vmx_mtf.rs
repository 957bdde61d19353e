//! Does the monitor trap flag stop the guest exactly where the SDM says?
//!
//! SDM vol. 3C, 27.5.2 (monitor trap flag) and 28.7.8 (MTF pending after VM entry).
#![cfg_attr(target_os = "none", no_std, no_main)]
#![deny(unsafe_code)]

use guests::{
    Report, apic,
    code::{self, Piece},
    cpu, exit,
    pmu::{self, Counter, Overflow, Rings},
    println,
    steps::{self, Script},
    traps,
    vmx::{self, Controls, Exit, Vm, fields::*},
};

guests::program!(run);

const COUNTER: Counter = Counter::Fixed(0);
/// Blocking by STI, by MOV SS, in the interruptibility field.
const BY_STI: u64 = 1;
const BY_MOV_SS: u64 = 2;
const FLAG_IF: u64 = 1 << 9;

fn run(report: &mut Report) {
    let mut vm = match vmx::start() {
        Ok(vm) => vm,
        Err(missing) => {
            println!("@@ fact missing={missing:?}");
            exit::exit(exit::Code::Refused)
        }
    };
    if !vmx::allows(0x48e, PRIMARY_MTF) {
        println!("@@ fact missing=mtf");
        exit::exit(exit::Code::Refused);
    }
    code::prepare();
    apic::enable();
    for script in steps::scripts() {
        every_step(report, &mut vm, &script);
    }
    rep(report, &mut vm);
    shadows(report, &mut vm);
    for (name, info) in
        [("interrupt", external_interrupt(code::IRET_VECTOR)), ("nmi", NMI), ("exception", UD)]
    {
        injection(report, &mut vm, name, info);
    }
    software_injection(report, &mut vm);
    pending_mtf(report, &mut vm);
    exiting_instruction(report, &mut vm);
    halted(report, &mut vm);
    interrupt_waits(report, &mut vm);
    off_again(report, &mut vm);
}

/// Entry-interruption information of #UD.
const UD: u64 = 1 << 31 | 3 << 8 | 6;
/// Entry-interruption information of INT 41h: type 4, software interrupt.
const INT_41: u64 = 1 << 31 | 4 << 8 | 0x41;

/// A guest that is counted and stops after every instruction.
fn prepare(vm: &mut Vm, piece: &Piece) {
    stepping(vm, piece, Controls::default());
}

fn stepping(vm: &mut Vm, piece: &Piece, more: Controls) {
    pmu::reset();
    pmu::program_fixed(0, Rings::Both, Overflow::Quiet);
    let controls = Controls {
        primary: PRIMARY_MTF | more.primary,
        entry: ENTRY_LOAD_GLOBAL_CTRL,
        exit: EXIT_LOAD_GLOBAL_CTRL | more.exit,
        ..more
    };
    vm.reset(piece.routine, controls);
    vm.write(GUEST_GLOBAL_CTRL, COUNTER.bit());
    vm.write(GUEST_RIP, piece.routine.address() as usize as u64);
}

fn enter(vm: &mut Vm) -> Exit {
    vm.enter().expect("VM entry")
}

/// Offset of RIP from the start of `piece`.
fn offset(vm: &Vm, piece: &Piece) -> u64 {
    vm.read(GUEST_RIP).wrapping_sub(piece.routine.address() as usize as u64)
}

/// Steps through code of which every instruction's successor and count is known.
fn every_step(report: &mut Report, vm: &mut Vm, script: &Script) {
    prepare(vm, &script.piece);
    for (step, want) in script.steps.iter().enumerate() {
        let exit = enter(vm);
        let name = format_args!("{}:{step}", script.piece.name);
        report.equal(format_args!("mtf:{name}"), exit.reason.into(), reason::MTF.into());
        let rip = vm.read(GUEST_RIP);
        let wanted_rip = want.place.address(&script.piece);
        report.equal_hex(format_args!("rip:{name}"), rip, wanted_rip);
        report.equal(format_args!("retired:{name}"), COUNTER.read(), want.retired);
    }
}

/// In a REP: after one iteration, RIP still there, RCX less by one; the last iteration ends the instruction.
fn rep(report: &mut Report, vm: &mut Vm) {
    let piece = steps::rep_stosb();
    prepare(vm, &piece);
    vm.registers.rcx = 5;
    vm.registers.rdi = vmx::ept::WINDOW;
    for left in (0..5).rev() {
        let exit = enter(vm);
        report.equal(format_args!("rep-mtf:{left}"), exit.reason.into(), reason::MTF.into());
        report.equal(format_args!("rep-rcx:{left}"), vm.registers.rcx, left);
        // Two bytes of REP STOSB. After the last iteration the processor may still be at it (the iteration that finds
        // RCX zero) or behind it; the SDM says only "after the first iteration". Counted it is at its end.
        let at = offset(vm, &piece);
        if left > 0 {
            report.equal(format_args!("rep-rip:{left}"), at, 0);
            report.equal(format_args!("rep-retired:{left}"), COUNTER.read(), 0);
        } else {
            report.equal("rep-last-rip-and-count-agree", at, 2 * COUNTER.read());
        }
        report.equal(format_args!("rep-rdi:{left}"), vm.registers.rdi, vmx::ept::WINDOW + 5 - left);
    }
    while offset(vm, &piece) == 0 {
        enter(vm);
    }
    report.equal("rep-end", offset(vm, &piece), 2);
    report.equal("rep-end-retired", COUNTER.read(), 1);
}

/// STI and MOV SS do not hold an MTF exit back; the shadow is in the interruptibility field, and ends a step later.
fn shadows(report: &mut Report, vm: &mut Vm) {
    for (piece, blocking) in [(steps::sti(), BY_STI), (steps::mov_ss(), BY_MOV_SS)] {
        prepare(vm, &piece);
        for want in [blocking, 0] {
            let exit = enter(vm);
            let name = format_args!("{}:{want}", piece.name);
            report.equal(format_args!("shadow-mtf:{name}"), exit.reason.into(), reason::MTF.into());
            report.equal(format_args!("shadow:{name}"), vm.read(INTERRUPTIBILITY) & 3, want);
        }
        report.equal(format_args!("shadow-retired:{}", piece.name), COUNTER.read(), 2);
    }
}

/// With an event injected the exit comes after its delivery, before the handler's first instruction.
fn injection(report: &mut Report, vm: &mut Vm, name: &str, info: u64) {
    let piece = &code::plain()[0];
    let vector = (info & 0xff) as u8;
    code::iret_gate(vector);
    prepare(vm, piece);
    vm.write(GUEST_RFLAGS, 2 | FLAG_IF);
    let stack = vm.read(GUEST_RSP);
    vm.write(ENTRY_INTERRUPTION, info);
    let exit = enter(vm);
    report.equal(format_args!("inject-mtf:{name}"), exit.reason.into(), reason::MTF.into());
    report.equal_hex(format_args!("inject-at-handler:{name}"), vm.read(GUEST_RIP), code::iret_address());
    report.equal(format_args!("inject-retired:{name}"), COUNTER.read(), 0);
    report.equal(format_args!("inject-frame:{name}"), (stack & !15) - vm.read(GUEST_RSP), 40);
    report.equal(format_args!("inject-if-clear:{name}"), vm.read(GUEST_RFLAGS) & FLAG_IF, 0);
    let exit = enter(vm);
    report.equal(format_args!("inject-iret-mtf:{name}"), exit.reason.into(), reason::MTF.into());
    report.equal(format_args!("inject-iret-back:{name}"), offset(vm, piece), 0);
    report.equal(format_args!("inject-iret-retired:{name}"), COUNTER.read(), 1);
    let exit = enter(vm);
    report.equal(format_args!("inject-next-mtf:{name}"), exit.reason.into(), reason::MTF.into());
    report.equal(format_args!("inject-next:{name}"), offset(vm, piece), 1);
}

/// A software interrupt that is injected returns behind the instruction whose length is given.
fn software_injection(report: &mut Report, vm: &mut Vm) {
    let piece = &code::plain()[0];
    prepare(vm, piece);
    vm.write(ENTRY_INTERRUPTION, INT_41);
    vm.write(ENTRY_INSTRUCTION_LENGTH, 2);
    let exit = enter(vm);
    report.equal("inject-mtf:software", exit.reason.into(), reason::MTF.into());
    report.equal_hex("inject-at-handler:software", vm.read(GUEST_RIP), code::iret_address());
    enter(vm);
    report.equal("inject-iret-back:software", offset(vm, piece), 2);
}

/// Injecting type 7 is a pending MTF exit: nothing runs, whether the control is on or off.
fn pending_mtf(report: &mut Report, vm: &mut Vm) {
    let piece = &code::plain()[0];
    for on in [true, false] {
        prepare(vm, piece);
        if !on {
            let exit = EXIT_LOAD_GLOBAL_CTRL;
            vm.set_controls(Controls { entry: ENTRY_LOAD_GLOBAL_CTRL, exit, ..Controls::default() });
        }
        vm.write(ENTRY_INTERRUPTION, PENDING_MTF);
        let exit = enter(vm);
        report.equal(format_args!("pending-mtf:{on}"), exit.reason.into(), reason::MTF.into());
        report.equal(format_args!("pending-rip:{on}"), offset(vm, piece), 0);
        report.equal(format_args!("pending-retired:{on}"), COUNTER.read(), 0);
    }
}

/// An instruction that exits by itself brings no MTF exit with it.
fn exiting_instruction(report: &mut Report, vm: &mut Vm) {
    let piece = steps::cpuid();
    prepare(vm, &piece);
    enter(vm);
    let exit = enter(vm);
    report.equal("exiting-instruction", exit.reason.into(), reason::CPUID.into());
    vm.skip_instruction();
    let exit = enter(vm);
    report.equal("after-exiting-instruction", exit.reason.into(), reason::MTF.into());
    report.equal("after-exiting-instruction-rip", offset(vm, &piece), 4);
    report.equal("exiting-instruction-retired", COUNTER.read(), 2);
}

/// HLT without HLT exiting: the MTF exit comes from the halted state.
fn halted(report: &mut Report, vm: &mut Vm) {
    let piece = steps::hlt();
    prepare(vm, &piece);
    vm.write(GUEST_RFLAGS, 2 | FLAG_IF);
    let exit = enter(vm);
    report.equal("hlt-mtf", exit.reason.into(), reason::MTF.into());
    report.equal("hlt-activity", vm.read(ACTIVITY), 1);
    report.equal("hlt-rip", offset(vm, &piece), 1);
}

/// An external interrupt that waits: the MTF exit of the instruction before comes first.
fn interrupt_waits(report: &mut Report, vm: &mut Vm) {
    const VECTOR: u8 = 0x61;
    traps::set_handler(VECTOR, Some(|_| apic::end_of_interrupt()));
    let piece = steps::self_interrupt();
    let more = Controls { pin: PIN_EXTERNAL_INTERRUPT, exit: EXIT_ACKNOWLEDGE, ..Controls::default() };
    stepping(vm, &piece, more);
    vm.write(GUEST_RFLAGS, 2 | FLAG_IF);
    vm.registers.rax = 1 << 18 | 1 << 14 | u64::from(VECTOR);
    vm.registers.rdi = 0xfee0_0300;
    let exit = enter(vm);
    report.equal("mtf-before-interrupt", exit.reason.into(), reason::MTF.into());
    report.equal("mtf-before-interrupt-retired", COUNTER.read(), 1);
    let exit = enter(vm);
    report.equal("then-the-interrupt", exit.reason.into(), reason::EXTERNAL_INTERRUPT.into());
    report.equal("then-the-interrupt-retired", COUNTER.read(), 1);
    apic::end_of_interrupt();
    cpu::interrupts_on();
    cpu::pause();
    cpu::interrupts_off();
}

/// With the control off again the guest runs on.
fn off_again(report: &mut Report, vm: &mut Vm) {
    let piece = &code::plain()[1];
    prepare(vm, piece);
    vm.write(GUEST_RIP, vmx::call_address());
    for _ in 0..3 {
        enter(vm);
    }
    let exit = EXIT_LOAD_GLOBAL_CTRL;
    vm.set_controls(Controls { entry: ENTRY_LOAD_GLOBAL_CTRL, exit, ..Controls::default() });
    let exit = enter(vm);
    report.equal("off-again", exit.reason.into(), reason::VMCALL.into());
    report.equal("off-again-retired", COUNTER.read(), piece.instructions + 2);
}
