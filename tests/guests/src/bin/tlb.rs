//! Does the processor walk page tables that nobody touched, and forget translations, and how often?
//!
//! `walks=MIN:MAX` and `evictions=MIN:MAX` on the command line: how many pages of 255 must have become accessed without
//! an access, and how many of 100,000 rounds must have met a forgotten translation (default 0:0: a machine that does
//! neither). Dirty bits are never set by speculation, and committed accesses always set theirs.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![deny(unsafe_code)]

use guests::{
    Report, boot, code, exit, println,
    vmx::{
        self, Controls, Vm, ept,
        fields::*,
        tables::{self, ACCESSED, DATA_PAGES, DIRTY, TEST},
    },
};

guests::program!(run);

/// Rounds of both loops.
const ROUNDS: u64 = 100_000;

fn run(report: &mut Report) {
    let mut vm = match vmx::start() {
        Ok(vm) => vm,
        Err(missing) => {
            println!("@@ fact missing={missing:?}");
            exit::exit(exit::Code::Refused)
        }
    };
    speculation(report, &mut vm);
    speculation_needs_permission(report, &mut vm);
    evictions(report, &mut vm);
}

/// `MIN:MAX` of an option; 0:0 without it.
fn range(key: &str) -> (u64, u64) {
    let text = boot::option(key).unwrap_or("0:0");
    let (min, max) = text.split_once(':').unwrap_or((text, text));
    (boot::parse_number(min).unwrap_or(0), boot::parse_number(max).unwrap_or(0))
}

fn prepare(vm: &mut Vm, piece: &code::Piece) {
    vm.reset(piece.routine, Controls::default());
    vm.write(GUEST_CR3, ept::WINDOW);
    vm.registers.rdi = TEST;
    vm.registers.rsi = tables::leaf(0);
    vm.registers.rcx = ROUNDS;
    vm.invalidate();
    let exit = vm.enter().expect("VM entry");
    assert!(exit.reason == reason::VMCALL, "{exit:?}");
}

/// Pages but the first whose leaf entry has `bit`.
fn pages_with(bit: u64) -> u64 {
    (1..DATA_PAGES).filter(|&page| tables::entry(tables::leaf(page)) & bit != 0).count() as u64
}

/// Stores to the first page only.
fn speculation(report: &mut Report, vm: &mut Vm) {
    tables::build();
    prepare(vm, &code::store_rounds());
    let (min, max) = range("walks");
    report.within("accessed-without-access", pages_with(ACCESSED), min, max);
    report.equal("dirty-without-store", pages_with(DIRTY), 0);
    report.equal_hex("first-page", tables::entry(tables::leaf(0)) & (ACCESSED | DIRTY), ACCESSED | DIRTY);
}

/// Where the EPT does not let a walk write the page table, speculation sets nothing and faults nothing.
fn speculation_needs_permission(report: &mut Report, vm: &mut Vm) {
    tables::build();
    tables::WALK.iter().for_each(|&address| tables::set(address, ACCESSED | DIRTY));
    ept::protect(tables::TEST_PT, ept::RX);
    prepare(vm, &code::store_rounds());
    report.equal("accessed-in-protected-table", pages_with(ACCESSED | DIRTY), 0);
}

/// Store; clear the dirty bit without a flush; store again: the bit comes back only if the translation was forgotten.
fn evictions(report: &mut Report, vm: &mut Vm) {
    tables::build();
    prepare(vm, &code::clear_dirty_rounds());
    let (min, max) = range("evictions");
    report.within("forgotten-translations", vm.registers.rbx, min, max);
    report.equal("rounds-left", vm.registers.rcx, 0);
}
