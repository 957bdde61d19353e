//! The output rule's queue: what the guest has sent out and may not leave yet.
//!
//! On the primary an output waits for the acknowledgement of the log position that the exit which made it has reached. On the
//! backup outputs are kept, as far as there is room, until the primary is known to have released them: at a takeover those that
//! are left are sent, perhaps for the second time.
//!
//! A ring over memory given at construction. An output is in one piece; what does not fit before the ring's end begins at its
//! start. What is full refuses, and whoever pushes stops the guest.

use crate::histogram::Histogram;
use core::fmt;

/// What kind of output it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A frame of the network device with this index.
    Frame(u8),
    /// Bytes of the serial console.
    Console,
    /// Bytes of the virtio console.
    SideConsole,
}

impl Kind {
    const fn encode(self) -> [u8; 2] {
        match self {
            Self::Frame(device) => [1, device],
            Self::Console => [2, 0],
            Self::SideConsole => [3, 0],
        }
    }

    /// Of what [`encode`](Self::encode) made.
    const fn decode(bytes: [u8; 2]) -> Self {
        match bytes {
            [1, device] => Self::Frame(device),
            [2, _] => Self::Console,
            _ => Self::SideConsole,
        }
    }
}

/// An output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output<'a> {
    /// What it is.
    pub kind: Kind,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// The log position that it waits for; `None`: its exit is not over yet.
    pub position: Option<u64>,
    /// When it was made, nanoseconds of the host's clock.
    pub made_at: u64,
}

/// How far outputs may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Up to this log position.
    To(u64),
    /// All.
    All,
}

impl Limit {
    const fn allows(self, position: Option<u64>) -> bool {
        match (self, position) {
            (Self::All, _) => true,
            (Self::To(limit), Some(position)) => position <= limit,
            (Self::To(_), None) => false,
        }
    }
}

/// There is no room for an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no room for one more output")
    }
}

impl core::error::Error for Full {}

/// Bytes before each output: length, kind, position, time.
pub const HEADER: usize = 4 + 4 + 8 + 8;

/// The position of an output whose exit is not over.
const OPEN: u64 = u64::MAX;

/// What has gone through the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Outputs put in.
    pub held: u64,
    /// Outputs taken out because they may leave.
    pub released: u64,
    /// Outputs that were forgotten: the backup's.
    pub dropped: u64,
    /// Times that there was no room.
    pub refused: u64,
    /// The most bytes that were in use at once.
    pub most: usize,
}

/// The queue.
#[derive(Debug)]
pub struct Outputs<'m> {
    memory: &'m mut [u8],
    /// Where the oldest output is, and where the next one goes.
    first: usize,
    next: usize,
    /// Where the outputs before the ring's start end, when they go on there; else the end of memory.
    wrap: usize,
    /// Outputs in it, and those at the end whose position is not known yet.
    count: usize,
    open: usize,
    /// Where the first of those is.
    first_open: usize,
    used: usize,
    /// The last position given.
    position: u64,
    delays: Histogram,
    counters: Counters,
}

impl<'m> Outputs<'m> {
    /// An empty queue over all of `memory`.
    pub fn new(memory: &'m mut [u8]) -> Self {
        let wrap = memory.len();
        Self {
            memory,
            first: 0,
            next: 0,
            wrap,
            count: 0,
            open: 0,
            first_open: 0,
            used: 0,
            position: 0,
            delays: Histogram::default(),
            counters: Counters::default(),
        }
    }

