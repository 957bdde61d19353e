//! Seeded random numbers, one stream per subject.

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The stream called `name` of `seed`. Streams do not disturb one another: a frame more on one link, or one more
    /// link, changes no draw of another.
    pub fn new(seed: u64, name: &str) -> Self {
        let mut rng = Self(seed);
        for byte in name.bytes() {
            rng.0 ^= u64::from(byte);
            rng.0 = rng.next();
        }
        rng
    }

    /// The next 64 bits.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `n - 1`; 0 if `n` is 0. (Multiply-shift: the bias is below n / 2^64.)
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn streams_are_reproducible_and_differ() {
        let take = |seed, name| {
            let mut rng = Rng::new(seed, name);
            [rng.next(), rng.next()]
        };
        assert_eq!(take(1, "a:0 up"), take(1, "a:0 up"));
        assert_ne!(take(1, "a:0 up"), take(1, "a:0 down"));
        assert_ne!(take(1, "a:0 up"), take(2, "a:0 up"));
    }

    #[test]
    fn below_stays_below_and_reaches_all() {
        let mut rng = Rng::new(3, "");
        let mut seen = [0u32; 10];
        for _ in 0..10_000 {
            seen[rng.below(10) as usize] += 1;
        }
        assert!(seen.iter().all(|&n| (800..1200).contains(&n)), "{seen:?}");
        assert_eq!(rng.below(0), 0);
    }
}
