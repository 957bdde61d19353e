//! The MSR bitmaps: which RDMSR and WRMSR of the guest exit (SDM vol. 3C, "MSR-Bitmap Address").

/// The page of the four bitmaps of 1 KByte: reads of low MSRs, reads of high, writes of low, writes of high. A set bit
/// exits; MSRs outside both ranges always exit.
pub const BYTES: usize = 4096;

/// A page filled with this has every access exit.
pub const ALL: u8 = 0xff;

/// The first MSR of the high range; the low one starts at 0. Both have 2000h numbers.
const HIGH: u32 = 0xc000_0000;
const RANGE: u32 = 0x2000;
const HIGH_OFFSET: usize = 1024;
const WRITE_OFFSET: usize = 2048;

/// Which accesses of an MSR exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intercept {
    /// RDMSR exits.
    pub read: bool,
    /// WRMSR exits.
    pub write: bool,
}

impl Intercept {
    /// Both exit.
    pub const BOTH: Self = Self { read: true, write: true };
    /// Neither exits.
    pub const NONE: Self = Self { read: false, write: false };
}

/// Decides what exits for one MSR. False if the MSR is in neither range, where everything exits.
///
/// # Panics
/// The page is not [`BYTES`] long.
#[must_use]
pub fn set(page: &mut [u8], number: u32, intercept: Intercept) -> bool {
    assert_eq!(page.len(), BYTES);
    let Some((byte, bit)) = position(number) else { return false };
    for (offset, on) in [(0, intercept.read), (WRITE_OFFSET, intercept.write)] {
        let cell = &mut page[offset + byte];
        *cell = if on { *cell | bit } else { *cell & !bit };
    }
    true
}

/// What exits for one MSR.
///
/// # Panics
/// The page is not [`BYTES`] long.
pub fn get(page: &[u8], number: u32) -> Intercept {
    assert_eq!(page.len(), BYTES);
    let Some((byte, bit)) = position(number) else { return Intercept::BOTH };
    Intercept { read: page[byte] & bit != 0, write: page[WRITE_OFFSET + byte] & bit != 0 }
}

fn position(number: u32) -> Option<(usize, u8)> {
    let (base, index) = match number {
        n if n < RANGE => (0, n),
        n if (HIGH..HIGH + RANGE).contains(&n) => (HIGH_OFFSET, n - HIGH),
        _ => return None,
    };
    Some((base + (index / 8) as usize, 1 << (index % 8)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn everything_exits_at_first() {
        let bitmap = [ALL; BYTES];
        for number in [0, 0x10, 0x1fff, 0x2000, 0xc000_0080, 0xc000_1fff, 0xc000_2000, u32::MAX] {
            assert_eq!(get(&bitmap, number), Intercept::BOTH);
        }
    }

    #[test]
    fn bits_lie_where_the_manual_puts_them() {
        let mut bitmap = [ALL; BYTES];
        assert!(set(&mut bitmap, 0x277, Intercept { read: false, write: true }));
        assert_eq!((bitmap[0x4e], bitmap[0x84e]), (0x7f, 0xff));
        assert!(set(&mut bitmap, 0xc000_0081, Intercept { read: true, write: false }));
        assert_eq!((bitmap[0x410], bitmap[0xc10]), (0xff, 0xfd));
        assert!(!set(&mut bitmap, 0x4000_0000, Intercept::NONE), "outside both ranges everything exits");
    }

    proptest! {
        #[test]
        fn one_msr_changes_alone(number: u32, other: u32, read: bool, write: bool) {
            let mut bitmap = [ALL; BYTES];
            let intercept = Intercept { read, write };
            let within = set(&mut bitmap, number & 0xc000_1fff, intercept);
            let expected = if within { intercept } else { Intercept::BOTH };
            prop_assert_eq!(get(&bitmap, number & 0xc000_1fff), expected);
            if other != number & 0xc000_1fff {
                prop_assert_eq!(get(&bitmap, other), Intercept::BOTH);
            }
        }
    }
}
