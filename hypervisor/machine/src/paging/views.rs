//! What is remembered between writes to paging structures: translations, and decoded instructions.

use super::store::{self, Store as Instruction};

const PAGE: usize = 4096;

/// A large page's size, as a power of 2: what is in one may lie in a larger one.
const LARGE: u32 = 21;
const LARGE_OFFSET: u64 = (1 << LARGE) - 1;

/// Large pages of data that are remembered: tables lie all over a guest's memory.
const VIEWS: usize = 128;

/// Pages of code that are remembered: a kernel writes to its tables in a dozen functions.
const CODES: usize = 16;

/// The times at which everything was forgotten are counted above a page's number, which has 52 bits at most; after so many the count
/// begins anew, so that no key has all bits set.
const EPOCH_SHIFT: u32 = 52;
const EPOCHS: u64 = (1 << (u64::BITS - EPOCH_SHIFT)) - 1;

/// No large page of data.
const NO_DATA: [(u64, u64); VIEWS] = [(u64::MAX, 0); VIEWS];

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

/// A page of code that is remembered.
#[derive(Clone, Copy)]
struct Code {
    /// Its number, with the epoch.
    key: u64,
    /// Where it lies among RAM's bytes.
    place: usize,
    /// A large page maps it.
    large: bool,
}

impl Code {
    const NONE: Self = Self { key: u64::MAX, place: 0, large: false };
}

/// Translations that are remembered between writes to tables: entries that all are accessed, and as far as they are for data, dirty.
/// What outdates the processor's translations outdates these.
pub struct Views {
    cr3: u64,
    /// How often everything was forgotten: what has another number in its key is forgotten.
    epoch: u64,
    /// Pages of code, by their number.
    codes: [Code; CODES],
    /// Instructions decoded there, by their RIP.
    decoded: [Decoded; DECODED],
    /// Large pages of data, by 2 MByte: the number with the epoch, and the guest-physical address.
    data: [(u64, u64); VIEWS],
}

impl Views {
    /// Nothing is remembered.
    pub const NONE: Self = Self {
        cr3: 0,
        epoch: 0,
        codes: [Code::NONE; CODES],
        decoded: [Decoded::NONE; DECODED],
        data: NO_DATA,
    };

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
        self.epoch += 1;
        if self.epoch == EPOCHS {
            (self.epoch, self.codes, self.data) = (0, [Code::NONE; CODES], NO_DATA);
        }
    }

    /// A page's number (of 52 bits at most) and the epoch in one.
    #[inline]
    const fn key(&self, number: u64) -> u64 {
        number | self.epoch << EPOCH_SHIFT
    }

    /// A table of the lowest level may be written unseen from now on.
    pub fn outdate_small(&mut self) {
        self.codes.iter_mut().filter(|code| !code.large).for_each(|code| *code = Code::NONE);
    }

    /// The processor's translations are outdated: of a linear address that a page of 4 KByte maps, or all.
    #[inline]
    pub fn outdate(&mut self, linear: Option<u64>) {
        let Some(linear) = linear else { return self.forget() };
        // Only entries that map 4 KByte are outdated one by one.
        let number = linear >> 12;
        let key = self.key(number);
        let code = &mut self.codes[number as usize % CODES];
        if code.key == key {
            *code = Code::NONE;
        }
    }

    /// Where the code at RIP lies among RAM's bytes, if that is known.
    #[inline]
    pub fn code(&self, rip: u64) -> Option<usize> {
        let number = rip >> 12;
        let code = &self.codes[number as usize % CODES];
        (code.key == self.key(number)).then_some(code.place + rip as usize % PAGE)
    }

    /// The code at RIP lies there, in a page of a size that is this power of 2.
    #[inline]
    pub fn note_code(&mut self, rip: u64, place: usize, shift: u32) {
        let number = rip >> 12;
        self.codes[number as usize % CODES] =
            Code { key: self.key(number), place: place - place % PAGE, large: shift > 12 };
    }

    /// The guest-physical address of a linear one, if it lies in a large page that is remembered.
    #[inline]
    pub fn physical(&self, linear: u64) -> Option<u64> {
        let number = linear >> LARGE;
        let (known, start) = self.data[number as usize % VIEWS];
        (known == self.key(number)).then_some(start + (linear & LARGE_OFFSET))
    }

    /// A linear address lies at this guest-physical one, in a page of a size that is this power of 2.
    #[inline]
    pub fn note(&mut self, linear: u64, physical: u64, shift: u32) {
        if shift >= LARGE {
            let number = linear >> LARGE;
            self.data[number as usize % VIEWS] = (self.key(number), physical - (linear & LARGE_OFFSET));
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

#[cfg(test)]
mod tests {
    use super::*;

    const RIP: u64 = 0xffff_ffff_8100_1234;
    const TOP: u64 = 0xffff_ffff_ffff_f123;
    const DATA: u64 = 0xffff_8880_0123_4568;

    fn filled() -> Views {
        let mut views = Views::NONE;
        views.enter(0x1000);
        views.note_code(RIP, 0x5234, LARGE);
        views.note(DATA, 0x123_4568, 30);
        views
    }

    #[test]
    fn knows_what_was_noted_and_nothing_else() {
        let views = filled();
        assert_eq!(views.code(RIP + 4), Some(0x5238));
        assert_eq!(views.code(RIP + 0x1000), None);
        assert_eq!(views.code(RIP + 0x1000 * CODES as u64), None, "another page in the same place");
        assert_eq!(views.physical(DATA + 8), Some(0x123_4570));
        assert_eq!(views.physical(DATA + ((VIEWS as u64) << LARGE)), None);
        assert_eq!(Views::NONE.code(TOP), None);
    }

    #[test]
    fn forgets_with_another_cr3_and_with_all_translations() {
        let mut other = filled();
        other.enter(0x2000);
        let mut flushed = filled();
        flushed.outdate(None);
        for views in [&other, &flushed] {
            assert_eq!((views.code(RIP), views.physical(DATA)), (None, None));
        }
    }

    #[test]
    fn small_pages_of_code_are_outdated_alone() {
        let mut views = filled();
        views.note_code(RIP + 0x1000, 0x9234, 12);
        views.outdate(Some(RIP + 0x1000));
        assert_eq!((views.code(RIP), views.code(RIP + 0x1000)), (Some(0x5234), None));
        views.note_code(RIP + 0x1000, 0x9234, 12);
        views.outdate_small();
        assert_eq!((views.code(RIP), views.code(RIP + 0x1000)), (Some(0x5234), None));
    }

    #[test]
    fn nothing_comes_back_when_epochs_begin_anew() {
        let mut views = filled();
        for _ in 0..2 * EPOCHS {
            views.outdate(None);
            assert_eq!((views.code(RIP), views.code(TOP), views.physical(DATA)), (None, None, None));
        }
    }
}
