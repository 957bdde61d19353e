//! Do accessed and dirty bits of the guest's page tables need write permission in the EPT, as the SDM says?
//!
//! SDM vol. 3C, 30.3.3 and table 29-7. The strict mode of replication stands on it: with the page tables read-only in
//! the EPT every bit that a walk has to set is an EPT violation, and a walk that sets none costs nothing.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![deny(unsafe_code)]

use guests::{
    Report,
    code::{self, Piece},
    exit, println,
    vmx::{
        self, Controls, Vm, ept,
        fields::*,
        tables::{self, ACCESSED, DIRTY, TEST, WALK},
    },
};

guests::program!(run);

/// Qualification of an EPT violation: write; bits 5:3, what the EPT allows; linear address valid; bit 8, the access was
/// to the translation of the linear address and not to a paging structure.
const READ: u64 = 1;
const WRITE: u64 = 1 << 1;
const FETCH: u64 = 1 << 2;
const ALLOWED: u64 = 7 << 3;
const ALLOWED_RX: u64 = 5 << 3;
const LINEAR_VALID: u64 = 1 << 7;
const FINAL_TRANSLATION: u64 = 1 << 8;

/// Most violations that a single access may take here.
const MOST: usize = 16;

fn run(report: &mut Report) {
    let mut vm = match vmx::start() {
        Ok(vm) => vm,
        Err(missing) => {
            println!("@@ fact missing={missing:?}");
            exit::exit(exit::Code::Refused)
        }
    };
    code::prepare();
    free_walks(report, &mut vm);
    protected_walks(report, &mut vm);
    protected_data(report, &mut vm);
    denied_by_the_guest(report, &mut vm);
    ept_flags_off(report, &mut vm);
    ept_flags_on(report, &mut vm);
    ept_flags_on_protected(report, &mut vm);
}

/// One EPT violation.
#[derive(Clone, Copy, Default)]
struct Violation {
    physical: u64,
    linear: u64,
    qualification: u64,
}

/// A guest with tables of its own that does one access to [`TEST`].
fn prepare(vm: &mut Vm, piece: &Piece, ept_accessed_dirty: bool) {
    vm.reset(piece.routine, Controls { ept_accessed_dirty, ..Controls::default() });
    vm.write(GUEST_CR3, ept::WINDOW);
    vm.registers.rdi = TEST;
    vm.invalidate();
}

/// Runs to the end; at each violation calls `cure`. What violations there were.
fn violations(vm: &mut Vm, mut cure: impl FnMut(Violation)) -> ([Violation; MOST], usize) {
    let (mut list, mut count) = ([Violation::default(); MOST], 0);
    loop {
        let exit = vm.enter().expect("VM entry");
        match exit.reason {
            reason::VMCALL => return (list, count),
            reason::EPT_VIOLATION if count < MOST => {
                let (physical, linear) = (vm.read(GUEST_PHYSICAL), vm.read(GUEST_LINEAR));
                list[count] = Violation { physical, linear, qualification: exit.qualification };
                cure(list[count]);
                count += 1;
            }
            _ => panic!("{exit:?} after {count} violations at {:#x}", vm.read(GUEST_PHYSICAL)),
        }
    }
}

/// Tables that the EPT leaves writable: the processor sets the bits itself.
fn free_walks(report: &mut Report, vm: &mut Vm) {
    const A: u64 = ACCESSED;
    for (piece, leaf) in [(code::load(), A), (code::store(), A | DIRTY), (code::call_data(), A)] {
        tables::build();
        // RET, for the fetch.
        ept::write(4096 * tables::DATA as u64, 0xc3);
        prepare(vm, &piece, false);
        let (_, count) = violations(vm, |_| ());
        report.equal(format_args!("free-violations:{}", piece.name), count as u64, 0);
        report.same(format_args!("free-flags:{}", piece.name), tables::flags(), [A, A, A, leaf]);
    }
}

