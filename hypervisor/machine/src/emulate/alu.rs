//! Integer arithmetic with the status flags, exact where the SDM defines them; where it does not, as Intel's processors
//! have been seen to set them. Operands have 1, 2, 4 or 8 bytes and come zero-extended.

use super::memory::mask;

pub const CF: u64 = 1 << 0;
pub const PF: u64 = 1 << 2;
pub const AF: u64 = 1 << 4;
pub const ZF: u64 = 1 << 6;
pub const SF: u64 = 1 << 7;
pub const DF: u64 = 1 << 10;
pub const OF: u64 = 1 << 11;
/// All status flags.
pub const STATUS: u64 = CF | PF | AF | ZF | SF | OF;

/// A result and the flags it sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Result {
    pub value: u64,
    /// The status flags.
    pub flags: u64,
}

/// The highest bit.
pub const fn top(value: u64, size: u8) -> bool {
    value >> (8 * size as u32 - 1) & 1 != 0
}

/// `flag` if `on`.
pub const fn flag(flag: u64, on: bool) -> u64 {
    if on { flag } else { 0 }
}

/// SF, ZF and PF of a result.
pub const fn sign_zero_parity(value: u64, size: u8) -> u64 {
    flag(SF, top(value, size)) | flag(ZF, value == 0) | flag(PF, (value as u8).count_ones().is_multiple_of(2))
}

/// ADD, ADC.
pub const fn add(a: u64, b: u64, carry: bool, size: u8) -> Result {
    let value = a.wrapping_add(b).wrapping_add(carry as u64) & mask(size);
    let carries = a & b | (a | b) & !value;
    let flags = flag(CF, top(carries, size))
        | flag(AF, carries & 8 != 0)
        | flag(OF, top((a ^ value) & (b ^ value), size))
        | sign_zero_parity(value, size);
    Result { value, flags }
}

/// SUB, SBB, CMP.
pub const fn sub(a: u64, b: u64, borrow: bool, size: u8) -> Result {
    let value = a.wrapping_sub(b).wrapping_sub(borrow as u64) & mask(size);
    let borrows = !a & b | (!a | b) & value;
    let flags = flag(CF, top(borrows, size))
        | flag(AF, borrows & 8 != 0)
        | flag(OF, top((a ^ b) & (a ^ value), size))
        | sign_zero_parity(value, size);
    Result { value, flags }
}

/// AND, OR, XOR, TEST: AF is undefined, it is cleared.
pub const fn logic(value: u64, size: u8) -> Result {
    Result { value, flags: sign_zero_parity(value, size) }
}

/// INC; CF stays as in `flags`.
pub const fn inc(a: u64, flags: u64, size: u8) -> Result {
    let result = add(a, 1, false, size);
    Result { flags: result.flags & !CF | flags & CF, ..result }
}

/// DEC; CF stays as in `flags`.
pub const fn dec(a: u64, flags: u64, size: u8) -> Result {
    let result = sub(a, 1, false, size);
    Result { flags: result.flags & !CF | flags & CF, ..result }
}

/// A number of `size` bytes, sign-extended.
pub const fn signed(value: u64, size: u8) -> i64 {
    let unused = 64 - 8 * size as u32;
    ((value << unused) as i64) >> unused
}

/// MUL: the low and the high half. CF and OF say that the high half is not 0; the others are undefined and follow the low half.
pub const fn mul(a: u64, b: u64, size: u8) -> (Result, u64) {
    let product = a as u128 * b as u128;
    let (low, high) = (product as u64 & mask(size), (product >> (8 * size as u32)) as u64 & mask(size));
    (Result { value: low, flags: sign_zero_parity(low, size) | flag(CF | OF, high != 0) }, high)
}

/// IMUL: the low and the high half. CF and OF say that the low half does not hold the product.
pub const fn imul(a: u64, b: u64, size: u8) -> (Result, u64) {
    let product = signed(a, size) as i128 * signed(b, size) as i128;
    let (low, high) = (product as u64 & mask(size), (product >> (8 * size as u32)) as u64 & mask(size));
    let lost = signed(low, size) as i128 != product;
    (Result { value: low, flags: sign_zero_parity(low, size) | flag(CF | OF, lost) }, high)
}

/// Divides two halves by a divisor of so many bytes: quotient and remainder; None: #DE.
pub type Division = fn(u64, u64, u64, u8) -> Option<(u64, u64)>;

/// DIV: quotient and remainder; None: #DE. The flags are undefined and stay.
pub const fn div(high: u64, low: u64, divisor: u64, size: u8) -> Option<(u64, u64)> {
    // The quotient fits exactly when the high half is below the divisor, which then is not 0.
    if high >= divisor {
        return None;
    }
    if size < 8 || high == 0 {
        let dividend = if size < 8 { high << (8 * size as u32) | low } else { low };
        return Some((dividend / divisor, dividend % divisor));
    }
    let dividend = (high as u128) << 64 | low as u128;
    Some(((dividend / divisor as u128) as u64, (dividend % divisor as u128) as u64))
}

/// IDIV: quotient and remainder; None: #DE.
pub const fn idiv(high: u64, low: u64, divisor: u64, size: u8) -> Option<(u64, u64)> {
    let dividend = (signed(high, size) as i128) << (8 * size as u32) | low as i128;
    let divisor = signed(divisor, size) as i128;
    let (Some(quotient), Some(remainder)) = (dividend.checked_div(divisor), dividend.checked_rem(divisor))
    else {
        return None;
    };
    let narrow = quotient as u64 & mask(size);
    if signed(narrow, size) as i128 != quotient {
        return None;
    }
    Some((narrow, remainder as u64 & mask(size)))
}

/// Whether condition `code` (bits 3:0 of Jcc, SETcc, CMOVcc) holds.
pub const fn condition(code: u8, flags: u64) -> bool {
    let (cf, zf, sf) = (flags & CF != 0, flags & ZF != 0, flags & SF != 0);
    let (of, pf) = (flags & OF != 0, flags & PF != 0);
    let holds = match code >> 1 & 7 {
        0 => of,
        1 => cf,
        2 => zf,
        3 => cf || zf,
        4 => sf,
        5 => pf,
        6 => sf != of,
        _ => zf || sf != of,
    };
    holds != (code & 1 != 0)
}
