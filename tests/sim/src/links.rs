//! Networks: datagrams that are lost, late, doubled and out of order, and byte streams that are late or break.

use std::collections::VecDeque;

use replay::seed::Seed;

/// What a network does to datagrams in one direction.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// The delay, at least and at most, nanoseconds.
    pub delay: (u64, u64),
    /// One in so many is lost; 0: none.
    pub loss: u64,
    /// One in so many comes twice; 0: none.
    pub doubled: u64,
    /// One in so many is late by as much again as this; 0: none.
    pub late: (u64, u64),
}

impl Weather {
    /// A good network.
    pub const FAIR: Self = Self { delay: (20_000, 60_000), loss: 0, doubled: 0, late: (0, 0) };

    /// The delay of one datagram.
    pub fn delay(&self, rng: &mut Seed) -> u64 {
        let (low, high) = self.delay;
        let late = if rng.one_in(self.late.0) { rng.below(self.late.1) } else { 0 };
        rng.between(low, high) + late
    }

    /// The delays after which copies of one datagram arrive: none, one or two.
    pub fn copies(&self, rng: &mut Seed) -> impl Iterator<Item = u64> + use<> {
        let first = (!rng.one_in(self.loss)).then(|| self.delay(rng));
        let second = rng.one_in(self.doubled).then(|| self.delay(rng));
        first.into_iter().chain(second)
    }
}

/// Bytes in flight that a stream has room for.
pub const WINDOW: usize = 64 * 1024;

/// One direction of a byte stream: in order, whole, some time later.
#[derive(Debug, Default)]
pub struct Pipe {
    pieces: VecDeque<(u64, Vec<u8>)>,
    bytes: usize,
    last: u64,
}

impl Pipe {
    /// How many bytes can be sent.
    pub const fn room(&self) -> usize {
        WINDOW - self.bytes
    }

    /// Sends bytes that will be there at this moment, or when those before them are.
    pub fn send(&mut self, arrive: u64, bytes: Vec<u8>) -> u64 {
        self.last = self.last.max(arrive);
        self.bytes += bytes.len();
        self.pieces.push_back((self.last, bytes));
        self.last
    }

    /// What has arrived by now.
    pub fn receive(&mut self, now: u64) -> Option<Vec<u8>> {
        let (at, _) = self.pieces.front()?;
        if *at > now {
            return None;
        }
        let (_, bytes) = self.pieces.pop_front()?;
        self.bytes -= bytes.len();
        Some(bytes)
    }

    /// When the last piece that was sent arrives.
    pub const fn last(&self) -> u64 {
        self.last
    }
}
