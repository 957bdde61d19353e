//! The checksums of the log.

use crc::{CRC_32_ISCSI, CRC_32_ISO_HDLC, Crc, Table};
use spin::Once;

/// CRC-32C, which every block ends with.
static BLOCK: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);
/// CRC-32 as in zlib, by which the header names the contents of modules; the kernel lists its modules with the same.
static CONTENTS: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISO_HDLC);

/// A way to compute CRC-32C that is faster than by tables: this crate has no instructions of a certain processor.
static FASTER: Once<fn(&[u8]) -> u32> = Once::new();

/// Bytes of what a faster way is tried with.
const TRIED: usize = 97;

/// CRC-32C: what a block ends with.
#[must_use]
pub fn block(bytes: &[u8]) -> u32 {
    match FASTER.get() {
        Some(faster) => faster(bytes),
        None => block_by_table(bytes),
    }
}

/// The same, always by tables.
#[must_use]
pub fn block_by_table(bytes: &[u8]) -> u32 {
    BLOCK.checksum(bytes)
}

/// Has [`block`] computed this way from now on; the first one stays. False: it computes something else, and is not taken.
pub fn accelerate(faster: fn(&[u8]) -> u32) -> bool {
    let tried: [u8; TRIED] = core::array::from_fn(|n| (n * n) as u8 ^ 0x5a);
    let same = (0..=TRIED).all(|length| faster(&tried[..length]) == block_by_table(&tried[..length]));
    if same {
        FASTER.call_once(|| faster);
    }
    same
}

/// CRC-32 (zlib's): what the header says of a module's contents.
#[must_use]
pub fn contents(bytes: &[u8]) -> u32 {
    CONTENTS.checksum(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_the_ones_that_everybody_knows() {
        assert_eq!(block(b"123456789"), 0xE306_9283);
        assert_eq!(contents(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn what_computes_something_else_is_not_taken() {
        assert!(!accelerate(|bytes| if bytes.len() == 96 { 0 } else { block_by_table(bytes) }));
        assert!(FASTER.get().is_none());
        assert!(accelerate(block_by_table));
        assert!(FASTER.get().is_some());
    }
}
