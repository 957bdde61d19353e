//! What the proof asks of a machine: a guest that can be entered under exact conditions, and its two counters.

use crate::landing::Counter;
use crate::point::{RFLAGS_RF, Registers};

use super::spec::Stub;

/// RFLAGS.IF.
const RFLAGS_IF: u64 = 1 << 9;

/// How to enter the guest once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Arm the overflow interrupt of a counter this many events from now (at least 1).
    pub arm: Option<(Counter, u64)>,
    /// Instruction breakpoint in DR0, owned by the host.
    pub breakpoint: Option<u64>,
    /// Set RF, so that the breakpoint does not hit at the instruction where the guest is.
    pub resume: bool,
    /// Monitor Trap Flag.
    pub step: bool,
    /// VMX-preemption timer, in cycles of the time-stamp counter; the machine rounds up to what the timer can do.
    pub timer: Option<u64>,
    /// A host interrupt after this many cycles; 0: pending when the guest is entered.
    pub host_interrupt: Option<u64>,
    /// Inject an external interrupt with this vector. Only where [`Exit::injectable`]; an event whose delivery was
    /// interrupted goes first, by itself.
    pub inject: Option<u8>,
    /// Interrupt-window exiting.
    pub window: bool,
}

/// Why the guest stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Not entered yet: the state after a reset.
    Reset,
    /// The performance-monitoring interrupt.
    Overflow,
    /// Another host interrupt.
    HostInterrupt,
    /// The VMX-preemption timer.
    Timer,
    /// The Monitor Trap Flag.
    Step,
    /// The host's breakpoint.
    Breakpoint,
    /// An EPT violation, mapped again.
    EptViolation,
    /// An instruction emulated: RIP is behind it and it is counted.
    Emulated,
    /// A guest's debug exception, reflected: its delivery is due at the next entry.
    Reflected,
    /// HLT, emulated and counted; the guest waits for an interrupt.
    Halt,
    /// The interrupt window is open.
    Window,
    /// VMCALL: the stub is at its end.
    Done,
    /// Nothing the proof knows; a broken machine or a broken stub.
    Unexpected {
        /// Basic exit reason.
        reason: u32,
        /// Exit qualification.
        qualification: u64,
    },
}

/// The state after an exit, once it was dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Why.
    pub why: Why,
    /// Instructions retired since the reset: fixed counter 0 plus those emulated.
    pub n: u64,
    /// The same by a general counter with event C0h.
    pub n_general: u64,
    /// Conditional branches retired since the reset.
    pub c: u64,
    /// The guest's integer registers.
    pub registers: Registers,
    /// Blocking by STI.
    pub sti: bool,
    /// Blocking by MOV SS.
    pub mov_ss: bool,
    /// An event's delivery was interrupted and is resumed by the next entry.
    pub delivering: bool,
    /// The guest does not use the debug registers.
    pub breakpoint_free: bool,
    /// The overflow status of the armed counter.
    pub overflowed: bool,
    /// The LVT entry of the performance-monitoring interrupt is masked.
    pub lvt_masked: bool,
}

impl Exit {
    /// The guest can take an external interrupt here and now.
    #[must_use]
    pub const fn injectable(&self) -> bool {
        self.registers.rflags & RFLAGS_IF != 0 && !self.sti && !self.mov_ss && !self.delivering
    }

    /// A breakpoint on RIP cannot be lost here.
    #[must_use]
    pub const fn breakpoint_safe(&self) -> bool {
        self.registers.rflags & RFLAGS_RF == 0 && !self.mov_ss
    }
}

/// A guest with counters.
pub trait Machine {
    /// Loads `stub` with RBX = `count`, everything mapped, counts at zero.
    fn reset(&mut self, stub: Stub, count: u64) -> Exit;

    /// Enters the guest once and deals with the exit.
    fn enter(&mut self, entry: &Entry) -> Exit;

    /// How many pages of the guest can be taken away.
    fn pages(&self) -> u32;

    /// Takes a page away in EPT; the next access exits.
    fn unmap(&mut self, page: u32);

    /// Width of a counter, in bits.
    fn width(&self, counter: Counter) -> u32;

    /// Writes a counter (switched off) and reads it back; its own count is lost until the next reset.
    fn write_read(&mut self, counter: Counter, value: u64) -> u64;

    /// The property under test has just failed: a chance to say how it came to it.
    fn failed(&mut self) {}
}
