//! Accesses to control registers that exit: changes of bits that the host owns, CR8, EFER, and XCR0. The rules are
//! `machine::cpu::registers`'; here they are carried out.

use super::setup::{CR0_FORCED, CR0_OWNED};
use crate::arch::vmenter::Registers;
use crate::vcpu::{Active, Machine, Stop, Verdict, fault};
use machine::cpu::registers::{self, Change, GeneralProtection, Paging, cr0, cr4, efer};
use vmx::controls;
use vmx::exit::{CrAccess, Exit};
use vmx::fields::{self, Field, ReadWrite, VmcsRead, VmcsWrite};
use vmx::inject::Event;

/// The bits that LMSW loads: PE, MP, EM, TS. It cannot clear PE.
const LMSW_BITS: u64 = cr0::PE | cr0::MP | cr0::EM | cr0::TS;

/// Type of a busy 16-bit TSS.
const BUSY_16_BIT_TSS: u32 = 3;

/// Handles the access.
pub fn access<M: Machine>(on: &mut Active<'_>, machine: &mut M, access: CrAccess) -> Verdict {
    let result = match access {
        CrAccess::Write { register: 8, from } => write_cr8(on, machine, from),
        CrAccess::Read { register: 8, to } => {
            on.write_general(to, 8, machine.task_priority().into());
            Ok(())
        }
        CrAccess::Write { register: 3, from } => {
            let value = operand(on, from);
            return write_cr3(on, machine, value);
        }
        CrAccess::Write { register: 0, from } => {
            let value = operand(on, from);
            write_cr0(on, machine, value)
        }
        CrAccess::Write { register: 4, from } => {
            let value = operand(on, from);
            let change = registers::write_cr4(&on.paging(), value, on.limits());
            change.and_then(|change| carry_out(on, machine, change))
        }
        CrAccess::ClearTaskSwitched => {
            let value = on.paging().cr0 & !cr0::TS;
            write_cr0(on, machine, value)
        }
        CrAccess::LoadMachineStatus { value, .. } => {
            let old = on.paging().cr0;
            write_cr0(on, machine, old & !(LMSW_BITS & !cr0::PE) | u64::from(value) & LMSW_BITS)
        }
        other => return Verdict::Stop(Stop::Unsupported(Exit::ControlRegister(other))),
    };
    done(on, result)
}

/// MOV to CR3, where the host wants to know of it.
fn write_cr3<M: Machine>(on: &mut Active<'_>, machine: &mut M, value: u64) -> Verdict {
    let old = on.paging();
    let result = registers::write_cr3(&old, value, on.limits()).and_then(|change| {
        if change.load_pdptes {
            load_pdptes(on, machine, change.paging.cr3)?;
        }
        on.vmcs_mut().write(fields::GUEST_CR3, change.paging.cr3);
        if change.flush {
            on.flush_keeping_globals();
        }
        machine.paging_changed(on, Some(value));
        Ok(())
    });
    done(on, result)
}

fn done(on: &mut Active<'_>, result: Result<(), GeneralProtection>) -> Verdict {
    match result {
        Ok(()) => Verdict::Skip,
        Err(GeneralProtection) => fault(on, Event::general_protection()),
    }
}

/// The general register's value; outside 64-bit mode its lower half.
fn operand(on: &Active<'_>, number: u8) -> u64 {
    let value = on.read_general(number);
    if on.in_64_bit_code() { value } else { value & 0xffff_ffff }
}

fn write_cr0<M: Machine>(on: &mut Active<'_>, machine: &mut M, value: u64) -> Result<(), GeneralProtection> {
    let change = registers::write_cr0(&on.paging(), value)?;
    carry_out(on, machine, change)
}

/// Makes the change, unless PAE paging's top entries are not valid.
///
/// # Errors
/// They are not; nothing has changed then.
pub fn carry_out<M: Machine>(
    on: &mut Active<'_>,
    machine: &mut M,
    change: Change,
) -> Result<(), GeneralProtection> {
    let new = change.paging;
    if change.load_pdptes {
        load_pdptes(on, machine, new.cr3)?;
    }
    let old = on.paging();
    let owned = on.cr4_owned();
    let vmcs = on.vmcs_mut();
    vmcs.write(fields::GUEST_CR0, new.cr0 & !CR0_OWNED | CR0_FORCED);
    vmcs.write(fields::CR0_READ_SHADOW, new.cr0);
    if new.cr3 != old.cr3 {
        vmcs.write(fields::GUEST_CR3, new.cr3);
    }
    if new.cr4 != old.cr4 {
        let kept = vmcs.read(fields::GUEST_CR4) & owned;
        vmcs.write(fields::GUEST_CR4, new.cr4 & !owned | kept);
        vmcs.write(fields::CR4_READ_SHADOW, new.cr4);
    }
    if new.efer != old.efer {
        vmcs.write(fields::GUEST_EFER, new.efer);
        on.set(controls::IA32E_MODE_GUEST, new.efer & efer::LMA != 0);
    }
    if change.flush {
        on.flush();
    }
    machine.paging_changed(on, None);
    Ok(())
}

