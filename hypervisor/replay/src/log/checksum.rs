//! The checksums of the log.

use crc::{CRC_32_ISCSI, CRC_32_ISO_HDLC, Crc, Table};

/// CRC-32C, which every block ends with.
static BLOCK: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);
/// CRC-32 as in zlib, by which the header names the contents of modules; the kernel lists its modules with the same.
static CONTENTS: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISO_HDLC);

/// CRC-32C: what a block ends with.
#[must_use]
pub fn block(bytes: &[u8]) -> u32 {
    BLOCK.checksum(bytes)
}

/// CRC-32 (zlib's): what the header says of a module's contents.
#[must_use]
pub fn contents(bytes: &[u8]) -> u32 {
    CONTENTS.checksum(bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn are_the_ones_that_everybody_knows() {
        assert_eq!(super::block(b"123456789"), 0xE306_9283);
        assert_eq!(super::contents(b"123456789"), 0xCBF4_3926);
    }
}
