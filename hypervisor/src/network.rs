//! The network cards of this host: found, started once to learn address and link, and put to rest until a channel needs
//! them.

use crate::hal::{Clock, DmaMemory, Mmio, PciConfig};
use crate::machine_line;
use core::fmt;
use e1000::{E1000, Family, InitError, Rings};
use hal::{Clock as _, Link, MacAddress, NetDevice};
use heapless::Vec;
use pci::{BarError, ConfigSpace, Function, command};
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

/// Why a card cannot be used.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    NoDriver,
    Bars(BarError),
    NoWindow,
    NoMemory,
    Init(InitError),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::NoDriver => f.write_str("no driver; this kernel drives Intel 8254x and 82574"),
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
                log::info!("network card {address}: {mac}, link {}", LinkName(link));
                let up = u8::from(link != Link::Down);
                machine_line!("network address={address} mac={mac} link={up}");
            }
            Err(trouble) => log::warn!("network card {address} ({vendor:04x}:{device:04x}): {trouble}"),
        }
    }
    KNOWN.call_once(|| known);
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
        Ok((mac, link)) => writeln!(out, "{}: {mac}, at boot link {}", card.address, LinkName(*link)),
        Err(trouble) => {
            writeln!(out, "{} ({:04x}:{:04x}): {trouble}", card.address, card.vendor, card.device)
        }
    })
}

/// Starts a card, asks it, stops it. It does no DMA afterwards.
fn try_out(config: &mut PciConfig, card: &Function) -> Result<(MacAddress, Link), Trouble> {
    let family = Family::of(card.vendor, card.device).ok_or(Trouble::NoDriver)?;
    let bars = pci::read_bars(config, card).map_err(Trouble::Bars)?;
    let (start, size) = bars[0].and_then(|b| b.memory()).ok_or(Trouble::NoWindow)?;
    let registers = Mmio::map(start, size as usize).map_err(|_| Trouble::NoMemory)?;
    config.modify_command(
        card.address,
        0,
        command::MEMORY | command::BUS_MASTER | command::INTERRUPT_DISABLE,
    );
    let result = E1000::new(registers, &mut DmaMemory, &Clock, family, SMALL).map(|mut nic| {
        Clock.wait_until(LINK_PATIENCE_NS, || nic.link() != Link::Down);
        let found = (nic.mac(), nic.link());
        nic.stop();
        found
    });
    config.modify_command(card.address, command::BUS_MASTER, 0);
    result.map_err(Trouble::Init)
}

struct LinkName(Link);

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Link::Down => f.write_str("down"),
            Link::Up { megabits, full_duplex } => {
                write!(f, "up, {megabits} Mbit/s {}", if full_duplex { "full duplex" } else { "half duplex" })
            }
        }
    }
}
