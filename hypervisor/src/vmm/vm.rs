//! One guest's memory: RAM at guest-physical 0 and, where the hole for devices splits it, at 4 GiB; firmware's ROM below
//! 4 GiB. Mapped by EPT with the largest pages that fit, or so that each page is kept track of.

use super::pages::TrackedPages;
use super::tables::TablePool;
use crate::arch::physical::Pages;
use crate::arch::{paging, vmx as processor};
use crate::memory::{FRAME, OutOfFrames, Zone};
use core::fmt;
use machine::ram::{HIGH, HOLE, Layout, Ram, mark};
use vmx::caps::EptVpid;
use vmx::ept::{Attributes, Ept, EptError, Mapping, Permissions, Tables};

/// Frames for a guest's EPT tables: the root, two upper ones, and what splitting large pages takes.
const TABLE_FRAMES: u64 = 32;

/// RAM begins at a multiple of this, so that 2-MByte pages fit.
const ALIGNMENT: u64 = 2 << 20;

/// Why a guest cannot be made or its memory not changed.
#[derive(Clone, Copy, Debug)]
pub enum VmError {
    /// No memory.
    Memory(OutOfFrames),
    /// The paging structures.
    Ept(EptError),
    /// The range is not RAM of the guest.
    NotRam,
}

impl fmt::Display for VmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(error) => write!(f, "guest memory: {error}"),
            Self::Ept(error) => write!(f, "{error}"),
            Self::NotRam => f.write_str("the range is not RAM of the guest"),
        }
    }
}

impl From<OutOfFrames> for VmError {
    fn from(error: OutOfFrames) -> Self {
        Self::Memory(error)
    }
}

impl From<EptError> for VmError {
    fn from(error: EptError) -> Self {
        Self::Ept(error)
    }
}

/// A guest's memory. While a guest runs, the processor that runs it is the only one that changes the mappings.
pub struct Vm {
    ram: Pages,
    rom: Option<Pages>,
    ept: Ept,
    tables: VmTables,
}

/// The frames of a guest's EPT tables: a pool, and the tables of pages that are kept track of.
struct VmTables {
    pool: TablePool,
    pages: Option<TrackedPages>,
}

impl Tables for VmTables {
    fn allocate(&mut self) -> Option<u64> {
        self.pool.allocate()
    }
    fn free(&mut self, table: u64) {
        if !self.pages.as_ref().is_some_and(|pages| pages.owns(table)) {
            self.pool.free(table);
        }
    }
    fn read(&self, table: u64, index: usize) -> u64 {
        match &self.pages {
            Some(pages) if pages.owns(table) => pages.read_entry(table, index),
            _ => self.pool.read(table, index),
        }
    }
    fn write(&mut self, table: u64, index: usize, entry: u64) {
        match &mut self.pages {
            Some(pages) if pages.owns(table) => pages.write_entry(table, index, entry),
            _ => self.pool.write(table, index, entry),
        }
    }
}

impl Vm {
    /// A guest with `bytes` of RAM (a multiple of 4 KiB), zeroed, where [`Layout`] has it.
    ///
    /// # Errors
    /// No memory, or EPT that cannot map it.
    pub fn new(bytes: u64, caps: EptVpid) -> Result<Self, VmError> {
        let ram = Pages::take(bytes.div_ceil(FRAME), ALIGNMENT, Zone::Any)?;
        let mut tables = VmTables { pool: TablePool::take(TABLE_FRAMES)?, pages: None };
        let mut ept = Ept::new(&mut tables, caps, paging::features().physical_bits)?;
        let layout = Layout::new(ram.range().len());
        let (low, high) = (layout.low(), layout.high());
        ept.map(&mut tables, 0, ram.address(), low.end, Attributes::RAM)?;
        if !high.is_empty() {
            ept.map(&mut tables, HIGH, ram.address() + low.end, high.end - HIGH, Attributes::RAM)?;
        }
        Ok(Self { ram, rom: None, ept, tables })
    }

