//! The guest's RAM, as devices and the instruction emulator reach it.

use core::fmt;
use core::ops::Range;

/// Guest-physical address where the hole for device memory begins: RAM beyond it lies from [`HIGH`] on.
pub const HOLE: u64 = 0xC000_0000;
/// Guest-physical address of RAM that does not fit below the hole.
pub const HIGH: u64 = 1 << 32;

/// Where a guest's RAM lies: at 0, and what does not fit below [`HOLE`] at [`HIGH`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    bytes: u64,
}

impl Layout {
    /// The layout of so many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self { bytes }
    }

    /// All bytes.
    pub const fn bytes(self) -> u64 {
        self.bytes
    }

    /// The guest-physical addresses below the hole.
    pub const fn low(self) -> Range<u64> {
        0..if self.bytes < HOLE { self.bytes } else { HOLE }
    }

    /// The guest-physical addresses from 4 GiB on; empty for small guests.
    pub const fn high(self) -> Range<u64> {
        HIGH..HIGH + self.bytes.saturating_sub(HOLE)
    }

    /// Where in the RAM's bytes this guest-physical range lies; `None` unless it is RAM in one piece.
    pub fn place(self, address: u64, length: usize) -> Option<Range<usize>> {
        let end = address.checked_add(length as u64)?;
        let start = match address {
            _ if end <= self.low().end => address,
            _ if address >= HIGH && end <= self.high().end => address - HIGH + HOLE,
            _ => return None,
        };
        Some(start as usize..start as usize + length)
    }
}

/// The range is not RAM, or not in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotRam {
    /// First guest-physical address of the range.
    pub address: u64,
    /// Its length, bytes.
    pub length: usize,
}

impl fmt::Display for NotRam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {:#x} are not RAM of the guest", self.length, self.address)
    }
}

impl core::error::Error for NotRam {}

/// What is known of a page of RAM, where pages are kept track of: bits of a byte for each.
pub mod mark {
    /// Written since the marks were last taken.
    pub const DIRTY: u8 = 1 << 0;
    /// A paging structure of the guest's that a walk can reach: the guest's writes to it are watched.
    pub const TABLE: u8 = 1 << 1;
    /// Out of the guest's reach, because a page that it leads to is not watched just now.
    pub const HIDDEN: u8 = 1 << 2;
    /// Out of the guest's reach until it is touched; nobody but the host sees it.
    pub const AWAY: u8 = 1 << 3;
}

/// The marks of all pages, as [`Ram`] sets them when it writes.
#[derive(Debug)]
pub struct Marks<'a> {
    /// A byte of [`mark`]s for each page of 4 KiB, in the order of the RAM's bytes.
    pub pages: &'a mut [u8],
    /// Pages marked as [`mark::TABLE`] that were written.
    pub tables_written: &'a mut TablesWritten,
}

/// Whether the host has written to paging structures of the guest's that are watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TablesWritten {
    /// To none.
    #[default]
    None,
    /// To this page.
    One(usize),
    /// To several.
    Several,
}

impl TablesWritten {
    fn add(&mut self, page: usize) {
        *self = match *self {
            Self::None => Self::One(page),
            Self::One(other) if other == page => Self::One(page),
            _ => Self::Several,
        };
    }
}

impl Marks<'_> {
    /// These bytes of RAM (not none) are written.
    #[inline]
    fn written(&mut self, place: &Range<usize>) {
        let (first, last) = (place.start >> 12, place.end.saturating_sub(1) >> 12);
        // Most lie within a page, or two.
        for number in first..=last {
            let Some(page) = self.pages.get_mut(number) else { return };
            *page |= mark::DIRTY;
            if *page & mark::TABLE != 0 {
                self.tables_written.add(number);
            }
        }
    }
}

/// The guest's RAM. Whoever holds this may access it: the guest is not running.
#[derive(Debug)]
pub struct Ram<'a> {
    bytes: &'a mut [u8],
    layout: Layout,
    marks: Option<Marks<'a>>,
}

impl<'a> Ram<'a> {
    /// The RAM that these bytes are.
    pub const fn new(bytes: &'a mut [u8]) -> Self {
        let layout = Layout::new(bytes.len() as u64);
        Self { bytes, layout, marks: None }
    }

    /// The RAM that these bytes are; what is written is marked.
    pub const fn marked(bytes: &'a mut [u8], marks: Marks<'a>) -> Self {
        let layout = Layout::new(bytes.len() as u64);
        Self { bytes, layout, marks: Some(marks) }
    }

