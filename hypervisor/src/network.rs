//! The network cards of this host: found, started once to learn address and link, and put to rest until a channel needs
//! them.

pub mod seat;
pub mod service;

use crate::bridge::port::LinkName;
use crate::hal::{Clock, Dma, DmaMemory, Mmio, PciConfig};
use crate::machine_line;
use core::fmt;
use e1000::{InitError, Model, Rings};
use hal::{Clock as _, Link, MacAddress, NetDevice};
use heapless::Vec;
use pci::{Address, BarError, ConfigSpace, Function, command};
use spin::Once;

/// Cards looked at; more are left alone.
pub const MAX_CARDS: usize = 8;

/// How long a card may take to find its link partner, in nanoseconds. Emulated ones need some ms; a real cable takes
/// seconds, which the boot does not wait: such a link shows as down here and comes up later.
const LINK_PATIENCE_NS: u64 = 50_000_000;

/// Rings just large enough for the card to start.
const SMALL: Rings = Rings { receive: 8, transmit: 8 };

/// Network cards found by the walk over PCI.
pub type Cards = Vec<Function, MAX_CARDS>;

/// A card with its driver on this host.
pub type Nic = e1000::Nic<Mmio, Dma>;

/// Why a card cannot be used.
#[derive(Clone, Copy, Debug)]
pub enum Trouble {
    /// Nobody drives it.
    NoDriver,
    /// Its base addresses make no sense.
    Bars(BarError),
    /// The firmware has given its registers no address.
    NoWindow,
    /// No memory for page tables.
    NoMemory,
    /// It does not start.
    Init(InitError),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::NoDriver => {
                f.write_str("no driver; this kernel drives Intel's 8254x, 82574, 82576, I350 and I210")
            }
            Trouble::Bars(e) => e.fmt(f),
            Trouble::NoWindow => f.write_str("the firmware has given its registers no address"),
            Trouble::NoMemory => f.write_str("no memory for page tables"),
            Trouble::Init(e) => e.fmt(f),
        }
    }
}

/// Says of each card what it is.
pub fn report(config: &mut PciConfig, cards: &Cards) {
    let mut known = Vec::new();
    for card in cards {
        let (address, vendor, device) = (card.address, card.vendor, card.device);
        let found = try_out(config, card);
        // Room for all is in the type.
        let _ = known.push(Known { card: *card, found });
        match found {
            Ok((mac, link)) => {
                log::info!("network card {address} ({}): {mac}, link {}", Kind(card), LinkName(link));
                let up = u8::from(link != Link::Down);
                machine_line!("network address={address} mac={mac} link={up}");
            }
            Err(trouble) => log::warn!("network card {address} ({vendor:04x}:{device:04x}): {trouble}"),
        }
    }
    KNOWN.call_once(|| known);
}

/// A card's model and driver, for people.
struct Kind<'a>(&'a Function);

impl fmt::Display for Kind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Model::of(self.0.vendor, self.0.device) {
            Some(model) => write!(f, "{} by {}", model.name, model.family.name()),
            None => f.write_str("unknown"),
        }
    }
}

/// What was found at boot, for the shell.
#[derive(Clone, Copy, Debug)]
struct Known {
    card: Function,
    found: Result<(MacAddress, Link), Trouble>,
}

static KNOWN: Once<Vec<Known, MAX_CARDS>> = Once::new();

/// Tells what the boot has found about the cards.
///
/// # Errors
/// Those of the sink.
pub fn tell(out: &mut dyn fmt::Write) -> fmt::Result {
    let known = KNOWN.get().map_or(&[][..], |known| &known[..]);
    if known.is_empty() {
        return writeln!(out, "no network card");
    }
    known.iter().try_for_each(|Known { card, found }| match found {
        Ok((mac, link)) => {
            writeln!(out, "{} ({}): {mac}, at boot link {}", card.address, Kind(card), LinkName(*link))
        }
        Err(trouble) => {
            writeln!(out, "{} ({:04x}:{:04x}): {trouble}", card.address, card.vendor, card.device)
        }
    })
}

/// Finds one of the cards that the boot has looked at.
pub fn find(which: &vm_config::Card) -> Option<Function> {
    let known = KNOWN.get()?;
    let found = match which {
        vm_config::Card::Index(index) => known.get(usize::from(*index)),
        vm_config::Card::Pci(place) => {
            let address = Address::new(0, place.bus, place.device, place.function)?;
            known.iter().find(|known| known.card.address == address)
        }
        vm_config::Card::Mac(mac) => {
            known.iter().find(|known| known.found.is_ok_and(|(own, _)| own.0 == mac.0))
        }
    };
    found.map(|known| known.card)
}

/// Starts a card, asks it, stops it. It does no DMA afterwards.
fn try_out(config: &mut PciConfig, card: &Function) -> Result<(MacAddress, Link), Trouble> {
    let result = start(config, card, SMALL).map(|mut nic| {
        Clock.wait_until(LINK_PATIENCE_NS, || nic.link() != Link::Down);
        let found = (nic.mac(), nic.link());
        nic.stop();
        found
    });
    config.modify_command(card.address, command::BUS_MASTER, 0);
    result
}

/// Starts a card. Its interrupt pin is off.
///
/// # Errors
/// It cannot be used.
pub fn start(config: &mut PciConfig, card: &Function, rings: Rings) -> Result<Nic, Trouble> {
    let model = Model::of(card.vendor, card.device).ok_or(Trouble::NoDriver)?;
    let bars = pci::read_bars(config, card).map_err(Trouble::Bars)?;
    let (start, size) = bars[0].and_then(|b| b.memory()).ok_or(Trouble::NoWindow)?;
    let registers = Mmio::map(start, size as usize).map_err(|_| Trouble::NoMemory)?;
    // Whatever booted this host may have left messages on, which would go where it wanted them.
    if let Some(msi) = pci::Msi::find(config, card) {
        msi.disable(config);
    }
    if let Some(msix) = pci::MsiX::find(config, card) {
        msix.disable(config, card);
    }
    config.modify_command(
        card.address,
        0,
        command::MEMORY | command::BUS_MASTER | command::INTERRUPT_DISABLE,
    );
    Nic::new(registers, &mut DmaMemory, &Clock, model.family, rings).map_err(Trouble::Init)
}
