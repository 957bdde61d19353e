//! Random code and random drivers: what a hostile guest does, as a function of a seed.

pub mod code;
pub mod random;
pub mod rings;
