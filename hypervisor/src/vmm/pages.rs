//! Each page of a guest's RAM by itself: marks, and the EPT entries that follow from them.
//!
//! Every 4-KByte page has its entry for good, all of them in one run of tables, so that a change of permissions is one store.
//! A 2-MByte region in whose pages the guest may do the same is mapped by one large page in its place.

use crate::arch::physical::Pages;
use crate::memory::{FRAME, OutOfFrames, Zone};
use machine::ram::{Marks, TablesWritten, mark};
use vmx::ept::{self, Attributes, ENTRIES, Permissions};

/// Pages in a region: what one table of 4-KByte pages maps.
const REGION: usize = ENTRIES;

/// Marks of pages in all bytes of a word.
const DIRTY_WORD: u64 = 0x0101_0101_0101_0101 * mark::DIRTY as u64;

/// The pages of a guest's RAM.
pub struct TrackedPages {
    /// Host-physical address of the RAM.
    host: u64,
    count: usize,
    marks: Pages,
    tables_written: TablesWritten,
    /// An entry for each page.
    leaves: Pages,
    /// An entry for each region.
    directories: Pages,
    large: bool,
    /// Permissions were taken away since the last INVEPT.
    stale: bool,
}

/// What the guest may do with a page.
const fn permissions(marks: u8) -> Permissions {
    match marks {
        _ if marks & (mark::HIDDEN | mark::AWAY) != 0 => Permissions::NONE,
        _ if marks & mark::TABLE != 0 || marks & mark::DIRTY == 0 => Permissions::READ_EXECUTE,
        _ => Permissions::ALL,
    }
}

fn holds(pages: &Pages, address: u64) -> bool {
    let range = pages.range();
    range.start <= address && address < range.end
}

impl TrackedPages {
    /// Tables for RAM of so many bytes at a host-physical address; nothing of it is written yet. `large`: the processor has
    /// 2-MByte pages.
    ///
    /// # Errors
    /// No memory.
    pub fn new(host: u64, bytes: u64, large: bool) -> Result<Self, OutOfFrames> {
        let count = (bytes / FRAME) as usize;
        let regions = count.div_ceil(REGION);
        let take = |frames: usize| Pages::take((frames as u64).max(1), FRAME, Zone::Any);
        let mut pages = Self {
            host,
            count,
            marks: take(count.div_ceil(FRAME as usize))?,
            tables_written: TablesWritten::None,
            leaves: take(regions)?,
            directories: take(regions.div_ceil(ENTRIES))?,
            large,
            stale: false,
        };
        (0..count).for_each(|page| pages.refresh_leaf(page));
        (0..regions).for_each(|region| pages.join(region));
        Ok(pages)
    }

    /// How many there are.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Host-physical address of the table that maps a GByte of RAM by its regions.
    pub fn directory(&self, gigabyte: usize) -> u64 {
        self.directories.address() + gigabyte as u64 * FRAME
    }

    /// GBytes that have a table.
    pub const fn gigabytes(&self) -> usize {
        self.count.div_ceil(REGION * ENTRIES)
    }

    /// Whether a table is one of these, not of the pool.
    pub fn owns(&self, table: u64) -> bool {
        holds(&self.leaves, table) || holds(&self.directories, table)
    }

    /// Reads an entry of a table that is one of these.
    pub fn read_entry(&self, table: u64, index: usize) -> u64 {
        let pages = if holds(&self.leaves, table) { &self.leaves } else { &self.directories };
        pages.words()[(table - pages.address()) as usize / 8 + index]
    }

    /// Writes an entry of a table that is one of these.
    pub fn write_entry(&mut self, table: u64, index: usize, entry: u64) {
        let pages = if holds(&self.leaves, table) { &mut self.leaves } else { &mut self.directories };
        let first = (table - pages.address()) as usize / 8;
        pages.words_mut()[first + index] = entry;
    }

    /// A page's marks.
    #[inline]
    pub fn marks(&self, page: usize) -> u8 {
        self.marks.bytes()[page]
    }

