//! What a guest may not send on a card that the host uses as well: frames in another's name. They would have switches and neighbours send it
//! what is a host's, or the hosts take its words for each other's. (Nobody reads the log without the key in any case; this keeps a guest from
//! tearing its pair.)

use alloc::vec::Vec;
use hal::MacAddress;

/// Bytes of Ethernet's header up to its type.
const TYPE: usize = 12;
const ARP: [u8; 2] = [8, 6];
const IPV4: [u8; 2] = [8, 0];
/// Where the sender's IPv4 address is.
const ARP_SENDER: usize = 28;
const IPV4_SENDER: usize = 26;

/// Looks at what the guest sends.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    addresses: Vec<[u8; 4]>,
    stopped: u64,
}

impl Guard {
    /// Nobody but hosts speaks from these IPv4 addresses.
    pub fn new(addresses: &[[u8; 4]]) -> Self {
        Self { addresses: addresses.into(), stopped: 0 }
    }

    /// Whether a frame of the guest must not be sent; counts it. `own`: the host's Ethernet address; `station`: the only one that the guest
    /// may send from, if there is but one.
    pub fn stops(&mut self, own: MacAddress, station: Option<MacAddress>, frame: &[u8]) -> bool {
        let source = frame.get(6..12);
        let stops = source == Some(&own.0)
            || station.is_some_and(|station| source != Some(&station.0))
            || self.speaks_for_a_host(frame);
        self.stopped += u64::from(stops);
        stops
    }

    /// Frames that were not sent.
    pub const fn stopped(&self) -> u64 {
        self.stopped
    }

    fn speaks_for_a_host(&self, frame: &[u8]) -> bool {
        let sender = match frame.get(TYPE..TYPE + 2) {
            Some(kind) if *kind == ARP => frame.get(ARP_SENDER..ARP_SENDER + 4),
            Some(kind) if *kind == IPV4 => frame.get(IPV4_SENDER..IPV4_SENDER + 4),
            _ => None,
        };
        sender.is_some_and(|sender| self.addresses.iter().any(|address| address == sender))
    }
}
