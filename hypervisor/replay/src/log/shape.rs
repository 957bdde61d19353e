//! What a frame's headers are and where their fields lie, as far as they can be predicted.

use super::frame::HEAD;
use hal::InternetSum;

/// The shortest Ethernet frame without FCS, bytes: shorter ones are padded.
pub const SHORTEST: usize = 60;

/// The network's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Nothing that is known.
    Other,
    /// IP version 4 without options.
    V4,
    /// IP version 6.
    V6,
}

/// The transport's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Nothing that is known, or not the first fragment.
    Other,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP for IP version 4.
    Icmp,
}

/// The shape of a frame's headers. Every place in it is within its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Bytes of the frame that are predicted, at most [`HEAD`].
    head: u8,
    pub network: Network,
    /// Where the network's header begins.
    ip: u8,
    pub transport: Transport,
    /// Where the transport's header begins.
    segment: u8,
    /// Where the value of TCP's time-stamps option begins; 0: there is none.
    pub stamps: u8,
}

const TYPE_V4: [u8; 2] = [0x08, 0x00];
const TYPE_V6: [u8; 2] = [0x86, 0xDD];
const TYPE_VLAN: [u8; 2] = [0x81, 0x00];

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Bytes of headers without options.
const V4_HEADER: usize = 20;
const V6_HEADER: usize = 40;
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

/// What TCP's options begin with where they are aligned time-stamps (RFC 7323, appendix A).
const STAMPS: [u8; 4] = [1, 1, 8, 10];

impl Shape {
    /// Of a frame of which `first` is the beginning, [`HEAD`] bytes or all of it.
    pub fn of(first: &[u8]) -> Self {
        Self::known(first).unwrap_or_else(|| Self::other(first))
    }

    fn other(first: &[u8]) -> Self {
        let head = first.len().min(HEAD) as u8;
        Self { head, network: Network::Other, ip: 0, transport: Transport::Other, segment: 0, stamps: 0 }
    }

    fn known(first: &[u8]) -> Option<Self> {
        let mut ip = 14;
        let mut kind = first.get(12..ip)?;
        if kind == TYPE_VLAN {
            ip = 18;
            kind = first.get(16..ip)?;
        }
        let header = first.get(ip..)?;
        let (network, length, protocol) = if kind == TYPE_V4 && *header.first()? == 0x45 {
            let fragment = header.get(6)? & 0x3F != 0 || *header.get(7)? != 0;
            (Network::V4, V4_HEADER, if fragment { 0 } else { *header.get(9)? })
        } else if kind == TYPE_V6 && *header.first()? >> 4 == 6 {
            let protocol = *header.get(6)?;
            (Network::V6, V6_HEADER, if protocol == ICMP { 0 } else { protocol })
        } else {
            return None;
        };
        let segment = ip + length;
        let inside = first.get(segment..)?;
        let (transport, head) = match protocol {
            TCP => (Transport::Tcp, segment + usize::from(*inside.get(12)? >> 4) * 4),
            UDP => (Transport::Udp, segment + UDP_HEADER),
            ICMP => (Transport::Icmp, first.len()),
            _ => (Transport::Other, segment),
        };
        let least = match transport {
            Transport::Tcp => TCP_HEADER,
            Transport::Udp | Transport::Icmp => UDP_HEADER,
            Transport::Other => 0,
        };
        if head < segment + least || head > first.len().min(HEAD) {
            return None;
        }
        let options = segment + TCP_HEADER;
        let stamped = transport == Transport::Tcp
            && head >= options + 12
            && first.get(options..options + 4) == Some(&STAMPS);
        let stamps = if stamped { options + 4 } else { 0 };
        Some(Self {
            head: head as u8,
            network,
            ip: ip as u8,
            transport,
            segment: segment as u8,
            stamps: stamps as u8,
        })
    }

    /// Bytes of the frame that are predicted.
    pub const fn head(&self) -> usize {
        self.head as usize
    }

