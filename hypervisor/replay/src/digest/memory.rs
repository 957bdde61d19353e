//! Sums over memory that are kept up page by page, and from which a difference can be found.
//!
//! A page's sum is the plain sum of its 512 words modulo 2^64, and above it their CRC-32C: two instructions for a word on a
//! processor that has one for CRC-32C. Pages are dealt into [`BUCKETS`]; a bucket has the plain sum of its pages' sums and the
//! sum weighted by a multiplier of each page, modulo 2^128. These are linear: if one page of a bucket differs, the quotient of the
//! two differences is that page's multiplier, and the recorded sum of the page follows; if one word of it differs, the
//! recorded plain sum says by how much, and the recorded CRC which (see [`super::locate`]).

use super::hash::multiplier;

/// Bytes of a page.
pub const PAGE: usize = 4096;
/// Words of a page.
pub const WORDS: usize = PAGE / 8;

/// Words of a disk's sector.
const SECTOR_WORDS: usize = 64;

/// Buckets that pages are dealt into. A checkpoint records the sums of those that have changed, 32 bytes each, so many would
/// make an idle guest's checkpoints long, and few would put two pages that differ into one.
pub const BUCKETS: usize = 32;

/// Words of the table that the caller keeps for each page: its sum.
pub const TABLE_WORDS: usize = 2;

/// Present, and accessed, in an entry of a page table.
const PRESENT: u64 = 1;
const ACCESSED_BIT: u32 = 5;

/// CRC-32C (Castagnoli), reflected.
const POLYNOMIAL: u32 = 0x82F6_3B78;

/// The CRC of each byte.
static CRC: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// Continues a CRC by a word, as the instruction CRC32 does: no complement before or after.
pub(super) fn crc(crc: u32, word: u64) -> u32 {
    let byte = |crc: u32, byte: &u8| crc >> 8 ^ CRC[usize::from(crc as u8 ^ byte)];
    word.to_le_bytes().iter().fold(crc, byte)
}

/// The CRC that a word of zeros has continued to this one.
pub(super) fn crc_before_zeros(crc: u32) -> u32 {
    (0..8).fold(crc, |crc, _| {
        // No two entries of the table have the same uppermost byte.
        let byte = CRC.iter().position(|entry| entry >> 24 == crc >> 24).unwrap_or(0);
        (crc ^ CRC[byte]) << 8 | byte as u32
    })
}

/// The sum of a page. That of a page of zeros is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageSum(u128);

impl PageSum {
    /// From the CRC-32C over the words, begun with 0 and without complement, and their sum modulo 2^64.
    #[must_use]
    pub const fn new(crc: u32, sum: u64) -> Self {
        Self((crc as u128) << 64 | sum as u128)
    }

    /// Computed by software, byte by byte. `masked`: see [`Memory::new`].
    #[must_use]
    pub fn of(page: &[u8], masked: bool) -> Self {
        let masked = masked && may_be_table(page);
        let (words, _) = page.as_chunks::<8>();
        let (crc, sum) = words.iter().fold((0, 0_u64), |(before, sum), word| {
            let word = counted(u64::from_le_bytes(*word), masked);
            (crc(before, word), sum.wrapping_add(word))
        });
        Self::new(crc, sum)
    }

    /// The CRC and the plain sum; None: no page has this.
    pub(super) fn parts(self) -> Option<(u32, u64)> {
        Some((u32::try_from(self.0 >> 64).ok()?, self.0 as u64))
    }

    /// The sum that is less by this.
    pub(super) const fn less(self, difference: u128) -> Self {
        Self(self.0.wrapping_sub(difference))
    }

    const fn from_table(words: [u64; TABLE_WORDS]) -> Self {
        Self((words[1] as u128) << 64 | words[0] as u128)
    }
}

/// Whether a page may be a paging structure with entries of 8 bytes. Some of its words are looked at: a table's entries are not
/// present, or lead to addresses below 1 TByte. So that a page is not taken for a table now and for data then, the accessed bits do not
/// count here either.
#[inline]
#[must_use]
pub fn may_be_table(page: &[u8]) -> bool {
    /// One word in so many is looked at; odd, so that structures of a size that is a power of 2 are not met at the same place.
    const STRIDE: usize = 31;
    const ELSEWHERE: u64 = 0x000f_ff00_0000_0000;
    let (words, _) = page.as_chunks::<8>();
    words.iter().step_by(STRIDE).all(|word| {
        let word = u64::from_le_bytes(*word);
        word & PRESENT == 0 || word & ELSEWHERE == 0
    })
}

/// A word of a page that may be a table, as it counts, if `masked`; of any other page: not `masked`.
pub(super) const fn counted(word: u64, masked: bool) -> u64 {
    if masked { word & !((word & PRESENT) << ACCESSED_BIT) } else { word }
}

