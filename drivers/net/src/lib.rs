//! TCP connections and datagrams over an Ethernet card, between two hosts of one network.
//!
//! TCP, UDP, IPv4 and ARP are smoltcp's; [`Stack`] is the glue: the card as smoltcp's device, lines whose connections are tried
//! until the peer is there, and what its user wants to know of them. It does no I/O but through [`hal::NetDevice`], and time is a
//! parameter. It allocates when it is made, never after.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod datagrams;
mod device;
mod line;
mod neighbor;
mod segment;
pub mod shared;
mod stack;
#[cfg(test)]
mod wire;

pub use datagrams::{DATAGRAM, DatagramCounters};
pub use stack::{BUDGET, Counters, LINES, Peer, Settings, Stack, State};
