//! Frame pools: who owns which physical memory. Pure; the kernel's one instance is behind [`frames`].
//!
//! Everything is taken while the host boots. When the guest starts, [`end_allocation`] closes the pools and the heap:
//! whoever asks after that has a bug, and the kernel stops.

use boot::memory_map::{PAGE, Range, Usable};
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use spin::{Mutex, MutexGuard};

/// Bytes of a page frame.
pub const FRAME: u64 = PAGE;

/// Where frames may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// Below 640 KiB: real-mode start-up code.
    Low,
    /// Between 1 MiB and 4 GiB: page tables made before the kernel's own are in use, 32-bit DMA.
    Below4G,
    /// Anywhere above 1 MiB; high memory is preferred, to spare the zone below 4 GiB.
    Any,
}

/// No run of free frames is long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfFrames {
    /// Frames asked for.
    pub frames: u64,
    /// Where.
    pub zone: Zone,
    /// Frames free in that zone, in all.
    pub free: u64,
}

impl fmt::Display for OutOfFrames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (need, have) = (self.frames * FRAME / 1024, self.free * FRAME / 1024);
        write!(f, "no {need} KiB of contiguous memory in zone {:?} ({have} KiB are free there)", self.zone)
    }
}

/// The free frames.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    low: Usable,
    main: Usable,
}

impl Pool {
    /// A pool with nothing in it.
    pub const fn empty() -> Self {
        const NONE: Usable = Usable::none();
        Pool { low: NONE, main: NONE }
    }

    /// From what is usable below 1 MiB and above it.
    pub fn new(low: Usable, main: Usable) -> Self {
        Pool { low, main }
    }

    /// Takes `frames` contiguous frames whose address is a multiple of `align` bytes (a power of two, at least one
    /// frame).
    pub fn take(&mut self, frames: u64, align: u64, zone: Zone) -> Result<Range, OutOfFrames> {
        assert!(frames > 0 && align.is_power_of_two() && align >= FRAME);
        let limit = if zone == Zone::Below4G { 1 << 32 } else { u64::MAX };
        let list = if zone == Zone::Low { &mut self.low } else { &mut self.main };
        let fits = |r: &Range| {
            // From the top of the range downwards.
            let start = r.end.min(limit).checked_sub(frames.checked_mul(FRAME)?)? / align * align;
            (start >= r.start).then(|| Range::from_length(start, frames * FRAME))
        };
        match list.ranges.iter().rev().find_map(fits) {
            Some(found) => {
                list.remove(found);
                Ok(found)
            }
            None => Err(OutOfFrames { frames, zone, free: self.free(zone) }),
        }
    }

    /// Gives frames back that [`Pool::take`] has given out.
    pub fn give_back(&mut self, range: Range) {
        let list = if range.end <= LOW_END { &mut self.low } else { &mut self.main };
        assert!(!list.ranges.iter().any(|r| r.overlaps(&range)), "frames {range:x?} are given back twice");
        list.add(range);
    }

    /// Free frames in a zone.
    pub fn free(&self, zone: Zone) -> u64 {
        let (list, limit) = match zone {
            Zone::Low => (&self.low, u64::MAX),
            Zone::Below4G => (&self.main, 1 << 32),
            Zone::Any => (&self.main, u64::MAX),
        };
        list.ranges.iter().map(|r| r.end.min(limit).saturating_sub(r.start)).sum::<u64>() / FRAME
    }
}

const LOW_END: u64 = boot::memory_map::LOW.end;

static FRAMES: Mutex<Pool> = Mutex::new(Pool::empty());
static CLOSED: AtomicBool = AtomicBool::new(false);

/// The kernel's frame pools.
///
/// # Panics
/// After [`end_allocation`].
pub fn frames() -> MutexGuard<'static, Pool> {
    assert_allocation_open("frames");
    FRAMES.lock()
}

/// Free frames of a zone, also after the pools are closed.
pub fn free(zone: Zone) -> u64 {
    FRAMES.lock().free(zone)
}

/// Closes the frame pools and the heap for good. Called when the guest starts.
pub fn end_allocation() {
    CLOSED.store(true, Ordering::SeqCst);
}

/// Opens them again: the guest has stopped, to be built anew.
pub fn resume_allocation() {
    CLOSED.store(false, Ordering::SeqCst);
}

