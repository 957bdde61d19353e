//! Does a counter that is on only in the guest count exactly what the guest retires, whatever exits it takes?
#![cfg_attr(target_os = "none", no_std, no_main)]
#![deny(unsafe_code)]

use guests::{
    Report, apic, boot,
    code::{self, Piece, Routine},
    cpu, exit,
    pmu::{self, Counter, Event, Overflow, Rings},
    println, traps,
    vmx::{self, Controls, EntryError, Vm, ept, fields::*},
};

guests::program!(run);

/// CALL and RET around a piece in the guest; the VMCALL at its end exits and does not retire.
const AROUND: u64 = 2;
const COUNTER: Counter = Counter::Fixed(0);

fn run(report: &mut Report) {
    let mut vm = match vmx::start() {
        Ok(vm) => vm,
        Err(missing) => {
            println!("@@ fact missing={missing:?}");
            exit::exit(exit::Code::Refused)
        }
    };
    code::prepare();
    apic::enable();
    exact_counts(report, &mut vm);
    host_is_not_counted(report, &mut vm);
    neutral_exits(report, &mut vm);
    emulated_instruction(report, &mut vm);
    injection(report, &mut vm);
    msr_lists(report, &mut vm);
    bad_values(report, &mut vm);
    debug_control(report, &mut vm);
    rdpmc_exiting(report, &mut vm);
    pmi(report, &mut vm);
}

/// Controls that count in the guest only.
fn guest_only() -> Controls {
    Controls { entry: ENTRY_LOAD_GLOBAL_CTRL, exit: EXIT_LOAD_GLOBAL_CTRL, ..Controls::default() }
}

/// Resets the VM to run `routine`, with these controls and the counters of `mask` on in the guest.
fn prepare(vm: &mut Vm, routine: Routine, controls: Controls, mask: u64) {
    vm.reset(routine, controls);
    vm.write(GUEST_GLOBAL_CTRL, mask);
    vm.write(HOST_GLOBAL_CTRL, 0);
}

/// Programs fixed counter 0 and general counters 0 to 2: instructions, instructions, conditional, all branches.
fn program() -> u64 {
    pmu::reset();
    pmu::program_fixed(0, Rings::Both, Overflow::Quiet);
    pmu::program_general(0, pmu::INSTRUCTIONS, Rings::Both, Overflow::Quiet);
    pmu::program_general(1, pmu::CONDITIONAL_01, Rings::Both, Overflow::Quiet);
    pmu::program_general(2, pmu::BRANCHES, Rings::Both, Overflow::Quiet);
    COUNTER.bit() | 7
}

/// Runs to the VMCALL, calling `on_exit` at every other exit; how many there were.
fn run_to_end(vm: &mut Vm, mut on_exit: impl FnMut(&mut Vm, vmx::Exit)) -> u64 {
    let mut exits = 0;
    loop {
        let exit = vm.enter().expect("VM entry");
        if exit.reason == reason::VMCALL {
            return exits;
        }
        exits += 1;
        assert!(!exit.entry_failed && exits < 1_000_000, "exit {exits}: {exit:?}");
        on_exit(vm, exit);
    }
}

/// A preemption timer that gets longer when the guest did not get on: a short one may expire at once.
struct Slice {
    least: u64,
    value: u64,
    before: (u64, u64),
}

impl Slice {
    fn new(least: u64) -> Self {
        Self { least, value: least, before: (0, 0) }
    }

    fn arm(&mut self, vm: &mut Vm) {
        let now = (vm.read(GUEST_RIP), vm.registers.rcx);
        self.value = if now == self.before { self.value + 1 } else { self.least };
        self.before = now;
        vm.write(PREEMPTION_TIMER, self.value);
    }
}

