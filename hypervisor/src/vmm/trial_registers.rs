//! Checks by tiny guests of what the loop does for single instructions: control and debug registers, XCR0, string I/O,
//! clocks and random numbers.

use super::tiny_guest::{self, TinyMachine};
use super::trial::{Check, expect, prepare, word};
use super::vm::Vm;
use crate::arch::{fpu, tiny_guests, vmx as processor};
use crate::vcpu::{self, Active, Stop};
use machine::cpu::Profile;
use vmx::exit::Exit;
use vmx::guest_state::GuestState;

/// The checks, by name.
pub const CHECKS: [(&str, Check); 11] = [
    ("xsetbv", xsetbv),
    ("cr4", cr4),
    ("debug-registers", debug_registers),
    ("single-steps", single_steps),
    ("single-steps-reflected", single_steps_reflected),
    ("string-output", string_output),
    ("pae-paging", pae_paging),
    ("cr8", cr8),
    ("random", random),
    ("clock", clock),
    ("preemption-timer", preemption_timer),
];

/// What a long-mode guest's page tables are at: PML4, PDPT, page directory of one identity page of 2 MBytes.
const TABLES: usize = 0x10000;

/// Where the second half of YMM1 is in a standard XSAVE area, and the first (SDM vol. 1, "XSAVE-Managed State").
const YMM1_UPPER: usize = 576 + 16;
const XMM1: usize = 160 + 16;

/// Runs the guest until it halts.
fn run(vm: &mut Vm, on: &mut Active<'_>, code: &'static [u8]) -> Result<TinyMachine, &'static str> {
    prepare(vm, on, code);
    let mut machine = TinyMachine::with_code(code);
    halts(on, &mut machine)?;
    Ok(machine)
}

fn halts(on: &mut Active<'_>, machine: &mut TinyMachine) -> Result<(), &'static str> {
    let stop = vcpu::run(on, machine);
    if stop != Stop::Halted {
        log::error!("the guest has not halted: {stop}");
    }
    expect(stop == Stop::Halted, "the guest did not halt")
}

fn profile(name: &str) -> &'static Profile {
    Profile::named(name).expect("a profile of this name")
}

