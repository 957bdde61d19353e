//! The event ring: what a processor did last, for the panic's last words. Pure; one writer, which an NMI may interrupt.
//!
//! Recording is three stores and two additions, so hot paths may record where they must not print.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Events kept per processor; older ones are overwritten (their number stays counted by kind).
pub const CAPACITY: usize = 128;

/// Kinds of events.
const KINDS: usize = 6;

/// Something that happened. Small and `Copy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A stage of the boot has begun.
    Stage(Stage),
    /// An external interrupt was taken by the host.
    Interrupt {
        /// Its vector.
        vector: u8,
    },
    /// An exception or NMI in the kernel.
    Exception {
        /// Its vector.
        vector: u8,
        /// Its error code, 0 if it has none.
        error: u32,
        /// Where.
        rip: u64,
    },
    /// A VM entry.
    VmEntry {
        /// The guest's RIP.
        rip: u64,
    },
    /// A VM exit.
    VmExit {
        /// Basic exit reason (SDM 3D, appendix C).
        reason: u16,
        /// The guest's RIP.
        rip: u64,
    },
    /// Anything else: a tag that the recording code names, and a value.
    Note {
        /// Which note.
        tag: u16,
        /// Its value.
        value: u64,
    },
}

/// Stages of the boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// First Rust instruction.
    Entry,
    /// Frame pools exist.
    Memory,
    /// The kernel's own page tables are in use.
    Paging,
    /// ACPI tables are read.
    Firmware,
    /// Other processors are being started.
    Processors,
    /// PCI is being enumerated.
    Pci,
    /// The boot work is done.
    Done,
}

impl Stage {
    const ALL: [Stage; 7] = [
        Stage::Entry,
        Stage::Memory,
        Stage::Paging,
        Stage::Firmware,
        Stage::Processors,
        Stage::Pci,
        Stage::Done,
    ];
}

impl Event {
    fn encode(self) -> (u64, u64) {
        let word = |kind: u64, small: u64, wide: u64| kind | small << 8 | wide << 32;
        match self {
            Event::Stage(stage) => (word(0, stage as u64, 0), 0),
            Event::Interrupt { vector } => (word(1, vector.into(), 0), 0),
            Event::Exception { vector, error, rip } => (word(2, vector.into(), error.into()), rip),
            Event::VmEntry { rip } => (word(3, 0, 0), rip),
            Event::VmExit { reason, rip } => (word(4, reason.into(), 0), rip),
            Event::Note { tag, value } => (word(5, tag.into(), 0), value),
        }
    }

    fn decode((word, value): (u64, u64)) -> Option<Event> {
        let small = (word >> 8) as u16;
        Some(match word as u8 {
            0 => Event::Stage(*Stage::ALL.get(usize::from(small))?),
            1 => Event::Interrupt { vector: small as u8 },
            2 => Event::Exception { vector: small as u8, error: (word >> 32) as u32, rip: value },
            3 => Event::VmEntry { rip: value },
            4 => Event::VmExit { reason: small, rip: value },
            5 => Event::Note { tag: small, value },
            _ => return None,
        })
    }
}

/// Names of the kinds, in the order of [`Ring::counts`].
pub const KIND_NAMES: [&str; KINDS] = ["stage", "interrupt", "exception", "vm-entry", "vm-exit", "note"];

/// One processor's events.
pub struct Ring {
    next: AtomicUsize,
    slots: [[AtomicU64; 3]; CAPACITY],
    counts: [AtomicU64; KINDS],
}

impl Ring {
    /// An empty ring.
    pub const fn new() -> Self {
        Ring {
            next: AtomicUsize::new(0),
            slots: [const { [const { AtomicU64::new(0) }; 3] }; CAPACITY],
            counts: [const { AtomicU64::new(0) }; KINDS],
        }
    }

    /// Adds an event at time `now` (time-stamp counter).
    #[inline]
    pub fn record(&self, now: u64, event: Event) {
        let (word, value) = event.encode();
        self.counts[usize::from(word as u8)].fetch_add(1, Ordering::Relaxed);
        let slot = &self.slots[self.next.fetch_add(1, Ordering::Relaxed) % CAPACITY];
        slot[0].store(now, Ordering::Relaxed);
        slot[1].store(word, Ordering::Relaxed);
        slot[2].store(value, Ordering::Relaxed);
    }

    /// The events kept, oldest first, each with its time.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Event)> + '_ {
        let next = self.next.load(Ordering::Relaxed);
        (next.saturating_sub(CAPACITY)..next).filter_map(|i| {
            let slot = &self.slots[i % CAPACITY];
            let load = |i: usize| slot[i].load(Ordering::Relaxed);
            Event::decode((load(1), load(2))).map(|e| (load(0), e))
        })
    }

    /// How many events of each kind there have been, in the order of [`KIND_NAMES`].
    pub fn counts(&self) -> [u64; KINDS] {
        core::array::from_fn(|i| self.counts[i].load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const SAMPLES: [Event; 7] = [
        Event::Stage(Stage::Done),
        Event::Interrupt { vector: 255 },
        Event::Exception { vector: 14, error: u32::MAX, rip: u64::MAX },
        Event::VmEntry { rip: 0xFFF0 },
        Event::VmExit { reason: 48, rip: 0x7C00 },
        Event::Note { tag: u16::MAX, value: u64::MAX },
        Event::Note { tag: 0, value: 0 },
    ];

    #[test]
    fn events_round_trip() {
        for event in SAMPLES {
            assert_eq!(Event::decode(event.encode()), Some(event));
        }
        assert!(Stage::ALL.iter().enumerate().all(|(i, s)| *s as usize == i));
    }

    #[test]
    fn garbage_decodes_to_nothing() {
        assert_eq!(Event::decode((6, 0)), None);
        assert_eq!(Event::decode((0xFF << 8, 0)), None);
    }

    #[test]
    fn the_ring_keeps_the_newest_in_order_and_counts_all() {
        let ring = Ring::new();
        assert_eq!(ring.iter().count(), 0);
        for i in 0..CAPACITY as u64 + 10 {
            ring.record(i, Event::Note { tag: 1, value: i });
        }
        ring.record(1000, SAMPLES[1]);
        let kept: Vec<_> = ring.iter().collect();
        assert_eq!(kept.len(), CAPACITY);
        assert_eq!(kept[0], (11, Event::Note { tag: 1, value: 11 }));
        assert_eq!(kept[CAPACITY - 1], (1000, SAMPLES[1]));
        assert_eq!(ring.counts(), [0, 1, 0, 0, 0, CAPACITY as u64 + 10]);
    }
}
