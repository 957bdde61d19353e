//! A bridge on this host: the card is taken into service, and polled whenever [`duties::NETWORK`] is pending. Nothing here
//! allocates after [`Bridge::open`].

use super::port::{Left, LinkName, Port};
use crate::arch::alarm::Alarm;
use crate::duties;
use crate::machine_line;
use crate::network::seat::{self, Hold, Seat, Served};
use crate::network::service::{OpenError, Way};
use core::fmt::{self, Write};
use hal::{Link, MacAddress, NetDevice};
use net::shared::Guard;

/// After which time a frame that the guest had no buffer for is offered again, in nanoseconds, unless it is sooner.
const AGAIN_NS: u64 = 500_000;

/// A guest's network device on a card of this host.
pub struct Bridge {
    port: Port<Seat>,
    service: Hold,
    /// The host's half of the card, until it is taken.
    host: Option<Served>,
    /// The link, as said by [`Self::link_change`] last.
    told_up: bool,
}

impl Bridge {
    /// Starts the card that `which` names, for a guest with the address `guest`. `promiscuous` = the guest gets all frames
    /// that the card sees. With a guard, the host uses the card as well: [`Self::host_half`]. [`duties::NETWORK`] is pending
    /// afterwards: the first poll lets the card interrupt. On the boot processor, before the frame pools are closed.
    ///
    /// # Errors
    /// No such card, or it cannot be used.
    pub fn open(
        which: &vm_config::Card,
        guest: MacAddress,
        promiscuous: bool,
        guard: Option<Guard>,
    ) -> Result<Bridge, OpenError> {
        let (host, Served { seat, service }) = match guard {
            None => (None, seat::open(which, duties::NETWORK, Alarm::Network)?),
            Some(guard) => {
                let [host, own] = seat::open_shared(which, guard)?;
                (Some(host), own)
            }
        };
        let port = Port::new(seat, guest, promiscuous);
        let (address, way) = (service.address(), service.way());
        let (link, shared) = (LinkName(port.link()), host.is_some());
        let whose = if shared { "the guest's, and the host's as well" } else { "the guest's" };
        log::info!("network card {address} is {whose} ({guest}), by {way}; link {link}");
        machine_line!("bridge card={address} guest={guest} by=\"{way}\" shared={}", u8::from(shared));
        Ok(Bridge { port, service, host, told_up: true })
    }

    /// The host's half of a card that it uses as well, once.
    pub fn host_half(&mut self) -> Option<Served> {
        self.host.take()
    }

    /// Hands received frames to `receive`, at most [`super::port::BUDGET`]. By `false` it says that the guest has no buffer:
    /// the frame stays on the card, and this is to be called again when the guest has some; [`duties::NETWORK`] comes
    /// after a while anyway. Returns whether there was anything. To be called whenever [`duties::NETWORK`] is pending (take that before).
    pub fn poll(&mut self, receive: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        let before = self.port.handled();
        let left = self.port.poll(receive);
        let busy = self.port.handled() != before;
        if left != Left::More && self.service.way() == Way::Polled {
            self.port.look_at_link();
        }
        let quiet = self.service.polled(busy, left == Left::More);
        self.port.keep_quiet(quiet);
        if left == Left::Untaken {
            self.service.call_again(AGAIN_NS);
        }
        busy
    }

    /// The guest's address.
    pub fn guest(&self) -> MacAddress {
        self.port.guest()
    }

    /// The card's own address.
    pub fn mac(&mut self) -> MacAddress {
        self.port.card().mac()
    }

    /// Sends a frame of the guest. False: the card has no room; [`duties::NETWORK`] comes when it has, then call again. A
    /// frame that cannot be sent at all is dropped and counted.
    pub fn send(&mut self, frame: &[u8]) -> bool {
        self.port.send(frame)
    }

    /// Whether the link is up, if that is another than at the last call; at the first, if it is down.
    pub fn link_change(&mut self) -> Option<bool> {
        let up = self.port.link() != Link::Down;
        (core::mem::replace(&mut self.told_up, up) != up).then_some(up)
    }

    /// Tells what the bridge has counted, for the shell.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn tell(&mut self, out: &mut dyn Write) -> fmt::Result {
        let (card, port) = self.port.counters();
        let (address, way) = (self.service.address(), self.service.way());
        let (guest, link) = (self.port.guest(), LinkName(self.port.link()));
        writeln!(out, "{address} for {guest}: link {link} ({} changes), by {way}", port.link_changes)?;
        writeln!(
            out,
            "  to the guest {} frames, {} waited for a buffer, {} not for it; missed {}, damaged {}, rejected {}",
            port.to_guest,
            port.guest_full,
            port.not_ours,
            card.missed,
            card.receive_errors,
            card.bad_descriptors
        )?;
        writeln!(
            out,
            "  from the guest {} frames, {} waited for room, {} of impossible length, {} in another's name; collisions {}",
            port.from_guest,
            port.card_full,
            port.bad_length,
            self.port.card().guarded(),
            card.transmit_errors
        )
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let service = &self.service;
        self.port.card().with_nic(|nic| service.close(nic));
    }
}
