//! The loop of a virtual processor: enter -> decode -> handle -> verdict. Handlers compute and return; only the loop enters
//! the guest or stops it, and nothing here prints or allocates.

use crate::arch::idt::{self, Frame};
use crate::arch::vmenter::Registers;
use crate::arch::vmx as processor;
use crate::vmm::{control_registers, debug_registers, setup};
use core::fmt;
use machine::emulate::Text;
use vmx::errors::VmFail;
use vmx::exit::{
    CrAccess, Direction, EntryFailure, EptViolation, Exception, Exit, IoAccess, RandomOperand, Reason,
    VmxInstruction,
};
use vmx::fields::{self, VmcsRead, VmcsWrite};
use vmx::guest_state::{BrokenRule, bits};
use vmx::inject::{self, Event, EventKind};

pub use crate::vmm::virtual_processor::{Active, Vcpu};
pub use machine::cpu::CpuView;

/// IA32_EFER.
const EFER: u32 = 0xc000_0080;
/// IA32_DEBUGCTL.
const DEBUGCTL: u32 = 0x1d9;
/// Of IA32_DEBUGCTL, what a guest may set: BTF, single-step on branches.
const DEBUGCTL_WRITABLE: u64 = 1 << 1;
/// RFLAGS.RF.
const RFLAGS_RF: u64 = 1 << 16;

/// Gives the host what an exit has brought for it: the acknowledged external interrupt to its handler, the NMI to the
/// NMI handler. Returns whether it was the host's.
pub fn serve_host(exit: &Exit) -> bool {
    match exit {
        Exit::ExternalInterrupt { vector: Some(vector) } => {
            idt::dispatch(&mut Frame { vector: u64::from(*vector), ..Frame::default() });
        }
        Exit::Exception(exception) if exception.event.kind == EventKind::Nmi => processor::deliver_nmi(),
        _ => return false,
    }
    true
}

/// Whether every execution of the guest has this exit at the same place, as far as the exit itself tells: an instruction that
/// is emulated, a window that opens. The others are the host's alone, and EPT violations that touch device memory are for the
/// machine to tell from those that do not.
#[inline]
pub fn is_synchronous(on: &Active<'_>, exit: &Exit) -> bool {
    match exit {
        Exit::ExternalInterrupt { .. }
        | Exit::MonitorTrapFlag
        | Exit::PreemptionTimer
        | Exit::EptViolation(_)
        | Exit::EptMisconfiguration { .. }
        | Exit::Init
        | Exit::StartUp { .. }
        | Exit::IoSmi
        | Exit::OtherSmi
        | Exit::EntryFailure(_) => false,
        // Loads of CR3 exit only where the host wants to know of them.
        Exit::ControlRegister(access) => !matches!(access, CrAccess::Write { register: 3, .. }),
        // Faults exit only where some of them are the host's, or it looks closely; NMIs are.
        Exit::Exception(exception) => match exception.event.kind {
            EventKind::Nmi => false,
            _ => {
                setup::INTERCEPTED & 1 << (exception.event.vector & 31) != 0
                    && !on.is_own_breakpoint(exception)
            }
        },
        _ => true,
    }
}

/// Basic exit reasons of the instructions for which a guest exits most (SDM vol. 3D, appendix C). They are dealt with without
/// making an [`Exit`] of them. None of the instructions can interrupt the delivery of an event.
mod frequent {
    pub const CPUID: u32 = 10;
    pub const RDTSC: u32 = 16;
    pub const IO: u32 = 30;
    pub const RDMSR: u32 = 31;
    pub const WRMSR: u32 = 32;
    pub const RDTSCP: u32 = 51;
    /// The one among them that is no instruction's: see [`super::Machine::written_first`].
    pub const EPT_VIOLATION: u32 = 48;
}

/// What a handler decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on where the guest is.
    Resume,
    /// Go on after the instruction that exited.
    Skip,
    /// Stop the guest.
    Stop(Stop),
}

