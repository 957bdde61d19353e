//! The course of an execution: its synchronous exits, numbered, and the hash over the state at each.
//!
//! Recorder and replayer keep one each; two executions are the same as far as they have been folded when their hashes are.

use crate::exits_hash::ExitsHash;
use crate::point::Registers;

/// How far an execution has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Course {
    exits: u64,
    hash: ExitsHash,
    /// As they were noted last.
    registers: Registers,
    /// The exit that they were noted at.
    noted: u64,
}

impl Course {
    /// An execution that has not begun.
    #[must_use]
    pub const fn new() -> Self {
        Self { exits: 0, hash: ExitsHash::BEGIN, registers: Registers::NONE, noted: 0 }
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
    pub const fn hash(&self) -> ExitsHash {
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
        // Nobody lives to see 2^64 of them, and a check for it would be in each.
        self.exits = self.exits.wrapping_add(1);
    }

    /// The exit was dealt with: `fold` takes what it has come to into the hash, by [`ExitsHash::fold`] or as that does.
    #[inline(always)]
    pub fn end_exit(&mut self, fold: impl FnOnce(&mut ExitsHash)) {
        fold(&mut self.hash);
    }

    /// Something comes in at this exit: `fill` writes the registers, which its check is to be made of. Most exits have nothing, and copying
    /// the registers takes longer than hashing them.
    #[inline]
    pub fn note(&mut self, fill: impl FnOnce(&mut Registers)) {
        fill(&mut self.registers);
        self.noted = self.exits;
    }
}
