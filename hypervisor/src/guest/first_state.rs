//! The state in which a guest's processor begins, from what the loader has put into memory.

use crate::arch::vmenter::Registers;
use machine::load::{Segments, Start};
use vmx::guest_state::{GuestState, Segment, Table};

/// Numbers of RBX and RSI among the general registers.
const RBX: usize = 3;
const RSI: usize = 6;
/// EDX after a reset: family and model (SDM vol. 3A, "Processor State After Reset"); the profile's signature.
const RDX: usize = 2;

/// What the VMCS and the general registers hold at the first instruction.
pub fn of(start: &Start, signature: u32) -> (GuestState, [u64; 16]) {
    let mut general = [0; 16];
    let state = match *start {
        Start::LongMode { entry, rsi, rsp, cr3, segments } => {
            general[RSI] = rsi;
            with_segments(GuestState::long_mode(entry, rsp, cr3), &segments)
        }
        Start::Protected { entry, eax, ebx, esi, esp, segments } => {
            general[Registers::RAX] = eax.into();
            general[RBX] = ebx.into();
            general[RSI] = esi.into();
            with_segments(GuestState::protected_mode(entry, esp), &segments)
        }
        Start::RealModeReset => {
            general[RDX] = signature.into();
            GuestState {
                cs: Segment { selector: 0xF000, base: 0xFFFF_0000, ..Segment::real_code(0) },
                ..GuestState::real_mode(0, 0xFFF0)
            }
        }
    };
    (state, general)
}

/// The state with the loader's descriptor table and selectors.
fn with_segments(state: GuestState, segments: &Segments) -> GuestState {
    let data = Segment { selector: segments.data, ..state.ds };
    GuestState {
        cs: Segment { selector: segments.code, ..state.cs },
        ss: data,
        ds: data,
        es: data,
        fs: data,
        gs: data,
        gdtr: Table { base: segments.gdt, limit: segments.limit.into() },
        ..state
    }
}
