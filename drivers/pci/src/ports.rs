//! Configuration space through ports: configuration mechanism #1 (PCI Local Bus 3.0, 3.2.2.3.2).

use crate::Address;

/// Port of the address register: a 32-bit write selects function and register.
pub const ADDRESS: u16 = 0xcf8;
/// Port of the data register: a 32-bit access reaches what was selected.
pub const DATA: u16 = 0xcfc;

/// The value for [`ADDRESS`] that selects the register at `offset`; `None` for what the mechanism cannot reach
/// (another segment than 0, or an offset from 256 on).
pub const fn select(address: Address, offset: u16) -> Option<u32> {
    if address.segment != 0 || offset >= 256 {
        return None;
    }
    Some(1 << 31 | (address.requester_id() as u32) << 8 | (offset & 0xfc) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selects_a_double_word() {
        let a = Address::new(0, 2, 0x1f, 3).unwrap();
        assert_eq!(select(a, 0x3d), Some(0x8002_fb3c));
    }

    #[test]
    fn does_not_wrap_what_it_cannot_reach() {
        assert_eq!(select(Address::new(0, 0, 0, 0).unwrap(), 0x100), None);
        assert_eq!(select(Address::new(1, 0, 0, 0).unwrap(), 0), None);
    }
}