/// The sums over a bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Of the pages' sums.
    pub plain: u128,
    /// Of the pages' sums, each times its page's multiplier.
    pub weighted: u128,
}

impl Sum {
    /// Over pages of zeros.
    pub const ZERO: Self = Self { plain: 0, weighted: 0 };
}

/// Where the pages lie in guest-physical memory: from 0 on, and those that do not fit below a hole above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Pages.
    pub pages: u64,
    /// The page number at which the hole begins.
    pub hole: u64,
    /// The page number from which on the rest lies.
    pub high: u64,
}

impl Shape {
    /// The page number (guest-physical address / 4096) of the page with this index.
    #[must_use]
    pub const fn number(&self, index: u64) -> u64 {
        if index < self.hole { index } else { index - self.hole + self.high }
    }
}

/// The bucket and the multiplier of a page.
pub(super) const fn place(index: u64) -> (usize, u64) {
    // Another sequence than the words'.
    ((index % BUCKETS as u64) as usize, multiplier(index ^ 0x5A5A << 40))
}

/// The sums over a memory. The table with the pages' sums, [`TABLE_WORDS`] for each page, zeros at first, is the caller's.
#[derive(Clone, Debug)]
pub struct Memory {
    shape: Shape,
    /// The accessed bits of what may be page tables do not count.
    masked: bool,
    sums: [Sum; BUCKETS],
}

impl Memory {
    /// A memory of zeros. `masked`: in pages that may be paging structures ([`may_be_table`]), bit 5 of words whose bit 0 is set
    /// is left out, which in an entry is the accessed bit.
    #[must_use]
    pub const fn new(shape: Shape, masked: bool) -> Self {
        Self { shape, masked, sums: [Sum::ZERO; BUCKETS] }
    }

    /// Where its pages lie.
    #[must_use]
    pub const fn shape(&self) -> Shape {
        self.shape
    }

    /// The sums.
    #[must_use]
    pub const fn sums(&self) -> &[Sum; BUCKETS] {
        &self.sums
    }

    /// Whether accessed bits are left out.
    #[must_use]
    pub const fn masked(&self) -> bool {
        self.masked
    }

    /// A page has this sum now.
    pub fn update(&mut self, table: &mut [u64], index: u64, new: PageSum) {
        let Some(slot) = slot(table, index) else { return };
        let change = new.0.wrapping_sub(PageSum::from_table(*slot).0);
        *slot = [new.0 as u64, (new.0 >> 64) as u64];
        let (bucket, weight) = place(index);
        let sum = &mut self.sums[bucket];
        sum.plain = sum.plain.wrapping_add(change);
        sum.weighted = sum.weighted.wrapping_add(change.wrapping_mul(weight.into()));
    }

    /// Whether a page's sum is what was last told.
    #[must_use]
    pub fn is_current(&self, table: &[u64], index: u64, sum: PageSum) -> bool {
        let words = table.as_chunks::<TABLE_WORDS>().0.get(index as usize);
        words.is_some_and(|words| PageSum::from_table(*words) == sum)
    }
}

fn slot(table: &mut [u64], index: u64) -> Option<&mut [u64; TABLE_WORDS]> {
    table.as_chunks_mut::<TABLE_WORDS>().0.get_mut(usize::try_from(index).ok()?)
}

/// The multipliers of a sector's words.
static MULTIPLIERS: [u64; SECTOR_WORDS] = {
    let mut table = [0; SECTOR_WORDS];
    let mut index = 0;
    while index < SECTOR_WORDS {
        table[index] = multiplier(index as u64);
        index += 1;
    }
    table
};

/// The sum of a sector's words, each times its multiplier: about five instructions a word.
fn sector_sum(sector: &[u8]) -> u128 {
    let (words, _) = sector.as_chunks::<8>();
    words.iter().zip(&MULTIPLIERS).fold(0_u128, |sum, (word, multiplier)| {
        sum.wrapping_add(u128::from(u64::from_le_bytes(*word)).wrapping_mul(u128::from(*multiplier)))
    })
}

/// The running sum over what is written to a disk: each write takes what was there out and puts what is there now in. It begins at
/// 0 whatever the disk holds, so two disks that began alike are alike while their sums are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskSum(u128);

impl DiskSum {
    /// This sector's content was `old` and is `new`.
    pub fn written(&mut self, sector: u64, old: &[u8], new: &[u8]) {
        let change = sector_sum(new).wrapping_sub(sector_sum(old));
        self.0 = self.0.wrapping_add(change.wrapping_mul(multiplier(sector ^ 0xD15C << 40).into()));
    }

    /// The sum in 64 bits.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        super::hash::fold(self.0 as u64, (self.0 >> 64) as u64)
    }
}
