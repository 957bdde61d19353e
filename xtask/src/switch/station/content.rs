//! What files contain: bytes that are a function of the file's size, so that both ends can check them.

use sha2::{Digest, Sha256};

use crate::fetch::hex;

/// Bytes in a MiB, the unit of files.
const MIB: u64 = 1 << 20;

/// The content of the file of `mib` MiB, in pieces.
#[derive(Clone, Debug)]
pub struct Content {
    state: u64,
    left: u64,
}

impl Content {
    /// From its beginning.
    pub fn of(mib: u32) -> Self {
        Content { state: u64::from(mib) ^ 0x9e37_79b9_7f4a_7c15, left: u64::from(mib) * MIB }
    }

    /// Bytes that are still to come.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The next bytes: at most as many as fit in `room`, in whole words; 0 when there is no room or none is left.
    pub fn read(&mut self, room: &mut [u8]) -> usize {
        let mut filled = 0;
        for word in room.chunks_exact_mut(8) {
            if self.left == 0 {
                break;
            }
            // xorshift64 (Marsaglia 2003): any stream will do that does not compress.
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            word.copy_from_slice(&self.state.to_le_bytes());
            self.left -= 8;
            filled += 8;
        }
        filled
    }
}

/// The SHA-256 of the file of `mib` MiB.
pub fn file_sha256(mib: u32) -> String {
    let (mut content, mut hash, mut buffer) = (Content::of(mib), Sha256::new(), vec![0; 1 << 16]);
    loop {
        match content.read(&mut buffer) {
            0 => return hex(&hash.finalize()),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// The SHA-256 of `bytes` zeros.
pub fn zeros_sha256(bytes: u64) -> String {
    let (mut hash, buffer, mut left) = (Sha256::new(), vec![0; 1 << 16], bytes);
    while left > 0 {
        let n = left.min(buffer.len() as u64);
        hash.update(&buffer[..n as usize]);
        left -= n;
    }
    hex(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_has_its_size_and_does_not_depend_on_how_it_is_read() {
        let whole = |step: usize| {
            let (mut content, mut all, mut buffer) = (Content::of(1), Vec::<u8>::new(), vec![0; step]);
            loop {
                match content.read(&mut buffer) {
                    0 => return all,
                    n => all.extend(&buffer[..n]),
                }
            }
        };
        assert_eq!(whole(4096).len() as u64, MIB);
        assert_eq!(whole(4096), whole(1000));
        assert_ne!(file_sha256(1), file_sha256(2));
        // Of 1 MiB of zeros, by sha256sum.
        assert_eq!(zeros_sha256(MIB), "30e14955ebf1352266dc2ff8067e68104607e750abb9d3b36582b8af909fcb58");
    }
}
