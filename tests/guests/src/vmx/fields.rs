//! Encodings of the VMCS fields that tests use (SDM vol. 3D appendix B), and bits of the controls.
#![allow(missing_docs)]

pub const VPID: u32 = 0x0000;
pub const GUEST_SELECTORS: u32 = 0x0800;
pub const GUEST_CS: u32 = 0x0802;
pub const GUEST_SS: u32 = 0x0804;
pub const GUEST_TR: u32 = 0x080e;
pub const HOST_CS: u32 = 0x0c02;
pub const HOST_SS: u32 = 0x0c04;
pub const HOST_TR: u32 = 0x0c0c;
pub const MSR_BITMAPS: u32 = 0x2004;
pub const EXIT_MSR_STORE: u32 = 0x2006;
pub const EXIT_MSR_LOAD: u32 = 0x2008;
pub const ENTRY_MSR_LOAD: u32 = 0x200a;
pub const EPT_POINTER: u32 = 0x201a;
pub const GUEST_PHYSICAL: u32 = 0x2400;
pub const VMCS_LINK: u32 = 0x2800;
pub const GUEST_DEBUGCTL: u32 = 0x2802;
pub const GUEST_EFER: u32 = 0x2806;
pub const GUEST_GLOBAL_CTRL: u32 = 0x2808;
pub const HOST_EFER: u32 = 0x2c02;
pub const HOST_GLOBAL_CTRL: u32 = 0x2c04;
pub const PIN_CONTROLS: u32 = 0x4000;
pub const PRIMARY_CONTROLS: u32 = 0x4002;
pub const EXCEPTION_BITMAP: u32 = 0x4004;
pub const EXIT_CONTROLS: u32 = 0x400c;
pub const EXIT_MSR_STORE_COUNT: u32 = 0x400e;
pub const EXIT_MSR_LOAD_COUNT: u32 = 0x4010;
pub const ENTRY_CONTROLS: u32 = 0x4012;
pub const ENTRY_MSR_LOAD_COUNT: u32 = 0x4014;
pub const ENTRY_INTERRUPTION: u32 = 0x4016;
pub const ENTRY_INSTRUCTION_LENGTH: u32 = 0x401a;
pub const SECONDARY_CONTROLS: u32 = 0x401e;
pub const INSTRUCTION_ERROR: u32 = 0x4400;
pub const EXIT_REASON: u32 = 0x4402;
pub const EXIT_INTERRUPTION: u32 = 0x4404;
pub const IDT_VECTORING: u32 = 0x4408;
pub const EXIT_INSTRUCTION_LENGTH: u32 = 0x440c;
pub const GUEST_LIMITS: u32 = 0x4800;
pub const GUEST_GDTR_LIMIT: u32 = 0x4810;
pub const GUEST_IDTR_LIMIT: u32 = 0x4812;
pub const GUEST_RIGHTS: u32 = 0x4814;
pub const INTERRUPTIBILITY: u32 = 0x4824;
pub const ACTIVITY: u32 = 0x4826;
pub const PREEMPTION_TIMER: u32 = 0x482e;
pub const QUALIFICATION: u32 = 0x6400;
pub const GUEST_LINEAR: u32 = 0x640a;
pub const GUEST_CR0: u32 = 0x6800;
pub const GUEST_CR3: u32 = 0x6802;
pub const GUEST_CR4: u32 = 0x6804;
pub const GUEST_BASES: u32 = 0x6806;
pub const GUEST_GS_BASE: u32 = 0x6810;
pub const GUEST_TR_BASE: u32 = 0x6814;
pub const GUEST_GDTR_BASE: u32 = 0x6816;
pub const GUEST_IDTR_BASE: u32 = 0x6818;
pub const GUEST_DR7: u32 = 0x681a;
pub const GUEST_RSP: u32 = 0x681c;
pub const GUEST_RIP: u32 = 0x681e;
pub const GUEST_RFLAGS: u32 = 0x6820;
pub const PENDING_DEBUG: u32 = 0x6822;
pub const HOST_CR0: u32 = 0x6c00;
pub const HOST_CR3: u32 = 0x6c02;
pub const HOST_CR4: u32 = 0x6c04;
pub const HOST_GS_BASE: u32 = 0x6c08;
pub const HOST_TR_BASE: u32 = 0x6c0a;
pub const HOST_GDTR_BASE: u32 = 0x6c0c;
pub const HOST_IDTR_BASE: u32 = 0x6c0e;
pub const HOST_RSP: u32 = 0x6c14;
pub const HOST_RIP: u32 = 0x6c16;

pub const PIN_EXTERNAL_INTERRUPT: u32 = 1;
pub const PIN_NMI: u32 = 1 << 3;
pub const PIN_PREEMPTION_TIMER: u32 = 1 << 6;
pub const PRIMARY_HLT: u32 = 1 << 7;
pub const PRIMARY_RDPMC: u32 = 1 << 11;
pub const PRIMARY_MTF: u32 = 1 << 27;
pub const PRIMARY_MSR_BITMAPS: u32 = 1 << 28;
pub const PRIMARY_SECONDARY: u32 = 1 << 31;
pub const SECONDARY_EPT: u32 = 1 << 1;
pub const SECONDARY_VPID: u32 = 1 << 5;
pub const SECONDARY_UNRESTRICTED: u32 = 1 << 7;
pub const EXIT_SAVE_DEBUG: u32 = 1 << 2;
pub const EXIT_HOST_64: u32 = 1 << 9;
pub const EXIT_LOAD_GLOBAL_CTRL: u32 = 1 << 12;
pub const EXIT_ACKNOWLEDGE: u32 = 1 << 15;
pub const EXIT_SAVE_EFER: u32 = 1 << 20;
pub const EXIT_LOAD_EFER: u32 = 1 << 21;
pub const ENTRY_LOAD_DEBUG: u32 = 1 << 2;
pub const ENTRY_GUEST_64: u32 = 1 << 9;
pub const ENTRY_LOAD_GLOBAL_CTRL: u32 = 1 << 13;
pub const ENTRY_LOAD_EFER: u32 = 1 << 15;

/// Basic exit reasons (SDM vol. 3D appendix C).
pub mod reason {
    pub const EXCEPTION_OR_NMI: u32 = 0;
    pub const EXTERNAL_INTERRUPT: u32 = 1;
    pub const CPUID: u32 = 10;
    pub const HLT: u32 = 12;
    pub const RDPMC: u32 = 15;
    pub const VMCALL: u32 = 18;
    pub const ENTRY_GUEST_STATE: u32 = 33;
    pub const ENTRY_MSR_LOADING: u32 = 34;
    pub const MTF: u32 = 37;
    pub const EPT_VIOLATION: u32 = 48;
    pub const EPT_MISCONFIGURATION: u32 = 49;
    pub const PREEMPTION_TIMER: u32 = 52;
}

/// Entry-interruption information of an external interrupt.
pub const fn external_interrupt(vector: u8) -> u64 {
    1 << 31 | vector as u64
}
/// Entry-interruption information of an NMI.
pub const NMI: u64 = 1 << 31 | 2 << 8 | 2;
/// Entry-interruption information of a pending MTF exit (type 7, vector 0).
pub const PENDING_MTF: u64 = 1 << 31 | 7 << 8;