fn judge(report: &mut Report, name: &str, piece: &Piece, extra: u64) {
    report.equal(
        format_args!("n:{name}:{}", piece.name),
        COUNTER.read(),
        piece.instructions + AROUND + extra,
    );
    let general = Counter::General(0).read();
    report.equal(
        format_args!("n-general:{name}:{}", piece.name),
        general,
        piece.instructions + AROUND + extra,
    );
    if let Some(conditional) = piece.conditional {
        report.equal(format_args!("c:{name}:{}", piece.name), Counter::General(1).read(), conditional);
    }
    let branches = Counter::General(2).read();
    report.equal(format_args!("b:{name}:{}", piece.name), branches, piece.branches + AROUND + extra);
}

/// Every piece without an exit: the count is the piece, no overhead, and the host's part is not in it.
fn exact_counts(report: &mut Report, vm: &mut Vm) {
    let pieces = code::plain().into_iter().filter(|piece| piece.name != "cpuid").chain(code::far());
    for piece in pieces.chain([code::user_short(), code::user_syscalls(), code::user_ints()]) {
        let mask = program();
        prepare(vm, piece.routine, guest_only(), mask);
        let exits = run_to_end(vm, |_, exit| panic!("unexpected {exit:?}"));
        assert_eq!(exits, 0);
        judge(report, "plain", &piece, 0);
    }
}

/// After an exit nothing counts, though GLOBAL_CTRL was on before the entry too.
fn host_is_not_counted(report: &mut Report, vm: &mut Vm) {
    let piece = &code::plain()[1];
    let mask = program();
    prepare(vm, piece.routine, guest_only(), mask);
    run_to_end(vm, |_, exit| panic!("unexpected {exit:?}"));
    report.same("global-ctrl-after-exit", cpu::rdmsr(pmu::GLOBAL_CTRL), Ok(0));
    let before = COUNTER.read();
    for _ in 0..1000 {
        cpu::pause();
    }
    report.equal("counted-in-the-host", COUNTER.read() - before, 0);
}

/// The same piece under exits that belong to the host alone.
fn neutral_exits(report: &mut Report, vm: &mut Vm) {
    let loops = &code::plain()[2];
    let strings = &window_strings();
    for piece in [loops, strings, &code::far()[0], &code::user_syscalls()] {
        for value in [1, 3, 7] {
            let mut controls = guest_only();
            controls.pin |= PIN_PREEMPTION_TIMER;
            let mask = program();
            prepare(vm, piece.routine, controls, mask);
            vm.write(PREEMPTION_TIMER, value);
            let mut slice = Slice::new(value);
            let exits = run_to_end(vm, |vm, exit| {
                assert_eq!(exit.reason, reason::PREEMPTION_TIMER);
                slice.arm(vm);
            });
            judge(report, "preemption-timer", piece, 0);
            println!("@@ fact exits={exits} of=preemption-timer piece={}", piece.name);
        }
        let mut controls = guest_only();
        controls.primary |= PRIMARY_MTF;
        let mask = program();
        prepare(vm, piece.routine, controls, mask);
        let exits = run_to_end(vm, |_, exit| assert_eq!(exit.reason, reason::MTF));
        judge(report, "mtf", piece, 0);
        report.holds(format_args!("mtf-exits-everywhere:{}", piece.name), exits >= piece.instructions);
    }
    ept_violations(report, vm, strings);
    interrupts(report, vm, loops);
}

/// REP STOSB over eight pages of the window, which all fault once.
fn window_strings() -> Piece {
    code::store_string(ept::WINDOW + 64 * 4096 + 100, 7 * 4096)
}

fn ept_violations(report: &mut Report, vm: &mut Vm, piece: &Piece) {
    let mask = program();
    prepare(vm, piece.routine, guest_only(), mask);
    for page in 64..72 {
        ept::protect(page, 0);
    }
    vm.invalidate();
    let exits = run_to_end(vm, |vm, exit| {
        assert_eq!(exit.reason, reason::EPT_VIOLATION);
        ept::protect(((vm.read(GUEST_PHYSICAL) - ept::WINDOW) >> 12) as usize, ept::RWX);
    });
    report.equal("ept-violations", exits, 8);
    judge(report, "ept-violation", piece, 0);
}

