//! Datagrams beside the connections: one port, a UDP socket for each destination, and what they have counted.

use super::stack::Peer;
use alloc::vec;
use alloc::vec::Vec;
use smoltcp::iface::{SocketHandle, SocketSet, SocketStorage};
use smoltcp::socket::udp::{PacketBuffer, PacketMetadata, Socket};
use smoltcp::wire::{IpAddress, IpEndpoint, Ipv4Address};

/// Destinations that datagrams have at a time. Each has a queue of its own: what waits for one whose hardware address nobody tells
/// holds up no other.
pub const DESTINATIONS: usize = 4;

/// Datagrams that wait each way at most, for each destination.
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

fn socket(port: u16) -> Socket<'static> {
    let buffer = || PacketBuffer::new(vec![PacketMetadata::EMPTY; QUEUE], vec![0; QUEUE * DATAGRAM]);
    let mut socket = Socket::new(buffer(), buffer());
    // It has just been made, so it is not bound; and with port 0 it stays so, and takes nothing.
    let _ = socket.bind(port);
    // They stay in their network.
    socket.set_hop_limit(Some(1));
    socket
}

/// Where datagrams go to.
struct Destination {
    handle: SocketHandle,
    address: Option<[u8; 4]>,
    /// When its hardware address is asked for, nanoseconds: something waits.
    ask_at: Option<u64>,
}

/// The datagrams of a port.
pub struct Datagrams {
    /// A set of their own.
    pub sockets: SocketSet<'static>,
    /// Something may wait to be sent.
    waiting: bool,
    destinations: [Destination; DESTINATIONS],
    /// How long something waits before the hardware address is asked for, nanoseconds.
    ask_ns: u64,
    pub counters: DatagramCounters,
}

impl Datagrams {
    /// Sockets for this port. The first of them gets all that arrives.
    pub fn new(port: u16, ask_ns: u64) -> Self {
        let mut places: Vec<SocketStorage<'static>> = Vec::new();
        places.resize_with(DESTINATIONS, || SocketStorage::EMPTY);
        let mut sockets = SocketSet::new(places);
        let destinations = core::array::from_fn(|_| Destination {
            handle: sockets.add(socket(port)),
            address: None,
            ask_at: None,
        });
        Self { sockets, waiting: false, destinations, ask_ns, counters: DatagramCounters::default() }
    }

    /// Whether something may wait to be sent.
    pub const fn wait(&self) -> bool {
        self.waiting
    }

    /// Takes a datagram; whether there was room for it.
    pub fn send(&mut self, to: Peer, bytes: &[u8]) -> bool {
        let (address, port) = to;
        let sent = bytes.len() <= DATAGRAM
            && self.place(address).is_some_and(|handle| {
                let to = IpEndpoint::new(IpAddress::Ipv4(Ipv4Address::from(address)), port);
                self.sockets.get_mut::<Socket<'static>>(handle).send_slice(bytes, to).is_ok()
            });
        self.waiting |= sent;
        *(if sent { &mut self.counters.sent } else { &mut self.counters.dropped }) += 1;
        sent
    }

    /// The socket of a destination: its own, or one that nothing waits in.
    fn place(&mut self, address: [u8; 4]) -> Option<SocketHandle> {
        let sockets = &self.sockets;
        let own = |d: &Destination| d.address == Some(address);
        let idle = |d: &Destination| sockets.get::<Socket<'static>>(d.handle).send_queue() == 0;
        let known = self.destinations.iter().position(own);
        let place = known
            .or_else(|| self.destinations.iter().position(|d| d.address.is_none()))
            .or_else(|| self.destinations.iter().position(idle))?;
        let destination = &mut self.destinations[place];
        destination.address = Some(address);
        Some(destination.handle)
    }

    /// Whose hardware address is to be asked for now: something has waited for it long enough. To be called until it gives none.
    pub fn asks(&mut self, now: u64) -> Option<[u8; 4]> {
        self.waiting = false;
        for destination in &mut self.destinations {
            if self.sockets.get::<Socket<'static>>(destination.handle).send_queue() == 0 {
                destination.ask_at = None;
                continue;
            }
            self.waiting = true;
            let due = *destination.ask_at.get_or_insert(now.saturating_add(self.ask_ns));
            if due <= now {
                destination.ask_at = Some(now.saturating_add(self.ask_ns));
                return destination.address;
            }
        }
        None
    }

    /// When there is something to ask.
    pub fn due(&self) -> Option<u64> {
        self.destinations.iter().filter_map(|destination| destination.ask_at).min()
    }

    /// Whether one has arrived.
    pub fn has_received(&self) -> bool {
        self.sockets.get::<Socket<'static>>(self.destinations[0].handle).can_recv()
    }

    /// Gives out one that has arrived, and whom it says that it is from.
    pub fn receive(&mut self, bytes: &mut [u8]) -> Option<(usize, Peer)> {
        let socket = self.sockets.get_mut::<Socket<'static>>(self.destinations[0].handle);
        while socket.can_recv() {
            let Ok((datagram, from)) = socket.recv() else { break };
            let IpAddress::Ipv4(address) = from.endpoint.addr;
            let Some(place) = bytes.get_mut(..datagram.len()) else {
                self.counters.too_long += 1;
                continue;
            };
            place.copy_from_slice(datagram);
            self.counters.received += 1;
            return Some((datagram.len(), (address.octets(), from.endpoint.port)));
        }
        None
    }
}
