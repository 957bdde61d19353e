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
    /// What of `map` may be used, less `taken`. The order of the entries does not matter.
    pub fn derive(map: impl Iterator<Item = MemoryEntry> + Clone, taken: impl Iterator<Item = Range>) -> Usable {
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
    fn add(&mut self, mut new: Range) {
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
