//! Intel 8254x and 82574 Ethernet controllers.
#![no_std]
#![forbid(unsafe_code)]
