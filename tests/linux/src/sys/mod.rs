//! What needs `unsafe`: system calls, memory shared with the kernel, code whose instructions are known.
#![allow(unsafe_code)]

pub mod code;
pub mod kvm;
pub mod machine;
pub mod perf;
