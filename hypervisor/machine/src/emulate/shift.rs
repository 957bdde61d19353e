//! Shifts and rotates with the status flags. OF is defined for a count of 1, CF of shifts for counts up to the width;
//! beyond that they are as Intel's processors have been seen to set them. AF, undefined for shifts, is cleared.

use super::alu::{CF, OF, Result, STATUS, flag, sign_zero_parity, top};
use super::memory::mask;

/// What shifts and rotates do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shift {
    Rol,
    Ror,
    Rcl,
    Rcr,
    Shl,
    Shr,
    Sar,
}

/// The part of a count that is used.
const fn masked(count: u64, size: u8) -> u32 {
    (count & if size == 8 { 0x3f } else { 0x1f }) as u32
}

/// Shifts or rotates; `flags` are the flags before.
pub const fn shift(kind: Shift, value: u64, count: u64, flags: u64, size: u8) -> Result {
    let count = masked(count, size);
    if count == 0 {
        return Result { value, flags: flags & STATUS };
    }
    match kind {
        Shift::Rol | Shift::Ror => rotate(kind, value, count, flags, size),
        Shift::Rcl | Shift::Rcr => rotate_through_carry(kind, value, count, flags, size),
        Shift::Shl => left(value, count, size),
        Shift::Shr => right(value, count, size),
        Shift::Sar => arithmetic_right(value, count, size),
    }
}

/// The two highest bits differ.
const fn top_two_differ(value: u64, size: u8) -> bool {
    top(value, size) != top(value << 1, size)
}

const fn rotate(kind: Shift, value: u64, count: u32, flags: u64, size: u8) -> Result {
    let bits = 8 * size as u32;
    let left = match kind {
        Shift::Rol => count % bits,
        _ => (bits - count % bits) % bits,
    };
    let rotated = if left == 0 { value } else { (value << left | value >> (bits - left)) & mask(size) };
    let (carry, overflow) = match kind {
        Shift::Rol => (rotated & 1 != 0, top(rotated, size) != (rotated & 1 != 0)),
        _ => (top(rotated, size), top_two_differ(rotated, size)),
    };
    let flags = flags & STATUS & !(CF | OF) | flag(CF, carry) | flag(OF, overflow);
    Result { value: rotated, flags }
}

const fn rotate_through_carry(kind: Shift, value: u64, count: u32, flags: u64, size: u8) -> Result {
    let bits = 8 * size as u32;
    let count = count % (bits + 1);
    if count == 0 {
        return Result { value, flags: flags & STATUS };
    }
    // The carry is bit `bits` of a ring one bit longer.
    let ring = value as u128 | ((flags & CF) as u128) << bits;
    let left = if matches!(kind, Shift::Rcl) { count } else { bits + 1 - count };
    let turned = ring << left | ring >> (bits + 1 - left);
    let rotated = turned as u64 & mask(size);
    let carry = turned >> bits & 1 != 0;
    let overflow = match kind {
        Shift::Rcl => top(rotated, size) != carry,
        _ => top_two_differ(rotated, size),
    };
    let flags = flags & STATUS & !(CF | OF) | flag(CF, carry) | flag(OF, overflow);
    Result { value: rotated, flags }
}

const fn left(value: u64, count: u32, size: u8) -> Result {
    let wide = (value as u128) << count;
    let result = wide as u64 & mask(size);
    let carry = wide >> (8 * size as u32) & 1 != 0;
    let overflow = top(result, size) != carry;
    Result { value: result, flags: sign_zero_parity(result, size) | flag(CF, carry) | flag(OF, overflow) }
}

const fn right(value: u64, count: u32, size: u8) -> Result {
    let result = value >> count;
    let carry = value >> (count - 1) & 1 != 0;
    let overflow = top_two_differ(result, size);
    Result { value: result, flags: sign_zero_parity(result, size) | flag(CF, carry) | flag(OF, overflow) }
}

const fn arithmetic_right(value: u64, count: u32, size: u8) -> Result {
    let value = super::alu::signed(value, size);
    let result = (value >> count) as u64 & mask(size);
    let carry = value >> (count - 1) & 1 != 0;
    Result { value: result, flags: sign_zero_parity(result, size) | flag(CF, carry) }
}

