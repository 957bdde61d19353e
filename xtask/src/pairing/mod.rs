//! The pair on emulated machines: two hosts on the lock-step network, the arbiter, the guest's outside world, what befalls them, and
//! what came of it.

pub mod campaign;
pub mod events;
pub mod free;
pub mod incident;
pub mod marks;
pub mod outside;
pub mod plan;
pub mod run;
pub mod typed;
pub mod watch;
