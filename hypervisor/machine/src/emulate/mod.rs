//! Instructions that the processor does not execute for the guest: accesses of device memory, string I/O.
//!
//! [`Emulator::step`] executes one instruction: it fetches and decodes it as the processor would, translates its operands by the
//! guest's own page tables, and reaches memory, devices and ports by a [`Bus`]. What an instruction changes
//! is changed at its end: one that faults leaves registers and memory as they were, except that a REP keeps its finished
//! iterations (SDM vol. 1, 7.3.9.2) and that accessed bits of translations that succeeded stay set (vol. 3A, 4.8).
//!
//! Not done here, the caller knows more: counting the retired instruction, ending the shadow of STI or MOV SS after
//! [`Outcome::Done`], data breakpoints of DR0 to DR3, the single-step trap that is asked for.

pub(crate) mod alu;
mod branch;
mod decode;
mod execute;
mod memory;
mod operand;
pub mod repeated;
mod shift;
mod strings;
pub mod walk;

use decode::Decoded;
pub use decode::warm_up;
use memory::{Executor, Stop};

/// A segment register, numbered as instructions do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Seg {
    Es = 0,
    Cs = 1,
    Ss = 2,
    Ds = 3,
    Fs = 4,
    Gs = 5,
}

/// What is in a segment register, as the VMCS has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// The selector.
    pub selector: u16,
    /// The base.
    pub base: u64,
    /// The limit, bytes; granularity is applied.
    pub limit: u32,
    /// Access rights: type 3:0, S 4, DPL 6:5, P 7, AVL 12, L 13, D/B 14, G 15, unusable 16 (SDM vol. 3C, 25.4.1).
    pub access: u32,
}

/// Numbers of the general registers that instructions name implicitly.
#[allow(missing_docs)]
pub mod gpr {
    pub const RAX: usize = 0;
    pub const RCX: usize = 1;
    pub const RDX: usize = 2;
    pub const RBX: usize = 3;
    pub const RSP: usize = 4;
    pub const RBP: usize = 5;
    pub const RSI: usize = 6;
    pub const RDI: usize = 7;
}

/// The virtual processor's registers, with the values that the guest sees.
pub trait Cpu {
    /// A general register: 0 to 15, RAX RCX RDX RBX RSP RBP RSI RDI R8 to R15.
    fn gpr(&self, number: usize) -> u64;
    /// Sets a general register.
    fn set_gpr(&mut self, number: usize, value: u64);
    /// RIP.
    fn rip(&self) -> u64;
    /// Sets RIP.
    fn set_rip(&mut self, rip: u64);
    /// RFLAGS.
    fn rflags(&self) -> u64;
    /// Sets RFLAGS; only status flags, DF where POPF is executed, and RF differ from what was read.
    fn set_rflags(&mut self, rflags: u64);
    /// A segment register.
    fn segment(&self, which: Seg) -> Segment;
    /// CR0.
    fn cr0(&self) -> u64;
    /// CR3.
    fn cr3(&self) -> u64;
    /// CR4.
    fn cr4(&self) -> u64;
    /// IA32_EFER.
    fn efer(&self) -> u64;
    /// The current privilege level: the DPL of SS.
    fn cpl(&self) -> u8;
    /// A page-directory-pointer-table entry as it was loaded with CR3 (PAE paging), 0 to 3.
    fn pdpte(&self, number: usize) -> u64;
    /// The rights of protection keys; asked for only when CR4.PKE is set.
    fn pkru(&self) -> u32 {
        0
    }
    /// MAXPHYADDR as CPUID tells the guest: 36 to 52.
    fn physical_bits(&self) -> u32;
    /// CPUID tells the guest that there are 1-GByte pages.
    fn gigabyte_pages(&self) -> bool;
}

/// Nothing that the guest may reach answers there: what the machine does not want to emulate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusError {
    /// The guest-physical address.
    pub address: u64,
}

/// What the processor's accesses reach.
pub trait Bus {
    /// All of this range is memory (RAM or ROM), where an access may have any length and alignment.
    fn is_memory(&self, address: u64, length: usize) -> bool;
    /// Reads guest-physical memory or a device. Unless [`Bus::is_memory`] says so of the range, the length is 1, 2, 4 or 8
    /// and the address a multiple of it. An access never crosses a 4-KByte page.
    ///
    /// # Errors
    /// [`BusError`]: the virtual machine is to stop; where nothing answers, a PC reads all ones.
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), BusError>;
    /// Writes guest-physical memory or a device; addresses and lengths as for [`Bus::read`]. ROM ignores it.
    ///
    /// # Errors
    /// [`BusError`].
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), BusError>;
    /// IN of 1, 2 or 4 bytes.
    fn read_port(&mut self, port: u16, size: u8) -> u32;
    /// OUT of 1, 2 or 4 bytes.
    fn write_port(&mut self, port: u16, size: u8, value: u32);
}

