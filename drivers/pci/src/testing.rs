//! A fake bus for this crate's tests: functions with writable masks, so that BAR sizing works as on hardware.

use crate::{Address, ConfigSpace, register};
use std::{collections::BTreeMap, vec, vec::Vec};

#[derive(Clone)]
struct Registers {
    value: Vec<u32>,
    writable: Vec<u32>,
}

/// Functions by address; everything else reads as all ones.
#[derive(Default)]
pub struct FakeBus {
    functions: BTreeMap<Address, Registers>,
    /// Every write, in order.
    pub writes: Vec<(Address, u16, u32)>,
}

impl FakeBus {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn endpoint(&mut self, bus: u8, device: u8, function: u8, vendor: u16, id: u16) -> Address {
        let address = Address::new(0, bus, device, function).unwrap();
        let mut f = Registers { value: vec![0; 1024], writable: vec![0; 1024] };
        f.value[0] = u32::from(id) << 16 | u32::from(vendor);
        f.writable[1] = 0x0000_0547;
        self.functions.insert(address, f);
        address
    }

    pub fn bridge(&mut self, bus: u8, device: u8, function: u8, secondary: u8, subordinate: u8) -> Address {
        let address = self.endpoint(bus, device, function, 0x1b36, 0x000c);
        self.set_u32(address, register::HEADER_TYPE & !3, 1 << 16);
        self.set_u32(
            address,
            register::BRIDGE_BUSES,
            u32::from(subordinate) << 16 | u32::from(secondary) << 8 | u32::from(bus),
        );
        address
    }

    pub fn multifunction(&mut self, bus: u8, device: u8) {
        let a = Address::new(0, bus, device, 0).unwrap();
        let header = self.read_u32(a, register::HEADER_TYPE & !3);
        self.set_u32(a, register::HEADER_TYPE & !3, header | 0x80 << 16);
    }

    pub fn set_u32(&mut self, address: Address, offset: u16, value: u32) {
        self.functions.get_mut(&address).unwrap().value[usize::from(offset) / 4] = value;
    }

    /// Makes the register at `offset` hold what is written to it in the bits of `mask`.
    pub fn writable(&mut self, address: Address, offset: u16, mask: u32) {
        self.functions.get_mut(&address).expect("no such function").writable[usize::from(offset / 4)] = mask;
    }

    /// Makes BAR `index` hold `value`, with the bits of `mask` writable (what sizing finds).
    pub fn bar(&mut self, address: Address, index: u16, value: u32, mask: u32) {
        let f = self.functions.get_mut(&address).unwrap();
        let word = usize::from(register::BAR0 / 4 + index);
        f.value[word] = value;
        f.writable[word] = mask;
    }
}

impl ConfigSpace for FakeBus {
    fn read_u32(&self, address: Address, offset: u16) -> u32 {
        assert!(offset.is_multiple_of(4) && offset < 4096, "offset {offset:#x}");
        self.functions.get(&address).map_or(!0, |f| f.value[usize::from(offset) / 4])
    }

    fn write_u32(&mut self, address: Address, offset: u16, value: u32) {
        assert!(offset.is_multiple_of(4) && offset < 4096, "offset {offset:#x}");
        self.writes.push((address, offset, value));
        if let Some(f) = self.functions.get_mut(&address) {
            let word = usize::from(offset) / 4;
            f.value[word] = f.value[word] & !f.writable[word] | value & f.writable[word];
        }
    }
}
