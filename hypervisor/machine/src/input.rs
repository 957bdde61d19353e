//! One of the two doors: everything that comes into the virtual machine from outside, while the virtual processor is
//! stopped, at a point of its execution that the recorder names.

use crate::output::Power;

/// Something from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// Bytes typed at the serial console.
    Console(&'a [u8]),
    /// Bytes for the virtio console.
    SideConsole(&'a [u8]),
    /// A frame for the network device of this index, whole, without FCS.
    Frame {
        /// The network device.
        device: u8,
        /// The frame.
        frame: &'a [u8],
    },
    /// There is a frame for the network device of this index, but the guest has no buffer for it
    /// ([`crate::pci::Pci::has_buffer_for`]): the guest is asked to tell when it has.
    Starved {
        /// The network device.
        device: u8,
    },
    /// The link of the network device of this index goes up or down.
    Link {
        /// The network device.
        device: u8,
        /// Up.
        up: bool,
    },
    /// The clock's rate is corrected: see [`crate::clock`].
    Clock(crate::clock::Correction),
    /// A halted processor goes on at this virtual time.
    Wake {
        /// Nanoseconds.
        at: crate::context::Instant,
    },
    /// The operator's hand: the power button's long press, or the reset button.
    Power(Power),
    /// The operator presses the power button: the guest is asked by ACPI to shut down.
    PowerButton,
}
