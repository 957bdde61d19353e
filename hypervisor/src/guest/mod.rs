//! The virtual machine that `lockstep.toml` describes: built from modules, run on the boot processor, beside the host's own
//! duties.

mod board;
mod build;
mod bus;
mod disks;
mod first_state;
mod operator;
mod outside;
mod run;
mod time;

pub use run::start;
