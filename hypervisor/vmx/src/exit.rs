//! A VM exit decoded once: exit reason and qualification become an enum of structs (SDM vol. 3C, "VM-Exit Information
//! Fields", appendix C). Nobody else looks at the bits.

use crate::fields::{self, VmcsRead};
use crate::inject::Event;
use core::fmt;

/// Why the guest left, with everything that belongs to that reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// An exception that the exception bitmap selects, or an NMI.
    Exception(Exception),
    /// An external interrupt; the vector is known when the exit acknowledged it.
    ExternalInterrupt {
        /// The acknowledged vector.
        vector: Option<u8>,
    },
    /// A triple fault.
    TripleFault,
    /// An INIT signal.
    Init,
    /// A start-up IPI in the wait-for-SIPI state.
    StartUp {
        /// The SIPI's vector.
        vector: u8,
    },
    /// An SMI after an I/O instruction.
    IoSmi,
    /// Another SMI.
    OtherSmi,
    /// The guest can take an interrupt now.
    InterruptWindow,
    /// The guest can take an NMI now.
    NmiWindow,
    /// A hardware task switch.
    TaskSwitch(TaskSwitch),
    /// CPUID.
    Cpuid,
    /// GETSEC.
    Getsec,
    /// HLT.
    Hlt,
    /// INVD.
    Invd,
    /// INVLPG.
    Invlpg {
        /// The operand, a guest-linear address.
        linear: u64,
    },
    /// RDPMC.
    Rdpmc,
    /// RDTSC.
    Rdtsc,
    /// RSM.
    Rsm,
    /// An instruction of VMX.
    Vmx(VmxInstruction),
    /// An access to CR0, CR3, CR4 or CR8.
    ControlRegister(CrAccess),
    /// MOV to or from a debug register.
    DebugRegister(DrAccess),
    /// IN, OUT, INS or OUTS.
    Io(IoAccess),
    /// RDMSR; ECX has the number.
    Rdmsr,
    /// WRMSR; ECX has the number.
    Wrmsr,
    /// The VM entry failed; the guest did not run.
    EntryFailure(EntryFailure),
    /// MWAIT.
    Mwait {
        /// Address-range monitoring was armed.
        armed: bool,
    },
    /// Monitor trap flag: one instruction, or one delivery, is done.
    MonitorTrapFlag,
    /// MONITOR.
    Monitor,
    /// PAUSE.
    Pause,
    /// TPR below its threshold.
    TprBelowThreshold,
    /// An access to the APIC-access page.
    ApicAccess(ApicAccess),
    /// An EOI that was virtualized.
    VirtualizedEoi {
        /// The vector.
        vector: u8,
    },
    /// LGDT, LIDT, SGDT or SIDT.
    GdtrIdtr,
    /// LLDT, LTR, SLDT or STR.
    LdtrTr,
    /// An EPT violation.
    EptViolation(EptViolation),
    /// An EPT entry that the processor does not accept: a bug of ours.
    EptMisconfiguration {
        /// The guest-physical address.
        guest_physical: u64,
    },
    /// RDTSCP.
    Rdtscp,
    /// The VMX-preemption timer reached zero.
    PreemptionTimer,
    /// WBINVD or WBNOINVD.
    Wbinvd,
    /// XSETBV.
    Xsetbv,
    /// A write to the virtual-APIC page that needs emulation.
    ApicWrite {
        /// Offset in the page.
        offset: u16,
    },
    /// RDRAND.
    Rdrand(RandomOperand),
    /// RDSEED.
    Rdseed(RandomOperand),
    /// INVPCID.
    Invpcid,
    /// ENCLS.
    Encls,
    /// ENCLV.
    Enclv,
    /// The page-modification log is full.
    PageModificationLogFull,
    /// XSAVES.
    Xsaves,
    /// XRSTORS.
    Xrstors,
    /// PCONFIG.
    Pconfig,
    /// A sub-page-permission event.
    SubPage,
    /// UMWAIT.
    Umwait,
    /// TPAUSE.
    Tpause,
    /// LOADIWKEY.
    Loadiwkey,
    /// The guest asserted a bus lock.
    BusLock,
    /// Too long without an instruction boundary.
    InstructionTimeout,
    /// A reason that has no name here; it is carried with its numbers.
    Unknown {
        /// The basic exit reason.
        reason: u16,
        /// The exit qualification.
        qualification: u64,
    },
}

/// Bits of the exit-reason field besides the basic reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason(pub u32);

