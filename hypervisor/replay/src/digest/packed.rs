//! A digest as bytes: the difference to the digest before.
//!
//! 1. The number of registers that have changed, one byte. For each, in order: its number, one byte; its value XOR the one
//!    before, as a varint (7 bits in a byte, the lowest first, bit 7 set in all but the last).
//! 2. The parts that have changed: a bit for each, 8 bytes little-endian, then for each its hash, 8 bytes.
//! 3. The buckets that have changed: a bit for each, 4 bytes, then for each its plain and weighted sum, 16 bytes each.
//! 4. The [total](Digest::total) of the new digest, 8 bytes: a difference that is applied to another digest than it was made from
//!    is noticed.

use super::Digest;
use super::memory::{BUCKETS, Sum};
use super::parts::Part;
use super::registers::Register;
use core::fmt;

/// Bytes of a varint at most.
const VARINT: usize = 10;

/// Bytes of a packed digest at most.
pub const MAX_PACKED: usize =
    1 + Register::COUNT * (1 + VARINT) + 8 + Part::COUNT * 8 + 4 + BUCKETS * size_of::<Sum>() + 8;

const _: () = assert!(Register::COUNT <= u8::MAX as usize && Part::COUNT <= 64 && BUCKETS <= 32);

/// The bytes are no packed digest, or not one that follows the digest that they were applied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the checkpoint's digest is malformed")
    }
}

impl core::error::Error for Malformed {}

/// Packs `digest` as its difference to `before`. Returns the bytes used.
pub fn pack<'b>(digest: &Digest, before: &Digest, buffer: &'b mut [u8; MAX_PACKED]) -> &'b [u8] {
    let mut writer = Writer { buffer, length: 0 };
    let changed = |register: &Register| digest.register(*register) != before.register(*register);
    writer.put(&[Register::ALL.iter().filter(|register| changed(register)).count() as u8]);
    for register in Register::ALL.into_iter().filter(changed) {
        writer.put(&[register as u8]);
        writer.varint(digest.register(register) ^ before.register(register));
    }
    let parts = bits(digest.parts.iter().zip(&before.parts).map(|(a, b)| a != b));
    writer.put(&parts.to_le_bytes());
    for part in ones(parts) {
        writer.put(&digest.parts[part].to_le_bytes());
    }
    let buckets = bits(digest.memory.iter().zip(&before.memory).map(|(a, b)| a != b));
    writer.put(&(buckets as u32).to_le_bytes());
    for bucket in ones(buckets) {
        let Sum { plain, weighted } = digest.memory[bucket];
        writer.put(&plain.to_le_bytes());
        writer.put(&weighted.to_le_bytes());
    }
    writer.put(&digest.total().to_le_bytes());
    let Writer { buffer, length } = writer;
    &buffer[..length]
}

/// Makes `digest`, the one before, into the one that is packed; on an error it is anything.
///
/// # Errors
/// [`Malformed`].
pub fn unpack(digest: &mut Digest, packed: &[u8]) -> Result<(), Malformed> {
    let mut reader = Reader(packed);
    let [count] = reader.take()?;
    for _ in 0..count {
        let [number] = reader.take()?;
        let value = digest.registers.get_mut(usize::from(number)).ok_or(Malformed)?;
        *value ^= reader.varint()?;
    }
    let parts = u64::from_le_bytes(reader.take()?);
    for part in ones(parts) {
        *digest.parts.get_mut(part).ok_or(Malformed)? = u64::from_le_bytes(reader.take()?);
    }
    let buckets = u32::from_le_bytes(reader.take()?);
    for bucket in ones(buckets.into()) {
        let sum = digest.memory.get_mut(bucket).ok_or(Malformed)?;
        sum.plain = u128::from_le_bytes(reader.take()?);
        sum.weighted = u128::from_le_bytes(reader.take()?);
    }
    let total = u64::from_le_bytes(reader.take()?);
    if total == digest.total() && reader.0.is_empty() { Ok(()) } else { Err(Malformed) }
}

/// What a packed digest holds, for tools: registers, parts and buckets that have changed.
///
/// # Errors
/// [`Malformed`].
pub fn survey(packed: &[u8]) -> Result<Survey, Malformed> {
    let mut reader = Reader(packed);
    let [registers] = reader.take()?;
    for _ in 0..registers {
        let [_] = reader.take()?;
        reader.varint()?;
    }
    let parts = u64::from_le_bytes(reader.take()?);
    for _ in ones(parts) {
        reader.take::<8>()?;
    }
    let buckets = u32::from_le_bytes(reader.take()?);
    for _ in ones(buckets.into()) {
        reader.take::<32>()?;
    }
    let total = u64::from_le_bytes(reader.take()?);
    Ok(Survey {
        registers: registers.into(),
        parts: parts.count_ones(),
        buckets: buckets.count_ones(),
        total,
    })
}

/// What a packed digest holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Survey {
    /// Registers that have changed.
    pub registers: u32,
    /// Devices and the like that have.
    pub parts: u32,
    /// Buckets of memory that have.
    pub buckets: u32,
    /// The hash over the whole digest.
    pub total: u64,
}

fn bits(changed: impl Iterator<Item = bool>) -> u64 {
    changed.enumerate().fold(0, |bits, (number, changed)| bits | u64::from(changed) << number)
}

fn ones(bits: u64) -> impl Iterator<Item = usize> {
    (0..64).filter(move |number| bits >> number & 1 != 0)
}

struct Writer<'b> {
    buffer: &'b mut [u8; MAX_PACKED],
    length: usize,
}

impl Writer<'_> {
    /// The buffer is as long as all of it can become.
    fn put(&mut self, bytes: &[u8]) {
        self.buffer[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.put(&[value as u8 | 0x80]);
            value >>= 7;
        }
        self.put(&[value as u8]);
    }
}

struct Reader<'b>(&'b [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (bytes, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for position in 0..VARINT {
            let [byte] = self.take()?;
            let bits = u64::from(byte & 0x7F);
            let shifted = bits << (7 * position);
            if shifted >> (7 * position) != bits {
                return Err(Malformed);
            }
            value |= shifted;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }
}
