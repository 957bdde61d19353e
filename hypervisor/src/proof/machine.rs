//! The proof's machine: one VMX guest of its own, entered once at a time.

use super::guest::Guest;
use super::layout;
use super::stubs::DATA;
use crate::arch::idt::vector;
use crate::arch::vmenter::{self, Registers as GuestRegisters};
use crate::arch::{apic, paging, pmu, proof as cpu};
use heapless::HistoryBuf;
use replay::landing::Counter;
use replay::pmu::{DEBUGCTL_FREEZE_WHILE_SMM, GUEST_GLOBAL_CTRL};
use replay::point::{RFLAGS_RF, Registers};
use replay::proof::{Entry, Exit, Machine, Stub, Why};
use vmx::caps::Capabilities;
use vmx::controls::{self, Controls, Word};
use vmx::exit::{Direction, DrAccess, Exit as Left, Reason, VmxInstruction};
use vmx::fields::{self, VmcsRead, VmcsWrite};
use vmx::guest_state::{self, Context, DR7_RESET, GuestState, Segment, Table};
use vmx::inject::{self, Event, Interruptibility};
use vmx::instructions::CurrentVmcs;

/// How many entries and exits are remembered for the log.
const TRAIL: usize = 24;
/// Number of RBX, RSP and R8 among the general registers.
const RBX: usize = 3;
const RSP: usize = 4;
const R8: usize = 8;
/// Vector of the debug exception, and its bits in the exit qualification and in "pending debug exceptions".
const DEBUG_EXCEPTION: u8 = 1;
const BREAKPOINT_0: u64 = 1;
const SINGLE_STEP: u64 = 1 << 14;
const ENABLED_BREAKPOINT: u64 = 1 << 12;
/// DR7: DR0 enabled globally, as an instruction breakpoint.
const DR7_BREAKPOINT_0: u64 = 2;
/// DR7: any of the four is enabled.
const DR7_ENABLES: u64 = 0xFF;
/// The bits of DR7 that a guest can set: enables, LE, GE, R/W and LEN; bit 10 is always one.
const DR7_GUEST: u64 = 0xFFFF_03FF;

/// The guest under proof.
pub struct ProofMachine<'a> {
    vmcs: &'a mut CurrentVmcs,
    caps: &'a Capabilities,
    controls: Controls,
    guest: Guest,
    counters: pmu::Counters,
    registers: GuestRegisters,
    launched: bool,
    /// Instructions emulated since the reset.
    emulated: u64,
    /// The event whose delivery was interrupted, or that the proof reflects.
    due: Option<Event>,
    /// The guest's DR7.
    dr7: u64,
    armed: Option<Counter>,
    before: cpu::SystemCall,
    /// The last entries and exits.
    trail: HistoryBuf<(Entry, Exit), TRAIL>,
}

impl<'a> ProofMachine<'a> {
    /// A machine over a VMCS that is current, with controls and host state in it.
    pub fn new(
        vmcs: &'a mut CurrentVmcs,
        caps: &'a Capabilities,
        controls: Controls,
        guest: Guest,
        counters: pmu::Counters,
    ) -> Self {
        let entry = layout::system_call(guest.image());
        let before = cpu::SystemCall { star: layout::STAR, entry, mask: 0 }.exchange();
        vmcs.write(fields::EPT_POINTER, guest.ept_pointer());
        vmcs.write(fields::HOST_PERF_GLOBAL_CTRL, 0);
        Self {
            vmcs,
            caps,
            controls,
            guest,
            counters,
            registers: GuestRegisters::default(),
            launched: false,
            emulated: 0,
            due: None,
            dr7: DR7_RESET,
            armed: None,
            before,
            trail: HistoryBuf::new(),
        }
    }

    /// The counters.
    pub const fn counters(&mut self) -> &mut pmu::Counters {
        &mut self.counters
    }

    /// Writes what this entry needs into the VMCS and the counters.
    fn prepare(&mut self, entry: &Entry) {
        let mut wanted = self.controls;
        for (control, on) in
            [(controls::MONITOR_TRAP_FLAG, entry.step), (controls::INTERRUPT_WINDOW_EXITING, entry.window)]
        {
            if on {
                wanted.set(control, self.caps).expect("found settable before the proof");
            }
        }
        self.vmcs.write(fields::PRIMARY_CONTROLS, wanted.word32(Word::Primary));
        let shift = self.caps.misc.preemption_timer_shift();
        let ticks = entry.timer.unwrap_or(u64::MAX) >> shift;
        self.vmcs.write(fields::PREEMPTION_TIMER, u32::try_from(ticks).unwrap_or(u32::MAX).max(1));
        self.prepare_breakpoint(entry.breakpoint);
        if entry.resume {
            let rflags = self.vmcs.read(fields::GUEST_RFLAGS) | RFLAGS_RF;
            self.vmcs.write(fields::GUEST_RFLAGS, rflags);
        }
        self.prepare_event(entry.inject);
        self.counters.arm(entry.arm);
        self.armed = entry.arm.map(|(counter, _)| counter);
        match entry.host_interrupt {
            None => {}
            Some(0) => cpu::interrupt_now(),
            Some(cycles) => cpu::interrupt_in(cycles),
        }
    }