impl Reason {
    /// The basic exit reason: an index into [`REASON_NAMES`].
    pub const fn basic(self) -> u16 {
        self.0 as u16
    }
    /// The exit is a failed VM entry.
    pub const fn entry_failed(self) -> bool {
        self.0 & 1 << 31 != 0
    }
    /// A monitor-trap-flag exit was pending (exits to the SMM monitor only).
    pub const fn pending_mtf(self) -> bool {
        self.0 & 1 << 28 != 0
    }
    /// The exit came out of an enclave.
    pub const fn from_enclave(self) -> bool {
        self.0 & 1 << 27 != 0
    }
}

/// Names of the basic exit reasons in the order of appendix C; "" where the number is not used.
pub const REASON_NAMES: [&str; 80] = [
    "exception-or-nmi",
    "external-interrupt",
    "triple-fault",
    "init",
    "sipi",
    "io-smi",
    "other-smi",
    "interrupt-window",
    "nmi-window",
    "task-switch",
    "cpuid",
    "getsec",
    "hlt",
    "invd",
    "invlpg",
    "rdpmc",
    "rdtsc",
    "rsm",
    "vmcall",
    "vmclear",
    "vmlaunch",
    "vmptrld",
    "vmptrst",
    "vmread",
    "vmresume",
    "vmwrite",
    "vmxoff",
    "vmxon",
    "cr-access",
    "mov-dr",
    "io",
    "rdmsr",
    "wrmsr",
    "entry-failure-guest-state",
    "entry-failure-msr-loading",
    "",
    "mwait",
    "monitor-trap-flag",
    "",
    "monitor",
    "pause",
    "entry-failure-machine-check",
    "",
    "tpr-below-threshold",
    "apic-access",
    "virtualized-eoi",
    "gdtr-idtr",
    "ldtr-tr",
    "ept-violation",
    "ept-misconfiguration",
    "invept",
    "rdtscp",
    "preemption-timer",
    "invvpid",
    "wbinvd",
    "xsetbv",
    "apic-write",
    "rdrand",
    "invpcid",
    "vmfunc",
    "encls",
    "rdseed",
    "pml-full",
    "xsaves",
    "xrstors",
    "pconfig",
    "spp",
    "umwait",
    "tpause",
    "loadiwkey",
    "enclv",
    "",
    "enqcmd-pasid",
    "enqcmds-pasid",
    "bus-lock",
    "instruction-timeout",
    "seamcall",
    "tdcall",
    "rdmsrlist",
    "wrmsrlist",
];

/// Exit reason 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Vector, kind and error code.
    pub event: Event,
    /// The exception came from an IRET that had unblocked NMIs ("NMI unblocking due to IRET"): before the guest goes on
    /// with that IRET, NMIs must be blocked again.
    pub nmi_unblocked: bool,
    /// #PF: the faulting linear address; #DB: what will be in DR6.
    pub qualification: u64,
}

/// Exit reason 9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskSwitch {
    /// The new task's TSS selector.
    pub selector: u16,
    /// What caused it.
    pub source: TaskSwitchSource,
}

/// What caused a task switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskSwitchSource {
    /// CALL.
    Call,
    /// IRET.
    Iret,
    /// JMP.
    Jump,
    /// A task gate in the IDT.
    Gate,
}

/// The instructions that exist for VMX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum VmxInstruction {
    Vmcall,
    Vmclear,
    Vmlaunch,
    Vmptrld,
    Vmptrst,
    Vmread,
    Vmresume,
    Vmwrite,
    Vmxoff,
    Vmxon,
    Invept,
    Invvpid,
    Vmfunc,
}

/// Exit reason 28.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrAccess {
    /// MOV to CR.
    Write {
        /// Which control register.
        register: u8,
        /// Index of the general register that has the value (0 is RAX, 4 RSP).
        from: u8,
    },
    /// MOV from CR.
    Read {
        /// Which control register.
        register: u8,
        /// Index of the general register that gets the value.
        to: u8,
    },
    /// CLTS.
    ClearTaskSwitched,
    /// LMSW.
    LoadMachineStatus {
        /// The operand.
        value: u16,
        /// The operand's guest-linear address, if it was in memory.
        memory: Option<u64>,
    },
}

/// Exit reason 29.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrAccess {
    /// Which debug register.
    pub register: u8,
    /// MOV to the debug register (otherwise from it).
    pub write: bool,
    /// Index of the general register.
    pub general: u8,
}

/// Which way an I/O instruction goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// IN, INS: from the port.
    In,
    /// OUT, OUTS: to the port.
    Out,
}

