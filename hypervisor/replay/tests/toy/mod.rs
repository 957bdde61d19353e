//! A toy virtual machine that is recorded and replayed the way the kernel does it.

pub mod computer;
pub mod cpu;
pub mod lead;
pub mod machine;
pub mod program;
pub mod track;
