//! VMX as types: VMCS fields, capability negotiation, exit decoding, EPT, event injection.
//!
//! Everything but [`instructions`] is pure: it works on numbers that somebody else read, and is tested on the host.
#![no_std]
#![deny(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod caps;
pub mod controls;
pub mod ept;
pub mod errors;
pub mod exit;
pub mod fields;
pub mod guest_state;
pub mod inject;
pub mod instructions;
pub mod io_bitmap;
pub mod msr_bitmap;
#[cfg(test)]
pub(crate) mod recorded;
pub mod requirements;
#[cfg(test)]
pub(crate) mod testing;