/// An external interrupt waiting at each entry.
fn interrupts(report: &mut Report, vm: &mut Vm, piece: &Piece) {
    const VECTOR: u8 = 0x60;
    let mut controls = guest_only();
    controls.pin |= PIN_EXTERNAL_INTERRUPT;
    controls.exit |= EXIT_ACKNOWLEDGE;
    controls.pin |= PIN_PREEMPTION_TIMER;
    let mask = program();
    prepare(vm, piece.routine, controls, mask);
    vm.write(PREEMPTION_TIMER, 2);
    let (mut taken, mut slice) = (0, Slice::new(2));
    run_to_end(vm, |vm, exit| {
        if exit.reason == reason::EXTERNAL_INTERRUPT {
            taken += 1;
            assert_eq!(vm.read(EXIT_INTERRUPTION) & 0xff, VECTOR.into());
            apic::end_of_interrupt();
        } else {
            assert_eq!(exit.reason, reason::PREEMPTION_TIMER);
            apic::send_self(VECTOR);
        }
        slice.arm(vm);
    });
    // One may still wait.
    traps::set_handler(VECTOR, Some(|_| apic::end_of_interrupt()));
    cpu::interrupts_on();
    cpu::pause();
    cpu::interrupts_off();
    report.within("external-interrupts-taken", taken, 10, 100_000);
    judge(report, "external-interrupt", piece, 0);
}

/// An instruction that exits and is skipped does not retire.
fn emulated_instruction(report: &mut Report, vm: &mut Vm) {
    let all = code::plain();
    let piece = all.iter().find(|piece| piece.name == "cpuid").expect("a piece with CPUID");
    let mask = program();
    prepare(vm, piece.routine, guest_only(), mask);
    let exits = run_to_end(vm, |vm, exit| {
        assert_eq!(exit.reason, reason::CPUID);
        vm.skip_instruction();
    });
    report.equal("cpuid-exits", exits, 5);
    report.equal("n:emulated", COUNTER.read(), piece.instructions + AROUND - exits);
}

/// Injecting an interrupt retires nothing; its IRET retires once.
fn injection(report: &mut Report, vm: &mut Vm) {
    let piece = &code::plain()[2];
    let mut controls = guest_only();
    controls.pin |= PIN_PREEMPTION_TIMER;
    let mask = program();
    prepare(vm, piece.routine, controls, mask);
    vm.write(GUEST_RFLAGS, 0x202);
    vm.write(PREEMPTION_TIMER, 2);
    let mut slice = Slice::new(2);
    let mut injected = 0;
    run_to_end(vm, |vm, exit| {
        assert_eq!(exit.reason, reason::PREEMPTION_TIMER);
        slice.arm(vm);
        // Not in the handler, which runs with IF clear.
        if vm.read(GUEST_RFLAGS) & 1 << 9 != 0 {
            injected += 1;
            vm.write(ENTRY_INTERRUPTION, external_interrupt(code::IRET_VECTOR));
        }
    });
    report.holds("injections", injected > 10);
    judge(report, "injection", piece, injected);
}

/// Counting by MSR lists instead of the controls gives the same, and switches a counter's value too.
fn msr_lists(report: &mut Report, vm: &mut Vm) {
    let piece = &code::plain()[2];
    program();
    vm.reset(piece.routine, Controls::default());
    let value = pmu::A_PMC0;
    vm.load_at_entry(&[(value, 1000), (pmu::GLOBAL_CTRL, COUNTER.bit() | 7)]);
    vm.store_at_exit(&[value, pmu::GLOBAL_CTRL, pmu::FIXED_CTR0]);
    vm.load_at_exit(&[(pmu::GLOBAL_CTRL, 0), (value, 77)]);
    run_to_end(vm, |_, exit| panic!("unexpected {exit:?}"));
    let want = piece.instructions + AROUND;
    report.equal("list:entry-load-and-exit-store", vm.exit_stored(0), 1000 + want);
    report.equal("list:store-before-load", vm.exit_stored(1), COUNTER.bit() | 7);
    report.equal("list:fixed-stored", vm.exit_stored(2), want);
    report.equal("list:fixed-afterwards", COUNTER.read(), want);
    report.equal("list:conditional", Counter::General(1).read(), piece.conditional.unwrap_or(0));
    report.equal("list:exit-load", Counter::General(0).read(), 77);
    report.same("list:global-ctrl-off", cpu::rdmsr(pmu::GLOBAL_CTRL), Ok(0));
}