    /// Keeps track of each page of RAM from now on: which are written ([`Vm::take_dirty`]), which are paging structures of
    /// the guest's. Nothing counts as written so far; nothing happens where this is so already. `large`: 2-MByte pages may be used. Before anything is put into RAM.
    ///
    /// # Errors
    /// No memory.
    pub fn track(&mut self, large: bool) -> Result<(), VmError> {
        if self.tables.pages.is_some() {
            return Ok(());
        }
        let bytes = self.ram.range().len();
        let (low, high) = (Layout::new(bytes).low(), Layout::new(bytes).high());
        self.ept.unmap(&mut self.tables, 0, low.end)?;
        if !high.is_empty() {
            self.ept.unmap(&mut self.tables, HIGH, high.end - HIGH)?;
        }
        let pages = TrackedPages::new(self.ram.address(), bytes, large)?;
        for gigabyte in 0..pages.gigabytes() {
            // RAM's bytes go on at 4 GiB where the hole begins, which is at a whole GByte.
            let place = (gigabyte as u64) << 30;
            let guest = if place < HOLE { place } else { place - HOLE + HIGH };
            self.ept.adopt_directory(&mut self.tables, guest, pages.directory(gigabyte))?;
        }
        self.tables.pages = Some(pages);
        processor::invalidate_ept(self.ept.pointer());
        Ok(())
    }

    /// The pages of RAM, where they are kept track of.
    #[inline]
    pub const fn pages(&self) -> Option<&TrackedPages> {
        self.tables.pages.as_ref()
    }

    /// The pages of RAM, where they are kept track of. Afterwards: [`Vm::settle`].
    #[inline]
    pub const fn pages_mut(&mut self) -> Option<&mut TrackedPages> {
        self.tables.pages.as_mut()
    }

    /// The number of the page of RAM at a guest-physical address, where pages are kept track of.
    #[inline]
    pub fn page_of(&self, guest: u64) -> Option<usize> {
        let pages = self.tables.pages.as_ref()?;
        let place = match guest {
            0..HOLE => guest,
            HIGH.. => guest - HIGH + HOLE,
            _ => return None,
        };
        let page = (place / FRAME) as usize;
        (page < pages.count()).then_some(page)
    }

    /// Where a byte of RAM lies among RAM's bytes.
    #[inline]
    pub const fn place_of(&self, guest: u64) -> Option<usize> {
        match guest {
            0..HOLE => Some(guest as usize),
            HIGH..=0x000f_ffff_ffff_ffff => Some((guest - HIGH + HOLE) as usize),
            _ => None,
        }
    }

    /// Guest-physical address of a page of RAM.
    pub const fn address_of(page: usize) -> u64 {
        let place = page as u64 * FRAME;
        if place < HOLE { place } else { place - HOLE + HIGH }
    }

    /// The processor forgets permissions that were taken away; with them, all translations of the guest's. True if there was
    /// anything to forget.
    #[inline]
    pub fn settle(&mut self) -> bool {
        let stale = self.tables.pages.as_mut().is_some_and(TrackedPages::take_stale);
        if stale {
            processor::invalidate_ept(self.ept.pointer());
        }
        stale
    }

    /// Visits the pages that were written since this was last called, or since the beginning, in order, with their bytes.
    /// Nothing where pages are not kept track of.
    pub fn take_dirty(&mut self, mut visit: impl FnMut(usize, &[u8])) {
        let Some(pages) = &mut self.tables.pages else { return };
        let ram = self.ram.bytes();
        pages.take_dirty(|page| visit(page, &ram[page * FRAME as usize..][..FRAME as usize]));
        self.settle();
    }

    /// Takes a page of RAM out of the guest's reach until it is touched, which nobody sees but the host.
    pub fn put_away(&mut self, page: usize) {
        if let Some(pages) = &mut self.tables.pages
            && page < pages.count()
        {
            pages.change(page, mark::AWAY, 0);
            self.settle();
        }
    }