    /// Where it lies.
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// A range of RAM in one piece, to read.
    ///
    /// # Errors
    /// [`NotRam`].
    pub fn slice(&self, address: u64, length: usize) -> Result<&[u8], NotRam> {
        let place = self.layout.place(address, length).ok_or(NotRam { address, length })?;
        Ok(&self.bytes[place])
    }

    /// A range of RAM in one piece, to write. Where pages are kept track of, all of it counts as written.
    ///
    /// # Errors
    /// [`NotRam`].
    pub fn slice_mut(&mut self, address: u64, length: usize) -> Result<&mut [u8], NotRam> {
        let place = self.layout.place(address, length).ok_or(NotRam { address, length })?;
        if let Some(marks) = &mut self.marks
            && length != 0
        {
            marks.written(&place);
        }
        Ok(&mut self.bytes[place])
    }

    /// Reads all of `out`, or nothing.
    ///
    /// # Errors
    /// [`NotRam`].
    pub fn read(&self, address: u64, out: &mut [u8]) -> Result<(), NotRam> {
        out.copy_from_slice(self.slice(address, out.len())?);
        Ok(())
    }

    /// Writes all of `bytes`, or nothing.
    ///
    /// # Errors
    /// [`NotRam`].
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), NotRam> {
        self.slice_mut(address, bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    /// Reads an array.
    ///
    /// # Errors
    /// [`NotRam`].
    pub fn read_array<const N: usize>(&self, address: u64) -> Result<[u8; N], NotRam> {
        let mut out = [0; N];
        self.read(address, &mut out)?;
        Ok(out)
    }

    /// Reads a little-endian 16-bit number.
    ///
    /// # Errors
    /// [`NotRam`].
    pub fn read_u16(&self, address: u64) -> Result<u16, NotRam> {
        self.read_array(address).map(u16::from_le_bytes)
    }

    /// Reads a little-endian 32-bit number.
    ///
    /// # Errors
    /// [`NotRam`].
    pub fn read_u32(&self, address: u64) -> Result<u32, NotRam> {
        self.read_array(address).map(u32::from_le_bytes)
    }

    /// Reads a little-endian 64-bit number.
    ///
    /// # Errors
    /// [`NotRam`].
    pub fn read_u64(&self, address: u64) -> Result<u64, NotRam> {
        self.read_array(address).map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn ram_beyond_the_hole_is_found_above_four_gibibytes() {
        let layout = Layout::new(HOLE + 0x2000);
        assert_eq!(layout.low(), 0..HOLE);
        assert_eq!(layout.high(), HIGH..HIGH + 0x2000);
        assert_eq!(layout.place(HIGH + 0x10, 0x10), Some(HOLE as usize + 0x10..HOLE as usize + 0x20));
        assert_eq!(layout.place(HOLE - 1, 1), Some(HOLE as usize - 1..HOLE as usize));
        assert_eq!(layout.place(HOLE - 1, 2), None, "across the hole's edge");
        assert_eq!(layout.place(HIGH + 0x1fff, 2), None, "beyond the end");
        assert_eq!(layout.place(u64::MAX, 2), None, "an address that wraps");
    }

    #[test]
    fn what_is_written_is_marked() {
        let (mut bytes, mut pages) = (vec![0; 0x5000], [0, 0, mark::TABLE, 0, 0]);
        let mut tables_written = TablesWritten::None;
        let mut ram =
            Ram::marked(&mut bytes, Marks { pages: &mut pages, tables_written: &mut tables_written });
        ram.write(0xfff, &[1]).expect("inside");
        ram.write(0x2000, &[]).expect("inside");
        ram.write(0x2fff, &[0; 2]).expect("inside");
        assert!(ram.write(0x4fff, &[0; 2]).is_err());
        let mut read = [0; 4];
        ram.read(0x4000, &mut read).expect("inside");
        assert_eq!(pages, [mark::DIRTY, 0, mark::TABLE | mark::DIRTY, mark::DIRTY, 0]);
        assert_eq!(tables_written, TablesWritten::One(2));
    }

    #[test]
    fn accesses_are_whole_or_refused() {
        let mut bytes = vec![0; 0x100];
        let mut ram = Ram::new(&mut bytes);
        ram.write(0xf8, &[1, 2, 3, 4, 5, 6, 7, 8]).expect("inside");
        assert_eq!(ram.read_u64(0xf8), Ok(0x0807_0605_0403_0201));
        assert_eq!(ram.write(0xf9, &[0xff; 8]), Err(NotRam { address: 0xf9, length: 8 }));
        assert_eq!(ram.read_u32(0xfc), Ok(0x0807_0605), "nothing of the refused write was done");
    }
}
