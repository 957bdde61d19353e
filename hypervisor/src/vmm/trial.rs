//! Runs the tiny guests: each mode, the hostile ones, and checks of the loop itself (host interrupts, write protection,
//! injection through the interrupt window). Prints one line for each.

use super::tiny_guest::{self, GUESTS, HOSTILE, Hostile, TinyGuest, TinyMachine};
use super::vm::Vm;
use crate::arch::idt::{self, vector};
use crate::arch::{apic, tiny_guests};
use crate::machine_line;
use crate::vcpu::{self, Active, Stop, Vcpu};
use core::fmt::{Display, Write};
use core::sync::atomic::{AtomicU32, Ordering};
use heapless::String;
use vmx::caps::Capabilities;
use vmx::controls;
use vmx::ept::Permissions;
use vmx::exit::{Exit, reason_name};
use vmx::guest_state::GuestState;
use vmx::inject::{Blocked, Event};

/// Ticks of the preemption timer that a guest may run for after each entry.
const TICKS: u32 = 2_000_000;

/// Microseconds until the host's timer interrupts a running guest.
const TIMER_MICROS: u64 = 200;

/// A page of the guest that is write-protected for a check.
const PROTECTED_PAGE: u64 = 0x9000;

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

/// Runs all tiny guests on this processor.
///
/// # Errors
/// What kept them from being made.
pub fn run(caps: &Capabilities) -> Result<Score, &'static str> {
    let mut vm = Vm::new(tiny_guest::RAM, caps.ept_vpid).map_err(|e| report("guest", &e))?;
    let page = vm.translate(0).map_or(0, |mapping| mapping.page);
    machine_line!("guest-memory bytes={} page={page} tables={}", tiny_guest::RAM, vm.tables_in_use());
    let mut vcpu = Vcpu::new(&vm, caps).map_err(|e| report("guest", &e))?;
    let mut score = Score::default();
    for guest in &GUESTS {
        run_mode(&mut vm, &mut vcpu, guest, &mut score)?;
    }
    for hostile in &HOSTILE {
        run_hostile(&mut vm, &mut vcpu, hostile, &mut score)?;
    }
    for (name, check) in CHECKS {
        let passed = start(&mut vm, &mut vcpu, check)?;
        if let Err(why) = passed {
            log::error!("check {name}: {why}");
        }
        machine_line!("guest-check name={name} verdict={}", score.count(passed.is_ok()));
    }
    say_counts(&vcpu);
    Ok(score)
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

/// Loads the virtual processor for the time of `with`.
fn start<R>(
    vm: &mut Vm,
    vcpu: &mut Vcpu,
    with: impl FnOnce(&mut Vm, &mut Active<'_>) -> R,
) -> Result<R, &'static str> {
    let mut on = vcpu.load().map_err(|e| report("VMPTRLD", &e))?;
    on.registers_mut().gpr = [0; 16];
    on.set_preemption_timer(Some(TICKS));
    Ok(with(vm, &mut on))
}

fn run_mode(vm: &mut Vm, vcpu: &mut Vcpu, guest: &TinyGuest, score: &mut Score) -> Result<(), &'static str> {
    tiny_guest::load(vm, (guest.code)());
    let before = vcpu.exits();
    let mut machine = TinyMachine::default();
    let stop = start(vm, vcpu, |_, on| {
        on.set_state(&(guest.state)());
        vcpu::run(on, &mut machine)
    })?;
    let result = guest.verify(&stop, &machine, vm.memory());
    if let Err((what, wanted, found)) = result {
        log::error!("guest in {} mode: {what}: {found:#x} instead of {wanted:#x}; it {stop}", guest.mode);
    }
    log::info!("guest in {} mode says: {}", guest.mode, machine.output.trim_end());
    let verdict = score.count(result.is_ok());
    machine_line!("guest mode={} verdict={verdict} exits={}", guest.mode, vcpu.exits() - before);
    Ok(())
}

fn run_hostile(
    vm: &mut Vm,
    vcpu: &mut Vcpu,
    hostile: &Hostile,
    score: &mut Score,
) -> Result<(), &'static str> {
    tiny_guest::load(vm, (hostile.code)());
    let mut state = GuestState::protected_mode(tiny_guest::LOAD as u32, 0x7000);
    (hostile.spoil)(&mut state);
    let mut machine = TinyMachine::default();
    let stop = start(vm, vcpu, |_, on| {
        on.set_state(&state);
        vcpu::run(on, &mut machine)
    })?;
    let verdict = score.count(stop.key() == hostile.ends);
    log::info!("hostile guest {}: {stop}", hostile.name);
    machine_line!("hostile name={} stop={} verdict={verdict}", hostile.name, stop.key());
    Ok(())
}

type Check = fn(&mut Vm, &mut Active<'_>) -> Result<(), &'static str>;

const CHECKS: [(&str, Check); 4] = [
    ("host-interrupt", host_interrupt),
    ("missing-page", missing_page),
    ("write-protection", write_protection),
    ("interrupt-window", interrupt_window),
];

fn prepare(vm: &mut Vm, on: &mut Active<'_>, code: &[u8]) {
    tiny_guest::load(vm, code);
    on.set_state(&GuestState::protected_mode(tiny_guest::LOAD as u32, 0x7000));
}

fn expect(holds: bool, otherwise: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(otherwise) }
}

fn word(vm: &Vm, at: usize) -> u32 {
    u32::from_le_bytes(vm.memory()[at..at + 4].try_into().expect("four bytes"))
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
    prepare(vm, on, tiny_guests::interrupt());
    let event = Event::interrupt(0x20);
    expect(on.readiness().check(event) == Err(Blocked::InterruptFlag), "it could be injected at once")?;
    on.set(controls::INTERRUPT_WINDOW_EXITING, true);
    let exit = on.enter();
    on.set(controls::INTERRUPT_WINDOW_EXITING, false);
    expect(exit == Ok(Exit::InterruptWindow), "no interrupt-window exit")?;
    expect(on.readiness().check(event).is_ok(), "the window does not take the interrupt")?;
    on.inject(event);
    let stop = vcpu::run(on, &mut TinyMachine::default());
    expect(stop == Stop::Halted, "the guest did not halt")?;
    expect(word(vm, 0x600) == 1, "the interrupt was not handled exactly once")?;
    expect(word(vm, 0x608) == 1, "the interrupt came too late")
}
