//! The I/O bitmaps: which IN and OUT of the guest exit (SDM vol. 3C, "I/O-Bitmap Addresses").

/// Bitmap A (ports 0000h-7FFFh) and bitmap B (8000h-FFFFh), one page each. A set bit exits; an access that touches
/// several ports exits if the bit of any is set, and always if it wraps around at FFFFh.
#[repr(C, align(4096))]
#[derive(Clone)]
pub struct IoBitmap([u8; 8192]);

/// Where bitmap B begins in the structure.
pub const B_OFFSET: u64 = 4096;

impl IoBitmap {
    /// Every access exits.
    pub const fn all() -> Self {
        Self([0xff; 8192])
    }

    /// Decides whether accesses of a port exit.
    pub fn set(&mut self, port: u16, exits: bool) {
        let (byte, bit) = (usize::from(port / 8), 1u8 << (port % 8));
        self.0[byte] = if exits { self.0[byte] | bit } else { self.0[byte] & !bit };
    }

    /// Whether an access of `size` bytes at a port exits.
    pub fn exits(&self, port: u16, size: u8) -> bool {
        (0..u16::from(size)).any(|i| match port.checked_add(i) {
            Some(port) => self.0[usize::from(port / 8)] & 1 << (port % 8) != 0,
            None => true,
        })
    }

    /// Both pages as the processor reads them.
    pub const fn bytes(&self) -> &[u8; 8192] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_port_lets_only_itself_through() {
        let mut bitmap = IoBitmap::all();
        bitmap.set(0x3f8, false);
        assert!(!bitmap.exits(0x3f8, 1));
        assert!(bitmap.exits(0x3f8, 2), "3F9h is still intercepted");
        assert!(bitmap.exits(0x3f7, 1) && bitmap.exits(0x3f9, 1));
        assert_eq!(bitmap.bytes()[0x7f], 0xfe);
        bitmap.set(0x3f8, true);
        assert!(bitmap.exits(0x3f8, 1));
    }

    #[test]
    fn the_upper_half_is_bitmap_b_and_wrapping_always_exits() {
        let mut bitmap = IoBitmap::all();
        for port in [0x8000, 0xfffe, 0xffff] {
            bitmap.set(port, false);
        }
        assert_eq!(bitmap.bytes()[B_OFFSET as usize], 0xfe);
        assert!(!bitmap.exits(0xfffe, 2));
        assert!(bitmap.exits(0xfffe, 4));
    }
}
