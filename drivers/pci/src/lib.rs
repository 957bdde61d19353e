//! PCI and PCI Express configuration space: addresses, enumeration, BARs and capabilities.
//!
//! Pure: everything goes through [`ConfigSpace`], which the kernel implements over ECAM ([`ecam`]) or over the ports
//! 0xCF8/0xCFC ([`ports`]), and the tests over an array. Sources: PCI Local Bus 3.0, PCI-to-PCI Bridge 1.2, PCI
//! Express Base 5.0, PCI Firmware 3.2.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod address;
mod bar;
mod capability;
mod config;
pub mod ecam;
mod function;
pub mod ports;
#[cfg(test)]
mod testing;
mod walk;

pub use address::Address;
pub use bar::{Bar, BarError, Bars, read_bars};
pub use capability::{Capabilities, Capability, ExtendedCapabilities, ExtendedCapability, Msi, MsiX, id};
pub use config::{ConfigSpace, command, register};
pub use function::{Bridge, Class, Function, HeaderKind};
pub use walk::{Walk, walk};
