//! Datagrams beside the connections: one UDP socket, and what it has counted.

use super::stack::Peer;
use alloc::vec;
use smoltcp::socket::udp::{PacketBuffer, PacketMetadata, Socket};
use smoltcp::wire::{IpAddress, IpEndpoint, Ipv4Address};

/// Datagrams that wait each way at most.
const QUEUE: usize = 8;

/// Bytes of a datagram at most.
pub const DATAGRAM: usize = 256;

/// What datagrams have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramCounters {
    /// Taken from the user.
    pub sent: u64,
    /// Not taken: those before it have not left, since the peer's MAC is not known, or the card is full.
    pub dropped: u64,
    /// Given to the user.
    pub received: u64,
    /// Of those that arrived, too long for the user.
    pub too_long: u64,
}

/// A socket bound to this port; 0 is none.
pub fn socket(port: u16) -> Socket<'static> {
    let buffer = || PacketBuffer::new(vec![PacketMetadata::EMPTY; QUEUE], vec![0; QUEUE * DATAGRAM]);
    let mut socket = Socket::new(buffer(), buffer());
    // It has just been made, so it is not bound; and with port 0 it stays so, and takes nothing.
    let _ = socket.bind(port);
    // They stay in their network.
    socket.set_hop_limit(Some(1));
    socket
}

pub fn send(socket: &mut Socket<'static>, to: Peer, bytes: &[u8], counters: &mut DatagramCounters) -> bool {
    let (address, port) = to;
    let to = IpEndpoint::new(IpAddress::Ipv4(Ipv4Address::from(address)), port);
    let sent = bytes.len() <= DATAGRAM && socket.send_slice(bytes, to).is_ok();
    *(if sent { &mut counters.sent } else { &mut counters.dropped }) += 1;
    sent
}

pub fn receive(
    socket: &mut Socket<'static>,
    bytes: &mut [u8],
    counters: &mut DatagramCounters,
) -> Option<(usize, Peer)> {
    while socket.can_recv() {
        let Ok((datagram, from)) = socket.recv() else { break };
        let IpAddress::Ipv4(address) = from.endpoint.addr;
        let Some(place) = bytes.get_mut(..datagram.len()) else {
            counters.too_long += 1;
            continue;
        };
        place.copy_from_slice(datagram);
        counters.received += 1;
        return Some((datagram.len(), (address.octets(), from.endpoint.port)));
    }
    None
}
