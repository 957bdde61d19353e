//! Runs the tiny guests: each mode, the hostile ones, and checks of the loop itself (host interrupts, write protection,
//! injection through the interrupt window). Prints one line for each.

use super::processors;
use super::tiny_guest::{self, GUESTS, HOSTILE, Hostile, TinyGuest, TinyMachine};
use super::vm::Vm;
use super::{trial_chaos, trial_registers};
use crate::arch::apic::{self, Ipi};
use crate::arch::idt::{self, vector};
use crate::arch::percpu::{self, PerCpu};
use crate::arch::{cpu, tiny_guests};
use crate::vcpu::{self, Active, Stop, Vcpu};
use crate::{machine_line, smp};
use core::fmt::{Display, Write};
use core::sync::atomic::{AtomicU32, Ordering};
use heapless::String;
use spin::Mutex;
use vmx::caps::Capabilities;
use vmx::controls;
use vmx::ept::Permissions;
use vmx::exit::{Exit, reason_name};
use vmx::fields::{self, VmcsRead};
use vmx::guest_state::GuestState;
use vmx::inject::{Blocked, Event, EventKind};
use vmx::msr_bitmap::Intercept;

/// Ticks of the preemption timer that a guest may run for after each entry.
const TICKS: u32 = 2_000_000;

/// Microseconds until the host's timer interrupts a running guest.
const TIMER_MICROS: u64 = 200;

/// The port that delays, and does nothing else.
const DELAY_PORT: u16 = 0x80;

/// IA32_FMASK, which nobody but a guest uses.
const FMASK: u32 = 0xc000_0084;

/// The page of the guest's stack, which begins at 7000h downwards.
const STACK_PAGE: u64 = 0x6000;

/// A page of the guest that is write-protected for a check.
const PROTECTED_PAGE: u64 = 0x9000;

/// Rounds of the measurement of an exit's cost.
const COST_ROUNDS: u64 = 1000;

/// Number of RSI.
const RSI: usize = 6;

/// Microseconds another processor may take.
const PATIENCE: u64 = 2_000_000;

/// Bytes of the line that lists the exits.
const COUNTS_MAX: usize = 400;

/// How many of the trials there were, and how many went well.
#[derive(Clone, Copy, Debug, Default)]
pub struct Score {
    /// All.
    pub run: u32,
    /// Those that went well.
    pub passed: u32,
}

impl Score {
    fn count(&mut self, passed: bool) -> &'static str {
        self.run += 1;
        self.passed += u32::from(passed);
        if passed { "pass" } else { "fail" }
    }
}

/// The one tiny guest's computer; it goes from processor to processor.
struct Trial {
    vm: Vm,
    vcpu: Vcpu,
    score: Score,
}

static TRIAL: Mutex<Option<Trial>> = Mutex::new(None);

/// Runs all tiny guests on this processor, then one on every other.
///
/// # Errors
/// What kept them from being made.
pub fn run(caps: &Capabilities) -> Result<Score, &'static str> {
    let vm = Vm::new(tiny_guest::RAM, caps.ept_vpid).map_err(|e| report("guest", &e))?;
    let page = vm.translate(0).map_or(0, |mapping| mapping.page);
    machine_line!("guest-memory bytes={} page={page} tables={}", tiny_guest::RAM, vm.tables_in_use());
    let vcpu = Vcpu::new(&vm, caps).map_err(|e| report("guest", &e))?;
    let mut trial = Trial { vm, vcpu, score: Score::default() };
    trial.run_all()?;
    *TRIAL.lock() = Some(trial);
    let others = percpu::online().map(PerCpu::number).filter(|number| *number != percpu::number());
    for number in others.filter(|number| processors::in_root(*number)) {
        if !smp::call(number, run_here, PATIENCE) {
            return Err("a processor has not run its guest in time");
        }
    }
    TRIAL.lock().as_ref().map(|trial| trial.score).ok_or("the guest is lost")
}

/// Runs the long-mode guest on this processor.
fn run_here() {
    let mut place = TRIAL.lock();
    let Some(trial) = place.as_mut() else { return };
    let result = trial.run_mode(&GUESTS[GUESTS.len() - 1]);
    let verdict = trial.score.count(matches!(result, Ok((true, _))));
    machine_line!("guest-cpu cpu={} verdict={verdict}", percpu::number());
}