    /// DR0 for the host, or the debug registers for the guest. With the host's breakpoint the guest's debug exceptions
    /// exit, too, and are reflected.
    fn prepare_breakpoint(&mut self, breakpoint: Option<u64>) {
        let (dr7, bitmap) = match breakpoint {
            Some(linear) => {
                cpu::set_host_breakpoint(linear);
                (DR7_RESET | DR7_BREAKPOINT_0, 1 << DEBUG_EXCEPTION)
            }
            None => (self.dr7, 0),
        };
        self.vmcs.write(fields::GUEST_DR7, dr7);
        self.vmcs.write(fields::EXCEPTION_BITMAP, bitmap);
    }

    fn prepare_event(&mut self, wanted: Option<u8>) {
        if let Some(event) = self.due.take() {
            assert!(wanted.is_none(), "an interrupted delivery goes first");
            inject::reinject(event, self.vmcs);
        } else if let Some(vector) = wanted {
            // RF is whatever the last exit made of it: an injection starts from 0, so that the frame it pushes is a function
            // of the guest alone.
            let rflags = self.vmcs.read(fields::GUEST_RFLAGS) & !RFLAGS_RF;
            self.vmcs.write(fields::GUEST_RFLAGS, rflags);
            Event::interrupt(vector).inject(self.vmcs);
        }
    }

    /// The rule that the guest state breaks, to the log: a bug of ours, which the table then shows as an unexpected exit.
    fn explain_failed_entry(&self) {
        let context = Context {
            controls: &self.controls,
            caps: self.caps,
            physical_bits: paging::features().physical_bits,
            event: None,
        };
        let rule = guest_state::check_entry(&GuestState::load(self.vmcs, true), &context);
        log::error!("boot proof: the guest state was refused: {rule:?}");
    }

    /// Deals with the exit.
    fn handle(&mut self) -> Why {
        self.due = inject::delivery_to_repeat(self.vmcs);
        let reason = Reason(self.vmcs.read(fields::EXIT_REASON));
        match Left::decode_reason(reason, self.vmcs) {
            Left::ExternalInterrupt { vector: Some(vector) } => {
                cpu::acknowledge();
                if vector == vector::PERFORMANCE { Why::Overflow } else { Why::HostInterrupt }
            }
            Left::PreemptionTimer => Why::Timer,
            Left::MonitorTrapFlag => Why::Step,
            Left::InterruptWindow => Why::Window,
            Left::EptViolation(violation) if self.guest.restore(violation.guest_physical) => {
                Why::EptViolation
            }
            Left::Exception(exception) if exception.event == Event::exception(DEBUG_EXCEPTION) => {
                self.debug_exception(exception.qualification)
            }
            Left::Vmx(VmxInstruction::Vmcall) => Why::Done,
            Left::Hlt => self.emulated(Why::Halt),
            Left::Cpuid => {
                // A fixed answer: whatever the host's leaf says, the guest must not see it.
                for (register, value) in [(0, 0x4C6F_636B), (1, 1), (2, 2), (RBX, 3)] {
                    self.registers.gpr[register] = value;
                }
                self.emulated(Why::Emulated)
            }
            Left::Io(io) if io.direction == Direction::Out && !io.string => self.emulated(Why::Emulated),
            Left::DebugRegister(access) if access.write => {
                self.write_debug_register(access);
                self.emulated(Why::Emulated)
            }
            _ => Why::Unexpected {
                reason: u32::from(reason.basic()),
                qualification: self.vmcs.read(fields::EXIT_QUALIFICATION),
            },
        }
    }

    /// The host's breakpoint, or an exception of the guest's own, which it gets.
    fn debug_exception(&mut self, qualification: u64) -> Why {
        if qualification & (BREAKPOINT_0 | SINGLE_STEP) == BREAKPOINT_0 {
            return Why::Breakpoint;
        }
        cpu::add_to_dr6(qualification & !BREAKPOINT_0);
        self.due = Some(Event::exception(DEBUG_EXCEPTION));
        Why::Reflected
    }

    fn write_debug_register(&mut self, access: DrAccess) {
        let general = usize::from(access.general);
        let value =
            if general == RSP { self.vmcs.read(fields::GUEST_RSP) } else { self.registers.gpr[general] };
        match access.register {
            1 => cpu::set_guest_breakpoint(value),
            7 => self.dr7 = value & DR7_GUEST | DR7_RESET,
            _ => {}
        }
    }

    /// Skips the instruction that exited and counts it. Its shadow, and RF, end with it.
    fn emulated(&mut self, why: Why) -> Why {
        let rip = self.vmcs.read(fields::GUEST_RIP);
        let length = self.vmcs.read(fields::EXIT_INSTRUCTION_LENGTH);
        self.vmcs.write(fields::GUEST_RIP, rip + u64::from(length));
        let rflags = self.vmcs.read(fields::GUEST_RFLAGS);
        self.vmcs.write(fields::GUEST_RFLAGS, rflags & !RFLAGS_RF);
        let shadows = Interruptibility::STI | Interruptibility::MOV_SS;
        let interruptibility = self.vmcs.read(fields::GUEST_INTERRUPTIBILITY);
        self.vmcs.write(fields::GUEST_INTERRUPTIBILITY, interruptibility & !shadows);
        self.emulated += 1;
        why
    }

