//! A bridge on this host: the card is taken into service, and polled whenever [`duties::NETWORK`] is pending. Nothing here
//! allocates after [`Bridge::open`].

use super::port::{Left, LinkName, Port};
use crate::arch::alarm::Alarm;
use crate::duties;
use crate::machine_line;
use crate::network::Nic;
use crate::network::service::{OpenError, Service, Way};
use core::fmt::{self, Write};
use hal::{Link, MacAddress, NetDevice};

/// After which time a frame that the guest had no buffer for is offered again, in nanoseconds, unless it is sooner.
const AGAIN_NS: u64 = 500_000;

/// A guest's network device on a card of this host.
pub struct Bridge {
    port: Port<Nic>,
    service: Service,
    /// The link, as said by [`Self::link_change`] last.
    told_up: bool,
}

impl Bridge {
    /// Starts the card that `which` names, for a guest with the address `guest`. `promiscuous` = the guest gets all frames
    /// that the card sees. [`duties::NETWORK`] is pending afterwards: the first poll lets the card interrupt. On the boot
    /// processor, before the frame pools are closed.
    ///
    /// # Errors
    /// No such card, or it cannot be used.
    pub fn open(which: &vm_config::Card, guest: MacAddress, promiscuous: bool) -> Result<Bridge, OpenError> {
        let (nic, service) = Service::open(which, duties::NETWORK, Alarm::Network)?;
        let port = Port::new(nic, guest, promiscuous);
        let (address, way, link) = (service.address(), service.way(), LinkName(port.link()));
        log::info!("network card {address} is the guest's {guest}, by {way}; link {link}");
        machine_line!("bridge card={address} guest={guest} by=\"{way}\"");
        Ok(Bridge { port, service, told_up: true })
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
        self.service.polled(busy, left == Left::More);
        self.port.keep_quiet(self.service.is_quiet());
        if left == Left::Untaken {
            self.service.call_again(AGAIN_NS);
        }
        busy
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
        let (address, guest, link) = (self.service.address(), self.port.guest(), LinkName(self.port.link()));
        writeln!(
            out,
            "{address} for {guest}: link {link} ({} changes), by {}",
            port.link_changes,
            self.service.way()
        )?;
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
            "  from the guest {} frames, {} waited for room, {} of impossible length; collisions {}",
            port.from_guest, port.card_full, port.bad_length, card.transmit_errors
        )
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.service.close(self.port.card());
    }
}