/// Makes the test mapping's tables and the PML4 readable and executable only.
fn protect(vm: &mut Vm) {
    for page in [tables::PML4, tables::TEST_PDPT, tables::TEST_PD, tables::TEST_PT] {
        ept::protect(page, ept::RX);
    }
    vm.invalidate();
}

/// The bit that a walk which violates at `physical` has to set, for an access that writes or not.
fn missing_bits(physical: u64, write: bool) -> u64 {
    if write && physical == WALK[3] { ACCESSED | DIRTY } else { ACCESSED }
}

/// Read-only tables: a violation for each entry whose bit is to be set, from the top, and none when all are.
fn protected_walks(report: &mut Report, vm: &mut Vm) {
    let pieces = [(code::load(), false), (code::store(), true), (code::call_data(), false)];
    for (piece, write) in pieces {
        tables::build();
        ept::write(4096 * tables::DATA as u64, 0xc3);
        protect(vm);
        prepare(vm, &piece, false);
        let (list, count) = violations(vm, |v| tables::set(v.physical, missing_bits(v.physical, write)));
        report.equal(format_args!("walk-violations:{}", piece.name), count as u64, 4);
        for (violation, physical) in list.iter().zip(WALK) {
            judge(report, piece.name, violation, physical);
        }
        prepare(vm, &piece, false);
        let (_, count) = violations(vm, |_| ());
        report.equal(format_args!("bits-set-no-violation:{}", piece.name), count as u64, 0);
    }
    // All accessed, the leaf not dirty: a store violates once, at the leaf; a load not at all.
    for (piece, want) in [(code::load(), 0), (code::store(), 1)] {
        tables::build();
        WALK.iter().for_each(|&address| tables::set(address, ACCESSED));
        protect(vm);
        prepare(vm, &piece, false);
        let (list, count) = violations(vm, |v| tables::set(v.physical, DIRTY));
        report.equal(format_args!("dirty-violations:{}", piece.name), count as u64, want);
        if want == 1 {
            judge(report, "dirty", &list[0], WALK[3]);
        }
    }
    a_load_then_a_store(report, vm);
}

fn judge(report: &mut Report, name: &str, violation: &Violation, physical: u64) {
    let name = format_args!("{name}:{physical:#x}");
    report.equal_hex(format_args!("walk-physical:{name}"), violation.physical, physical);
    report.equal_hex(format_args!("walk-linear:{name}"), violation.linear, TEST);
    // Bit 0 is left open: whether setting a bit is a read as well.
    let bits = WRITE | FETCH | ALLOWED | LINEAR_VALID | FINAL_TRANSLATION;
    let want = WRITE | ALLOWED_RX | LINEAR_VALID;
    report.equal_hex(format_args!("walk-qualification:{name}"), violation.qualification & bits, want);
}

/// A translation that a load cached as clean does not let a store pass.
fn a_load_then_a_store(report: &mut Report, vm: &mut Vm) {
    tables::build();
    WALK.iter().for_each(|&address| tables::set(address, ACCESSED));
    protect(vm);
    let piece = code::load_then_store();
    prepare(vm, &piece, false);
    let (list, count) = violations(vm, |v| tables::set(v.physical, DIRTY));
    report.equal("load-then-store-violations", count as u64, 1);
    judge(report, "load-then-store", &list[0], WALK[3]);
}

/// A violation of the data page itself has bit 8 set; the walk's bits are set before it.
fn protected_data(report: &mut Report, vm: &mut Vm) {
    tables::build();
    ept::protect(tables::DATA, ept::RX);
    let piece = code::store();
    prepare(vm, &piece, false);
    let (list, count) = violations(vm, |_| ept::protect(tables::DATA, ept::RWX));
    report.equal("data-violations", count as u64, 1);
    report.equal_hex("data-physical", list[0].physical, ept::WINDOW + 4096 * tables::DATA as u64);
    let bits = READ | WRITE | FETCH | ALLOWED | LINEAR_VALID | FINAL_TRANSLATION;
    let want = WRITE | ALLOWED_RX | LINEAR_VALID | FINAL_TRANSLATION;
    report.equal_hex("data-qualification", list[0].qualification & bits, want);
}