    /// The state after the exit.
    fn state(&mut self, why: Why) -> Exit {
        let mut general = self.registers.gpr;
        general[RSP] = self.vmcs.read(fields::GUEST_RSP);
        let interruptibility = Interruptibility(self.vmcs.read(fields::GUEST_INTERRUPTIBILITY));
        let pending = self.vmcs.read(fields::GUEST_PENDING_DEBUG);
        Exit {
            why,
            n: self.counters.instructions() + self.emulated,
            n_general: self.counters.general() + self.emulated,
            c: self.counters.branches(),
            registers: Registers {
                general,
                rip: self.vmcs.read(fields::GUEST_RIP),
                rflags: self.vmcs.read(fields::GUEST_RFLAGS),
            },
            sti: interruptibility.by_sti(),
            mov_ss: interruptibility.by_mov_ss(),
            // A debug exception that is pending is delivered before the next instruction, like one interrupted.
            delivering: self.due.is_some() || pending & (SINGLE_STEP | ENABLED_BREAKPOINT) != 0,
            breakpoint_free: self.dr7 & DR7_ENABLES == 0,
            overflowed: self.armed.is_some_and(|counter| self.counters.overflowed(counter)),
            lvt_masked: apic::overflow_is_masked(),
        }
    }
}

impl Machine for ProofMachine<'_> {
    fn reset(&mut self, stub: Stub, count: u64) -> Exit {
        cpu::stop_interrupts();
        self.guest.reset();
        let state = GuestState {
            cr4: GuestState::long_mode(0, 0, 0).cr4 | guest_state::bits::CR4_VMXE,
            tr: Segment { selector: 0x28, base: layout::TSS, limit: 0x67, access: 0x8B },
            gdtr: Table { base: layout::GDT, limit: layout::GDT_LIMIT },
            idtr: Table { base: layout::IDT, limit: 0xFFF },
            ldtr: Segment::unusable(),
            debugctl: if self.counters.unit().freeze_while_smm { DEBUGCTL_FREEZE_WHILE_SMM } else { 0 },
            efer: GuestState::long_mode(0, 0, 0).efer | EFER_SCE,
            perf_global_ctrl: GUEST_GLOBAL_CTRL,
            ..GuestState::long_mode(layout::entry(self.guest.image(), stub), layout::STACK, layout::PML4)
        };
        state.store(self.vmcs, true);
        self.vmcs.write(fields::ENTRY_INTERRUPTION_INFO, 0);
        self.registers.gpr = [0; 16];
        self.registers.gpr[RBX] = count;
        self.registers.gpr[R8] = DATA;
        self.registers.cr2 = 0;
        (self.emulated, self.due, self.dr7, self.armed) = (0, None, DR7_RESET, None);
        self.counters.zero();
        self.state(Why::Reset)
    }

    fn enter(&mut self, entry: &Entry) -> Exit {
        self.prepare(entry);
        let entered = vmenter::enter(self.vmcs, &mut self.registers, self.launched);
        if let Err(error) = entered {
            log::error!("boot proof: VM entry failed: {error}");
            return self.state(Why::Unexpected { reason: u32::MAX, qualification: 0 });
        }
        if Reason(self.vmcs.read(fields::EXIT_REASON)).entry_failed() {
            self.explain_failed_entry();
        } else {
            self.launched = true;
        }
        if entry.host_interrupt.is_some() {
            cpu::stop_interrupts();
        }
        let why = self.handle();
        let exit = self.state(why);
        self.trail.write((*entry, exit));
        exit
    }

    /// The way to the failure, at log level debug.
    fn failed(&mut self) {
        for (entry, exit) in self.trail.oldest_ordered() {
            log::debug!(
                "{:?} n {} c {} rip {:#x} rcx {:#x} rflags {:#x} delivering {} after {:x?}",
                exit.why,
                exit.n,
                exit.c,
                exit.registers.rip,
                exit.registers.rcx(),
                exit.registers.rflags,
                exit.delivering,
                entry
            );
        }
    }

    fn pages(&self) -> u32 {
        layout::PAGES.len() as u32
    }

    fn unmap(&mut self, page: u32) {
        self.guest.take(layout::PAGES[page as usize]);
    }

    fn width(&self, counter: Counter) -> u32 {
        self.counters.unit().width(counter)
    }

    fn write_read(&mut self, counter: Counter, value: u64) -> u64 {
        self.counters.write_read(counter, value)
    }
}

/// IA32_EFER.SCE.
const EFER_SCE: u64 = 1;

impl Drop for ProofMachine<'_> {
    fn drop(&mut self) {
        cpu::stop_interrupts();
        self.before.exchange();
    }
}
