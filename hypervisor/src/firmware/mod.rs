//! What the firmware says about the machine: ACPI tables turned into maps of our own. Pure.
//!
//! Tables are taken as bytes that may say anything: each length is checked against what holds it. That is also why the
//! `acpi` crate is not used: its walkers read as far as a table says it reaches, and one entry of length 0 in the MADT
//! keeps them for good.

pub mod fadt;
pub mod madt;
pub mod mcfg;
#[cfg(test)]
mod recorded;
pub mod tables;

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
