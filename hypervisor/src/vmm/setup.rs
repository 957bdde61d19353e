//! A VMCS from nothing: controls, bitmaps, host state. The guest state comes from `vmx::guest_state`.

use crate::arch::gdt;
use crate::arch::physical::Pages;
use crate::arch::vmenter;
use crate::arch::vmx::HostState;
use vmx::controls::{self, Controls, Word};
use vmx::fields::{self, VmcsWrite};
use vmx::guest_state::bits::{CR0_CD, CR0_NE, CR0_NW, CR4_VMXE};
use vmx::io_bitmap;

/// CR4.SMXE: no guest gets it.
const CR4_SMXE: u64 = 1 << 14;

/// Bits of CR0 that the host owns: NE must be 1 in VMX operation, and CD and NW would slow the guest down to nothing.
pub const CR0_OWNED: u64 = CR0_NE | CR0_CD | CR0_NW;
/// Bits of CR0 among the owned that are 1 while the guest runs, whatever it asked for.
pub const CR0_FORCED: u64 = CR0_NE;
/// Bits of CR4 that the host owns.
pub const CR4_OWNED: u64 = CR4_VMXE | CR4_SMXE;
/// Bits of CR4 among the owned that are 1 while the guest runs.
pub const CR4_FORCED: u64 = CR4_VMXE;

/// Exceptions that exit. #DB and #AC can come up again and again while they are being delivered, without an end and without
/// an interrupt of the host in between, if a guest arranges its stack for it; exiting, each is one event. #MC is the
/// host's.
pub const INTERCEPTED: u32 = 1 << 1 | 1 << 17 | 1 << 18;

/// Writes the control words.
pub fn write_controls(vmcs: &mut impl VmcsWrite, controls: &Controls) {
    vmcs.write(fields::PIN_BASED_CONTROLS, controls.word32(Word::PinBased));
    vmcs.write(fields::PRIMARY_CONTROLS, controls.word32(Word::Primary));
    vmcs.write(fields::SECONDARY_CONTROLS, controls.word32(Word::Secondary));
    if controls.has(controls::ACTIVATE_TERTIARY) {
        vmcs.write(fields::TERTIARY_CONTROLS, controls.word(Word::Tertiary));
    }
    vmcs.write(fields::EXIT_CONTROLS, controls.word32(Word::Exit));
    if controls.has(controls::ACTIVATE_SECONDARY_EXIT) {
        vmcs.write(fields::SECONDARY_EXIT_CONTROLS, controls.word(Word::SecondaryExit));
    }
    vmcs.write(fields::ENTRY_CONTROLS, controls.word32(Word::Entry));
}

/// Writes the word that holds this control.
pub fn write_word(vmcs: &mut impl VmcsWrite, controls: &Controls, word: Word) {
    match word {
        Word::PinBased => vmcs.write(fields::PIN_BASED_CONTROLS, controls.word32(word)),
        Word::Primary => vmcs.write(fields::PRIMARY_CONTROLS, controls.word32(word)),
        Word::Secondary => vmcs.write(fields::SECONDARY_CONTROLS, controls.word32(word)),
        Word::Tertiary => vmcs.write(fields::TERTIARY_CONTROLS, controls.word(word)),
        Word::Exit => vmcs.write(fields::EXIT_CONTROLS, controls.word32(word)),
        Word::SecondaryExit => vmcs.write(fields::SECONDARY_EXIT_CONTROLS, controls.word(word)),
        Word::Entry => vmcs.write(fields::ENTRY_CONTROLS, controls.word32(word)),
    }
}

/// What the VM-execution controls point to.
pub struct Pointers<'a> {
    /// The MSR bitmaps, one page.
    pub msr_bitmap: &'a Pages,
    /// The I/O bitmaps, two pages.
    pub io_bitmap: &'a Pages,
    /// The EPT pointer.
    pub ept: u64,
    /// The VPID, not 0.
    pub vpid: u16,
    /// The controls that say which of the fields exist.
    pub controls: &'a Controls,
}