/// Exit reason 30.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoAccess {
    /// The port.
    pub port: u16,
    /// 1, 2 or 4 bytes.
    pub size: u8,
    /// Which way.
    pub direction: Direction,
    /// INS or OUTS.
    pub string: bool,
    /// With a REP prefix.
    pub rep: bool,
    /// The port is in the instruction, not in DX.
    pub immediate: bool,
}

/// Exit reasons 33, 34 and 41.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryFailure {
    /// The guest state is not valid.
    GuestState(GuestStateFailure),
    /// This entry (counted from 1) of the MSR-load list could not be loaded.
    MsrLoading(u64),
    /// A machine-check event.
    MachineCheck,
}

/// What the exit qualification says of an invalid guest state (SDM, "VM-Entry Failures During or After Loading Guest State").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestStateFailure {
    /// Not one of the below: [`crate::guest_state::check_entry`] finds it.
    Unnamed,
    /// A PDPTE is not valid.
    Pdpte,
    /// An NMI was to be injected while events are blocked by STI.
    NmiBlockedBySti,
    /// The VMCS link pointer is not valid.
    LinkPointer,
    /// A number that the SDM does not name.
    Other(u64),
}

/// Exit reason 44.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApicAccess {
    /// Offset in the page; meaningful for linear accesses.
    pub offset: u16,
    /// The access type (SDM, table "Exit Qualification for APIC-Access VM Exits"): 0 read, 1 write, 2 fetch, 3 delivery.
    pub access: u8,
}

/// Exit reason 48.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EptViolation {
    /// The guest-physical address.
    pub guest_physical: u64,
    /// The guest-linear address, where there is one.
    pub linear: Option<Linear>,
    /// The access was a data read.
    pub read: bool,
    /// The access was a data write, or one that sets accessed or dirty bits.
    pub write: bool,
    /// The access was an instruction fetch.
    pub fetch: bool,
    /// What the EPT entries allow: reading.
    pub readable: bool,
    /// What the EPT entries allow: writing.
    pub writable: bool,
    /// What the EPT entries allow: execution (in supervisor mode, with mode-based execute control).
    pub executable: bool,
    /// IRET had unblocked NMIs; see [`Exception::nmi_unblocked`].
    pub nmi_unblocked: bool,
    /// The violation came from something that was not part of the instruction (trace output, PEBS record).
    pub asynchronous: bool,
}

/// The linear address of an EPT violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linear {
    /// The guest-linear address.
    pub address: u64,
    /// What the access was for.
    pub access: LinearAccess,
}

/// What was accessed on behalf of a linear address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinearAccess {
    /// The address it translates to.
    Final,
    /// A paging-structure entry, to translate it or to update its accessed or dirty bit.
    PagingStructure,
}

/// Operand of RDRAND and RDSEED.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RandomOperand {
    /// Index of the general register.
    pub register: u8,
    /// 2, 4 or 8 bytes.
    pub size: u8,
}

impl Exit {
    /// Decodes the exit of the current VMCS. Reads only the fields that the reason makes meaningful.
    #[inline]
    pub fn decode(vmcs: &impl VmcsRead) -> Self {
        Self::decode_reason(Reason(vmcs.read(fields::EXIT_REASON)), vmcs)
    }

    /// As [`Exit::decode`], when the reason was read already.
    #[inline]
    pub fn decode_reason(reason: Reason, vmcs: &impl VmcsRead) -> Self {
        match reason.basic() {
            10 => Self::Cpuid,
            12 => Self::Hlt,
            16 => Self::Rdtsc,
            31 => Self::Rdmsr,
            32 => Self::Wrmsr,
            30 => Self::Io(IoAccess::of(vmcs)),
            37 => Self::MonitorTrapFlag,
            48 => Self::EptViolation(ept_violation(vmcs)),
            52 => Self::PreemptionTimer,
            1 => external_interrupt(vmcs.read(fields::EXIT_INTERRUPTION_INFO)),
            7 => Self::InterruptWindow,
            0 => exception(vmcs),
            basic => decode_rest(basic, vmcs),
        }
    }

    /// Whether the exit is an instruction that the guest has not executed and whose length the VMCS holds: one that is
    /// emulated by doing its work and skipping it.
    pub const fn is_instruction(&self) -> bool {
        matches!(
            self,
            Self::Cpuid
                | Self::Getsec
                | Self::Hlt
                | Self::Invd
                | Self::Invlpg { .. }
                | Self::Rdpmc
                | Self::Rdtsc
                | Self::Rdtscp
                | Self::Rsm
                | Self::Vmx(_)
                | Self::ControlRegister(_)
                | Self::DebugRegister(_)
                | Self::Io(_)
                | Self::Rdmsr
                | Self::Wrmsr
                | Self::Mwait { .. }
                | Self::Monitor
                | Self::Pause
                | Self::GdtrIdtr
                | Self::LdtrTr
                | Self::Wbinvd
                | Self::Xsetbv
                | Self::Rdrand(_)
                | Self::Rdseed(_)
                | Self::Invpcid
                | Self::Encls
                | Self::Enclv
                | Self::Xsaves
                | Self::Xrstors
                | Self::Pconfig
                | Self::Umwait
                | Self::Tpause
                | Self::Loadiwkey
        )
    }
}

