//! An Ethernet device as its users see it.

use core::fmt;

/// An Ethernet (EUI-48) address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The address of everybody.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// True for group (multicast and broadcast) addresses.
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// True if a station can have it: not a group address, not all zero.
    pub const fn is_station(self) -> bool {
        !self.is_group() && !matches!(self.0, [0, 0, 0, 0, 0, 0])
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// State of the cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// No partner.
    Down,
    /// A partner at this speed.
    Up {
        /// Speed in megabit per second.
        megabits: u32,
        /// Both directions at once.
        full_duplex: bool,
    },
}

/// Why a frame was not taken for sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransmitError {
    /// All descriptors are in use; try again once the device has sent some.
    Full,
    /// Shorter than an Ethernet header or longer than the device sends.
    Length(usize),
}

impl fmt::Display for TransmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => write!(f, "the transmit ring is full"),
            Self::Length(n) => write!(f, "a frame of {n} bytes cannot be sent"),
        }
    }
}

impl core::error::Error for TransmitError {}

/// What happened since the driver started. Counters only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetCounters {
    /// Frames handed to the user of the driver.
    pub received: u64,
    /// Bytes of those frames, without FCS.
    pub received_bytes: u64,
    /// Frames given to the device for sending.
    pub sent: u64,
    /// Bytes of those frames, without FCS and padding.
    pub sent_bytes: u64,
    /// Frames the device dropped because no receive buffer was free.
    pub missed: u64,
    /// Frames the device saw damaged (CRC, symbol, alignment, length).
    pub receive_errors: u64,
    /// Descriptors the driver rejected: impossible length, or a frame over several buffers.
    pub bad_descriptors: u64,
    /// Attempts to send that found the ring full.
    pub transmit_full: u64,
    /// Frames the device gave up sending (collisions).
    pub transmit_errors: u64,
}

/// Which frames the device receives beside those to its own address and to everybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Frames to this station too.
    pub station: Option<MacAddress>,
    /// Frames to every group.
    pub groups: bool,
    /// All frames.
    pub everything: bool,
}

/// Things that happen to a device, and may interrupt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetEvents {
    /// A frame was received, or missed for want of a buffer.
    pub received: bool,
    /// A frame was sent: there is room for another.
    pub sent: bool,
    /// The cable was plugged or pulled.
    pub link: bool,
}

impl NetEvents {
    /// Nothing.
    pub const NONE: Self = Self { received: false, sent: false, link: false };
}

/// An Ethernet device: whole frames, without FCS, in and out.
///
/// All methods poll and return at once. `receive` lends the frame in place of copying it twice: what the closure
/// gets lives until it returns.
pub trait NetDevice {
    /// Its own address.
    fn mac(&self) -> MacAddress;

    /// State of the cable now.
    fn link(&self) -> Link;

    /// Largest frame in bytes, header included, FCS not.
    fn max_frame(&self) -> usize;

    /// Queues one frame. Nothing is kept of `frame` after the return.
    fn transmit(&mut self, frame: &[u8]) -> Result<(), TransmitError>;

    /// Hands over at most `budget` received frames, oldest first, and gives their buffers back to the device.
    /// Returns how many.
    fn receive(&mut self, budget: usize, sink: &mut dyn FnMut(&[u8])) -> usize {
        self.receive_while(budget, &mut |frame| {
            sink(frame);
            true
        })
    }

    /// The same, until `sink` says by `false` that it does not take this frame: it stays the oldest.
    fn receive_while(&mut self, budget: usize, sink: &mut dyn FnMut(&[u8]) -> bool) -> usize;

    /// Chooses which frames come. At the start: those to its own address and to everybody.
    fn set_filter(&mut self, filter: Filter);

    /// Chooses what interrupts, from now on. At the start nothing does.
    fn set_events(&mut self, wanted: NetEvents);

    /// What has happened since the last call, wanted or not. Ends the interrupt.
    fn take_events(&mut self) -> NetEvents;

    /// Makes the device interrupt as if its link had changed, to learn whether interrupts arrive.
    fn provoke(&mut self);

    /// Totals so far.
    fn counters(&mut self) -> NetCounters;
}

#[cfg(test)]
mod tests {
    use super::MacAddress;
    use std::format;

    #[test]
    fn addresses() {
        assert!(MacAddress::BROADCAST.is_group());
        assert!(MacAddress([0x01, 0, 0x5e, 0, 0, 1]).is_group());
        assert!(!MacAddress([0; 6]).is_station());
        let station = MacAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        assert!(station.is_station());
        assert_eq!(format!("{station}"), "52:54:00:12:34:56");
    }
}
