//! Shifts and rotates with the status flags. OF is defined for a count of 1, CF of shifts for counts up to the width;
//! beyond that they are as Intel's processors have been seen to set them. AF, undefined for shifts, is cleared.

use super::alu::{AF, CF, OF, Result, STATUS, flag, sign_zero_parity, top};
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

/// SHLD, SHRD. With 16 bits and a count beyond, where everything is undefined, the bits that come in repeat.
pub const fn double(to_left: bool, value: u64, from: u64, count: u64, flags: u64, size: u8) -> Result {
    let (count, bits) = (masked(count, size), 8 * size as u32);
    if count == 0 {
        return Result { value, flags: flags & STATUS };
    }
    let (value, from) = (value as u128, from as u128);
    let (result, carry) = if to_left {
        let line = value << (2 * bits % 128) | from << bits | from;
        match size {
            8 => ((value << count | from >> (64 - count)) as u64, value >> (64 - count) & 1 != 0),
            _ => ((line >> (2 * bits - count)) as u64, line >> (3 * bits - count) & 1 != 0),
        }
    } else {
        let line = from << (2 * bits % 128) | from << bits | value;
        match size {
            8 => ((value >> count | from << (64 - count)) as u64, value >> (count - 1) & 1 != 0),
            _ => ((line >> count) as u64, line >> (count - 1) & 1 != 0),
        }
    };
    let result = result & mask(size);
    let overflow = if to_left { top(result, size) != carry } else { top_two_differ(result, size) };
    let flags = sign_zero_parity(result, size) | flag(CF, carry) | flag(OF, overflow);
    Result { value: result, flags: flags & !AF }
}
