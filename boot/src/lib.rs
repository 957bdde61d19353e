//! From the loader to Rust: Multiboot2, the 32-bit entry, AP start, and the boot information.
#![no_std]
#![deny(unsafe_code)]

#[cfg(test)]
extern crate std;

#[cfg(target_os = "none")]
#[allow(unsafe_code)]
pub mod entry;
pub mod memory_map;
pub mod multiboot;
