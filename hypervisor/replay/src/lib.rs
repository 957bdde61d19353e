//! Execution points, landing, and the boot proof of the performance counters.
//!
//! Deterministic replay rests on one claim: the processor counts what the guest retires, exactly, whatever the
//! host does meanwhile. [`point`] names a place in a guest's execution by such counts, [`landing`] stops the
//! guest exactly there, [`margin`] says how early the counter's interrupt has to be armed, and [`proof`] tests
//! the claim at boot, property by property; [`pmu`] plans what is written to the counters. Everything here is pure: no clock, no I/O, no allocation.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod check;
pub mod course;
pub mod digest;
pub mod exits_hash;
pub mod landing;
pub mod log;
pub mod margin;
pub mod pmu;
pub mod point;
pub mod proof;
pub mod recorder;
pub mod repeat;
pub mod replayer;
pub mod seed;