/// The exits that are rare.
#[cold]
fn decode_rest(basic: u16, vmcs: &impl VmcsRead) -> Exit {
    let qualification = vmcs.read(fields::EXIT_QUALIFICATION);
    match basic {
        2 => Exit::TripleFault,
        3 => Exit::Init,
        4 => Exit::StartUp { vector: qualification as u8 },
        5 => Exit::IoSmi,
        6 => Exit::OtherSmi,
        8 => Exit::NmiWindow,
        9 => Exit::TaskSwitch(task_switch(qualification)),
        11 => Exit::Getsec,
        13 => Exit::Invd,
        14 => Exit::Invlpg { linear: qualification },
        15 => Exit::Rdpmc,
        17 => Exit::Rsm,
        18..=27 | 50 | 53 | 59 => Exit::Vmx(vmx_instruction(basic)),
        28 => Exit::ControlRegister(cr_access(qualification, vmcs)),
        29 => Exit::DebugRegister(dr_access(qualification)),
        33 | 34 | 41 => Exit::EntryFailure(entry_failure(basic, qualification)),
        36 => Exit::Mwait { armed: qualification & 1 != 0 },
        39 => Exit::Monitor,
        40 => Exit::Pause,
        43 => Exit::TprBelowThreshold,
        44 => Exit::ApicAccess(apic_access(qualification)),
        45 => Exit::VirtualizedEoi { vector: qualification as u8 },
        46 => Exit::GdtrIdtr,
        47 => Exit::LdtrTr,
        49 => Exit::EptMisconfiguration { guest_physical: vmcs.read(fields::GUEST_PHYSICAL_ADDRESS) },
        51 => Exit::Rdtscp,
        54 => Exit::Wbinvd,
        55 => Exit::Xsetbv,
        56 => Exit::ApicWrite { offset: qualification as u16 & 0xfff },
        57 => Exit::Rdrand(random_operand(vmcs.read(fields::EXIT_INSTRUCTION_INFO))),
        58 => Exit::Invpcid,
        60 => Exit::Encls,
        61 => Exit::Rdseed(random_operand(vmcs.read(fields::EXIT_INSTRUCTION_INFO))),
        62 => Exit::PageModificationLogFull,
        63 => Exit::Xsaves,
        64 => Exit::Xrstors,
        65 => Exit::Pconfig,
        66 => Exit::SubPage,
        67 => Exit::Umwait,
        68 => Exit::Tpause,
        69 => Exit::Loadiwkey,
        70 => Exit::Enclv,
        74 => Exit::BusLock,
        75 => Exit::InstructionTimeout,
        reason => Exit::Unknown { reason, qualification },
    }
}

const fn bits(value: u64, low: u32, count: u32) -> u64 {
    (value >> low) & ((1 << count) - 1)
}

const fn bit(value: u64, at: u32) -> bool {
    value & 1 << at != 0
}

fn exception(vmcs: &impl VmcsRead) -> Exit {
    let info = vmcs.read(fields::EXIT_INTERRUPTION_INFO);
    let error_code = || vmcs.read(fields::EXIT_INTERRUPTION_ERROR_CODE);
    let length = || vmcs.read(fields::EXIT_INSTRUCTION_LENGTH);
    match Event::from_words(info, error_code, length) {
        Some(event) => Exit::Exception(Exception {
            event,
            nmi_unblocked: info & 1 << 12 != 0,
            qualification: vmcs.read(fields::EXIT_QUALIFICATION),
        }),
        None => Exit::Unknown { reason: 0, qualification: u64::from(info) },
    }
}

const fn external_interrupt(info: u32) -> Exit {
    let vector = if info & 1 << 31 != 0 { Some(info as u8) } else { None };
    Exit::ExternalInterrupt { vector }
}

const fn task_switch(qualification: u64) -> TaskSwitch {
    let source = match bits(qualification, 30, 2) {
        0 => TaskSwitchSource::Call,
        1 => TaskSwitchSource::Iret,
        2 => TaskSwitchSource::Jump,
        _ => TaskSwitchSource::Gate,
    };
    TaskSwitch { selector: qualification as u16, source }
}

