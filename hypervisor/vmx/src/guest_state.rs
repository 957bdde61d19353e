//! The guest-state area: initial states for each mode, and the SDM's rules for it, checked by name before the processor
//! would refuse without one (vol. 3C, "Checks on the Guest State").

use crate::caps::Capabilities;
use crate::controls::{self, Controls};
use crate::fields::{self, Field, Natural, ReadWrite, VmcsRead, VmcsWrite};
use crate::inject::{Activity, Event, EventKind, Interruptibility, RFLAGS_IF};
use core::fmt;

/// Bits of CR0, CR4, EFER and RFLAGS that this file speaks of.
#[allow(missing_docs)]
pub mod bits {
    pub const CR0_PE: u64 = 1 << 0;
    pub const CR0_NE: u64 = 1 << 5;
    pub const CR0_ET: u64 = 1 << 4;
    pub const CR0_WP: u64 = 1 << 16;
    pub const CR0_NW: u64 = 1 << 29;
    pub const CR0_CD: u64 = 1 << 30;
    pub const CR0_PG: u64 = 1 << 31;
    pub const CR4_PAE: u64 = 1 << 5;
    pub const CR4_VMXE: u64 = 1 << 13;
    pub const CR4_PCIDE: u64 = 1 << 17;
    pub const CR4_CET: u64 = 1 << 23;
    pub const EFER_LME: u64 = 1 << 8;
    pub const EFER_LMA: u64 = 1 << 10;
    pub const RFLAGS_FIXED: u64 = 1 << 1;
    pub const RFLAGS_TF: u64 = 1 << 8;
    pub const RFLAGS_VM: u64 = 1 << 17;
}
use bits::*;

/// IA32_PAT after reset.
pub const PAT_RESET: u64 = 0x0007_0406_0007_0406;
/// DR7 after reset.
pub const DR7_RESET: u64 = 0x400;

/// A segment register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Segment {
    /// The selector.
    pub selector: u16,
    /// The base.
    pub base: u64,
    /// The limit, bytes.
    pub limit: u32,
    /// The access rights, as the VMCS has them: type 3:0, S 4, DPL 6:5, P 7, AVL 12, L 13, D/B 14, G 15, unusable 16.
    pub access: u32,
}

impl Segment {
    /// The "unusable" bit.
    pub const UNUSABLE: u32 = 1 << 16;

    /// Data as real mode has it: read/write, accessed, 64 KiB.
    pub const fn real_data(selector: u16) -> Self {
        Self { selector, base: (selector as u64) << 4, limit: 0xffff, access: 0x93 }
    }
    /// Code as real mode has it.
    pub const fn real_code(selector: u16) -> Self {
        Self { access: 0x9b, ..Self::real_data(selector) }
    }
    /// Flat 32-bit data.
    pub const fn flat_data(selector: u16) -> Self {
        Self { selector, base: 0, limit: u32::MAX, access: 0xc093 }
    }
    /// Flat 32-bit code.
    pub const fn flat_code32(selector: u16) -> Self {
        Self { access: 0xc09b, ..Self::flat_data(selector) }
    }
    /// Flat 64-bit code.
    pub const fn flat_code64(selector: u16) -> Self {
        Self { access: 0xa09b, ..Self::flat_data(selector) }
    }
    /// Not usable.
    pub const fn unusable() -> Self {
        Self { selector: 0, base: 0, limit: 0, access: Self::UNUSABLE }
    }
    /// A busy 32-bit or 64-bit TSS without content.
    pub const fn busy_tss() -> Self {
        Self { selector: 0, base: 0, limit: 0xffff, access: 0x8b }
    }
    /// An empty LDT.
    pub const fn empty_ldt() -> Self {
        Self { selector: 0, base: 0, limit: 0xffff, access: 0x82 }
    }

    const fn usable(self) -> bool {
        self.access & Self::UNUSABLE == 0
    }
    const fn kind(self) -> u32 {
        self.access & 15
    }
    const fn code_or_data(self) -> bool {
        self.access & 0x10 != 0
    }
    const fn dpl(self) -> u32 {
        (self.access >> 5) & 3
    }
    const fn rpl(self) -> u32 {
        (self.selector & 3) as u32
    }
    const fn present(self) -> bool {
        self.access & 0x80 != 0
    }
    const fn long(self) -> bool {
        self.access & 1 << 13 != 0
    }
    const fn big(self) -> bool {
        self.access & 1 << 14 != 0
    }
    const fn granular(self) -> bool {
        self.access & 1 << 15 != 0
    }
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Table {
    /// The base.
    pub base: u64,
    /// The limit.
    pub limit: u32,
}

/// The guest-state area, without what is not used: CET, PKRS, SMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct GuestState {
    pub cr0: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub dr7: u64,
    pub rip: u64,
    pub rsp: u64,
    pub rflags: u64,
    pub cs: Segment,
    pub ss: Segment,
    pub ds: Segment,
    pub es: Segment,
    pub fs: Segment,
    pub gs: Segment,
    pub ldtr: Segment,
    pub tr: Segment,
    pub gdtr: Table,
    pub idtr: Table,
    pub debugctl: u64,
    pub sysenter_cs: u32,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub pat: u64,
    pub efer: u64,
    pub perf_global_ctrl: u64,
    pub activity: u32,
    pub interruptibility: u32,
    pub pending_debug: u64,
    pub link_pointer: u64,
}

