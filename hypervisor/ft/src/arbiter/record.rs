//! The arbitration record: who may go on alone, in 64 bytes. What a shared disk will hold in one block.

use crate::keys::Incarnation;
use crate::side::Side;
use blake2::{Blake2s256, Digest};
use core::fmt;
use crc::{CRC_32_ISCSI, Crc, NoTable};

/// Bytes of an encoded record.
pub const RECORD: usize = 64;

/// First bytes of a record.
pub const MAGIC: [u8; 8] = *b"LKSTPARB";

/// The format's version.
pub const VERSION: u16 = 1;

/// CRC-32C, bit by bit: a few records in the life of a pair.
const CRC: Crc<u32, NoTable> = Crc::<u32, NoTable>::new(&CRC_32_ISCSI);

/// CRC-32C (Castagnoli) of bytes.
pub(super) const fn checksum(bytes: &[u8]) -> u32 {
    CRC.checksum(bytes)
}

/// Names a virtual machine to the arbiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VmId(pub [u8; 16]);

impl VmId {
    /// From the pair's name: the first half of its BLAKE2s-256.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let digest: [u8; 32] = Blake2s256::digest(name.as_bytes()).into();
        Self(core::array::from_fn(|n| digest[n]))
    }
}

impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a generation has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Consumed: the owner alone may go on.
    Solo,
    /// Armed: the owner is primary, the peer backup.
    Protected,
}

/// The record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The virtual machine.
    pub vm: VmId,
    /// The generation.
    pub generation: u64,
    /// What it has come to.
    pub standing: Standing,
    /// The host that wrote the record.
    pub owner: Side,
    /// This start of the owner.
    pub nonce: Incarnation,
    /// The start of the other host that was armed with it.
    pub peer: Incarnation,
    /// Log position of the owner when it wrote the record, bytes.
    pub position: u64,
}

impl Record {
    /// The record's bytes; numbers are little-endian.
    #[must_use]
    pub fn emit(&self) -> [u8; RECORD] {
        let mut out = [0; RECORD];
        out[..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[10] = match self.standing {
            Standing::Solo => 1,
            Standing::Protected => 2,
        };
        out[11] = self.owner.index() as u8;
        out[12..28].copy_from_slice(&self.vm.0);
        let numbers = [self.generation, self.nonce.0, self.peer.0, self.position];
        for (place, number) in out[28..60].as_chunks_mut().0.iter_mut().zip(numbers) {
            *place = number.to_le_bytes();
        }
        let crc = checksum(&out[..60]);
        out[60..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a record. `None`: it is none, it is damaged, or of another version.
    #[must_use]
    pub fn parse(bytes: &[u8; RECORD]) -> Option<Self> {
        let number = |at: usize| u64::from_le_bytes(core::array::from_fn(|n| bytes[at + n]));
        let crc = u32::from_le_bytes(core::array::from_fn(|n| bytes[60 + n]));
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if bytes[..8] != MAGIC || version != VERSION || crc != checksum(&bytes[..60]) {
            return None;
        }
        Some(Self {
            vm: VmId(core::array::from_fn(|n| bytes[12 + n])),
            generation: number(28),
            standing: match bytes[10] {
                1 => Standing::Solo,
                2 => Standing::Protected,
                _ => return None,
            },
            owner: side(bytes[11])?,
            nonce: Incarnation(number(36)),
            peer: Incarnation(number(44)),
            position: number(52),
        })
    }
}

/// The side of this [index](Side::index).
pub(super) const fn side(index: u8) -> Option<Side> {
    match index {
        0 => Some(Side::A),
        1 => Some(Side::B),
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub fn any_record() -> impl Strategy<Value = Record> {
        let numbers = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>());
        (any::<[u8; 16]>(), any::<bool>(), any::<bool>(), numbers).prop_map(|(vm, solo, b, numbers)| Record {
            vm: VmId(vm),
            generation: numbers.0,
            standing: if solo { Standing::Solo } else { Standing::Protected },
            owner: if b { Side::B } else { Side::A },
            nonce: Incarnation(numbers.1),
            peer: Incarnation(numbers.2),
            position: numbers.3,
        })
    }

    #[test]
    fn names_differ() {
        assert_ne!(VmId::of("web"), VmId::of("web2"));
        assert_eq!(std::format!("{}", VmId::of("web")).len(), 32);
    }

    #[test]
    fn the_checksum_is_castagnolis() {
        // RFC 3720, B.4.
        assert_eq!(checksum(&[0; 32]), 0x8a91_36aa);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(record in any_record()) {
            prop_assert_eq!(Record::parse(&record.emit()), Some(record));
        }

        #[test]
        fn one_wrong_bit_is_seen(record in any_record(), bit in 0..RECORD * 8) {
            let mut bytes = record.emit();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Record::parse(&bytes), None);
        }
    }
}
