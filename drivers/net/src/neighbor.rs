//! Asking for a neighbour's hardware address beside smoltcp, which asks for one at a time, and for the first socket's again and again: one that
//! does not answer would hide all others.

use crate::device::Card;
use hal::NetDevice;
use smoltcp::phy::{Device, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr,
    Ipv4Address,
};

/// Bytes of a request without padding: Ethernet header and ARP for IPv4 (RFC 826).
const REQUEST: usize = 42;

/// Sends a request for the hardware address of `wanted`, from `own`. The answer is smoltcp's to learn from. Nothing without room.
pub fn ask<N: NetDevice>(card: &mut Card<N>, at: Instant, own: [u8; 4], wanted: [u8; 4]) {
    let mac = EthernetAddress(card.device.mac().0);
    let Some(room) = card.transmit(at) else { return };
    room.consume(REQUEST, |bytes| {
        let mut frame = EthernetFrame::new_unchecked(bytes);
        let header = EthernetRepr {
            src_addr: mac,
            dst_addr: EthernetAddress::BROADCAST,
            ethertype: EthernetProtocol::Arp,
        };
        header.emit(&mut frame);
        let request = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: mac,
            source_protocol_addr: Ipv4Address::from(own),
            target_hardware_addr: EthernetAddress::default(),
            target_protocol_addr: Ipv4Address::from(wanted),
        };
        request.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
    });
}