/// Values that an entry must refuse.
fn bad_values(report: &mut Report, vm: &mut Vm) {
    let piece = &code::plain()[0];
    let mask = program();
    prepare(vm, piece.routine, guest_only(), mask | 1 << 20);
    let exit = vm.enter();
    let refused = exit.is_ok_and(|e| e.entry_failed && e.reason == reason::ENTRY_GUEST_STATE);
    report.holds("reserved-bit-in-guest-global-ctrl", refused);
    prepare(vm, piece.routine, guest_only(), mask);
    vm.write(HOST_GLOBAL_CTRL, 1 << 40);
    // Error 8: invalid host-state field.
    report.same("reserved-bit-in-host-global-ctrl", vm.enter(), Err(EntryError(8)));
    vm.reset(piece.routine, Controls::default());
    vm.load_at_entry(&[(pmu::FIXED_CTR0, 5), (pmu::GLOBAL_CTRL, 1 << 20)]);
    let exit = vm.enter().expect("VM entry");
    report.holds("bad-value-in-entry-list", exit.entry_failed && exit.reason == reason::ENTRY_MSR_LOADING);
    report.equal("bad-entry-is-named", exit.qualification, 2);
}

/// An exit clears IA32_DEBUGCTL; an entry loads it; an exit saves it.
fn debug_control(report: &mut Report, vm: &mut Vm) {
    const FREEZE_ON_PMI: u64 = 1 << 12;
    const SINGLE_STEP_BRANCHES: u64 = 1 << 1;
    let controls = Controls { entry: ENTRY_LOAD_DEBUG, exit: EXIT_SAVE_DEBUG, ..Controls::default() };
    cpu::wrmsr(pmu::DEBUGCTL, SINGLE_STEP_BRANCHES).expect("DEBUGCTL");
    vm.reset(code::read_msr().routine, controls);
    vm.registers.rcx = pmu::DEBUGCTL.into();
    vm.write(GUEST_DEBUGCTL, FREEZE_ON_PMI);
    run_to_end(vm, |_, exit| panic!("unexpected {exit:?}"));
    report.equal_hex("debugctl-in-the-guest", vm.registers.rdi, FREEZE_ON_PMI);
    report.same("debugctl-after-exit", cpu::rdmsr(pmu::DEBUGCTL), Ok(0));
    report.equal_hex("debugctl-saved", vm.read(GUEST_DEBUGCTL), FREEZE_ON_PMI);
    // Written by the guest, and then kept over an exit and the next entry.
    vm.reset(code::write_msr().routine, controls);
    vm.registers.rcx = pmu::DEBUGCTL.into();
    vm.registers.rsi = FREEZE_ON_PMI;
    run_to_end(vm, |_, exit| panic!("unexpected {exit:?}"));
    report.equal_hex("debugctl-written-is-saved", vm.read(GUEST_DEBUGCTL), FREEZE_ON_PMI);
    report.same("debugctl-written-is-cleared", cpu::rdmsr(pmu::DEBUGCTL), Ok(0));
}

/// RDPMC exiting.
fn rdpmc_exiting(report: &mut Report, vm: &mut Vm) {
    let controls = Controls { primary: PRIMARY_RDPMC, ..Controls::default() };
    vm.reset(code::read_pmc().routine, controls);
    let exit = vm.enter().expect("VM entry");
    report.equal("rdpmc-exits", exit.reason.into(), reason::RDPMC.into());
    Counter::General(0).write(4711);
    vm.reset(code::read_pmc().routine, Controls::default());
    run_to_end(vm, |_, exit| panic!("unexpected {exit:?}"));
    report.equal("rdpmc-in-the-guest", vm.registers.rdi, 4711);
}

