//! The loop of a virtual processor: enter -> decode -> handle -> verdict. Handlers compute and return; only the loop enters
//! the guest or stops it, and nothing here prints or allocates.

use crate::arch::idt::{self, Frame};
use crate::arch::vmenter::Registers;
use crate::arch::vmx as processor;
use crate::vmm::control_registers;
use core::fmt;
use vmx::errors::VmFail;
use vmx::exit::{
    Direction, EntryFailure, EptViolation, Exception, Exit, IoAccess, RandomOperand, VmxInstruction,
};
use vmx::fields::{self, VmcsRead, VmcsWrite};
use vmx::guest_state::{BrokenRule, bits};
use vmx::inject::{self, Event, EventKind};
use vmx::instructions::CurrentVmcs;

pub use crate::vmm::virtual_processor::{Active, Vcpu};
pub use machine::cpu::CpuView;

/// IA32_EFER.
const EFER: u32 = 0xc000_0080;
/// Bits of IA32_EFER that a guest may change: SCE, LME, NXE.
const EFER_WRITABLE: u64 = 1 << 0 | bits::EFER_LME | 1 << 11;
/// IA32_TSC_AUX.
const TSC_AUX: u32 = 0xc000_0103;

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
            Self::Unsupported(exit) => write!(f, "not emulated: {exit:x?}"),
            Self::Named(word) => f.write_str(word),
        }
    }
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
        Verdict::Stop(Stop::Unsupported(Exit::EptMisconfiguration { guest_physical }))
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
        let exit = match on.enter() {
            Ok(exit) => exit,
            Err(error) => return Stop::EntryRefused(error),
        };
        match handle(on, machine, &exit) {
            Verdict::Resume => {}
            Verdict::Skip => on.skip_instruction(),
            Verdict::Stop(reason) => return reason,
        }
    }
}

fn handle<M: Machine>(on: &mut Active<'_>, machine: &mut M, exit: &Exit) -> Verdict {
    match *exit {
        Exit::Cpuid => cpuid(on, machine),
        Exit::Io(access) => io(on, machine, access),
        Exit::Rdmsr => read_msr(on, machine),
        Exit::Wrmsr => write_msr(on, machine),
        Exit::Rdtsc => time_stamp(on, machine),
        Exit::Rdtscp => time_stamp_and_processor(on, machine),
        Exit::Rdrand(operand) | Exit::Rdseed(operand) => random(on, machine, operand),
        Exit::ControlRegister(access) => control_registers::access(on, machine, access),
        Exit::Hlt => machine.halted(on),
        Exit::EptViolation(violation) => machine.ept_violation(on, &violation),
        Exit::EptMisconfiguration { guest_physical } => machine.ept_misconfiguration(on, guest_physical),
        Exit::ExternalInterrupt { .. } => {
            serve_host(exit);
            machine.host_event(on, exit)
        }
        Exit::Exception(exception) => match serve_host(exit) {
            true => machine.host_event(on, exit),
            false => exception_of_guest(on, machine, exception),
        },
        Exit::MonitorTrapFlag | Exit::PreemptionTimer | Exit::InterruptWindow | Exit::NmiWindow => {
            machine.host_event(on, exit)
        }
        Exit::TripleFault => machine.triple_fault(),
        Exit::EntryFailure(failure) => Verdict::Stop(Stop::InvalidState(failure, on.check_entry().err())),
        Exit::Invd | Exit::Wbinvd | Exit::Pause => Verdict::Skip,
        Exit::Rdpmc | Exit::Xsetbv => fault(on, Event::general_protection()),
        Exit::Vmx(VmxInstruction::Vmcall) => machine.vmcall(on),
        Exit::Vmx(_) | Exit::Getsec | Exit::Monitor | Exit::Mwait { .. } | Exit::Encls => {
            fault(on, Event::invalid_opcode())
        }
        unsupported => Verdict::Stop(Stop::Unsupported(unsupported)),
    }
}

/// The instruction faults.
pub fn fault(on: &mut Active<'_>, event: Event) -> Verdict {
    reflect(on, event)
}

/// An exception that the exception bitmap has taken from the guest is given back.
fn exception_of_guest<M: Machine>(on: &mut Active<'_>, machine: &mut M, exception: Exception) -> Verdict {
    match exception.event.vector {
        // #DB would have to go into the guest's DR6, which nobody keeps yet; no guest of this loop intercepts it.
        1 => return Verdict::Stop(Stop::Unsupported(Exit::Exception(exception))),
        14 => on.registers_mut().cr2 = exception.qualification,
        _ => {}
    }
    match reflect(on, exception.event) {
        Verdict::Stop(Stop::TripleFault) => machine.triple_fault(),
        verdict => verdict,
    }
}

/// Gives the guest an exception; together with one whose delivery was interrupted it may become a double fault, or the
/// guest's end.
fn reflect(on: &mut Active<'_>, event: Event) -> Verdict {
    let real_mode = on.vmcs().read(fields::GUEST_CR0) & bits::CR0_PE == 0;
    let event = if real_mode { Event { error_code: None, ..event } } else { event };
    let first = inject::interrupted_delivery(on.vmcs());
    match inject::combine(first, event) {
        Some(event) => {
            on.inject(event);
            Verdict::Resume
        }
        None => Verdict::Stop(Stop::TripleFault),
    }
}

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
        EFER => write_efer(on.vmcs_mut(), value),
        _ => machine.write_msr(number, value),
    };
    if accepted { Verdict::Skip } else { fault(on, Event::general_protection()) }
}

/// LMA is not written but follows LME and CR0.PG; LME stays while paging is on (SDM vol. 3A, "Initializing IA-32e Mode").
fn write_efer(vmcs: &mut CurrentVmcs, value: u64) -> bool {
    let old = vmcs.read(fields::GUEST_EFER);
    let paging = vmcs.read(fields::GUEST_CR0) & bits::CR0_PG != 0;
    let reserved = value & !(EFER_WRITABLE | bits::EFER_LMA) != 0;
    if reserved || paging && (value ^ old) & bits::EFER_LME != 0 {
        return false;
    }
    vmcs.write(fields::GUEST_EFER, value & EFER_WRITABLE | old & bits::EFER_LMA);
    true
}

fn time_stamp<M: Machine>(on: &mut Active<'_>, machine: &mut M) -> Verdict {
    let now = machine.time_stamp();
    on.registers_mut().set_edx_eax(now);
    Verdict::Skip
}

fn time_stamp_and_processor<M: Machine>(on: &mut Active<'_>, machine: &mut M) -> Verdict {
    let auxiliary = machine.read_msr(TSC_AUX).unwrap_or(0) & 0xffff_ffff;
    on.registers_mut().gpr[Registers::RCX] = auxiliary;
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
