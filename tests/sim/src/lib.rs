//! The simulator of the pair: two hosts, their networks, clocks and disk, and what the outside world sees of them, all from one
//! seed.
//!
//! A host is the kernel's own `ft` and `replay` crates around a [`guest`], the toy machine.
#![forbid(unsafe_code)]

pub mod guest;
