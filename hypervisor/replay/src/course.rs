//! The course of an execution: its synchronous exits, numbered, and the hash over the state at each.
//!
//! Recorder and replayer keep one each; two executions are the same as far as they have been folded when their hashes are.

use crate::point::{Registers, RegistersHash};

/// Where an exit's reason stands in the word that it shares with N.
const REASON_SHIFT: u32 = 48;

/// How far an execution has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Course {
    exits: u64,
    hash: u64,
    /// As they were noted last.
    registers: Registers,
    /// The exit that they were noted at.
    noted: u64,
}

impl Course {
    /// An execution that has not begun.
    #[must_use]
    pub const fn new() -> Self {
        Self { exits: 0, hash: 0, registers: Registers::NONE, noted: 0 }
    }

    /// The synchronous exit that the guest is at, or was at last; 0 before the first.
    #[inline]
    #[must_use]
    pub const fn exits(&self) -> u64 {
        self.exits
    }

    /// The hash over the synchronous exits that were dealt with.
    #[inline]
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// The registers as they are at this exit: [`note`](Self::note) has to come before.
    #[inline]
    #[must_use]
    pub fn registers(&self) -> &Registers {
        debug_assert_eq!(self.noted, self.exits, "the registers are another exit's");
        &self.registers
    }

    /// The guest is at its next synchronous exit, which is yet to be dealt with.
    #[inline]
    pub const fn begin_exit(&mut self) {
        self.exits += 1;
    }

    /// The exit was dealt with: `reason` is its basic reason, `n` and the registers are what it has come to.
    #[inline(always)]
    pub fn end_exit(&mut self, reason: u16, n: u64, registers: RegistersHash) {
        let words = [u64::from(reason) << REASON_SHIFT ^ n, registers.0];
        self.hash = words.into_iter().fold(self.hash, fold);
    }

    /// Something comes in at this exit: `fill` writes the registers, which its check is to be made of. Most exits have nothing, and copying
    /// the registers takes longer than hashing them.
    #[inline]
    pub fn note(&mut self, fill: impl FnOnce(&mut Registers)) {
        fill(&mut self.registers);
        self.noted = self.exits;
    }
}

/// Multiply and fold, so that no word's value cancels another's.
#[inline]
const fn fold(hash: u64, word: u64) -> u64 {
    let wide = (hash ^ word) as u128 * 0x9E37_79B9_7F4A_7C15_u128;
    ((wide as u64) ^ ((wide >> 64) as u64)).rotate_left(23).wrapping_add(word)
}
