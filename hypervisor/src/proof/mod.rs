//! The boot proof on this processor: its guest, its counters, its verdict on the console.
//!
//! What is tested, and how it is judged, is `replay::proof`; here is the machine under it. [`run`] is called once, on the
//! boot processor in VMX root operation, before the pools are closed.

mod layout;
mod stubs;

#[cfg(target_os = "none")]
mod guest;
#[cfg(target_os = "none")]
mod machine;
#[cfg(target_os = "none")]
mod start;

#[cfg(target_os = "none")]
pub use start::{Outcome, end_if_failed, report, run, tell};
