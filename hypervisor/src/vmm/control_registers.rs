//! Accesses to control registers that exit: changes of the bits the host owns, and CR8.

use super::setup::{CR0_FORCED, CR0_OWNED};
use crate::vcpu::{Active, Machine, Stop, Verdict, fault};
use vmx::controls;
use vmx::exit::{CrAccess, Exit};
use vmx::fields::{self, Field, Natural, ReadWrite, VmcsRead, VmcsWrite};
use vmx::guest_state::bits::{CR0_CD, CR0_ET, CR0_NW, CR0_PE, CR0_PG, CR4_PAE, EFER_LMA, EFER_LME};
use vmx::inject::Event;

/// CR0.TS.
const CR0_TS: u64 = 1 << 3;
/// The bits that LMSW loads: PE, MP, EM, TS.
const LMSW_BITS: u64 = 0xf;

/// Handles the access.
pub fn access<M: Machine>(on: &mut Active<'_>, machine: &mut M, access: CrAccess) -> Verdict {
    let result = match access {
        CrAccess::Write { register: 0, from } => {
            let value = operand(on, from);
            write_cr0(on, machine, value)
        }
        // Only bits of CR4 that the guest does not have exit: VMXE, SMXE.
        CrAccess::Write { register: 4, .. } => Err(Event::general_protection()),
        CrAccess::Write { register: 8, from } => write_cr8(on, machine, from),
        CrAccess::Read { register: 8, to } => {
            let value = machine.task_priority().into();
            on.write_general(to, 8, value);
            Ok(())
        }
        CrAccess::ClearTaskSwitched => {
            let value = visible_cr0(on) & !CR0_TS;
            write_cr0(on, machine, value)
        }
        CrAccess::LoadMachineStatus { value, .. } => {
            let old = visible_cr0(on);
            let new = old & !(LMSW_BITS & !CR0_PE) | u64::from(value) & LMSW_BITS;
            write_cr0(on, machine, new)
        }
        other => return Verdict::Stop(Stop::Unsupported(Exit::ControlRegister(other))),
    };
    match result {
        Ok(()) => Verdict::Skip,
        Err(event) => fault(on, event),
    }
}

/// The general register's value; outside 64-bit mode its lower half.
fn operand(on: &Active<'_>, number: u8) -> u64 {
    let value = on.read_general(number);
    if on.vmcs().read(fields::GUEST_CS_ACCESS_RIGHTS) & 1 << 13 != 0 { value } else { value & 0xffff_ffff }
}

/// CR0 as the guest reads it.
fn visible_cr0(on: &Active<'_>) -> u64 {
    let (real, shadow) = (on.vmcs().read(fields::GUEST_CR0), on.vmcs().read(fields::CR0_READ_SHADOW));
    real & !CR0_OWNED | shadow & CR0_OWNED
}

/// MOV to CR0 with all its consequences (SDM vol. 3A, "Control Registers"; vol. 2, MOV to control registers).
fn write_cr0<M: Machine>(on: &mut Active<'_>, machine: &mut M, value: u64) -> Result<(), Event> {
    let efer = on.vmcs().read(fields::GUEST_EFER);
    let cr4 = on.vmcs().read(fields::GUEST_CR4);
    let was_paging = on.vmcs().read(fields::GUEST_CR0) & CR0_PG != 0;
    let paging = value & CR0_PG != 0;
    let in_64_bit_code =
        on.vmcs().read(fields::GUEST_CS_ACCESS_RIGHTS) & 1 << 13 != 0 && efer & EFER_LMA != 0;
    let enters_long = paging && !was_paging && efer & EFER_LME != 0;
    let bad = value >> 32 != 0
        || paging && value & CR0_PE == 0
        || value & CR0_NW != 0 && value & CR0_CD == 0
        || enters_long && cr4 & CR4_PAE == 0
        || !paging && was_paging && in_64_bit_code;
    if bad {
        return Err(Event::general_protection());
    }
    let long = if paging { enters_long || efer & EFER_LMA != 0 } else { false };
    if paging && !was_paging && cr4 & CR4_PAE != 0 && !long {
        load_pdptes(on, machine)?;
    }
    on.vmcs_mut().write(fields::GUEST_EFER, if long { efer | EFER_LMA } else { efer & !EFER_LMA });
    on.set(controls::IA32E_MODE_GUEST, long);
    on.vmcs_mut().write(fields::GUEST_CR0, value & !CR0_OWNED | CR0_FORCED | CR0_ET);
    on.vmcs_mut().write(fields::CR0_READ_SHADOW, value | CR0_ET);
    if paging != was_paging {
        on.flush();
    }
    Ok(())
}

const PDPTES: [Field<u64, ReadWrite>; 4] =
    [fields::GUEST_PDPTE_0, fields::GUEST_PDPTE_1, fields::GUEST_PDPTE_2, fields::GUEST_PDPTE_3];

/// PAE paging keeps its four top entries in registers (SDM vol. 3A, "PDPTE Registers").
fn load_pdptes<M: Machine>(on: &mut Active<'_>, machine: &mut M) -> Result<(), Event> {
    const RESERVED: u64 = 0x1e6;
    const CR3: Field<Natural, ReadWrite> = fields::GUEST_CR3;
    let mut table = [0u8; 32];
    let base = on.vmcs().read(CR3) & 0xffff_ffe0;
    if !machine.read_memory(base, &mut table) {
        return Err(Event::general_protection());
    }
    for (field, bytes) in PDPTES.into_iter().zip(table.chunks_exact(8)) {
        let entry = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        if entry & 1 != 0 && entry & RESERVED != 0 {
            return Err(Event::general_protection());
        }
        on.vmcs_mut().write(field, entry);
    }
    Ok(())
}

fn write_cr8<M: Machine>(on: &mut Active<'_>, machine: &mut M, from: u8) -> Result<(), Event> {
    match on.read_general(from) {
        value @ 0..=15 => machine.set_task_priority(value as u8),
        _ => return Err(Event::general_protection()),
    }
    Ok(())
}