impl GuestState {
    /// As a processor comes out of reset, but at `segment`:`offset` (SDM vol. 3A, table of register states after reset).
    pub const fn real_mode(segment: u16, offset: u16) -> Self {
        let data = Segment::real_data(0);
        Self {
            cr0: CR0_ET | CR0_NE,
            cr3: 0,
            cr4: 0,
            dr7: DR7_RESET,
            rip: offset as u64,
            rsp: 0,
            rflags: RFLAGS_FIXED,
            cs: Segment::real_code(segment),
            ss: data,
            ds: data,
            es: data,
            fs: data,
            gs: data,
            ldtr: Segment::empty_ldt(),
            tr: Segment::busy_tss(),
            gdtr: Table { base: 0, limit: 0xffff },
            idtr: Table { base: 0, limit: 0x3ff },
            debugctl: 0,
            sysenter_cs: 0,
            sysenter_esp: 0,
            sysenter_eip: 0,
            pat: PAT_RESET,
            efer: 0,
            perf_global_ctrl: 0,
            activity: Activity::Active as u32,
            interruptibility: 0,
            pending_debug: 0,
            link_pointer: u64::MAX,
        }
    }

    /// 32-bit protected mode without paging, flat segments (selectors 8 and 16).
    pub const fn protected_mode(entry: u32, stack: u32) -> Self {
        let data = Segment::flat_data(16);
        Self {
            cr0: CR0_ET | CR0_NE | CR0_PE,
            rip: entry as u64,
            rsp: stack as u64,
            cs: Segment::flat_code32(8),
            ss: data,
            ds: data,
            es: data,
            fs: data,
            gs: data,
            ..Self::real_mode(0, 0)
        }
    }

    /// 64-bit mode with the guest's own page tables at `cr3`, flat segments (selectors 8 and 16).
    pub const fn long_mode(entry: u64, stack: u64, cr3: u64) -> Self {
        Self {
            cr0: CR0_ET | CR0_NE | CR0_PE | CR0_PG | CR0_WP,
            cr3,
            cr4: CR4_PAE,
            rip: entry,
            rsp: stack,
            cs: Segment::flat_code64(8),
            efer: EFER_LME | EFER_LMA,
            ..Self::protected_mode(0, 0)
        }
    }

    /// Stores the state into the current VMCS. CR4.VMXE, which must be 1 in VMX operation, is the caller's to add: the
    /// guest does not see it. The entry control "IA-32e mode guest" follows EFER.LMA and is the caller's, too.
    pub fn store(&self, vmcs: &mut impl VmcsWrite, loads_perf_global_ctrl: bool) {
        for (segment, fields) in self.segments().into_iter().zip(SEGMENT_FIELDS) {
            vmcs.write(fields.selector, segment.selector);
            vmcs.write(fields.base, segment.base);
            vmcs.write(fields.limit, segment.limit);
            vmcs.write(fields.access, segment.access);
        }
        for (value, field) in self.natural_words() {
            vmcs.write(field, value);
        }
        vmcs.write(fields::GUEST_GDTR_LIMIT, self.gdtr.limit);
        vmcs.write(fields::GUEST_IDTR_LIMIT, self.idtr.limit);
        vmcs.write(fields::GUEST_DEBUGCTL, self.debugctl);
        vmcs.write(fields::GUEST_SYSENTER_CS, self.sysenter_cs);
        vmcs.write(fields::GUEST_PAT, self.pat);
        vmcs.write(fields::GUEST_EFER, self.efer);
        if loads_perf_global_ctrl {
            vmcs.write(fields::GUEST_PERF_GLOBAL_CTRL, self.perf_global_ctrl);
        }
        vmcs.write(fields::GUEST_ACTIVITY, self.activity);
        vmcs.write(fields::GUEST_INTERRUPTIBILITY, self.interruptibility);
        vmcs.write(fields::VMCS_LINK_POINTER, self.link_pointer);
    }

