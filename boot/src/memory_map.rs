//! From the firmware's memory map to the memory the kernel may use. Pure.
//!
//! Firmware maps overlap, come unsorted and can have hundreds of entries; where two entries disagree, the one that
//! forbids wins. What the loader has put into memory (kernel, modules, boot information, symbol table) is taken out.

use crate::multiboot::{MemoryEntry, MemoryKind};
use heapless::Vec;

/// Bytes of a page frame.
pub const PAGE: u64 = 4096;

/// Ranges kept at most. When a map has more, the smallest ranges are given up and counted in [`Usable::lost`].
pub const MAX_RANGES: usize = 256;

/// No processor has more physical address bits (SDM 3A, 5.1.4).
const MAX_PHYSICAL: u64 = 1 << 52;

/// The low megabyte, which belongs to the firmware, to real-mode start-up code and to the legacy screen.
pub const LOW: Range = Range { start: 0, end: 1 << 20 };

/// Bytes `start..end` of physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Range {
    /// First byte.
    pub start: u64,
    /// After the last byte.
    pub end: u64,
}

impl Range {
    /// A range; empty if `end` is not above `start`.
    pub const fn new(start: u64, end: u64) -> Self {
        Range { start, end: if end < start { start } else { end } }
    }

    /// From a base and a length in bytes, cut at the end of the address space.
    pub fn from_length(start: u64, length: u64) -> Self {
        Range::new(start, start.saturating_add(length))
    }

    /// Bytes.
    pub const fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Whether it holds no byte.
    pub const fn is_empty(&self) -> bool {
        self.end == self.start
    }

    /// Whether the ranges share a byte.
    pub const fn overlaps(&self, other: &Range) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// Whether `other` lies inside.
    pub const fn contains(&self, other: &Range) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// The whole pages inside.
    fn inner_pages(&self) -> Range {
        let end = self.end.min(MAX_PHYSICAL) / PAGE * PAGE;
        Range::new(self.start.min(MAX_PHYSICAL).next_multiple_of(PAGE), end)
    }

    /// The pages touched.
    pub fn outer_pages(&self) -> Range {
        if self.is_empty() {
            return *self;
        }
        Range::new(self.start / PAGE * PAGE, self.end.min(MAX_PHYSICAL).next_multiple_of(PAGE))
    }
}

/// A sorted list of disjoint ranges that do not touch, of whole pages.
#[derive(Clone, Debug, Default)]
pub struct Usable {
    /// The ranges, ascending.
    pub ranges: Vec<Range, MAX_RANGES>,
    /// Bytes given up because the list was full.
    pub lost: u64,
}

impl Usable {
    /// Nothing.
    pub const fn none() -> Usable {
        Usable { ranges: Vec::new(), lost: 0 }
    }

    /// What of `map` may be used, less `taken`. The order of the entries does not matter.
    pub fn derive(
        map: impl Iterator<Item = MemoryEntry> + Clone,
        taken: impl Iterator<Item = Range>,
    ) -> Usable {
        let mut usable = Usable::default();
        for e in map.clone().filter(|e| e.kind == MemoryKind::Usable) {
            usable.add(Range::from_length(e.base, e.length).inner_pages());
        }
        for e in map.filter(|e| e.kind != MemoryKind::Usable) {
            usable.remove(Range::from_length(e.base, e.length));
        }
        taken.for_each(|r| usable.remove(r));
        usable
    }

    /// Bytes in all ranges.
    pub fn bytes(&self) -> u64 {
        self.ranges.iter().map(Range::len).sum()
    }

    /// Adds whole pages, joining what overlaps or touches.
    pub fn add(&mut self, mut new: Range) {
        if new.is_empty() {
            return;
        }
        let at = self.ranges.iter().position(|r| r.end >= new.start).unwrap_or(self.ranges.len());
        while let Some(r) = self.ranges.get(at).filter(|r| r.start <= new.end) {
            new = Range::new(new.start.min(r.start), new.end.max(r.end));
            self.ranges.remove(at);
        }
        self.insert(at, new);
    }

