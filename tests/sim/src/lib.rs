//! The simulator of the pair: two hosts, their networks, clocks and disk, and what the outside world sees of them, all from one
//! seed.
//!
//! A [`host`] is the kernel's own `ft` and `replay` crates around a [`guest`], the toy machine. [`plan`] is what a seed has in
//! store, [`world`] what happens, [`god`] and `verdict` what must hold. [`mutant`] plants bugs, [`campaign`] runs many seeds.
#![forbid(unsafe_code)]

pub mod campaign;
pub mod clock;
pub mod facts;
mod flow;
pub mod god;
pub mod guest;
pub mod host;
pub mod links;
pub mod mutant;
pub mod observer;
pub mod plan;
mod protocol;
mod sealed;
pub mod transport;
mod verdict;
pub mod world;
