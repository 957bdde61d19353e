//! The boot proof: does this processor count what a guest retires, exactly, whatever happens around it?
//!
//! A property ([`spec`]) is a tiny guest program with exact counts known by construction, run many times while the
//! host disturbs it, then recorded step by step and landed in at random points. [`run`] drives any [`Machine`]: the
//! kernel's is a VMX guest, the tests' a simulated processor. [`report`] judges and prints.

pub mod machine;
pub mod report;
pub mod run;
pub mod spec;

pub use machine::{Entry, Exit, Machine, Why};
pub use report::{Report, Row, Verdict};
pub use run::{Form, Mark, counts_branches, prove};
pub use spec::{PROPERTIES, Property, Stub};
