//! The formats of paging structures, as far as walks lead from one table to the next (SDM vol. 3A, chapter 4).

const CR0_PG: u64 = 1 << 31;
const CR4_PSE: u64 = 1 << 4;
const CR4_PAE: u64 = 1 << 5;
const EFER_LMA: u64 = 1 << 10;

/// Bits of an entry: present.
pub const PRESENT: u64 = 1 << 0;
/// Accessed.
pub const ACCESSED: u64 = 1 << 5;
/// Dirty, where the entry maps a page.
pub const DIRTY: u64 = 1 << 6;
/// The entry maps a large page.
const LARGE: u64 = 1 << 7;
/// Bits 51:12.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Bits that no translation depends on: 11:9 and 58:52.
const IGNORED: u64 = 7 << 9 | 0x7f << 52;

/// How the guest's linear addresses are translated now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// No paging.
    Off,
    /// 32-bit paging: narrow entries, two levels.
    Legacy {
        /// CR4.PSE: there are 4-MByte pages.
        large: bool,
    },
    /// PAE paging: wide entries, two levels below the four that are kept in registers.
    Pae,
    /// 4-level paging.
    FourLevel {
        /// There are 1-GByte pages.
        gigabyte: bool,
    },
}

impl Format {
    /// As the registers say, and CPUID of 1-GByte pages.
    #[inline]
    pub const fn of(cr0: u64, cr4: u64, efer: u64, gigabyte: bool) -> Self {
        match () {
            () if cr0 & CR0_PG == 0 => Self::Off,
            () if efer & EFER_LMA != 0 => Self::FourLevel { gigabyte },
            () if cr4 & CR4_PAE != 0 => Self::Pae,
            () => Self::Legacy { large: cr4 & CR4_PSE != 0 },
        }
    }

    /// The level of the tables that CR3 or the registers lead to; tables of level 1 map 4-KByte pages.
    #[inline]
    pub const fn top(self) -> usize {
        match self {
            Self::Off => 0,
            Self::Legacy { .. } | Self::Pae => 2,
            Self::FourLevel { .. } => 4,
        }
    }

    /// Entries have 8 bytes, not 4.
    #[inline]
    pub const fn wide(self) -> bool {
        !matches!(self, Self::Legacy { .. })
    }

    /// Bytes of an entry.
    #[inline]
    pub const fn entry_bytes(self) -> usize {
        if self.wide() { 8 } else { 4 }
    }

    /// The part of CR3 that says where the top is.
    #[inline]
    pub const fn root(self, cr3: u64) -> u64 {
        match self {
            Self::Off => 0,
            Self::Legacy { .. } => cr3 & 0xffff_f000,
            Self::Pae => cr3 & 0xffff_ffe0,
            Self::FourLevel { .. } => cr3 & ADDRESS,
        }
    }

    /// The lowest bit of a linear address that chooses an entry of a table of this level.
    #[inline]
    pub const fn shift(self, level: usize) -> u32 {
        12 + (level as u32).saturating_sub(1) * if self.wide() { 9 } else { 10 }
    }

    /// The entry of a table of this level that a linear address chooses.
    #[inline]
    pub const fn index(self, level: usize, linear: u64) -> usize {
        (linear >> self.shift(level)) as usize & if self.wide() { 0x1ff } else { 0x3ff }
    }

    /// The address of the table that an entry of a table of this level refers to; None if it refers to none.
    #[inline]
    pub const fn child(self, level: usize, entry: u64) -> Option<u64> {
        if entry & PRESENT == 0 || level < 2 {
            return None;
        }
        let large = entry & LARGE != 0
            && match self {
                Self::Legacy { large } => large,
                // Where 1-GByte pages do not exist the bit is reserved, and nothing is walked.
                _ => level < 4,
            };
        match (large, self.wide()) {
            (true, _) => None,
            (_, true) => Some(entry & ADDRESS),
            (_, false) => Some(entry & 0xffff_f000),
        }
    }

    /// Whether translations made with an entry may be cached that the new one would not make: it was present and accessed,
    /// without which nothing is cached (SDM vol. 3A, "TLBs" and "Paging-Structure Caches"), and not only bits have changed
    /// that do not count, or accessed and dirty bits been set.
    #[inline]
    pub const fn outdates(old: u64, new: u64) -> bool {
        let cached = old & PRESENT != 0 && old & ACCESSED != 0;
        let set = !old & new & (ACCESSED | DIRTY);
        cached && (old ^ new) & !IGNORED & !set != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_follow_from_the_registers() {
        assert_eq!(Format::of(0x11, 0x30, 0, true), Format::Off);
        assert_eq!(Format::of(0x8000_0011, 0x10, 0, true), Format::Legacy { large: true });
        assert_eq!(Format::of(0x8000_0011, 0x30, 0x800, true), Format::Pae);
        assert_eq!(Format::of(0x8000_0011, 0x20, 0xd00, true), Format::FourLevel { gigabyte: true });
    }

    #[test]
    fn large_pages_lead_to_no_table() {
        let four = Format::FourLevel { gigabyte: true };
        assert_eq!(four.child(4, 0x1067), Some(0x1000));
        assert_eq!(four.child(3, 0x4000_00e7), None);
        assert_eq!(four.child(2, 0x20_00e7), None);
        assert_eq!(four.child(2, 0x8000_0000_0020_0067), Some(0x20_0000));
        assert_eq!(four.child(2, 0x20_0066), None, "not present");
        assert_eq!(four.child(1, 0x1067), None);
        assert_eq!(
            Format::Legacy { large: false }.child(2, 0x40_00e7),
            Some(0x40_0000),
            "no PSE: the bit is ignored"
        );
        assert_eq!(Format::Legacy { large: true }.child(2, 0x40_00e7), None);
    }

    #[test]
    fn only_what_could_be_cached_is_outdated() {
        assert!(!Format::outdates(0, 0x1067));
        assert!(!Format::outdates(0x1007, 0), "never accessed");
        assert!(Format::outdates(0x1027, 0));
        assert!(Format::outdates(0x1067, 0x1065), "write protected");
        assert!(Format::outdates(0x1067, 0x1047), "accessed bit cleared");
        assert!(Format::outdates(0x1067, 0x1027), "dirty bit cleared");
        assert!(!Format::outdates(0x1027, 0x1067), "dirty bit set");
        assert!(!Format::outdates(0x1067, 0x0010_0000_0000_1267), "ignored bits");
    }
}
