//! The virtual machine that `lockstep.toml` describes: built from modules, run on the boot processor, beside the host's own
//! duties.

mod apply;
mod board;
mod build;
mod bus;
mod cards;
mod checkpoint;
mod compare;
mod digest;
mod disks;
mod feed;
mod first_state;
mod follow;
mod held;
mod inspection;
mod joining;
mod journal;
mod lead;
mod operator;
mod orders;
mod outside;
mod pace;
pub mod paging;
mod pairing;
mod recording;
mod repeats;
mod replaying;
mod run;
mod spurious;
mod tape;
mod time;
mod to_wire;
mod variation;

pub use journal::Journal;
pub use outside::Outside;
pub use run::start;
