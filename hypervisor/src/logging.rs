//! The logging channel on this host: the log leaves by TCP on a card of its own.

mod sender;
pub mod trial;

pub use sender::{LogSender, Trouble};
