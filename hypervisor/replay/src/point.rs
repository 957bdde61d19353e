//! Execution points: how a place in a guest's execution is named.

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

    /// The hash: the sum over pairs of registers of their products, folded, each register with a number of its own, so that no
    /// value cancels another's (after NH: J. Black and others, *UMAC: Fast and Secure Message Authentication*).
    #[inline]
    #[must_use]
    pub fn hash(&self) -> RegistersHash {
        let pair = |sum: u64, index: usize, one: u64, other: u64| {
            let product = u128::from(one ^ MASKS[index]) * u128::from(other ^ MASKS[index + 1]);
            sum.wrapping_add((product as u64) ^ ((product >> 64) as u64))
        };
        let (pairs, _) = self.general.as_chunks::<2>();
        let general = (0..).step_by(2).zip(pairs);
        let sum = general.fold(0, |sum, (index, [one, other])| pair(sum, index, *one, *other));
        RegistersHash(pair(sum, 16, self.rip, self.rflags & !RFLAGS_RF))
    }
}

/// A number for each register of the hash: digits of pi's fraction in base 16, no secret and no register's usual value.
const MASKS: [u64; 18] = [
    0x243F_6A88_85A3_08D3,
    0x1319_8A2E_0370_7344,
    0xA409_3822_299F_31D0,
    0x082E_FA98_EC4E_6C89,
    0x4528_21E6_38D0_1377,
    0xBE54_66CF_34E9_0C6C,
    0xC0AC_29B7_C97C_50DD,
    0x3F84_D5B5_B547_0917,
    0x9216_D5D9_8979_FB1B,
    0xD131_0BA6_98DF_B5AC,
    0x2FFD_72DB_D01A_DFB7,
    0xB8E1_AFED_6A26_7E96,
    0xBA7C_9045_F12C_7F99,
    0x24A1_9947_B391_6CF7,
    0x0801_F2E2_858E_FC16,
    0x6369_20D8_7157_4E69,
    0xA458_FEA3_F493_3D7E,
    0x0D95_748F_728E_B658,
];

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