    /// Reads the state from the current VMCS.
    pub fn load(vmcs: &impl VmcsRead, loads_perf_global_ctrl: bool) -> Self {
        let segment = |i: usize| {
            let f = &SEGMENT_FIELDS[i];
            Segment {
                selector: vmcs.read(f.selector),
                base: vmcs.read(f.base),
                limit: vmcs.read(f.limit),
                access: vmcs.read(f.access),
            }
        };
        Self {
            cr0: vmcs.read(fields::GUEST_CR0),
            cr3: vmcs.read(fields::GUEST_CR3),
            cr4: vmcs.read(fields::GUEST_CR4),
            dr7: vmcs.read(fields::GUEST_DR7),
            rip: vmcs.read(fields::GUEST_RIP),
            rsp: vmcs.read(fields::GUEST_RSP),
            rflags: vmcs.read(fields::GUEST_RFLAGS),
            cs: segment(0),
            ss: segment(1),
            ds: segment(2),
            es: segment(3),
            fs: segment(4),
            gs: segment(5),
            ldtr: segment(6),
            tr: segment(7),
            gdtr: Table {
                base: vmcs.read(fields::GUEST_GDTR_BASE),
                limit: vmcs.read(fields::GUEST_GDTR_LIMIT),
            },
            idtr: Table {
                base: vmcs.read(fields::GUEST_IDTR_BASE),
                limit: vmcs.read(fields::GUEST_IDTR_LIMIT),
            },
            debugctl: vmcs.read(fields::GUEST_DEBUGCTL),
            sysenter_cs: vmcs.read(fields::GUEST_SYSENTER_CS),
            sysenter_esp: vmcs.read(fields::GUEST_SYSENTER_ESP),
            sysenter_eip: vmcs.read(fields::GUEST_SYSENTER_EIP),
            pat: vmcs.read(fields::GUEST_PAT),
            efer: vmcs.read(fields::GUEST_EFER),
            perf_global_ctrl: if loads_perf_global_ctrl {
                vmcs.read(fields::GUEST_PERF_GLOBAL_CTRL)
            } else {
                0
            },
            activity: vmcs.read(fields::GUEST_ACTIVITY),
            interruptibility: vmcs.read(fields::GUEST_INTERRUPTIBILITY),
            pending_debug: vmcs.read(fields::GUEST_PENDING_DEBUG),
            link_pointer: vmcs.read(fields::VMCS_LINK_POINTER),
        }
    }

    const fn segments(&self) -> [Segment; 8] {
        [self.cs, self.ss, self.ds, self.es, self.fs, self.gs, self.ldtr, self.tr]
    }

    fn natural_words(&self) -> [(u64, Field<Natural, ReadWrite>); 12] {
        [
            (self.cr0, fields::GUEST_CR0),
            (self.cr3, fields::GUEST_CR3),
            (self.cr4, fields::GUEST_CR4),
            (self.dr7, fields::GUEST_DR7),
            (self.rip, fields::GUEST_RIP),
            (self.rsp, fields::GUEST_RSP),
            (self.rflags, fields::GUEST_RFLAGS),
            (self.gdtr.base, fields::GUEST_GDTR_BASE),
            (self.idtr.base, fields::GUEST_IDTR_BASE),
            (self.sysenter_esp, fields::GUEST_SYSENTER_ESP),
            (self.sysenter_eip, fields::GUEST_SYSENTER_EIP),
            (self.pending_debug, fields::GUEST_PENDING_DEBUG),
        ]
    }
}

struct SegmentFields {
    selector: Field<u16, ReadWrite>,
    base: Field<Natural, ReadWrite>,
    limit: Field<u32, ReadWrite>,
    access: Field<u32, ReadWrite>,
}

macro_rules! segment_fields {
    ($($selector:ident $base:ident $limit:ident $access:ident;)*) => {
        [$( SegmentFields {
            selector: fields::$selector,
            base: fields::$base,
            limit: fields::$limit,
            access: fields::$access,
        }, )*]
    };
}

/// In the order of [`GuestState::segments`].
const SEGMENT_FIELDS: [SegmentFields; 8] = segment_fields! {
    GUEST_CS_SELECTOR GUEST_CS_BASE GUEST_CS_LIMIT GUEST_CS_ACCESS_RIGHTS;
    GUEST_SS_SELECTOR GUEST_SS_BASE GUEST_SS_LIMIT GUEST_SS_ACCESS_RIGHTS;
    GUEST_DS_SELECTOR GUEST_DS_BASE GUEST_DS_LIMIT GUEST_DS_ACCESS_RIGHTS;
    GUEST_ES_SELECTOR GUEST_ES_BASE GUEST_ES_LIMIT GUEST_ES_ACCESS_RIGHTS;
    GUEST_FS_SELECTOR GUEST_FS_BASE GUEST_FS_LIMIT GUEST_FS_ACCESS_RIGHTS;
    GUEST_GS_SELECTOR GUEST_GS_BASE GUEST_GS_LIMIT GUEST_GS_ACCESS_RIGHTS;
    GUEST_LDTR_SELECTOR GUEST_LDTR_BASE GUEST_LDTR_LIMIT GUEST_LDTR_ACCESS_RIGHTS;
    GUEST_TR_SELECTOR GUEST_TR_BASE GUEST_TR_LIMIT GUEST_TR_ACCESS_RIGHTS;
};

/// A rule of the guest state that is broken, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokenRule(pub &'static str);

impl fmt::Display for BrokenRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl core::error::Error for BrokenRule {}

fn rule(holds: bool, text: &'static str) -> Result<(), BrokenRule> {
    if holds { Ok(()) } else { Err(BrokenRule(text)) }
}

/// What the check needs besides the state itself.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The controls the entry will use.
    pub controls: &'a Controls,
    /// The processor.
    pub caps: &'a Capabilities,
    /// The processor's physical-address width.
    pub physical_bits: u8,
    /// The event the entry injects.
    pub event: Option<Event>,
}

