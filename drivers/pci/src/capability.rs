//! Capability lists: the linked list in the first 256 bytes, and PCI Express's from 0x100 on.

use crate::{Address, ConfigSpace, Function, HeaderKind, register};

/// Capability IDs this project looks for (PCI Code and ID Assignment, 2 and 3).
pub mod id {
    /// Power management.
    pub const POWER_MANAGEMENT: u8 = 0x01;
    /// Message signalled interrupts.
    pub const MSI: u8 = 0x05;
    /// PCI Express.
    pub const PCI_EXPRESS: u8 = 0x10;
    /// MSI-X.
    pub const MSI_X: u8 = 0x11;
    /// Extended: advanced error reporting.
    pub const EXTENDED_ERROR_REPORTING: u16 = 0x0001;
    /// Extended: device serial number.
    pub const EXTENDED_SERIAL_NUMBER: u16 = 0x0003;
}

/// An entry of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// What it is ([`id`]).
    pub id: u8,
    /// Byte offset of its header in configuration space.
    pub offset: u16,
    /// The 16 bits after ID and next pointer: the control or capability word of most capabilities.
    pub word: u16,
}

/// The list of one function. Ends at a null or impossible pointer, and after as many entries as fit: a list that bites
/// its own tail is cut, not followed for ever.
pub struct Capabilities<'a, C: ConfigSpace + ?Sized> {
    config: &'a C,
    address: Address,
    next: u8,
    left: u16,
}

/// Entries that fit between the header's end at 0x40 and 0x100, 4 bytes each.
const MOST: u16 = (0x100 - 0x40) / 4;

impl<'a, C: ConfigSpace + ?Sized> Capabilities<'a, C> {
    pub(crate) fn new(config: &'a C, function: &Function) -> Self {
        let address = function.address;
        let pointer = match function.kind {
            HeaderKind::Endpoint { .. } | HeaderKind::PciBridge(_) => Some(register::CAPABILITIES),
            HeaderKind::CardBusBridge => Some(register::CARDBUS_CAPABILITIES),
            HeaderKind::Unknown(_) => None,
        };
        let has_list = config.read_u16(address, register::STATUS) & 1 << 4 != 0;
        let next = pointer.filter(|_| has_list).map_or(0, |offset| config.read_u8(address, offset));
        Self { config, address, next, left: MOST }
    }
}

impl<C: ConfigSpace + ?Sized> Iterator for Capabilities<'_, C> {
    type Item = Capability;

    fn next(&mut self) -> Option<Capability> {
        // The lowest two bits are reserved and to be masked (PCI Local Bus, 6.7).
        let offset = u16::from(self.next & !3);
        if offset < 0x40 || self.left == 0 {
            return None;
        }
        self.left -= 1;
        let header = self.config.read_u32(self.address, offset);
        let [id, next, ..] = header.to_le_bytes();
        if id == 0xff {
            self.next = 0;
            return None;
        }
        self.next = next;
        Some(Capability { id, offset, word: (header >> 16) as u16 })
    }
}

/// An entry of the extended list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedCapability {
    /// What it is ([`id`], names starting with EXTENDED).
    pub id: u16,
    /// Version of its layout, 0 to 15.
    pub version: u8,
    /// Byte offset of its header in configuration space.
    pub offset: u16,
}

/// The extended list of one function; cut like [`Capabilities`].
pub struct ExtendedCapabilities<'a, C: ConfigSpace + ?Sized> {
    config: &'a C,
    address: Address,
    next: u16,
    left: u16,
}

const EXTENDED_START: u16 = 0x100;
/// Entries that fit between 0x100 and 0x1000, 8 bytes each (the shortest has a header and a word).
const EXTENDED_MOST: u16 = (0x1000 - EXTENDED_START) / 8;

