//! Intel 8254x and 82574 Ethernet controllers: the cards of Bochs, QEMU (e1000 and e1000e) and many servers.
//!
//! Polled, with legacy descriptors and a copy on each side; no allocation after [`E1000::new`]. Sources: "PCI/PCI-X
//! Family of Gigabit Ethernet Controllers Software Developer's Manual" (317453, called SDM here) and "Intel 82574 GbE
//! Controller Family Datasheet" (317694).
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod descriptor;
mod device;
mod eeprom;
mod init;
#[cfg(test)]
mod model;
mod register;
mod ring;

pub use device::{Cause, E1000};
pub use init::{InitError, Rings};
pub use register::Family;