    /// Where the network's header has this byte.
    pub const fn ip(&self, offset: usize) -> usize {
        self.ip as usize + offset
    }

    /// Where the transport's header has this byte.
    pub const fn segment(&self, offset: usize) -> usize {
        self.segment as usize + offset
    }

    /// Where the network's header has the length; `None`: there is none.
    pub const fn length(&self) -> Option<usize> {
        match self.network {
            Network::Other => None,
            Network::V4 => Some(self.ip(2)),
            Network::V6 => Some(self.ip(4)),
        }
    }

    /// What the network's length leaves out of the frame's: bytes before what it counts.
    pub const fn before(&self) -> usize {
        match self.network {
            Network::Other => 0,
            Network::V4 => self.ip(0),
            Network::V6 => self.ip(V6_HEADER),
        }
    }

    /// Where the checksum of the network's header lies.
    pub const fn header_sum(&self) -> Option<usize> {
        match self.network {
            Network::V4 => Some(self.ip(10)),
            Network::Other | Network::V6 => None,
        }
    }

    /// Where the transport's checksum lies.
    pub const fn segment_sum(&self) -> Option<usize> {
        match self.transport {
            Transport::Tcp => Some(self.segment(16)),
            Transport::Udp => Some(self.segment(6)),
            Transport::Icmp => Some(self.segment(2)),
            Transport::Other => None,
        }
    }

    /// The checksum of the network's header, as it should be.
    pub fn right_header_sum(&self, head: &[u8; HEAD]) -> [u8; 2] {
        let mut sum = InternetSum::new();
        sum.add(&head[self.ip(0)..self.ip(10)]);
        sum.add(&head[self.ip(12)..self.ip(V4_HEADER)]);
        sum.finish()
    }

    /// The transport's checksum, as it should be: `tail` is what follows the head in the frame, and the network's length is
    /// `natural` bytes from the frame's beginning. Zeros where these do not fit.
    pub fn right_segment_sum(&self, head: &[u8; HEAD], tail: [&[u8]; 2], natural: usize) -> [u8; 2] {
        let (Some(place), Some(inside)) = (self.segment_sum(), natural.checked_sub(self.head())) else {
            return [0; 2];
        };
        let near = tail[0].len().min(inside);
        let Some(far) = tail[1].get(..inside - near) else { return [0; 2] };
        let mut sum = InternetSum::new();
        if self.transport != Transport::Icmp {
            // The pseudo header.
            let (addresses, protocol) = match self.network {
                Network::V4 => (self.ip(12)..self.ip(20), self.ip(9)),
                _ => (self.ip(8)..self.ip(40), self.ip(6)),
            };
            sum.add(&head[addresses]);
            let [high, low] = ((natural - self.segment(0)) as u16).to_be_bytes();
            sum.add(&[0, head[protocol], high, low]);
        }
        sum.add(&head[self.segment(0)..place]);
        sum.add(&head[place + 2..self.head()]);
        sum.add(&tail[0][..near]);
        sum.add(far);
        match sum.finish() {
            // None is sent as the other zero (RFC 768).
            [0, 0] if self.transport == Transport::Udp => [0xFF; 2],
            sum => sum,
        }
    }

    /// A number that frames of one flow have in common, and others hardly ever.
    pub fn flow(&self, head: &[u8; HEAD]) -> u64 {
        let ports = match self.transport {
            Transport::Tcp | Transport::Udp => self.segment(0)..self.segment(4),
            Transport::Icmp | Transport::Other => 0..4,
        };
        let addresses = match self.network {
            Network::V4 => self.ip(12)..self.ip(20),
            Network::V6 => self.ip(8)..self.ip(40),
            Network::Other => 6..14,
        };
        let mut flow = (u64::from(self.head) << 8) + self.network as u64 * 4 + self.transport as u64;
        for word in head[addresses].as_chunks::<8>().0 {
            flow = crate::digest::hash::fold(flow, u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..4].copy_from_slice(&head[ports]);
        crate::digest::hash::fold(flow, u64::from_le_bytes(last))
    }
}
