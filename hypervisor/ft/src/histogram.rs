//! How often what delays occurred: each power of two is cut into eight buckets.

/// Binary digits of a value that tell its bucket, behind the first.
const DIGITS: u32 = 3;

/// Buckets of one power of two.
const PARTS: usize = 1 << DIGITS;

/// Buckets: the first are of one value each, the others of an eighth of a power of two.
const BUCKETS: usize = (u64::BITS - DIGITS + 1) as usize * PARTS;

/// A histogram of values, such as nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram {
    buckets: [u64; BUCKETS],
    count: u64,
    sum: u64,
    most: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], count: 0, sum: 0, most: 0 }
    }
}

impl Histogram {
    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        let bucket = bucket(value);
        self.buckets[bucket] = self.buckets[bucket].saturating_add(1);
        self.count = self.count.saturating_add(1);
        self.sum = self.sum.saturating_add(value);
        self.most = self.most.max(value);
    }

    /// Values counted.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The largest of them.
    #[must_use]
    pub const fn most(&self) -> u64 {
        self.most
    }

    /// Their mean, rounded down; 0 for none.
    #[must_use]
    pub fn mean(&self) -> u64 {
        self.sum.checked_div(self.count).unwrap_or(0)
    }

    /// A number that so many thousandths of the values do not exceed: the smallest such, or an eighth more at most. 0 for none.
    #[must_use]
    pub fn quantile(&self, thousandths: u64) -> u64 {
        let wanted = u128::from(self.count) * u128::from(thousandths.min(1000));
        let mut below = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            below += u128::from(*count) * 1000;
            if below >= wanted && below > 0 {
                return upper(bucket).min(self.most);
            }
        }
        self.most
    }

    /// By powers of two, where there are any values: smallest value, largest value, count.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        (0..=u64::BITS).filter_map(|bits| {
            let largest = u64::MAX.checked_shr(u64::BITS - bits).unwrap_or(0);
            let smallest = largest / 2 + u64::from(bits > 0);
            let count = self.buckets[bucket(smallest)..=bucket(largest)].iter().sum();
            (count > 0).then_some((smallest, largest, count))
        })
    }
}

/// The bucket of a value.
const fn bucket(value: u64) -> usize {
    let shift = (u64::BITS - DIGITS - 1).saturating_sub(value.leading_zeros());
    (value >> shift) as usize + shift as usize * PARTS
}

/// The largest value of a bucket.
const fn upper(bucket: usize) -> u64 {
    match bucket / PARTS {
        0 => bucket as u64,
        // From the second power of two with eight buckets on, the first digit is not part of the number.
        power => ((((PARTS + bucket % PARTS) as u64) + 1) << (power - 1)).wrapping_sub(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn the_ends() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.mean(), histogram.quantile(500), histogram.iter().count()), (0, 0, 0));
        for value in [0, 1, 2, 3, u64::MAX] {
            histogram.record(value);
        }
        let buckets: Vec<_> = histogram.iter().collect();
        assert_eq!(buckets, [(0, 0, 1), (1, 1, 1), (2, 3, 2), (1 << 63, u64::MAX, 1)]);
        assert_eq!((histogram.count(), histogram.most(), histogram.quantile(1000)), (5, u64::MAX, u64::MAX));
    }

    #[test]
    fn buckets_follow_each_other() {
        assert_eq!((bucket(u64::MAX), upper(BUCKETS - 1)), (BUCKETS - 1, u64::MAX));
        for n in 0..BUCKETS - 1 {
            assert_eq!((bucket(upper(n)), bucket(upper(n) + 1)), (n, n + 1), "bucket {n}");
        }
    }

    proptest! {
        #[test]
        fn quantiles_are_bounds(mut values in proptest::collection::vec(0u64..1 << 40, 1..200), part in 1u64..=1000) {
            let mut histogram = Histogram::default();
            values.iter().for_each(|value| histogram.record(*value));
            values.sort_unstable();
            let index = (values.len() as u64 * part).div_ceil(1000) as usize - 1;
            let (exact, told) = (values[index], histogram.quantile(part));
            prop_assert!(told >= exact && told <= exact + exact / 8, "{told} for {exact}");
            prop_assert_eq!(histogram.mean(), values.iter().sum::<u64>() / values.len() as u64);
        }
    }
}