impl Context<'_> {
    fn unrestricted(&self) -> bool {
        self.controls.has(controls::UNRESTRICTED_GUEST)
    }
    fn ia32e(&self) -> bool {
        self.controls.has(controls::IA32E_MODE_GUEST)
    }
}

/// Checks the state against the SDM's rules for VM entry. Useful before an entry that fails with no better word than
/// "invalid guest state".
///
/// # Errors
/// The first rule that is broken.
pub fn check_entry(state: &GuestState, context: &Context<'_>) -> Result<(), BrokenRule> {
    check_control_registers(state, context)?;
    check_msrs(state, context)?;
    check_selectors(state, context)?;
    if state.rflags & RFLAGS_VM != 0 {
        check_virtual_8086(state)?;
    } else {
        check_code(state, context)?;
        check_stack(state, context)?;
        check_data(state, context)?;
    }
    check_system_segments(state, context)?;
    check_tables(state)?;
    check_rip_rflags(state, context)?;
    check_activity(state, context)?;
    check_interruptibility(state, context)?;
    check_debug_and_link(state)
}

const fn canonical(address: u64) -> bool {
    let top = address >> 47;
    top == 0 || top == 0x1_ffff
}

fn check_control_registers(s: &GuestState, c: &Context<'_>) -> Result<(), BrokenRule> {
    let exempt = if c.unrestricted() { CR0_PE | CR0_PG } else { 0 };
    let cr0_fixed0 = c.caps.cr0_fixed0 & !exempt & !(CR0_NW | CR0_CD);
    rule(s.cr0 & cr0_fixed0 == cr0_fixed0, "CR0: a bit that must be 1 in VMX operation is 0")?;
    rule(s.cr0 & !c.caps.cr0_fixed1 == 0, "CR0: a bit that must be 0 in VMX operation is 1")?;
    rule(s.cr0 & CR0_PG == 0 || s.cr0 & CR0_PE != 0, "CR0: PG is 1 and PE is 0")?;
    rule(s.cr4 & c.caps.cr4_fixed0 == c.caps.cr4_fixed0, "CR4: a bit that must be 1 in VMX operation is 0")?;
    rule(s.cr4 & !c.caps.cr4_fixed1 == 0, "CR4: a bit that must be 0 in VMX operation is 1")?;
    rule(s.cr4 & CR4_CET == 0 || s.cr0 & CR0_WP != 0, "CR4: CET is 1 and CR0.WP is 0")?;
    if c.ia32e() {
        rule(s.cr0 & CR0_PG != 0, "IA-32e mode guest without CR0.PG")?;
        rule(s.cr4 & CR4_PAE != 0, "IA-32e mode guest without CR4.PAE")?;
    } else {
        rule(s.cr4 & CR4_PCIDE == 0, "CR4: PCIDE is 1 outside IA-32e mode")?;
    }
    rule(s.cr3 >> c.physical_bits == 0, "CR3: a bit beyond the physical-address width is 1")?;
    let loads_debug = c.controls.has(controls::LOAD_DEBUG_CONTROLS);
    rule(!loads_debug || s.dr7 >> 32 == 0, "DR7: a bit of the upper half is 1")?;
    rule(canonical(s.sysenter_esp), "IA32_SYSENTER_ESP is not canonical")?;
    rule(canonical(s.sysenter_eip), "IA32_SYSENTER_EIP is not canonical")
}

fn check_msrs(s: &GuestState, c: &Context<'_>) -> Result<(), BrokenRule> {
    const DEBUGCTL_RESERVED: u64 = !0xffc3;
    let loads_debug = c.controls.has(controls::LOAD_DEBUG_CONTROLS);
    rule(!loads_debug || s.debugctl & DEBUGCTL_RESERVED == 0, "IA32_DEBUGCTL: a reserved bit is 1")?;
    if c.controls.has(controls::ENTRY_LOAD_PAT) {
        let valid = s.pat.to_le_bytes().iter().all(|kind| matches!(kind, 0 | 1 | 4 | 5 | 6 | 7));
        rule(valid, "IA32_PAT: an entry has a reserved memory type")?;
    }
    if c.controls.has(controls::ENTRY_LOAD_EFER) {
        const EFER_KNOWN: u64 = 1 << 0 | EFER_LME | EFER_LMA | 1 << 11;
        rule(s.efer & !EFER_KNOWN == 0, "IA32_EFER: a reserved bit is 1")?;
        let lma = s.efer & EFER_LMA != 0;
        rule(lma == c.ia32e(), "IA32_EFER.LMA differs from the control \"IA-32e mode guest\"")?;
        let same = lma == (s.efer & EFER_LME != 0);
        rule(same || s.cr0 & CR0_PG == 0, "IA32_EFER.LMA differs from LME while CR0.PG is 1")?;
    }
    Ok(())
}

