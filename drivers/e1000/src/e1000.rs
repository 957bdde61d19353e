//! The 8254x on PCI: 82540EM (Bochs, QEMU), 82545EM (QEMU, VMware) and their like. Source: "PCI/PCI-X Family of Gigabit
//! Ethernet Controllers Software Developer's Manual" (317453), called SDM here.

use crate::chip::{Chip, Eeprom, Interrupts, PhyOwner, Queue, nothing};
use crate::descriptor::Format;
use crate::register::{self, CTRL_ASDE, CTRL_FD, RDTR, TCTL_COLD};

/// Cards with a copper PHY, by PCI device ID.
pub const MODELS: &[(u16, &str)] =
    &[(0x100e, "82540EM"), (0x1015, "82540EM"), (0x100f, "82545EM"), (0x1026, "82545GM")];

/// Receive and transmit queue of all cards before the 82576.
pub const RECEIVE: Queue = Queue(0x2800);
pub const TRANSMIT: Queue = Queue(0x3800);

/// Interrupt registers of the same cards; the throttle counts in units of 256 ns.
pub const INTERRUPTS: Interrupts = Interrupts {
    cause: 0x00c0,
    provoke: 0x00c8,
    let_through: 0x00d0,
    hold_back: 0x00d8,
    throttle: (0x00c4, 78),
};

/// The family.
pub static CHIP: Chip = Chip {
    window: register::WINDOW,
    receive: RECEIVE,
    transmit: TRANSMIT,
    interrupts: INTERRUPTS,
    format: Format::Legacy,
    // SDM 13.4.4.
    eeprom: Eeprom { address_shift: 8, done: 1 << 4 },
    phy: PhyOwner::Us,
    negotiate: false,
    express: false,
    link: CTRL_ASDE | CTRL_FD,
    tctl: TCTL_COLD,
    // For copper: SDM 13.4.34.
    tipg: Some(10 | 8 << 10 | 6 << 20),
    quiesce: nothing,
    // No delay of receive interrupts beyond the throttle.
    set_up: |registers| registers.write_u32(RDTR, 0),
    start_receive: |_, _| true,
    start_transmit: |_, _| true,
    stop_queues: nothing,
};