/// Panics with a VMCS loaded, after one exit: for the test of the last words.
pub fn crash() -> ! {
    let mut place = TRIAL.lock();
    let trial = place.as_mut().expect("tiny guests run on this machine");
    let exit = trial.start(|vm, on| {
        prepare(vm, on, tiny_guests::cpuid());
        let exit = on.enter();
        panic!("crash=guest was asked for, after {exit:?}")
    });
    exit.unwrap_or_else(|why| panic!("{why}"))
}

impl Trial {
    fn run_all(&mut self) -> Result<(), &'static str> {
        for guest in &GUESTS {
            let (passed, exits) = self.run_mode(guest)?;
            let verdict = self.score.count(passed);
            machine_line!("guest mode={} verdict={verdict} exits={exits}", guest.mode);
        }
        for hostile in &HOSTILE {
            self.run_hostile(hostile)?;
        }
        for (name, check) in CHECKS.into_iter().chain(trial_registers::CHECKS) {
            let passed = self.start(check)?;
            if let Err(why) = passed {
                log::error!("check {name}: {why}");
            }
            machine_line!("guest-check name={name} verdict={}", self.score.count(passed.is_ok()));
        }
        say_counts(&self.vcpu);
        Ok(())
    }

    /// Loads the virtual processor for the time of `with`.
    fn start<R>(&mut self, with: impl FnOnce(&mut Vm, &mut Active<'_>) -> R) -> Result<R, &'static str> {
        let mut on = self.vcpu.load().map_err(|e| report("VMPTRLD", &e))?;
        on.registers_mut().gpr = [0; 16];
        on.set_preemption_timer(Some(TICKS));
        Ok(with(&mut self.vm, &mut on))
    }

    /// Runs a guest of one mode. Returns whether it did what it must, and its exits.
    fn run_mode(&mut self, guest: &TinyGuest) -> Result<(bool, u64), &'static str> {
        tiny_guest::load(&mut self.vm, (guest.code)());
        let before = self.vcpu.exits();
        let mut machine = TinyMachine::default();
        let stop = self.start(|_, on| {
            on.set_state(&(guest.state)());
            vcpu::run(on, &mut machine)
        })?;
        let result = guest.verify(&stop, &machine, self.vm.memory());
        if let Err((what, wanted, found)) = result {
            log::error!("guest in {} mode: {what}: {found:#x} instead of {wanted:#x}; it {stop}", guest.mode);
        }
        log::info!("guest in {} mode says: {}", guest.mode, machine.output.trim_end());
        Ok((result.is_ok(), self.vcpu.exits() - before))
    }

    fn run_hostile(&mut self, hostile: &Hostile) -> Result<(), &'static str> {
        tiny_guest::load(&mut self.vm, (hostile.code)());
        let mut state = GuestState::protected_mode(tiny_guest::LOAD as u32, 0x7000);
        (hostile.spoil)(&mut state);
        let mut machine = TinyMachine::default();
        let stop = self.start(|_, on| {
            on.set_state(&state);
            vcpu::run(on, &mut machine)
        })?;
        let verdict = self.score.count(stop.key() == hostile.ends);
        log::info!("hostile guest {}: {stop}", hostile.name);
        machine_line!("hostile name={} stop={} verdict={verdict}", hostile.name, stop.key());
        Ok(())
    }
}

/// Prints the exits by their reason.
fn say_counts(vcpu: &Vcpu) {
    let mut line = String::<COUNTS_MAX>::new();
    for (reason, count) in vcpu.counts().iter().enumerate().filter(|(_, count)| **count > 0) {
        // A line that is full ends early: the first reasons are the common ones.
        let _ = write!(line, " {}={count}", reason_name(reason as u16));
    }
    machine_line!("exits all={}{line}", vcpu.exits());
}

fn report(what: &str, error: &dyn Display) -> &'static str {
    log::error!("{what}: {error}");
    "a tiny guest could not be made"
}