    /// Outputs that wait.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether none waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether outputs were made whose position is not known yet: the exit needs an `Output` entry.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.open > 0
    }

    /// Bytes in use, headers and gaps included.
    #[must_use]
    pub const fn used(&self) -> usize {
        self.used
    }

    /// Whether an output of so many bytes has room now.
    #[must_use]
    pub fn has_room(&self, bytes: usize) -> bool {
        self.place(bytes).is_some()
    }

    /// How long outputs waited until they were released, nanoseconds.
    #[must_use]
    pub const fn delays(&self) -> &Histogram {
        &self.delays
    }

    /// What has gone through.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Where an output of so many bytes goes, and whether the ring wraps for it.
    fn place(&self, bytes: usize) -> Option<(usize, bool)> {
        let size = HEADER.checked_add(bytes)?;
        let (near, far) = if self.count == 0 {
            return (size <= self.memory.len()).then_some((0, false));
        } else if self.next > self.first {
            (self.memory.len() - self.next, self.first)
        } else {
            (self.first - self.next, 0)
        };
        if size <= near { Some((self.next, false)) } else { (size <= far).then_some((0, true)) }
    }

    /// Holds an output that was made now (nanoseconds). Its position follows by [`seal`](Self::seal).
    ///
    /// # Errors
    /// There is no room; nothing is held.
    pub fn push(&mut self, kind: Kind, bytes: &[u8], now: u64) -> Result<(), Full> {
        let Some(((at, wraps), length)) = self.place(bytes.len()).zip(u32::try_from(bytes.len()).ok()) else {
            self.counters.refused += 1;
            return Err(Full);
        };
        if self.count == 0 {
            (self.first, self.wrap) = (0, self.memory.len());
        } else if wraps {
            self.used += self.memory.len() - self.next;
            self.wrap = self.next;
        }
        if self.open == 0 {
            self.first_open = at;
        }
        let [kind, device] = kind.encode();
        let (header, rest) = self.memory[at..].split_at_mut(HEADER);
        header[..4].copy_from_slice(&length.to_le_bytes());
        header[4..8].copy_from_slice(&[kind, device, 0, 0]);
        header[8..16].copy_from_slice(&OPEN.to_le_bytes());
        header[16..24].copy_from_slice(&now.to_le_bytes());
        rest[..bytes.len()].copy_from_slice(bytes);
        self.next = at + HEADER + bytes.len();
        self.count += 1;
        self.open += 1;
        self.used += HEADER + bytes.len();
        self.counters.held += 1;
        self.counters.most = self.counters.most.max(self.used);
        Ok(())
    }

    /// The exit is over, and its log entries end at this position, bytes. It is no less than the last one given.
    pub fn seal(&mut self, position: u64) {
        // A smaller one would let an output overtake another.
        self.position = self.position.max(position.min(OPEN - 1));
        let mut at = self.first_open;
        for _ in 0..core::mem::take(&mut self.open) {
            at = self.turn(at);
            self.memory[at + 8..at + 16].copy_from_slice(&self.position.to_le_bytes());
            at += HEADER + self.length(at);
        }
    }

    /// Where an output really is that would come next at `at`.
    const fn turn(&self, at: usize) -> usize {
        if at == self.wrap { 0 } else { at }
    }

    fn length(&self, at: usize) -> usize {
        let bytes = self.memory[at..].first_chunk();
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes)) as usize
    }

    /// The oldest output, if it may leave.
    #[must_use]
    pub fn front(&self, limit: Limit) -> Option<Output<'_>> {
        if self.count == 0 {
            return None;
        }
        let (header, rest) = self.memory[self.first..].split_first_chunk::<HEADER>()?;
        let (words, _) = header.as_chunks::<8>();
        let &[_, position, made_at] = words else { return None };
        let position = Some(u64::from_le_bytes(position)).filter(|position| *position != OPEN);
        let output = Output {
            kind: Kind::decode([header[4], header[5]]),
            bytes: &rest[..self.length(self.first)],
            position,
            made_at: u64::from_le_bytes(made_at),
        };
        limit.allows(position).then_some(output)
    }

    /// Takes out the oldest output, which has left at this time, nanoseconds.
    pub fn pop(&mut self, now: u64) {
        if let Some(output) = self.front(Limit::All) {
            let delay = now.saturating_sub(output.made_at);
            self.delays.record(delay);
            self.counters.released += 1;
            self.remove();
        }
    }

    /// Forgets outputs that have left elsewhere: all up to `limit`.
    pub fn forget(&mut self, limit: Limit) {
        while self.front(limit).is_some() {
            self.counters.dropped += 1;
            self.remove();
        }
    }

    /// Holds an output, for which older ones are forgotten if there is no room: on the backup, which never waits for outputs.
    /// One that is larger than the queue is forgotten itself.
    pub fn push_over(&mut self, kind: Kind, bytes: &[u8], now: u64) {
        while !self.has_room(bytes.len()) {
            if self.count == 0 {
                self.counters.dropped += 1;
                return;
            }
            self.counters.dropped += 1;
            self.remove();
        }
        // There is room.
        let _ = self.push(kind, bytes, now);
    }

    /// Takes out the oldest output; there is one.
    fn remove(&mut self) {
        let size = HEADER + self.length(self.first);
        self.used -= size;
        self.count -= 1;
        self.first += size;
        if self.first == self.wrap {
            self.used -= self.memory.len() - self.wrap;
            (self.first, self.wrap) = (0, self.memory.len());
        }
        if self.open > self.count {
            self.open = self.count;
            self.first_open = self.first;
        }
        if self.count == 0 {
            (self.first, self.next, self.wrap, self.used) = (0, 0, self.memory.len(), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::vec;
    use std::vec::Vec;

    #[test]
    fn an_output_waits_for_its_position() {
        let mut memory = vec![0; 400];
        let mut outputs = Outputs::new(&mut memory);
        outputs.push(Kind::Frame(1), b"one", 10).unwrap();
        outputs.push(Kind::Console, b"two", 20).unwrap();
        assert_eq!((outputs.front(Limit::To(u64::MAX)), outputs.is_open()), (None, true));
        outputs.seal(500);
        assert_eq!(outputs.front(Limit::To(499)), None);
        let one = Output { kind: Kind::Frame(1), bytes: b"one", position: Some(500), made_at: 10 };
        assert_eq!(outputs.front(Limit::To(500)), Some(one));
        outputs.pop(1010);
        outputs.push(Kind::SideConsole, b"", 30).unwrap();
        assert_eq!(outputs.front(Limit::To(500)).unwrap().bytes, b"two");
        outputs.pop(2020);
        assert_eq!(outputs.front(Limit::To(u64::MAX)), None);
        assert_eq!(outputs.front(Limit::All).unwrap().kind, Kind::SideConsole);
        assert_eq!((outputs.delays().count(), outputs.delays().most()), (2, 2000));
    }

    #[test]
    fn what_is_full_refuses() {
        let mut memory = vec![0; 2 * HEADER + 10];
        let mut outputs = Outputs::new(&mut memory);
        assert_eq!(outputs.push(Kind::Console, &[0; HEADER + 11], 0), Err(Full));
        outputs.push(Kind::Console, &[1; 5], 0).unwrap();
        assert!(outputs.has_room(5) && !outputs.has_room(6));
        outputs.push(Kind::Console, &[2; 5], 0).unwrap();
        assert_eq!(outputs.push(Kind::Console, &[], 0), Err(Full));
        outputs.push_over(Kind::Console, &[3; 5], 0);
        outputs.push_over(Kind::Console, &[0; 100], 0);
        let counters = outputs.counters();
        assert_eq!((counters.held, counters.refused, counters.dropped, outputs.len()), (3, 2, 4, 0));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        Over(usize),
        Seal(u64),
        Release(u64),
        Forget(u64),
        All,
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0usize..60).prop_map(Step::Push),
            1 => (0usize..60).prop_map(Step::Over),
            4 => (0u64..20).prop_map(Step::Seal),
            4 => (0u64..40).prop_map(Step::Release),
            1 => (0u64..40).prop_map(Step::Forget),
            1 => Just(Step::All),
        ]
    }

    /// An output as the model has it: bytes, position, time.
    type Model = VecDeque<(Vec<u8>, Option<u64>, u64)>;

    fn take(outputs: &mut Outputs<'_>, model: &mut Model, limit: Limit, now: u64) {
        while let Some(output) = outputs.front(limit) {
            let (bytes, position, made_at) = model.pop_front().expect("the model has it");
            assert!(limit.allows(position));
            assert_eq!((output.bytes, output.position, output.made_at), (&bytes[..], position, made_at));
            outputs.pop(now);
        }
        assert!(model.front().is_none_or(|(_, position, _)| !limit.allows(*position)));
    }

    proptest! {
        #[test]
        fn it_is_a_queue_with_a_gate(size in 0usize..400, steps in proptest::collection::vec(any_step(), 1..300)) {
            let mut memory = vec![0; size];
            let mut outputs = Outputs::new(&mut memory);
            let (mut model, mut position) = (Model::new(), 0);
            for (now, step) in steps.into_iter().enumerate() {
                let byte = now as u8;
                let now = now as u64;
                match step {
                    Step::Push(length) => {
                        let bytes = vec![byte; length];
                        let room = outputs.has_room(length);
                        prop_assert_eq!(outputs.push(Kind::Console, &bytes, now).is_ok(), room);
                        // Half of the memory can always be used.
                        let used: usize = model.iter().map(|(bytes, ..)| HEADER + bytes.len()).sum();
                        prop_assert!(room || used + HEADER + length > size / 2);
                        if room {
                            model.push_back((bytes, None, now));
                        }
                    }
                    Step::Over(length) => {
                        let before = outputs.counters().dropped;
                        outputs.push_over(Kind::Console, &vec![byte; length], now);
                        let dropped = (outputs.counters().dropped - before) as usize;
                        model.push_back((vec![byte; length], None, now));
                        model.drain(..dropped);
                    }
                    Step::Seal(more) => {
                        position += more;
                        outputs.seal(position);
                        model.iter_mut().for_each(|(_, at, _)| *at = at.or(Some(position)));
                    }
                    Step::Release(back) => {
                        take(&mut outputs, &mut model, Limit::To(position.saturating_sub(back)), now);
                    }
                    Step::Forget(back) => {
                        let limit = Limit::To(position.saturating_sub(back));
                        outputs.forget(limit);
                        while model.front().is_some_and(|(_, at, _)| limit.allows(*at)) {
                            model.pop_front();
                        }
                    }
                    Step::All => take(&mut outputs, &mut model, Limit::All, now),
                }
                prop_assert_eq!(outputs.len(), model.len());
                prop_assert!(outputs.used() <= size);
                prop_assert_eq!(outputs.is_open(), model.iter().any(|(_, at, _)| at.is_none()));
            }
        }
    }
}
