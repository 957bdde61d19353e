//! What the host asks of the processor to follow the guest's paging: which writes of control registers exit, which page faults, and
//! what of the cached translations is dropped.

use super::setup;
use crate::arch::vmx as processor;
use crate::vcpu::Active;
use machine::cpu::registers::{cr0, cr4};
use vmx::controls;
use vmx::fields::{self, Field, Natural, ReadWrite, VmcsWrite};

/// Values of CR3 that can be loaded without an exit, at most.
pub const TARGETS: usize = 4;

const TARGET_FIELDS: [Field<Natural, ReadWrite>; TARGETS] =
    [fields::CR3_TARGET_0, fields::CR3_TARGET_1, fields::CR3_TARGET_2, fields::CR3_TARGET_3];

/// Bits whose change makes another paging mode, or has the processor load PAE paging's top entries anew.
const WATCHED_CR0: u64 = cr0::PG;
const WATCHED_CR4: u64 = cr4::PAE | cr4::PSE | cr4::PGE | cr4::SMEP;

/// Bit of the exception bitmap: page faults.
const PAGE_FAULT: u32 = 1 << 14;
/// Others of string instructions that do not exit anyway: #SS, #GP.
const STRING_FAULTS: u32 = 1 << 12 | 1 << 13;

impl Active<'_> {
    /// Has everything exit that changes which paging structures the guest uses (or no longer): loads of CR3 but those of the
    /// targets, changes of the paging mode.
    pub fn watch_paging(&mut self, on: bool) {
        self.set(controls::CR3_LOAD_EXITING, on);
        let (bits0, bits4) = if on { (WATCHED_CR0, WATCHED_CR4) } else { (0, 0) };
        // The guest reads these bits from the shadows now.
        let (visible0, visible4) = (self.visible_cr0(), self.visible_cr4());
        let owned = self.cr4_owned();
        let vmcs = self.vmcs_mut();
        vmcs.write(fields::CR0_READ_SHADOW, visible0);
        vmcs.write(fields::CR4_READ_SHADOW, visible4);
        vmcs.write(fields::CR0_MASK, setup::CR0_OWNED | bits0);
        vmcs.write(fields::CR4_MASK, owned | bits4);
        self.set_cr3_targets(&[]);
    }

    /// Has page faults exit (or no longer) that are none of missing pages.
    pub fn watch_page_faults(&mut self, on: bool) {
        const MISSING_IS_CLEAR: u32 = 1 << 0;
        let vmcs = self.vmcs_mut();
        vmcs.write(fields::EXCEPTION_BITMAP, setup::INTERCEPTED | if on { PAGE_FAULT } else { 0 });
        // A page fault exits if its error code, under the mask, is the match (SDM vol. 3C, "Exception Bitmap").
        let code = if on { MISSING_IS_CLEAR } else { 0 };
        vmcs.write(fields::PAGE_FAULT_ERROR_MASK, code);
        vmcs.write(fields::PAGE_FAULT_ERROR_MATCH, code);
    }

    /// Has every fault exit that a string instruction can have, before it is delivered, until [`Active::watch_page_faults`].
    pub fn watch_faults(&mut self) {
        let vmcs = self.vmcs_mut();
        vmcs.write(fields::EXCEPTION_BITMAP, setup::INTERCEPTED | PAGE_FAULT | STRING_FAULTS);
        vmcs.write(fields::PAGE_FAULT_ERROR_MASK, 0);
        vmcs.write(fields::PAGE_FAULT_ERROR_MATCH, 0);
    }

    /// How many values of CR3 can be loaded without an exit.
    pub fn cr3_targets(&self) -> usize {
        TARGETS.min(self.capabilities().misc.cr3_targets() as usize)
    }

    /// The values of CR3 that are loaded without an exit, no more than there can be.
    pub fn set_cr3_targets(&mut self, values: &[u64]) {
        let count = values.len().min(self.cr3_targets());
        for (field, value) in TARGET_FIELDS.into_iter().zip(&values[..count]) {
            self.vmcs_mut().write(field, *value);
        }
        self.vmcs_mut().write(fields::CR3_TARGET_COUNT, count as u32);
    }

    /// Drops the translations of one linear address, which is canonical.
    #[inline]
    pub fn flush_address(&mut self, linear: u64) {
        if self.capabilities().ept_vpid.invvpid_address() {
            processor::invalidate_address(self.vpid(), linear);
        } else {
            self.flush();
        }
    }

    /// Drops all translations but global ones.
    #[inline]
    pub fn flush_keeping_globals(&mut self) {
        if self.capabilities().ept_vpid.invvpid_single_keeping_globals() {
            processor::invalidate_vpid_keeping_globals(self.vpid());
        } else {
            self.flush();
        }
    }
}
