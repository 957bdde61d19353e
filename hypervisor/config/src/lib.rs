//! `lockstep.toml`: what a virtual machine is made of. Parsed by the kernel, from a module, and by the tools, from a file.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;
