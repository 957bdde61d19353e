//! From the loader to Rust: Multiboot2, the 32-bit entry, AP start, and the boot information.
#![no_std]
