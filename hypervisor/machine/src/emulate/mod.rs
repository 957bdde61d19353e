//! Instructions that the processor does not execute for the guest: accesses of device memory, string I/O.
