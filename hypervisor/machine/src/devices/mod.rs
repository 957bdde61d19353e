//! The small devices on the board.
//!
//! Each is a struct around one plain `State` that can be saved and restored exactly. A device sees offsets within its ports,
//! and the virtual time; what an access causes outside is returned, and interrupt lines are asked for.

use core::fmt;

pub mod diagnostics;
pub mod fw_cfg;
pub mod keyboard;
pub mod pit;
pub mod pm;
pub mod rtc;
pub mod uart;

pub use diagnostics::Diagnostics;
pub use fw_cfg::FwCfg;
pub use keyboard::Keyboard;
pub use pit::Pit;
pub use pm::Pm;
pub use rtc::Rtc;
pub use uart::Uart;

/// A saved state that no device can be in: it would break what the device relies on. Says what is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadState(pub &'static str);

impl fmt::Display for BadState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl core::error::Error for BadState {}