/// Why a guest stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It halted.
    Halted,
    /// A triple fault.
    TripleFault,
    /// It touched guest-physical memory that it does not have.
    OutsideMemory(EptViolation),
    /// It ran longer than it may.
    TimeUp,
    /// The processor found its state invalid; the broken rule, where our own check finds it.
    InvalidState(EntryFailure, Option<BrokenRule>),
    /// The VM entry failed.
    EntryRefused(VmFail),
    /// The host's processor has had a machine check.
    MachineCheck,
    /// A hardware task switch.
    TaskSwitch,
    /// An EPT entry that the processor does not accept, for this guest-physical address: our bug.
    EptMisconfiguration(u64),
    /// An instruction that accesses a device, which the emulator does not know: what, and where with its bytes.
    NotEmulated(&'static str, Text),
    /// The machine refused an emulated access of this guest-physical address.
    Refused(u64, Text),
    /// It did what this machine does not emulate.
    Unsupported(Exit),
    /// The machine's own reason, one word.
    Named(&'static str),
}

impl Stop {
    /// One word.
    pub const fn key(&self) -> &'static str {
        match self {
            Self::Halted => "halted",
            Self::TripleFault => "triple-fault",
            Self::OutsideMemory(_) => "outside-memory",
            Self::TimeUp => "time-up",
            Self::InvalidState(..) => "invalid-state",
            Self::EntryRefused(_) => "entry-refused",
            Self::MachineCheck => "machine-check",
            Self::TaskSwitch => "task-switch",
            Self::EptMisconfiguration(_) => "ept-misconfiguration",
            Self::NotEmulated(..) => "not-emulated",
            Self::Refused(..) => "refused-access",
            Self::Unsupported(_) => "unsupported",
            Self::Named(word) => word,
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Halted => f.write_str("halted"),
            Self::TripleFault => f.write_str("triple fault"),
            Self::OutsideMemory(v) => write!(f, "access to {:#x}, where it has no memory", v.guest_physical),
            Self::TimeUp => f.write_str("ran longer than it may"),
            Self::InvalidState(_, Some(rule)) => write!(f, "invalid guest state: {rule}"),
            Self::InvalidState(failure, None) => write!(f, "invalid guest state: {failure}"),
            Self::EntryRefused(error) => write!(f, "VM entry: {error}"),
            Self::MachineCheck => f.write_str("a machine check of the host's processor"),
            Self::TaskSwitch => f.write_str("a task switch by hardware, which is not emulated"),
            Self::EptMisconfiguration(guest) => {
                write!(f, "EPT entry for {guest:#x} not accepted by the processor")
            }
            Self::NotEmulated(what, text) => {
                write!(f, "{what} at RIP {:#x} accesses a device: bytes {:02x?}", text.rip, bytes(text))
            }
            Self::Refused(address, text) => write!(
                f,
                "access to {address:#x} by the instruction at RIP {:#x}: bytes {:02x?}",
                text.rip,
                bytes(text)
            ),
            Self::Unsupported(exit) => write!(f, "not emulated: {exit:x?}"),
            Self::Named(word) => f.write_str(word),
        }
    }
}

/// The bytes of an instruction, as far as they were fetched.
fn bytes(text: &Text) -> &[u8] {
    text.bytes.get(..text.length.into()).unwrap_or(&text.bytes)
}