fn check_selectors(s: &GuestState, c: &Context<'_>) -> Result<(), BrokenRule> {
    rule(s.tr.selector & 4 == 0, "TR: the selector's TI is 1")?;
    rule(!s.ldtr.usable() || s.ldtr.selector & 4 == 0, "LDTR: the selector's TI is 1")?;
    let v8086 = s.rflags & RFLAGS_VM != 0;
    rule(v8086 || c.unrestricted() || s.ss.rpl() == s.cs.rpl(), "SS: the selector's RPL differs from CS's")?;
    rule(canonical(s.tr.base), "TR: the base is not canonical")?;
    rule(canonical(s.fs.base), "FS: the base is not canonical")?;
    rule(canonical(s.gs.base), "GS: the base is not canonical")?;
    rule(!s.ldtr.usable() || canonical(s.ldtr.base), "LDTR: the base is not canonical")?;
    rule(s.cs.base >> 32 == 0, "CS: a bit of the base's upper half is 1")?;
    let low = |segment: Segment| !segment.usable() || segment.base >> 32 == 0;
    rule(low(s.ss), "SS: a bit of the base's upper half is 1")?;
    rule(low(s.ds) && low(s.es), "DS or ES: a bit of the base's upper half is 1")
}

fn check_virtual_8086(s: &GuestState) -> Result<(), BrokenRule> {
    for segment in [s.cs, s.ss, s.ds, s.es, s.fs, s.gs] {
        let base = u64::from(segment.selector) << 4;
        rule(segment.base == base, "virtual-8086 mode: a base is not the selector times 16")?;
        rule(segment.limit == 0xffff, "virtual-8086 mode: a limit is not FFFFh")?;
        rule(segment.access == 0xf3, "virtual-8086 mode: access rights other than F3h")?;
    }
    Ok(())
}

/// Rules that hold for every usable code or data segment.
fn check_common(segment: Segment, name: CommonNames) -> Result<(), BrokenRule> {
    rule(segment.code_or_data(), name.system)?;
    rule(segment.present(), name.absent)?;
    rule(segment.access & 0xffff_0f00 & !Segment::UNUSABLE == 0, name.reserved)?;
    let low_ones = segment.limit & 0xfff == 0xfff;
    let high_zeros = segment.limit >> 20 == 0;
    rule(low_ones || !segment.granular(), name.granularity)?;
    rule(high_zeros || segment.granular(), name.granularity)
}

#[derive(Clone, Copy)]
struct CommonNames {
    system: &'static str,
    absent: &'static str,
    reserved: &'static str,
    granularity: &'static str,
}

macro_rules! common_names {
    ($name:literal) => {
        CommonNames {
            system: concat!($name, ": a system segment"),
            absent: concat!($name, ": not present"),
            reserved: concat!($name, ": a reserved bit of the access rights is 1"),
            granularity: concat!($name, ": limit and granularity do not agree"),
        }
    };
}

fn check_code(s: &GuestState, c: &Context<'_>) -> Result<(), BrokenRule> {
    let data_allowed = c.unrestricted() && s.cs.kind() == 3;
    rule(matches!(s.cs.kind(), 9 | 11 | 13 | 15) || data_allowed, "CS: not an accessed code segment")?;
    let (dpl, stack) = (s.cs.dpl(), s.ss.dpl());
    match s.cs.kind() {
        3 => rule(dpl == 0, "CS: a data segment whose DPL is not 0")?,
        9 | 11 => rule(dpl == stack, "CS: non-conforming and its DPL differs from SS's")?,
        _ => rule(dpl <= stack, "CS: conforming and its DPL is above SS's")?,
    }
    check_common(s.cs, common_names!("CS"))?;
    rule(!(c.ia32e() && s.cs.long() && s.cs.big()), "CS: both L and D/B are 1")
}

fn check_stack(s: &GuestState, c: &Context<'_>) -> Result<(), BrokenRule> {
    if s.ss.usable() {
        rule(matches!(s.ss.kind(), 3 | 7), "SS: not an accessed writable data segment")?;
        check_common(s.ss, common_names!("SS"))?;
    }
    rule(c.unrestricted() || s.ss.dpl() == s.ss.rpl(), "SS: DPL differs from RPL")?;
    let real = s.cr0 & CR0_PE == 0;
    rule(
        !(s.cs.kind() == 3 || real) || s.ss.dpl() == 0,
        "SS: DPL is not 0 with a data segment in CS or in real mode",
    )
}

fn check_data(s: &GuestState, c: &Context<'_>) -> Result<(), BrokenRule> {
    let names = [common_names!("DS"), common_names!("ES"), common_names!("FS"), common_names!("GS")];
    for (segment, name) in [s.ds, s.es, s.fs, s.gs].into_iter().zip(names) {
        if !segment.usable() {
            continue;
        }
        rule(segment.kind() & 1 != 0, "DS, ES, FS or GS: not accessed")?;
        rule(
            segment.kind() & 8 == 0 || segment.kind() & 2 != 0,
            "DS, ES, FS or GS: code that is not readable",
        )?;
        let above = segment.dpl() >= segment.rpl();
        rule(c.unrestricted() || segment.kind() > 11 || above, "DS, ES, FS or GS: DPL below RPL")?;
        check_common(segment, name)?;
    }
    Ok(())
}