impl<'a, C: ConfigSpace + ?Sized> ExtendedCapabilities<'a, C> {
    pub(crate) fn new(config: &'a C, function: &Function) -> Self {
        // Only PCI Express functions have one; on others the range may alias the first 256 bytes.
        let express = function.capabilities(config).any(|c| c.id == id::PCI_EXPRESS);
        let next = if express { EXTENDED_START } else { 0 };
        Self { config, address: function.address, next, left: EXTENDED_MOST }
    }
}

impl<C: ConfigSpace + ?Sized> Iterator for ExtendedCapabilities<'_, C> {
    type Item = ExtendedCapability;

    fn next(&mut self) -> Option<ExtendedCapability> {
        let offset = self.next & 0xffc;
        if offset < EXTENDED_START || self.left == 0 {
            return None;
        }
        self.left -= 1;
        let header = self.config.read_u32(self.address, offset);
        self.next = (header >> 20) as u16;
        // All zero: an empty list. All ones: not reachable.
        if header == 0 || header == !0 {
            self.next = 0;
            return None;
        }
        Some(ExtendedCapability { id: header as u16, version: (header >> 16 & 0xf) as u8, offset })
    }
}

/// Where the MSI-X structures of a function are (PCI Local Bus 3.0, 6.8.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsiX {
    /// Offset of the capability in configuration space.
    pub offset: u16,
    /// Number of vectors, 1 to 2048.
    pub vectors: u16,
    /// Which base address register holds the table, and the byte offset of the table in it.
    pub table: (u8, u32),
    /// The same for the pending bits.
    pub pending: (u8, u32),
}

impl MsiX {
    /// Decodes the MSI-X capability of `function`; `None` if it has none.
    pub fn find<C: ConfigSpace + ?Sized>(config: &C, function: &Function) -> Option<Self> {
        let capability = function.capabilities(config).find(|c| c.id == id::MSI_X)?;
        let split = |word: u32| ((word & 7) as u8, word & !7);
        let at = |delta| config.read_u32(function.address, capability.offset + delta);
        // The last possible slot has no room for the table words.
        (capability.offset <= 0xf4).then(|| Self {
            offset: capability.offset,
            vectors: (capability.word & 0x7ff) + 1,
            table: split(at(4)),
            pending: split(at(8)),
        })
    }

    /// Has `function`, of which this is, interrupt otherwise: by MSI or its pin.
    pub fn disable<C: ConfigSpace + ?Sized>(self, config: &mut C, function: &Function) {
        const ENABLE: u32 = 1 << 31;
        let header = config.read_u32(function.address, self.offset);
        config.write_u32(function.address, self.offset, header & !ENABLE);
    }
}

/// Message signalled interrupts of a function (PCI Local Bus 3.0, 6.8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msi {
    address: Address,
    /// Offset of the capability in configuration space.
    pub offset: u16,
    /// The message address has 64 bits.
    pub wide: bool,
    /// Vectors can be masked.
    pub maskable: bool,
}

impl Msi {
    const ENABLE: u16 = 1 << 0;
    const MULTIPLE_ENABLE: u16 = 7 << 4;
    const WIDE: u16 = 1 << 7;
    const MASKABLE: u16 = 1 << 8;

    /// Decodes the MSI capability of `function`; `None` if it has none.
    pub fn find<C: ConfigSpace + ?Sized>(config: &C, function: &Function) -> Option<Self> {
        let capability = function.capabilities(config).find(|c| c.id == id::MSI)?;
        let (wide, maskable) = (capability.word & Self::WIDE != 0, capability.word & Self::MASKABLE != 0);
        let bytes = 10 + if wide { 4 } else { 0 } + if maskable { 10 } else { 0 };
        (capability.offset + bytes <= 0x100).then_some(Self {
            address: function.address,
            offset: capability.offset,
            wide,
            maskable,
        })
    }

