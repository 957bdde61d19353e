//! A VMCS for the tests: a table of the fields that were stored, failing like the processor on the others.

use crate::errors::{InstructionError, VmFail};
use crate::fields::{VmcsRead, VmcsWrite};
use std::collections::BTreeMap;

/// A VMCS that has only the fields that were stored into it.
#[derive(Default)]
pub struct FakeVmcs {
    fields: BTreeMap<u32, u64>,
}

impl FakeVmcs {
    /// Stores any field, read-only ones too: the processor's part.
    pub fn set(&mut self, encoding: u32, value: u64) {
        self.fields.insert(encoding, value);
    }
}

impl VmcsRead for FakeVmcs {
    fn try_read_raw(&self, encoding: u32) -> Result<u64, VmFail> {
        self.fields.get(&encoding).copied().ok_or(VmFail::Valid(InstructionError::UNSUPPORTED_COMPONENT))
    }
}

impl VmcsWrite for FakeVmcs {
    fn try_write_raw(&mut self, encoding: u32, value: u64) -> Result<(), VmFail> {
        self.fields.insert(encoding, value);
        Ok(())
    }
}
