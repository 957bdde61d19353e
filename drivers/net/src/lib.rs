//! One TCP connection over an Ethernet card: a stream of bytes each way between two hosts of one network.
//!
//! TCP, IPv4 and ARP are smoltcp's; [`Stack`] is the glue: the card as smoltcp's device, a connection that is tried until
//! the peer is there, and what its user wants to know of it. It does no I/O but through [`hal::NetDevice`], and time is a
//! parameter. It allocates when it is made, never after.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod device;
mod stack;
#[cfg(test)]
mod wire;

pub use stack::{Counters, Peer, Settings, Stack, State};
