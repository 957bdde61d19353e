//! What a driver may ask of the machine: registers, DMA memory, a clock.
#![no_std]
#![forbid(unsafe_code)]
