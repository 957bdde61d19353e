//! The VMCS in the last words of a panic.

use crate::arch::vmx as processor;
use core::fmt::{self, Write};
use vmx::exit::reason_name;
use vmx::fields::{self, VmcsRead};

/// Columns of fields.
const COLUMNS: usize = 2;

/// Writes every field of this processor's current VMCS that it has; one line if there is none.
///
/// # Errors
/// From `out`.
pub fn dump(out: &mut dyn Write) -> fmt::Result {
    processor::with_current_vmcs(|vmcs| write(out, vmcs)).unwrap_or_else(|| writeln!(out, "no current VMCS"))
}

fn write(out: &mut dyn Write, vmcs: &impl VmcsRead) -> fmt::Result {
    let reason = vmcs.try_read(fields::EXIT_REASON).unwrap_or(u32::MAX);
    writeln!(out, "VMCS (last exit: {}):", reason_name(reason as u16))?;
    let present = fields::ALL.iter().filter_map(|f| Some((f, vmcs.try_read_raw(f.encoding).ok()?)));
    for (count, (field, value)) in present.enumerate() {
        write!(out, "  {:>28} {value:016x}", field.name)?;
        if count % COLUMNS == COLUMNS - 1 {
            writeln!(out)?;
        }
    }
    writeln!(out)
}
