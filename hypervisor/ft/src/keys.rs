//! Keys of one generation, all derived from the configuration's key: HKDF (RFC 5869) over BLAKE2s.
//!
//! Every use has a key of its own, so that nothing that was sealed for one is accepted for another: another virtual machine,
//! generation, direction, path, or start of one of the hosts.

use crate::side::{Path, Side};
use blake2::Blake2s256;
use core::fmt;
use hkdf::SimpleHkdf;

/// Bytes of a key.
pub const KEY: usize = 32;

/// Names this protocol in the derivation; another one where keys are derived otherwise.
const SALT: &[u8] = b"lockstep ft 1";

/// A number that each host draws when it starts, so that what was sealed before is never accepted after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incarnation(pub u64);

/// The keys of one virtual machine in one generation.
#[derive(Clone)]
pub struct Keys {
    hkdf: SimpleHkdf<Blake2s256>,
    generation: u64,
}

/// Says which generation, never the key.
impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl Keys {
    /// The keys from the configuration's key, the virtual machine's name and the generation.
    #[must_use]
    pub fn new(configured: &[u8; KEY], vm: &str, generation: u64) -> Self {
        let root = SimpleHkdf::<Blake2s256>::new(Some(SALT), configured);
        let number = generation.to_le_bytes();
        // The number's length is fixed, so no other pair of name and number gives the same bytes.
        let secret = expand(&root, &[b"generation", &number, vm.as_bytes()]);
        Self { hkdf: SimpleHkdf::new(Some(SALT), &secret), generation }
    }

    /// The generation.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// The pre-shared key of the logging channel's handshake.
    pub(crate) fn channel(&self) -> [u8; KEY] {
        expand(&self.hkdf, &[b"channel"])
    }

    /// The key of the heartbeats that side `from` sends on `path`. `starts`: side A's incarnation and side B's.
    pub(crate) fn heartbeat(&self, from: Side, path: Path, starts: [Incarnation; 2]) -> [u8; KEY] {
        let way = [from.index() as u8, path.index() as u8];
        let [a, b] = starts.map(|start| start.0.to_le_bytes());
        expand(&self.hkdf, &[b"heartbeat", &way, &a, &b])
    }
}

fn expand(hkdf: &SimpleHkdf<Blake2s256>, info: &[&[u8]]) -> [u8; KEY] {
    let mut key = [0; KEY];
    // One block of output: far less than the most, 255 blocks.
    assert!(hkdf.expand_multi_info(info, &mut key).is_ok());
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::format;

    #[test]
    fn every_use_has_a_key_of_its_own() {
        let mut seen = BTreeSet::new();
        let mut count = 0;
        for configured in [[1; 32], [2; 32]] {
            for (vm, generation) in [("one", 1), ("two", 1), ("one", 2), ("one", 257)] {
                let keys = Keys::new(&configured, vm, generation);
                seen.insert(keys.channel());
                count += 1;
                for from in [Side::A, Side::B] {
                    for path in Path::ALL {
                        for starts in [[1, 2], [2, 1], [1, 1]] {
                            seen.insert(keys.heartbeat(from, path, starts.map(Incarnation)));
                            count += 1;
                        }
                    }
                }
            }
        }
        assert_eq!(seen.len(), count);
    }

    #[test]
    fn the_same_gives_the_same_and_is_not_printed() {
        let keys = [(); 2].map(|()| Keys::new(&[7; 32], "vm", 3));
        assert_eq!(keys[0].channel(), keys[1].channel());
        assert_eq!(format!("{:?}", keys[0]), "Keys { generation: 3, .. }");
    }
}
