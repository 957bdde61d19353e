//! Datagrams of the lock server's protocol.

use super::super::record::{RECORD, Record, VmId, checksum, side};
use crate::keys::Incarnation;
use crate::side::Side;

/// Bytes of a request.
pub const REQUEST: usize = 72;

/// Bytes of a reply.
pub const REPLY: usize = 96;

/// The UDP port that the server has unless told otherwise.
pub const PORT: u16 = 5409;

const REQUEST_MAGIC: [u8; 4] = *b"LKRQ";
const REPLY_MAGIC: [u8; 4] = *b"LKRP";
const VERSION: u8 = 1;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The generation begins, with this peer.
    Arm {
        /// The backup's incarnation.
        peer: Incarnation,
    },
    /// Test-and-set.
    Contend {
        /// The contender's log position.
        position: u64,
    },
    /// What is recorded?
    ReadBack,
}

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Chosen by the client: the reply repeats it.
    pub id: u64,
    /// The virtual machine.
    pub vm: VmId,
    /// The generation.
    pub generation: u64,
    /// Who asks.
    pub side: Side,
    /// Which start of it.
    pub nonce: Incarnation,
    /// What.
    pub operation: Operation,
}

impl Request {
    /// The datagram; numbers are little-endian.
    #[must_use]
    pub fn emit(&self) -> [u8; REQUEST] {
        let mut out = [0; REQUEST];
        let (operation, argument) = match self.operation {
            Operation::Arm { peer } => (1, peer.0),
            Operation::Contend { position } => (2, position),
            Operation::ReadBack => (3, 0),
        };
        out[..4].copy_from_slice(&REQUEST_MAGIC);
        out[4..8].copy_from_slice(&[VERSION, operation, self.side.index() as u8, 0]);
        out[8..16].copy_from_slice(&self.id.to_le_bytes());
        out[16..32].copy_from_slice(&self.vm.0);
        for (place, number) in
            out[32..56].as_chunks_mut().0.iter_mut().zip([self.generation, self.nonce.0, argument])
        {
            *place = number.to_le_bytes();
        }
        seal(&mut out);
        out
    }

    /// Reads a datagram. `None`: it is no request.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; REQUEST] = open(bytes)?;
        let argument = number(bytes, 48);
        let operation = match bytes[5] {
            1 => Operation::Arm { peer: Incarnation(argument) },
            2 => Operation::Contend { position: argument },
            3 if argument == 0 => Operation::ReadBack,
            _ => return None,
        };
        let rest_is_zero = bytes[7] == 0 && bytes[56..REQUEST - 4].iter().all(|byte| *byte == 0);
        if bytes[..4] != REQUEST_MAGIC || bytes[4] != VERSION || !rest_is_zero {
            return None;
        }
        Some(Self {
            id: number(bytes, 8),
            vm: VmId(core::array::from_fn(|n| bytes[16 + n])),
            generation: number(bytes, 32),
            side: side(bytes[6])?,
            nonce: Incarnation(number(bytes, 40)),
            operation,
        })
    }
}

/// What the server has decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The generation is armed, by this client.
    Armed,
    /// It is consumed, by this client.
    Won,
    /// It is consumed, by another.
    Lost,
    /// It is armed and not consumed.
    Free,
    /// No record fits.
    Refused,
}

const VERDICTS: [Verdict; 5] = [Verdict::Armed, Verdict::Won, Verdict::Lost, Verdict::Free, Verdict::Refused];

/// A reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The request's.
    pub id: u64,
    /// The request's.
    pub nonce: Incarnation,
    /// The decision.
    pub verdict: Verdict,
    /// The record as it is now, if there is one.
    pub record: Option<Record>,
}

impl Reply {
    /// The datagram; numbers are little-endian.
    #[must_use]
    pub fn emit(&self) -> [u8; REPLY] {
        let mut out = [0; REPLY];
        out[..4].copy_from_slice(&REPLY_MAGIC);
        out[4..8].copy_from_slice(&[VERSION, self.verdict as u8 + 1, u8::from(self.record.is_some()), 0]);
        out[8..16].copy_from_slice(&self.id.to_le_bytes());
        out[16..24].copy_from_slice(&self.nonce.0.to_le_bytes());
        if let Some(record) = &self.record {
            out[24..24 + RECORD].copy_from_slice(&record.emit());
        }
        seal(&mut out);
        out
    }

