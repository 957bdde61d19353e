//! PCI and PCI Express configuration space.
#![no_std]
#![forbid(unsafe_code)]
