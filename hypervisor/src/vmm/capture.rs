//! Everything about a virtual processor as plain data: taken out, compared register by register, put back.
//!
//! To be used between an exit that was dealt with and the next entry. What is the host's own is left out: its bits of the control
//! registers, its breakpoints, RF, which exits set as they like.

use super::debug_registers::DebugState;
use crate::arch::fpu::{self, FpuState};
use crate::arch::vmenter::Registers;
use crate::arch::vmx::GUEST_MSRS;
use crate::vcpu::Active;
use replay::digest::{Digest, Register, fpu as area};
use replay::point::RFLAGS_RF;
use vmx::controls;
use vmx::fields::{self, Field, ReadWrite, VmcsRead, VmcsWrite};
use vmx::guest_state::{GuestState, Segment, bits};

const PDPTES: [Field<u64, ReadWrite>; 4] =
    [fields::GUEST_PDPTE_0, fields::GUEST_PDPTE_1, fields::GUEST_PDPTE_2, fields::GUEST_PDPTE_3];

/// The interruption-information words of the entry that is to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventDue {
    info: u32,
    error_code: u32,
    length: u32,
}

/// A virtual processor, but for its x87, SSE and AVX state, which [`Active::fpu`] has.
#[derive(Clone, Copy, Debug)]
pub struct Captured {
    /// The VMCS's guest-state area; CR0 and CR4 as they are, DR7 the guest's.
    pub state: GuestState,
    /// General registers and CR2.
    pub registers: Registers,
    /// CR0 as the guest reads it.
    pub cr0: u64,
    /// CR4 as the guest reads it.
    pub cr4: u64,
    /// DR0 to DR3 and DR6.
    pub debug: DebugState,
    /// XCR0.
    pub xcr0: u64,
    /// MSRs that no VMCS field holds: see [`GUEST_MSRS`].
    pub msrs: [u64; GUEST_MSRS.len()],
    /// PAE paging's top entries.
    pub pdptes: [u64; 4],
    /// What the next entry delivers.
    pub event: EventDue,
    /// An interrupt window, an NMI window was asked for.
    pub windows: [bool; 2],
    shadows: [u64; 2],
}

impl Active<'_> {
    /// Takes everything out; the guest goes on as if nothing had been.
    pub fn capture(&mut self) -> Captured {
        self.save_registers();
        let vmcs = self.vmcs();
        let mut state = self.state();
        state.dr7 = self.dr7();
        // Without the hypervisor's breakpoints.
        let mut debug = DebugState::default();
        (debug.addresses, debug.dr6) = (self.debug().addresses, self.debug().dr6);
        Captured {
            state,
            registers: *self.registers(),
            cr0: self.visible_cr0(),
            cr4: self.visible_cr4(),
            debug,
            xcr0: self.xcr0(),
            msrs: *self.guest_msrs(),
            pdptes: PDPTES.map(|field| vmcs.read(field)),
            event: EventDue {
                info: vmcs.read(fields::ENTRY_INTERRUPTION_INFO),
                error_code: vmcs.read(fields::ENTRY_EXCEPTION_ERROR_CODE),
                length: vmcs.read(fields::ENTRY_INSTRUCTION_LENGTH),
            },
            windows: [
                self.is_set(controls::INTERRUPT_WINDOW_EXITING),
                self.is_set(controls::NMI_WINDOW_EXITING),
            ],
            shadows: [vmcs.read(fields::CR0_READ_SHADOW), vmcs.read(fields::CR4_READ_SHADOW)],
        }
    }

    /// Puts everything back, with this x87, SSE and AVX state, a copy of what [`Active::fpu`] had then; None: it is as it was. Breakpoints and single-stepping of the
    /// hypervisor are off.
    pub fn restore(&mut self, captured: &Captured, fpu: Option<&FpuState>) {
        self.clear_breakpoints();
        self.trap_instructions(false);
        self.set_state(&captured.state);
        let vmcs = self.vmcs_mut();
        // As they were, and not as `set_state` makes them of what the guest sees.
        vmcs.write(fields::GUEST_CR0, captured.state.cr0);
        vmcs.write(fields::GUEST_CR4, captured.state.cr4);
        vmcs.write(fields::CR0_READ_SHADOW, captured.shadows[0]);
        vmcs.write(fields::CR4_READ_SHADOW, captured.shadows[1]);
        for (field, entry) in PDPTES.into_iter().zip(captured.pdptes) {
            vmcs.write(field, entry);
        }
        vmcs.write(fields::ENTRY_INTERRUPTION_INFO, captured.event.info);
        vmcs.write(fields::ENTRY_EXCEPTION_ERROR_CODE, captured.event.error_code);
        vmcs.write(fields::ENTRY_INSTRUCTION_LENGTH, captured.event.length);
        self.request_interrupt_window(captured.windows[0]);
        self.request_nmi_window(captured.windows[1]);
        let Registers { gpr, cr2, .. } = captured.registers;
        (self.registers_mut().gpr, self.registers_mut().cr2) = (gpr, cr2);
        self.put_back(captured.msrs, captured.debug, captured.xcr0, fpu);
        self.flush();
    }
}

