//! The tool library behind `cargo xtask`: everything that builds, boots, tests and measures Lockstep.
//!
//! One verb is one file in [`verbs`]; what two verbs share lives in a module of its own here. The scenarios in
//! `tests/machine` use the same library, so a test and a command never do the same thing in two ways.
#![forbid(unsafe_code)]

pub mod cli;
pub mod cpio;
pub mod demo;
pub mod diverging;
pub mod emulator;
pub mod fetch;
pub mod guests;
pub mod hostfacts;
pub mod image;
pub mod libtest;
pub mod linux;
pub mod linux_image;
pub mod log;
pub mod modules;
pub mod nic;
pub mod packages;
pub mod pairing;
pub mod paths;
pub mod payload;
pub mod proof;
pub mod qemu;
pub mod replaying;
pub mod report;
pub mod run;
pub mod setup;
pub mod switch;
pub mod tidy;
pub mod ui;
pub mod verbs;
pub mod vm;