    /// The marks, for who writes RAM.
    pub fn marks_mut(&mut self) -> Marks<'_> {
        Marks { pages: &mut self.marks.bytes_mut()[..self.count], tables_written: &mut self.tables_written }
    }

    /// Whether the host has written to tables of the guest's since this was last taken.
    #[inline]
    pub const fn tables_written(&self) -> TablesWritten {
        self.tables_written
    }

    /// Takes it as dealt with.
    #[inline]
    pub const fn take_tables_written(&mut self) -> TablesWritten {
        core::mem::replace(&mut self.tables_written, TablesWritten::None)
    }

    /// The host has written to a page, and knows that it may be a table.
    #[inline]
    pub fn note_written(&mut self, page: usize) {
        self.marks.bytes_mut()[page] |= mark::DIRTY;
    }

    /// Changes a page's marks, and what the guest may do with it.
    #[inline]
    pub fn change(&mut self, page: usize, set: u8, clear: u8) {
        let place = &mut self.marks.bytes_mut()[page];
        let (old, new) = (*place, *place & !clear | set);
        *place = new;
        let (before, after) = (permissions(old), permissions(new));
        if before != after {
            self.refresh_leaf(page);
            self.split(page / REGION);
            self.stale |= before.write && !after.write || before.read && !after.read;
        }
    }

    /// The guest has touched a page that it did not reach, or not to write: it does now, unless it is a table or hidden.
    #[inline]
    pub fn touched(&mut self, page: usize, write: bool) {
        let place = &mut self.marks.bytes_mut()[page];
        *place = *place & !mark::AWAY | if write { mark::DIRTY } else { 0 };
        // The host may have marked it already.
        self.refresh_leaf(page);
        self.split(page / REGION);
    }

    /// The guest has written to a page for the first time since it was looked at; false if it is more than that, so that
    /// nothing was done.
    #[inline(always)]
    pub fn written_first(&mut self, page: usize) -> bool {
        let Some(place) = self.marks.bytes_mut().get_mut(page) else { return false };
        // Marked already: the host has written to it, and it is to become writable no less.
        if *place & !mark::DIRTY != 0 {
            return false;
        }
        *place = mark::DIRTY;
        let leaf = &mut self.leaves.words_mut()[page];
        *leaf = ept::writable(*leaf);
        self.split(page / REGION);
        true
    }

    /// Nobody will ask which pages are written: all count as written from now on, so that no exit comes of it.
    pub fn let_all_be_written(&mut self) {
        for page in 0..self.count {
            self.change(page, mark::DIRTY, 0);
        }
        (0..self.count.div_ceil(REGION)).for_each(|region| self.join(region));
    }

    /// Whether INVEPT has to come before the next entry; it is taken to be done.
    #[inline]
    pub const fn take_stale(&mut self) -> bool {
        core::mem::replace(&mut self.stale, false)
    }

    /// Visits the pages that are marked as written, in order, and takes the mark away.
    pub fn take_dirty(&mut self, mut visit: impl FnMut(usize)) {
        for region in 0..self.count.div_ceil(REGION) {
            let first = region * REGION;
            let words = &self.marks.words()[first / 8..(first + REGION) / 8];
            if words.iter().all(|word| word & DIRTY_WORD == 0) {
                continue;
            }
            for page in first..(first + REGION).min(self.count) {
                if self.marks(page) & mark::DIRTY != 0 {
                    visit(page);
                    self.change(page, 0, mark::DIRTY);
                }
            }
            self.join(region);
        }
    }

    fn refresh_leaf(&mut self, page: usize) {
        let attributes = Attributes { permissions: permissions(self.marks(page)), ..Attributes::RAM };
        let entry = ept::page_entry(1, self.host + page as u64 * FRAME, attributes);
        self.leaves.words_mut()[page] = entry;
    }

    /// Maps a region page by page.
    #[inline]
    fn split(&mut self, region: usize) {
        let table = self.leaves.address() + region as u64 * FRAME;
        self.directories.words_mut()[region] = ept::table_entry(table);
    }

    /// Maps a region by one large page, if the guest may do the same in all its pages and reach them, and it is whole.
    fn join(&mut self, region: usize) {
        let pages = region * REGION..(region + 1) * REGION;
        let whole = self.large && pages.end <= self.count;
        let first = permissions(self.marks(pages.start));
        if whole && first.read && pages.clone().all(|page| permissions(self.marks(page)) == first) {
            let host = self.host + (pages.start as u64) * FRAME;
            let attributes = Attributes { permissions: first, ..Attributes::RAM };
            self.directories.words_mut()[region] = ept::page_entry(2, host, attributes);
        } else {
            self.split(region);
        }
    }
}
