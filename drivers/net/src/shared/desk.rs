//! What is kept for one of a card's users: its wishes, and frames that were put by for it.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use hal::{Filter, NetEvents};

/// A frame that was put by.
pub struct Taken {
    pub bytes: Box<[u8]>,
    pub length: usize,
}

/// One user's.
pub struct Desk {
    pub filter: Filter,
    /// What it wants to be interrupted for.
    pub wanted: NetEvents,
    /// What has happened and it was not told.
    pub pending: NetEvents,
    waiting: VecDeque<Taken>,
    spare: Vec<Taken>,
    /// Frames for which there was no place.
    pub missed: u64,
}

impl Desk {
    /// With room for so many frames of so many bytes.
    pub fn new(slots: usize, bytes: usize) -> Self {
        let spare =
            (0..slots).map(|_| Taken { bytes: vec![0; bytes].into_boxed_slice(), length: 0 }).collect();
        Self {
            filter: Filter::default(),
            wanted: NetEvents::NONE,
            pending: NetEvents::NONE,
            // One that is put back comes on top.
            waiting: VecDeque::with_capacity(slots),
            spare,
            missed: 0,
        }
    }

    /// Puts a frame by. Whether there was room for it; else it is lost, as on a card whose ring is full.
    pub fn put(&mut self, frame: &[u8]) -> bool {
        let Some(mut place) = self.spare.pop() else {
            self.missed += 1;
            return false;
        };
        match place.bytes.get_mut(..frame.len()) {
            Some(bytes) => {
                bytes.copy_from_slice(frame);
                place.length = frame.len();
                self.waiting.push_back(place);
                true
            }
            None => {
                self.spare.push(place);
                self.missed += 1;
                false
            }
        }
    }

    /// The oldest frame, to be given back: [`free`](Self::free), [`put_back`](Self::put_back).
    pub fn take(&mut self) -> Option<Taken> {
        self.waiting.pop_front()
    }

    /// It is used.
    pub fn free(&mut self, taken: Taken) {
        self.spare.push(taken);
    }

    /// It is the oldest again.
    pub fn put_back(&mut self, taken: Taken) {
        self.waiting.push_front(taken);
    }
}
