//! The logging channel on this host: the log leaves by TCP on a card of its own.

mod sender;

pub use sender::{LogSender, Trouble};
