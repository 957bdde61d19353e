//! What an entry says of the execution before it, in three bytes: whether it was another one, and if a single register is wrong,
//! which.
//!
//! Two of the bytes are sums over the registers in the field of 256 elements, as RAID-6 makes them over disks (H. P. Anvin,
//! *The mathematics of RAID-6*): the plain sum of what the registers fold to, and one in which register number i counts 2^i
//! times. If one register is wrong, the quotient of the two differences is 2^i.

use core::fmt;

use crate::course::Course;
use crate::digest::Register;
use crate::point::{RFLAGS_RF, Registers};

/// Registers that the sums are over: the general ones, RIP, RFLAGS without RF.
const COUNT: usize = 18;

/// What the field's elements are reduced by: x^8 + x^4 + x^3 + x^2 + 1, of which 2 is a generator.
const POLYNOMIAL: u8 = 0x1D;

/// The check of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// A byte of the hash over all synchronous exits so far.
    pub hash: u8,
    /// The sums over the registers as they are where the entry is.
    pub sums: [u8; 2],
}

impl Check {
    /// Bytes in a log.
    pub const BYTES: usize = 3;

    /// The check of an execution that has come so far, where the registers were noted.
    #[must_use]
    pub fn of(course: &Course) -> Self {
        Self::between(course, course.registers())
    }

    /// The check of an execution that has come so far, and on to where the registers are these.
    #[must_use]
    pub fn between(course: &Course, registers: &Registers) -> Self {
        Self { hash: course.hash().byte(), sums: sums(registers) }
    }

    /// As it is written.
    #[must_use]
    pub const fn bytes(self) -> [u8; Self::BYTES] {
        [self.hash, self.sums[0], self.sums[1]]
    }

    /// As it is read.
    #[must_use]
    pub const fn from_bytes([hash, plain, weighted]: [u8; Self::BYTES]) -> Self {
        Self { hash, sums: [plain, weighted] }
    }

    /// What an execution with these registers has otherwise than the recorded one, as far as the sums tell.
    #[must_use]
    pub fn suspect(self, recorded: Self, own: &Registers) -> Suspect {
        let [plain, weighted] = [self.sums[0] ^ recorded.sums[0], self.sums[1] ^ recorded.sums[1]];
        if plain == 0 && weighted == 0 {
            return Suspect::None;
        }
        let mut times = plain;
        for (index, value) in words(own).enumerate() {
            if times == weighted && plain != 0 {
                return Suspect::Register { register: register(index), own: value };
            }
            times = double(times);
        }
        Suspect::Several
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [hash, plain, weighted] = self.bytes();
        write!(f, "{hash:02x}.{plain:02x}{weighted:02x}")
    }
}

/// Which registers differ from the recorded ones at a synchronous exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspect {
    /// None, as far as is known: what differs lies before.
    None,
    /// This one, if it is only one.
    Register {
        /// Which.
        register: Register,
        /// Its value in this execution.
        own: u64,
    },
    /// More than one.
    Several,
}

impl fmt::Display for Suspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("the registers there are as recorded, so it is older, or N differs"),
            Self::Register { register, own } => {
                write!(f, "register {register} there is another than recorded, here {own:#x}")
            }
            Self::Several => f.write_str("several registers there are others than recorded"),
        }
    }
}

/// The sums over the registers. All eight bytes of a register at once: what they fold to is doubled and added as they are.
fn sums(registers: &Registers) -> [u8; 2] {
    // By Horner's rule, the last register first.
    let add = |[plain, weighted]: [u64; 2], value: u64| [plain ^ value, double_each(weighted) ^ value];
    let sums = add(add([0; 2], registers.rflags & !RFLAGS_RF), registers.rip);
    registers.general.iter().rev().fold(sums, |sums, value| add(sums, *value)).map(fold)
}

/// The sum of eight elements.
const fn fold(word: u64) -> u8 {
    let word = word ^ (word >> 32);
    let word = word ^ (word >> 16);
    (word ^ (word >> 8)) as u8
}

