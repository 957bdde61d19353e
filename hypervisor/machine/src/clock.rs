//! The guest's one virtual clock: a function of instructions retired and of recorded corrections.

/// A correction of the clock's rate, recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Correction {
    /// Nanoseconds per counted instruction from now on, 32.32 fixed point.
    pub rate: u64,
}
