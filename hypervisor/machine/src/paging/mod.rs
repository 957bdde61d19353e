//! The guest's paging structures, watched: which pages of RAM the processor's walks can reach, so that accessed and dirty
//! bits change only where the hypervisor sees it, and the instructions that write to such pages, done quickly.
//!
//! docs/paging.md says how strict paging works and why it is sound.

pub mod format;
pub mod store;
pub mod tracker;
pub mod views;
