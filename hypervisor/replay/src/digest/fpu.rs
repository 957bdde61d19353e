//! The hashes of the x87, SSE, AVX and AVX-512 state, from an XSAVE area of the standard form (SDM vol. 1, "XSAVE Area").
//!
//! A processor may leave a component out that is in its initial state, and need not: what is left out counts as initial, so the
//! hash is one of the state and not of the area.

use super::hash::Hash;
use super::parts::Part;
use core::ops::Range;

/// Bytes of the area that are looked at.
pub const AREA: usize = 2688;

/// Components of an area that FXSAVE has written, which has no header: x87 and SSE.
pub const LEGACY: u64 = 3;

/// Where the header's XSTATE_BV is.
const PRESENT_AT: usize = 512;

/// What the area has at a place while a component is in its initial state.
struct Piece {
    /// The bit in XSTATE_BV; None: always there.
    component: Option<u32>,
    place: Range<usize>,
    /// The first bytes of the initial state; the others are 0.
    initial: [u8; 2],
}

const fn piece(component: u32, place: Range<usize>) -> Piece {
    Piece { component: Some(component), place, initial: [0; 2] }
}

/// FCW 37Fh, and FSW to FDP.
const X87_CONTROL: Piece = Piece { component: Some(0), place: 0..24, initial: [0x7F, 0x03] };
const X87_STACK: Piece = piece(0, 32..160);
/// MXCSR is saved whether the SSE state is or not; MXCSR_MASK behind it is the processor's.
const MXCSR: Piece = Piece { component: None, place: 24..28, initial: [0; 2] };

/// The pieces of each part.
const PARTS: [(Part, &[Piece]); 4] = [
    (Part::X87, &[X87_CONTROL, X87_STACK]),
    (Part::Sse, &[MXCSR, piece(1, 160..416)]),
    (Part::Avx, &[piece(2, 576..832)]),
    (Part::Avx512, &[piece(5, 1088..1152), piece(6, 1152..1664), piece(7, 1664..AREA)]),
];

/// The hashes over an area of [`AREA`] bytes. `present`: the components that it has; None: as its header says.
///
/// # Panics
/// The area is shorter.
#[must_use]
pub fn hashes(area: &[u8], present: Option<u64>) -> [(Part, u64); 4] {
    let header = *area[PRESENT_AT..].first_chunk().expect("the area has a header");
    let present = present.unwrap_or(u64::from_le_bytes(header));
    PARTS.map(|(part, pieces)| {
        let mut hash = Hash::new();
        for Piece { component, place, initial } in pieces {
            if component.is_none_or(|bit| present >> bit & 1 != 0) {
                hash.bytes(&area[place.clone()]);
            } else {
                hash.bytes(initial);
                (initial.len()..place.len()).for_each(|_| hash.byte(0));
            }
        }
        (part, hash.finish())
    })
}

#[cfg(test)]
mod tests {
    use super::{AREA, LEGACY, PARTS, hashes};
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    /// As XSAVE writes it after a reset, with all components there.
    fn reset(present: u64) -> Vec<u8> {
        let mut area = vec![0; AREA];
        area[..2].copy_from_slice(&0x37F_u16.to_le_bytes());
        area[24..28].copy_from_slice(&0x1F80_u32.to_le_bytes());
        area[28..32].fill(0xFF);
        area[512..520].copy_from_slice(&present.to_le_bytes());
        area
    }

    proptest! {
        #[test]
        fn what_is_left_out_counts_as_initial(present: u64, rubbish: u8) {
            let mut area = reset(present);
            for piece in PARTS.iter().flat_map(|(_, pieces)| *pieces) {
                if piece.component.is_some_and(|bit| present >> bit & 1 == 0) {
                    area[piece.place.clone()].fill(rubbish);
                }
            }
            prop_assert_eq!(hashes(&area, None), hashes(&reset(!0), None));
        }

        #[test]
        fn what_is_there_counts(at in 0..AREA, flip in 1_u8..) {
            let (before, mut area) = (hashes(&reset(!0), None), reset(!0));
            area[at] ^= flip;
            let counts = |(_, pieces): &(_, &[super::Piece])| pieces.iter().any(|piece| piece.place.contains(&at));
            let after = hashes(&area, Some(!0));
            for ((parts, before), after) in PARTS.iter().zip(before).zip(after) {
                prop_assert_eq!(before == after, !counts(parts), "byte {}", at);
            }
        }
    }

    #[test]
    fn an_area_of_fxsave_has_no_header() {
        let mut area = reset(0);
        let initial = hashes(&area, Some(LEGACY));
        assert_eq!(initial, hashes(&reset(!0), None));
        area[160] = 1;
        assert_eq!(hashes(&area, None), initial, "not there");
        assert_ne!(hashes(&area, Some(LEGACY)), initial);
    }
}
