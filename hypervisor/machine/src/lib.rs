//! The computer that a guest sees: memory, processor profile, interrupt controllers, devices, PCI, firmware's tables.
//!
//! It is a deterministic state machine. Everything that can differ between two hosts comes in by [`input`], everything that
//! leaves goes out by [`output`]; time is a parameter, in nanoseconds of the guest's one virtual clock. No device
//! knows an address, a clock, a lock or an interrupt controller: [`computer`] wires them. A device's whole state is one
//! `State` that can be saved and restored exactly.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod clock;
pub mod computer;
pub mod context;
pub mod cpu;
pub mod devices;
pub mod emulate;
pub mod input;
pub mod interrupts;
pub mod load;
pub mod output;
pub mod paging;
pub mod pci;
pub mod ram;
pub mod throttle;
pub mod virtio;
