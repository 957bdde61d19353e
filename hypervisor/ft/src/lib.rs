//! The pair: two hosts, one virtual machine in lockstep. Sans-I/O: bytes, frames, time and seeds are parameters.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod announce;
pub mod arbiter;
pub mod channel;
pub mod datagram;
pub mod detect;
pub mod heartbeat;
pub mod histogram;
pub mod history;
pub mod keys;
pub mod lag;
pub mod outputs;
pub mod pair;
pub mod seal;
pub mod side;
mod text;
pub mod timeline;

pub use text::{TEXT, Text};
