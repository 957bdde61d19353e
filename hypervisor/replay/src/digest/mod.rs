//! Digests of the virtual machine's whole state, which can be compared, and which name what differs.
//!
//! A [`Digest`] has every register's value, a hash of each device, and sums over memory from which a page and a word that
//! differ can be [found](locate) though only the sums were recorded. [`packed`] is how a digest travels in the log: as the
//! difference to the one before.

pub mod findings;
pub mod fpu;
pub mod hash;
pub mod locate;
pub mod memory;
pub mod packed;
pub mod parts;
pub mod registers;

pub use findings::{Finding, Findings};
pub use memory::{Memory, PageSum, Shape};
pub use parts::Part;
pub use registers::Register;

use memory::{BUCKETS, Sum};

/// The whole state at one place of an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    /// The registers' values, by [`Register`].
    pub registers: [u64; Register::COUNT],
    /// Hashes, by [`Part`].
    pub parts: [u64; Part::COUNT],
    /// Sums over memory.
    pub memory: [Sum; BUCKETS],
}

impl Digest {
    /// The digest that the first one is packed against.
    pub const NONE: Self =
        Self { registers: [0; Register::COUNT], parts: [0; Part::COUNT], memory: [Sum::ZERO; BUCKETS] };

    /// A register's value.
    #[must_use]
    pub const fn register(&self, register: Register) -> u64 {
        self.registers[register as usize]
    }

    /// Sets a register's value.
    pub const fn set(&mut self, register: Register, value: u64) {
        self.registers[register as usize] = value;
    }

    /// Sets the hash of a part.
    pub const fn set_part(&mut self, part: Part, hash: u64) {
        self.parts[part as usize] = hash;
    }

    /// A hash over everything.
    #[must_use]
    pub fn total(&self) -> u64 {
        let mut hash = hash::Hash::new();
        for word in self.registers.iter().chain(&self.parts) {
            hash.word(*word);
        }
        for half in self.memory.iter().flat_map(|sum| [sum.plain, sum.weighted]) {
            hash.word(half as u64);
            hash.word((half >> 64) as u64);
        }
        hash.finish()
    }

    /// What this execution's digest has otherwise than the recorded one, as far as the two tell: which page it is
    /// [`locate::pages`] tells.
    #[must_use]
    pub fn compare(recorded: &Self, found: &Self) -> Findings {
        let mut findings = Findings::new();
        for register in Register::ALL {
            let (recorded, found) = (recorded.register(register), found.register(register));
            if recorded != found {
                findings.add(Finding::Register { register, recorded, found });
            }
        }
        for part in Part::ALL {
            if recorded.parts[part as usize] != found.parts[part as usize] {
                findings.add(Finding::Part(part));
            }
        }
        findings
    }
}

#[cfg(test)]
mod tests;
