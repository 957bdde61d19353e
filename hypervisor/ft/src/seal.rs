//! Heartbeats under seal: datagrams that nobody else can make, change, or send a second time.
//!
//! A datagram is 16 bytes in the clear and a sealed heartbeat (ChaCha20-Poly1305, RFC 8439). Its number is the nonce, and
//! each one that is accepted has a higher number than all before: what was overtaken on its way tells nothing new. The key is
//! that of one direction on one path between two incarnations, so a datagram is good for nothing elsewhere or later.

use crate::heartbeat::{BEAT, Beat};
use crate::keys::{Incarnation, Keys};
use crate::side::{Path, Side};
use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use core::fmt;

/// How a datagram begins.
pub const MAGIC: [u8; 4] = *b"LKHB";

/// Version of the datagrams.
const VERSION: u8 = 1;

/// Bytes in the clear: magic, version, side, path, zero, number.
const HEAD: usize = 16;

const TAG: usize = 16;

/// Bytes of a datagram.
pub const SEALED: usize = HEAD + BEAT + TAG;

fn head(from: Side, path: Path, number: u64) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&MAGIC);
    head[4] = VERSION;
    head[5] = from.index() as u8;
    head[6] = path.index() as u8;
    head[8..].copy_from_slice(&number.to_le_bytes());
    head
}

fn nonce(number: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&number.to_le_bytes());
    nonce
}

/// Seals the heartbeats of one side on one path.
pub struct Sealer {
    cipher: ChaCha20Poly1305,
    from: Side,
    path: Path,
    /// Number of the next datagram.
    number: u64,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, path, number, .. } = self;
        write!(f, "Sealer {{ {from}, {path}, number {number} }}")
    }
}

impl Sealer {
    /// For what side `from` sends on `path`. `starts`: the incarnations of sides A and B.
    #[must_use]
    pub fn new(keys: &Keys, from: Side, path: Path, starts: [Incarnation; 2]) -> Self {
        let cipher = ChaCha20Poly1305::new(&keys.heartbeat(from, path, starts).into());
        Self { cipher, from, path, number: 1 }
    }

    /// Seals one. `None` once the numbers have run out: none is ever used twice.
    pub fn seal(&mut self, beat: &Beat) -> Option<[u8; SEALED]> {
        let number = self.number;
        self.number = number.checked_add(1)?;
        let mut out = [0; SEALED];
        let head = head(self.from, self.path, number);
        out[..HEAD].copy_from_slice(&head);
        out[HEAD..HEAD + BEAT].copy_from_slice(&beat.emit());
        let nonce = nonce(number).into();
        let tag = self.cipher.encrypt_in_place_detached(&nonce, &head, &mut out[HEAD..HEAD + BEAT]).ok()?;
        out[HEAD + BEAT..].copy_from_slice(&tag);
        Some(out)
    }
}

/// What an opener has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Opened, and new.
    pub accepted: u64,
    /// No datagram of ours: another length, or another beginning.
    pub garbage: u64,
    /// Of another side, path or version: our own come back, for one.
    pub misplaced: u64,
    /// Not newer than one that was accepted: repeated, or overtaken.
    pub old: u64,
    /// Does not open: not made by the peer as it is now.
    pub forged: u64,
    /// Opens, and makes no sense.
    pub malformed: u64,
    /// Numbers that were left out: heartbeats that were lost or overtaken.
    pub missed: u64,
}

impl Seen {
    /// All that were refused.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        let sum = self.garbage.wrapping_add(self.misplaced).wrapping_add(self.old);
        sum.wrapping_add(self.forged).wrapping_add(self.malformed)
    }
}

/// Opens the heartbeats of one side on one path.
pub struct Opener {
    cipher: ChaCha20Poly1305,
    from: Side,
    path: Path,
    /// Number of the newest datagram that was accepted; 0 for none.
    newest: u64,
    seen: Seen,
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, path, newest, .. } = self;
        write!(f, "Opener {{ {from}, {path}, newest {newest} }}")
    }
}

impl Opener {
    /// For what side `from` sends on `path`. `starts`: the incarnations of sides A and B.
    #[must_use]
    pub fn new(keys: &Keys, from: Side, path: Path, starts: [Incarnation; 2]) -> Self {
        let cipher = ChaCha20Poly1305::new(&keys.heartbeat(from, path, starts).into());
        Self { cipher, from, path, newest: 0, seen: Seen::default() }
    }

    /// What was seen.
    #[must_use]
    pub const fn seen(&self) -> Seen {
        self.seen
    }

    /// Opens a datagram. `None`, and a counter, for everything but a new heartbeat of the peer.
    pub fn open(&mut self, datagram: &[u8]) -> Option<Beat> {
        let Ok(datagram) = <&[u8; SEALED]>::try_from(datagram) else {
            return refuse(&mut self.seen.garbage);
        };
        if datagram[..4] != MAGIC {
            return refuse(&mut self.seen.garbage);
        }
        let (clear, sealed) = datagram.split_at(HEAD);
        let (sealed, tag) = sealed.split_at(BEAT);
        let number = clear[8..].first_chunk().map_or(0, |number| u64::from_le_bytes(*number));
        let head = head(self.from, self.path, number);
        if clear != head {
            return refuse(&mut self.seen.misplaced);
        }
        if number <= self.newest {
            return refuse(&mut self.seen.old);
        }
        let mut beat = [0; BEAT];
        beat.copy_from_slice(sealed);
        let nonce = nonce(number).into();
        if self.cipher.decrypt_in_place_detached(&nonce, &head, &mut beat, tag.into()).is_err() {
            return refuse(&mut self.seen.forged);
        }
        self.seen.missed = self.seen.missed.wrapping_add(number - self.newest - 1);
        self.newest = number;
        let Some(beat) = Beat::parse(&beat) else { return refuse(&mut self.seen.malformed) };
        self.seen.accepted = self.seen.accepted.wrapping_add(1);
        Some(beat)
    }
}

