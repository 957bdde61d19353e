//! The switch between emulated machines: in lock-step with them for tests, free-running for people.
//!
//! In lock-step the switch is the clock: each emulator meets it at every quantum of emulated time, hands over its
//! frames, and is let go with the frames that are due in the next. A pair of hosts, their network and its faults are
//! then one function of a seed, however loaded the machine is. docs/switch.md has the protocol and the scenarios.
//!
//! [`core`] and what it is made of are pure; [`process`] does the sockets, [`free`] the wall-clock mode.

pub mod cable;
pub mod config;
pub mod core;
pub mod fabric;
pub mod free;
pub mod pcap;
pub mod pingpong;
pub mod process;
pub mod ring;
pub mod rng;
pub mod scenario;
pub mod station;
pub mod time;
pub mod wire;
pub mod world;

pub use pingpong::{Game, Played, play as pingpong};
