//! Short pieces of code of which every single step is known: where RIP is after it and what has retired.

use core::arch::naked_asm;

use crate::code::{self, Piece, Routine};

/// Where RIP is after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At this offset in the piece.
    Here(u64),
    /// At the first instruction of the bare IRETQ handler.
    IretHandler,
    /// At the handler of #UD that skips two bytes, or this far into it.
    UdHandler(u64),
}

impl Place {
    /// The linear address.
    pub fn address(self, piece: &Piece) -> u64 {
        match self {
            Self::Here(offset) => piece.routine.address() as usize as u64 + offset,
            Self::IretHandler => code::iret_address(),
            Self::UdHandler(offset) => code::skip_ud2_address() + offset,
        }
    }
}

/// After one step: where RIP is, and all that has retired.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// RIP.
    pub place: Place,
    /// Instructions retired since the start.
    pub retired: u64,
}

/// A piece and its first steps.
pub struct Script {
    /// The code; not all of its numbers need to mean anything.
    pub piece: Piece,
    /// Its steps from the first instruction on.
    pub steps: &'static [Step],
}

macro_rules! piece {
    ($name:ident, $($asm:tt)*) => {{
        #[unsafe(naked)]
        unsafe extern "C" fn code() {
            naked_asm!($($asm)*)
        }
        // SAFETY of calling: these are only stepped through in the guest.
        Piece {
            name: stringify!($name),
            routine: Routine::new(code),
            instructions: 0,
            conditional: None,
            taken: 0,
            branches: 0,
        }
    }};
}

const fn here(offset: u64, retired: u64) -> Step {
    Step { place: Place::Here(offset), retired }
}

/// Straight code, branches, INT n and its IRET, a fault and its handler.
pub fn scripts() -> [Script; 4] {
    [
        Script {
            piece: piece!(straight, "nop", ".byte 0x66, 0x90", "xor eax, eax", "nop", "ret"),
            steps: const { &[here(1, 1), here(3, 2), here(5, 3), here(6, 4)] },
        },
        Script {
            // EB 01: over one byte; EB FE would be a loop to itself.
            piece: piece!(
                branches,
                "xor eax, eax",
                "jz 2f",
                "nop",
                "2: jnz 2b",
                "call 3f",
                "nop",
                "3: pop rax",
                "ret"
            ),
            steps: const { &[here(2, 1), here(5, 2), here(7, 3), here(13, 4), here(14, 5)] },
        },
        Script {
            piece: piece!(int_n, "nop", "int 0x41", "nop", "ret"),
            steps: const { &[here(1, 1), Step { place: Place::IretHandler, retired: 2 }, here(3, 3), here(4, 4)] },
        },
        Script {
            piece: piece!(fault, "nop", "ud2", "nop", "ret"),
            steps: const {
                &[
                    here(1, 1),
                    // UD2 does not retire; its delivery is a step.
                    Step { place: Place::UdHandler(0), retired: 1 },
                    Step { place: Place::UdHandler(5), retired: 2 },
                    here(3, 3),
                    here(4, 4),
                ]
            },
        },
    ]
}

/// REP STOSB with the registers as they are; two bytes.
pub fn rep_stosb() -> Piece {
    piece!(rep_stosb, "rep stosb", "nop", "ret")
}

/// STI with IF clear before, then NOPs.
pub fn sti() -> Piece {
    piece!(sti, "sti", "nop", "nop", "ret")
}

/// MOV SS of the value it has; the register is RAX, which the guest starts with, so XOR would cost a step: SS 0 is
/// legal in ring 0.
pub fn mov_ss() -> Piece {
    piece!(mov_ss, "mov ss, r8d", "nop", "nop", "ret")
}

/// NOP, CPUID, NOP.
pub fn cpuid() -> Piece {
    piece!(cpuid, "nop", "cpuid", "nop", "ret")
}

/// HLT.
pub fn hlt() -> Piece {
    piece!(hlt, "hlt", "nop", "ret")
}

/// Writes EAX to the doubleword at RDI: the APIC's command register.
pub fn self_interrupt() -> Piece {
    piece!(self_interrupt, "mov [rdi], eax", "nop", "nop", "ret")
}