fn refuse(counter: &mut u64) -> Option<Beat> {
    *counter = counter.wrapping_add(1);
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heartbeat::Status;
    use crate::heartbeat::tests::any_beat;
    use proptest::prelude::*;

    const STARTS: [Incarnation; 2] = [Incarnation(11), Incarnation(22)];
    const BEAT_HERE: Beat =
        Beat { generation: 1, status: Status::Primary, sent: 1, received: 0, executed: 1, virtual_ns: 5 };

    fn keys(generation: u64) -> Keys {
        Keys::new(&[9; 32], "vm", generation)
    }

    fn both(from: Side, path: Path) -> (Sealer, Opener) {
        (Sealer::new(&keys(1), from, path, STARTS), Opener::new(&keys(1), from, path, STARTS))
    }

    #[test]
    fn each_is_accepted_once() {
        let (mut sealer, mut opener) = both(Side::A, Path::Logging);
        let sealed = [(); 4].map(|()| sealer.seal(&BEAT_HERE).unwrap());
        for (index, accepted) in [(0, true), (0, false), (2, true), (1, false), (2, false), (3, true)] {
            assert_eq!(opener.open(&sealed[index]).is_some(), accepted, "{index}");
        }
        let expected = Seen { accepted: 3, old: 3, missed: 1, ..Seen::default() };
        assert_eq!(opener.seen(), expected);
        assert_eq!(opener.seen().refused(), 3);
    }

    #[test]
    fn it_is_good_for_nothing_elsewhere() {
        let (mut sealer, _) = both(Side::A, Path::Logging);
        let sealed = sealer.seal(&BEAT_HERE).unwrap();
        // Back to its sender, and on the other path.
        for (from, path) in [(Side::B, Path::Logging), (Side::A, Path::Guest)] {
            let mut opener = both(from, path).1;
            assert_eq!(opener.open(&sealed), None);
            assert_eq!(opener.seen(), Seen { misplaced: 1, ..Seen::default() });
            // With a head that fits, the key does not.
            let mut moved = sealed;
            (moved[5], moved[6]) = (from.index() as u8, path.index() as u8);
            assert_eq!(opener.open(&moved), None);
            assert_eq!(opener.seen(), Seen { misplaced: 1, forged: 1, ..Seen::default() });
        }
        let others = [
            (keys(2), STARTS),
            (Keys::new(&[9; 32], "other", 1), STARTS),
            (Keys::new(&[8; 32], "vm", 1), STARTS),
            (keys(1), [Incarnation(11), Incarnation(23)]),
            (keys(1), [Incarnation(12), Incarnation(22)]),
        ];
        for (keys, starts) in others {
            let mut opener = Opener::new(&keys, Side::A, Path::Logging, starts);
            assert_eq!(opener.open(&sealed), None);
            assert_eq!(opener.seen(), Seen { forged: 1, ..Seen::default() });
        }
    }

    #[test]
    fn numbers_run_out_and_are_not_used_again() {
        let (mut sealer, mut opener) = both(Side::B, Path::Guest);
        sealer.number = u64::MAX - 1;
        let last = sealer.seal(&BEAT_HERE).unwrap();
        assert_eq!(sealer.seal(&BEAT_HERE), None);
        assert_eq!(sealer.seal(&BEAT_HERE), None);
        assert_eq!(opener.open(&last), Some(BEAT_HERE));
        assert_eq!(opener.open(&last), None);
        assert_eq!(
            opener.open(&both(Side::B, Path::Guest).0.seal(&BEAT_HERE).unwrap()),
            None,
            "it began anew"
        );
    }

    proptest! {
        #[test]
        fn round_trip(beats in proptest::collection::vec(any_beat(), 1..20)) {
            let (mut sealer, mut opener) = both(Side::B, Path::Logging);
            for beat in &beats {
                prop_assert_eq!(opener.open(&sealer.seal(beat).unwrap()), Some(*beat));
            }
            prop_assert_eq!(opener.seen().refused(), 0);
        }

        /// A changed one is refused, and the true one is accepted afterwards.
        #[test]
        fn nothing_can_be_changed(beat in any_beat(), at in 0..SEALED, bit in 0u8..8, cut in 1..SEALED) {
            let (mut sealer, mut opener) = both(Side::A, Path::Guest);
            let sealed = sealer.seal(&beat).unwrap();
            let mut changed = sealed;
            changed[at] ^= 1 << bit;
            prop_assert_eq!(opener.open(&changed), None);
            prop_assert_eq!(opener.open(&sealed[..SEALED - cut]), None);
            prop_assert_eq!(opener.open(&[&sealed[..], &[0]].concat()), None);
            prop_assert_eq!(opener.seen().refused(), 3);
            prop_assert_eq!(opener.open(&sealed), Some(beat));
        }

        #[test]
        fn garbage(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut opener = both(Side::A, Path::Guest).1;
            prop_assert_eq!(opener.open(&bytes), None);
            let mut headed = [0; SEALED];
            headed.iter_mut().zip(&bytes).for_each(|(place, byte)| *place = *byte);
            headed[..HEAD].copy_from_slice(&head(Side::A, Path::Guest, 7));
            prop_assert_eq!(opener.open(&headed), None);
            prop_assert_eq!(opener.seen(), Seen { garbage: 1, forged: 1, ..Seen::default() });
        }
    }
}
