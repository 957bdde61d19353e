//! A toy virtual machine that is recorded and replayed the way the kernel does it.
//!
//! [`program`] makes a random program, [`cpu`] executes it with VM exits and a counter as a processor has them, [`computer`] is
//! what it talks to, [`machine`] joins the two. [`lead`] records a run, [`track`] replays it.
#![forbid(unsafe_code)]

pub mod computer;
pub mod cpu;
pub mod lead;
pub mod machine;
pub mod program;
pub mod track;