fn check_system_segments(s: &GuestState, c: &Context<'_>) -> Result<(), BrokenRule> {
    let tss = s.tr.kind() == 11 || s.tr.kind() == 3 && !c.ia32e();
    rule(tss, "TR: not a busy TSS of this mode")?;
    rule(!s.tr.code_or_data() && s.tr.present() && s.tr.usable(), "TR: not a present system segment")?;
    rule(s.tr.access & 0xfffe_0f00 == 0, "TR: a reserved bit of the access rights is 1")?;
    let agrees = |segment: Segment| {
        (segment.limit & 0xfff == 0xfff || !segment.granular())
            && (segment.limit >> 20 == 0 || segment.granular())
    };
    rule(agrees(s.tr), "TR: limit and granularity do not agree")?;
    if s.ldtr.usable() {
        rule(s.ldtr.kind() == 2 && !s.ldtr.code_or_data(), "LDTR: not an LDT")?;
        rule(s.ldtr.present(), "LDTR: not present")?;
        rule(s.ldtr.access & 0xfffe_0f00 == 0, "LDTR: a reserved bit of the access rights is 1")?;
        rule(agrees(s.ldtr), "LDTR: limit and granularity do not agree")?;
    }
    Ok(())
}

fn check_tables(s: &GuestState) -> Result<(), BrokenRule> {
    rule(canonical(s.gdtr.base), "GDTR: the base is not canonical")?;
    rule(canonical(s.idtr.base), "IDTR: the base is not canonical")?;
    rule(s.gdtr.limit >> 16 == 0, "GDTR: the limit is above FFFFh")?;
    rule(s.idtr.limit >> 16 == 0, "IDTR: the limit is above FFFFh")
}

fn check_rip_rflags(s: &GuestState, c: &Context<'_>) -> Result<(), BrokenRule> {
    const RESERVED: u64 = 0xffff_ffff_ffc0_8028;
    let in_64_bit_mode = c.ia32e() && s.cs.long();
    rule(in_64_bit_mode || s.rip >> 32 == 0, "RIP: a bit of the upper half is 1 outside 64-bit mode")?;
    rule(canonical(s.rip), "RIP is not canonical")?;
    rule(s.rflags & RESERVED == 0, "RFLAGS: a reserved bit is 1")?;
    rule(s.rflags & RFLAGS_FIXED != 0, "RFLAGS: bit 1 is 0")?;
    let real = s.cr0 & CR0_PE == 0;
    rule(s.rflags & RFLAGS_VM == 0 || !c.ia32e() && !real, "RFLAGS: VM is 1 in IA-32e mode or in real mode")?;
    let interrupt = c.event.is_some_and(|event| event.kind == EventKind::ExternalInterrupt);
    rule(!interrupt || s.rflags & RFLAGS_IF != 0, "an external interrupt is injected while RFLAGS.IF is 0")
}

fn check_activity(s: &GuestState, c: &Context<'_>) -> Result<(), BrokenRule> {
    let Some(activity) = Activity::from_word(s.activity) else {
        return Err(BrokenRule("activity state: a number that is not defined"));
    };
    let supported = match activity {
        Activity::Active => true,
        Activity::Halted => c.caps.misc.activity_hlt(),
        Activity::Shutdown => c.caps.misc.activity_shutdown(),
        Activity::WaitForSipi => c.caps.misc.activity_wait_for_sipi(),
    };
    rule(supported, "activity state: not supported by this processor")?;
    rule(activity != Activity::Halted || s.ss.dpl() == 0, "activity state: halted with SS.DPL other than 0")?;
    let shadow = s.interruptibility & (Interruptibility::STI | Interruptibility::MOV_SS) != 0;
    rule(
        !shadow || activity == Activity::Active,
        "activity state: not active in the shadow of STI or MOV SS",
    )?;
    let Some(event) = c.event else { return Ok(()) };
    let ready = crate::inject::Readiness {
        rflags: RFLAGS_IF,
        interruptibility: Interruptibility(0),
        activity,
        pending: false,
    };
    rule(ready.check(event).is_ok(), "activity state: does not take the event that is injected")
}

fn check_interruptibility(s: &GuestState, c: &Context<'_>) -> Result<(), BrokenRule> {
    let state = Interruptibility(s.interruptibility);
    rule(state.0 & !0x1f == 0, "interruptibility: a reserved bit is 1")?;
    rule(!(state.by_sti() && state.by_mov_ss()), "interruptibility: both STI and MOV SS block")?;
    rule(!state.by_sti() || s.rflags & RFLAGS_IF != 0, "interruptibility: STI blocks while RFLAGS.IF is 0")?;
    rule(state.0 & Interruptibility::SMI == 0, "interruptibility: SMI blocks outside SMM")?;
    let Some(event) = c.event else { return Ok(()) };
    let shadow = state.by_sti() || state.by_mov_ss();
    match event.kind {
        EventKind::ExternalInterrupt => {
            rule(!shadow, "an external interrupt is injected in the shadow of STI or MOV SS")
        }
        EventKind::Nmi => {
            rule(!shadow, "an NMI is injected in the shadow of STI or MOV SS")?;
            let virtual_nmis = c.controls.has(controls::VIRTUAL_NMIS);
            rule(!virtual_nmis || !state.by_nmi(), "an NMI is injected while NMIs are blocked")
        }
        _ => Ok(()),
    }
}

