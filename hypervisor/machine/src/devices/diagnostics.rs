//! The ports for diagnosis: the POST code and the firmware's debug port.

use serde::{Deserialize, Serialize};

use super::BadState;

/// What the debug port (402h) reads as: firmware asks for it to know that the port is there.
pub const DEBUG_READS: u8 = 0xe9;

/// All there is to save.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The last POST code.
    pub post: u8,
}

/// The latch behind port 80h. Bytes of the debug port leave by the door; nothing of them stays.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics(State);

impl Diagnostics {
    /// After power-on.
    pub fn new() -> Self {
        Self::default()
    }

    /// The state.
    pub fn save(&self) -> State {
        self.0.clone()
    }

    /// The device that was saved.
    ///
    /// # Errors
    /// None: every state is valid.
    pub fn restore(state: State) -> Result<Self, BadState> {
        Ok(Self(state))
    }

    /// As after power-on.
    pub fn reset(&mut self) {
        *self = Self::new();
    }

    /// Port 80h.
    pub fn read_post(&self) -> u8 {
        self.0.post
    }

    /// Port 80h.
    pub fn write_post(&mut self, value: u8) {
        self.0.post = value;
    }
}