/// A check of the loop.
pub type Check = fn(&mut Vm, &mut Active<'_>) -> Result<(), &'static str>;

const CHECKS: [(&str, Check); 10] = [
    ("bitmaps", bitmaps),
    ("breakpoint", breakpoint),
    ("chaos", trial_chaos::chaos),
    ("exit-cost", exit_cost),
    ("host-interrupt", host_interrupt),
    ("host-nmi", host_nmi),
    ("missing-page", missing_page),
    ("write-protection", write_protection),
    ("interrupt-window", interrupt_window),
    ("interrupted-delivery", interrupted_delivery),
];

/// Loads the code; the guest is to start in protected mode.
pub fn prepare(vm: &mut Vm, on: &mut Active<'_>, code: &[u8]) {
    tiny_guest::load(vm, code);
    on.set_state(&GuestState::protected_mode(tiny_guest::LOAD as u32, 0x7000));
}

/// One step of a check.
///
/// # Errors
/// It does not hold.
pub fn expect(holds: bool, otherwise: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(otherwise) }
}

/// A word of the guest's memory.
pub fn word(vm: &Vm, at: usize) -> u32 {
    u32::from_le_bytes(vm.memory()[at..at + 4].try_into().expect("four bytes"))
}

/// Runs the guest that takes an interrupt to the point where it lets it.
fn run_to_window(vm: &mut Vm, on: &mut Active<'_>, event: Event) -> Result<(), &'static str> {
    prepare(vm, on, tiny_guests::interrupt());
    expect(on.readiness().check(event) == Err(Blocked::InterruptFlag), "it could be injected at once")?;
    on.set(controls::INTERRUPT_WINDOW_EXITING, true);
    let exit = on.enter();
    on.set(controls::INTERRUPT_WINDOW_EXITING, false);
    expect(exit == Ok(Exit::InterruptWindow), "no interrupt-window exit")?;
    expect(on.readiness().check(event).is_ok(), "the window does not take the interrupt")
}

static TIMER_CAME: AtomicU32 = AtomicU32::new(0);

/// An interrupt for the host takes the processor from a guest that has interrupts off, reaches the host's handler, and
/// costs the guest nothing but time.
fn host_interrupt(vm: &mut Vm, on: &mut Active<'_>) -> Result<(), &'static str> {
    prepare(vm, on, tiny_guests::counting());
    idt::set_handler(vector::TIMER, |_| {
        TIMER_CAME.fetch_add(1, Ordering::Relaxed);
    });
    let before = TIMER_CAME.load(Ordering::Relaxed);
    apic::timer_once(TIMER_MICROS);
    let exit = on.enter().map_err(|_| "VM entry failed")?;
    apic::timer_stop();
    let ours = exit == Exit::ExternalInterrupt { vector: Some(vector::TIMER) };
    expect(ours, "the first exit is not the timer's interrupt")?;
    vcpu::serve_host(&exit);
    expect(TIMER_CAME.load(Ordering::Relaxed) == before + 1, "the host's handler has not run once")?;
    expect(word(vm, 0x600) > 0, "the guest has not run")?;
    vm.memory_mut()[0x604] = 1;
    let stop = vcpu::run(on, &mut TinyMachine::default());
    expect(stop == Stop::Halted, "the guest does not go on after the interrupt")
}

/// A write to a write-protected page exits with everything about it decoded, and goes through once it may; the large page
/// around it is split.
fn write_protection(vm: &mut Vm, on: &mut Active<'_>) -> Result<(), &'static str> {
    prepare(vm, on, tiny_guests::write());
    let protect = |vm: &mut Vm, permissions| {
        vm.protect(PROTECTED_PAGE, 4096, permissions).map_err(|_| "EPT protection failed")
    };
    protect(vm, Permissions::READ_EXECUTE)?;
    let Ok(Exit::EptViolation(violation)) = on.enter() else { return Err("no EPT violation") };
    expect(violation.guest_physical == 0x9ff0, "the guest-physical address is wrong")?;
    expect(violation.write && !violation.fetch, "not reported as a write")?;
    expect(violation.readable && !violation.writable, "the page's permissions are reported wrongly")?;
    expect(violation.linear.is_some_and(|l| l.address == 0x9ff0), "the linear address is wrong")?;
    expect(word(vm, 0x9ff0) == 0, "the write went through")?;
    protect(vm, Permissions::ALL)?;
    let stop = vcpu::run(on, &mut TinyMachine::default());
    expect(stop == Stop::Halted && word(vm, 0x600) == 0x1234_5678, "the write has not gone through")?;
    expect(vm.translate(0).is_some_and(|m| m.page == 4096), "the large page was not split")
}

/// NMIs that the check has asked for and that have not come yet.
static NMIS_EXPECTED: AtomicU32 = AtomicU32::new(0);

/// An NMI for the host takes the processor from the guest and reaches the host's handler, and so does the next: the first
/// has not left NMIs blocked. Another processor sends them; where there is none, there is nothing to check.
fn host_nmi(vm: &mut Vm, on: &mut Active<'_>) -> Result<(), &'static str> {
    let me = percpu::this();
    let Some(other) = percpu::online().find(|cpu| cpu.number() != me.number()) else { return Ok(()) };
    prepare(vm, on, tiny_guests::counting());
    idt::set_handler(vector::NMI, |frame| {
        let take = |expected: u32| expected.checked_sub(1);
        if NMIS_EXPECTED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            crate::panic::exception(frame);
        }
    });
    idt::set_handler(vector::TIMER, |_| apic::send(percpu::of(0).apic_id(), Ipi::Nmi));
    for _ in 0..2 {
        NMIS_EXPECTED.store(1, Ordering::Relaxed);
        let asked = smp::call(other.number(), || apic::timer_once(TIMER_MICROS), PATIENCE);
        expect(asked, "the other processor does not answer")?;
        let exit = on.enter().map_err(|_| "VM entry failed")?;
        let nmi = matches!(exit, Exit::Exception(exception) if exception.event.kind == EventKind::Nmi);
        expect(nmi, "the exit is not an NMI")?;
        vcpu::serve_host(&exit);
        expect(NMIS_EXPECTED.load(Ordering::Relaxed) == 0, "the host's handler has not run")?;
    }
    // Whoever uses the timer next must not send NMIs by it: the boot proof does.
    idt::set_handler(vector::TIMER, |_| ());
    Ok(())
}

/// What a CPUID and a RDTSC cost, from the guest to the handler and back: ticks of the time-stamp counter, which is one per
/// instruction on the emulated machine. The guest's own three instructions are in it.
fn exit_cost(vm: &mut Vm, on: &mut Active<'_>) -> Result<(), &'static str> {
    for (reason, code) in [("cpuid", tiny_guests::cpuid()), ("rdtsc", tiny_guests::rdtsc())] {
        prepare(vm, on, code);
        on.registers_mut().gpr[RSI] = COST_ROUNDS;
        let mut machine = TinyMachine::default();
        let start = cpu::tsc();
        let stop = vcpu::run(on, &mut machine);
        let ticks = cpu::tsc() - start;
        expect(stop == Stop::Halted, "the guest did not halt")?;
        machine_line!("exit-cost reason={reason} rounds={COST_ROUNDS} tsc-per-round={}", ticks / COST_ROUNDS);
    }
    Ok(())
}

/// A page that is not there exits, and the access goes through once it is; what is no RAM cannot be put there.
fn missing_page(vm: &mut Vm, on: &mut Active<'_>) -> Result<(), &'static str> {
    prepare(vm, on, tiny_guests::write());
    vm.unmap(PROTECTED_PAGE, 4096).map_err(|_| "unmapping failed")?;
    let Ok(Exit::EptViolation(violation)) = on.enter() else { return Err("no EPT violation") };
    expect(violation.guest_physical == 0x9ff0, "the guest-physical address is wrong")?;
    expect(!violation.readable && !violation.writable, "the page is reported as present")?;
    expect(vm.map(tiny_guest::RAM, 4096).is_err(), "memory beyond RAM could be mapped")?;
    vm.map(PROTECTED_PAGE, 4096).map_err(|_| "mapping failed")?;
    let stop = vcpu::run(on, &mut TinyMachine::default());
    expect(stop == Stop::Halted && word(vm, 0x600) == 0x1234_5678, "the write has not gone through")
}

/// An interrupt that the guest cannot take yet waits for the interrupt window, and is delivered there once.
fn interrupt_window(vm: &mut Vm, on: &mut Active<'_>) -> Result<(), &'static str> {
    let event = Event::interrupt(0x20);
    run_to_window(vm, on, event)?;
    on.inject(event);
    let stop = vcpu::run(on, &mut TinyMachine::default());
    expect(stop == Stop::Halted, "the guest did not halt")?;
    expect(word(vm, 0x600) == 1, "the interrupt was not handled exactly once")?;
    expect(word(vm, 0x608) == 1, "the interrupt came too late")
}

/// The guest's stack page is missing when an interrupt is delivered, and when INT n is: the delivery exits, is put back
/// (the interrupt) or executed again (INT n), and completes exactly once when the page is there.
fn interrupted_delivery(vm: &mut Vm, on: &mut Active<'_>) -> Result<(), &'static str> {
    let event = Event::interrupt(0x20);
    run_to_window(vm, on, event)?;
    on.inject(event);
    delivery_without_stack(vm, on, Some(event))?;
    expect(word(vm, 0x600) == 1 && word(vm, 0x608) == 1, "the interrupt was not handled exactly once")?;
    on.skip_instruction();
    delivery_without_stack(vm, on, None)?;
    expect(word(vm, 0x600) == 2, "INT n was not handled exactly once")?;
    expect(word(vm, 0x60c) == 2, "INT n did not return behind itself")
}

/// Runs until a delivery misses the stack and `again` is put back, gives the stack back, and runs on to the next HLT.
fn delivery_without_stack(
    vm: &mut Vm,
    on: &mut Active<'_>,
    again: Option<Event>,
) -> Result<(), &'static str> {
    vm.unmap(STACK_PAGE, 4096).map_err(|_| "unmapping failed")?;
    let exit = on.enter();
    let violated =
        matches!(exit, Ok(Exit::EptViolation(v)) if v.write && v.guest_physical & !0xfff == STACK_PAGE);
    expect(violated, "the delivery did not miss the stack")?;
    let injected = Event::from_words(on.vmcs().read(fields::ENTRY_INTERRUPTION_INFO), || 0, || 2);
    expect(injected == again, "what the next entry injects is wrong")?;
    vm.map(STACK_PAGE, 4096).map_err(|_| "mapping failed")?;
    let stop = vcpu::run(on, &mut TinyMachine::default());
    expect(stop == Stop::Halted, "the guest did not halt")
}

/// A port and a MSR whose bits are clear in the bitmaps reach the processor itself; with the bits set they exit.
fn bitmaps(vm: &mut Vm, on: &mut Active<'_>) -> Result<(), &'static str> {
    let mut exits_with = |passed: bool| {
        prepare(vm, on, tiny_guests::bitmaps());
        on.intercept_port(DELAY_PORT, !passed);
        on.intercept_msr(FMASK, if passed { Intercept::NONE } else { Intercept::BOTH });
        let mut count = 1;
        while let Ok(exit) = on.enter() {
            match exit {
                Exit::Io(_) | Exit::Rdmsr | Exit::Wrmsr => on.skip_instruction(),
                _ => break,
            }
            count += 1;
        }
        on.intercept_port(DELAY_PORT, true);
        on.intercept_msr(FMASK, Intercept::NONE);
        (count, word(vm, 0x600))
    };
    expect(
        exits_with(true) == (1, 0x200),
        "passed through: not only HLT exits, or the MSR does not hold its value",
    )?;
    expect(exits_with(false).0 == 4, "intercepted: not all of OUT, WRMSR, RDMSR and HLT exit")
}

/// A breakpoint of the hypervisor stops the guest before the instruction it is on.
fn breakpoint(vm: &mut Vm, on: &mut Active<'_>) -> Result<(), &'static str> {
    const SECOND: u64 = tiny_guest::LOAD + 10;
    const DR7_FIRST: u64 = 0x401;
    prepare(vm, on, tiny_guests::write());
    on.set_breakpoints([SECOND, 0, 0, 0], DR7_FIRST);
    let exit = on.enter();
    on.clear_breakpoints();
    let Ok(Exit::Exception(exception)) = exit else { return Err("no exception") };
    expect(exception.event.vector == 1 && exception.qualification & 0xf == 1, "not the first breakpoint")?;
    expect(on.vmcs().read(fields::GUEST_RIP) == SECOND, "stopped elsewhere")?;
    expect(word(vm, 0x9ff0) == 0x1234_5678 && word(vm, 0x600) == 0, "stopped too early or too late")?;
    let stop = vcpu::run(on, &mut TinyMachine::default());
    expect(stop == Stop::Halted && word(vm, 0x600) == 0x1234_5678, "the guest does not go on")
}
