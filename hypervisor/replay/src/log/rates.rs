//! Rates and steps of the clock, as short as their rounding lets them be: see `machine::clock`'s steering.

use super::bytes::{In, NoRoom, Out, unzigzag, zigzag};
use super::codec::CodecError;

/// Binary digits in which a rate's change is counted, of the rate before.
const DIGITS: u32 = 13;

/// From so many units on a change is written with its zeros.
const MANY: u64 = 1 << (DIGITS + 1);

/// In the first number of a change: it is written with its zeros.
const LONG: u64 = 1;
/// ... and the rate falls.
const FALLS: u64 = 2;

/// What a change of this rate is counted in, as a power of two.
const fn unit(last: u64) -> u32 {
    (u64::BITS - last.leading_zeros()).saturating_sub(DIGITS)
}

/// The change of a rate: in units of the last one's last digit, or with the number of zeros that its binary digits end with.
pub fn put_rate(out: &mut Out<'_>, rate: u64, last: u64) -> Result<(), NoRoom> {
    let (falls, change) = (rate < last, rate.abs_diff(last));
    let (unit, zeros) = (unit(last), change.trailing_zeros() & 63);
    let units = change >> unit;
    if (change == 0 || zeros >= unit) && units < MANY {
        let signed = if falls { units.wrapping_neg() } else { units };
        return out.varint(zigzag(signed) << 1);
    }
    out.varint(u64::from(zeros) << 2 | if falls { FALLS } else { 0 } | LONG)?;
    out.varint(change >> zeros)
}

pub fn take_rate(input: &mut In<'_>, last: u64) -> Result<u64, CodecError> {
    let first = input.varint()?;
    let (falls, digits, zeros) = if first & LONG == 0 {
        let signed = unzigzag(first >> 1);
        (signed >> 63 != 0, (signed as i64).unsigned_abs(), unit(last))
    } else {
        let digits = input.varint()?;
        (first & FALLS != 0, digits, u32::try_from(first >> 2).unwrap_or(u32::MAX))
    };
    if zeros > 63 || zeros > digits.leading_zeros() {
        return Err(CodecError::Rate);
    }
    let change = digits << zeros;
    let rate = if falls { last.checked_sub(change) } else { last.checked_add(change) };
    rate.ok_or(CodecError::Rate)
}

/// A step: its digits before the zeros that they end with, and the number of these.
pub fn put_step(out: &mut Out<'_>, step: u32) -> Result<(), NoRoom> {
    let zeros = u64::from(step.trailing_zeros() & 31);
    out.varint(u64::from(step) >> zeros << 5 | zeros)
}

pub fn take_step(input: &mut In<'_>) -> Result<u32, CodecError> {
    let number = input.varint()?;
    let (digits, zeros) = (number >> 5, number & 31);
    let step = u32::try_from(digits).ok().filter(|digits| u64::from(digits.leading_zeros()) >= zeros);
    step.map(|digits| digits << zeros).ok_or(CodecError::Step(number))
}
