//! EPT paging structures: map, unmap, protect, split, walk (SDM vol. 3C, "The Extended Page Table Mechanism").
//!
//! Pure: the tables are read and written through [`Tables`]. After anything but [`Ept::map`] of what was not mapped, the
//! caller invalidates with INVEPT before the guest runs on.

use crate::caps::EptVpid;

/// Bytes of the smallest page, and of a table.
pub const PAGE: u64 = 4096;
/// Entries of a table.
pub const ENTRIES: usize = 512;
/// Levels of a walk.
const LEVELS: u32 = 4;

const READ: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const EXECUTE: u64 = 1 << 2;
const TYPE_SHIFT: u32 = 3;
const IGNORE_PAT: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
/// Ignored by the processor in every entry: marks a leaf, so that one without any permission keeps its address.
const MAPPED: u64 = 1 << 11;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Where the tables lie: frames of [`PAGE`] bytes, named by their host-physical address.
pub trait Tables {
    /// A frame full of zeros; None if there is none left.
    fn allocate(&mut self) -> Option<u64>;
    /// Takes a frame back.
    fn free(&mut self, table: u64);
    /// Reads an entry.
    fn read(&self, table: u64, index: usize) -> u64;
    /// Writes an entry, all 64 bits at once.
    fn write(&mut self, table: u64, index: usize, entry: u64);
}

/// What a guest may do with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Permissions {
    pub read: bool,
    pub write: bool,
    pub execute: bool,
}

impl Permissions {
    /// Everything.
    pub const ALL: Self = Self { read: true, write: true, execute: true };
    /// Everything but writing.
    pub const READ_EXECUTE: Self = Self { read: true, write: false, execute: true };
    /// Only reading.
    pub const READ_ONLY: Self = Self { read: true, write: false, execute: false };
    /// Nothing; the mapping remembers its frame.
    pub const NONE: Self = Self { read: false, write: false, execute: false };

    const fn bits(self) -> u64 {
        self.read as u64 | (self.write as u64) << 1 | (self.execute as u64) << 2
    }
    const fn from_bits(entry: u64) -> Self {
        Self { read: entry & READ != 0, write: entry & WRITE != 0, execute: entry & EXECUTE != 0 }
    }
}

/// Memory type of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum MemoryType {
    Uncacheable = 0,
    WriteCombining = 1,
    WriteThrough = 4,
    WriteProtected = 5,
    WriteBack = 6,
}

impl MemoryType {
    const fn from_bits(bits: u64) -> Option<Self> {
        match bits & 7 {
            0 => Some(Self::Uncacheable),
            1 => Some(Self::WriteCombining),
            4 => Some(Self::WriteThrough),
            5 => Some(Self::WriteProtected),
            6 => Some(Self::WriteBack),
            _ => None,
        }
    }
}

/// How a page is mapped, besides where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// What the guest may do.
    pub permissions: Permissions,
    /// The memory type.
    pub memory: MemoryType,
    /// The guest's PAT does not count.
    pub ignore_pat: bool,
}

impl Attributes {
    /// Ordinary memory of a guest: everything allowed, write-back whatever the guest's PAT says.
    pub const RAM: Self =
        Self { permissions: Permissions::ALL, memory: MemoryType::WriteBack, ignore_pat: true };

    const fn bits(self) -> u64 {
        self.permissions.bits()
            | (self.memory as u64) << TYPE_SHIFT
            | if self.ignore_pat { IGNORE_PAT } else { 0 }
    }
    const fn from_bits(entry: u64) -> Option<Self> {
        match MemoryType::from_bits(entry >> TYPE_SHIFT) {
            Some(memory) => Some(Self {
                permissions: Permissions::from_bits(entry),
                memory,
                ignore_pat: entry & IGNORE_PAT != 0,
            }),
            None => None,
        }
    }
}

/// What a walk finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The host-physical address of the byte asked for.
    pub host: u64,
    /// How it is mapped.
    pub attributes: Attributes,
    /// Bytes of the page: 4 KiB, 2 MiB or 1 GiB.
    pub page: u64,
}

