//! Bounded writing and reading of bytes: integers as varints, strings with their length.
//!
//! A varint is LEB128: seven bits a byte, low ones first, bit 7 set in all bytes but the last; at most ten bytes.

/// The longest varint of 64 bits, bytes.
pub const VARINT_MAX: usize = 10;

/// A signed difference as an unsigned number that is small when the difference is: 0, -1, 1, -2, ... become 0, 1, 2, 3, ...
#[inline]
#[must_use]
pub const fn zigzag(value: u64) -> u64 {
    (value << 1) ^ ((value as i64 >> 63) as u64)
}

/// The inverse of [`zigzag`].
#[inline]
#[must_use]
pub const fn unzigzag(value: u64) -> u64 {
    (value >> 1) ^ (value & 1).wrapping_neg()
}

/// There is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

/// Writes into a buffer of a fixed size.
pub struct Out<'b> {
    buffer: &'b mut [u8],
    used: usize,
}

impl<'b> Out<'b> {
    /// Writes to the beginning of `buffer`.
    pub const fn new(buffer: &'b mut [u8]) -> Self {
        Self { buffer, used: 0 }
    }

    /// Bytes written.
    #[must_use]
    pub const fn used(&self) -> usize {
        self.used
    }

    /// Bytes as they are.
    ///
    /// # Errors
    /// They do not fit.
    pub fn raw(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        let end = self.used.checked_add(bytes.len()).ok_or(NoRoom)?;
        self.buffer.get_mut(self.used..end).ok_or(NoRoom)?.copy_from_slice(bytes);
        self.used = end;
        Ok(())
    }

    /// One byte.
    ///
    /// # Errors
    /// It does not fit.
    #[inline]
    pub fn byte(&mut self, byte: u8) -> Result<(), NoRoom> {
        *self.buffer.get_mut(self.used).ok_or(NoRoom)? = byte;
        self.used += 1;
        Ok(())
    }

    /// A varint.
    ///
    /// # Errors
    /// It does not fit.
    #[inline]
    pub fn varint(&mut self, mut value: u64) -> Result<(), NoRoom> {
        while value >= 0x80 {
            self.byte(value as u8 | 0x80)?;
            value >>= 7;
        }
        self.byte(value as u8)
    }

    /// The length as a varint, then the bytes.
    ///
    /// # Errors
    /// They do not fit.
    pub fn string(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        self.varint(bytes.len() as u64)?;
        self.raw(bytes)
    }
}

/// What cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The bytes end within an item.
    Short,
    /// A varint has more than 64 bits.
    Varint,
}

/// Reads bytes from first to last.
#[derive(Clone, Copy, Debug)]
pub struct In<'l> {
    bytes: &'l [u8],
    at: usize,
}

impl<'l> In<'l> {
    /// Reads `bytes` from their beginning.
    #[must_use]
    pub const fn new(bytes: &'l [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes read.
    #[must_use]
    pub const fn at(&self) -> usize {
        self.at
    }

    /// Whether all is read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// The bytes that are not read yet.
    #[must_use]
    pub fn rest(&self) -> &'l [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// So many bytes.
    ///
    /// # Errors
    /// There are fewer.
    pub fn raw(&mut self, length: usize) -> Result<&'l [u8], Malformed> {
        let end = self.at.checked_add(length).ok_or(Malformed::Short)?;
        let bytes = self.bytes.get(self.at..end).ok_or(Malformed::Short)?;
        self.at = end;
        Ok(bytes)
    }

    /// So many bytes, as an array.
    ///
    /// # Errors
    /// There are fewer.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let bytes = self.raw(N)?;
        <[u8; N]>::try_from(bytes).map_err(|_| Malformed::Short)
    }

    /// One byte.
    ///
    /// # Errors
    /// There is none.
    #[inline]
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        let byte = *self.bytes.get(self.at).ok_or(Malformed::Short)?;
        self.at += 1;
        Ok(byte)
    }

    /// A varint.
    ///
    /// # Errors
    /// It is cut off, or has more than 64 bits.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0_u64;
        for index in 0..VARINT_MAX as u32 {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7F);
            if index == 9 && bits > 1 {
                return Err(Malformed::Varint);
            }
            value |= bits << (7 * index);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed::Varint)
    }

    /// A length as a varint, then so many bytes.
    ///
    /// # Errors
    /// They are cut off.
    pub fn string(&mut self) -> Result<&'l [u8], Malformed> {
        let length = usize::try_from(self.varint()?).map_err(|_| Malformed::Short)?;
        self.raw(length)
    }
}

#[cfg(test)]
mod tests {
    use super::{In, Malformed, NoRoom, Out, VARINT_MAX, unzigzag, zigzag};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_come_back(value: u64) {
            let mut buffer = [0; VARINT_MAX];
            let mut out = Out::new(&mut buffer);
            out.varint(value).unwrap();
            let used = out.used();
            let mut input = In::new(&buffer[..used]);
            prop_assert_eq!(input.varint(), Ok(value));
            prop_assert!(input.is_empty());
            prop_assert_eq!(In::new(&buffer[..used - 1]).varint(), Err(Malformed::Short));
            prop_assert_eq!(Out::new(&mut buffer[..used - 1]).varint(value), Err(NoRoom));
        }

        #[test]
        fn zigzag_comes_back(value: u64) {
            prop_assert_eq!(unzigzag(zigzag(value)), value);
        }
    }

    #[test]
    fn small_differences_are_small() {
        let minus_one = 0_u64.wrapping_sub(1);
        assert_eq!([0, minus_one, 1, minus_one - 1].map(zigzag), [0, 1, 2, 3]);
    }

    #[test]
    fn more_than_64_bits_are_refused() {
        assert_eq!(In::new(&[0xFF; 11]).varint(), Err(Malformed::Varint));
        let mut most = [0xFF; 10];
        most[9] = 1;
        assert_eq!(In::new(&most).varint(), Ok(u64::MAX));
        most[9] = 2;
        assert_eq!(In::new(&most).varint(), Err(Malformed::Varint));
    }

    #[test]
    fn lengths_beyond_the_end_are_refused() {
        assert_eq!(In::new(&[5, 1, 2]).string(), Err(Malformed::Short));
        let mut huge = [0xFF; 10];
        huge[9] = 1;
        assert_eq!(In::new(&huge).string(), Err(Malformed::Short));
    }
}
