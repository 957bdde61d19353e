//! The log: what a recorder writes and a replayer reads. `docs/log-format.md` is its specification.
//!
//! An [`entry::Entry`] says what came into the virtual machine, and where. Entries are packed into blocks, each with a
//! checksum; the first block is the [`header`]. The same bytes are the log's file and what passes on the logging channel.

pub mod buffer;
pub mod entry;