fn check_debug_and_link(s: &GuestState) -> Result<(), BrokenRule> {
    const PENDING_KNOWN: u64 = 0xf | 1 << 12 | 1 << 14 | 1 << 16;
    rule(
        s.pending_debug & !PENDING_KNOWN & !(1 << 11) == 0,
        "pending debug exceptions: a reserved bit is 1",
    )?;
    let shadow = s.interruptibility & (Interruptibility::STI | Interruptibility::MOV_SS) != 0;
    if shadow || s.activity == Activity::Halted as u32 {
        let stepping = s.rflags & RFLAGS_TF != 0 && s.debugctl & 2 == 0;
        rule(
            (s.pending_debug & 1 << 14 != 0) == stepping,
            "pending debug exceptions: BS does not agree with RFLAGS.TF and IA32_DEBUGCTL.BTF",
        )?;
    }
    rule(s.link_pointer == u64::MAX, "VMCS link pointer: not all ones")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorded;
    use crate::requirements;
    use crate::testing::FakeVmcs;

    fn check(state: &GuestState, event: Option<Event>) -> Result<(), BrokenRule> {
        let caps = recorded::SKYLAKE_X.capabilities();
        let mut controls = requirements::guest_controls(&caps).unwrap();
        if state.efer & EFER_LMA != 0 {
            controls.set(controls::IA32E_MODE_GUEST, &caps).unwrap();
        }
        let mut state = *state;
        state.cr4 |= CR4_VMXE;
        check_entry(&state, &Context { controls: &controls, caps: &caps, physical_bits: 46, event })
    }

    const REAL: GuestState = GuestState::real_mode(0x100, 0);
    const PROTECTED: GuestState = GuestState::protected_mode(0x8000, 0x9000);
    const LONG: GuestState = GuestState::long_mode(0x8000, 0x9000, 0x1000);

    #[test]
    fn the_initial_states_are_valid() {
        for state in [REAL, PROTECTED, LONG] {
            assert_eq!(check(&state, None), Ok(()));
        }
        assert_eq!((REAL.cs.base, REAL.cs.selector), (0x1000, 0x100));
    }

    /// Changes one thing and expects that one rule to be named.
    fn breaks(state: GuestState, change: fn(&mut GuestState), rule: &str) {
        let mut state = state;
        change(&mut state);
        assert_eq!(check(&state, None).map_err(|broken| broken.0), Err(rule));
    }

    #[test]
    fn broken_registers_are_named() {
        breaks(REAL, |s| s.cr0 &= !CR0_NE, "CR0: a bit that must be 1 in VMX operation is 0");
        breaks(REAL, |s| s.cr0 |= 1 << 40, "CR0: a bit that must be 0 in VMX operation is 1");
        breaks(REAL, |s| s.cr0 |= CR0_PG, "CR0: PG is 1 and PE is 0");
        breaks(LONG, |s| s.cr4 &= !CR4_PAE, "IA-32e mode guest without CR4.PAE");
        breaks(LONG, |s| s.cr0 &= !CR0_PG, "IA-32e mode guest without CR0.PG");
        breaks(PROTECTED, |s| s.cr4 |= CR4_PCIDE, "CR4: PCIDE is 1 outside IA-32e mode");
        breaks(PROTECTED, |s| s.cr4 |= 1 << 30, "CR4: a bit that must be 0 in VMX operation is 1");
        breaks(LONG, |s| s.cr3 = 1 << 46, "CR3: a bit beyond the physical-address width is 1");
        breaks(LONG, |s| s.dr7 |= 1 << 32, "DR7: a bit of the upper half is 1");
        breaks(LONG, |s| s.efer &= !EFER_LME, "IA32_EFER.LMA differs from LME while CR0.PG is 1");
        breaks(REAL, |s| s.efer |= 1 << 1, "IA32_EFER: a reserved bit is 1");
        breaks(REAL, |s| s.pat = 2, "IA32_PAT: an entry has a reserved memory type");
        breaks(REAL, |s| s.debugctl = 1 << 2, "IA32_DEBUGCTL: a reserved bit is 1");
        breaks(REAL, |s| s.rip = 1 << 32, "RIP: a bit of the upper half is 1 outside 64-bit mode");
        breaks(LONG, |s| s.rip = 1 << 47, "RIP is not canonical");
        breaks(REAL, |s| s.rflags = 0, "RFLAGS: bit 1 is 0");
        breaks(REAL, |s| s.rflags |= 8, "RFLAGS: a reserved bit is 1");
        breaks(LONG, |s| s.sysenter_eip = 1 << 50, "IA32_SYSENTER_EIP is not canonical");
    }

    #[test]
    fn broken_segments_are_named() {
        breaks(PROTECTED, |s| s.cs.access = 0xc092, "CS: not an accessed code segment");
        breaks(PROTECTED, |s| s.cs.access |= 0x60, "CS: non-conforming and its DPL differs from SS's");
        breaks(PROTECTED, |s| s.cs.access &= !0x80, "CS: not present");
        breaks(PROTECTED, |s| s.cs.access |= 0x100, "CS: a reserved bit of the access rights is 1");
        breaks(PROTECTED, |s| s.cs.limit = 0xffff_f000, "CS: limit and granularity do not agree");
        breaks(LONG, |s| s.cs.access |= 1 << 14, "CS: both L and D/B are 1");
        breaks(PROTECTED, |s| s.ss.access = 0xc09b, "SS: not an accessed writable data segment");
        breaks(REAL, |s| s.ss.access = 0xf3, "CS: non-conforming and its DPL differs from SS's");
        breaks(PROTECTED, |s| s.ds.access = 0xc092, "DS, ES, FS or GS: not accessed");
        breaks(PROTECTED, |s| s.gs.base = 1 << 50, "GS: the base is not canonical");
        breaks(PROTECTED, |s| s.es.base = 1 << 33, "DS or ES: a bit of the base's upper half is 1");
        breaks(REAL, |s| s.tr.access = 0x89, "TR: not a busy TSS of this mode");
        breaks(LONG, |s| s.tr.access = 0x83, "TR: not a busy TSS of this mode");
        breaks(REAL, |s| s.tr.selector = 4, "TR: the selector's TI is 1");
        breaks(REAL, |s| s.ldtr.access = 0x83, "LDTR: not an LDT");
        breaks(REAL, |s| s.gdtr.limit = 0x1_0000, "GDTR: the limit is above FFFFh");
        breaks(REAL, |s| s.idtr.base = 1 << 60, "IDTR: the base is not canonical");
        let mut unusable = PROTECTED;
        unusable.ds = Segment::unusable();
        unusable.ldtr = Segment::unusable();
        assert_eq!(check(&unusable, None), Ok(()));
    }

    #[test]
    fn virtual_8086_mode_has_its_own_rules() {
        let mut state = PROTECTED;
        state.rflags |= RFLAGS_VM;
        assert!(check(&state, None).is_err());
        let segment = Segment { selector: 0x100, base: 0x1000, limit: 0xffff, access: 0xf3 };
        (state.cs, state.ss, state.ds) = (segment, segment, segment);
        (state.es, state.fs, state.gs) = (segment, segment, segment);
        assert_eq!(check(&state, None), Ok(()));
        state.ds.base = 0;
        assert!(check(&state, None).unwrap_err().0.contains("virtual-8086"));
    }

    #[test]
    fn broken_non_register_state_is_named() {
        breaks(REAL, |s| s.activity = 4, "activity state: a number that is not defined");
        breaks(REAL, |s| s.interruptibility = 0x20, "interruptibility: a reserved bit is 1");
        breaks(REAL, |s| s.interruptibility = 3, "interruptibility: both STI and MOV SS block");
        breaks(REAL, |s| s.interruptibility = 1, "interruptibility: STI blocks while RFLAGS.IF is 0");
        breaks(REAL, |s| s.interruptibility = 4, "interruptibility: SMI blocks outside SMM");
        breaks(REAL, |s| s.link_pointer = 0, "VMCS link pointer: not all ones");
        breaks(REAL, |s| s.pending_debug = 1 << 13, "pending debug exceptions: a reserved bit is 1");
        breaks(
            REAL,
            |s| (s.interruptibility, s.activity) = (2, 1),
            "activity state: not active in the shadow of STI or MOV SS",
        );
        breaks(
            REAL,
            |s| (s.interruptibility, s.rflags) = (2, 0x102),
            "pending debug exceptions: BS does not agree with RFLAGS.TF and IA32_DEBUGCTL.BTF",
        );
    }

    #[test]
    fn injection_must_suit_the_state() {
        let interrupt = Some(Event::interrupt(0x20));
        assert!(check(&REAL, interrupt).unwrap_err().0.contains("RFLAGS.IF is 0"));
        let mut ready = REAL;
        ready.rflags |= RFLAGS_IF;
        assert_eq!(check(&ready, interrupt), Ok(()));
        ready.interruptibility = Interruptibility::STI;
        assert!(check(&ready, interrupt).unwrap_err().0.contains("shadow"));
        let mut in_nmi = REAL;
        in_nmi.interruptibility = Interruptibility::NMI;
        assert!(check(&in_nmi, Some(Event::nmi())).unwrap_err().0.contains("NMIs are blocked"));
        let mut halted = REAL;
        halted.activity = Activity::Halted as u32;
        assert!(check(&halted, Some(Event::invalid_opcode())).unwrap_err().0.contains("does not take"));
    }

    #[test]
    fn without_unrestricted_guest_real_mode_is_not_valid() {
        let caps = recorded::SKYLAKE_X.capabilities();
        let mut controls = requirements::guest_controls(&caps).unwrap();
        controls.clear(controls::UNRESTRICTED_GUEST, &caps).unwrap();
        let context = Context { controls: &controls, caps: &caps, physical_bits: 46, event: None };
        assert!(check_entry(&REAL, &context).unwrap_err().0.starts_with("CR0"));
    }

    #[test]
    fn a_stored_state_loads_back() {
        for state in [REAL, PROTECTED, LONG] {
            let mut vmcs = FakeVmcs::default();
            state.store(&mut vmcs, true);
            assert_eq!(GuestState::load(&vmcs, true), state);
        }
    }
}
