//! Sums over memory that are kept up page by page, and from which a difference can be found.
//!
//! A page's sum is the sum of its 512 words, each times a multiplier of its own, modulo 2^128. Pages are dealt into
//! [`BUCKETS`]; a bucket has the plain sum of its pages' sums and the sum weighted by a multiplier of each page. All of it is
//! linear: if one page of a bucket differs, the quotient of the two differences is that page's multiplier, and if one word of the
//! page differs, the difference is that word's, times that word's multiplier (see [`super::locate`]).

use super::hash::multiplier;

/// Bytes of a page.
pub const PAGE: usize = 4096;
/// Words of a page.
pub const WORDS: usize = PAGE / 8;

/// Buckets that pages are dealt into. A checkpoint records the sums of those that have changed, 32 bytes each, so many would
/// make an idle guest's checkpoints long, and few would put two pages that differ into one.
pub const BUCKETS: usize = 32;

/// Words of the table that the caller keeps for each page: its sum.
pub const TABLE_WORDS: usize = 2;

/// Present, and accessed, in an entry of a page table.
const PRESENT: u64 = 1;
const ACCESSED_BIT: u32 = 5;

/// The words' multipliers.
pub(super) static MULTIPLIERS: [u64; WORDS] = {
    let mut table = [0; WORDS];
    let mut index = 0;
    while index < WORDS {
        table[index] = multiplier(index as u64);
        index += 1;
    }
    table
};

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
    /// A memory of zeros. `masked`: bit 5 of words whose bit 0 is set is left out, which in an entry of a page table is the
    /// accessed bit.
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

    /// A page's content is now this: 4096 bytes. About 3,500 instructions.
    pub fn update(&mut self, table: &mut [u64], index: u64, page: &[u8]) {
        let new = self.page_sum(page);
        let Some([low, high]) = slot(table, index) else { return };
        let old = u128::from(*high) << 64 | u128::from(*low);
        (*low, *high) = (new as u64, (new >> 64) as u64);
        let change = new.wrapping_sub(old);
        let (bucket, weight) = place(index);
        let sum = &mut self.sums[bucket];
        sum.plain = sum.plain.wrapping_add(change);
        sum.weighted = sum.weighted.wrapping_add(change.wrapping_mul(weight.into()));
    }

    /// Whether a page's content is what it was when it was last told.
    #[must_use]
    pub fn is_current(&self, table: &[u64], index: u64, page: &[u8]) -> bool {
        let start = index as usize * TABLE_WORDS;
        let sum = self.page_sum(page);
        table.get(start..start + TABLE_WORDS) == Some(&[sum as u64, (sum >> 64) as u64])
    }

    /// A word as it counts.
    pub(super) const fn counted(&self, word: u64) -> u64 {
        if self.masked { masked(word) } else { word }
    }

    fn page_sum(&self, page: &[u8]) -> u128 {
        if self.masked { sum_of(page, masked) } else { sum_of(page, |word| word) }
    }
}

const fn masked(word: u64) -> u64 {
    word & !((word & PRESENT) << ACCESSED_BIT)
}

#[inline]
fn sum_of(page: &[u8], counted: impl Fn(u64) -> u64) -> u128 {
    let (words, _) = page.as_chunks::<8>();
    words.iter().zip(&MULTIPLIERS).fold(0_u128, |sum, (word, multiplier)| {
        let word = counted(u64::from_le_bytes(*word));
        sum.wrapping_add(u128::from(word).wrapping_mul(u128::from(*multiplier)))
    })
}

fn slot(table: &mut [u64], index: u64) -> Option<&mut [u64; TABLE_WORDS]> {
    table.as_chunks_mut::<TABLE_WORDS>().0.get_mut(usize::try_from(index).ok()?)
}

/// The running sum over what is written to a disk: each write takes what was there out and puts what is there now in. It begins at
/// 0 whatever the disk holds, so two disks that began alike are alike while their sums are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskSum(u128);

impl DiskSum {
    /// This sector's content was `old` and is `new`.
    pub fn written(&mut self, sector: u64, old: &[u8], new: &[u8]) {
        let change = sum_of(new, |word| word).wrapping_sub(sum_of(old, |word| word));
        self.0 = self.0.wrapping_add(change.wrapping_mul(multiplier(sector ^ 0xD15C << 40).into()));
    }

    /// The sum in 64 bits.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        super::hash::fold(self.0 as u64, (self.0 >> 64) as u64)
    }
}