/// Writes everything of the VM-execution, exit and entry areas that is not a control word.
pub fn write_execution(vmcs: &mut impl VmcsWrite, pointers: &Pointers<'_>) {
    vmcs.write(fields::VPID, pointers.vpid);
    vmcs.write(fields::EPT_POINTER, pointers.ept);
    vmcs.write(fields::MSR_BITMAP, pointers.msr_bitmap.address());
    vmcs.write(fields::IO_BITMAP_A, pointers.io_bitmap.address());
    vmcs.write(fields::IO_BITMAP_B, pointers.io_bitmap.address() + io_bitmap::B_OFFSET);
    if pointers.controls.has(controls::ENABLE_ENCLS_EXITING) {
        vmcs.write(fields::ENCLS_EXITING_BITMAP, u64::MAX);
    }
    vmcs.write(fields::EXCEPTION_BITMAP, INTERCEPTED);
    vmcs.write(fields::PAGE_FAULT_ERROR_MASK, 0);
    vmcs.write(fields::PAGE_FAULT_ERROR_MATCH, 0);
    vmcs.write(fields::CR3_TARGET_COUNT, 0);
    vmcs.write(fields::EXIT_MSR_STORE_COUNT, 0);
    vmcs.write(fields::EXIT_MSR_LOAD_COUNT, 0);
    vmcs.write(fields::ENTRY_MSR_LOAD_COUNT, 0);
    vmcs.write(fields::ENTRY_INTERRUPTION_INFO, 0);
    vmcs.write(fields::CR0_MASK, CR0_OWNED);
    vmcs.write(fields::CR4_MASK, CR4_OWNED);
    vmcs.write(fields::CR0_READ_SHADOW, 0);
    vmcs.write(fields::CR4_READ_SHADOW, 0);
}

/// Writes the host state: this processor's, as it is loaded now. RSP is written by the entry code.
pub fn write_host(vmcs: &mut impl VmcsWrite, host: &HostState, controls: &Controls) {
    vmcs.write(fields::HOST_CR0, host.cr0);
    vmcs.write(fields::HOST_CR3, host.cr3);
    vmcs.write(fields::HOST_CR4, host.cr4);
    vmcs.write(fields::HOST_CS_SELECTOR, gdt::CODE);
    vmcs.write(fields::HOST_SS_SELECTOR, gdt::DATA);
    vmcs.write(fields::HOST_DS_SELECTOR, gdt::DATA);
    vmcs.write(fields::HOST_ES_SELECTOR, gdt::DATA);
    vmcs.write(fields::HOST_FS_SELECTOR, 0);
    vmcs.write(fields::HOST_GS_SELECTOR, 0);
    vmcs.write(fields::HOST_TR_SELECTOR, gdt::TASK);
    vmcs.write(fields::HOST_FS_BASE, host.fs_base);
    vmcs.write(fields::HOST_GS_BASE, host.gs_base);
    vmcs.write(fields::HOST_TR_BASE, host.task_base);
    vmcs.write(fields::HOST_GDTR_BASE, host.gdt_base);
    vmcs.write(fields::HOST_IDTR_BASE, host.idt_base);
    vmcs.write(fields::HOST_SYSENTER_CS, 0);
    vmcs.write(fields::HOST_SYSENTER_ESP, 0);
    vmcs.write(fields::HOST_SYSENTER_EIP, 0);
    vmcs.write(fields::HOST_EFER, host.efer);
    vmcs.write(fields::HOST_PAT, host.pat);
    if controls.has(controls::EXIT_LOAD_PERF_GLOBAL_CTRL) {
        vmcs.write(fields::HOST_PERF_GLOBAL_CTRL, 0);
    }
    vmcs.write(fields::HOST_RIP, vmenter::exit_address());
}
