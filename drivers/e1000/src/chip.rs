//! What differs between the families, as data and a few steps; and which card is of which family.

use crate::descriptor::Format;
use crate::{e1000, e1000e, igb};
use hal::{Clock, Registers};

/// Vendor ID of all cards.
const INTEL: u16 = 0x8086;

/// Which manual a card follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// 82540EM, 82545EM and their like.
    E1000,
    /// 82574L.
    E1000e,
    /// 82576, I350, I210.
    Igb,
}

/// A card that this crate drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model {
    /// Its name, as Intel writes it.
    pub name: &'static str,
    /// Its family.
    pub family: Family,
}

impl Model {
    /// The model of a PCI device; `None` for a card that this crate does not know.
    pub fn of(vendor: u16, device: u16) -> Option<Self> {
        let families =
            [(Family::E1000, e1000::MODELS), (Family::E1000e, e1000e::MODELS), (Family::Igb, igb::MODELS)];
        families.into_iter().filter(|_| vendor == INTEL).find_map(|(family, models)| {
            let (_, name) = models.iter().find(|(id, _)| *id == device)?;
            Some(Model { name, family })
        })
    }
}

impl Family {
    /// All of them.
    pub const ALL: [Family; 3] = [Family::E1000, Family::E1000e, Family::Igb];

    /// The driver's name, as other systems call it.
    pub const fn name(self) -> &'static str {
        match self {
            Family::E1000 => "e1000",
            Family::E1000e => "e1000e",
            Family::Igb => "igb",
        }
    }

    pub(crate) const fn chip(self) -> &'static Chip {
        match self {
            Family::E1000 => &e1000::CHIP,
            Family::E1000e => &e1000e::CHIP,
            Family::Igb => &igb::CHIP,
        }
    }
}

/// The registers of one queue, by the offset of the first: the same distances in all families.
#[derive(Clone, Copy, Debug)]
pub struct Queue(pub usize);

impl Queue {
    /// Base address of the ring, low half.
    pub const fn base_low(self) -> usize {
        self.0
    }
    /// And high half.
    pub const fn base_high(self) -> usize {
        self.0 + 0x04
    }
    /// Bytes of the ring.
    pub const fn length(self) -> usize {
        self.0 + 0x08
    }
    /// Split and replication receive control (igb).
    pub const fn split(self) -> usize {
        self.0 + 0x0c
    }
    /// The card's place.
    pub const fn head(self) -> usize {
        self.0 + 0x10
    }
    /// Ours.
    pub const fn tail(self) -> usize {
        self.0 + 0x18
    }
    /// Descriptor control.
    pub const fn control(self) -> usize {
        self.0 + 0x28
    }
}

/// The registers of interrupts.
#[derive(Clone, Copy, Debug)]
pub struct Interrupts {
    /// Causes; reading clears them.
    pub cause: usize,
    /// Causes as if they had happened.
    pub provoke: usize,
    /// Mask: causes to be let through.
    pub let_through: usize,
    /// Mask: causes to be held back.
    pub hold_back: usize,
    /// The least time between two interrupts, and what to write there for 20 us. That costs a guest's round trip little and a
    /// flood of frames 50,000 exits a second at most.
    pub throttle: (usize, u32),
}

/// The EEPROM's read register.
#[derive(Clone, Copy, Debug)]
pub struct Eeprom {
    /// Where the word's address stands in it.
    pub address_shift: u32,
    /// The bit that says that the word is there.
    pub done: u32,
}

/// How the PHY is shared with the card's firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhyOwner {
    /// Nobody else uses it.
    Us,
    /// A bit in EXTCNF_CTRL (82574 datasheet 10.2.2.5).
    Ownership,
    /// A semaphore that guards a register of owners (82576 datasheet 4.7).
    Semaphore,
}

/// What differs.
pub struct Chip {
    /// Bytes of registers that the driver touches.
    pub window: usize,
    /// Receive queue 0.
    pub receive: Queue,
    /// Transmit queue 0.
    pub transmit: Queue,
    /// Interrupts.
    pub interrupts: Interrupts,
    /// Descriptors.
    pub format: Format,
    /// EEPROM.
    pub eeprom: Eeprom,
    /// PHY.
    pub phy: PhyOwner,
    /// The PHY is told to negotiate at each start: the link may not come by itself (on QEMU's 82576 it does not).
    pub negotiate: bool,
    /// On PCI Express: bus mastering ends in an orderly way, and firmware is told that a driver is there.
    pub express: bool,
    /// CTRL: bits beside "set link up".
    pub link: u32,
    /// TCTL: bits beside those that all have.
    pub tctl: u32,
    /// Inter-packet gap, where the reset value is not right.
    pub tipg: Option<u32>,
    /// Stops what only this family has, before the reset and after it.
    pub quiesce: fn(&dyn Registers),
    /// Sets what only this family has, after the reset.
    pub set_up: fn(&dyn Registers),
    /// Starts receive queue 0, whose ring is told; before RCTL and the tail. False: it does not start.
    pub start_receive: fn(&dyn Registers, &dyn Clock) -> bool,
    /// Starts transmit queue 0, whose ring is told; before TCTL and the tail. False: it does not start.
    pub start_transmit: fn(&dyn Registers, &dyn Clock) -> bool,
    /// Stops both.
    pub stop_queues: fn(&dyn Registers),
}

/// For families that have no such step.
pub fn nothing(_: &dyn Registers) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_cards() {
        let of = |device| Model::of(0x8086, device).map(|m| (m.family, m.name));
        assert_eq!(of(0x100e), Some((Family::E1000, "82540EM")));
        assert_eq!(of(0x100f), Some((Family::E1000, "82545EM")));
        assert_eq!(of(0x10d3), Some((Family::E1000e, "82574L")));
        assert_eq!(of(0x10c9), Some((Family::Igb, "82576")));
        assert_eq!(of(0x1521), Some((Family::Igb, "I350")));
        assert_eq!(of(0x1533), Some((Family::Igb, "I210")));
        // An 82599, and another maker's card.
        assert_eq!(of(0x10fb), None);
        assert_eq!(Model::of(0x1af4, 0x100e), None);
    }

    #[test]
    fn every_card_is_in_one_family() {
        let all = [e1000::MODELS, e1000e::MODELS, igb::MODELS].concat();
        for (place, (id, _)) in all.iter().enumerate() {
            assert!(all[place + 1..].iter().all(|(other, _)| other != id), "{id:04x}");
        }
    }

    #[test]
    fn no_register_lies_outside_the_window() {
        for family in Family::ALL {
            let chip = family.chip();
            for last in [chip.receive.control(), chip.transmit.control(), chip.interrupts.cause] {
                assert!(last + 4 <= chip.window, "{}: {last:#x}", family.name());
            }
        }
    }
}
