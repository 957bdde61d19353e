//! The tiny guests' computer, and what each of them must have done by the time it stops.

use super::vm::Vm;
use crate::arch::tiny_guests;
use crate::vcpu::{Active, CpuView, Machine, Stop, Verdict};
use core::fmt::Write;
use heapless::String;
use vmx::exit::{Direction, EptViolation, Exit, IoAccess};
use vmx::guest_state::GuestState;

/// Guest RAM, bytes: two large pages.
pub const RAM: u64 = 4 << 20;
/// Where the code is put.
pub const LOAD: u64 = 0x8000;
/// Bytes of console output that are kept; more is dropped.
const OUTPUT_MAX: usize = 64;
/// The console's port.
const CONSOLE: u16 = 0x3f8;
/// The hypervisor's leaf, and its answer.
const LEAF: u32 = 0x4000_0000;
const VENDOR: [u8; 12] = *b"LockstepTiny";
/// The MSR that the guests write and read back, one that is not passed through: IA32_BIOS_SIGN_ID.
const AUXILIARY: u32 = 0x8b;
/// What they write there.
const AUXILIARY_VALUE: u32 = 0x1234_abcd;
/// Exits after which a guest is stopped, whatever it does.
const EXITS_MAX: u64 = 100_000;

/// What RDRAND and RDSEED return, less how often they were executed.
pub const RANDOM: u64 = 0x1111_2222_3333_4440;

/// The computer of a tiny guest: a console, one MSR, one CPUID leaf, nothing else. Of the guest's memory it knows what was
/// loaded.
#[derive(Debug, Default)]
pub struct TinyMachine {
    code: &'static [u8],
    /// What came out of the console's port.
    pub output: String<OUTPUT_MAX>,
    auxiliary: u64,
    task_priority: u8,
    exits: u64,
    time: u64,
    numbers: u64,
}

impl TinyMachine {
    /// The computer of a guest with this code at [`LOAD`].
    pub fn with_code(code: &'static [u8]) -> Self {
        Self { code, ..Self::default() }
    }

    fn budget(&mut self, verdict: Verdict) -> Verdict {
        self.exits += 1;
        if self.exits > EXITS_MAX { Verdict::Stop(Stop::TimeUp) } else { verdict }
    }
}

impl Machine for TinyMachine {
    fn cpuid(&mut self, leaf: u32, _sub: u32, _view: CpuView) -> [u32; 4] {
        let word = |i: usize| u32::from_le_bytes([VENDOR[i], VENDOR[i + 1], VENDOR[i + 2], VENDOR[i + 3]]);
        if leaf == LEAF { [LEAF, word(0), word(4), word(8)] } else { [0; 4] }
    }
    fn read_port(&mut self, _port: u16, _size: u8) -> u32 {
        u32::MAX
    }
    fn write_port(&mut self, port: u16, size: u8, value: u32) {
        if port == CONSOLE && size == 1 {
            // What does not fit is dropped: no guest that behaves writes as much.
            let _ = self.output.write_char(char::from(value as u8));
        }
    }
    fn read_msr(&mut self, number: u32) -> Option<u64> {
        (number == AUXILIARY).then_some(self.auxiliary)
    }
    fn write_msr(&mut self, number: u32, value: u64) -> bool {
        if number == AUXILIARY {
            self.auxiliary = value;
        }
        number == AUXILIARY
    }
    fn time_stamp(&mut self) -> u64 {
        self.time += 1;
        self.time
    }
    fn random(&mut self) -> u64 {
        self.numbers += 1;
        RANDOM + self.numbers
    }
    fn read_memory(&mut self, guest: u64, bytes: &mut [u8]) -> bool {
        let place = guest.checked_sub(LOAD).and_then(|at| self.code.get(at as usize..)?.get(..bytes.len()));
        if let Some(there) = place {
            bytes.copy_from_slice(there);
        }
        place.is_some()
    }
    /// REP OUTSB without paging, from what was loaded.
    fn string_io(&mut self, on: &mut Active<'_>, access: IoAccess) -> Verdict {
        const RCX: u8 = 1;
        const RSI: u8 = 6;
        let (from, count) = (on.read_general(RSI), on.read_general(RCX));
        let mut byte = [0];
        for at in from..from.saturating_add(count.min(RAM)) {
            if access.direction == Direction::In || access.size != 1 || !self.read_memory(at, &mut byte) {
                return Verdict::Stop(Stop::Unsupported(Exit::Io(access)));
            }
            self.write_port(access.port, 1, byte[0].into());
        }
        on.write_general(RSI, 4, from.wrapping_add(count));
        on.write_general(RCX, 4, 0);
        Verdict::Skip
    }
    fn task_priority(&mut self) -> u8 {
        self.task_priority
    }
    fn set_task_priority(&mut self, priority: u8) {
        self.task_priority = priority;
    }
    fn halted(&mut self, _on: &mut Active<'_>) -> Verdict {
        Verdict::Stop(Stop::Halted)
    }
    fn ept_violation(&mut self, _on: &mut Active<'_>, violation: &EptViolation) -> Verdict {
        Verdict::Stop(Stop::OutsideMemory(*violation))
    }
    fn host_event(&mut self, _on: &mut Active<'_>, exit: &Exit) -> Verdict {
        let verdict = match exit {
            Exit::PreemptionTimer => Verdict::Stop(Stop::TimeUp),
            _ => Verdict::Resume,
        };
        self.budget(verdict)
    }
}