/// Why a change of the mappings failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EptError {
    /// Address or length is no multiple of [`PAGE`], or the length is 0.
    Misaligned,
    /// An address is wider than the processor's.
    OutOfRange,
    /// Something is mapped here already (this guest-physical address is the first such).
    AlreadyMapped(u64),
    /// Nothing is mapped here (likewise).
    NotMapped(u64),
    /// No frame is left for a table. What was changed so far stays changed.
    NoTables,
    /// The processor would take such an entry for a misconfiguration: writing without reading, or execution alone where
    /// that is not supported.
    Unsupported(Permissions),
}

impl core::fmt::Display for EptError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Misaligned => f.write_str("EPT: address or length is no multiple of 4 KiB"),
            Self::OutOfRange => f.write_str("EPT: address beyond the processor's width"),
            Self::AlreadyMapped(at) => write!(f, "EPT: {at:#x} is mapped already"),
            Self::NotMapped(at) => write!(f, "EPT: {at:#x} is not mapped"),
            Self::NoTables => f.write_str("EPT: no frame left for a table; give the guest's pool more"),
            Self::Unsupported(permissions) => write!(f, "EPT: this processor lacks {permissions:?}"),
        }
    }
}

impl core::error::Error for EptError {}

/// The paging structures of one guest.
#[derive(Debug)]
pub struct Ept {
    root: u64,
    pages_2m: bool,
    pages_1g: bool,
    execute_only: bool,
    address_bits: u32,
}

/// What happens to a leaf that lies in the range.
type Change<'a> = &'a dyn Fn(Attributes) -> Option<Attributes>;

impl Ept {
    /// Empty structures for a processor of these capabilities and this physical-address width (at most 48 bits count:
    /// that is what four levels reach).
    ///
    /// # Errors
    /// No frame for the root.
    pub fn new(tables: &mut impl Tables, caps: EptVpid, address_bits: u8) -> Result<Self, EptError> {
        Ok(Self {
            root: tables.allocate().ok_or(EptError::NoTables)?,
            pages_2m: caps.pages_2m(),
            pages_1g: caps.pages_1g(),
            execute_only: caps.execute_only(),
            address_bits: u32::from(address_bits).min(48),
        })
    }

    /// The EPT pointer for the VMCS: write-back structures, a walk of four levels, accessed and dirty flags off.
    pub const fn pointer(&self) -> u64 {
        self.root | ((LEVELS as u64 - 1) << 3) | MemoryType::WriteBack as u64
    }

    /// Maps `bytes` of guest-physical memory to host-physical memory, by the largest pages that fit.
    ///
    /// # Errors
    /// See [`EptError`]; on [`EptError::NoTables`] and [`EptError::AlreadyMapped`] what lies before stays mapped.
    pub fn map(
        &mut self,
        tables: &mut impl Tables,
        guest: u64,
        host: u64,
        bytes: u64,
        attributes: Attributes,
    ) -> Result<(), EptError> {
        self.check_range(guest, bytes)?;
        self.check_range(host, bytes)?;
        self.check_permissions(attributes.permissions)?;
        let span = Span { start: guest, end: guest + bytes };
        self.map_level(tables, LEVELS, self.root, span, host.wrapping_sub(guest), attributes)
    }

    /// Takes the range out of the guest's memory; tables that become empty are given back.
    ///
    /// # Errors
    /// See [`EptError`].
    pub fn unmap(&mut self, tables: &mut impl Tables, guest: u64, bytes: u64) -> Result<(), EptError> {
        self.check_range(guest, bytes)?;
        let span = Span { start: guest, end: guest + bytes };
        self.change_level(tables, LEVELS, self.root, span, &|_| None)
    }