const fn vmx_instruction(basic: u16) -> VmxInstruction {
    match basic {
        18 => VmxInstruction::Vmcall,
        19 => VmxInstruction::Vmclear,
        20 => VmxInstruction::Vmlaunch,
        21 => VmxInstruction::Vmptrld,
        22 => VmxInstruction::Vmptrst,
        23 => VmxInstruction::Vmread,
        24 => VmxInstruction::Vmresume,
        25 => VmxInstruction::Vmwrite,
        26 => VmxInstruction::Vmxoff,
        27 => VmxInstruction::Vmxon,
        50 => VmxInstruction::Invept,
        53 => VmxInstruction::Invvpid,
        _ => VmxInstruction::Vmfunc,
    }
}

fn cr_access(qualification: u64, vmcs: &impl VmcsRead) -> CrAccess {
    let register = bits(qualification, 0, 4) as u8;
    let general = bits(qualification, 8, 4) as u8;
    match bits(qualification, 4, 2) {
        0 => CrAccess::Write { register, from: general },
        1 => CrAccess::Read { register, to: general },
        2 => CrAccess::ClearTaskSwitched,
        _ => CrAccess::LoadMachineStatus {
            value: bits(qualification, 16, 16) as u16,
            memory: bit(qualification, 6).then(|| vmcs.read(fields::GUEST_LINEAR_ADDRESS)),
        },
    }
}

const fn dr_access(qualification: u64) -> DrAccess {
    DrAccess {
        register: bits(qualification, 0, 3) as u8,
        write: !bit(qualification, 4),
        general: bits(qualification, 8, 4) as u8,
    }
}

impl IoAccess {
    /// Of an exit for an I/O instruction.
    #[inline(always)]
    pub fn of(vmcs: &impl VmcsRead) -> Self {
        io_access(vmcs.read(fields::EXIT_QUALIFICATION))
    }
}

#[inline(always)]
const fn io_access(qualification: u64) -> IoAccess {
    IoAccess {
        port: bits(qualification, 16, 16) as u16,
        size: bits(qualification, 0, 3) as u8 + 1,
        direction: if bit(qualification, 3) { Direction::In } else { Direction::Out },
        string: bit(qualification, 4),
        rep: bit(qualification, 5),
        immediate: bit(qualification, 6),
    }
}

const fn entry_failure(basic: u16, qualification: u64) -> EntryFailure {
    match (basic, qualification) {
        (34, entry) => EntryFailure::MsrLoading(entry),
        (41, _) => EntryFailure::MachineCheck,
        (_, 0) => EntryFailure::GuestState(GuestStateFailure::Unnamed),
        (_, 2) => EntryFailure::GuestState(GuestStateFailure::Pdpte),
        (_, 3) => EntryFailure::GuestState(GuestStateFailure::NmiBlockedBySti),
        (_, 4) => EntryFailure::GuestState(GuestStateFailure::LinkPointer),
        (_, other) => EntryFailure::GuestState(GuestStateFailure::Other(other)),
    }
}

const fn apic_access(qualification: u64) -> ApicAccess {
    ApicAccess { offset: bits(qualification, 0, 12) as u16, access: bits(qualification, 12, 4) as u8 }
}

impl EptViolation {
    /// Of an exit for an EPT violation: the guest-physical address that was written, where it is nothing but an instruction's
    /// own write, by way of a linear address, and the exit has interrupted no delivery and says nothing of NMIs.
    #[inline(always)]
    pub fn plain_write(vmcs: &impl VmcsRead) -> Option<u64> {
        const DELIVERING: u32 = 1 << 31;
        const WRITE_BY_LINEAR: u64 = 1 << 1 | 1 << 7 | 1 << 8;
        const UNUSUAL: u64 = 1 << 12 | 1 << 16;
        let plain = vmcs.read(fields::EXIT_QUALIFICATION) & (WRITE_BY_LINEAR | UNUSUAL) == WRITE_BY_LINEAR
            && vmcs.read(fields::IDT_VECTORING_INFO) & DELIVERING == 0;
        plain.then(|| vmcs.read(fields::GUEST_PHYSICAL_ADDRESS))
    }

    /// Of an exit for an EPT violation.
    #[inline(always)]
    pub fn of(vmcs: &impl VmcsRead) -> Self {
        ept_violation(vmcs)
    }
}