    /// Has the function send one message, `data` to `address` (below 4 GiB), for its interrupts, in place of asserting its
    /// pin. Bus mastering must be on.
    pub fn enable<C: ConfigSpace + ?Sized>(self, config: &mut C, address: u32, data: u16) {
        self.disable(config);
        let data_at = self.offset + if self.wide { 12 } else { 8 };
        config.write_u32(self.address, self.offset + 4, address);
        if self.wide {
            config.write_u32(self.address, self.offset + 8, 0);
        }
        // The upper half is reserved.
        config.write_u32(self.address, data_at, data.into());
        if self.maskable {
            config.write_u32(self.address, data_at + 4, 0);
        }
        self.set_control(config, Self::ENABLE);
    }

    /// Has it assert its pin again.
    pub fn disable<C: ConfigSpace + ?Sized>(self, config: &mut C) {
        self.set_control(config, 0);
    }

    fn set_control<C: ConfigSpace + ?Sized>(self, config: &mut C, enable: u16) {
        let header = config.read_u32(self.address, self.offset);
        let control = (header >> 16) as u16 & !(Self::ENABLE | Self::MULTIPLE_ENABLE) | enable;
        config.write_u32(self.address, self.offset, header & 0xffff | u32::from(control) << 16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeBus;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// A function with a list: (offset, id, next, word).
    fn setup(entries: &[(u16, u8, u8, u16)]) -> (FakeBus, Function) {
        let mut bus = FakeBus::new();
        let a = bus.endpoint(0, 3, 0, 0x8086, 0x10d3);
        bus.set_u32(a, 4, 0x0010_0000);
        bus.set_u32(a, register::CAPABILITIES, entries.first().map_or(0, |e| u32::from(e.0)));
        for &(offset, id, next, word) in entries {
            bus.set_u32(a, offset, u32::from(word) << 16 | u32::from(next) << 8 | u32::from(id));
        }
        let function = Function::read(&bus, a).unwrap();
        (bus, function)
    }

    #[test]
    fn the_list_of_an_82574() {
        let (mut bus, f) =
            setup(&[(0xc8, 1, 0xd0, 0), (0xd0, 5, 0xe0, 0x80), (0xe0, 0x10, 0xa0, 2), (0xa0, 0x11, 0, 4)]);
        bus.set_u32(f.address, 0xa4, 3);
        bus.set_u32(f.address, 0xa8, 0x2003);
        let found: Vec<_> = f.capabilities(&bus).map(|c| (c.id, c.offset)).collect();
        assert_eq!(found, [(1, 0xc8), (5, 0xd0), (0x10, 0xe0), (0x11, 0xa0)]);
        let msix = MsiX { offset: 0xa0, vectors: 5, table: (3, 0), pending: (3, 0x2000) };
        assert_eq!(MsiX::find(&bus, &f), Some(msix));
        bus.writable(f.address, 0xa0, 0xc000_0000);
        bus.write_u32(f.address, 0xa0, 0xc000_0000);
        msix.disable(&mut bus, &f);
        assert_eq!(bus.read_u32(f.address, 0xa0) >> 16, 0x4004, "off, its mask as it was");
    }

    #[test]
    fn messages_of_both_widths_are_programmed() {
        for (word, data_at, mask_at) in [
            (0x0070, 0x58, None),
            (0x00f0, 0x5c, None),
            (0x0170, 0x58, Some(0x5c)),
            (0x0180, 0x5c, Some(0x60)),
        ] {
            let (mut bus, f) = setup(&[(0x40, 1, 0x50, 0), (0x50, 5, 0, word)]);
            for offset in (0x54..0x70).step_by(4) {
                bus.set_u32(f.address, offset, !0);
                bus.writable(f.address, offset, !0);
            }
            bus.writable(f.address, 0x50, 0x0071_0000);
            let msi = Msi::find(&bus, &f).unwrap();
            msi.enable(&mut bus, 0xfee0_1000, 0x41);
            assert_eq!(bus.read_u32(f.address, 0x54), 0xfee0_1000);
            assert_eq!(msi.wide, bus.read_u32(f.address, 0x58) == 0);
            assert_eq!(bus.read_u32(f.address, data_at) as u16, 0x41);
            assert!(mask_at.is_none_or(|at| bus.read_u32(f.address, at) == 0));
            let control = (bus.read_u32(f.address, 0x50) >> 16) as u16;
            assert_eq!(control, word & !0x70 | 1, "one vector, on");
            msi.disable(&mut bus);
            assert_eq!((bus.read_u32(f.address, 0x50) >> 16) as u16, word & !0x71);
        }
    }

    #[test]
    fn a_message_capability_without_room_is_none() {
        let (bus, f) = setup(&[(0xf4, 5, 0, 0x0180)]);
        assert_eq!(Msi::find(&bus, &f), None);
        let (bus, f) = setup(&[(0xf4, 5, 0, 0)]);
        assert!(Msi::find(&bus, &f).is_some());
    }

    #[test]
    fn no_list_without_the_status_bit() {
        let (mut bus, f) = setup(&[(0x40, 1, 0, 0)]);
        assert_eq!(f.capabilities(&bus).count(), 1);
        bus.set_u32(f.address, 4, 0);
        assert_eq!(f.capabilities(&bus).count(), 0);
    }

    #[test]
    fn pointers_into_the_header_end_the_list() {
        let (bus, f) = setup(&[(0x40, 1, 0x3c, 0)]);
        assert_eq!(f.capabilities(&bus).count(), 1);
    }

    #[test]
    fn a_list_that_bites_its_tail_is_cut() {
        let (bus, f) = setup(&[(0x40, 1, 0x44, 0), (0x44, 5, 0x40, 0)]);
        assert_eq!(f.capabilities(&bus).count(), usize::from(MOST));
        assert_eq!(MsiX::find(&bus, &f), None);
    }

    #[test]
    fn extended_only_on_pci_express() {
        let (mut bus, f) = setup(&[(0x40, 0x10, 0, 2)]);
        bus.set_u32(f.address, 0x100, 0x1402_0001);
        bus.set_u32(f.address, 0x140, 0x0001_0003);
        let found: Vec<_> = f.extended_capabilities(&bus).collect();
        assert_eq!(
            found,
            [
                ExtendedCapability { id: id::EXTENDED_ERROR_REPORTING, version: 2, offset: 0x100 },
                ExtendedCapability { id: id::EXTENDED_SERIAL_NUMBER, version: 1, offset: 0x140 },
            ]
        );
        bus.set_u32(f.address, 0x40, 1);
        assert_eq!(f.extended_capabilities(&bus).count(), 0);
    }

    #[test]
    fn an_unreachable_or_empty_extended_list_is_empty() {
        let (mut bus, f) = setup(&[(0x40, 0x10, 0, 2)]);
        assert_eq!(f.extended_capabilities(&bus).count(), 0);
        bus.set_u32(f.address, 0x100, !0);
        assert_eq!(f.extended_capabilities(&bus).count(), 0);
        bus.set_u32(f.address, 0x100, 0x1001_0003);
        assert_eq!(f.extended_capabilities(&bus).count(), usize::from(EXTENDED_MOST));
    }

    proptest! {
        /// Whatever the configuration space holds, nothing panics or runs for ever.
        #[test]
        fn any_content_ends(words in proptest::collection::vec(any::<u32>(), 1024)) {
            let mut bus = FakeBus::new();
            let a = bus.endpoint(0, 0, 0, 0, 0);
            for (i, word) in words.iter().enumerate() {
                bus.set_u32(a, 4 * i as u16, *word);
            }
            if let Some(f) = Function::read(&bus, a) {
                let _ = f.capabilities(&bus).count();
                let _ = f.extended_capabilities(&bus).count();
                let _ = MsiX::find(&bus, &f);
                let _ = crate::read_bars(&mut bus, &f);
            }
            crate::walk(&bus, 0, 0, 255, &mut |_| {});
        }
    }
}
