//! The memory-type range registers (SDM vol. 3A, "Memory Type Range Registers"). The guest's memory is write-back whatever
//! they say; they hold what is written, and refuse what a processor would.

use serde::{Deserialize, Serialize};

/// Variable ranges.
pub const VARIABLE: usize = 8;
/// Registers of fixed ranges.
const FIXED: usize = 11;

/// IA32_MTRRCAP: eight variable ranges, fixed ranges, write-combining; no SMRR.
pub const CAPABILITIES: u64 = 1 << 10 | 1 << 8 | VARIABLE as u64;

const CAP: u32 = 0xfe;
const DEFAULT: u32 = 0x2ff;
/// IA32_MTRR_PHYSBASE0; the others follow, base and mask in turn.
const FIRST_VARIABLE: u32 = 0x200;
const LAST_VARIABLE: u32 = FIRST_VARIABLE + 2 * VARIABLE as u32 - 1;

const UNCACHEABLE: u64 = 0;
const WRITE_BACK: u64 = 6;
/// IA32_MTRR_DEF_TYPE: fixed ranges on, all on.
const FIXED_ENABLE: u64 = 1 << 10;
const ENABLE: u64 = 1 << 11;
/// A mask is in use.
const VALID: u64 = 1 << 11;

/// The registers.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Mtrrs {
    default: u64,
    fixed: [u64; FIXED],
    variable: [[u64; 2]; VARIABLE],
}

const fn is_type(value: u64) -> bool {
    matches!(value, 0 | 1 | 4 | 5 | 6)
}

fn are_types(value: u64) -> bool {
    value.to_le_bytes().into_iter().all(|byte| is_type(byte.into()))
}

const fn fixed_index(number: u32) -> Option<usize> {
    match number {
        0x250 => Some(0),
        0x258 | 0x259 => Some(number as usize - 0x257),
        0x268..=0x26f => Some(number as usize - 0x265),
        _ => None,
    }
}

/// A value fits into a variable range's register: base if `which` is 0, mask if 1.
const fn fits_variable(which: usize, value: u64, physical_bits: u8) -> bool {
    let address = ((1 << physical_bits) - 1) & !0xfff;
    match which {
        0 => value & !(address | 0xff) == 0 && is_type(value & 0xff),
        _ => value & !(address | VALID) == 0,
    }
}

const fn fits_default(value: u64) -> bool {
    value & !(0xff | FIXED_ENABLE | ENABLE) == 0 && is_type(value & 0xff)
}

impl Mtrrs {
    /// As firmware leaves them: everything write-back but the hole for devices below 4 GiB, which begins at `hole`, a
    /// power of two below that from 2 GiB on, and the range of the video memory and ROMs.
    pub fn after_firmware(hole: u64, physical_bits: u8) -> Self {
        const VIDEO: u64 = UNCACHEABLE;
        const ALL_WRITE_BACK: u64 = 0x0606_0606_0606_0606;
        let mut fixed = [ALL_WRITE_BACK; FIXED];
        // A0000h-BFFFFh.
        fixed[2] = VIDEO;
        let mut this =
            Self { default: ENABLE | FIXED_ENABLE | WRITE_BACK, fixed, variable: [[0; 2]; VARIABLE] };
        // Pieces of a power of two, each at a multiple of its size, up to 4 GiB.
        let (mut at, address) = (hole, (1u64 << physical_bits) - 1);
        for range in &mut this.variable {
            if at == 0 || at >= 1 << 32 {
                break;
            }
            let size = 1 << at.trailing_zeros();
            *range = [at | UNCACHEABLE, address & !(size - 1) | VALID];
            at += size;
        }
        this
    }

    /// RDMSR; None: not one of these.
    pub fn read(&self, number: u32) -> Option<u64> {
        match number {
            CAP => Some(CAPABILITIES),
            DEFAULT => Some(self.default),
            FIRST_VARIABLE..=LAST_VARIABLE => {
                let at = (number - FIRST_VARIABLE) as usize;
                Some(self.variable[at / 2][at % 2])
            }
            _ => fixed_index(number).map(|i| self.fixed[i]),
        }
    }