#[inline(always)]
fn ept_violation(vmcs: &impl VmcsRead) -> EptViolation {
    let qualification = vmcs.read(fields::EXIT_QUALIFICATION);
    let access = if bit(qualification, 8) { LinearAccess::Final } else { LinearAccess::PagingStructure };
    let linear =
        bit(qualification, 7).then(|| Linear { address: vmcs.read(fields::GUEST_LINEAR_ADDRESS), access });
    EptViolation {
        guest_physical: vmcs.read(fields::GUEST_PHYSICAL_ADDRESS),
        linear,
        read: bit(qualification, 0),
        write: bit(qualification, 1),
        fetch: bit(qualification, 2),
        readable: bit(qualification, 3),
        writable: bit(qualification, 4),
        executable: bit(qualification, 5),
        nmi_unblocked: bit(qualification, 12),
        asynchronous: bit(qualification, 16),
    }
}

const fn random_operand(info: u32) -> RandomOperand {
    let size = match (info >> 11) & 3 {
        0 => 2,
        1 => 4,
        _ => 8,
    };
    RandomOperand { register: ((info >> 3) & 15) as u8, size }
}

/// The name of a basic exit reason, or "unknown".
pub fn reason_name(basic: u16) -> &'static str {
    REASON_NAMES.get(usize::from(basic)).copied().filter(|name| !name.is_empty()).unwrap_or("unknown")
}

