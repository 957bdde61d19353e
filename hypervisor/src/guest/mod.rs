//! The virtual machine that `lockstep.toml` describes: built from modules, run on the boot processor, beside the host's own
//! duties.

mod apply;
mod board;
mod build;
mod bus;
mod disks;
mod first_state;
mod lead;
mod operator;
mod outside;
mod recording;
mod run;
mod tape;
mod time;

pub use run::start;
