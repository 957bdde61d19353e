//! Scenarios on emulated machines.
