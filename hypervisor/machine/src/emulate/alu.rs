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

#[cfg(test)]
mod tests {
    use super::*;

    /// Addition bit by bit: the sum, the carry out of bit 3, of bit 6, of bit 7.
    fn ripple(a: u8, b: u8, mut carry: bool) -> (u8, bool, bool, bool) {
        let (mut sum, mut out) = (0, [false; 8]);
        for (n, out) in out.iter_mut().enumerate() {
            let (x, y) = (a >> n & 1 != 0, b >> n & 1 != 0);
            sum |= u8::from(x ^ y ^ carry) << n;
            carry = x && y || carry && (x || y);
            *out = carry;
        }
        (sum, out[3], out[6], out[7])
    }

    fn expected(value: u8, carry: bool, half: bool, overflow: bool) -> u64 {
        let ones = (0..8).filter(|n| value >> n & 1 != 0).count();
        flag(CF, carry)
            | flag(AF, half)
            | flag(OF, overflow)
            | flag(ZF, value == 0)
            | flag(SF, value >= 0x80)
            | flag(PF, ones % 2 == 0)
    }

    #[test]
    fn eight_bits_are_added_and_subtracted_as_bit_by_bit() {
        for (a, b) in (0..=255_u8).flat_map(|a| (0..=255_u8).map(move |b| (a, b))) {
            for carry in [false, true] {
                let (sum, half, into_top, out) = ripple(a, b, carry);
                let flags = expected(sum, out, half, into_top != out);
                let result = Result { value: sum.into(), flags };
                assert_eq!(add(a.into(), b.into(), carry, 1), result, "{a} + {b} + {carry}");
                // a - b - borrow is a + not b + not borrow, with the carries turned round.
                let (difference, half, into_top, out) = ripple(a, !b, !carry);
                let flags = expected(difference, !out, !half, into_top != out);
                let result = Result { value: difference.into(), flags };
                assert_eq!(sub(a.into(), b.into(), carry, 1), result, "{a} - {b} - {carry}");
            }
        }
    }

    #[test]
    fn eight_bits_are_multiplied_and_divided_as_in_wider_integers() {
        for (a, b) in (0..=255_u8).flat_map(|a| (0..=255_u8).map(move |b| (a, b))) {
            let product = u16::from(a) * u16::from(b);
            let (low, high) = mul(a.into(), b.into(), 1);
            assert_eq!((low.value | high << 8, low.flags & CF != 0), (product.into(), product > 255));
            let product = i16::from(a as i8) * i16::from(b as i8);
            let (low, high) = imul(a.into(), b.into(), 1);
            assert_eq!((low.value | high << 8) as i16, product);
            assert_eq!(low.flags & (CF | OF), flag(CF | OF, i8::try_from(product).is_err()));
        }
        for (dividend, divisor) in (0..=u16::MAX).step_by(7).flat_map(|a| (0..=255_u8).map(move |b| (a, b))) {
            let halves = (u64::from(dividend >> 8), u64::from(dividend & 0xff));
            let unsigned = dividend.checked_div(divisor.into()).filter(|q| *q <= 255);
            let unsigned = unsigned.map(|q| (u64::from(q), u64::from(dividend % u16::from(divisor))));
            assert_eq!(div(halves.0, halves.1, divisor.into(), 1), unsigned, "{dividend} / {divisor}");
            let (a, b) = (i32::from(dividend as i16), i32::from(divisor as i8));
            let signed = a.checked_div(b).and_then(|q| i8::try_from(q).ok());
            let signed = signed.map(|q| (u64::from(q as u8), u64::from((a % b) as u8)));
            assert_eq!(idiv(halves.0, halves.1, divisor.into(), 1), signed, "{a} / {b}");
        }
        assert_eq!(idiv(1 << 63, 0, u64::MAX, 8), None, "the quotient does not fit 128 bits");
        assert_eq!(div(1, 0, 2, 8), Some((1 << 63, 0)));
    }

    #[test]
    fn conditions_are_those_of_the_manual() {
        // SDM vol. 1, appendix B.
        type Holds = fn(u64) -> bool;
        let by_name: [(u8, Holds); 8] = [
            (0x0, |f| f & OF != 0),
            (0x2, |f| f & CF != 0),
            (0x4, |f| f & ZF != 0),
            (0x6, |f| f & (CF | ZF) != 0),
            (0x8, |f| f & SF != 0),
            (0xa, |f| f & PF != 0),
            (0xc, |f| (f & SF != 0) ^ (f & OF != 0)),
            (0xe, |f| ((f & SF != 0) ^ (f & OF != 0)) || f & ZF != 0),
        ];
        for flags in 0..0x1000 {
            for (code, holds) in by_name {
                assert_eq!(condition(code, flags), holds(flags));
                assert_eq!(condition(code | 1, flags), !holds(flags));
            }
        }
    }
}
