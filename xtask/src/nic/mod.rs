//! A network card's driver against a real peer: the test kernel `nic_frames` on a machine whose card is plugged into a peer of
//! ours, on QEMU and on the lock-step network.

pub mod lockstep;
pub mod peer;
pub mod qemu;

use std::time::Duration;

/// What to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Frames each way.
    pub frames: u32,
    /// Seed of their content.
    pub seed: u64,
    /// Kill the machine after this much wall-clock time.
    pub limit: Duration,
}
