//! Frames for a guest's EPT paging structures: taken once, so that nothing is allocated while the guest runs.

use crate::arch::physical::Pages;
use crate::memory::{FRAME, OutOfFrames, Zone};
use vmx::ept::{ENTRIES, Tables};

/// A run of frames, some of them in use as tables.
pub struct TablePool {
    pages: Pages,
    /// Frames never used yet start here.
    fresh: usize,
    /// First of the frames that were given back, by index + 1; each holds the next in its first word.
    returned: usize,
    in_use: usize,
}

impl TablePool {
    /// A pool of `frames` frames.
    ///
    /// # Errors
    /// No such memory.
    pub fn take(frames: u64) -> Result<Self, OutOfFrames> {
        let pages = Pages::take(frames, FRAME, Zone::Any)?;
        Ok(Self { pages, fresh: 0, returned: 0, in_use: 0 })
    }

    /// Frames in use as tables.
    pub const fn in_use(&self) -> usize {
        self.in_use
    }

    fn table(&self, address: u64) -> usize {
        ((address - self.pages.address()) / FRAME) as usize
    }

    fn word(&mut self, table: usize, index: usize) -> &mut u64 {
        &mut self.pages.words_mut()[table * ENTRIES + index]
    }
}

impl Tables for TablePool {
    fn allocate(&mut self) -> Option<u64> {
        let table = if self.returned != 0 {
            let table = self.returned - 1;
            self.returned = *self.word(table, 0) as usize;
            table
        } else if (self.fresh as u64) < self.pages.range().len() / FRAME {
            self.fresh += 1;
            self.fresh - 1
        } else {
            return None;
        };
        self.pages.words_mut()[table * ENTRIES..][..ENTRIES].fill(0);
        self.in_use += 1;
        Some(self.pages.address() + table as u64 * FRAME)
    }

    fn free(&mut self, address: u64) {
        let table = self.table(address);
        *self.word(table, 0) = self.returned as u64;
        self.returned = table + 1;
        self.in_use -= 1;
    }

    fn read(&self, address: u64, index: usize) -> u64 {
        let at = (self.table(address) * ENTRIES + index) * 8;
        let bytes = self.pages.bytes()[at..at + 8].try_into().expect("eight bytes");
        u64::from_ne_bytes(bytes)
    }

    fn write(&mut self, address: u64, index: usize, entry: u64) {
        let table = self.table(address);
        *self.word(table, index) = entry;
    }
}
