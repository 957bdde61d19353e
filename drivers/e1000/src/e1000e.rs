//! The 82574L on PCI Express: QEMU's e1000e. Source: "Intel 82574 GbE Controller Family Datasheet" (317694).

use crate::chip::{Chip, Eeprom, PhyOwner, nothing};
use crate::descriptor::Format;
use crate::e1000::{INTERRUPTS, RECEIVE, TRANSMIT};
use crate::register::{self, CTRL_ASDE, CTRL_FD, RDTR, TCTL_COLD};

/// Cards by PCI device ID.
pub const MODELS: &[(u16, &str)] = &[(0x10d3, "82574L"), (0x10f6, "82574LA")];

/// TXDCTL bit 22: reserved, must be written as 1 (datasheet 10.2.6.9).
pub const TXDCTL_MUST_BE_ONE: u32 = 1 << 22;

/// The family.
pub static CHIP: Chip = Chip {
    window: register::WINDOW,
    receive: RECEIVE,
    transmit: TRANSMIT,
    interrupts: INTERRUPTS,
    format: Format::Legacy,
    // Datasheet 10.2.2.3.
    eeprom: Eeprom { address_shift: 2, done: 1 << 1 },
    phy: PhyOwner::Ownership,
    negotiate: false,
    express: true,
    link: CTRL_ASDE | CTRL_FD,
    tctl: TCTL_COLD,
    // Datasheet 10.2.6.2.
    tipg: Some(8 | 8 << 10 | 6 << 20),
    quiesce: nothing,
    // No delay of receive interrupts beyond the throttle.
    set_up: |registers| registers.write_u32(RDTR, 0),
    start_receive: |_, _| true,
    start_transmit: |registers, _| {
        registers.modify_u32(TRANSMIT.control(), 0, TXDCTL_MUST_BE_ONE);
        true
    },
    stop_queues: nothing,
};