    /// WRMSR; None: #GP, be it that there is no such register or that it does not take the value.
    pub fn write(&mut self, number: u32, value: u64, physical_bits: u8) -> Option<()> {
        let (place, fits) = match number {
            DEFAULT => (&mut self.default, fits_default(value)),
            FIRST_VARIABLE..=LAST_VARIABLE => {
                let at = (number - FIRST_VARIABLE) as usize;
                (&mut self.variable[at / 2][at % 2], fits_variable(at % 2, value, physical_bits))
            }
            _ => (&mut self.fixed[fixed_index(number)?], are_types(value)),
        };
        if fits {
            *place = value;
        }
        fits.then_some(())
    }

    /// Every register holds a value that could have been written.
    pub fn is_valid(&self, physical_bits: u8) -> bool {
        fits_default(self.default)
            && self.fixed.into_iter().all(are_types)
            && self.variable.iter().all(|[base, mask]| {
                fits_variable(0, *base, physical_bits) && fits_variable(1, *mask, physical_bits)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BITS: u8 = 39;

    #[test]
    fn registers_hold_what_a_processor_takes() {
        let mut mtrrs = Mtrrs::default();
        for (number, good, bad) in [
            (DEFAULT, 0xc06, 0xc02),
            (DEFAULT, 0x806, 0x1006),
            (0x200, 0xe000_0000, 0xe000_0002),
            (0x200, 0xe000_0006, 0xe000_0106),
            (0x201, 0x7f_e000_0800, 0xff_e000_0800),
            (0x20f, 0, 1),
            (0x250, 0x0606_0606_0606_0606, 0x0606_0603_0606_0606),
            (0x259, 0, 7),
            (0x26f, 0x0505_0505_0505_0505, u64::MAX),
        ] {
            assert_eq!(mtrrs.write(number, good, BITS), Some(()), "{number:#x}");
            assert_eq!(mtrrs.write(number, bad, BITS), None, "{number:#x}");
            assert_eq!(mtrrs.read(number), Some(good), "{number:#x} keeps its value");
        }
        assert_eq!(mtrrs.read(CAP), Some(0x508));
        assert_eq!(mtrrs.write(CAP, 0x508, BITS), None, "read-only");
        for nobody in [0x210, 0x24f, 0x251, 0x25a, 0x267, 0x270] {
            assert_eq!((mtrrs.read(nobody), mtrrs.write(nobody, 0, BITS)), (None, None), "{nobody:#x}");
        }
    }

    #[test]
    fn fixed_registers_are_told_apart() {
        let mut mtrrs = Mtrrs::default();
        let numbers = [0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f];
        for (i, number) in numbers.into_iter().enumerate() {
            mtrrs
                .write(number, [0, 1, 4, 5, 6, 0x101, 0x404, 0x505, 0x606, 0x10101, 0x40404][i], BITS)
                .unwrap();
        }
        for (i, number) in numbers.into_iter().enumerate() {
            let wanted = [0, 1, 4, 5, 6, 0x101, 0x404, 0x505, 0x606, 0x10101, 0x40404][i];
            assert_eq!(mtrrs.read(number), Some(wanted));
        }
    }

    /// The memory type that the variable ranges give an address; write-back where none is uncacheable.
    fn uncacheable(mtrrs: &Mtrrs, address: u64) -> bool {
        mtrrs.variable.iter().any(|[base, mask]| {
            mask & VALID != 0 && base & 0xff == 0 && (address ^ base) & mask & !0xfff == 0
        })
    }

    #[test]
    fn firmware_leaves_the_hole_uncacheable_and_all_else_write_back() {
        for hole in [0x8000_0000, 0xc000_0000, 0xe000_0000, 0xfe00_0000] {
            let mtrrs = Mtrrs::after_firmware(hole, BITS);
            assert!(mtrrs.is_valid(BITS));
            for address in [0, 1 << 20, hole - 1, 1 << 32, 3 << 32, 1 << 38] {
                assert!(!uncacheable(&mtrrs, address), "{address:#x} with the hole at {hole:#x}");
            }
            for address in [hole, hole + 0x100_0000, 0xfee0_0000, 0xffff_ffff] {
                assert!(uncacheable(&mtrrs, address), "{address:#x} with the hole at {hole:#x}");
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_leaves_a_valid_state(
            writes in proptest::collection::vec((0x1f0..0x310u32, any::<u64>(), 0..64u32), 0..40),
        ) {
            let mut mtrrs = Mtrrs::default();
            for (number, value, shift) in writes {
                let _ = mtrrs.write(number, value >> shift, BITS);
                prop_assert!(mtrrs.is_valid(BITS));
            }
        }
    }
}