/// A tiny guest: its code, its first state, and what must be true when it has halted.
pub struct TinyGuest {
    /// The mode it runs in.
    pub mode: &'static str,
    /// Its code.
    pub code: fn() -> &'static [u8],
    /// The state it starts in.
    pub state: fn() -> GuestState,
    /// What it writes to the console.
    pub output: &'static str,
    /// The mark it leaves.
    pub mark: u32,
    /// What its fault handler sees.
    pub fault: fn(code: &[u8]) -> u64,
    /// CR0 as it reads it.
    pub cr0: u32,
}

/// UD2, to be looked for in a guest's code.
const UD2: [u8; 2] = [0x0f, 0x0b];

/// One in each mode.
pub const GUESTS: [TinyGuest; 3] = [
    TinyGuest {
        mode: "real",
        code: tiny_guests::real,
        state: || GuestState::real_mode((LOAD >> 4) as u16, 0),
        output: "hello from real mode\n",
        mark: 16,
        fault: |code| code.windows(2).position(|bytes| bytes == UD2).unwrap_or(0) as u64,
        cr0: 0x30,
    },
    TinyGuest {
        mode: "protected",
        code: tiny_guests::protected,
        state: || GuestState::protected_mode(LOAD as u32, 0x7000),
        output: "hello from protected mode\n",
        mark: 32,
        fault: |_| 0x60,
        cr0: 0x31,
    },
    TinyGuest {
        mode: "long",
        code: tiny_guests::long,
        state: || GuestState::real_mode((LOAD >> 4) as u16, 0),
        output: "hello from long mode\n",
        mark: 64,
        fault: |_| 0x12_3456_789a,
        cr0: 0x8001_0031,
    },
];

/// A mismatch: what, wanted, found.
pub type Mismatch = (&'static str, u64, u64);

impl TinyGuest {
    /// Compares what the guest did with what it must have done.
    ///
    /// # Errors
    /// The first difference.
    pub fn verify(&self, stop: &Stop, machine: &TinyMachine, memory: &[u8]) -> Result<(), Mismatch> {
        let word =
            |at: usize| u64::from(u32::from_le_bytes(memory[at..at + 4].try_into().expect("four bytes")));
        let vendor =
            |i: usize| u64::from(u32::from_le_bytes(VENDOR[i..i + 4].try_into().expect("four bytes")));
        let equal = |what, wanted: u64, found: u64| {
            if wanted == found { Ok(()) } else { Err((what, wanted, found)) }
        };
        equal("halted", 1, u64::from(*stop == Stop::Halted))?;
        equal("console output", 1, u64::from(machine.output == self.output))?;
        equal("CPUID EBX", vendor(0), word(0x600))?;
        equal("CPUID ECX", vendor(4), word(0x604))?;
        equal("CPUID EDX", vendor(8), word(0x608))?;
        equal("faults handled", 1, word(0x60c))?;
        equal("what the fault handler saw", (self.fault)((self.code)()), word(0x610) | word(0x614) << 32)?;
        equal("RDMSR", AUXILIARY_VALUE.into(), word(0x618))?;
        equal("mark of the mode", self.mark.into(), word(0x620))?;
        equal("CR0 as the guest reads it", self.cr0.into(), word(0x624))
    }
}

/// Loads code into a guest's memory, which is cleared before.
pub fn load(vm: &mut Vm, code: &[u8]) {
    let memory = vm.memory_mut();
    memory.fill(0);
    memory[LOAD as usize..][..code.len()].copy_from_slice(code);
}

/// A guest that means harm, and the word for how it must end.
pub struct Hostile {
    /// Its name.
    pub name: &'static str,
    /// Its code.
    pub code: fn() -> &'static [u8],
    /// Spoils the first state, before the entry.
    pub spoil: fn(&mut GuestState),
    /// The stop it must come to.
    pub ends: &'static str,
}

/// Guests that mean harm.
pub const HOSTILE: [Hostile; 7] = [
    Hostile { name: "triple-fault", code: tiny_guests::triple_fault, spoil: |_| {}, ends: "triple-fault" },
    Hostile { name: "wild-write", code: tiny_guests::wild_write, spoil: |_| {}, ends: "outside-memory" },
    Hostile { name: "endless", code: tiny_guests::endless, spoil: |_| {}, ends: "time-up" },
    Hostile { name: "vmxon", code: tiny_guests::vmxon, spoil: |_| {}, ends: "triple-fault" },
    Hostile { name: "unknown-msr", code: tiny_guests::unknown_msr, spoil: |_| {}, ends: "triple-fault" },
    Hostile {
        name: "invalid-segment",
        code: tiny_guests::endless,
        spoil: |state| state.cs.access |= 0x60,
        ends: "invalid-state",
    },
    Hostile {
        name: "wild-start",
        code: tiny_guests::endless,
        spoil: |state| state.rip = 0x7fff_0000,
        ends: "outside-memory",
    },
];
