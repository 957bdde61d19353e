//! A small seeded generator: every random choice here is a function of one `u64`.

/// SplitMix64 (Steele, Lea, Flood 2014): 64 bits of state, full period, good enough to choose test cases.
///
/// Not for secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed(u64);

impl Seed {
    /// The generator that `seed` names.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`; 0 when `bound` is 0. The bias (below `bound / 2^64`) does not matter here.
    pub const fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 {
            return 0;
        }
        ((self.next() as u128 * bound as u128) >> 64) as u64
    }

    /// A number in `low..=high`.
    ///
    /// # Panics
    /// When `low > high`.
    pub const fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "an empty range");
        match (high - low).checked_add(1) {
            Some(span) => low + self.below(span),
            None => self.next(),
        }
    }

    /// True once in `n` times on average; never when `n` is 0.
    pub const fn one_in(&mut self, n: u64) -> bool {
        n != 0 && self.below(n) == 0
    }

    /// A generator of its own for part `index`: what one part draws does not shift what another sees.
    #[must_use]
    pub const fn fork(&self, index: u64) -> Self {
        let mut child = Self(self.0 ^ index.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        child.next();
        child
    }
}

#[cfg(test)]
mod tests {
    use super::Seed;

    #[test]
    fn known_values() {
        // Reference values of SplitMix64 for seed 1234567 (Vigna's splitmix64.c).
        let mut s = Seed::new(1_234_567);
        assert_eq!(s.next(), 6_457_827_717_110_365_317);
        assert_eq!(s.next(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn bounds_hold() {
        let mut s = Seed::new(7);
        assert_eq!(s.below(0), 0);
        for _ in 0..1000 {
            assert!(s.below(3) < 3);
            assert!((5..=9).contains(&s.between(5, 9)));
        }
        assert_eq!(s.between(4, 4), 4);
        let _ = s.between(0, u64::MAX);
    }

    #[test]
    fn forks_differ_and_repeat() {
        let s = Seed::new(1);
        assert_eq!(s.fork(3), s.fork(3));
        assert_ne!(s.fork(3).next(), s.fork(4).next());
    }
}