impl fmt::Display for EntryFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GuestState(GuestStateFailure::Pdpte) => f.write_str("a PDPTE is not valid"),
            Self::GuestState(GuestStateFailure::NmiBlockedBySti) => {
                f.write_str("an NMI is to be injected while STI blocks events")
            }
            Self::GuestState(GuestStateFailure::LinkPointer) => {
                f.write_str("the VMCS link pointer is not valid")
            }
            Self::GuestState(GuestStateFailure::Unnamed) => f.write_str("the guest state is not valid"),
            Self::GuestState(GuestStateFailure::Other(number)) => {
                write!(f, "the guest state is not valid (qualification {number})")
            }
            Self::MsrLoading(entry) => write!(f, "entry {entry} of the MSR-load list cannot be loaded"),
            Self::MachineCheck => f.write_str("a machine check"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inject::EventKind;
    use crate::testing::FakeVmcs;

    /// A VMCS after an exit of this reason and qualification; the other fields hold tell-tale values.
    fn exited(reason: u32, qualification: u64) -> FakeVmcs {
        let mut vmcs = FakeVmcs::default();
        vmcs.set(fields::EXIT_REASON.encoding(), u64::from(reason));
        vmcs.set(fields::EXIT_QUALIFICATION.encoding(), qualification);
        vmcs.set(fields::GUEST_PHYSICAL_ADDRESS.encoding(), 0x1_2345_6000);
        vmcs.set(fields::GUEST_LINEAR_ADDRESS.encoding(), 0xffff_8000_0000_1000);
        vmcs
    }

    fn decode(reason: u32, qualification: u64) -> Exit {
        Exit::decode(&exited(reason, qualification))
    }

    #[test]
    fn plain_reasons() {
        let table = [
            (2, Exit::TripleFault),
            (3, Exit::Init),
            (7, Exit::InterruptWindow),
            (8, Exit::NmiWindow),
            (10, Exit::Cpuid),
            (11, Exit::Getsec),
            (12, Exit::Hlt),
            (13, Exit::Invd),
            (15, Exit::Rdpmc),
            (16, Exit::Rdtsc),
            (17, Exit::Rsm),
            (18, Exit::Vmx(VmxInstruction::Vmcall)),
            (27, Exit::Vmx(VmxInstruction::Vmxon)),
            (31, Exit::Rdmsr),
            (32, Exit::Wrmsr),
            (37, Exit::MonitorTrapFlag),
            (39, Exit::Monitor),
            (40, Exit::Pause),
            (46, Exit::GdtrIdtr),
            (47, Exit::LdtrTr),
            (50, Exit::Vmx(VmxInstruction::Invept)),
            (51, Exit::Rdtscp),
            (52, Exit::PreemptionTimer),
            (53, Exit::Vmx(VmxInstruction::Invvpid)),
            (54, Exit::Wbinvd),
            (55, Exit::Xsetbv),
            (58, Exit::Invpcid),
            (59, Exit::Vmx(VmxInstruction::Vmfunc)),
            (62, Exit::PageModificationLogFull),
            (63, Exit::Xsaves),
            (64, Exit::Xrstors),
            (67, Exit::Umwait),
            (68, Exit::Tpause),
            (74, Exit::BusLock),
            (75, Exit::InstructionTimeout),
        ];
        for (reason, exit) in table {
            assert_eq!(decode(reason, 0), exit, "{}", reason_name(reason as u16));
            assert_ne!(reason_name(reason as u16), "unknown");
        }
    }

    #[test]
    fn io_qualifications() {
        let table = [
            // OUT DX, AL to 3F8h
            (0x03f8_0000, 0x3f8, 1, Direction::Out, false, false, false),
            // IN AL, 60h
            (0x0060_0048, 0x60, 1, Direction::In, false, false, true),
            // OUT DX, EAX to CF8h
            (0x0cf8_0003, 0xcf8, 4, Direction::Out, false, false, false),
            // REP INSW from 1F0h
            (0x01f0_0039, 0x1f0, 2, Direction::In, true, true, false),
            // OUTSB to FFFFh
            (0xffff_0010, 0xffff, 1, Direction::Out, true, false, false),
        ];
        for (raw, port, size, direction, string, rep, immediate) in table {
            let expected = IoAccess { port, size, direction, string, rep, immediate };
            assert_eq!(decode(30, raw), Exit::Io(expected), "{raw:#x}");
        }
    }

    #[test]
    fn control_register_qualifications() {
        use CrAccess::*;
        let table = [
            (0x000, Write { register: 0, from: 0 }),
            (0x303, Write { register: 3, from: 3 }),
            (0xf04, Write { register: 4, from: 15 }),
            (0x718, Read { register: 8, to: 7 }),
            (0x020, ClearTaskSwitched),
            (0x0001_0030, LoadMachineStatus { value: 1, memory: None }),
            (0xfff0_0070, LoadMachineStatus { value: 0xfff0, memory: Some(0xffff_8000_0000_1000) }),
        ];
        for (raw, expected) in table {
            assert_eq!(decode(28, raw), Exit::ControlRegister(expected), "{raw:#x}");
        }
    }

    #[test]
    fn debug_register_qualifications() {
        assert_eq!(decode(29, 0x107), Exit::DebugRegister(DrAccess { register: 7, write: true, general: 1 }));
        assert_eq!(
            decode(29, 0x816),
            Exit::DebugRegister(DrAccess { register: 6, write: false, general: 8 })
        );
    }

    #[test]
    fn ept_violation_qualifications() {
        let Exit::EptViolation(v) = decode(48, 0x181 | 1 << 12) else { panic!() };
        assert!(v.read && !v.write && !v.fetch && !v.readable && !v.writable && !v.executable);
        assert!(v.nmi_unblocked && !v.asynchronous);
        assert_eq!(v.guest_physical, 0x1_2345_6000);
        assert_eq!(v.linear, Some(Linear { address: 0xffff_8000_0000_1000, access: LinearAccess::Final }));

        let Exit::EptViolation(walk) = decode(48, 0x2 | 1 << 3 | 1 << 5 | 1 << 7) else { panic!() };
        assert!(walk.write && walk.readable && !walk.writable && walk.executable);
        assert_eq!(walk.linear.unwrap().access, LinearAccess::PagingStructure);

        let Exit::EptViolation(bare) = decode(48, 0x4 | 1 << 16) else { panic!() };
        assert!(bare.fetch && bare.asynchronous && bare.linear.is_none());

        let plain = |qualification| {
            let mut vmcs = exited(48, qualification);
            vmcs.set(fields::IDT_VECTORING_INFO.encoding(), 0);
            EptViolation::plain_write(&vmcs)
        };
        assert_eq!(plain(0x182), Some(0x1_2345_6000));
        assert_eq!(plain(0x1aa), Some(0x1_2345_6000), "what the page may be used for does not matter");
        for other in [0x181, 0x184, 0x82, 0x102, 0x182 | 1 << 12, 0x182 | 1 << 16] {
            assert_eq!(plain(other), None, "{other:#x}");
        }
        let mut delivering = exited(48, 0x182);
        delivering.set(fields::IDT_VECTORING_INFO.encoding(), 0x8000_0020);
        assert_eq!(EptViolation::plain_write(&delivering), None);

        assert_eq!(decode(49, 0), Exit::EptMisconfiguration { guest_physical: 0x1_2345_6000 });
    }

    fn exception_exit(info: u32, error_code: u32, qualification: u64) -> Exit {
        let mut vmcs = exited(0, qualification);
        vmcs.set(fields::EXIT_INTERRUPTION_INFO.encoding(), u64::from(info));
        vmcs.set(fields::EXIT_INTERRUPTION_ERROR_CODE.encoding(), u64::from(error_code));
        vmcs.set(fields::EXIT_INSTRUCTION_LENGTH.encoding(), 1);
        Exit::decode(&vmcs)
    }

    #[test]
    fn exceptions() {
        let Exit::Exception(page_fault) = exception_exit(0x8000_0b0e, 7, 0x1234) else { panic!() };
        assert_eq!((page_fault.event.vector, page_fault.event.kind), (14, EventKind::HardwareException));
        assert_eq!(page_fault.event.error_code, Some(7));
        assert_eq!((page_fault.qualification, page_fault.nmi_unblocked), (0x1234, false));

        let Exit::Exception(nmi) = exception_exit(0x8000_0202, 0, 0) else { panic!() };
        assert_eq!((nmi.event.vector, nmi.event.kind, nmi.event.error_code), (2, EventKind::Nmi, None));

        let Exit::Exception(breakpoint) = exception_exit(0x8000_0603, 0, 0) else { panic!() };
        assert_eq!((breakpoint.event.kind, breakpoint.event.length), (EventKind::SoftwareException, 1));

        let Exit::Exception(in_iret) = exception_exit(0x8000_1b0d, 0x10, 0) else { panic!() };
        assert!(in_iret.nmi_unblocked);
    }

    #[test]
    fn external_interrupts_with_and_without_acknowledgement() {
        let mut vmcs = exited(1, 0);
        vmcs.set(fields::EXIT_INTERRUPTION_INFO.encoding(), 0x8000_00f0);
        assert_eq!(Exit::decode(&vmcs), Exit::ExternalInterrupt { vector: Some(0xf0) });
        vmcs.set(fields::EXIT_INTERRUPTION_INFO.encoding(), 0);
        assert_eq!(Exit::decode(&vmcs), Exit::ExternalInterrupt { vector: None });
    }

    #[test]
    fn entry_failures() {
        use EntryFailure::*;
        let table = [
            (33, 0, GuestState(GuestStateFailure::Unnamed)),
            (33, 2, GuestState(GuestStateFailure::Pdpte)),
            (33, 3, GuestState(GuestStateFailure::NmiBlockedBySti)),
            (33, 4, GuestState(GuestStateFailure::LinkPointer)),
            (33, 9, GuestState(GuestStateFailure::Other(9))),
            (34, 5, MsrLoading(5)),
            (41, 0, MachineCheck),
        ];
        for (reason, qualification, expected) in table {
            let raw = reason | 1 << 31;
            assert!(Reason(raw).entry_failed());
            assert_eq!(decode(raw, qualification), Exit::EntryFailure(expected));
        }
    }

    #[test]
    fn other_qualifications() {
        assert_eq!(
            decode(9, 0xc000_0028),
            Exit::TaskSwitch(TaskSwitch { selector: 0x28, source: TaskSwitchSource::Gate })
        );
        assert_eq!(decode(14, 0xdead_b000), Exit::Invlpg { linear: 0xdead_b000 });
        assert_eq!(decode(36, 1), Exit::Mwait { armed: true });
        assert_eq!(decode(4, 0x9a), Exit::StartUp { vector: 0x9a });
        assert_eq!(decode(44, 0x1300), Exit::ApicAccess(ApicAccess { offset: 0x300, access: 1 }));
        assert_eq!(decode(56, 0x390), Exit::ApicWrite { offset: 0x390 });
        for (info, register, size) in [(0, 0, 2), (0x800 | 5 << 3, 5, 4), (0x1000 | 15 << 3, 15, 8)] {
            let mut vmcs = exited(57, 0);
            vmcs.set(fields::EXIT_INSTRUCTION_INFO.encoding(), info);
            assert_eq!(Exit::decode(&vmcs), Exit::Rdrand(RandomOperand { register, size }));
        }
    }

    #[test]
    fn an_unknown_reason_keeps_its_numbers() {
        for reason in [35, 38, 42, 71, 79, 200, 0xffff] {
            assert_eq!(
                decode(reason, 0x77),
                Exit::Unknown { reason: reason as u16, qualification: 0x77 },
                "{reason}"
            );
        }
        assert_eq!(reason_name(35), "unknown");
        assert_eq!(reason_name(0xffff), "unknown");
    }

    #[test]
    fn only_instructions_are_skipped() {
        for reason in [10, 12, 13, 14, 16, 18, 28, 29, 30, 31, 32, 51, 54, 55, 57] {
            assert!(decode_any(reason).is_instruction(), "{}", reason_name(reason as u16));
        }
        for reason in [2, 7, 8, 9, 37, 48, 49, 52, 62] {
            assert!(!decode_any(reason).is_instruction(), "{}", reason_name(reason as u16));
        }
    }

    fn decode_any(reason: u32) -> Exit {
        let mut vmcs = exited(reason, 0);
        vmcs.set(fields::EXIT_INSTRUCTION_INFO.encoding(), 0);
        Exit::decode(&vmcs)
    }
}
