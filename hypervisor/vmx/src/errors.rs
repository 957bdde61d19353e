//! VMfail and the VM-instruction errors in the SDM's words (vol. 3C, section "VM Instruction Error Numbers").

use core::fmt;

/// How a VMX instruction failed (SDM vol. 3C, "Conventions": VMfailInvalid and VMfailValid).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmFail {
    /// CF = 1: there is no current VMCS that could hold an error number.
    Invalid,
    /// ZF = 1: the current VMCS holds this error number.
    Valid(InstructionError),
}

/// The number in the VM-instruction error field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstructionError(pub u32);

impl InstructionError {
    /// VMRESUME with a VMCS that was not launched.
    pub const RESUME_NOT_LAUNCHED: Self = Self(5);
    /// VM entry with an invalid control field.
    pub const ENTRY_INVALID_CONTROLS: Self = Self(7);
    /// VM entry with an invalid host-state field.
    pub const ENTRY_INVALID_HOST: Self = Self(8);
    /// VMREAD or VMWRITE of a component that this processor does not have.
    pub const UNSUPPORTED_COMPONENT: Self = Self(12);
    /// INVEPT or INVVPID with an invalid operand.
    pub const INVALID_INVALIDATION: Self = Self(28);

    /// What the number means.
    pub const fn text(self) -> &'static str {
        match self.0 {
            1 => "VMCALL executed in VMX root operation",
            2 => "VMCLEAR with invalid physical address",
            3 => "VMCLEAR with VMXON pointer",
            4 => "VMLAUNCH with non-clear VMCS",
            5 => "VMRESUME with non-launched VMCS",
            6 => "VMRESUME after VMXOFF",
            7 => "VM entry with invalid control field(s)",
            8 => "VM entry with invalid host-state field(s)",
            9 => "VMPTRLD with invalid physical address",
            10 => "VMPTRLD with VMXON pointer",
            11 => "VMPTRLD with incorrect VMCS revision identifier",
            12 => "VMREAD/VMWRITE from/to unsupported VMCS component",
            13 => "VMWRITE to read-only VMCS component",
            15 => "VMXON executed in VMX root operation",
            16 => "VM entry with invalid executive-VMCS pointer",
            17 => "VM entry with non-launched executive VMCS",
            18 => "VM entry with executive-VMCS pointer not VMXON pointer",
            19 => "VMCALL with non-clear VMCS",
            20 => "VMCALL with invalid VM-exit control fields",
            22 => "VMCALL with incorrect MSEG revision identifier",
            23 => "VMXOFF under dual-monitor treatment of SMIs and SMM",
            24 => "VMCALL with invalid SMM-monitor features",
            25 => "VM entry with invalid VM-execution control fields in executive VMCS",
            26 => "VM entry with events blocked by MOV SS",
            28 => "invalid operand to INVEPT/INVVPID",
            _ => "reserved error number",
        }
    }
}

impl fmt::Display for InstructionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (VM-instruction error {})", self.text(), self.0)
    }
}

impl fmt::Display for VmFail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid => f.write_str("VMfailInvalid: no current VMCS"),
            Self::Valid(error) => write!(f, "VMfailValid: {error}"),
        }
    }
}

impl core::error::Error for VmFail {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn errors_speak_the_manuals_words() {
        assert_eq!(
            format!("{}", VmFail::Valid(InstructionError(7))),
            "VMfailValid: VM entry with invalid control field(s) (VM-instruction error 7)"
        );
        for reserved in [0, 14, 21, 27, 29, 1000] {
            assert_eq!(InstructionError(reserved).text(), "reserved error number");
        }
        for known in (1..=13).chain(15..=20).chain(22..=26).chain([28]) {
            assert_ne!(InstructionError(known).text(), "reserved error number", "{known}");
        }
    }
}
