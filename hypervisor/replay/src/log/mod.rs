//! The log: what a recorder writes and a replayer reads. `docs/log-format.md` is its specification.
//!
//! An [`entry::Entry`] says what came into the virtual machine, and where. [`codec`] packs entries, each against those before
//! ([`places`], [`rates`], and for the headers of [`frame`]s [`flows`]); they travel in [`block`]s, each with a checksum; the first block is the [`header`]. The same bytes are the log's file and what passes on the
//! logging channel. [`open`] checks a whole log and walks over it, and every way in which a log can be bad has its own
//! [`error::Error`]. [`stream`] reads a log while it arrives.

pub mod block;
pub mod buffer;
pub mod bytes;
pub mod checksum;
pub mod codec;
pub mod entry;
pub mod error;
pub mod flows;
pub mod frame;
pub mod header;
pub mod open;
pub mod places;
mod rates;
mod shape;
pub mod stream;
pub mod writer;