    /// RAM, as devices and the emulator reach it: what is written is marked.
    #[inline]
    pub fn ram(&mut self) -> Ram<'_> {
        match &mut self.tables.pages {
            Some(pages) => Ram::marked(self.ram.bytes_mut(), pages.marks_mut()),
            None => Ram::new(self.ram.bytes_mut()),
        }
    }

    /// Puts firmware's ROM (a multiple of 4 KiB) right below 4 GiB: the guest may read and execute it.
    ///
    /// # Errors
    /// No memory, no tables, or a length that is no multiple.
    pub fn set_rom(&mut self, image: &[u8]) -> Result<(), VmError> {
        let bytes = image.len() as u64;
        let mut rom = Pages::take(bytes.div_ceil(FRAME), FRAME, Zone::Any)?;
        rom.bytes_mut()[..image.len()].copy_from_slice(image);
        let attributes = Attributes { permissions: Permissions::READ_EXECUTE, ..Attributes::RAM };
        self.ept.map(&mut self.tables, HIGH - bytes, rom.address(), bytes, attributes)?;
        self.rom = Some(rom);
        Ok(())
    }

    /// The ROM below 4 GiB; empty where there is none.
    pub fn rom(&self) -> &[u8] {
        self.rom.as_ref().map_or(&[], Pages::bytes)
    }

    /// All RAM; where it lies is [`Layout`]'s word.
    pub fn memory(&self) -> &[u8] {
        self.ram.bytes()
    }

    /// RAM, to be written, unmarked: where pages are kept track of, [`Vm::ram`] is the way. The guest is not running: it runs
    /// only inside a call of this processor.
    pub fn memory_mut(&mut self) -> &mut [u8] {
        self.ram.bytes_mut()
    }

    /// The EPT pointer for the VMCS.
    pub const fn ept_pointer(&self) -> u64 {
        self.ept.pointer()
    }

    /// Changes what the guest may do with a range; large pages are split as needed.
    ///
    /// # Errors
    /// See [`EptError`].
    pub fn protect(&mut self, guest: u64, bytes: u64, permissions: Permissions) -> Result<(), VmError> {
        let result = self.ept.protect(&mut self.tables, guest, bytes, permissions);
        processor::invalidate_ept(self.ept.pointer());
        Ok(result?)
    }

    /// Takes a range out of the guest's memory. The frames stay the guest's; [`Vm::map`] puts them back.
    ///
    /// # Errors
    /// See [`EptError`].
    pub fn unmap(&mut self, guest: u64, bytes: u64) -> Result<(), VmError> {
        let result = self.ept.unmap(&mut self.tables, guest, bytes);
        processor::invalidate_ept(self.ept.pointer());
        Ok(result?)
    }

    /// Puts a range of RAM that was unmapped back, with everything allowed. Nothing to invalidate: what was not present
    /// is not cached (SDM vol. 3C, "Information That May Be Cached").
    ///
    /// # Errors
    /// The range is not RAM, or mapped.
    pub fn map(&mut self, guest: u64, bytes: u64) -> Result<(), VmError> {
        let layout = Layout::new(self.ram.range().len());
        let place = usize::try_from(bytes).ok().and_then(|length| layout.place(guest, length));
        let host = self.ram.address() + place.ok_or(VmError::NotRam)?.start as u64;
        Ok(self.ept.map(&mut self.tables, guest, host, bytes, Attributes::RAM)?)
    }

    /// How a guest-physical address is mapped.
    pub fn translate(&self, guest: u64) -> Option<Mapping> {
        self.ept.translate(&self.tables, guest)
    }

    /// Frames that the EPT tables take.
    pub const fn tables_in_use(&self) -> usize {
        self.tables.pool.in_use()
    }
}
