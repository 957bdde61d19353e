//! Names for code addresses, from the kernel's own ELF symbol table as the loader keeps it in memory. Pure.
//!
//! Source: System V gABI, chapter 4, symbol table. A kernel that was stripped has no names; addresses still help.

use core::fmt;

/// Bytes of an `Elf64_Sym`.
const ENTRY: usize = 24;

/// Symbol type: function; assembly labels have none (0).
const FUNCTION: u8 = 2;

/// How far a symbol without a size (an assembly label) reaches at most, in bytes.
const LABEL_REACH: u64 = 4096;

/// Sections above this are no places in the image (`SHN_LORESERVE`).
const RESERVED_SECTIONS: u16 = 0xFF00;

/// A symbol table and its strings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Symbols<'a> {
    table: &'a [u8],
    strings: &'a [u8],
}

/// A place in the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The symbol's name, mangled.
    pub name: &'a str,
    /// Bytes from the symbol's start.
    pub offset: u64,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The alternate form leaves the hash out.
        write!(f, "{:#}+{:#x}", rustc_demangle::demangle(self.name), self.offset)
    }
}

impl<'a> Symbols<'a> {
    /// From the bytes of the symbol table and of the string table linked to it.
    pub const fn new(table: &'a [u8], strings: &'a [u8]) -> Self {
        Symbols { table, strings }
    }

    /// The function that holds `address`: of those that start at or below it and do not end before it, the nearest.
    pub fn find(&self, address: u64) -> Option<Place<'a>> {
        let mut best: Option<(u64, u32)> = None;
        for entry in self.table.chunks_exact(ENTRY) {
            let name = u32::from_le_bytes(entry[0..4].try_into().ok()?);
            let section = u16::from_le_bytes(entry[6..8].try_into().ok()?);
            let value = u64::from_le_bytes(entry[8..16].try_into().ok()?);
            let size = u64::from_le_bytes(entry[16..24].try_into().ok()?);
            let kind = entry[4] & 0xF;
            let code = kind == FUNCTION || kind == 0;
            let holds = value <= address && address - value < if size == 0 { LABEL_REACH } else { size };
            let placed = section != 0 && section < RESERVED_SECTIONS && name != 0;
            if code && holds && placed && best.is_none_or(|(v, _)| value > v) {
                best = Some((value, name));
            }
        }
        let (value, name) = best?;
        let name = core::ffi::CStr::from_bytes_until_nul(self.strings.get(name as usize..)?).ok()?;
        Some(Place { name: name.to_str().ok()?, offset: address - value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    const STRINGS: &[u8] = b"\0_ZN4boot5entry17h0123456789abcdefE\0common\0unplaced\0";

    fn symbol(name: u32, kind: u8, section: u16, value: u64, size: u64) -> Vec<u8> {
        let mut s = Vec::new();
        s.extend(name.to_le_bytes());
        s.extend([kind, 0]);
        s.extend(section.to_le_bytes());
        s.extend(value.to_le_bytes());
        s.extend(size.to_le_bytes());
        s
    }

    fn table() -> Vec<u8> {
        [
            symbol(0, 0, 0, 0, 0),
            symbol(1, FUNCTION, 1, 0x20_1000, 0x100),
            symbol(36, 0, 1, 0x20_2000, 0),
            symbol(43, FUNCTION, 0, 0x20_1010, 0x10),
            symbol(1, 1, 1, 0x20_1020, 0x10), // an object, not code
        ]
        .concat()
    }

    #[test]
    fn names_demangle_and_offsets_count_from_the_start() {
        let table = table();
        let symbols = Symbols::new(&table, STRINGS);
        assert_eq!(std::format!("{}", symbols.find(0x20_1023).unwrap()), "boot::entry+0x23");
        assert_eq!(symbols.find(0x20_1000).unwrap().offset, 0);
        assert_eq!(symbols.find(0x20_2042).unwrap(), Place { name: "common", offset: 0x42 });
    }

    #[test]
    fn addresses_between_functions_have_no_name() {
        let table = table();
        let symbols = Symbols::new(&table, STRINGS);
        assert_eq!(symbols.find(0x20_1100), None);
        assert_eq!(symbols.find(0x20_0FFF), None);
        assert_eq!(symbols.find(0x20_2000 + LABEL_REACH), None);
        assert_eq!(Symbols::default().find(0x20_1000), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_borne(table: Vec<u8>, strings: Vec<u8>, address: u64) {
            let _ = Symbols::new(&table, &strings).find(address).map(|p| std::format!("{p}"));
        }
    }
}