/// Where the guest's own tables forbid the access it gets its page fault: no bit is set in the entry that forbids, and
/// none of it is an EPT violation.
fn denied_by_the_guest(report: &mut Report, vm: &mut Vm) {
    tables::build();
    // Not present.
    ept::write(WALK[3] - ept::WINDOW, 0);
    WALK[..3].iter().for_each(|&address| tables::set(address, ACCESSED));
    protect(vm);
    prepare(vm, &code::load(), false);
    vm.write(EXCEPTION_BITMAP, 1 << 14);
    let exit = vm.enter().expect("VM entry");
    report.equal("page-fault-exit", exit.reason.into(), reason::EXCEPTION_OR_NMI.into());
    report.equal("page-fault-vector", vm.read(EXIT_INTERRUPTION) & 0xff, 14);
    report.equal_hex("page-fault-address", exit.qualification, TEST);
}

/// Flags of the EPT entries of the pages that a load of [`TEST`] walks through, and of its data page.
fn ept_flags() -> [u64; 5] {
    let pages = [tables::PML4, tables::TEST_PDPT, tables::TEST_PD, tables::TEST_PT, tables::DATA];
    pages.map(|page| ept::entry(page) & (ept::ACCESSED | ept::DIRTY))
}

/// With the EPT's flags off the processor leaves them alone.
fn ept_flags_off(report: &mut Report, vm: &mut Vm) {
    tables::build();
    prepare(vm, &code::store(), false);
    violations(vm, |_| ());
    report.same("ept-flags-off", ept_flags(), [0; 5]);
}

/// With the EPT's flags on every walk is a write: table pages become dirty even where the guest's bits are set.
fn ept_flags_on(report: &mut Report, vm: &mut Vm) {
    const AD: u64 = ept::ACCESSED | ept::DIRTY;
    for (piece, data) in [(code::load(), ept::ACCESSED), (code::store(), AD)] {
        tables::build();
        WALK.iter().for_each(|&address| tables::set(address, ACCESSED | DIRTY));
        prepare(vm, &piece, true);
        let (_, count) = violations(vm, |_| ());
        report.equal(format_args!("ept-flags-on-violations:{}", piece.name), count as u64, 0);
        report.same(format_args!("ept-flags-on:{}", piece.name), ept_flags(), [AD, AD, AD, AD, data]);
    }
}

/// With the EPT's flags on a walk through a read-only table violates, bits set or not, as a read and a write.
fn ept_flags_on_protected(report: &mut Report, vm: &mut Vm) {
    tables::build();
    WALK.iter().for_each(|&address| tables::set(address, ACCESSED | DIRTY));
    protect(vm);
    prepare(vm, &code::load(), true);
    let cure = |v: Violation| ept::protect(((v.physical - ept::WINDOW) >> 12) as usize, ept::RWX);
    let (list, count) = violations(vm, cure);
    // The first is the walk for the guest's code, through the same PML4.
    report.equal("ept-flags-protected-violations", count as u64, 4);
    report.equal_hex("ept-flags-code-walk", list[0].physical, WALK[0] - 8);
    for (violation, physical) in list[1..].iter().zip(&WALK[1..]) {
        report.equal_hex(format_args!("ept-flags-physical:{physical:#x}"), violation.physical, *physical);
    }
    for (n, violation) in list[..count].iter().enumerate() {
        let bits = READ | WRITE | ALLOWED | LINEAR_VALID | FINAL_TRANSLATION;
        let want = READ | WRITE | ALLOWED_RX | LINEAR_VALID;
        report.equal_hex(format_args!("ept-flags-qualification:{n}"), violation.qualification & bits, want);
    }
}