/// The segments' registers in a digest: selector, and base, limit, access rights after it.
const SEGMENTS: [Register; 8] = [
    Register::CsSelector,
    Register::SsSelector,
    Register::DsSelector,
    Register::EsSelector,
    Register::FsSelector,
    Register::GsSelector,
    Register::LdtrSelector,
    Register::TrSelector,
];

impl Captured {
    /// Enters the registers' values into a digest.
    pub fn digest(&self, digest: &mut Digest) {
        self.digest_integers(digest);
        self.digest_segments(digest);
        self.digest_system(digest);
        self.digest_event(digest);
    }

    fn digest_integers(&self, digest: &mut Digest) {
        for (number, value) in self.registers.gpr.into_iter().enumerate() {
            digest.set(Register::general(number), value);
        }
        digest.set(Register::Rsp, self.state.rsp);
        digest.set(Register::Rip, self.state.rip);
        digest.set(Register::Rflags, self.state.rflags & !RFLAGS_RF);
        for (number, address) in
            [Register::Dr0, Register::Dr1, Register::Dr2, Register::Dr3].into_iter().zip(self.debug.addresses)
        {
            digest.set(number, address);
        }
        digest.set(Register::Dr6, self.debug.dr6);
        digest.set(Register::Dr7, self.state.dr7);
    }

    fn digest_segments(&self, digest: &mut Digest) {
        let GuestState { cs, ss, ds, es, fs, gs, ldtr, tr, gdtr, idtr, .. } = self.state;
        for (first, segment) in SEGMENTS.into_iter().zip([cs, ss, ds, es, fs, gs, ldtr, tr]) {
            let [base, limit, access] = [1, 2, 3].map(|next| Register::ALL[first as usize + next]);
            let defined = defined(segment, first);
            digest.set(first, defined.selector.into());
            digest.set(base, defined.base);
            digest.set(limit, defined.limit.into());
            digest.set(access, defined.access.into());
        }
        digest.set(Register::GdtrBase, gdtr.base);
        digest.set(Register::GdtrLimit, gdtr.limit.into());
        digest.set(Register::IdtrBase, idtr.base);
        digest.set(Register::IdtrLimit, idtr.limit.into());
    }

    fn digest_system(&self, digest: &mut Digest) {
        let state = &self.state;
        let values = [
            (Register::Cr0, self.cr0),
            (Register::Cr2, self.registers.cr2),
            (Register::Cr3, state.cr3),
            (Register::Cr4, self.cr4),
            (Register::Xcr0, self.xcr0),
            (Register::Efer, state.efer),
            (Register::Pat, state.pat),
            (Register::Debugctl, state.debugctl),
            (Register::SysenterCs, state.sysenter_cs.into()),
            (Register::SysenterEsp, state.sysenter_esp),
            (Register::SysenterEip, state.sysenter_eip),
            (Register::Star, self.msrs[0]),
            (Register::Lstar, self.msrs[1]),
            (Register::Cstar, self.msrs[2]),
            (Register::Fmask, self.msrs[3]),
            (Register::KernelGsBase, self.msrs[4]),
            (Register::TscAux, self.msrs[5]),
        ];
        values.into_iter().for_each(|(register, value)| digest.set(register, value));
        // The fields mean something with PAE paging only.
        let pae =
            self.cr0 & bits::CR0_PG != 0 && self.cr4 & bits::CR4_PAE != 0 && state.efer & bits::EFER_LMA == 0;
        let names = [Register::Pdpte0, Register::Pdpte1, Register::Pdpte2, Register::Pdpte3];
        for (name, entry) in names.into_iter().zip(self.pdptes) {
            digest.set(name, if pae { entry } else { 0 });
        }
    }