/// # Panics
/// After [`end_allocation`].
pub fn assert_allocation_open(what: &str) {
    assert!(!CLOSED.load(Ordering::Relaxed), "{what} asked for after the guest has started");
}

#[cfg(test)]
mod tests {
    use super::*;
    use boot::multiboot::{MemoryEntry, MemoryKind};
    use proptest::prelude::*;
    use std::vec::Vec;

    fn usable(ranges: &[(u64, u64)]) -> Usable {
        let map =
            ranges.iter().map(|r| MemoryEntry { base: r.0, length: r.1 - r.0, kind: MemoryKind::Usable });
        Usable::derive(map, std::iter::empty())
    }

    fn pool() -> Pool {
        let low = usable(&[(0x1000, 0x9F000)]);
        Pool::new(low, usable(&[(0x10_0000, 0x800_0000), (0x1_0000_0000, 0x1_1000_0000)]))
    }

    #[test]
    fn zones_are_kept() {
        let mut p = pool();
        assert!(p.take(1, FRAME, Zone::Low).unwrap().end <= 0x9F000);
        assert!(p.take(1, FRAME, Zone::Below4G).unwrap().end <= 0x800_0000);
        assert!(p.take(1, FRAME, Zone::Any).unwrap().start >= 0x1_0000_0000, "high memory comes first");
    }

    #[test]
    fn alignment_and_contiguity_hold() {
        let mut p = pool();
        let r = p.take(600, 2 << 20, Zone::Below4G).unwrap();
        assert_eq!((r.start % (2 << 20), r.len()), (0, 600 * FRAME));
        let s = p.take(600, 2 << 20, Zone::Below4G).unwrap();
        assert!(!r.overlaps(&s));
    }

    #[test]
    fn want_of_memory_is_an_error_that_says_what_there_is() {
        let mut p = pool();
        let e = p.take(1 << 20, FRAME, Zone::Any).unwrap_err();
        assert_eq!(e, OutOfFrames { frames: 1 << 20, zone: Zone::Any, free: 0x7F00 + 0x10000 });
        assert!(std::format!("{e}").contains("no 4194304 KiB of contiguous memory"), "{e}");
        // Long enough in sum, but nowhere in one piece.
        assert!(p.take(0x10001, FRAME, Zone::Any).is_err());
        assert!(p.take(u64::MAX, FRAME, Zone::Any).is_err(), "the number of bytes overflows");
        assert!(Pool::empty().take(1, FRAME, Zone::Low).is_err());
    }

    #[test]
    fn all_frames_can_be_taken_and_given_back() {
        let mut p = pool();
        let all = p.free(Zone::Any);
        let taken: Vec<_> = std::iter::from_fn(|| p.take(0x100, FRAME, Zone::Any).ok()).collect();
        assert_eq!(taken.len() as u64 * 0x100, all - p.free(Zone::Any));
        taken.iter().for_each(|r| p.give_back(*r));
        assert_eq!(p.free(Zone::Any), all);
        assert_eq!(p.main.ranges.iter().map(Range::len).max(), Some(0x10000 * FRAME), "joined again");
    }

    #[test]
    #[should_panic(expected = "given back twice")]
    fn giving_back_twice_is_a_bug() {
        let mut p = pool();
        let r = p.take(1, FRAME, Zone::Any).unwrap();
        p.give_back(r);
        p.give_back(r);
    }

    proptest! {
        #[test]
        fn what_is_taken_is_aligned_free_and_counted(
            asks in proptest::collection::vec((1u64..3000, 0u32..10, 0u8..3), 1..60)
        ) {
            let mut p = pool();
            let whole = p.clone();
            let mut taken: Vec<Range> = Vec::new();
            for (frames, shift, zone) in asks {
                let zone = [Zone::Low, Zone::Below4G, Zone::Any][usize::from(zone)];
                let (align, before) = (FRAME << shift, p.free(zone));
                match p.take(frames, align, zone) {
                    Ok(r) => {
                        prop_assert!(r.start % align == 0 && r.len() == frames * FRAME);
                        prop_assert!(taken.iter().all(|t| !t.overlaps(&r)));
                        let from = if zone == Zone::Low { &whole.low } else { &whole.main };
                        prop_assert!(from.ranges.iter().any(|u| u.contains(&r)));
                        prop_assert_eq!(p.free(zone), before - frames);
                        taken.push(r);
                    }
                    Err(e) => prop_assert_eq!(e.free, before),
                }
            }
        }
    }
}
