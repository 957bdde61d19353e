//! The hash of devices' states and the like: 64 bits, a few instructions for a word.

/// Multiplies and folds, so that no word's value cancels another's.
#[inline]
#[must_use]
pub const fn fold(hash: u64, word: u64) -> u64 {
    let wide = (hash ^ word) as u128 * 0x9E37_79B9_7F4A_7C15_u128;
    ((wide as u64) ^ ((wide >> 64) as u64)).rotate_left(23).wrapping_add(word)
}

/// A well-mixed odd number for each index: the multipliers of sums.
#[must_use]
pub const fn multiplier(index: u64) -> u64 {
    // The finalizer of SplitMix64 (Steele, Lea, Flood, 2014).
    let mut mixed = index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    (mixed ^ mixed >> 31) | 1
}

/// A hash under way.
#[derive(Clone, Copy, Debug)]
pub struct Hash {
    hash: u64,
    /// Bytes that make no whole word yet, and how many there are.
    partial: u64,
    bytes: u64,
}

impl Default for Hash {
    fn default() -> Self {
        Self::new()
    }
}

impl Hash {
    /// Over nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { hash: 0x243F_6A88_85A3_08D3, partial: 0, bytes: 0 }
    }

    /// Eight more bytes.
    #[inline]
    pub fn word(&mut self, word: u64) {
        self.bytes(&word.to_le_bytes());
    }

    /// One more byte.
    #[inline]
    pub const fn byte(&mut self, byte: u8) {
        self.partial |= (byte as u64) << (self.bytes % 8 * 8);
        self.bytes += 1;
        if self.bytes.is_multiple_of(8) {
            self.hash = fold(self.hash, self.partial);
            self.partial = 0;
        }
    }

    /// More bytes. However they are cut, the hash is the same.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some((first, others)) = rest.split_first()
            && !self.bytes.is_multiple_of(8)
        {
            self.byte(*first);
            rest = others;
        }
        let (words, tail) = rest.as_chunks::<8>();
        for word in words {
            self.hash = fold(self.hash, u64::from_le_bytes(*word));
        }
        self.bytes += words.len() as u64 * 8;
        tail.iter().for_each(|byte| self.byte(*byte));
    }

    /// The hash; the number of bytes counts.
    #[inline]
    #[must_use]
    pub const fn finish(&self) -> u64 {
        fold(fold(self.hash, self.partial), self.bytes)
    }
}