    /// Changes what the guest may do with the range. Large pages that lie partly in it are split.
    ///
    /// # Errors
    /// See [`EptError`].
    pub fn protect(
        &mut self,
        tables: &mut impl Tables,
        guest: u64,
        bytes: u64,
        permissions: Permissions,
    ) -> Result<(), EptError> {
        self.check_range(guest, bytes)?;
        self.check_permissions(permissions)?;
        let span = Span { start: guest, end: guest + bytes };
        let change = |attributes| Some(Attributes { permissions, ..attributes });
        self.change_level(tables, LEVELS, self.root, span, &change)
    }

    /// Puts a table of the caller's in the place of what maps the 2-MByte pages of one GByte; nothing was mapped there.
    /// Its entries are the caller's, see [`page_entry`] and [`table_entry`].
    ///
    /// # Errors
    /// See [`EptError`]; `guest` is a multiple of 1 GiB.
    pub fn adopt_directory(
        &mut self,
        tables: &mut impl Tables,
        guest: u64,
        directory: u64,
    ) -> Result<(), EptError> {
        self.check_range(guest, PAGE)?;
        if !guest.is_multiple_of(size(3)) || !directory.is_multiple_of(PAGE) {
            return Err(EptError::Misaligned);
        }
        let top = tables.read(self.root, index(4, guest));
        let table = match top & ADDRESS {
            0 => {
                let table = tables.allocate().ok_or(EptError::NoTables)?;
                tables.write(self.root, index(4, guest), table_entry(table));
                table
            }
            table => table,
        };
        if tables.read(table, index(3, guest)) != 0 {
            return Err(EptError::AlreadyMapped(guest));
        }
        tables.write(table, index(3, guest), table_entry(directory));
        Ok(())
    }

    /// What is mapped at a guest-physical address, whatever its permissions.
    pub fn translate(&self, tables: &impl Tables, guest: u64) -> Option<Mapping> {
        if guest >> self.address_bits != 0 {
            return None;
        }
        let mut table = self.root;
        for level in (1..=LEVELS).rev() {
            let entry = tables.read(table, index(level, guest));
            if entry == 0 {
                return None;
            }
            if is_leaf(entry, level) {
                let page = size(level);
                let host = (entry & ADDRESS & !(page - 1)) | (guest & (page - 1));
                return Some(Mapping { host, attributes: Attributes::from_bits(entry)?, page });
            }
            table = entry & ADDRESS;
        }
        None
    }

    /// Gives back every table. The caller has made sure that no processor uses them.
    pub fn release(self, tables: &mut impl Tables) {
        release_level(tables, LEVELS, self.root);
    }

    fn check_range(&self, start: u64, bytes: u64) -> Result<(), EptError> {
        if !start.is_multiple_of(PAGE) || !bytes.is_multiple_of(PAGE) || bytes == 0 {
            return Err(EptError::Misaligned);
        }
        match start.checked_add(bytes) {
            Some(end) if end <= 1 << self.address_bits => Ok(()),
            _ => Err(EptError::OutOfRange),
        }
    }

    fn check_permissions(&self, p: Permissions) -> Result<(), EptError> {
        let bad = p.write && !p.read || p.execute && !p.read && !self.execute_only;
        if bad { Err(EptError::Unsupported(p)) } else { Ok(()) }
    }

    const fn page_at(&self, level: u32) -> bool {
        match level {
            1 => true,
            2 => self.pages_2m,
            3 => self.pages_1g,
            _ => false,
        }
    }

    fn map_level(
        &self,
        tables: &mut impl Tables,
        level: u32,
        table: u64,
        span: Span,
        offset: u64,
        attributes: Attributes,
    ) -> Result<(), EptError> {
        for part in span.parts(level) {
            let at = index(level, part.start);
            let entry = tables.read(table, at);
            let host = part.start.wrapping_add(offset);
            let whole = part.end - part.start == size(level) && host.is_multiple_of(size(level));
            if is_leaf(entry, level) {
                return Err(EptError::AlreadyMapped(part.start));
            }
            if entry == 0 && whole && self.page_at(level) {
                tables.write(table, at, leaf(level, host, attributes));
                continue;
            }
            let next = match entry & ADDRESS {
                0 => tables.allocate().ok_or(EptError::NoTables)?,
                next => next,
            };
            let result = self.map_level(tables, level - 1, next, part, offset, attributes);
            if entry == 0 {
                tables.write(table, at, next | READ | WRITE | EXECUTE);
            }
            result?;
        }
        Ok(())
    }

