//! The checksum of IP, TCP and UDP (RFC 1071), as cards with offloads compute it; here eight bytes at a time, with one instruction.

/// A sum under way.
#[derive(Clone, Copy, Debug, Default)]
pub struct InternetSum {
    /// The sum of the bytes taken as little-endian words, modulo 2^64 - 1: bytes are exchanged at the end (RFC 1071, 2(B)).
    words: u64,
    /// So far an odd number of bytes was added.
    odd: bool,
}

impl InternetSum {
    /// Nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { words: 0, odd: false }
    }

    /// Adds bytes that follow those before.
    #[inline]
    pub fn add(&mut self, bytes: &[u8]) {
        let (rounds, rest) = bytes.as_chunks::<64>();
        let mut sum = 0;
        for round in rounds {
            let mut carrying = Carrying { sum, carry: false };
            round.as_chunks().0.iter().for_each(|word| carrying.add(u64::from_le_bytes(*word)));
            sum = carrying.whole();
        }
        let (words, tail) = rest.as_chunks();
        for word in words {
            sum = plus(sum, u64::from_le_bytes(*word));
        }
        // Wherever two bytes stand in a word, they count the same.
        let (half, tail) = tail.as_chunks();
        let (pair, last) = tail.as_chunks();
        let half = half.first().map_or(0, |half| u32::from_le_bytes(*half).into());
        let pair = pair.first().map_or(0, |pair| u16::from_le_bytes(*pair).into());
        let last = last.first().map_or(0, |last| u64::from(*last));
        let sum = plus(sum, half | pair << 32 | last << 48);
        // Behind an odd number of bytes, high ones and low ones have changed their places.
        let sum = if self.odd { sum.rotate_left(8) } else { sum };
        self.words = plus(self.words, sum);
        self.odd ^= !bytes.len().is_multiple_of(2);
    }

    /// The complement of the sum, as it is written: the bytes in the order of the network.
    #[must_use]
    pub const fn finish(self) -> [u8; 2] {
        let half = (self.words & 0xFFFF_FFFF) + (self.words >> 32);
        let quarter = (half & 0xFFFF) + (half >> 16 & 0xFFFF) + (half >> 32);
        let sum = (quarter & 0xFFFF) + (quarter >> 16);
        let sum = (sum & 0xFFFF) + (sum >> 16);
        (!(sum as u16)).to_le_bytes()
    }
}

/// A sum whose last carry is yet to be brought round: one addition a word.
#[derive(Clone, Copy)]
struct Carrying {
    sum: u64,
    carry: bool,
}

impl Carrying {
    #[inline(always)]
    const fn add(&mut self, word: u64) {
        let (sum, one) = self.sum.overflowing_add(word);
        let (sum, other) = sum.overflowing_add(self.carry as u64);
        (self.sum, self.carry) = (sum, one | other);
    }

    #[inline(always)]
    const fn whole(self) -> u64 {
        plus(self.sum, self.carry as u64)
    }
}

/// Adds with the carry brought round.
const fn plus(one: u64, other: u64) -> u64 {
    let (sum, carry) = one.overflowing_add(other);
    // After a carry the sum is not all ones.
    sum.wrapping_add(carry as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As RFC 1071 has it.
    fn plainly(bytes: &[u8]) -> [u8; 2] {
        let words =
            bytes.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        let mut sum = words.map(u32::from).sum::<u32>();
        while sum >> 16 != 0 {
            sum = (sum & 0xFFFF) + (sum >> 16);
        }
        (!(sum as u16)).to_be_bytes()
    }

    proptest! {
        #[test]
        fn however_it_is_cut_it_is_the_sum(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xFF), Just(0)], 0..300),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        ) {
            let mut cuts: std::vec::Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut sum = InternetSum::new();
            cuts.windows(2).for_each(|piece| sum.add(&bytes[piece[0]..piece[1]]));
            prop_assert_eq!(sum.finish(), plainly(&bytes));
        }
    }

    #[test]
    fn the_example_of_the_rfc() {
        let mut sum = InternetSum::new();
        sum.add(&[0x00, 0x01, 0xF2, 0x03, 0xF4, 0xF5, 0xF6, 0xF7]);
        assert_eq!(sum.finish(), [!0xDD, !0xF2]);
    }
}
