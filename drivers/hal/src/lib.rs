//! What a driver may ask of the machine: registers, DMA memory, a clock; and the checksum that the frames of cards have.
//!
//! A driver is written over these traits and nothing else, so the same code runs in the kernel (which implements
//! them over MMIO and real frames) and in a host test (which uses [`fake`]). A trait here never hands out a raw
//! pointer: the one place that turns an address into an access is the implementor.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "fake"))]
extern crate std;

mod clock;
mod dma;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod internet_sum;
mod net;
mod registers;

pub use self::net::{Filter, Link, MacAddress, NetCounters, NetDevice, NetEvents, TransmitError};
pub use clock::Clock;
pub use dma::{DmaAllocator, DmaBuffer, DmaError, DmaRequest};
pub use internet_sum::InternetSum;
pub use registers::Registers;
