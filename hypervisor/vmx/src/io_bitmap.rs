//! The I/O bitmaps: which IN and OUT of the guest exit (SDM vol. 3C, "I/O-Bitmap Addresses").

/// Two pages: bitmap A (ports 0000h-7FFFh) and bitmap B (8000h-FFFFh). A set bit exits; an access that touches several
/// ports exits if the bit of any is set, and always if it wraps around at FFFFh.
pub const BYTES: usize = 8192;

/// Where bitmap B begins.
pub const B_OFFSET: u64 = 4096;

/// Pages filled with this have every access exit.
pub const ALL: u8 = 0xff;

/// Decides whether accesses of a port exit.
///
/// # Panics
/// The pages are not [`BYTES`] long.
pub fn set(pages: &mut [u8], port: u16, exits: bool) {
    assert_eq!(pages.len(), BYTES);
    let (byte, bit) = (usize::from(port / 8), 1u8 << (port % 8));
    pages[byte] = if exits { pages[byte] | bit } else { pages[byte] & !bit };
}

/// Whether an access of `size` bytes at a port exits.
///
/// # Panics
/// The pages are not [`BYTES`] long.
pub fn exits(pages: &[u8], port: u16, size: u8) -> bool {
    assert_eq!(pages.len(), BYTES);
    (0..u16::from(size)).any(|i| match port.checked_add(i) {
        Some(port) => pages[usize::from(port / 8)] & 1 << (port % 8) != 0,
        None => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_port_lets_only_itself_through() {
        let mut bitmap = [ALL; BYTES];
        set(&mut bitmap, 0x3f8, false);
        assert!(!exits(&bitmap, 0x3f8, 1));
        assert!(exits(&bitmap, 0x3f8, 2), "3F9h is still intercepted");
        assert!(exits(&bitmap, 0x3f7, 1) && exits(&bitmap, 0x3f9, 1));
        assert_eq!(bitmap[0x7f], 0xfe);
        set(&mut bitmap, 0x3f8, true);
        assert!(exits(&bitmap, 0x3f8, 1));
    }

    #[test]
    fn the_upper_half_is_bitmap_b_and_wrapping_always_exits() {
        let mut bitmap = [ALL; BYTES];
        for port in [0x8000, 0xfffe, 0xffff] {
            set(&mut bitmap, port, false);
        }
        assert_eq!(bitmap[B_OFFSET as usize], 0xfe);
        assert!(!exits(&bitmap, 0xfffe, 2));
        assert!(exits(&bitmap, 0xfffe, 4));
    }
}
