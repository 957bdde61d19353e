//! Fetching and decoding: bytes at CS:RIP through the guest's page tables, and a cache of what was decoded.

use super::memory::{Executor, Stop, Width, canonical, read_physical, vector};
use super::walk::Purpose;
use super::{Bus, Cpu, MAX_LENGTH, Seg, Text};
use iced_x86::{Decoder, DecoderError, DecoderOptions, Instruction};

/// Decoded instructions that are kept.
const ENTRIES: usize = 64;
const PAGE: u64 = 0x1000;

/// Builds the decoder's tables, which takes memory from the heap: once, before a guest runs. No later decoding does.
pub fn warm_up() {
    for bits in [16, 32, 64] {
        for options in [DecoderOptions::NONE, DecoderOptions::NO_INVALID_CHECK] {
            let _ = Decoder::with_ip(bits, &[0x90], 0, options).decode();
        }
    }
}

/// An instruction, and whether it was decoded before.
pub struct Decoded {
    pub instruction: Instruction,
    pub cached: bool,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    rip: u64,
    width: Width,
    bytes: [u8; MAX_LENGTH],
    instruction: Instruction,
}

/// Direct-mapped by RIP. An entry is used only where mode, RIP and all bytes are the same, so nobody has to say
/// that code has changed.
#[derive(Debug)]
pub struct Cache([Entry; ENTRIES]);

impl Cache {
    pub fn new() -> Self {
        let instruction = Instruction::default();
        Self([Entry { rip: 0, width: Width::W16, bytes: [0; MAX_LENGTH], instruction }; ENTRIES])
    }

    /// Fetches and decodes the instruction at CS:RIP. `text` gets the bytes.
    pub fn fetch<C: Cpu, B: Bus>(
        &mut self,
        executor: &mut Executor<'_, C, B>,
        text: &mut Text,
    ) -> Result<Decoded, Stop> {
        let (linear, in_segment) = start(executor, text.rip)?;
        let in_page = ((PAGE - linear % PAGE) as usize).min(in_segment);
        append(executor, linear, in_page, text)?;
        let slot = &mut self.0[(text.rip ^ text.rip >> 6) as usize % ENTRIES];
        if slot.matches(executor.width, text) {
            return Ok(Decoded { instruction: slot.instruction, cached: true });
        }
        let mut decoded = decode(executor.width, text);
        if decoded == Err(DecoderError::NoMoreBytes) && in_page < in_segment {
            let second = executor.next_page(linear);
            if executor.width == Width::W64 && !canonical(second) {
                return executor.fault(vector::GENERAL_PROTECTION);
            }
            append(executor, second, in_segment - in_page, text)?;
            decoded = decode(executor.width, text);
        }
        match decoded {
            Ok(instruction) => {
                *slot = Entry { rip: text.rip, width: executor.width, bytes: text.bytes, instruction };
                Ok(Decoded { instruction, cached: false })
            }
            // The segment ends within the instruction.
            Err(DecoderError::NoMoreBytes) => executor.fault(vector::GENERAL_PROTECTION),
            Err(_) if lock_is_wrong(executor.width, text) => executor.fault(vector::INVALID_OPCODE),
            Err(_) => Err(Stop::Undecodable),
        }
    }
}

impl Entry {
    fn matches(&self, width: Width, text: &Text) -> bool {
        let length = self.instruction.len();
        length != 0
            && self.rip == text.rip
            && self.width == width
            && length <= usize::from(text.length)
            && self.bytes[..length] == text.bytes[..length]
    }
}

/// The linear address of the instruction, and how many of its first 15 bytes CS's limit lets through.
fn start<C: Cpu, B: Bus>(executor: &Executor<'_, C, B>, rip: u64) -> Result<(u64, usize), Stop> {
    if executor.width == Width::W64 {
        return if canonical(rip) {
            Ok((rip, MAX_LENGTH))
        } else {
            executor.fault(vector::GENERAL_PROTECTION)
        };
    }
    let code = executor.cpu.segment(Seg::Cs);
    let Some(left) = u64::from(code.limit).checked_sub(rip) else {
        return executor.fault(vector::GENERAL_PROTECTION);
    };
    Ok((rip.wrapping_add(code.base) & 0xffff_ffff, MAX_LENGTH.min((left + 1) as usize)))
}

/// Fetches bytes of one page.
fn append<C: Cpu, B: Bus>(
    executor: &mut Executor<'_, C, B>,
    linear: u64,
    count: usize,
    text: &mut Text,
) -> Result<(), Stop> {
    let page = executor.page(linear, Purpose::Fetch)?;
    let from = usize::from(text.length);
    if let Some(bytes) = text.bytes.get_mut(from..from + count) {
        read_physical(executor.bus, page.physical, bytes)?;
        text.length += count as u8;
    }
    Ok(())
}

fn decode(width: Width, text: &Text) -> Result<Instruction, DecoderError> {
    with_options(width, text, DecoderOptions::NONE)
}

fn with_options(width: Width, text: &Text, options: u32) -> Result<Instruction, DecoderError> {
    let bytes = &text.bytes[..usize::from(text.length)];
    let mut decoder = Decoder::with_ip(8 * u32::from(width.bytes()), bytes, text.rip, options);
    let instruction = decoder.decode();
    match decoder.last_error() {
        DecoderError::None => Ok(instruction),
        error => Err(error),
    }
}

/// It would be an instruction if it did not have a LOCK prefix (SDM vol. 2A, "LOCK").
fn lock_is_wrong(width: Width, text: &Text) -> bool {
    with_options(width, text, DecoderOptions::NO_INVALID_CHECK).is_ok_and(|i| i.has_lock_prefix())
}
