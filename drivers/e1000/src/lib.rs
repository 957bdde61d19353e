//! Intel's gigabit Ethernet controllers: 8254x (Bochs, QEMU's e1000), 82574 (QEMU's e1000e), 82576, I350 and I210 (QEMU's
//! igb, and servers).
//!
//! One file per family says what differs; rings, start, sending and receiving are shared. Polled or interrupted (pin or MSI: no
//! card needs MSI-X for one queue), with a copy on each side; no allocation after [`Nic::new`]. Sources: the family's file names its
//! manual; "SDM" is that of the 8254x (317453).
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod chip;
mod descriptor;
mod device;
mod e1000;
mod e1000e;
mod eeprom;
mod igb;
mod init;
#[cfg(test)]
mod model;
mod phy;
mod register;
mod ring;

pub use chip::{Family, Model};
pub use device::{Cause, Nic};
pub use init::{InitError, Rings};