/// The computer around the virtual processor, as far as the loop asks for it. Nothing here may allocate: all of it runs
/// between an exit and the next entry.
pub trait Machine {
    /// Comes right before every entry: the place to inject what is due. Anything but [`Verdict::Stop`] enters.
    #[inline]
    fn prepare(&mut self, on: &mut Active<'_>) -> Verdict {
        let _ = on;
        Verdict::Resume
    }
    /// Comes right after every exit, before it is dealt with, but for those of [`Machine::instruction_exited`].
    #[inline]
    fn exited(&mut self, on: &mut Active<'_>, exit: &Exit) {
        let _ = (on, exit);
    }
    /// Comes right after an exit for CPUID, RDTSC, RDMSR, WRMSR, IN, OUT, INS or OUTS, before it is dealt with.
    #[inline]
    fn instruction_exited(&mut self, on: &mut Active<'_>) {
        let _ = on;
    }
    /// An instruction of the guest has tried to write to this guest-physical address, which EPT does not let it. True: now it does,
    /// and nothing else is to be done before it is entered again, [`Machine::prepare`] included. False: this is an exit
    /// like others.
    #[inline]
    fn written_first(&mut self, on: &Active<'_>, guest: u64) -> bool {
        let _ = (on, guest);
        false
    }
    /// CPUID: EAX, EBX, ECX, EDX. `view` has what the answer depends on besides the leaf.
    fn cpuid(&mut self, leaf: u32, sub: u32, view: CpuView) -> [u32; 4];
    /// IN; `size` is 1, 2 or 4 bytes.
    fn read_port(&mut self, port: u16, size: u8) -> u32;
    /// OUT; `size` is 1, 2 or 4 bytes.
    fn write_port(&mut self, port: u16, size: u8, value: u32);
    /// INS and OUTS. The machine does the whole instruction, or one iteration and [`Verdict::Resume`].
    fn string_io(&mut self, on: &mut Active<'_>, access: IoAccess) -> Verdict;
    /// RDMSR; None: #GP.
    fn read_msr(&mut self, number: u32) -> Option<u64>;
    /// WRMSR; false: #GP.
    fn write_msr(&mut self, number: u32, value: u64) -> bool;
    /// The time-stamp counter.
    fn time_stamp(&mut self) -> u64;
    /// What RDRAND and RDSEED return.
    fn random(&mut self) -> u64;
    /// CR8: the task priority, 0 to 15.
    fn task_priority(&mut self) -> u8;
    /// MOV to CR8, 0 to 15.
    fn set_task_priority(&mut self, priority: u8);
    /// Reads guest-physical memory; false where there is none.
    fn read_memory(&mut self, guest: u64, bytes: &mut [u8]) -> bool;
    /// HLT. [`Verdict::Skip`] goes on behind it.
    fn halted(&mut self, on: &mut Active<'_>) -> Verdict;
    /// An EPT violation.
    fn ept_violation(&mut self, on: &mut Active<'_>, violation: &EptViolation) -> Verdict;
    /// An EPT entry that the processor does not accept. Such entries mark nothing here, so by default it is our bug.
    fn ept_misconfiguration(&mut self, on: &mut Active<'_>, guest_physical: u64) -> Verdict {
        let _ = on;
        Verdict::Stop(Stop::EptMisconfiguration(guest_physical))
    }
    /// CR0, CR3 or CR4 was written, as far as that exits. `loaded` is what CR3 was loaded with.
    fn paging_changed(&mut self, on: &mut Active<'_>, loaded: Option<u64>) {
        let _ = (on, loaded);
    }
    /// A page fault that exited: the linear address, the error code. None: it is the guest's.
    fn page_fault(&mut self, on: &mut Active<'_>, linear: u64, code: u32) -> Option<Verdict> {
        let _ = (on, linear, code);
        None
    }
    /// Something came for the host (and was served), or the preemption timer, the trap flag or a window that the machine
    /// has asked for.
    fn host_event(&mut self, on: &mut Active<'_>, exit: &Exit) -> Verdict;
    /// VMCALL. By default there is no such instruction.
    fn vmcall(&mut self, on: &mut Active<'_>) -> Verdict {
        fault(on, Event::invalid_opcode())
    }
    /// A triple fault: the guest's processor has shut down.
    fn triple_fault(&mut self) -> Verdict {
        Verdict::Stop(Stop::TripleFault)
    }
}

/// Runs the guest until it stops.
pub fn run<M: Machine>(on: &mut Active<'_>, machine: &mut M) -> Stop {
    loop {
        if let Verdict::Stop(reason) = machine.prepare(on) {
            return reason;
        }
        let reason = loop {
            match on.enter_undecoded() {
                Ok(reason) if reason.0 == frequent::EPT_VIOLATION && written_first(on, machine) => {}
                Ok(reason) => break reason,
                Err(error) => return Stop::EntryRefused(error),
            }
        };
        // All of the word: an exit of these with any other bit in it is none of the usual ones.
        let verdict = match reason.0 {
            frequent::CPUID => {
                machine.instruction_exited(on);
                cpuid(on, machine)
            }
            frequent::RDTSC => {
                machine.instruction_exited(on);
                time_stamp(on, machine)
            }
            frequent::RDTSCP => {
                machine.instruction_exited(on);
                time_stamp_and_processor(on, machine)
            }
            frequent::IO => {
                machine.instruction_exited(on);
                let access = IoAccess::of(on.vmcs());
                io(on, machine, access)
            }
            frequent::RDMSR => {
                machine.instruction_exited(on);
                read_msr(on, machine)
            }
            frequent::WRMSR => {
                machine.instruction_exited(on);
                write_msr(on, machine)
            }
            frequent::EPT_VIOLATION => ept_violation(on, machine),
            _ => other(on, machine, reason),
        };
        match verdict {
            Verdict::Resume => {}
            Verdict::Skip => on.skip_instruction(),
            Verdict::Stop(Stop::TripleFault) => {
                if let Verdict::Stop(reason) = machine.triple_fault() {
                    return reason;
                }
            }
            Verdict::Stop(reason) => return reason,
        }
    }
}

/// Whether an EPT violation is dealt with: see [`Machine::written_first`].
#[inline(always)]
fn written_first<M: Machine>(on: &Active<'_>, machine: &mut M) -> bool {
    EptViolation::plain_write(on.vmcs()).is_some_and(|guest| machine.written_first(on, guest))
}

#[inline(never)]
fn ept_violation<M: Machine>(on: &mut Active<'_>, machine: &mut M) -> Verdict {
    let violation = on.ept_violation();
    machine.exited(on, &Exit::EptViolation(violation));
    machine.ept_violation(on, &violation)
}

/// The exits that are less frequent, or not an instruction's.
#[inline(never)]
fn other<M: Machine>(on: &mut Active<'_>, machine: &mut M, reason: Reason) -> Verdict {
    let exit = on.decode(reason);
    machine.exited(on, &exit);
    handle(on, machine, &exit)
}

#[inline(always)]
fn handle<M: Machine>(on: &mut Active<'_>, machine: &mut M, exit: &Exit) -> Verdict {
    match *exit {
        Exit::Rdtscp => time_stamp_and_processor(on, machine),
        Exit::Rdrand(operand) | Exit::Rdseed(operand) => random(on, machine, operand),
        Exit::ControlRegister(access) => control_registers::access(on, machine, access),
        Exit::Hlt => machine.halted(on),
        Exit::EptMisconfiguration { guest_physical } => machine.ept_misconfiguration(on, guest_physical),
        Exit::ExternalInterrupt { .. } => {
            serve_host(exit);
            machine.host_event(on, exit)
        }
        Exit::Exception(exception) => match serve_host(exit) {
            true => machine.host_event(on, exit),
            false if on.is_own_breakpoint(&exception) => machine.host_event(on, exit),
            false => match page_fault(on, machine, &exception) {
                Some(verdict) => verdict,
                None => exception_of_guest(on, exception),
            },
        },
        Exit::MonitorTrapFlag | Exit::PreemptionTimer | Exit::InterruptWindow | Exit::NmiWindow => {
            machine.host_event(on, exit)
        }
        Exit::TripleFault => Verdict::Stop(Stop::TripleFault),
        Exit::Invd | Exit::Wbinvd | Exit::Pause => Verdict::Skip,
        Exit::Xsetbv => control_registers::xsetbv(on),
        Exit::DebugRegister(access) => debug_registers::access(on, access),
        Exit::Rdpmc => fault(on, Event::general_protection()),
        Exit::Vmx(VmxInstruction::Vmcall) => machine.vmcall(on),
        other => rest(on, machine, other),
    }
}

/// What no well-meaning guest does.
#[cold]
fn rest<M: Machine>(on: &mut Active<'_>, machine: &mut M, exit: Exit) -> Verdict {
    match exit {
        Exit::Vmx(_)
        | Exit::Getsec
        | Exit::Monitor
        | Exit::Mwait { .. }
        | Exit::Encls
        | Exit::Enclv
        | Exit::Invpcid
        | Exit::Rsm
        | Exit::Umwait
        | Exit::Tpause
        | Exit::Xsaves
        | Exit::Xrstors
        | Exit::Pconfig
        | Exit::Loadiwkey => fault(on, Event::invalid_opcode()),
        // They are the host's, as an external interrupt is; nobody sends them.
        Exit::Init | Exit::StartUp { .. } | Exit::IoSmi | Exit::OtherSmi => machine.host_event(on, &exit),
        Exit::TaskSwitch(_) => Verdict::Stop(Stop::TaskSwitch),
        Exit::EntryFailure(failure) => Verdict::Stop(Stop::InvalidState(failure, on.check_entry().err())),
        unsupported => Verdict::Stop(Stop::Unsupported(unsupported)),
    }
}

/// The instruction faults.
pub fn fault(on: &mut Active<'_>, event: Event) -> Verdict {
    reflect(on, event)
}

/// An exception that the exception bitmap has taken from the guest is given back.
fn exception_of_guest(on: &mut Active<'_>, exception: Exception) -> Verdict {
    match exception.event.vector {
        1 => return on.reflect_debug_exception(&exception),
        18 => return Verdict::Stop(Stop::MachineCheck),
        14 => on.registers_mut().cr2 = exception.qualification,
        _ => {}
    }
    reflect(on, exception.event)
}

/// A page fault that exited may be the host's business.
fn page_fault<M: Machine>(on: &mut Active<'_>, machine: &mut M, exception: &Exception) -> Option<Verdict> {
    match exception.event {
        Event { vector: 14, kind: EventKind::HardwareException, error_code: Some(code), .. } => {
            machine.page_fault(on, exception.qualification, code)
        }
        _ => None,
    }
}

/// A fault: neither a trap (#BP, #OF), nor an abort (#DF, #MC), nor #DB, which can be either.
const fn is_fault(event: Event) -> bool {
    matches!(event.kind, EventKind::HardwareException) && !matches!(event.vector, 1 | 3 | 4 | 8 | 18)
}

/// Gives the guest an exception; together with one whose delivery was interrupted it may become a double fault, or the
/// guest's end.
fn reflect(on: &mut Active<'_>, event: Event) -> Verdict {
    let real_mode = on.vmcs().read(fields::GUEST_CR0) & bits::CR0_PE == 0;
    let event = if real_mode { Event { error_code: None, ..event } } else { event };
    if is_fault(event) {
        // A processor pushes RF set for a fault; an injection pushes RFLAGS as they are.
        let rflags = on.vmcs().read(fields::GUEST_RFLAGS);
        on.vmcs_mut().write(fields::GUEST_RFLAGS, rflags | RFLAGS_RF);
    }
    let first = inject::interrupted_delivery(on.vmcs());
    match inject::combine(first, event) {
        Some(event) => {
            // With the delivery the shadows end; left, they would have to agree with what is pending (SDM vol. 3C, "Checks on
            // Guest Non-Register State").
            on.end_shadows();
            on.inject(event);
            Verdict::Resume
        }
        None => Verdict::Stop(Stop::TripleFault),
    }
}

#[inline(always)]
fn cpuid<M: Machine>(on: &mut Active<'_>, machine: &mut M) -> Verdict {
    let view = on.view();
    let registers = on.registers_mut();
    let (leaf, sub) = (registers.gpr[Registers::RAX] as u32, registers.gpr[Registers::RCX] as u32);
    let [eax, ebx, ecx, edx] = machine.cpuid(leaf, sub, view);
    registers.gpr[Registers::RAX] = eax.into();
    registers.gpr[Registers::RBX] = ebx.into();
    registers.gpr[Registers::RCX] = ecx.into();
    registers.gpr[Registers::RDX] = edx.into();
    Verdict::Skip
}

#[inline(always)]
fn io<M: Machine>(on: &mut Active<'_>, machine: &mut M, access: IoAccess) -> Verdict {
    if access.string {
        return machine.string_io(on, access);
    }
    let rax = &mut on.registers_mut().gpr[Registers::RAX];
    let mask = u64::MAX >> (64 - 8 * u32::from(access.size));
    match access.direction {
        Direction::Out => machine.write_port(access.port, access.size, (*rax & mask) as u32),
        Direction::In => {
            let value = u64::from(machine.read_port(access.port, access.size)) & mask;
            // A 32-bit result clears the upper half of RAX; narrower ones leave the rest alone.
            *rax = if access.size == 4 { value } else { *rax & !mask | value };
        }
    }
    Verdict::Skip
}

fn read_msr<M: Machine>(on: &mut Active<'_>, machine: &mut M) -> Verdict {
    let number = on.registers().gpr[Registers::RCX] as u32;
    let value = match number {
        EFER => Some(on.vmcs().read(fields::GUEST_EFER)),
        DEBUGCTL => Some(on.vmcs().read(fields::GUEST_DEBUGCTL) & DEBUGCTL_WRITABLE),
        _ => machine.read_msr(number),
    };
    match value {
        Some(value) => on.registers_mut().set_edx_eax(value),
        None => return fault(on, Event::general_protection()),
    }
    Verdict::Skip
}

fn write_msr<M: Machine>(on: &mut Active<'_>, machine: &mut M) -> Verdict {
    let number = on.registers().gpr[Registers::RCX] as u32;
    let value = on.registers().edx_eax();
    let accepted = match number {
        EFER => control_registers::write_efer(on, value).is_ok(),
        DEBUGCTL => write_debugctl(on, value),
        _ => machine.write_msr(number, value),
    };
    if accepted { Verdict::Skip } else { fault(on, Event::general_protection()) }
}

/// The host's bits in IA32_DEBUGCTL stay as they are, unseen.
fn write_debugctl(on: &mut Active<'_>, value: u64) -> bool {
    let fits = value & !DEBUGCTL_WRITABLE == 0;
    if fits {
        let host = on.vmcs().read(fields::GUEST_DEBUGCTL) & !DEBUGCTL_WRITABLE;
        on.vmcs_mut().write(fields::GUEST_DEBUGCTL, host | value);
    }
    fits
}

#[inline(always)]
fn time_stamp<M: Machine>(on: &mut Active<'_>, machine: &mut M) -> Verdict {
    let now = machine.time_stamp();
    on.registers_mut().set_edx_eax(now);
    Verdict::Skip
}

#[inline(always)]
fn time_stamp_and_processor<M: Machine>(on: &mut Active<'_>, machine: &mut M) -> Verdict {
    on.registers_mut().gpr[Registers::RCX] = processor::guest_tsc_aux() & 0xffff_ffff;
    time_stamp(on, machine)
}

/// RDRAND and RDSEED always succeed: CF is 1, the other status flags are 0.
fn random<M: Machine>(on: &mut Active<'_>, machine: &mut M, operand: RandomOperand) -> Verdict {
    const STATUS: u64 = 0x8d5;
    let value = machine.random();
    on.write_general(operand.register, operand.size, value);
    let rflags = on.vmcs().read(fields::GUEST_RFLAGS);
    on.vmcs_mut().write(fields::GUEST_RFLAGS, rflags & !STATUS | 1);
    Verdict::Skip
}
