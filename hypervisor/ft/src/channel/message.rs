//! What the two hosts say to each other, one message in each record: a byte for the kind, then fields of fixed length.

use crate::pair::Order;
use core::fmt;

/// Bytes of a log piece at most.
pub const PIECE: usize = 16 << 10;

/// Bytes of a message at most: the kind and a log piece.
pub const MESSAGE: usize = 1 + PIECE;

/// Bytes of an [`Ack`] with its kind.
const ACK: usize = 1 + 3 * 8;

/// How far the backup is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ack {
    /// Position up to which the log has arrived, bytes.
    pub received: u64,
    /// Position up to which the log has been executed, bytes.
    pub executed: u64,
    /// Virtual time at the executed position, nanoseconds.
    pub executed_ns: u64,
}

/// Why a host leaves the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The virtual machine has ended, on both.
    Ended,
    /// The two do not fit together.
    Refused,
    /// The peer has lost, or gives up.
    Lost,
    /// A divergence, or a fault of the host.
    Trouble,
}

impl Why {
    const ALL: [Self; 4] = [Self::Ended, Self::Refused, Self::Lost, Self::Trouble];
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ended => "the virtual machine has ended",
            Self::Refused => "the pair was refused",
            Self::Lost => "it has lost",
            Self::Trouble => "it is in trouble",
        })
    }
}

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// The initiator has read the handshake's answer: the first message, made and read by the handshake itself.
    Ready,
    /// The next bytes of the log, at most [`PIECE`]; none is no message.
    Log(&'a [u8]),
    /// How far the backup is.
    Ack(Ack),
    /// The generation is armed: from the acknowledgement of this on, the virtual machine is protected.
    Armed {
        /// Its number.
        generation: u64,
    },
    /// Nothing follows.
    Goodbye(Why),
    /// Nothing: it makes the peer acknowledge what came before it.
    Ping,
    /// From the backup: an operator has ordered this there.
    Order(Order),
    /// From the primary: at this place of the log the guest stands still by order, or goes on.
    Paused(bool),
}

const READY: u8 = 1;
const LOG: u8 = 2;
const ACK_KIND: u8 = 3;
const ARMED: u8 = 4;
const GOODBYE: u8 = 5;
const PING: u8 = 6;
const ORDER: u8 = 7;
const PAUSED: u8 = 8;

impl<'a> Message<'a> {
    /// Writes it; how many bytes. `None`: a log piece is empty or too long, or `out` is shorter than the message.
    pub fn emit(&self, out: &mut [u8]) -> Option<usize> {
        let (kind, length) = match self {
            Self::Ready => (READY, 1),
            Self::Log(piece) if piece.is_empty() || piece.len() > PIECE => return None,
            Self::Log(piece) => (LOG, 1 + piece.len()),
            Self::Ack(_) => (ACK_KIND, ACK),
            Self::Armed { .. } => (ARMED, 9),
            Self::Goodbye(_) => (GOODBYE, 2),
            Self::Ping => (PING, 1),
            Self::Order(_) => (ORDER, 2),
            Self::Paused(_) => (PAUSED, 2),
        };
        let (first, rest) = out.get_mut(..length)?.split_first_mut()?;
        *first = kind;
        match self {
            Self::Log(piece) => rest.copy_from_slice(piece),
            Self::Ack(ack) => {
                for (place, number) in
                    rest.as_chunks_mut().0.iter_mut().zip([ack.received, ack.executed, ack.executed_ns])
                {
                    *place = number.to_le_bytes();
                }
            }
            Self::Armed { generation } => rest.copy_from_slice(&generation.to_le_bytes()),
            Self::Goodbye(why) => rest.fill(*why as u8),
            Self::Order(order) => rest.fill(*order as u8),
            Self::Paused(paused) => rest.fill((*paused).into()),
            Self::Ready | Self::Ping => {}
        }
        Some(length)
    }

    /// Reads it. `None` unless it is exactly a message.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        Some(match (*kind, rest) {
            (READY, []) => Self::Ready,
            (LOG, piece) if !piece.is_empty() && piece.len() <= PIECE => Self::Log(piece),
            (ACK_KIND, fields) => {
                let ([received, executed, executed_ns], []) = fields.as_chunks::<8>() else { return None };
                let [received, executed, executed_ns] =
                    [received, executed, executed_ns].map(|field| u64::from_le_bytes(*field));
                Self::Ack(Ack { received, executed, executed_ns })
            }
            (ARMED, field) => Self::Armed { generation: u64::from_le_bytes(field.try_into().ok()?) },
            (GOODBYE, [why]) => Self::Goodbye(*Why::ALL.get(usize::from(*why))?),
            (PING, []) => Self::Ping,
            (ORDER, [order]) => Self::Order(*Order::ALL.get(usize::from(*order))?),
            (PAUSED, [paused @ (0 | 1)]) => Self::Paused(*paused == 1),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    fn round_trip(message: &Message<'_>) {
        let mut out = vec![0; MESSAGE];
        let length = message.emit(&mut out).unwrap();
        assert_eq!(Message::parse(&out[..length]), Some(*message));
        assert_eq!(message.emit(&mut out[..length - 1]), None, "no room");
    }

    #[test]
    fn the_fixed_ones() {
        for message in [Message::Ready, Message::Ping, Message::Armed { generation: 1 << 40 }] {
            round_trip(&message);
        }
        for why in Why::ALL {
            round_trip(&Message::Goodbye(why));
        }
        for order in Order::ALL {
            round_trip(&Message::Order(order));
        }
        [false, true].into_iter().for_each(|paused| round_trip(&Message::Paused(paused)));
        let mut out = vec![0; MESSAGE + 1];
        assert_eq!(Message::Log(&[]).emit(&mut out), None);
        assert_eq!(Message::Log(&vec![0; PIECE + 1]).emit(&mut out), None);
    }

    proptest! {
        #[test]
        fn numbers_and_bytes(
            received: u64, executed: u64, executed_ns: u64,
            piece in proptest::collection::vec(any::<u8>(), 1..PIECE),
        ) {
            round_trip(&Message::Ack(Ack { received, executed, executed_ns }));
            round_trip(&Message::Log(&piece));
        }

        /// What is read is what would be written: nothing else is accepted.
        #[test]
        fn strict(kind in 0u8..11, rest in proptest::collection::vec(any::<u8>(), 0..40)) {
            let bytes = [&[kind], &rest[..]].concat();
            if let Some(message) = Message::parse(&bytes) {
                let mut out = vec![0; MESSAGE];
                let length = message.emit(&mut out).unwrap();
                prop_assert_eq!(&out[..length], &bytes[..]);
            }
        }
    }
}