    fn change_level(
        &self,
        tables: &mut impl Tables,
        level: u32,
        table: u64,
        span: Span,
        change: Change<'_>,
    ) -> Result<(), EptError> {
        for part in span.parts(level) {
            let at = index(level, part.start);
            let entry = tables.read(table, at);
            if entry == 0 {
                return Err(EptError::NotMapped(part.start));
            }
            if is_leaf(entry, level) && part.end - part.start == size(level) {
                tables.write(table, at, changed(entry, change));
                continue;
            }
            if is_leaf(entry, level) {
                split(tables, level, table, at, entry)?;
            }
            let next = tables.read(table, at) & ADDRESS;
            self.change_level(tables, level - 1, next, part, change)?;
            if (0..ENTRIES).all(|i| tables.read(next, i) == 0) {
                tables.write(table, at, 0);
                tables.free(next);
            }
        }
        Ok(())
    }
}

/// A range of guest-physical addresses.
#[derive(Clone, Copy)]
struct Span {
    start: u64,
    end: u64,
}

impl Span {
    /// Cut at the boundaries of the entries of a level.
    fn parts(self, level: u32) -> impl Iterator<Item = Self> {
        let mut start = self.start;
        core::iter::from_fn(move || {
            if start >= self.end {
                return None;
            }
            let end = ((start & !(size(level) - 1)) + size(level)).min(self.end);
            let part = Self { start, end };
            start = end;
            Some(part)
        })
    }
}

/// Bytes that an entry of a level spans.
const fn size(level: u32) -> u64 {
    PAGE << (9 * (level - 1))
}

const fn index(level: u32, address: u64) -> usize {
    ((address / size(level)) % ENTRIES as u64) as usize
}

const fn is_leaf(entry: u64, level: u32) -> bool {
    entry & MAPPED != 0 && (level == 1 || entry & LARGE != 0)
}

const fn leaf(level: u32, host: u64, attributes: Attributes) -> u64 {
    host | attributes.bits() | MAPPED | if level > 1 { LARGE } else { 0 }
}

fn changed(entry: u64, change: Change<'_>) -> u64 {
    let kept = entry & (ADDRESS | LARGE | MAPPED);
    // A leaf is only ever written by `leaf`, with a memory type that exists.
    let attributes = Attributes::from_bits(entry).expect("a leaf with a memory type");
    change(attributes).map_or(0, |attributes| kept | attributes.bits())
}

/// An entry that maps a page: of 4 KiB at level 1, of 2 MiB at level 2. `host` is a multiple of that.
#[inline]
pub const fn page_entry(level: u32, host: u64, attributes: Attributes) -> u64 {
    leaf(level, host, attributes)
}

/// An entry that maps a page, for writing as well.
#[inline]
pub const fn writable(entry: u64) -> u64 {
    entry | WRITE
}

/// An entry that refers to a table.
#[inline]
pub const fn table_entry(table: u64) -> u64 {
    table | READ | WRITE | EXECUTE
}

/// Replaces a large page by a table of smaller ones that map the same.
fn split(tables: &mut impl Tables, level: u32, table: u64, at: usize, entry: u64) -> Result<(), EptError> {
    let next = tables.allocate().ok_or(EptError::NoTables)?;
    let attributes = Attributes::from_bits(entry).expect("a leaf with a memory type");
    for i in 0..ENTRIES {
        let host = (entry & ADDRESS) + i as u64 * size(level - 1);
        tables.write(next, i, leaf(level - 1, host, attributes));
    }
    tables.write(table, at, next | READ | WRITE | EXECUTE);
    Ok(())
}

