//! Finding the tables: root pointer, RSDT or XSDT, headers and checksums. ACPI specification 6.5, section 5.2.
//!
//! This much of the `acpi` crate's work is ours (its types are used): its own search asks a handler for memory that the
//! handler may not refuse, takes any length that a header says, and goes on after a wrong checksum. Here a table is read
//! only where the kernel says that one can be ([`Memory`]), up to [`MAX_TABLE_BYTES`], and kept if its sum is right.

use super::{fadt, u32_at, u64_at};
use crate::arch::acpi::read;
use acpi::rsdp::Rsdp;
use acpi::sdt::SdtHeader;
use core::fmt;
use heapless::Vec;

/// Tables kept at most; the rest is counted in [`Tables::skipped`].
pub const MAX_TABLES: usize = 64;

/// Most bytes a table may say it has. The largest are DSDTs of some hundred KiB.
pub const MAX_TABLE_BYTES: u32 = 4 << 20;

/// Bytes of a table's header.
pub const HEADER: usize = size_of::<SdtHeader>();

/// Gives `length` bytes of physical memory, or `None` if no memory can be there.
pub type Memory<'m, 'a> = &'m dyn Fn(u64, u64) -> Option<&'a [u8]>;

/// Why there are no tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The root pointer is too short, or does not say "RSD PTR ", or its checksum is wrong.
    BadRoot,
    /// Neither XSDT nor RSDT can be read.
    NoList,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::BadRoot => "the ACPI root pointer (RSDP) is damaged",
            Error::NoList => "neither ACPI's XSDT nor its RSDT can be read",
        })
    }
}

/// A table, checked: its bytes are as many as its header says, and sum up to zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table<'a> {
    /// Physical address.
    pub address: u64,
    /// All bytes, header included.
    pub bytes: &'a [u8],
}

impl<'a> Table<'a> {
    fn read(address: u64, memory: Memory<'_, 'a>) -> Option<Table<'a>> {
        let header: SdtHeader = read(memory(address, HEADER as u64)?);
        let length = header.length;
        if length < HEADER as u32 || length > MAX_TABLE_BYTES {
            return None;
        }
        let bytes = memory(address, length.into())?;
        sums_to_zero(bytes).then_some(Table { address, bytes })
    }

    /// The four letters.
    pub fn signature(&self) -> &'a [u8] {
        &self.bytes[..4]
    }

    /// The four letters for people; a dot for what is no letter.
    pub fn name(&self) -> [char; 4] {
        core::array::from_fn(|i| match self.bytes[i] {
            c if c.is_ascii_graphic() => c.into(),
            _ => '.',
        })
    }
}

fn sums_to_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)) == 0
}

/// All tables that could be read.
#[derive(Clone, Debug, Default)]
pub struct Tables<'a> {
    /// The list itself (XSDT or RSDT), then the tables in its order; the DSDT, which only the FADT names, comes last.
    pub all: Vec<Table<'a>, MAX_TABLES>,
    /// Entries of the list that led to no table, or to one with a wrong checksum, or found no room.
    pub skipped: usize,
}