/// What made the instruction exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// An access of guest-physical memory.
    Memory,
    /// IN, OUT, INS or OUTS: the processor has checked that the guest may (SDM vol. 3C, 26.1.1).
    Port,
}

/// An exception of the guest's. Vectors and error codes: SDM vol. 3A, chapter 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// The vector.
    pub vector: u8,
    /// The error code; none in real-address mode.
    pub error: Option<u32>,
    /// What CR2 is to hold: page faults.
    pub cr2: Option<u64>,
}

/// The instruction's place and bytes, as far as they were fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text {
    /// RIP.
    pub rip: u64,
    /// The bytes.
    pub bytes: [u8; MAX_LENGTH],
    /// How many of them were fetched. Bytes behind the instruction may be among them.
    pub length: u8,
}

/// The longest instruction, bytes.
pub const MAX_LENGTH: usize = 15;

/// What came of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// It is executed; RIP is at the next one and RF is clear.
    Done {
        /// RFLAGS.TF was set: a single-step trap (#DB, DR6.BS) is due.
        single_step: bool,
    },
    /// Iterations of a REP are executed and there are more; RIP stays. Interrupts may be taken now. To go on, enter the
    /// guest or step again.
    Continue {
        /// As in [`Outcome::Done`].
        single_step: bool,
    },
    /// The guest gets an exception (a fault: RIP stays).
    Fault(Exception),
    /// The bytes are no instruction that is known here.
    Undecodable(Text),
    /// It is an instruction that is not emulated.
    Unsupported {
        /// What it does, in a few words.
        what: &'static str,
        /// Where it is.
        text: Text,
    },
    /// The bus refused an access.
    Refused {
        /// The guest-physical address.
        address: u64,
        /// Where the instruction is.
        text: Text,
    },
}

/// What an emulator has done, for the console.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Instructions, and parts of a REP.
    pub steps: u64,
    /// Decoded instructions found again.
    pub hits: u64,
    /// Instructions that had to be decoded.
    pub misses: u64,
    /// Steps that ended in an exception of the guest's.
    pub faults: u64,
}

/// The emulator of a virtual processor. It keeps nothing that the guest could see.
#[derive(Debug)]
pub struct Emulator {
    decoded: decode::Cache,
    counters: Counters,
}

impl Default for Emulator {
    fn default() -> Self {
        Self::new()
    }
}

impl Emulator {
    /// An emulator. Call [`warm_up`] before the guest runs.
    pub fn new() -> Self {
        Self { decoded: decode::Cache::new(), counters: Counters::default() }
    }

    /// What it has done.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Executes the instruction at CS:RIP, or a bounded number of iterations if it is a REP.
    pub fn step<C: Cpu, B: Bus>(&mut self, cpu: &mut C, bus: &mut B, cause: Cause) -> Outcome {
        self.counters.steps = self.counters.steps.wrapping_add(1);
        let mut executor = Executor::new(cpu, bus, cause);
        let mut text = Text { rip: executor.rip(), bytes: [0; MAX_LENGTH], length: 0 };
        let ended = self.fetch_and_execute(&mut executor, &mut text);
        match ended {
            Ok(outcome) => outcome,
            Err(Stop::Fault(exception)) => {
                self.counters.faults = self.counters.faults.wrapping_add(1);
                Outcome::Fault(exception)
            }
            Err(Stop::Undecodable) => Outcome::Undecodable(text),
            Err(Stop::Unsupported(what)) => Outcome::Unsupported { what, text },
            Err(Stop::Refused(error)) => Outcome::Refused { address: error.address, text },
        }
    }

    fn fetch_and_execute<C: Cpu, B: Bus>(
        &mut self,
        executor: &mut Executor<'_, C, B>,
        text: &mut Text,
    ) -> Result<Outcome, Stop> {
        let Decoded { instruction, cached } = self.decoded.fetch(executor, text)?;
        let counter = if cached { &mut self.counters.hits } else { &mut self.counters.misses };
        *counter = counter.wrapping_add(1);
        execute::execute(executor, &instruction)
    }
}
