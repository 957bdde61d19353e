//! The tool library behind `cargo xtask`.
