//! Virtio 1.x devices: what they have in common, and which there are. How they are reached over PCI is in [`crate::pci`].

use serde::{Deserialize, Serialize};

pub mod block;
pub mod chain;
pub mod console;
pub mod net;
pub mod queue;
pub mod rng;
pub mod transport;

use crate::context::{Context, Instant};
use chain::{Broken, Chain};

/// Bytes of the device-specific configuration structure.
pub const CONFIG: usize = 0x40;
/// The largest network frame, bytes without FCS: Ethernet's with one VLAN tag.
pub const FRAME: usize = 1518;

/// Memory for what is under way within one access; it means nothing between two.
#[derive(Clone, Debug)]
pub struct Buffers {
    /// The chain at hand.
    pub chain: Chain,
    /// A frame that a driver has cut into pieces.
    pub frame: [u8; FRAME],
    /// A sector that a driver has cut into pieces.
    pub sector: [u8; crate::output::SECTOR],
}

impl Buffers {
    /// Empty.
    pub const fn new() -> Self {
        Self { chain: Chain::new(), frame: [0; FRAME], sector: [0; crate::output::SECTOR] }
    }
}

impl Default for Buffers {
    fn default() -> Self {
        Self::new()
    }
}

/// What a request came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Bytes written into the chain from its beginning.
    pub written: u32,
    /// How much work it was: about the bytes moved.
    pub work: usize,
}

/// The devices that there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Model {
    /// A network card.
    Net(net::Net),
    /// A disk.
    Block(block::Block),
    /// A source of random bytes.
    Rng(rng::Rng),
    /// A console.
    Console(console::Console),
}

impl Model {
    /// The virtio device ID.
    pub const fn id(&self) -> u16 {
        match self {
            Self::Net(_) => 1,
            Self::Block(_) => 2,
            Self::Console(_) => 3,
            Self::Rng(_) => 4,
        }
    }

    /// The PCI class code: base class, sub-class, interface.
    pub const fn class(&self) -> u32 {
        match self {
            Self::Net(_) => 0x02_0000,
            Self::Block(_) => 0x01_0000,
            Self::Console(_) => 0x07_8000,
            Self::Rng(_) => 0xff_0000,
        }
    }

    /// How many queues it has.
    pub const fn queues(&self) -> usize {
        match self {
            Self::Net(_) => 3,
            Self::Console(_) => 2,
            Self::Block(_) | Self::Rng(_) => 1,
        }
    }

    /// Whether this queue holds buffers for what comes from outside.
    pub const fn is_input(&self, queue: usize) -> bool {
        matches!(self, Self::Net(_) | Self::Console(_)) && queue == 0
    }

    /// The features that it offers.
    pub const fn offered(&self) -> u64 {
        transport::feature::ALL
            | match self {
                Self::Net(_) => net::FEATURES,
                Self::Block(block) => block.features(),
                Self::Console(_) => console::FEATURES,
                Self::Rng(_) => 0,
            }
    }

    /// Whether it can work with just these features.
    pub const fn accepts(&self, features: u64) -> bool {
        let known = features & !self.offered() == 0;
        let modern = features & transport::feature::VERSION_1 != 0;
        known && modern && (!matches!(self, Self::Net(_)) || net::consistent(features))
    }

    /// The device-specific configuration structure.
    pub fn config(&self) -> [u8; CONFIG] {
        match self {
            Self::Net(net) => net.config(),
            Self::Block(block) => block.config(),
            Self::Console(console) => console.config(),
            Self::Rng(_) => [0; CONFIG],
        }
    }

    /// Writes to the device-specific configuration structure.
    pub fn write_config(&mut self, offset: u32, value: u32, ctx: &mut Context<'_, '_>) {
        if let Self::Console(console) = self {
            console.write_config(offset, value, ctx);
        }
    }

    /// Serves a request of the driver.
    pub(crate) fn serve(
        &mut self,
        queue: usize,
        features: u64,
        chain: &Chain,
        ctx: &mut Context<'_, '_>,
        frame: &mut [u8; FRAME],
        sector: &mut [u8; crate::output::SECTOR],
    ) -> Result<Served, Broken> {
        match self {
            Self::Net(net) if queue == net::TRANSMIT => net.transmit(chain, ctx, frame),
            Self::Net(net) => net.control(features, chain, ctx),
            Self::Block(block) => block.serve(chain, ctx, sector),
            Self::Rng(rng) => rng.serve(chain, ctx),
            Self::Console(console) => console.transmit(chain, ctx),
        }
    }

    /// The device begins to serve this queue.
    pub(crate) const fn begin(&mut self, queue: usize) {
        if let Self::Net(net) = self
            && queue == net::TRANSMIT
        {
            net.begin_sending();
        }
    }

    /// The device has served all of this queue, and there was something: when it looks again, if the driver need not notify it before.
    pub(crate) const fn rest(&mut self, queue: usize, now: Instant) -> Option<Instant> {
        match self {
            Self::Net(net) if queue == net::TRANSMIT => net.rest(now),
            _ => None,
        }
    }

    /// The driver resets the device.
    pub(crate) fn reset(&mut self) {
        if let Self::Net(net) = self {
            net.reset();
        }
    }

    /// Whether a device can be in this state.
    pub(crate) fn check(&self) -> Result<(), crate::devices::BadState> {
        match self {
            Self::Net(net) => net.check(),
            Self::Block(block) => block.check(),
            Self::Console(_) | Self::Rng(_) => Ok(()),
        }
    }
}