/// SHLD, SHRD. With 16 bits and a count beyond, where everything is undefined, the destination follows again, as from the
/// P6 on.
pub const fn double(to_left: bool, value: u64, from: u64, count: u64, flags: u64, size: u8) -> Result {
    let (count, bits) = (masked(count, size), 8 * size as u32);
    if count == 0 {
        return Result { value, flags: flags & STATUS };
    }
    let (result, carry) = match (to_left, size) {
        (true, 8) => (value << count | from >> (64 - count), value >> (64 - count)),
        (false, 8) => (value >> count | from << (64 - count), value >> (count - 1)),
        (_, _) => {
            let line = (value as u128) << (2 * bits) | (from as u128) << bits | value as u128;
            match to_left {
                true => ((line >> (2 * bits - count)) as u64, (line >> (3 * bits - count)) as u64),
                false => ((line >> count) as u64, (line >> (count - 1)) as u64),
            }
        }
    };
    let (result, carry) = (result & mask(size), carry & 1 != 0);
    let overflow = if to_left { top(result, size) != carry } else { top_two_differ(result, size) };
    Result { value: result, flags: sign_zero_parity(result, size) | flag(CF, carry) | flag(OF, overflow) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulate::alu::{AF, PF, SF, ZF};

    /// Bit by bit, as the SDM's pseudo-code has it (vol. 2B, "RCL/RCR/ROL/ROR", "SAL/SAR/SHL/SHR"). The result, CF, OF.
    fn bitwise(kind: Shift, mut value: u8, count: u32, mut carry: bool) -> (u8, bool, bool) {
        for _ in 0..count {
            let (high, low) = (value & 0x80 != 0, value & 1 != 0);
            (value, carry) = match kind {
                Shift::Rol => (value << 1 | u8::from(high), high),
                Shift::Ror => (value >> 1 | u8::from(low) << 7, low),
                Shift::Rcl => (value << 1 | u8::from(carry), high),
                Shift::Rcr => (value >> 1 | u8::from(carry) << 7, low),
                Shift::Shl => (value << 1, high),
                Shift::Shr => (value >> 1, low),
                Shift::Sar => (value >> 1 | value & 0x80, low),
            };
        }
        // OF by the formulas for a count of 1; Intel's processors use them for every count.
        let (high, second) = (value & 0x80 != 0, value & 0x40 != 0);
        let overflow = match kind {
            Shift::Rol | Shift::Rcl | Shift::Shl => high != carry,
            Shift::Sar => false,
            _ => high != second,
        };
        (value, carry, overflow)
    }

    #[test]
    fn eight_bits_are_shifted_as_bit_by_bit() {
        let kinds = [Shift::Rol, Shift::Ror, Shift::Rcl, Shift::Rcr, Shift::Shl, Shift::Shr, Shift::Sar];
        for kind in kinds {
            for (value, count, before) in
                (0..=255_u8).flat_map(|v| (0..=64_u64).flat_map(move |c| [0, STATUS].map(|f| (v, c, f))))
            {
                let result = shift(kind, value.into(), count, before, 1);
                let used = masked(count, 1);
                let rings = matches!(kind, Shift::Rcl | Shift::Rcr) && used.is_multiple_of(9);
                let (expected, carry, overflow) = bitwise(kind, value, used, before & CF != 0);
                assert_eq!(result.value, expected.into(), "{kind:?} {value:#x} {count}");
                let rotates = matches!(kind, Shift::Rol | Shift::Ror | Shift::Rcl | Shift::Rcr);
                let kept =
                    if rotates { before & (SF | ZF | AF | PF) } else { sign_zero_parity(result.value, 1) };
                let flags = match used {
                    0 => before,
                    _ if rings => before,
                    _ => kept | flag(CF, carry) | flag(OF, overflow),
                };
                assert_eq!(result.flags, flags, "{kind:?} {value:#x} {count} {before:#x}");
            }
        }
    }

    #[test]
    fn a_double_shift_beyond_sixteen_bits_repeats_the_destination() {
        assert_eq!(double(true, 0x1234, 0xabcd, 20, 0, 2).value, 0xbcd1);
        assert_eq!(double(false, 0x1234, 0xabcd, 20, 0, 2).value, 0x4abc);
        assert_eq!(double(true, 0x1234, 0xabcd, 4, 0, 2).value, 0x234a);
        assert_eq!(double(false, 0x1234, 0xabcd, 4, 0, 2).value, 0xd123);
        assert_eq!(double(true, 1 << 63, 0, 1, 0, 8).flags & (CF | OF), CF | OF);
    }
}
