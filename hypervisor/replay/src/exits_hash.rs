//! The hash over an execution's synchronous exits: its reason, N and the registers at each, once it has been dealt with.

use crate::log::checksum;
use crate::point::{RFLAGS_RF, Registers};

/// Words that each half takes in at an exit.
const WORDS: usize = 10;

/// Two CRC-32C that run along with an execution. A processor has an instruction for it, so that each register costs one: a kernel folds
/// the registers in where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitsHash {
    /// The register of the CRC, not complemented, over N, RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI and RIP of each exit, 8 bytes each.
    pub low: u32,
    /// That over the basic reason, R8 to R15 and RFLAGS without RF.
    pub high: u32,
}

impl ExitsHash {
    /// Before the first exit.
    pub const BEGIN: Self = Self { low: u32::MAX, high: u32::MAX };

    /// The exit was dealt with: `reason` is its basic reason (SDM vol. 3C, appendix C), `n` and the registers are what it has come to.
    pub fn fold(&mut self, reason: u16, n: u64, registers: &Registers) {
        let (low, high) = registers.general.split_at(registers.general.len() / 2);
        self.low = go_on(self.low, n, low, registers.rip);
        self.high = go_on(self.high, reason.into(), high, registers.rflags & !RFLAGS_RF);
    }

    /// As it is written: the halves as a CRC ends, 0 before the first exit.
    #[must_use]
    pub const fn value(self) -> u64 {
        !(self.low as u64 | (self.high as u64) << 32)
    }

    /// A byte of it that depends on all of what was folded in.
    #[must_use]
    pub const fn byte(self) -> u8 {
        (self.low ^ self.high) as u8
    }
}

impl Default for ExitsHash {
    fn default() -> Self {
        Self::BEGIN
    }
}

/// The register of a CRC-32C after these words. One that begins anywhere is one that begins with ones, over bytes of which the first four
/// differ by as much.
fn go_on(crc: u32, first: u64, general: &[u64], last: u64) -> u32 {
    let mut bytes = [0; WORDS * 8];
    let (words, _) = bytes.as_chunks_mut::<8>();
    let first = first ^ u64::from(!crc);
    for (word, value) in words.iter_mut().zip([&first].into_iter().chain(general).chain([&last])) {
        *word = value.to_le_bytes();
    }
    !checksum::block(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// An exit: its reason, N, the registers.
    type Step = (u16, u64, Registers);

    fn registers() -> impl Strategy<Value = Registers> {
        (any::<[u64; 16]>(), any::<u64>(), any::<u64>()).prop_map(|(general, rip, rflags)| Registers {
            general,
            rip,
            rflags,
        })
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        prop::collection::vec((0_u16..80, any::<u64>(), registers()), 1..6)
    }

    fn hash(steps: &[Step]) -> ExitsHash {
        let mut hash = ExitsHash::BEGIN;
        steps.iter().for_each(|(reason, n, registers)| hash.fold(*reason, *n, registers));
        hash
    }

    proptest! {
        #[test]
        fn is_the_crc_over_everything(steps in steps()) {
            let (mut low, mut high) = (Vec::new(), Vec::new());
            for (reason, n, registers) in &steps {
                let (first, second) = registers.general.split_at(8);
                low.extend([*n].iter().chain(first).chain([&registers.rip]).flat_map(|word| word.to_le_bytes()));
                let words = [u64::from(*reason)];
                let rflags = registers.rflags & !RFLAGS_RF;
                high.extend(words.iter().chain(second).chain([&rflags]).flat_map(|word| word.to_le_bytes()));
            }
            let halves = [checksum::block_by_table(&low), checksum::block_by_table(&high)].map(u64::from);
            prop_assert_eq!(hash(&steps).value(), halves[0] | halves[1] << 32);
        }

        /// Up to 32 bits in a row never cancel in a CRC of 32 bits, and what follows alike takes no difference away.
        #[test]
        fn one_change_is_seen_ever_after(steps in steps(), which: prop::sample::Index, word in 0_usize..20, flip in 1_u32.., shift in 0_u32..33) {
            let flip = u64::from(flip) << shift;
            let mut other = steps.clone();
            let (reason, n, registers) = which.get_mut(&mut other);
            match word {
                16 => registers.rip ^= flip,
                17 => registers.rflags ^= flip & !RFLAGS_RF,
                18 => *reason ^= flip as u16,
                19 => *n ^= flip,
                general => registers.general[general] ^= flip,
            }
            prop_assume!(other != steps);
            prop_assert_ne!(hash(&steps), hash(&other));
            prop_assert_ne!(hash(&steps).value(), hash(&other).value());
        }

        #[test]
        fn exchanged_registers_are_seen(registers in registers(), a in 0_usize..16, b in 0_usize..16) {
            prop_assume!(registers.general[a] != registers.general[b]);
            let mut other = registers;
            other.general.swap(a, b);
            prop_assert_ne!(hash(&[(1, 1, registers)]), hash(&[(1, 1, other)]));
        }
    }

    #[test]
    fn begins_with_0_and_leaves_the_resume_flag_to_the_host() {
        assert_eq!(ExitsHash::BEGIN.value(), 0);
        let one = Registers { rflags: 2, ..Registers::NONE };
        let other = Registers { rflags: 2 | RFLAGS_RF, ..one };
        assert_eq!(hash(&[(10, 5, one)]), hash(&[(10, 5, other)]));
    }

    #[test]
    fn nothing_but_zeros_counts_as_well() {
        let zeros = (0, 0, Registers::NONE);
        let hashes = [&[][..], &[zeros], &[zeros; 2], &[zeros; 3]].map(hash);
        assert!((1..hashes.len()).all(|n| !hashes[..n].contains(&hashes[n])));
    }
}
