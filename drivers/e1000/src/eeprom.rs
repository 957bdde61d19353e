//! Words of the EEPROM, through the read register (SDM 13.4.4; 82574 datasheet 10.2.2.3).

use crate::register::{EERD, Family};
use hal::{Clock, Registers};

/// How long a word may take, in nanoseconds: a real one takes some 100 us.
const WORD_TIMEOUT_NS: u64 = 10_000_000;

/// Reads the word at `address`; `None` if the device does not answer.
pub fn read(registers: &impl Registers, clock: &impl Clock, family: Family, address: u8) -> Option<u16> {
    let (address_shift, done) = match family {
        Family::I8254x => (8, 1 << 4),
        Family::I82574 => (2, 1 << 1),
    };
    registers.write_u32(EERD, u32::from(address) << address_shift | 1);
    let mut value = 0;
    let answered = clock.wait_until(WORD_TIMEOUT_NS, || {
        value = registers.read_u32(EERD);
        value & done != 0
    });
    answered.then_some((value >> 16) as u16)
}

/// The station address: the first three words.
pub fn mac(registers: &impl Registers, clock: &impl Clock, family: Family) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    for word in 0..3u8 {
        let value = read(registers, clock, family, word)?;
        mac[usize::from(word) * 2..][..2].copy_from_slice(&value.to_le_bytes());
    }
    Some(mac)
}
