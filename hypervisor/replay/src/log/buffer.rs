//! The log buffer: the bytes of the log between the recorder, which must not wait, and the logging channel, which may.
//!
//! A ring of a fixed size. What does not fit is refused whole, so the reader never sees a part of a block that was not meant
//! to be there; whoever pushes then stops the guest until there is room.

use core::fmt;

/// Bytes of the buffer that a recorded virtual machine has: what a guest logs in a few milliseconds of receiving at gigabit
/// speed, and far more than the largest block.
pub const BYTES: usize = 1 << 20;

/// The buffer has not so much room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the log buffer is full")
    }
}

impl core::error::Error for Full {}

/// A ring of bytes in memory that was allocated before.
#[derive(Debug)]
pub struct LogBuffer<'m> {
    memory: &'m mut [u8],
    /// Where the oldest byte is.
    first: usize,
    /// Bytes in it.
    used: usize,
    pushed: u64,
    consumed: u64,
    refused: u64,
    most: usize,
}

impl<'m> LogBuffer<'m> {
    /// An empty buffer of all of `memory`.
    pub const fn new(memory: &'m mut [u8]) -> Self {
        Self { memory, first: 0, used: 0, pushed: 0, consumed: 0, refused: 0, most: 0 }
    }

    /// Bytes that fit in all.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.memory.len()
    }

    /// Bytes in it.
    #[must_use]
    pub const fn used(&self) -> usize {
        self.used
    }

    /// Bytes that still fit.
    #[must_use]
    pub const fn free(&self) -> usize {
        self.memory.len() - self.used
    }

    /// Whether nothing is in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Puts bytes behind those that are there: all, or none.
    ///
    /// # Errors
    /// There is less room than that.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Full> {
        if bytes.len() > self.free() {
            self.refused += 1;
            return Err(Full);
        }
        let start = self.place(self.used);
        let (near, far) = bytes.split_at(bytes.len().min(self.memory.len() - start));
        self.memory[start..start + near.len()].copy_from_slice(near);
        self.memory[..far.len()].copy_from_slice(far);
        self.used += bytes.len();
        self.most = self.most.max(self.used);
        self.pushed += bytes.len() as u64;
        Ok(())
    }

    /// What is in it, oldest first, in two pieces; the second is empty unless the ring's end lies within.
    #[must_use]
    pub fn readable(&self) -> (&[u8], &[u8]) {
        let near = self.used.min(self.memory.len() - self.first);
        (&self.memory[self.first..self.first + near], &self.memory[..self.used - near])
    }

    /// Forgets the `count` oldest bytes.
    ///
    /// # Panics
    /// There are not so many.
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.used, "{count} bytes of {} are taken from the log buffer", self.used);
        // Empty, it begins anew at the start: then most blocks lie in one piece.
        self.first = if count == self.used { 0 } else { self.place(count) };
        self.used -= count;
        self.consumed += count as u64;
    }

    /// Bytes ever put in.
    #[must_use]
    pub const fn pushed(&self) -> u64 {
        self.pushed
    }

    /// Bytes ever taken out.
    #[must_use]
    pub const fn consumed(&self) -> u64 {
        self.consumed
    }

    /// How often there was no room.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    /// The most bytes that were ever in it at once.
    #[must_use]
    pub const fn most(&self) -> usize {
        self.most
    }

    /// The index of the byte `ahead` of the oldest; `ahead` is no more than the capacity.
    const fn place(&self, ahead: usize) -> usize {
        let at = self.first + ahead;
        if at >= self.memory.len() { at - self.memory.len() } else { at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::vec::Vec;

    #[test]
    fn what_does_not_fit_is_refused_whole() {
        let mut memory = [0; 8];
        let mut buffer = LogBuffer::new(&mut memory);
        buffer.push(b"12345").unwrap();
        assert_eq!(buffer.push(b"6789"), Err(Full));
        assert_eq!(buffer.readable(), (&b"12345"[..], &b""[..]));
        buffer.push(b"678").unwrap();
        assert_eq!((buffer.free(), buffer.push(b"9"), buffer.push(b"")), (0, Err(Full), Ok(())));
        buffer.consume(3);
        buffer.push(b"9ab").unwrap();
        assert_eq!(buffer.readable(), (&b"45678"[..], &b"9ab"[..]));
        assert_eq!((buffer.pushed(), buffer.consumed(), buffer.refused(), buffer.most()), (11, 3, 2, 8));
    }

    #[test]
    fn an_empty_one_begins_at_the_start() {
        let mut memory = [0; 4];
        let mut buffer = LogBuffer::new(&mut memory);
        buffer.push(b"123").unwrap();
        buffer.consume(3);
        buffer.push(b"4567").unwrap();
        assert_eq!(buffer.readable(), (&b"4567"[..], &b""[..]));
    }

    #[test]
    #[should_panic(expected = "are taken from the log buffer")]
    fn taking_more_than_there_is_is_a_bug() {
        let mut memory = [0; 4];
        LogBuffer::new(&mut memory).consume(1);
    }

    #[test]
    fn no_memory_holds_nothing() {
        let mut buffer = LogBuffer::new(&mut []);
        assert_eq!((buffer.push(b""), buffer.push(b"1"), buffer.is_empty()), (Ok(()), Err(Full), true));
        buffer.consume(0);
    }

    proptest! {
        #[test]
        fn it_is_a_queue(size in 1usize..40, steps in proptest::collection::vec((any::<bool>(), 0usize..24), 1..200)) {
            let mut memory = std::vec![0; size];
            let mut buffer = LogBuffer::new(&mut memory);
            let (mut model, mut next) = (VecDeque::new(), 0u8);
            for (push, count) in steps {
                if push {
                    let bytes: Vec<u8> = (0..count).map(|n| next.wrapping_add(n as u8)).collect();
                    let pushed = buffer.push(&bytes);
                    prop_assert_eq!(pushed.is_ok(), model.len() + count <= size);
                    if pushed.is_ok() {
                        next = next.wrapping_add(count as u8);
                        model.extend(bytes);
                    }
                } else {
                    let count = count.min(model.len());
                    buffer.consume(count);
                    model.drain(..count);
                }
                let (near, far) = buffer.readable();
                prop_assert_eq!([near, far].concat(), model.iter().copied().collect::<Vec<u8>>());
                prop_assert_eq!((buffer.used(), buffer.free()), (model.len(), size - model.len()));
                prop_assert_eq!(buffer.pushed() - buffer.consumed(), model.len() as u64);
            }
        }
    }
}
