//! What is remembered between writes to paging structures: translations, and decoded instructions.

use crate::memory::FRAME;
use machine::paging::store::{self, Store as Instruction};

const PAGE: usize = FRAME as usize;

/// A large page's size, as a power of 2: what is in one may lie in a larger one.
const LARGE: u32 = 21;
const LARGE_OFFSET: u64 = (1 << LARGE) - 1;

/// Large pages of data that are remembered.
const VIEWS: usize = 16;

/// Decoded instructions that are remembered, by their RIP, and bytes of them: of longer ones nothing is remembered.
const DECODED: usize = 16;
const DECODED_BYTES: usize = 8;
const DECODED_LENGTH: u8 = DECODED_BYTES as u8;

/// An instruction that was decoded.
#[derive(Clone, Copy)]
struct Decoded {
    /// In 64-bit code.
    long: bool,
    /// The bytes, and what they are.
    bytes: [u8; DECODED_BYTES],
    instruction: Option<Instruction>,
}

impl Decoded {
    const NONE: Self = Self { long: false, bytes: [0; DECODED_BYTES], instruction: None };
}

/// Translations that are remembered between writes to tables: entries that all are accessed, and as far as they are for data, dirty.
/// What outdates the processor's translations outdates these.
pub struct Views {
    cr3: u64,
    /// The page of code: its number, where it lies among RAM's bytes, and whether a large page maps it.
    code: Option<(u64, usize, bool)>,
    /// Instructions decoded there, by their RIP.
    decoded: [Decoded; DECODED],
    /// Large pages of data, by 2 MByte: the number, and the guest-physical address.
    data: [(u64, u64); VIEWS],
}

impl Views {
    /// Nothing is remembered.
    pub const NONE: Self =
        Self { cr3: 0, code: None, decoded: [Decoded::NONE; DECODED], data: [(u64::MAX, 0); VIEWS] };

    /// CR3 has this value.
    #[inline]
    pub fn enter(&mut self, cr3: u64) {
        if self.cr3 != cr3 {
            self.forget();
            self.cr3 = cr3;
        }
    }

    /// What was decoded need not be forgotten: it is compared with the bytes that are there.
    fn forget(&mut self) {
        self.code = None;
        self.data = [(u64::MAX, 0); VIEWS];
    }

    /// A table of the lowest level may be written unseen from now on.
    pub fn outdate_small(&mut self) {
        self.code = self.code.filter(|(_, _, large)| *large);
    }

    /// The processor's translations are outdated: of a linear address that a page of 4 KByte maps, or all.
    #[inline]
    pub fn outdate(&mut self, linear: Option<u64>) {
        match (linear, self.code) {
            (None, _) => self.forget(),
            // Only entries that map 4 KByte are outdated one by one.
            (Some(linear), Some((page, ..))) if page == linear >> 12 => self.code = None,
            _ => {}
        }
    }

    /// Where the code at RIP lies among RAM's bytes, if that is known.
    #[inline]
    pub fn code(&self, rip: u64) -> Option<usize> {
        let (page, place, _) = self.code?;
        (page == rip >> 12).then_some(place + rip as usize % PAGE)
    }

    /// The code at RIP lies there, in a page of a size that is this power of 2.
    #[inline]
    pub fn note_code(&mut self, rip: u64, place: usize, shift: u32) {
        self.code = Some((rip >> 12, place - place % PAGE, shift > 12));
    }

    /// The guest-physical address of a linear one, if it lies in a large page that is remembered.
    #[inline]
    pub fn physical(&self, linear: u64) -> Option<u64> {
        let number = linear >> LARGE;
        let (known, start) = self.data[number as usize % VIEWS];
        (known == number).then_some(start + (linear & LARGE_OFFSET))
    }

    /// A linear address lies at this guest-physical one, in a page of a size that is this power of 2.
    #[inline]
    pub fn note(&mut self, linear: u64, physical: u64, shift: u32) {
        if shift >= LARGE {
            let number = linear >> LARGE;
            self.data[number as usize % VIEWS] = (number, physical - (linear & LARGE_OFFSET));
        }
    }

    /// The instruction at RIP, whose text begins with `code`, if it is one that tables are written with.
    #[inline]
    pub fn decode(&mut self, rip: u64, code: &[u8], long: bool) -> Option<Instruction> {
        let known = &mut self.decoded[rip as usize % DECODED];
        let bytes = code.first_chunk::<DECODED_BYTES>();
        if let Some(bytes) = bytes
            && known.bytes == *bytes
            && known.long == long
            && known.instruction.is_some()
        {
            return known.instruction;
        }
        let instruction = store::decode(code, long);
        if let (Some(bytes), Some(Instruction { length: ..=DECODED_LENGTH, .. })) = (bytes, instruction) {
            *known = Decoded { long, bytes: *bytes, instruction };
        }
        instruction
    }
}
