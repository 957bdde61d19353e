//! Vetting: what has to be true of a table's bytes before the `acpi` crate may read them. Pure.
//!
//! The crate believes what a table says about its lengths. Of the version in use this is known:
//! - its MADT iterator stays for good at an entry of length 0, reads an entry by the type of its kind however short the
//!   entry says it is, and reads two bytes of header where one is left;
//! - its MCFG and MADT reach as far as the header says;
//! - its FADT has always the size of ACPI 6, and multiplies the length of PM1_CNT by 8 in a byte, which overflows.

use super::u32_at;
use crate::arch::acpi::read;
use acpi::sdt::fadt::Fadt;
use acpi::sdt::madt::*;
use acpi::sdt::mcfg::Mcfg;
use core::mem::offset_of;
use core::ops::Range;

/// A MADT that has its fixed part, with the entries up to the first that cannot be.
#[derive(Clone, Copy, Debug)]
pub struct VettedMadt<'a> {
    bytes: &'a [u8],
    known: usize,
    cut: bool,
}

impl<'a> VettedMadt<'a> {
    /// Vets a table; `None` if its fixed part is not there, or its header says another length than it has.
    pub fn new(bytes: &'a [u8]) -> Option<VettedMadt<'a>> {
        let mut rest = whole(bytes)?.get(size_of::<Madt>()..)?;
        let mut known = 0;
        while let [kind, length, ..] = *rest {
            let size = size_of_kind(kind);
            let length = usize::from(length);
            if length < size.unwrap_or(size_of::<EntryHeader>()) || length > rest.len() {
                break;
            }
            known += usize::from(size.is_some());
            rest = &rest[length..];
        }
        Some(VettedMadt { bytes, known, cut: !rest.is_empty() })
    }

    /// The whole table: at least its fixed part.
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// How many entries of kinds that the crate knows come before the first entry that cannot be. Each of these, and
    /// each of another kind between them, is inside the table and at least as long as the crate's type for it.
    pub fn known(self) -> usize {
        self.known
    }

    /// Whether there is an entry that cannot be: longer than what is left, or shorter than its kind.
    pub fn cut(self) -> bool {
        self.cut
    }
}

/// Bytes that the crate takes an entry of this kind to have; `None` for kinds that it steps over.
fn size_of_kind(kind: u8) -> Option<usize> {
    Some(match kind {
        0x00 => size_of::<LocalApicEntry>(),
        0x01 => size_of::<IoApicEntry>(),
        0x02 => size_of::<InterruptSourceOverrideEntry>(),
        0x03 => size_of::<NmiSourceEntry>(),
        0x04 => size_of::<LocalApicNmiEntry>(),
        0x05 => size_of::<LocalApicAddressOverrideEntry>(),
        0x06 => size_of::<IoSapicEntry>(),
        0x07 => size_of::<LocalSapicEntry>(),
        0x08 => size_of::<PlatformInterruptSourceEntry>(),
        0x09 => size_of::<LocalX2ApicEntry>(),
        0x0A => size_of::<X2ApicNmiEntry>(),
        0x0B => size_of::<GiccEntry>(),
        0x0C => size_of::<GicdEntry>(),
        0x0D => size_of::<GicMsiFrameEntry>(),
        0x0E => size_of::<GicRedistributorEntry>(),
        0x0F => size_of::<GicInterruptTranslationServiceEntry>(),
        0x10 => size_of::<MultiprocessorWakeupEntry>(),
        _ => return None,
    })
}

/// An MCFG that has its fixed part, and as many bytes as its header says.
#[derive(Clone, Copy, Debug)]
pub struct VettedMcfg<'a>(&'a [u8]);

impl<'a> VettedMcfg<'a> {
    /// Vets a table; `None` if its fixed part is not there, or its header says another length than it has.
    pub fn new(bytes: &'a [u8]) -> Option<VettedMcfg<'a>> {
        (whole(bytes)?.len() >= size_of::<Mcfg>()).then_some(VettedMcfg(bytes))
    }

    /// The whole table.
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }
}

/// The bytes, if they are as many as their header says.
fn whole(bytes: &[u8]) -> Option<&[u8]> {
    let said = u32_at(bytes, offset_of!(acpi::sdt::SdtHeader, length))?;
    (usize::try_from(said) == Ok(bytes.len())).then_some(bytes)
}

/// Where a field of the FADT is.
macro_rules! field {
    ($name:ident) => {
        place(offset_of!(Fadt, $name), |table: &Fadt| table.$name)
    };
}

const fn place<T>(start: usize, _: fn(&Fadt) -> T) -> Range<usize> {
    start..start + size_of::<T>()
}

/// The fields that the kernel takes from the FADT, where a table can end inside of one. The reset register is of no use
/// without its value.
const FADT_FIELDS: [Range<usize>; 9] = [
    field!(dsdt_address),
    field!(smi_cmd_port),
    field!(pm1a_control_block),
    field!(pm1b_control_block),
    field!(flags),
    field!(reset_reg).start..field!(reset_value).end,
    field!(x_dsdt_address),
    field!(x_pm1a_control_block),
    field!(x_pm1b_control_block),
];

