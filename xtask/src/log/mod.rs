//! Logs of recordings, as people look at them: shown entry by entry, compared, counted.
//!
//! `docs/log-format.md` says what is in a log; `replay::log` reads and checks it.

pub mod advice;
pub mod diff;
pub mod dump;
pub mod item;
pub mod select;
pub mod stat;
pub mod text;

#[cfg(test)]
mod tests;
