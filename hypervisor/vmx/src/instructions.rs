//! The VMX instructions: the only unsafe code of this crate. VM entry itself is in the kernel, next to the code that
//! saves and loads the guest's registers.
#![allow(unsafe_code)]

use crate::errors::{InstructionError, VmFail};
use crate::fields::{self, Access, Field, FieldType, ReadWrite, VmcsRead, VmcsWrite};
use core::arch::{asm, naked_asm};
use core::marker::PhantomData;

/// What the flags said after a VMX instruction: bit 0 is CF, bit 1 is ZF.
#[inline(always)]
fn outcome(invalid: u8, valid: u8) -> Result<(), VmFail> {
    if invalid | valid == 0 { Ok(()) } else { Err(failure(invalid)) }
}

#[cold]
fn failure(invalid: u8) -> VmFail {
    if invalid != 0 {
        return VmFail::Invalid;
    }
    // SAFETY: VMfailValid happens only with a current VMCS, in VMX root operation; every processor has this field.
    match unsafe { vmread_raw(fields::VM_INSTRUCTION_ERROR.encoding()) } {
        Ok(number) => VmFail::Valid(InstructionError(number as u32)),
        Err(()) => VmFail::Invalid,
    }
}

macro_rules! with_memory_operand {
    ($( $(#[doc = $doc:literal])+ $name:ident = $instruction:literal; )*) => { $(
        $(#[doc = $doc])+
        ///
        /// # Errors
        /// As the SDM lists them for the instruction.
        #[inline]
        pub unsafe fn $name(physical: u64) -> Result<(), VmFail> {
            let (invalid, valid): (u8, u8);
            // SAFETY: the caller keeps the promises above; the operand is a local variable.
            unsafe {
                asm!(
                    concat!($instruction, " [{operand}]"),
                    "setc {invalid}",
                    "setz {valid}",
                    operand = in(reg) &physical,
                    invalid = out(reg_byte) invalid,
                    valid = out(reg_byte) valid,
                    options(nostack),
                );
            }
            outcome(invalid, valid)
        }
    )* };
}

with_memory_operand! {
    /// Enters VMX root operation with this VMXON region.
    ///
    /// # Safety
    /// 1. CPL is 0, CR4.VMXE is 1, CR0 and CR4 obey the fixed bits, IA32_FEATURE_CONTROL is locked with VMX on.
    /// 2. The region is a page of its own, starts with the revision identifier, and stays untouched until VMXOFF.
    vmxon = "vmxon";
    /// Makes the VMCS clear: its data are in memory, and its launch state is "clear".
    ///
    /// # Safety
    /// The processor is in VMX root operation; the region is a page of its own that starts with the revision identifier.
    vmclear = "vmclear";
    /// Makes the VMCS current.
    ///
    /// # Safety
    /// As [`vmclear`]; and no other processor has it current or active.
    vmptrld = "vmptrld";
}

/// Leaves VMX operation.
///
/// # Safety
/// The processor is in VMX root operation and no VMCS is active whose data are still wanted.
///
/// # Errors
/// VMfailValid under dual-monitor treatment.
pub unsafe fn vmxoff() -> Result<(), VmFail> {
    let (invalid, valid): (u8, u8);
    // SAFETY: the caller is in VMX root operation.
    unsafe {
        asm!("vmxoff", "setc {0}", "setz {1}", out(reg_byte) invalid, out(reg_byte) valid, options(nostack));
    }
    outcome(invalid, valid)
}

/// # Safety
/// The processor is in VMX root operation.
#[inline(always)]
unsafe fn vmread_raw(encoding: u32) -> Result<u64, ()> {
    let (value, failed): (u64, u8);
    // SAFETY: the caller is in VMX root operation. VMREAD writes only the register.
    unsafe {
        asm!(
            "vmread {value}, {encoding}",
            "setbe {failed}",
            value = out(reg) value,
            encoding = in(reg) u64::from(encoding),
            failed = out(reg_byte) failed,
            options(nostack, nomem),
        );
    }
    if failed == 0 { Ok(value) } else { Err(()) }
}

/// INVEPT of one EPT pointer's translations (single-context).
///
/// # Safety
/// The processor is in VMX root operation and supports single-context INVEPT.
///
/// # Errors
/// VMfailValid 28 for a pointer that VM entry would not accept.
pub unsafe fn invept_single(ept_pointer: u64) -> Result<(), VmFail> {
    // SAFETY: by the caller.
    unsafe { invalidate_ept(1, ept_pointer) }
}

/// INVEPT of everything (all-context).
///
/// # Safety
/// The processor is in VMX root operation and supports all-context INVEPT.
///
/// # Errors
/// None that a supported type can have.
pub unsafe fn invept_all() -> Result<(), VmFail> {
    // SAFETY: by the caller.
    unsafe { invalidate_ept(2, 0) }
}

unsafe fn invalidate_ept(kind: u64, ept_pointer: u64) -> Result<(), VmFail> {
    let descriptor = [ept_pointer, 0];
    let (invalid, valid): (u8, u8);
    // SAFETY: the caller is in VMX root operation; the descriptor is a local variable.
    unsafe {
        asm!(
            "invept {kind}, [{descriptor}]",
            "setc {invalid}",
            "setz {valid}",
            kind = in(reg) kind,
            descriptor = in(reg) &descriptor,
            invalid = out(reg_byte) invalid,
            valid = out(reg_byte) valid,
            options(nostack),
        );
    }
    outcome(invalid, valid)
}

/// What INVVPID drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VpidScope {
    /// Translations of one linear address.
    Address(u64),
    /// All translations of the VPID.
    Single,
    /// All translations of all VPIDs but 0.
    All,
    /// All translations of the VPID but the global ones.
    SingleKeepingGlobals,
}

/// INVVPID.
///
/// # Safety
/// The processor is in VMX root operation and supports INVVPID of this scope.
///
/// # Errors
/// VMfailValid 28: VPID 0, or an address that is not canonical.
pub unsafe fn invvpid(vpid: u16, scope: VpidScope) -> Result<(), VmFail> {
    let (kind, address) = match scope {
        VpidScope::Address(address) => (0u64, address),
        VpidScope::Single => (1, 0),
        VpidScope::All => (2, 0),
        VpidScope::SingleKeepingGlobals => (3, 0),
    };
    let descriptor = [u64::from(vpid), address];
    let (invalid, valid): (u8, u8);
    // SAFETY: the caller is in VMX root operation; the descriptor is a local variable.
    unsafe {
        asm!(
            "invvpid {kind}, [{descriptor}]",
            "setc {invalid}",
            "setz {valid}",
            kind = in(reg) kind,
            descriptor = in(reg) &descriptor,
            invalid = out(reg_byte) invalid,
            valid = out(reg_byte) valid,
            options(nostack),
        );
    }
    outcome(invalid, valid)
}

/// The VMCS that is current on this processor. Holding one is the permission to read and write it.
#[derive(Debug)]
pub struct CurrentVmcs {
    /// Bound to this processor.
    not_send: PhantomData<*mut ()>,
}

impl CurrentVmcs {
    /// # Safety
    /// As long as the value lives, this processor is in VMX root operation with a current VMCS, and no other value reads
    /// or writes the same one.
    pub const unsafe fn assume() -> Self {
        Self { not_send: PhantomData }
    }
}

impl VmcsRead for CurrentVmcs {
    #[inline(always)]
    fn try_read_raw(&self, encoding: u32) -> Result<u64, VmFail> {
        // SAFETY: this value's existence says that there is a current VMCS.
        unsafe { vmread_raw(encoding) }.map_err(|()| failure(0))
    }

    /// One instruction and a branch that is never taken: a dozen of these are in each exit's way.
    #[inline(always)]
    fn read<T: FieldType, A: Access>(&self, field: Field<T, A>) -> T::Value {
        let value: u64;
        // SAFETY: this value's existence says that there is a current VMCS. VMREAD writes only the register; if it fails, the
        // register still has the encoding, and `vmx_read_failed` does not return.
        unsafe {
            asm!(
                "vmread {value}, {value}",
                "jbe 3f",
                // Out of the way, and with no register of its own in the way.
                ".pushsection .text.vmread_failed, \"ax\", @progbits",
                "3:",
                "mov rax, {value}",
                "jmp {failed}",
                ".popsection",
                value = inout(reg) u64::from(field.encoding()) => value,
                failed = sym vmx_read_failed,
                options(nostack, nomem),
            );
        }
        T::from_raw(value)
    }
}

impl VmcsWrite for CurrentVmcs {
    #[inline(always)]
    fn try_write_raw(&mut self, encoding: u32, value: u64) -> Result<(), VmFail> {
        let failed: u8;
        // SAFETY: this value's existence says that there is a current VMCS, and that nobody else writes it. A field cannot
        // harm the host by itself: what a VM entry does with it is the entry's concern.
        unsafe {
            asm!(
                "vmwrite {encoding}, {value}",
                "setbe {failed}",
                encoding = in(reg) u64::from(encoding),
                value = in(reg) value,
                failed = out(reg_byte) failed,
                options(nostack),
            );
        }
        if failed == 0 { Ok(()) } else { Err(failure(0)) }
    }

    #[inline(always)]
    fn write<T: FieldType>(&mut self, field: Field<T, ReadWrite>, value: T::Value) {
        // SAFETY: as in `try_write_raw`; `vmx_write_failed` does not return.
        unsafe {
            asm!(
                "vmwrite rax, {value}",
                "jbe {failed}",
                in("rax") u64::from(field.encoding()),
                value = in(reg) T::into_raw(value),
                failed = sym vmx_write_failed,
                options(nostack),
            );
        }
    }
}

/// Where a VMREAD jumps to that has failed: RAX has the field's encoding.
#[unsafe(naked)]
unsafe extern "C" fn vmx_read_failed() -> ! {
    naked_asm!("mov rdi, rax", "and rsp, -16", "call {report}", report = sym report_read)
}

/// Where a VMWRITE jumps to that has failed: RAX has the field's encoding.
#[unsafe(naked)]
unsafe extern "C" fn vmx_write_failed() -> ! {
    naked_asm!("mov rdi, rax", "and rsp, -16", "call {report}", report = sym report_write)
}

extern "C" fn report_read(encoding: u64) -> ! {
    fields::access_failed("VMREAD", encoding as u32, failure(0))
}

extern "C" fn report_write(encoding: u64) -> ! {
    fields::access_failed("VMWRITE", encoding as u32, failure(0))
}
