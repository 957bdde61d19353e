//! What the firmware says about the machine: ACPI tables turned into maps of our own. Pure.
//!
//! The `acpi` crate reads the tables. Ours is what stands before it, for tables are bytes that may say anything and the
//! crate takes them at their word: finding them ([`tables`]), vetting them ([`vet`]), and the search for \_S5
//! ([`fadt`]), as the crate's interpreter needs nightly Rust.

pub mod fadt;
pub mod madt;
pub mod mcfg;
#[cfg(test)]
mod recorded;
pub mod tables;
pub mod vet;

/// Little-endian integer at a byte offset of a table, or `None` past its end.
macro_rules! little_endian {
    ($name:ident, $type:ty) => {
        fn $name(bytes: &[u8], at: usize) -> Option<$type> {
            let end = at.checked_add(size_of::<$type>())?;
            Some(<$type>::from_le_bytes(bytes.get(at..end)?.try_into().ok()?))
        }
    };
}
little_endian!(u16_at, u16);
little_endian!(u32_at, u32);
little_endian!(u64_at, u64);
