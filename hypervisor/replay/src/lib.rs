//! Execution points, landing, and the boot proof of the performance counters.
#![no_std]
#![forbid(unsafe_code)]
