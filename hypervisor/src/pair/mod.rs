//! This host's half of the pair: what the state machine decides is carried out here.
//!
//! [`Link::serve`] is called whenever something may have come ([`crate::duties::LOG`]), when an output needs its log to leave, and
//! while the guest waits for its log; it does all that is due, and tells the guest's side what changes for it.

mod beats;
mod generation;
mod identity;
mod link;
mod open;
mod sealing;
mod wire;

pub use link::{Ends, Link, Turn};
pub use open::{Refused, Request, Shared, open};