    /// Reads a datagram. `None`: it is no reply.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; REPLY] = open(bytes)?;
        let record: &[u8; RECORD] = bytes[24..].first_chunk()?;
        let record = match bytes[6] {
            0 if *record == [0; RECORD] => None,
            1 => Some(Record::parse(record)?),
            _ => return None,
        };
        let rest_is_zero = bytes[7] == 0 && bytes[24 + RECORD..REPLY - 4].iter().all(|byte| *byte == 0);
        if bytes[..4] != REPLY_MAGIC || bytes[4] != VERSION || !rest_is_zero {
            return None;
        }
        Some(Self {
            id: number(bytes, 8),
            nonce: Incarnation(number(bytes, 16)),
            verdict: *VERDICTS.get(usize::from(bytes[5]).checked_sub(1)?)?,
            record,
        })
    }
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(core::array::from_fn(|n| bytes[at + n]))
}

/// Writes the CRC-32C into the last four bytes.
fn seal(out: &mut [u8]) {
    let Some((bytes, crc)) = out.split_last_chunk_mut::<4>() else { return };
    *crc = checksum(bytes).to_le_bytes();
}

/// The datagram, if it has this length and its checksum is right.
fn open<const N: usize>(bytes: &[u8]) -> Option<&[u8; N]> {
    let (content, crc) = bytes.split_last_chunk::<4>()?;
    let whole = bytes.try_into().ok()?;
    (u32::from_le_bytes(*crc) == checksum(content)).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::super::super::record::tests::any_record;
    use super::*;
    use proptest::prelude::*;

    fn any_request() -> impl Strategy<Value = Request> {
        let operation = prop_oneof![
            any::<u64>().prop_map(|peer| Operation::Arm { peer: Incarnation(peer) }),
            any::<u64>().prop_map(|position| Operation::Contend { position }),
            Just(Operation::ReadBack),
        ];
        (any::<[u64; 3]>(), any::<[u8; 16]>(), any::<bool>(), operation).prop_map(
            |([id, generation, nonce], vm, b, operation)| Request {
                id,
                vm: VmId(vm),
                generation,
                side: if b { Side::B } else { Side::A },
                nonce: Incarnation(nonce),
                operation,
            },
        )
    }

    fn any_reply() -> impl Strategy<Value = Reply> {
        (any::<[u64; 2]>(), 0..VERDICTS.len(), proptest::option::of(any_record())).prop_map(
            |([id, nonce], verdict, record)| Reply {
                id,
                nonce: Incarnation(nonce),
                verdict: VERDICTS[verdict],
                record,
            },
        )
    }

    proptest! {
        #[test]
        fn requests(request in any_request(), bit in 0..REQUEST * 8, cut in 0..REQUEST) {
            let mut bytes = request.emit();
            prop_assert_eq!(Request::parse(&bytes), Some(request));
            prop_assert_eq!(Request::parse(&bytes[..cut]), None);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Request::parse(&bytes), None);
        }

        #[test]
        fn replies(reply in any_reply(), bit in 0..REPLY * 8, cut in 0..REPLY) {
            let mut bytes = reply.emit();
            prop_assert_eq!(Reply::parse(&bytes), Some(reply));
            prop_assert_eq!(Reply::parse(&bytes[..cut]), None);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Reply::parse(&bytes), None);
        }

        /// What has a good checksum and is read is what would be written.
        #[test]
        fn strict(mut bytes: [u8; REQUEST], kind in 0u8..5, side in 0u8..3, tail: bool) {
            bytes[..4].copy_from_slice(&REQUEST_MAGIC);
            bytes[4..8].copy_from_slice(&[VERSION, kind, side, 0]);
            if tail {
                bytes[56..].fill(0);
            }
            seal(&mut bytes);
            if let Some(request) = Request::parse(&bytes) {
                prop_assert_eq!(request.emit(), bytes);
            }
        }
    }
}