fn release_level(tables: &mut impl Tables, level: u32, table: u64) {
    if level > 1 {
        for i in 0..ENTRIES {
            let entry = tables.read(table, i);
            if entry != 0 && !is_leaf(entry, level) {
                release_level(tables, level - 1, entry & ADDRESS);
            }
        }
    }
    tables.free(table);
}

/// Why the processor would call an entry misconfigured (SDM, "EPT Misconfigurations"); None if it would not. `level` is 4
/// at the root. For the diagnosis of an EPT-misconfiguration exit, and for the tests.
pub fn misconfiguration(entry: u64, level: u32, caps: EptVpid, address_bits: u8) -> Option<&'static str> {
    if entry & (READ | WRITE | EXECUTE) == 0 {
        return None;
    }
    let large = entry & LARGE != 0;
    let leaf = level == 1 || large;
    let reserved_address = ADDRESS & !((1 << address_bits) - 1);
    if entry & WRITE != 0 && entry & READ == 0 {
        return Some("writable and not readable");
    }
    if entry & EXECUTE != 0 && entry & READ == 0 && !caps.execute_only() {
        return Some("executable and not readable");
    }
    if entry & reserved_address != 0 {
        return Some("an address beyond the processor's width");
    }
    if level > 1 && large && !(level == 2 && caps.pages_2m() || level == 3 && caps.pages_1g()) {
        return Some("a large page where none is supported");
    }
    if leaf && MemoryType::from_bits(entry >> TYPE_SHIFT).is_none() {
        return Some("a reserved memory type");
    }
    if leaf && level > 1 && entry & (size(level) - 1) & ADDRESS != 0 {
        return Some("a large page that is not aligned");
    }
    if !leaf && entry & 0xf8 != 0 {
        return Some("reserved bits 7:3 of a table entry");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::vec::Vec;

    const CAPS: EptVpid = EptVpid(0xf01_0673_4141);
    const GIB: u64 = 1 << 30;
    const MIB: u64 = 1 << 20;

    /// Tables in a map, at most `limit` of them.
    struct Pool {
        tables: BTreeMap<u64, Vec<u64>>,
        next: u64,
        limit: usize,
    }

    impl Pool {
        fn new(limit: usize) -> Self {
            Self { tables: BTreeMap::new(), next: 0x10_0000, limit }
        }
        /// Every entry of every table in use, with its level.
        fn entries(&self, ept: &Ept) -> Vec<(u64, u32)> {
            let mut found = Vec::new();
            let mut todo = std::vec![(ept.root, LEVELS)];
            while let Some((table, level)) = todo.pop() {
                for entry in self.tables[&table].iter().copied().filter(|entry| *entry != 0) {
                    found.push((entry, level));
                    if !is_leaf(entry, level) {
                        todo.push((entry & ADDRESS, level - 1));
                    }
                }
            }
            found
        }
    }

    impl Tables for Pool {
        fn allocate(&mut self) -> Option<u64> {
            if self.tables.len() >= self.limit {
                return None;
            }
            self.next += PAGE;
            self.tables.insert(self.next, std::vec![0; ENTRIES]);
            Some(self.next)
        }
        fn free(&mut self, table: u64) {
            assert!(self.tables.remove(&table).is_some(), "freed twice: {table:#x}");
        }
        fn read(&self, table: u64, index: usize) -> u64 {
            self.tables[&table][index]
        }
        fn write(&mut self, table: u64, index: usize, entry: u64) {
            self.tables.get_mut(&table).unwrap()[index] = entry;
        }
    }

    fn new(caps: EptVpid) -> (Pool, Ept) {
        let mut pool = Pool::new(10_000);
        let ept = Ept::new(&mut pool, caps, 46).unwrap();
        (pool, ept)
    }

    #[test]
    fn the_pointer_says_write_back_and_four_levels() {
        let (_, ept) = new(CAPS);
        assert_eq!(ept.pointer() & 0xfff, 0x1e);
        assert_eq!(ept.pointer() & !0xfff, ept.root);
    }

    #[test]
    fn the_largest_pages_that_fit_are_used() {
        let (mut pool, mut ept) = new(CAPS);
        ept.map(&mut pool, 0, 0, 2 * GIB + 2 * MIB + PAGE, Attributes::RAM).unwrap();
        for (at, page) in [(0, GIB), (GIB + 5, GIB), (2 * GIB, 2 * MIB), (2 * GIB + 2 * MIB, PAGE)] {
            assert_eq!(ept.translate(&pool, at).unwrap().page, page, "{at:#x}");
        }
        assert_eq!(ept.translate(&pool, 2 * GIB + 2 * MIB + PAGE), None);
        assert_eq!(pool.tables.len(), 4);
    }

    #[test]
    fn without_1g_pages_2m_pages_are_used_and_a_misaligned_frame_needs_small_ones() {
        let (mut pool, mut ept) = new(EptVpid(CAPS.0 & !(1 << 17)));
        ept.map(&mut pool, 0, 0, GIB, Attributes::RAM).unwrap();
        assert_eq!(ept.translate(&pool, 0).unwrap().page, 2 * MIB);
        ept.map(&mut pool, GIB, GIB + PAGE, 2 * MIB, Attributes::RAM).unwrap();
        let mapping = ept.translate(&pool, GIB + 0x1234).unwrap();
        assert_eq!((mapping.page, mapping.host), (PAGE, GIB + 0x2234));
    }

    #[test]
    fn protecting_one_page_splits_the_large_one_around_it() {
        let (mut pool, mut ept) = new(CAPS);
        ept.map(&mut pool, 0, 4 * GIB, GIB, Attributes::RAM).unwrap();
        ept.protect(&mut pool, 5 * MIB, PAGE, Permissions::READ_EXECUTE).unwrap();
        let at = |address| ept.translate(&pool, address).unwrap();
        assert_eq!(at(5 * MIB).attributes.permissions, Permissions::READ_EXECUTE);
        assert_eq!((at(5 * MIB).page, at(5 * MIB).host), (PAGE, 4 * GIB + 5 * MIB));
        assert_eq!((at(5 * MIB + PAGE).page, at(5 * MIB + PAGE).attributes), (PAGE, Attributes::RAM));
        assert_eq!((at(6 * MIB).page, at(6 * MIB).host), (2 * MIB, 4 * GIB + 6 * MIB));
        assert_eq!(at(512 * MIB).page, 2 * MIB);
    }

    #[test]
    fn a_page_without_permissions_remembers_its_frame() {
        let (mut pool, mut ept) = new(CAPS);
        ept.map(&mut pool, 0, GIB, 4 * PAGE, Attributes::RAM).unwrap();
        ept.protect(&mut pool, PAGE, PAGE, Permissions::NONE).unwrap();
        let hidden = ept.translate(&pool, PAGE).unwrap();
        assert_eq!((hidden.host, hidden.attributes.permissions), (GIB + PAGE, Permissions::NONE));
        ept.protect(&mut pool, PAGE, PAGE, Permissions::ALL).unwrap();
        assert_eq!(ept.translate(&pool, PAGE).unwrap().attributes, Attributes::RAM);
    }

    #[test]
    fn mistakes_are_refused() {
        let (mut pool, mut ept) = new(CAPS);
        ept.map(&mut pool, 0, 0, 2 * MIB, Attributes::RAM).unwrap();
        let ram = Attributes::RAM;
        assert_eq!(ept.map(&mut pool, PAGE, 0, PAGE, ram), Err(EptError::AlreadyMapped(PAGE)));
        assert_eq!(ept.map(&mut pool, 1, 0, PAGE, ram), Err(EptError::Misaligned));
        assert_eq!(ept.map(&mut pool, 0, 0, 0, ram), Err(EptError::Misaligned));
        assert_eq!(ept.map(&mut pool, 1 << 46, 0, PAGE, ram), Err(EptError::OutOfRange));
        assert_eq!(ept.map(&mut pool, GIB, (1 << 46) - PAGE, 2 * PAGE, ram), Err(EptError::OutOfRange));
        assert_eq!(ept.map(&mut pool, u64::MAX - PAGE + 1, 0, PAGE, ram), Err(EptError::OutOfRange));
        assert_eq!(ept.unmap(&mut pool, 4 * MIB, PAGE), Err(EptError::NotMapped(4 * MIB)));
        let write_only = Permissions { read: false, write: true, execute: false };
        assert_eq!(ept.protect(&mut pool, 0, PAGE, write_only), Err(EptError::Unsupported(write_only)));
    }

    #[test]
    fn execution_alone_needs_the_capability() {
        let execute = Permissions { read: false, write: false, execute: true };
        let (mut pool, mut ept) = new(CAPS);
        ept.map(&mut pool, 0, 0, PAGE, Attributes::RAM).unwrap();
        assert_eq!(ept.protect(&mut pool, 0, PAGE, execute), Ok(()));
        let (mut pool, mut ept) = new(EptVpid(CAPS.0 & !1));
        ept.map(&mut pool, 0, 0, PAGE, Attributes::RAM).unwrap();
        assert_eq!(ept.protect(&mut pool, 0, PAGE, execute), Err(EptError::Unsupported(execute)));
    }

    #[test]
    fn running_out_of_tables_is_an_error_and_leaks_nothing() {
        let mut pool = Pool::new(3);
        let mut ept = Ept::new(&mut pool, CAPS, 46).unwrap();
        assert_eq!(ept.map(&mut pool, 0, 0, PAGE, Attributes::RAM), Err(EptError::NoTables));
        assert_eq!(ept.translate(&pool, 0), None);
        ept.release(&mut pool);
        assert!(pool.tables.is_empty());
    }

    #[test]
    fn unmapping_everything_gives_all_tables_back() {
        let (mut pool, mut ept) = new(CAPS);
        ept.map(&mut pool, 3 * MIB, 0, GIB, Attributes::RAM).unwrap();
        ept.unmap(&mut pool, 3 * MIB, GIB).unwrap();
        assert_eq!(pool.tables.len(), 1);
        ept.release(&mut pool);
        assert!(pool.tables.is_empty());
    }

    #[test]
    fn misconfigurations_are_named() {
        let table = [
            (WRITE, 1, Some("writable and not readable")),
            (READ | 3 << TYPE_SHIFT, 1, Some("a reserved memory type")),
            (READ | LARGE | 6 << TYPE_SHIFT, 4, Some("a large page where none is supported")),
            (READ | LARGE | 6 << TYPE_SHIFT | 0x1000, 2, Some("a large page that is not aligned")),
            (READ | 1 << 3, 3, Some("reserved bits 7:3 of a table entry")),
            (READ | 1 << 50, 1, Some("an address beyond the processor's width")),
            (READ | 6 << TYPE_SHIFT, 1, None),
            (READ | WRITE | EXECUTE, 2, None),
            (0, 1, None),
        ];
        for (entry, level, expected) in table {
            assert_eq!(misconfiguration(entry, level, CAPS, 46), expected, "{entry:#x}");
        }
        assert!(misconfiguration(EXECUTE | 6 << 3, 1, EptVpid(CAPS.0 & !1), 46).is_some());
    }

    /// One step of the property test; addresses and lengths in pages.
    #[derive(Clone, Debug)]
    enum Step {
        Map { guest: u64, host: u64, pages: u64 },
        Unmap { guest: u64, pages: u64 },
        Protect { guest: u64, pages: u64, permissions: Permissions },
    }

    /// Ranges around the boundaries of 2-MByte and 1-GByte pages.
    fn ranges() -> impl Strategy<Value = (u64, u64)> {
        let start = prop_oneof![
            0..1024u64,
            Just(0),
            Just(512),
            (0..4u64).prop_map(|n| n * 512),
            262_100..262_200u64,
            Just(262_144)
        ];
        let pages = prop_oneof![8 => 1..700u64, 4 => Just(512), 4 => Just(1024), 1 => 262_100..262_700u64];
        (start, pages)
    }

    fn steps() -> impl Strategy<Value = Step> {
        let permissions = prop_oneof![
            Just(Permissions::ALL),
            Just(Permissions::READ_EXECUTE),
            Just(Permissions::READ_ONLY),
            Just(Permissions::NONE)
        ];
        let host = prop_oneof![0..5000u64, (0..8u64).prop_map(|n| n * 512), Just(262_144)];
        prop_oneof![
            (ranges(), host).prop_map(|((guest, pages), host)| Step::Map { guest, host, pages }),
            ranges().prop_map(|(guest, pages)| Step::Unmap { guest, pages }),
            (ranges(), permissions).prop_map(|((guest, pages), permissions)| Step::Protect {
                guest,
                pages,
                permissions
            }),
        ]
    }

    /// The simple model: one entry per 4-KByte page. The step goes page by page and stops at the first that fails.
    fn model_step(model: &mut BTreeMap<u64, (u64, Permissions)>, step: &Step) -> Result<(), EptError> {
        match *step {
            Step::Map { guest, host, pages } => {
                for i in 0..pages {
                    if model.contains_key(&(guest + i)) {
                        return Err(EptError::AlreadyMapped((guest + i) * PAGE));
                    }
                    model.insert(guest + i, (host + i, Permissions::ALL));
                }
            }
            Step::Unmap { guest, pages } => {
                for i in guest..guest + pages {
                    model.remove(&i).ok_or(EptError::NotMapped(i * PAGE))?;
                }
            }
            Step::Protect { guest, pages, permissions } => {
                for i in guest..guest + pages {
                    model.get_mut(&i).ok_or(EptError::NotMapped(i * PAGE))?.1 = permissions;
                }
            }
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        /// After any steps the structures translate like the model, hold no misconfigured entry, and leak no table.
        #[test]
        fn agrees_with_a_map_of_pages(steps in proptest::collection::vec(steps(), 1..12), one_gib: bool) {
            let caps = if one_gib { CAPS } else { EptVpid(CAPS.0 & !(1 << 17)) };
            let (mut pool, mut ept) = new(caps);
            let mut model = BTreeMap::new();
            for step in &steps {
                let expected = model_step(&mut model, step);
                let actual = match *step {
                    Step::Map { guest, host, pages } =>
                        ept.map(&mut pool, guest * PAGE, host * PAGE, pages * PAGE, Attributes::RAM),
                    Step::Unmap { guest, pages } => ept.unmap(&mut pool, guest * PAGE, pages * PAGE),
                    Step::Protect { guest, pages, permissions } =>
                        ept.protect(&mut pool, guest * PAGE, pages * PAGE, permissions),
                };
                prop_assert_eq!(actual.is_ok(), expected.is_ok(), "{:?}", step);
                if expected.is_err() {
                    prop_assert_eq!(actual, expected, "{:?}", step);
                }
            }
            let last = model.keys().next_back().copied().unwrap_or(0);
            for page in (0..=last + 2).step_by(if last > 10_000 { 37 } else { 1 }) {
                let mapped = ept.translate(&pool, page * PAGE + 8).map(|m| (m.host, m.attributes.permissions));
                let expected = model.get(&page).map(|(host, permissions)| (host * PAGE + 8, *permissions));
                prop_assert_eq!(mapped, expected, "page {:#x}", page);
            }
            for (entry, level) in pool.entries(&ept) {
                prop_assert_eq!(misconfiguration(entry, level, caps, 46), None, "{:#x} at {}", entry, level);
            }
            ept.release(&mut pool);
            prop_assert!(pool.tables.is_empty());
        }
    }
}
