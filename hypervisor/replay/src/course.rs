//! The course of an execution: its synchronous exits, numbered, and the hash over the state at each.
//!
//! Recorder and replayer keep one each; two executions are the same as far as they have been folded when their hashes are.

use crate::point::Registers;

/// How far an execution has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Course {
    exits: u64,
    hash: u64,
    /// As they were when the last one was dealt with.
    registers: Registers,
}

impl Course {
    /// An execution that has not begun.
    #[must_use]
    pub const fn new() -> Self {
        Self { exits: 0, hash: 0, registers: Registers::NONE }
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

    /// The registers as they were when the last one was dealt with.
    #[inline]
    #[must_use]
    pub const fn registers(&self) -> &Registers {
        &self.registers
    }

    /// The guest is at its next synchronous exit, which is yet to be dealt with.
    #[inline]
    pub const fn begin_exit(&mut self) {
        self.exits += 1;
    }

    /// The exit was dealt with: `reason` is its basic reason, `n` and the registers, which `fill` writes, are what it has come to.
    #[inline(always)]
    pub fn end_exit(&mut self, reason: u16, n: u64, fill: impl FnOnce(&mut Registers)) {
        // In their place: copying them would take as long as hashing them.
        fill(&mut self.registers);
        let words = [u64::from(reason), n, self.registers.hash().0];
        self.hash = words.into_iter().fold(self.hash, fold);
    }
}

/// Multiply and fold, so that no word's value cancels another's.
#[inline]
const fn fold(hash: u64, word: u64) -> u64 {
    let wide = (hash ^ word) as u128 * 0x9E37_79B9_7F4A_7C15_u128;
    ((wide as u64) ^ ((wide >> 64) as u64)).rotate_left(23).wrapping_add(word)
}
