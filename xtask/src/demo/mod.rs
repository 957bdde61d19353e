//! The demonstrations: a pair of emulated hosts whose primary dies ([`pair`]), and one host by itself ([`single`]).
//!
//! [`story`] turns what a run shows into what a person wants to know, [`screen`] draws it, [`svg`] records it, and [`figures`] say at
//! the end what it came to. All but [`pair`] and [`single`] are pure.

pub mod figures;
pub mod pair;
pub mod screen;
pub mod single;
pub mod story;
pub mod svg;