    /// Takes out every page that `range` touches.
    pub fn remove(&mut self, range: Range) {
        let range = range.outer_pages();
        if range.is_empty() {
            return;
        }
        let Some(mut at) = self.ranges.iter().position(|r| r.end > range.start) else { return };
        while let Some(r) = self.ranges.get(at).copied().filter(|r| r.start < range.end) {
            self.ranges.remove(at);
            for rest in [Range::new(r.start, range.start), Range::new(range.end.max(r.start), r.end)] {
                if r.start <= rest.start && rest.end <= r.end && !rest.is_empty() {
                    at = self.insert(at, rest);
                }
            }
        }
    }

    /// Inserts at an index; returns the index after it. A full list gives up its smallest range.
    fn insert(&mut self, mut at: usize, new: Range) -> usize {
        if self.ranges.is_full() {
            let Some((small, len)) =
                self.ranges.iter().map(Range::len).enumerate().min_by_key(|(_, len)| *len)
            else {
                return at;
            };
            if len >= new.len() {
                self.lost += new.len();
                return at;
            }
            self.lost += len;
            self.ranges.remove(small);
            if small < at {
                at -= 1;
            }
        }
        let inserted = self.ranges.insert(at, new).is_ok();
        assert!(inserted, "the list has room");
        at + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec as StdVec;

    const MIB: u64 = 1 << 20;

    fn entry(base: u64, end: u64, kind: MemoryKind) -> MemoryEntry {
        MemoryEntry { base, length: end - base, kind }
    }

    fn derive(map: &[MemoryEntry], taken: &[Range]) -> StdVec<(u64, u64)> {
        let u = Usable::derive(map.iter().copied(), taken.iter().copied());
        u.ranges.iter().map(|r| (r.start, r.end)).collect()
    }

    #[test]
    fn a_pc_with_everything_taken_out() {
        use MemoryKind::*;
        let map = [
            entry(0, 0x9FC00, Usable),
            entry(0x9FC00, 0xA0000, Reserved),
            entry(0xF0000, MIB, Reserved),
            entry(MIB, 0x0FFE_0000, Usable),
            entry(0x0FFE_0000, 0x1000_0000, AcpiReclaimable),
            entry(0xFFFC_0000, 1 << 32, Reserved),
        ];
        let kernel = Range::new(2 * MIB, 3 * MIB);
        let below = Range::new(MIB + 0x800, MIB + 0x1801); // a module below the kernel, not on page bounds
        let above = Range::new(8 * MIB, 9 * MIB);
        let got = derive(&map, &[LOW, above, kernel, below]);
        let want = [(MIB + 0x2000, 2 * MIB), (3 * MIB, 8 * MIB), (9 * MIB, 0x0FFE_0000)];
        assert_eq!(got, want);
    }

    #[test]
    fn unsorted_overlapping_and_touching_entries_join() {
        use MemoryKind::*;
        let map = [
            entry(6 * MIB, 8 * MIB, Usable),
            entry(2 * MIB, 4 * MIB, Usable),
            entry(4 * MIB, 5 * MIB, Usable),
            entry(MIB, 3 * MIB, Usable),
            entry(7 * MIB, 7 * MIB + 1, Reserved), // one byte costs its page, wherever it stands in the list
        ];
        assert_eq!(derive(&map, &[]), [(MIB, 5 * MIB), (6 * MIB, 7 * MIB), (7 * MIB + PAGE, 8 * MIB)]);
    }

    #[test]
    fn firmware_wins_where_entries_disagree() {
        use MemoryKind::*;
        let map = [entry(0, 16 * MIB, Reserved), entry(MIB, 16 * MIB, Usable)];
        assert!(derive(&map, &[]).is_empty());
    }

    #[test]
    fn lengths_beyond_the_address_space_are_cut() {
        let map = [MemoryEntry { base: MIB, length: u64::MAX, kind: MemoryKind::Usable }];
        assert_eq!(derive(&map, &[]), [(MIB, MAX_PHYSICAL)]);
        let map = [map[0], MemoryEntry { base: 4 * MIB, length: u64::MAX, kind: MemoryKind::Reserved }];
        assert_eq!(derive(&map, &[]), [(MIB, 4 * MIB)]);
        let far = MemoryEntry { base: u64::MAX - 1, length: 1, kind: MemoryKind::Usable };
        assert!(derive(&[far], &[]).is_empty());
    }

    #[test]
    fn a_map_with_more_ranges_than_fit_gives_up_the_smallest() {
        let map: StdVec<_> =
            (0..600u64).map(|i| entry(i * MIB, i * MIB + PAGE * (1 + i % 7), MemoryKind::Usable)).collect();
        let u = Usable::derive(map.iter().copied(), std::iter::empty());
        let all: u64 = map.iter().map(|e| e.length).sum();
        assert_eq!((u.ranges.len(), u.bytes() + u.lost), (MAX_RANGES, all));
        let smallest = u.ranges.iter().map(Range::len).min().unwrap();
        assert!(smallest >= 4 * PAGE, "{smallest}: 85 or 86 ranges of each size 5, 6, 7 pages, so some of 4");
        assert!(u.ranges.windows(2).all(|w| w[0].end < w[1].start));
    }

    /// Slow and plainly right: one flag for each page.
    fn model(map: &[MemoryEntry], taken: &[Range], pages: u64) -> StdVec<bool> {
        let mut ok = vec![false; pages as usize];
        for (page, ok) in ok.iter_mut().enumerate() {
            let p = Range::from_length(page as u64 * PAGE, PAGE);
            let as_range = |e: &MemoryEntry| Range::from_length(e.base, e.length);
            // Pages are joined from whole pages inside each single entry.
            *ok = map.iter().any(|e| e.kind == MemoryKind::Usable && as_range(e).contains(&p))
                && !map.iter().any(|e| e.kind != MemoryKind::Usable && as_range(e).overlaps(&p))
                && !taken.iter().any(|t| !t.is_empty() && t.overlaps(&p));
        }
        ok
    }

    proptest! {
        #[test]
        fn agrees_with_the_model(
            map in proptest::collection::vec((0u64..200 * PAGE, 0u64..60 * PAGE, 0u8..3), 0..40),
            taken in proptest::collection::vec((0u64..200 * PAGE, 0u64..20 * PAGE), 0..10),
        ) {
            let kinds = [MemoryKind::Usable, MemoryKind::Usable, MemoryKind::Reserved];
            let map: StdVec<_> = map.iter()
                .map(|(base, length, kind)| MemoryEntry { base: *base, length: *length, kind: kinds[*kind as usize] })
                .collect();
            let taken: StdVec<_> = taken.iter().map(|(b, l)| Range::from_length(*b, *l)).collect();
            let u = Usable::derive(map.iter().copied(), taken.iter().copied());
            prop_assert!(u.ranges.windows(2).all(|w| w[0].end < w[1].start));
            prop_assert!(u.ranges.iter().all(|r| !r.is_empty() && r.start % PAGE == 0 && r.end % PAGE == 0));
            for (page, want) in model(&map, &taken, 300).into_iter().enumerate() {
                let p = Range::from_length(page as u64 * PAGE, PAGE);
                prop_assert_eq!(u.ranges.iter().any(|r| r.contains(&p)), want, "page {}", page);
            }
        }

        #[test]
        fn any_map_is_borne(
            map in proptest::collection::vec((any::<u64>(), any::<u64>(), 0u8..3), 0..400),
        ) {
            let kinds = [MemoryKind::Usable, MemoryKind::AcpiReclaimable, MemoryKind::Reserved];
            let map = map.iter().map(|(base, length, kind)| {
                MemoryEntry { base: *base, length: *length, kind: kinds[*kind as usize] }
            });
            let u = Usable::derive(map, [LOW].into_iter());
            prop_assert!(u.ranges.windows(2).all(|w| w[0].end < w[1].start));
            prop_assert!(u.ranges.iter().all(|r| r.start >= LOW.end && r.end <= MAX_PHYSICAL));
        }
    }
}
