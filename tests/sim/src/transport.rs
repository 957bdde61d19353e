//! The connection of the logging channel: host 1 connects, host 0 listens. It may be up for one host and down for the other.

use crate::links::Pipe;

/// The connection.
#[derive(Debug, Default)]
pub struct Connection {
    /// How often one was made: what belongs to an earlier one is void.
    pub epoch: u64,
    /// Whether each host believes that it has this one.
    pub up: [bool; 2],
    /// What each host has sent.
    pub pipes: [Pipe; 2],
}

impl Connection {
    /// A new one. Each host learns of it by itself.
    pub fn begin(&mut self) -> u64 {
        *self = Self { epoch: self.epoch + 1, ..Self::default() };
        self.epoch
    }

    /// Whether this is the connection, and a host has it.
    pub const fn is_up(&self, host: usize, epoch: u64) -> bool {
        self.epoch == epoch && self.up[host]
    }

    /// A host sends bytes that will be there at this moment at the earliest. Gives when they will be; nothing if there is no room.
    pub fn send(&mut self, host: usize, arrive: u64, bytes: &[u8]) -> Option<u64> {
        (self.up[host] && self.pipes[host].room() >= bytes.len())
            .then(|| self.pipes[host].send(arrive, bytes.to_vec()))
    }
}
