//! Bytes of firmware tables seen as the types of the `acpi` crate: the unsafe half of [`crate::firmware`].
//!
//! Built for the host too, where the firmware's tests need it. No instruction and no address is in here: what comes in
//! are slices, and types that [`vet`](crate::firmware::vet) alone can make.

use crate::firmware::vet::{VettedMadt, VettedMcfg};
use acpi::rsdp::Rsdp;
use acpi::sdt::SdtHeader;
use acpi::sdt::fadt::Fadt;
use acpi::sdt::madt::{Madt, MadtEntry};
use acpi::sdt::mcfg::{Mcfg, McfgEntry};
use core::mem::MaybeUninit;
use core::pin::Pin;

/// A structure of fixed size without meaning beyond its bytes.
///
/// # Safety
/// Any bytes are a value of the type, all zeroes too.
pub unsafe trait Plain: Copy {}

// SAFETY: integers and arrays of integers, packed.
unsafe impl Plain for Rsdp {}
// SAFETY: integers and arrays of integers, packed.
unsafe impl Plain for SdtHeader {}
// SAFETY: integers, structures of integers, and `MaybeUninit` of both, packed.
unsafe impl Plain for Fadt {}

/// A copy of the structure at the start of `bytes`; what `bytes` are too short for is zero.
pub fn read<T: Plain>(bytes: &[u8]) -> T {
    let mut copy = MaybeUninit::<T>::zeroed();
    let count = bytes.len().min(size_of::<T>());
    // SAFETY: 1. Both places have `count` bytes, and the copy is a fresh one. 2. Any bytes are a `T`; those behind
    // `count` are zeroes.
    unsafe {
        core::ptr::copy_nonoverlapping(bytes.as_ptr(), copy.as_mut_ptr().cast(), count);
        copy.assume_init()
    }
}

// References to these are made of bytes at any address.
const _: () = assert!(align_of::<Madt>() == 1 && align_of::<Mcfg>() == 1);

/// The fixed part of a MADT.
pub fn madt<'a>(table: VettedMadt<'a>) -> &'a Madt {
    // SAFETY: 1. A vetted MADT has at least the bytes of the fixed part, borrowed for `'a`. 2. Those are integers,
    // packed: any bytes and any alignment will do.
    unsafe { &*table.bytes().as_ptr().cast() }
}

/// The sound entries of a MADT, without those of kinds that the crate does not know.
pub fn madt_entries<'a>(table: VettedMadt<'a>) -> impl Iterator<Item = MadtEntry<'a>> {
    // SAFETY: the entries follow the fixed part, and stay there: the bytes of both are borrowed for `'a`.
    let fixed = unsafe { Pin::new_unchecked(madt(table)) };
    // The crate's iterator reads memory as lengths in that memory tell it. What makes that sound: up to and with the
    // last of the `known` entries each is at least as long as its type and inside the table (vetted); and the iterator
    // is not asked for one more, so it never sees what comes behind.
    fixed.entries().take(table.known())
}

/// The whole entries of an MCFG.
pub fn mcfg_entries<'a>(table: VettedMcfg<'a>) -> &'a [McfgEntry] {
    // SAFETY: 1. A vetted MCFG has at least the bytes of the fixed part, borrowed for `'a`. 2. Those are integers,
    // packed: any bytes and any alignment will do.
    let fixed: &Mcfg = unsafe { &*table.bytes().as_ptr().cast() };
    // The crate makes the slice from the length in the header, which is that of the borrowed bytes (vetted).
    fixed.entries()
}