/// A bad XCR0 faults, a good one is there; a YMM register can be captured, and survives another guest's time on the
/// processor.
fn xsetbv(vm: &mut Vm, on: &mut Active<'_>) -> Result<(), &'static str> {
    let v3 = profile("x86-64-v3");
    if fpu::supported() & v3.limits().xcr0 != v3.limits().xcr0 {
        return Ok(());
    }
    on.set_profile(v3);
    let result = xsetbv_with_avx(vm, on);
    on.set_profile(&Profile::all()[0]);
    result
}

fn xsetbv_with_avx(vm: &mut Vm, on: &mut Active<'_>) -> Result<(), &'static str> {
    let mut machine = run(vm, on, tiny_guests::xsetbv())?;
    expect(word(vm, 0x600) == 1, "XCR0 does not begin as 1")?;
    expect(word(vm, 0x60c) == 1, "AVX without SSE was not refused once")?;
    expect(word(vm, 0x604) == 7 && on.xcr0() == 7, "XCR0 was not written")?;
    on.save_registers();
    let part = |at: usize| on.fpu().bytes()[at..at + 16].to_owned_bytes();
    expect(part(XMM1) == [[1; 8], [2; 8]], "the lower half of YMM1 was not captured")?;
    expect(part(YMM1_UPPER) == [[3; 8], [4; 8]], "the upper half of YMM1 was not captured")?;
    on.reload_registers();
    on.skip_instruction();
    halts(on, &mut machine)?;
    expect(word(vm, 0x620) == 0x0101_0101 && word(vm, 0x63c) == 0x0404_0404, "YMM1 did not come back")
}

/// Two words of eight bytes.
trait Halves {
    fn to_owned_bytes(&self) -> [[u8; 8]; 2];
}

impl Halves for [u8] {
    fn to_owned_bytes(&self) -> [[u8; 8]; 2] {
        [self[..8].try_into().expect("eight bytes"), self[8..16].try_into().expect("eight bytes")]
    }
}

/// Bits that the profile does not have fault, be they set in the host or not; others are written.
fn cr4(vm: &mut Vm, on: &mut Active<'_>) -> Result<(), &'static str> {
    run(vm, on, tiny_guests::cr4())?;
    expect(word(vm, 0x60c) == 2, "OSXSAVE and VMXE were not refused")?;
    expect(word(vm, 0x600) == 0, "the guest sees bits of the host")?;
    expect(word(vm, 0x604) == 0x88, "CR4 was not written")
}

/// Debug registers hold their values; a breakpoint of the guest's own and general detect arrive with the right DR6.
fn debug_registers(vm: &mut Vm, on: &mut Active<'_>) -> Result<(), &'static str> {
    run(vm, on, tiny_guests::debug())?;
    expect(word(vm, 0x600) == 0x1111_1111 && word(vm, 0x604) == 0x4444_4444, "DR0 or DR3 is lost")?;
    expect(word(vm, 0x608) == 0xffff_0ff0, "DR6 does not begin as it should")?;
    expect(word(vm, 0x610) == 0x402, "DR7 is lost")?;
    expect(word(vm, 0x614) == 0xffff_0ff1, "the breakpoint did not arrive")?;
    expect(word(vm, 0x618) == 1, "the instruction on the breakpoint was not executed once")?;
    expect(word(vm, 0x61c) == 0xffff_2ff0, "general detect did not arrive")?;
    expect(word(vm, 0x620) == 0x400, "general detect has not ended")?;
    expect(word(vm, 0x62c) == 2, "there were not two debug exceptions")
}

fn check_steps(vm: &Vm) -> Result<(), &'static str> {
    let cpuid = tiny_guests::step().windows(2).position(|bytes| bytes == [0x0f, 0xa2]).unwrap_or(0) as u32;
    let behind = tiny_guest::LOAD as u32 + cpuid + 2;
    expect(word(vm, 0x600) == 3, "there were not three single steps")?;
    let places = [word(vm, 0x610), word(vm, 0x614), word(vm, 0x618)];
    expect(places == [behind, behind + 1, behind + 2], "the steps are not one instruction each")?;
    expect(word(vm, 0x604) == 0xffff_4ff0, "DR6 does not say single step")
}

/// A guest steps over an instruction that exits, and over others.
fn single_steps(vm: &mut Vm, on: &mut Active<'_>) -> Result<(), &'static str> {
    run(vm, on, tiny_guests::step())?;
    check_steps(vm)
}

/// The same while the hypervisor has a breakpoint, so that every debug exception exits and is given back.
fn single_steps_reflected(vm: &mut Vm, on: &mut Active<'_>) -> Result<(), &'static str> {
    const NOWHERE: u64 = 0x7fff_0000;
    const DR7_FIRST: u64 = 0x402;
    on.set_breakpoints([NOWHERE, 0, 0, 0], DR7_FIRST);
    let result = run(vm, on, tiny_guests::step());
    on.clear_breakpoints();
    result?;
    check_steps(vm)
}

/// REP OUTSB.
fn string_output(vm: &mut Vm, on: &mut Active<'_>) -> Result<(), &'static str> {
    let machine = run(vm, on, tiny_guests::strings())?;
    expect(machine.output == "string by IO", "the string did not come out")?;
    let text = tiny_guest::LOAD as u32 + tiny_guests::strings().len() as u32;
    expect(word(vm, 0x600) == 0 && word(vm, 0x604) == text, "ECX or ESI is wrong afterwards")
}

/// PAE paging's top entries are loaded, and checked, by a write of CR0 that exits.
fn pae_paging(vm: &mut Vm, on: &mut Active<'_>) -> Result<(), &'static str> {
    run(vm, on, tiny_guests::pae())?;
    expect(word(vm, 0x60c) == 1, "a reserved bit was not refused")?;
    expect(word(vm, 0x600) == 0x31, "CR0 has changed all the same")?;
    expect(word(vm, 0x608) == 0x5a5a_5a5a, "the second page is not where the first is")?;
    expect(word(vm, 0x610) == 0x8000_0011, "CR0 is not as written")
}

fn cr8(vm: &mut Vm, on: &mut Active<'_>) -> Result<(), &'static str> {
    let code = tiny_guests::cr8();
    tiny_guest::load(vm, code);
    for (table, entry) in [(TABLES, 0x11003u64), (TABLES + 0x1000, 0x12003), (TABLES + 0x2000, 0x83)] {
        vm.memory_mut()[table..table + 8].copy_from_slice(&entry.to_le_bytes());
    }
    on.set_state(&GuestState::long_mode(tiny_guest::LOAD, 0x7000, TABLES as u64));
    let mut machine = TinyMachine::with_code(code);
    halts(on, &mut machine)?;
    expect(word(vm, 0x600) == 9, "CR8 does not read as written")?;
    expect(vcpu::Machine::task_priority(&mut machine) == 9, "the machine has not got CR8")?;
    expect(word(vm, 0x60c) == 1, "priority 16 was not refused")
}

/// RDRAND and RDSEED give the machine's numbers, where the processor has them at all. Not with 16 bits: of those the emulated
/// machine says that they are 32 (it looks at the width of addresses).
fn random(vm: &mut Vm, on: &mut Active<'_>) -> Result<(), &'static str> {
    const RDRAND: u32 = 1 << 30;
    const RDSEED: u32 = 1 << 18;
    let facts = processor::facts();
    if facts.features & RDRAND == 0 || facts.extended_features & RDSEED == 0 {
        return Ok(());
    }
    run(vm, on, tiny_guests::random())?;
    let number = |n| tiny_guest::RANDOM + n;
    expect(word(vm, 0x600) & 0xffff == 0x0101, "the carry flag does not say success")?;
    expect(word(vm, 0x604) == number(1) as u32 && word(vm, 0x608) == number(2) as u32, "other numbers")
}

/// RDTSC and RDTSCP give the machine's clock, RDTSCP the guest's own TSC_AUX.
fn clock(vm: &mut Vm, on: &mut Active<'_>) -> Result<(), &'static str> {
    run(vm, on, tiny_guests::time())?;
    expect(word(vm, 0x600) == 1 && word(vm, 0x604) == 2, "not the machine's clock")?;
    expect(word(vm, 0x608) == 0x77, "not the guest's TSC_AUX")
}

/// An armed preemption timer runs on over exits, and is up in the end.
fn preemption_timer(vm: &mut Vm, on: &mut Active<'_>) -> Result<(), &'static str> {
    const TICKS: u32 = 2000;
    const RSI: usize = 6;
    prepare(vm, on, tiny_guests::cpuid());
    on.registers_mut().gpr[RSI] = u64::from(TICKS);
    on.arm_preemption_timer(Some(TICKS));
    let mut left = TICKS;
    while on.enter() == Ok(Exit::Cpuid) {
        expect(on.preemption_timer_left() <= left, "the timer began again after an exit")?;
        left = on.preemption_timer_left();
        on.skip_instruction();
    }
    expect(left < TICKS / 2, "the timer has not run while the guest did")?;
    expect(on.preemption_timer_left() == 0, "the timer is not up")?;
    expect(on.registers().gpr[RSI] > 0, "the guest has ended before the timer was up")
}
