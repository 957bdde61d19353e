//! Execution points: how a place in a guest's execution is named.

use crate::log::checksum;
use core::fmt;

/// RFLAGS.RF. It is left out of the hash: a VM exit for an EPT violation saves it as 1 whatever it was
/// (SDM 3C, 29.3.3), so it is the host's business, and an injection always starts from RF = 0.
pub const RFLAGS_RF: u64 = 1 << 16;

/// An execution point: `n` instructions retired by the guest, then `rip`, then, inside a REP, `rcx`.
///
/// `n` is what the counter says plus one for each instruction that exited and was emulated. A REP retires once,
/// at its end, so `rcx` tells its iterations apart; elsewhere it is a check. An event's delivery retires nothing,
/// so `rip` tells the interrupted instruction from the handler's first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Point {
    /// Instructions retired since the count began.
    pub n: u64,
    /// Guest RIP.
    pub rip: u64,
    /// Guest RCX.
    pub rcx: u64,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}, {:#x}, {:#x})", self.n, self.rip, self.rcx)
    }
}

/// The fallback key where N fails the proof: conditional branches retired, RIP, and the whole register file,
/// since one (C, RIP) can occur many times in code without conditional branches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BranchPoint {
    /// Conditional branches retired since the count began, taken and not taken.
    pub c: u64,
    /// Guest RIP.
    pub rip: u64,
    /// Hash of the general registers, RIP and RFLAGS.
    pub registers: RegistersHash,
}

/// A hash over a [`Registers`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RegistersHash(pub u64);

/// The guest's integer registers, as far as they name a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8..R15 (the order of the instruction encoding).
    pub general: [u64; 16],
    /// RIP.
    pub rip: u64,
    /// RFLAGS; RF is ignored.
    pub rflags: u64,
}

impl Registers {
    /// All 0.
    pub const NONE: Self = Self { general: [0; 16], rip: 0, rflags: 0 };

    /// RCX.
    #[must_use]
    pub const fn rcx(&self) -> u64 {
        self.general[1]
    }

    /// The hash: CRC-32C over RAX to RDI and RIP, and in the upper half over R8 to R15 and RFLAGS, each as 8 bytes.
    #[must_use]
    pub fn hash(&self) -> RegistersHash {
        let half = |registers: &[u64], last: u64| {
            let mut bytes = [0; HALF];
            let (words, _) = bytes.as_chunks_mut::<8>();
            for (word, register) in words.iter_mut().zip(registers.iter().chain([&last])) {
                *word = register.to_le_bytes();
            }
            u64::from(checksum::block(&bytes))
        };
        let (low, high) = self.general.split_at(self.general.len() / 2);
        RegistersHash(half(low, self.rip) | half(high, self.rflags & !RFLAGS_RF) << 32)
    }
}

/// Bytes of nine registers.
const HALF: usize = 9 * 8;

#[cfg(test)]
mod tests {
    use super::{RFLAGS_RF, Registers};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn one_changed_register_changes_the_hash(general: [u64; 16], which in 0_usize..16, flip in 1_u64..) {
            let one = Registers { general, rip: 0x1000, rflags: 2 };
            let mut other = one;
            other.general[which] ^= flip;
            prop_assert_ne!(one.hash(), other.hash());
        }

        #[test]
        fn exchanged_registers_change_the_hash(general: [u64; 16], a in 0_usize..16, b in 0_usize..16) {
            prop_assume!(general[a] != general[b]);
            let one = Registers { general, rip: 0, rflags: 2 };
            let mut other = one;
            other.general.swap(a, b);
            prop_assert_ne!(one.hash(), other.hash());
        }
    }

    #[test]
    fn resume_flag_is_the_hosts_business() {
        let one = Registers { rflags: 2, ..Registers::default() };
        let other = Registers { rflags: 2 | RFLAGS_RF, ..one };
        assert_eq!(one.hash(), other.hash());
        assert_ne!(one.hash(), Registers { rflags: 3, ..one }.hash());
    }
}
