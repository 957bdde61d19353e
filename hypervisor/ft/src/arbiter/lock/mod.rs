//! The lock server: an arbiter for tests. UDP datagrams of fixed length; `docs/lock-server.md` is their specification.
//!
//! It is UNSAFE: what the server knows is in its memory alone, and nothing authenticates it.

mod client;
mod server;
#[cfg(test)]
mod tests;
pub mod wire;

pub use client::{Client, Settings};
pub use server::{Counters, Server};
