//! Words of the EEPROM, through the read register (SDM 13.4.4; 82574 datasheet 10.2.2.3).

use crate::chip::Eeprom;
use crate::register::EERD;
use hal::{Clock, Registers};

/// How long a word may take, in nanoseconds: a real one takes some 100 us.
const WORD_TIMEOUT_NS: u64 = 10_000_000;

/// Reads the word at `address`; `None` if the device does not answer.
pub fn read(registers: &impl Registers, clock: &impl Clock, layout: Eeprom, address: u16) -> Option<u16> {
    registers.write_u32(EERD, u32::from(address) << layout.address_shift | 1);
    let mut value = 0;
    let answered = clock.wait_until(WORD_TIMEOUT_NS, || {
        value = registers.read_u32(EERD);
        value & layout.done != 0
    });
    answered.then_some((value >> 16) as u16)
}

/// The station address: three words from `first` on.
pub fn mac(registers: &impl Registers, clock: &impl Clock, layout: Eeprom, first: u16) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    for word in 0..3 {
        let value = read(registers, clock, layout, first + word)?;
        mac[usize::from(word) * 2..][..2].copy_from_slice(&value.to_le_bytes());
    }
    Some(mac)
}