const PDPTES: [Field<u64, ReadWrite>; 4] =
    [fields::GUEST_PDPTE_0, fields::GUEST_PDPTE_1, fields::GUEST_PDPTE_2, fields::GUEST_PDPTE_3];

/// PAE paging keeps its four top entries in registers (SDM vol. 3A, "PDPTE Registers").
fn load_pdptes<M: Machine>(on: &mut Active<'_>, machine: &mut M, cr3: u64) -> Result<(), GeneralProtection> {
    let mut table = [0u8; 32];
    if !machine.read_memory(cr3 & 0xffff_ffe0, &mut table) {
        return Err(GeneralProtection);
    }
    let mut entries = [0; 4];
    for (entry, bytes) in entries.iter_mut().zip(table.chunks_exact(8)) {
        *entry = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    }
    registers::check_pdptes(&entries, on.limits())?;
    for (field, entry) in PDPTES.into_iter().zip(entries) {
        on.vmcs_mut().write(field, entry);
    }
    Ok(())
}

fn write_cr8<M: Machine>(on: &mut Active<'_>, machine: &mut M, from: u8) -> Result<(), GeneralProtection> {
    match on.read_general(from) {
        value @ 0..=15 => machine.set_task_priority(value as u8),
        _ => return Err(GeneralProtection),
    }
    Ok(())
}

/// WRMSR of IA32_EFER.
///
/// # Errors
/// It does not take the value.
pub fn write_efer(on: &mut Active<'_>, value: u64) -> Result<(), GeneralProtection> {
    let value = registers::write_efer(&on.paging(), value)?;
    on.vmcs_mut().write(fields::GUEST_EFER, value);
    Ok(())
}

/// XSETBV. Privilege and CR4.OSXSAVE are looked at before the exit (SDM vol. 3C, "Relative Priority of Faults and VM
/// Exits"); a processor that forgot would load the host's XCR0, so they are looked at again.
pub fn xsetbv(on: &mut Active<'_>) -> Verdict {
    if on.vmcs().read(fields::GUEST_CR4) & cr4::OSXSAVE == 0 {
        return fault(on, Event::invalid_opcode());
    }
    let index = on.registers().gpr[Registers::RCX] as u32;
    let value = registers::write_xcr(index, on.registers().edx_eax(), on.limits());
    let result = match value {
        Ok(value) if on.privilege() == 0 => {
            on.set_xcr0(value);
            Ok(())
        }
        _ => Err(GeneralProtection),
    };
    done(on, result)
}

impl Active<'_> {
    /// The registers that decide how addresses are translated, as the guest sees them.
    pub fn paging(&self) -> Paging {
        Paging {
            cr0: self.visible_cr0(),
            cr3: self.vmcs().read(fields::GUEST_CR3),
            cr4: self.visible_cr4(),
            efer: self.vmcs().read(fields::GUEST_EFER),
            code_64: self.vmcs().read(fields::GUEST_CS_ACCESS_RIGHTS) & 1 << 13 != 0,
            task_16: self.vmcs().read(fields::GUEST_TR_ACCESS_RIGHTS) & 15 == BUSY_16_BIT_TSS,
        }
    }

    /// What PAE paging keeps of the four top entries.
    pub fn pdptes(&self) -> [u64; 4] {
        PDPTES.map(|field| self.vmcs().read(field))
    }

    /// CR0 as the guest reads it.
    #[inline]
    pub fn visible_cr0(&self) -> u64 {
        let (real, shadow) = (self.vmcs().read(fields::GUEST_CR0), self.vmcs().read(fields::CR0_READ_SHADOW));
        real & !CR0_OWNED | shadow & CR0_OWNED
    }

    /// CR4 as the guest reads it.
    #[inline]
    pub fn visible_cr4(&self) -> u64 {
        let (real, shadow) = (self.vmcs().read(fields::GUEST_CR4), self.vmcs().read(fields::CR4_READ_SHADOW));
        let owned = self.cr4_owned();
        real & !owned | shadow & owned
    }

    /// The guest runs 64-bit code.
    #[inline]
    pub fn in_64_bit_code(&self) -> bool {
        self.vmcs().read(fields::GUEST_CS_ACCESS_RIGHTS) & 1 << 13 != 0
            && self.vmcs().read(fields::GUEST_EFER) & efer::LMA != 0
    }

    /// The current privilege level: SS.DPL (SDM vol. 3C, "Guest Register State").
    #[inline]
    pub fn privilege(&self) -> u8 {
        (self.vmcs().read(fields::GUEST_SS_ACCESS_RIGHTS) >> 5 & 3) as u8
    }
}
