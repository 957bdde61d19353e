//! A queue of bytes between one writer and one reader that may be different processors, or a handler and what it
//! interrupts. Pure; no locks.

use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// A queue of at most `N` bytes; `N` is a power of two.
#[derive(Debug)]
pub struct ByteRing<const N: usize> {
    bytes: [AtomicU8; N],
    /// Bytes ever put in, and taken out; wrap.
    put: AtomicUsize,
    taken: AtomicUsize,
}

impl<const N: usize> ByteRing<N> {
    /// An empty queue.
    pub const fn new() -> Self {
        const { assert!(N.is_power_of_two()) };
        ByteRing {
            bytes: [const { AtomicU8::new(0) }; N],
            put: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
        }
    }

    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.put.load(Ordering::SeqCst).wrapping_sub(self.taken.load(Ordering::SeqCst))
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a byte. False: it is full. For the one writer.
    pub fn push(&self, byte: u8) -> bool {
        let put = self.put.load(Ordering::Relaxed);
        if put.wrapping_sub(self.taken.load(Ordering::Acquire)) >= N {
            return false;
        }
        self.bytes[put % N].store(byte, Ordering::Relaxed);
        self.put.store(put.wrapping_add(1), Ordering::SeqCst);
        true
    }

    /// Takes the oldest byte. For the one reader.
    pub fn pop(&self) -> Option<u8> {
        let taken = self.taken.load(Ordering::Relaxed);
        if taken == self.put.load(Ordering::Acquire) {
            return None;
        }
        let byte = self.bytes[taken % N].load(Ordering::Relaxed);
        self.taken.store(taken.wrapping_add(1), Ordering::SeqCst);
        Some(byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        #[test]
        fn it_is_a_queue(steps in proptest::collection::vec(any::<Option<u8>>(), 0..200)) {
            let (ring, mut model) = (ByteRing::<8>::new(), VecDeque::new());
            for step in steps {
                match step {
                    Some(byte) => {
                        prop_assert_eq!(ring.push(byte), model.len() < 8);
                        if model.len() < 8 {
                            model.push_back(byte);
                        }
                    }
                    None => prop_assert_eq!(ring.pop(), model.pop_front()),
                }
                prop_assert_eq!((ring.len(), ring.is_empty()), (model.len(), model.is_empty()));
            }
        }
    }

    #[test]
    fn two_threads_lose_nothing() {
        static RING: ByteRing<16> = ByteRing::new();
        const COUNT: usize = 20_000;
        let writer = std::thread::spawn(|| {
            for n in 0..COUNT {
                while !RING.push(n as u8) {
                    std::thread::yield_now();
                }
            }
        });
        for n in 0..COUNT {
            let byte = loop {
                match RING.pop() {
                    Some(byte) => break byte,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!(byte, n as u8);
        }
        writer.join().unwrap();
    }
}
