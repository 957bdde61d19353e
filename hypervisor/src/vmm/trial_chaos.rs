//! A check by a tiny guest that executes blocks of random privileged instructions: whatever it does to its registers, the
//! processor must accept the state that our handlers leave, and every exit must have an answer.

use super::tiny_guest::{self, TinyMachine};
use super::trial::{expect, word};
use super::vm::Vm;
use crate::arch::{tiny_guests, vmx as processor};
use crate::machine_line;
use crate::vcpu::{self, Active, Stop};
use machine::cpu::Profile;
use vmx::fields::{self, VmcsRead};
use vmx::guest_state::GuestState;

/// Blocks, and bytes of each.
const BLOCKS: u32 = 256;
const BLOCK: usize = 64;
/// Where the blocks, their registers, and the counters are.
const CODE: usize = 0x20000;
const REGISTERS: usize = 0x10000;
const COUNT: usize = 0x500;
const LIMIT: usize = 0x508;
/// Registers of a block, as POPA takes them.
const POPA: usize = 8;
/// Ticks of the preemption timer that a run of blocks may take.
const TICKS: u32 = 20_000;
/// The seeds; every boot runs the same blocks.
const SEEDS: core::ops::Range<u64> = 1..2;

/// Page tables of the long-mode guest: PML4, PDPT, page directory of one identity page of 2 MBytes.
const TABLES: [(usize, u64); 3] = [(0x18000, 0x19003), (0x19000, 0x1a003), (0x1a000, 0x83)];

/// What runs the blocks, and the state it starts in.
struct Mode {
    code: fn() -> &'static [u8],
    state: fn() -> GuestState,
}

const MODES: [Mode; 2] = [
    Mode { code: tiny_guests::chaos, state: || GuestState::protected_mode(tiny_guest::LOAD as u32, 0x7000) },
    Mode {
        code: tiny_guests::chaos_long,
        state: || GuestState::long_mode(tiny_guest::LOAD, 0x7000, TABLES[0].0 as u64),
    },
];

/// Instructions that matter here: length, then bytes; a byte marked in the mask is random.
const INSTRUCTIONS: &[(&[u8], u8)] = &[
    (&[0x0f, 0x22, 0xc0], 0b100),                                 // MOV to CR
    (&[0x0f, 0x22, 0xc0], 0),                                     // MOV to CR0
    (&[0x0f, 0x22, 0xe1], 0),                                     // MOV to CR4
    (&[0x0f, 0x20, 0xc0], 0b100),                                 // MOV from CR
    (&[0x0f, 0x23, 0xc0], 0b100),                                 // MOV to DR
    (&[0x0f, 0x21, 0xc0], 0b100),                                 // MOV from DR
    (&[0x0f, 0x01, 0xd1], 0),                                     // XSETBV
    (&[0x0f, 0x01, 0xd0], 0),                                     // XGETBV
    (&[0x0f, 0x01, 0xf0], 0),                                     // LMSW AX
    (&[0x0f, 0x01, 0xc0], 0b100), // group 7: SGDT to INVLPG, VMCALL, MONITOR, SWAPGS, RDTSCP
    (&[0x0f, 0x00, 0xd8], 0b100), // group 6: SLDT to VERW
    (&[0x0f, 0x06], 0),           // CLTS
    (&[0x0f, 0x30], 0),           // WRMSR
    (&[0x0f, 0x32], 0),           // RDMSR
    (&[0x0f, 0x31], 0),           // RDTSC
    (&[0x0f, 0x33], 0),           // RDPMC
    (&[0x0f, 0x37], 0),           // GETSEC
    (&[0x0f, 0xaa], 0),           // RSM
    (&[0x0f, 0xa2], 0),           // CPUID
    (&[0x0f, 0x08], 0),           // INVD
    (&[0x0f, 0x09], 0),           // WBINVD
    (&[0x0f, 0xc7, 0xc0], 0b100), // group 9: RDRAND, VMXON
    (&[0x0f, 0x78, 0xc0], 0b100), // VMREAD
    (&[0x8e, 0xd0], 0),           // MOV SS, AX
    (&[0x66, 0xb8, 0x10, 0x00, 0x8e, 0xd0], 0), // MOV AX, 10h; MOV SS, AX
    (&[0xfa], 0),                 // CLI
    (&[0xfb], 0),                 // STI
    (&[0x9c, 0x81, 0x0c, 0x24, 0x00, 0x01, 0x00, 0x00, 0x9d], 0), // TF = 1
    (&[0x9c, 0x80, 0x74, 0x24, 0x02, 0x00, 0x9d], 0b10_0000), // other flags
    (&[0xf1], 0),                 // INT1
    (&[0xcc], 0),                 // INT3
    (&[0xcd, 0x00], 0b10),        // INT n
    (&[0xe4, 0x00], 0b10),        // IN
    (&[0xe6, 0x00], 0b10),        // OUT
    (&[0xee], 0),                 // OUT DX
    (&[0xb8, 0x11, 0x00, 0x00, 0x80], 0), // EAX = PG, ET, PE
    (&[0xb8, 0x31, 0x00, 0x00, 0x60], 0), // EAX = CD, NW, NE, ET, PE
    (&[0xb9, 0x20, 0x00, 0x00, 0x00], 0), // ECX = PAE
    (&[0xb9, 0x00, 0x00, 0x00, 0x00], 0b110), // ECX = a low MSR
    (&[0xb9, 0x80, 0x00, 0x00, 0xc0], 0b10), // ECX = a high MSR
    (&[0xb9, 0xd9, 0x01, 0x00, 0x00], 0), // ECX = IA32_DEBUGCTL
    (&[0x31, 0xd2], 0),           // EDX = 0
    (&[0xb8, 0x18, 0x00, 0x00, 0x00, 0x0f, 0x00, 0xd8], 0), // LTR of a 16-bit TSS
    (&[0xea, 0x00, 0x00, 0x00, 0x00, 0x18, 0x00], 0), // a task switch by JMP
    (&[0xcf], 0),                 // IRET
    (&[0xf4], 0),                 // HLT
];

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// A value of the kind that registers get: a bit, a few bits, or anything.
    fn value(&mut self) -> u32 {
        match self.below(4) {
            0 => 1 << self.below(32),
            1 => self.below(256) as u32,
            2 => 0x8000_0031 ^ 1 << self.below(32),
            _ => self.next() as u32,
        }
    }
}

