//! A counter as perf gives it, used like `perf stat` uses it.

use std::{fs::File, io::Read};

use crate::sys::perf::{self, Attributes, Collected, Samples};

/// An event by perf's kind and number.
#[derive(Clone, Copy)]
pub struct Event {
    kind: u32,
    config: u64,
}

/// Instructions retired.
pub const INSTRUCTIONS: Event = Event { kind: 0, config: 1 };
/// Core cycles.
pub const CYCLES: Event = Event { kind: 0, config: 0 };
/// Branches retired.
pub const BRANCHES: Event = Event { kind: 0, config: 4 };
/// Conditional branches retired: raw event C4, unit mask 01.
pub const CONDITIONAL: Event = Event { kind: 4, config: 0x01c4 };

/// Who counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// User mode.
    User,
    /// The kernel.
    Kernel,
    /// Both.
    Both,
    /// KVM guests only.
    Guest,
    /// All but KVM guests.
    Host,
}

impl Scope {
    fn flags(self) -> u64 {
        match self {
            Self::User => perf::EXCLUDE_KERNEL | perf::EXCLUDE_HV,
            Self::Kernel => perf::EXCLUDE_USER | perf::EXCLUDE_HV,
            Self::Both => 0,
            Self::Guest => perf::EXCLUDE_HOST,
            Self::Host => perf::EXCLUDE_GUEST,
        }
    }
}

/// Counters that are on and off at the same instants.
pub struct Group<const N: usize> {
    leader: File,
    _others: Vec<File>,
}

impl<const N: usize> Group<N> {
    /// Opens one counter for each event, off, pinned to hardware counters.
    pub fn open(events: [Event; N], scope: Scope) -> Self {
        let mut files = Vec::<File>::new();
        for event in events {
            let leader = files.first();
            let lead = if leader.is_none() { perf::DISABLED | perf::PINNED } else { 0 };
            let attributes = Attributes {
                kind: event.kind,
                config: event.config,
                read_format: perf::READ_GROUP | perf::READ_TIMES,
                flags: lead | scope.flags(),
                ..Attributes::default()
            };
            files.push(open(attributes, leader));
        }
        Self { leader: files.remove(0), _others: files }
    }

    /// Counts `work`.
    pub fn count(&mut self, work: impl FnOnce()) -> [u64; N] {
        perf::reset(&self.leader);
        perf::enable(&self.leader);
        work();
        perf::disable(&self.leader);
        let mut bytes = vec![0; 8 * (3 + N)];
        self.leader.read_exact(&mut bytes).expect("a pinned group can be read");
        let word = |n: usize| u64::from_ne_bytes(bytes[8 * n..8 * n + 8].try_into().expect("eight bytes"));
        assert_eq!(word(0), N as u64, "counters in the group");
        assert_eq!(word(1), word(2), "the group was multiplexed");
        std::array::from_fn(|n| word(3 + n))
    }
}

/// A counter that takes a sample every so many events.
pub struct Sampler {
    file: File,
    samples: Samples,
}

impl Sampler {
    /// Opens one, off, pinned to a hardware counter.
    pub fn open(event: Event, scope: Scope, period: u64) -> Self {
        let attributes = Attributes {
            kind: event.kind,
            config: event.config,
            sample_period: period,
            sample_type: perf::SAMPLE_IP,
            read_format: perf::READ_TIMES,
            flags: perf::DISABLED | perf::PINNED | scope.flags(),
            ..Attributes::default()
        };
        let file = open(attributes, None);
        let samples = Samples::map(&file).expect("the ring buffer");
        Self { file, samples }
    }

    /// Counts `work`; the count and what was sampled.
    pub fn sample(&mut self, work: impl FnOnce()) -> (u64, Collected) {
        perf::reset(&self.file);
        perf::enable(&self.file);
        work();
        perf::disable(&self.file);
        let mut bytes = [0; 24];
        self.file.read_exact(&mut bytes).expect("a pinned counter can be read");
        (u64::from_ne_bytes(bytes[..8].try_into().expect("eight bytes")), self.samples.collect())
    }
}

fn open(attributes: Attributes, leader: Option<&File>) -> File {
    perf::open(attributes, leader)
        .unwrap_or_else(|error| panic!("perf_event_open {:#x}: {error}", attributes.config))
}

/// One counter.
pub struct Counter(Group<1>);

impl Counter {
    /// Opens one, off, pinned to a hardware counter.
    pub fn open(event: Event, scope: Scope) -> Self {
        Self(Group::open([event], scope))
    }

    /// Counts `work`.
    pub fn count(&mut self, work: impl FnOnce()) -> u64 {
        self.0.count(work)[0]
    }
}