    fn digest_event(&self, digest: &mut Digest) {
        /// B0 to B3, enabled breakpoint, BS, RTM.
        const PENDING: u64 = 0xF | 1 << 12 | 1 << 14 | 1 << 16;
        const VALID: u32 = 1 << 31;
        const ERROR_CODE_VALID: u32 = 1 << 11;
        let EventDue { info, error_code, length } = self.event;
        let due = info & VALID != 0;
        let software = matches!(info >> 8 & 7, 4..=6);
        let when = |holds: bool, value: u32| if due && holds { u64::from(value) } else { 0 };
        digest.set(Register::EventDue, when(true, info));
        digest.set(Register::EventErrorCode, when(info & ERROR_CODE_VALID != 0, error_code));
        digest.set(Register::EventLength, when(software, length));
        digest.set(Register::WindowsAsked, u64::from(self.windows[0]) | u64::from(self.windows[1]) << 1);
        digest.set(Register::Activity, self.state.activity.into());
        digest.set(Register::Interruptibility, self.state.interruptibility.into());
        digest.set(Register::PendingDebug, self.state.pending_debug & PENDING);
    }

    /// Flips a bit of a register, for tests of what notices it. False: none that a processor would take.
    pub fn flip(&mut self, register: Register, bit: u32) -> bool {
        /// Arithmetic flags, DF and ID.
        const FLAGS: u64 = 0x8D5 | 1 << 10 | 1 << 21;
        /// PWT and PCD, and addresses below 4 GiB.
        const CR3: u64 = 0x18 | 0xFFFF_F000;
        /// Addresses stay canonical.
        const ADDRESS: u64 = (1 << 47) - 1;
        let taken = match register {
            Register::Rflags => FLAGS,
            Register::Cr3 => CR3,
            Register::TscAux => u32::MAX.into(),
            Register::Rip
            | Register::FsBase
            | Register::GsBase
            | Register::SysenterEsp
            | Register::SysenterEip
            | Register::Lstar
            | Register::Cstar
            | Register::KernelGsBase => ADDRESS,
            _ => u64::MAX,
        };
        let flip = 1_u64.checked_shl(bit).unwrap_or(0) & taken;
        if flip == 0 {
            return false;
        }
        match register {
            Register::Rsp => self.state.rsp ^= flip,
            Register::Rip => self.state.rip ^= flip,
            Register::Rflags => self.state.rflags ^= flip,
            Register::Cr2 => self.registers.cr2 ^= flip,
            Register::Cr3 => self.state.cr3 ^= flip,
            Register::Dr0 => self.debug.addresses[0] ^= flip,
            Register::Dr1 => self.debug.addresses[1] ^= flip,
            Register::Dr2 => self.debug.addresses[2] ^= flip,
            Register::Dr3 => self.debug.addresses[3] ^= flip,
            Register::FsBase => self.state.fs.base ^= flip,
            Register::GsBase => self.state.gs.base ^= flip,
            Register::SysenterEsp => self.state.sysenter_esp ^= flip,
            Register::SysenterEip => self.state.sysenter_eip ^= flip,
            Register::Star => self.msrs[0] ^= flip,
            Register::Lstar => self.msrs[1] ^= flip,
            Register::Cstar => self.msrs[2] ^= flip,
            Register::KernelGsBase => self.msrs[4] ^= flip,
            Register::TscAux => self.msrs[5] ^= flip,
            general if (general as usize) < 16 => self.registers.gpr[general as usize] ^= flip,
            _ => return false,
        }
        true
    }
}

/// The segment without what an unusable one leaves undefined (SDM vol. 3C, "Saving Segment Registers and Descriptor-Table
/// Registers"): the bases of FS and GS are kept, and SS.DPL is the privilege level.
fn defined(segment: Segment, first: Register) -> Segment {
    const DPL: u32 = 3 << 5;
    if segment.access & Segment::UNUSABLE == 0 {
        return segment;
    }
    let keeps_base = matches!(first, Register::FsSelector | Register::GsSelector);
    let keeps = if first == Register::SsSelector { DPL } else { 0 };
    Segment {
        selector: segment.selector,
        base: if keeps_base { segment.base } else { 0 },
        limit: 0,
        access: segment.access & (Segment::UNUSABLE | keeps),
    }
}

/// Enters the hashes of the x87, SSE and AVX state, as [`Active::capture`] has left it, into a digest.
pub fn digest_fpu(on: &Active<'_>, digest: &mut Digest) {
    let present = (fpu::supported() == 0).then_some(area::LEGACY);
    for (part, hash) in area::hashes(on.fpu().bytes(), present) {
        digest.set_part(part, hash);
    }
}

/// [`Captured::digest`] knows them by their places.
const _: () = assert!(matches!(
    GUEST_MSRS,
    [0xc000_0081, 0xc000_0082, 0xc000_0083, 0xc000_0084, 0xc000_0102, 0xc000_0103]
));
