//! What a heartbeat says, and its fixed form: 48 bytes, before they are sealed.

use core::fmt;

/// What a host is, as far as its peer has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It has no peer yet.
    Starting,
    /// It runs the virtual machine, protected by its peer.
    Primary,
    /// It follows.
    Backup,
    /// It suspects its peer, and asks the arbiter.
    Arbitrating,
    /// It runs the virtual machine alone: it has won, or nobody contends.
    Solo,
    /// It has lost, or given up. It is never live again in this generation.
    Halted,
    /// The virtual machine has ended.
    Ended,
    /// As a primary whose guest stands still by order: no log is no failure.
    Paused,
}

impl Status {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Starting,
        Self::Primary,
        Self::Backup,
        Self::Arbitrating,
        Self::Solo,
        Self::Halted,
        Self::Ended,
        Self::Paused,
    ];
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Primary => "primary",
            Self::Backup => "backup",
            Self::Arbitrating => "arbitrating",
            Self::Solo => "solo",
            Self::Halted => "halted",
            Self::Ended => "ended",
            Self::Paused => "paused",
        })
    }
}

/// A heartbeat. Whose it is and by which path it came is in the key that it is sealed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// The generation that the sender is in. The key is that of the generation which the two are, or were, a pair in.
    pub generation: u64,
    /// What the sender is.
    pub status: Status,
    /// Position up to which the sender has sent the log, bytes; 0 if it does not send one.
    pub sent: u64,
    /// Position up to which the sender has received the log, bytes; 0 if it receives none.
    pub received: u64,
    /// Position up to which the sender has executed the log, bytes.
    pub executed: u64,
    /// The virtual machine's time on the sender, nanoseconds.
    pub virtual_ns: u64,
}

/// Bytes of a heartbeat.
pub const BEAT: usize = 6 * 8;

impl Beat {
    /// Writes it.
    #[must_use]
    pub fn emit(&self) -> [u8; BEAT] {
        let fields =
            [self.generation, self.status as u64, self.sent, self.received, self.executed, self.virtual_ns];
        let mut bytes = [0; BEAT];
        for (place, field) in bytes.as_chunks_mut().0.iter_mut().zip(fields) {
            *place = field.to_le_bytes();
        }
        bytes
    }

    /// Reads it. `None` if its status is none.
    #[must_use]
    pub fn parse(bytes: &[u8; BEAT]) -> Option<Self> {
        let ([generation, status, sent, received, executed, virtual_ns], []) = bytes.as_chunks::<8>() else {
            return None;
        };
        let [generation, status, sent, received, executed, virtual_ns] =
            [generation, status, sent, received, executed, virtual_ns]
                .map(|field| u64::from_le_bytes(*field));
        let status = *Status::ALL.get(usize::try_from(status).ok()?)?;
        Some(Self { generation, status, sent, received, executed, virtual_ns })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn any_beat() -> impl Strategy<Value = Beat> {
        let status = proptest::sample::select(&Status::ALL[..]);
        (any::<[u64; 5]>(), status).prop_map(
            |([generation, sent, received, executed, virtual_ns], status)| Beat {
                generation,
                status,
                sent,
                received,
                executed,
                virtual_ns,
            },
        )
    }

    proptest! {
        #[test]
        fn round_trip(beat in any_beat()) {
            prop_assert_eq!(Beat::parse(&beat.emit()), Some(beat));
        }

        #[test]
        fn strict(bytes: [[u8; 8]; 6], status in 0u64..10) {
            let mut bytes: [u8; BEAT] = bytes.concat().try_into().unwrap();
            bytes[8..16].copy_from_slice(&status.to_le_bytes());
            let read = Beat::parse(&bytes);
            prop_assert_eq!(read.is_some(), status < 8);
            prop_assert!(read.is_none_or(|beat| beat.emit() == bytes));
        }
    }
}
