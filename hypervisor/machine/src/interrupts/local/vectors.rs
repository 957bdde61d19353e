//! A set of interrupt vectors: IRR, ISR and TMR of a local APIC.

use serde::{Deserialize, Serialize};

/// A set of the vectors 0 to 255.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vectors(pub [u64; 4]);

impl Vectors {
    /// Puts a vector in, or takes it out.
    #[inline]
    pub fn set(&mut self, vector: u8, on: bool) {
        let word = &mut self.0[usize::from(vector >> 6)];
        let bit = 1 << (vector & 63);
        *word = *word & !bit | if on { bit } else { 0 };
    }

    /// Whether a vector is in.
    #[inline]
    pub fn contains(&self, vector: u8) -> bool {
        self.0[usize::from(vector >> 6)] >> (vector & 63) & 1 != 0
    }

    /// The highest vector.
    #[inline]
    pub fn highest(&self) -> Option<u8> {
        let [a, b, c, d] = self.0;
        let (top, word) = match () {
            () if d != 0 => (255, d),
            () if c != 0 => (191, c),
            () if b != 0 => (127, b),
            () if a != 0 => (63, a),
            () => return None,
        };
        Some(top - word.leading_zeros() as u8)
    }

    /// The 32-bit register of this number, 0 to 7.
    pub fn register(&self, number: u64) -> u32 {
        let word = self.0[(number >> 1 & 3) as usize];
        (word >> ((number & 1) * 32)) as u32
    }
}
