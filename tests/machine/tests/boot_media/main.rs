//! The kernel boots from every medium, on every firmware, on both emulators, with what it was given: command line,
//! configuration, modules.

mod boots;
mod discs;
mod expectation;
mod network;
mod sabotage;