/// A copy of a FADT of any length. Fields that the table does not have, or has only in part, are zero, which is how
/// firmware says that there is no such thing.
pub fn fadt(table: &[u8]) -> Fadt {
    /// What the crate can say of a register block in bits.
    const MAX_BLOCK_BYTES: u8 = u8::MAX / 8;
    let mut bytes = [0; size_of::<Fadt>()];
    let present = table.len().min(bytes.len());
    bytes[..present].copy_from_slice(&table[..present]);
    for field in FADT_FIELDS.into_iter().filter(|f| f.end > present) {
        bytes[field].fill(0);
    }
    let mut fadt: Fadt = read(&bytes);
    // Of no use to us: we know how wide the register is.
    fadt.pm1_control_length = fadt.pm1_control_length.min(MAX_BLOCK_BYTES);
    fadt
}

#[cfg(test)]
mod tests {
    use super::super::tables::tests::table;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn madt(entries: &[u8]) -> Vec<u8> {
        table(b"APIC", &[&[0; 8], entries].concat())
    }

    #[test]
    fn entries_that_would_mislead_the_crate_end_the_list() {
        let io_apic = [1, 12, 7, 0, 0, 0, 0xC0, 0xFE, 0, 0, 0, 0];
        for (bad, why) in [
            (&[0x00, 0][..], "length 0: the iterator would stay there"),
            (&[0x7F, 0], "length 0 of a kind that the crate steps over"),
            (&[0x7F, 1], "shorter than a header"),
            (&[0x00], "half a header"),
            (&[0x00, 7, 0, 3, 1, 0, 0], "one byte short for its kind"),
            (&[0x09, 12, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0], "without its last field"),
            (&[0x10, 2], "a kind that the kernel does not read"),
            (&[0x00, 200, 1], "beyond the table"),
        ] {
            let bytes = madt(&[&io_apic[..], bad].concat());
            let vetted = VettedMadt::new(&bytes).unwrap();
            assert_eq!((vetted.known(), vetted.cut()), (1, true), "{why}");
            // What comes after a bad length cannot be told from it.
            let bytes = madt(&[&io_apic[..], bad, &io_apic].concat());
            assert!(VettedMadt::new(&bytes).unwrap().cut(), "{why}");
        }
    }

    #[test]
    fn entries_of_other_kinds_are_stepped_over() {
        let bytes = madt(&[0x7F, 2, 0, 8, 0, 3, 1, 0, 0, 0, 0x80, 3, 9]);
        let vetted = VettedMadt::new(&bytes).unwrap();
        assert_eq!((vetted.known(), vetted.cut()), (1, false));
    }

    #[test]
    fn a_header_that_says_another_length_is_refused() {
        let mut bytes = madt(&[]);
        assert!(VettedMadt::new(&bytes).is_some());
        assert!(VettedMadt::new(&bytes[..43]).is_none(), "not the whole fixed part");
        assert!(VettedMcfg::new(&bytes).is_some());
        for length in [0u32, 43, 45, u32::MAX] {
            bytes[4..8].copy_from_slice(&length.to_le_bytes());
            assert!(VettedMadt::new(&bytes).is_none() && VettedMcfg::new(&bytes).is_none(), "{length}");
        }
        assert!(VettedMcfg::new(&table(b"MCFG", &[0; 7])).is_none());
    }

    #[test]
    fn fields_behind_the_end_of_a_fadt_are_zero() {
        let full = [0x11; size_of::<Fadt>()];
        for length in 0..=full.len() {
            let fadt = fadt(&full[..length]);
            let want = |end: usize, value: u32| if length >= end { value } else { 0 };
            assert_eq!({ fadt.dsdt_address }, want(44, 0x1111_1111), "{length}");
            assert_eq!({ fadt.smi_cmd_port }, want(52, 0x1111_1111), "{length}");
            assert_eq!({ fadt.pm1b_control_block }, want(72, 0x1111_1111), "{length}");
            assert_eq!(u32::from(fadt.reset_reg.address_space), want(129, 0x11), "{length}");
            let dsdt = fadt.dsdt_address().unwrap_or(0) as u64;
            let wide = if length >= 148 { 0x1111_1111_1111_1111 } else { want(44, 0x1111_1111).into() };
            assert_eq!(dsdt, wide, "{length}");
        }
    }

    #[test]
    fn the_length_of_a_register_block_cannot_overflow() {
        let fadt = fadt(&[0xFF; 116]);
        assert_eq!(fadt.pm1a_control_block().unwrap().bit_width, 31 * 8);
    }

    proptest! {
        /// What `arch::acpi` rests on, said once more in another way: the entries lie one behind the other inside of
        /// the table, none shorter than its kind.
        #[test]
        fn vetted_entries_are_inside(body in proptest::collection::vec(0u8..20, 0..200)) {
            let bytes = madt(&body);
            let vetted = VettedMadt::new(&bytes).unwrap();
            let (mut at, mut known) = (44, 0);
            while known < vetted.known() {
                let (kind, length) = (bytes[at], usize::from(bytes[at + 1]));
                known += usize::from(kind <= 0x10);
                prop_assert!(length >= size_of_kind(kind).unwrap_or(2) && at + length <= bytes.len());
                at += length;
            }
            prop_assert!(vetted.cut() || bytes[at..].is_empty() || bytes[at] > 0x10);
        }
    }
}
