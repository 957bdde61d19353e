//! What an access of the guest reaches besides the device that it names.

use crate::output::{Disk, Output};
use crate::ram::Ram;

/// A moment of the guest's one virtual clock: nanoseconds since its power-on. The guest's time-stamp counter runs at
/// exactly 1 GHz, so a tick of it is one of these.
pub type Instant = u64;

/// What an access of the guest reaches besides the device that it names.
pub struct Context<'c, 'r> {
    /// The guest's memory.
    pub ram: &'c mut Ram<'r>,
    /// The virtual time of the access.
    pub now: Instant,
    /// The door out.
    pub out: &'c mut dyn Output,
    /// The disks behind the block devices, by index.
    pub disks: &'c mut [&'r mut dyn Disk],
}