fn fill_block(random: &mut Random, block: &mut [u8]) {
    let mut at = 0;
    while at < block.len() {
        let (bytes, mask) = INSTRUCTIONS[random.below(INSTRUCTIONS.len())];
        for (i, byte) in bytes.iter().enumerate() {
            let Some(place) = block.get_mut(at + i) else { break };
            *place = if u16::from(mask) & 1 << i != 0 { *byte ^ random.next() as u8 } else { *byte };
        }
        at += bytes.len();
        // Now and then, something that nobody has thought of.
        if random.below(16) == 0 && at < block.len() {
            block[at] = random.next() as u8;
            at += 1;
        }
    }
}

/// Runs all blocks; a run that ends, however, is followed by another from the next block on. The only ends that are wrong
/// are a state that the processor does not accept, and an exit without an answer.
pub fn chaos(vm: &mut Vm, on: &mut Active<'_>) -> Result<(), &'static str> {
    let exits = on.exits();
    let mut runs = 0;
    if let Some(profile) = Profile::best(processor::cpuid) {
        on.set_profile(profile);
    }
    let result = SEEDS.into_iter().try_for_each(|seed| {
        MODES.iter().try_for_each(|mode| {
            fill(vm, &mut Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
            run_blocks(vm, on, mode, &mut runs)
        })
    });
    let blocks = SEEDS.count() * MODES.len() * BLOCKS as usize;
    machine_line!("chaos blocks={blocks} runs={runs} exits={}", on.exits() - exits);
    on.set_profile(&Profile::all()[0]);
    result
}

fn fill(vm: &mut Vm, random: &mut Random) {
    let memory = vm.memory_mut();
    memory.fill(0);
    memory[CODE..CODE + BLOCKS as usize * BLOCK].chunks_exact_mut(BLOCK).for_each(|b| fill_block(random, b));
    for place in memory[REGISTERS..REGISTERS + BLOCKS as usize * POPA * 4].chunks_exact_mut(4) {
        place.copy_from_slice(&random.value().to_le_bytes());
    }
}

/// Puts what runs the blocks in its place, each time: a block may have written over it.
fn place(vm: &mut Vm, mode: &Mode, first: u32) {
    let (memory, code) = (vm.memory_mut(), (mode.code)());
    memory[tiny_guest::LOAD as usize..][..code.len()].copy_from_slice(code);
    memory[COUNT..COUNT + 4].copy_from_slice(&first.to_le_bytes());
    memory[LIMIT..LIMIT + 4].copy_from_slice(&BLOCKS.to_le_bytes());
    for (at, entry) in TABLES {
        memory[at..at + 8].copy_from_slice(&entry.to_le_bytes());
    }
}

fn run_blocks(vm: &mut Vm, on: &mut Active<'_>, mode: &Mode, runs: &mut u32) -> Result<(), &'static str> {
    let mut first = 0;
    while first < BLOCKS {
        place(vm, mode, first);
        on.set_state(&(mode.state)());
        on.arm_preemption_timer(Some(TICKS));
        let stop = vcpu::run(on, &mut TinyMachine::default());
        *runs += 1;
        let wrong =
            matches!(stop, Stop::InvalidState(..) | Stop::EntryRefused(_) | Stop::EptMisconfiguration(_));
        if wrong {
            let event = on.vmcs().read(fields::ENTRY_INTERRUPTION_INFO);
            log::error!("chaos: blocks {first} to {}: {stop}", word(vm, COUNT));
            log::error!("chaos: event {event:#x} in {:x?}", on.state());
        }
        expect(!wrong, "a guest can make its own state invalid")?;
        first = word(vm, COUNT).clamp(first + 1, BLOCKS);
    }
    Ok(())
}