/// Eight elements, twice each.
const fn double_each(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let over = (word >> 7) & ONES;
    ((word & (0x7F * ONES)) << 1) ^ (over * POLYNOMIAL as u64)
}

fn words(registers: &Registers) -> impl DoubleEndedIterator<Item = u64> + ExactSizeIterator {
    let [general, rip, rflags] = [0, 16, 17];
    let value = move |index: usize| match index {
        _ if index == rip => registers.rip,
        _ if index == rflags => registers.rflags & !RFLAGS_RF,
        _ => registers.general[(index - general) & 15],
    };
    (0..COUNT).map(value)
}

fn register(index: usize) -> Register {
    match index {
        16 => Register::Rip,
        17 => Register::Rflags,
        general => Register::general(general),
    }
}

const fn double(element: u8) -> u8 {
    (element << 1) ^ if element & 0x80 == 0 { 0 } else { POLYNOMIAL }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(registers: Registers) -> Check {
        let mut course = Course::new();
        course.begin_exit();
        course.end_exit(|hash| hash.fold(10, 100, &registers));
        course.note(|to| *to = registers);
        Check::of(&course)
    }

    fn change(registers: &mut Registers, which: usize, flip: u64) {
        match which {
            16 => registers.rip ^= flip,
            17 => registers.rflags ^= flip,
            _ => registers.general[which] ^= flip,
        }
    }

    /// The sums as they are defined: register by register, byte by byte.
    fn one_by_one(registers: &Registers) -> [u8; 2] {
        words(registers).rev().fold([0, 0], |[plain, weighted], value| {
            let folded = value.to_le_bytes().into_iter().fold(0, |sum, byte| sum ^ byte);
            [plain ^ folded, double(weighted) ^ folded]
        })
    }

    proptest! {
        #[test]
        fn sums_are_as_defined(general: [u64; 16], rip: u64, rflags: u64) {
            let registers = Registers { general, rip, rflags };
            prop_assert_eq!(sums(&registers), one_by_one(&registers));
        }

        #[test]
        fn one_flipped_bit_is_named(general: [u64; 16], rip: u64, rflags: u64, which in 0..COUNT, bit in 0_u32..64) {
            prop_assume!(which != 17 || bit != 16);
            let recorded = Registers { general, rip, rflags };
            let mut own = recorded;
            change(&mut own, which, 1 << bit);
            let suspect = at(own).suspect(at(recorded), &own);
            let value = words(&own).nth(which).unwrap();
            prop_assert_eq!(suspect, Suspect::Register { register: register(which), own: value });
        }

        #[test]
        fn any_other_value_is_named_or_not_seen(general: [u64; 16], which in 0_usize..16, flip in 1_u64..) {
            let recorded = Registers { general, rip: 0, rflags: 2 };
            let mut own = recorded;
            change(&mut own, which, flip);
            let folds_away = flip.to_le_bytes().into_iter().fold(0, |sum, byte| sum ^ byte) == 0;
            match at(own).suspect(at(recorded), &own) {
                Suspect::Register { register: named, .. } => prop_assert_eq!(named, register(which)),
                Suspect::None => prop_assert!(folds_away),
                Suspect::Several => prop_assert!(false),
            }
        }
    }

    #[test]
    fn two_flipped_registers_are_no_single_one() {
        let recorded = Registers { rflags: 2, ..Registers::default() };
        let mut own = recorded;
        change(&mut own, 3, 1 << 5);
        change(&mut own, 9, 1 << 5);
        assert_eq!(at(own).suspect(at(recorded), &own), Suspect::Several);
        assert_eq!(at(own).suspect(at(own), &own), Suspect::None);
    }

    #[test]
    fn resume_flag_is_the_hosts_business() {
        let one = Registers { rflags: 2, ..Registers::default() };
        let other = Registers { rflags: 2 | RFLAGS_RF, ..one };
        assert_eq!(at(one), at(other));
    }
}