impl<'a> Tables<'a> {
    /// Reads all tables from the root pointer on (a copy of it, as the loader passes it).
    ///
    /// # Errors
    /// No list of tables.
    pub fn read(root: &[u8], memory: Memory<'_, 'a>) -> Result<Tables<'a>, Error> {
        let first = root.get(..20).ok_or(Error::BadRoot)?;
        if &first[..8] != b"RSD PTR " || !sums_to_zero(first) {
            return Err(Error::BadRoot);
        }
        let pointer: Rsdp = read(root);
        let extended = pointer.revision >= 2 && root.get(..size_of::<Rsdp>()).is_some_and(sums_to_zero);
        let list = |address: u64, signature: &[u8]| {
            let table = Table::read(Some(address).filter(|a| *a != 0)?, memory)?;
            (table.signature() == signature).then_some(table)
        };
        let wide = if extended { list(pointer.xsdt_address, b"XSDT") } else { None };
        let mut tables = Tables::default();
        // There is room for the first table.
        let mut keep = |list: Table<'a>| {
            let _ = tables.all.push(list);
        };
        if let Some(xsdt) = wide {
            keep(xsdt);
            xsdt.bytes[HEADER..].chunks_exact(8).for_each(|e| tables.add(u64_at(e, 0), memory));
        } else if let Some(rsdt) = list(pointer.rsdt_address.into(), b"RSDT") {
            keep(rsdt);
            rsdt.bytes[HEADER..]
                .chunks_exact(4)
                .for_each(|e| tables.add(u32_at(e, 0).map(u64::from), memory));
        } else {
            return Err(Error::NoList);
        }
        if let Some(dsdt) = tables.find(b"FACP").and_then(|t| fadt::dsdt_address(t.bytes)) {
            tables.add(Some(dsdt), memory);
        }
        Ok(tables)
    }

    fn add(&mut self, address: Option<u64>, memory: Memory<'_, 'a>) {
        let table = address.filter(|a| *a != 0).and_then(|a| Table::read(a, memory));
        if table.is_none_or(|t| self.all.push(t).is_err()) {
            self.skipped += 1;
        }
    }

    /// The first table with this signature.
    pub fn find(&self, signature: &[u8; 4]) -> Option<Table<'a>> {
        self.all.iter().find(|t| t.signature() == signature).copied()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec as StdVec;

    /// A table with a right length and checksum.
    pub fn table(signature: &[u8; 4], body: &[u8]) -> StdVec<u8> {
        let mut t = vec![0; HEADER];
        t[..4].copy_from_slice(signature);
        t.extend(body);
        let length = t.len() as u32;
        t[4..8].copy_from_slice(&length.to_le_bytes());
        fix(&mut t, 9);
        t
    }

    /// Makes the bytes sum up to zero by the one at `at`.
    pub fn fix(bytes: &mut [u8], at: usize) {
        bytes[at] = 0;
        bytes[at] = bytes.iter().fold(0u8, |s, b| s.wrapping_sub(*b));
    }

    fn root(rsdt: u32, xsdt: Option<u64>) -> StdVec<u8> {
        let mut r = vec![0; 36];
        r[..8].copy_from_slice(b"RSD PTR ");
        r[15] = if xsdt.is_some() { 2 } else { 0 };
        r[16..20].copy_from_slice(&rsdt.to_le_bytes());
        r[20..24].copy_from_slice(&36u32.to_le_bytes());
        r[24..32].copy_from_slice(&xsdt.unwrap_or(0).to_le_bytes());
        fix(&mut r[..20], 8);
        fix(&mut r, 32);
        r
    }

    fn within(places: &[(u64, StdVec<u8>)], address: u64, length: u64) -> Option<&[u8]> {
        places.iter().find_map(|(base, bytes)| {
            let from = usize::try_from(address.checked_sub(*base)?).ok()?;
            bytes.get(from..from.checked_add(length as usize)?)
        })
    }

    fn words(addresses: &[u32]) -> StdVec<u8> {
        addresses.iter().flat_map(|a| a.to_le_bytes()).collect()
    }

    #[test]
    fn the_xsdt_comes_before_the_rsdt() {
        let wide: StdVec<u8> = [0x3000u64, 0x1_0000_0000].iter().flat_map(|a| a.to_le_bytes()).collect();
        let places = [
            (0x1000, table(b"RSDT", &words(&[0x3000]))),
            (0x2000, table(b"XSDT", &wide)),
            (0x3000, table(b"APIC", &[1, 2, 3])),
            (0x1_0000_0000, table(b"MCFG", &[])),
        ];
        let memory = |a, l| within(&places, a, l);
        let t = Tables::read(&root(0x1000, Some(0x2000)), &memory).unwrap();
        assert_eq!((t.all.len(), t.skipped), (3, 0));
        assert_eq!(t.find(b"MCFG").unwrap().address, 1 << 32);
        assert_eq!(t.find(b"APIC").unwrap().bytes[HEADER..], [1, 2, 3]);
        let t = Tables::read(&root(0x1000, None), &memory).unwrap();
        assert_eq!(t.all.len(), 2);
        // An XSDT that leads nowhere: the RSDT serves.
        assert_eq!(Tables::read(&root(0x1000, Some(0x9000)), &memory).unwrap().all.len(), 2);
        assert_eq!(Tables::read(&root(0x3000, None), &memory).unwrap_err(), Error::NoList);
    }

    #[test]
    fn damaged_tables_are_skipped_and_counted() {
        let mut bad_sum = table(b"HPET", &[0; 20]);
        bad_sum[40] ^= 1;
        let mut too_long = table(b"WAET", &[]);
        too_long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        let mut too_short = table(b"BGRT", &[]);
        too_short[4..8].copy_from_slice(&35u32.to_le_bytes());
        let mut past_end = table(b"SRAT", &[]);
        past_end[4..8].copy_from_slice(&37u32.to_le_bytes());
        let list = words(&[0x3000, 0x4000, 0x5000, 0x6000, 0x7000, 0, 0xFFFF_FFFF]);
        let places = [
            (0x1000, table(b"RSDT", &list)),
            (0x3000, bad_sum),
            (0x4000, too_long),
            (0x5000, too_short),
            (0x6000, past_end),
            (0x7000, table(b"APIC", &[])),
        ];
        let t = Tables::read(&root(0x1000, None), &|a, l| within(&places, a, l)).unwrap();
        assert_eq!((t.all.len(), t.skipped), (2, 6));
    }

    #[test]
    fn more_tables_than_fit_are_counted() {
        let places = [(0x1000, table(b"RSDT", &words(&[0x3000; 100]))), (0x3000, table(b"SSDT", &[]))];
        let t = Tables::read(&root(0x1000, None), &|a, l| within(&places, a, l)).unwrap();
        assert_eq!((t.all.len(), t.skipped), (MAX_TABLES, 101 - MAX_TABLES));
    }

    #[test]
    fn a_damaged_root_is_refused() {
        let none = |_: u64, _: u64| None;
        assert_eq!(Tables::read(&[], &none).unwrap_err(), Error::BadRoot);
        let mut r = root(0x1000, None);
        r[3] = b'!';
        assert_eq!(Tables::read(&r, &none).unwrap_err(), Error::BadRoot);
        assert_eq!(Tables::read(&root(0x1000, None), &none).unwrap_err(), Error::NoList);
        // The first 20 bytes decide for revision 0; a bad long checksum only loses the XSDT.
        let mut r = root(0, Some(0x2000));
        r[33] ^= 1;
        let places = [(0x2000, table(b"XSDT", &[]))];
        assert_eq!(Tables::read(&r, &|a, l| within(&places, a, l)).unwrap_err(), Error::NoList);
    }

    proptest! {
        #[test]
        fn any_memory_is_borne(mut bytes in proptest::collection::vec(any::<u8>(), 36..400), list: bool) {
            bytes[..8].copy_from_slice(b"RSD PTR ");
            bytes[16..20].copy_from_slice(&[36, 0, 0, 0]);
            bytes[15] = 0;
            fix(&mut bytes[..20], 8);
            if list && bytes.len() > 80 {
                bytes[36..40].copy_from_slice(b"RSDT");
                let rest = bytes.len() as u32 - 36;
                bytes[40..44].copy_from_slice(&rest.to_le_bytes());
                fix(&mut bytes[36..], 9);
            }
            let places = [(0, bytes.clone())];
            let _ = Tables::read(&bytes, &|a, l| within(&places, a, l));
        }
    }
}