/// An overflow in the guest exits, as an interrupt or as an NMI, at the overflow plus the skid, whatever IF is.
fn pmi(report: &mut Report, vm: &mut Vm) {
    let text = boot::option("skid").unwrap_or("0:0");
    let mut parts = text.split(':').map(|part| boot::parse_number(part).unwrap_or(0));
    let (min, max) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    let sled = code::sled();
    let start = sled.routine.address() as usize as u64;
    for (name, lvt, pin, flags) in [
        ("fixed-if-0", u32::from(pmu::PMI_VECTOR), PIN_EXTERNAL_INTERRUPT, 0x002),
        ("fixed-if-1", u32::from(pmu::PMI_VECTOR), PIN_EXTERNAL_INTERRUPT, 0x202),
        ("nmi", apic::LVT_NMI, PIN_NMI, 0x002),
    ] {
        let mut controls = guest_only();
        controls.pin |= pin;
        controls.exit |= EXIT_ACKNOWLEDGE;
        for distance in [1, 2, 100, 1234, 5000] {
            overflow_in(vm, COUNTER, pmu::INSTRUCTIONS, distance, lvt);
            prepare(vm, sled.routine, controls, COUNTER.bit());
            vm.write(GUEST_RFLAGS, flags);
            let exit = vm.enter().expect("VM entry");
            let is_nmi = lvt == apic::LVT_NMI;
            let want = if is_nmi { reason::EXCEPTION_OR_NMI } else { reason::EXTERNAL_INTERRUPT };
            report.equal(format_args!("pmi-exit:{name}:{distance}"), exit.reason.into(), want.into());
            let late = COUNTER.read();
            report.within(format_args!("pmi-late:{name}:{distance}"), late, min, max);
            // The CALL into the sled is the first instruction.
            let by_rip = (vm.read(GUEST_RIP) - start + 1).wrapping_sub(distance);
            if distance > 1 {
                report.equal(format_args!("pmi-rip:{name}:{distance}"), by_rip, late);
            }
            let vector = vm.read(EXIT_INTERRUPTION);
            let want = if is_nmi { NMI } else { external_interrupt(pmu::PMI_VECTOR) };
            report.equal_hex(format_args!("pmi-vector:{name}:{distance}"), vector & 0x8000_07ff, want);
            report.holds(format_args!("pmi-masked:{name}:{distance}"), pmu::pmi_masked());
            if is_nmi {
                cpu::unblock_nmi();
            } else {
                apic::end_of_interrupt();
            }
        }
    }
    branch_pmi(report, vm, min, max);
}

fn branch_pmi(report: &mut Report, vm: &mut Vm, min: u64, max: u64) {
    let mut controls = guest_only();
    controls.pin |= PIN_EXTERNAL_INTERRUPT;
    controls.exit |= EXIT_ACKNOWLEDGE;
    let counter = Counter::General(3);
    overflow_in(vm, counter, pmu::CONDITIONAL_01, 5000, pmu::PMI_VECTOR.into());
    prepare(vm, code::long_loop().routine, controls, counter.bit());
    let exit = vm.enter().expect("VM entry");
    report.equal("pmi-exit:conditional", exit.reason.into(), reason::EXTERNAL_INTERRUPT.into());
    // Three instructions a branch.
    report.within("pmi-late:conditional", counter.read(), min / 3, max / 3 + u64::from(max > 0));
    apic::end_of_interrupt();
}

/// Sets `counter` to overflow after `distance` events, with the PMI as `lvt` says.
fn overflow_in(_: &mut Vm, counter: Counter, event: Event, distance: u64, lvt: u32) {
    pmu::reset();
    match counter {
        Counter::Fixed(n) => pmu::program_fixed(n, Rings::Both, Overflow::Interrupt),
        Counter::General(n) => pmu::program_general(n, event, Rings::Both, Overflow::Interrupt),
    }
    counter.write((1 << pmu::shape().general_bits) - distance);
    apic::write(apic::Register::LvtPerformance, lvt);
}
