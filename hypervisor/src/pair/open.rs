//! Makes the link from the configuration: keys, cards, arbiter.

use super::beats::Beats;
use super::generation;
use super::identity::Identity;
use super::link::{Link, Parts};
use super::sealing;
use super::wire::Card;
use crate::arch::{cpu, time};
use crate::machine_line;
use crate::network::seat::Served;
use crate::network::service::OpenError;
use alloc::boxed::Box;
use core::fmt;
use ft::arbiter::lock::{self, Client};
use ft::arbiter::record::VmId;
use ft::channel::facts::Unfit;
use ft::channel::{Channel, Role as End, Settings as ChannelSettings};
use ft::keys::{Incarnation, Keys};
use ft::pair::{Pair, Role, Settings};
use ft::side::Side;
use hal::{MacAddress, NetDevice};
use machine::cpu::Profile;
use replay::log::header::Modules;
use vm_config::Arbiter;

/// Nanoseconds in a millisecond.
const MILLISECOND: u64 = 1_000_000;

/// Why this host cannot be one of a pair.
#[derive(Debug)]
pub enum Refused {
    /// The command line does not say which host this is.
    NoSide,
    /// The logging card.
    Card(OpenError),
    /// The guest has the address of the card that both use.
    OneAddress(MacAddress),
    /// Heartbeats shall go by the logging card and by the guest's, and it is the same.
    OnePath,
    /// What it would have to say of itself does not fit.
    Facts(Unfit),
    /// The processor's instructions for AES do not compute what they should.
    Cipher,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSide => f.write_str(
                "which of the two hosts is this? Add host=a or host=b to the kernel's command line; everything else is the same \
                 on both",
            ),
            Self::Card(error) => write!(f, "log-card: {error}"),
            Self::OneAddress(mac) => {
                write!(f, "log-card: {mac} is the card's own address, and the guest on the same card needs another one")
            }
            Self::OnePath => {
                f.write_str("guest-address: the logging card is that of the guest's network, and one card is one path; leave it out")
            }
            Self::Facts(unfit) => unfit.fmt(f),
            Self::Cipher => f.write_str("this processor's AES-GCM does not seal a known text as it must"),
        }
    }
}

/// What the link is made for.
pub struct Request<'a> {
    /// The pair.
    pub pair: &'a vm_config::Pair,
    /// Which host this is.
    pub side: Option<Side>,
    /// The guest's processor.
    pub profile: &'static Profile,
    /// The whole lockstep.toml.
    pub config: &'a str,
    /// What the virtual machine starts from.
    pub modules: &'a Modules<'a>,
    /// The card's own address on the guest's network, if there is one.
    pub guest_card: Option<MacAddress>,
}

/// The host's half of a card that a network device of the guest is on as well.
pub struct Shared {
    /// The half.
    pub half: Served,
    /// The guest's address on that card.
    pub guest: MacAddress,
    /// It is the guest's first card, by which heartbeats would go.
    pub is_first: bool,
}

/// Opens the link; it looks for the peer whenever it is served.
///
/// # Errors
/// [`Refused`].
pub fn open(request: &Request<'_>, shared: Option<Shared>) -> Result<Box<Link>, Refused> {
    let Request { pair, .. } = request;
    let side = request.side.ok_or(Refused::NoSide)?;
    let shared = shared.map(|shared| shared.check(pair, side)).transpose()?;
    let own = Incarnation(cpu::random());
    let Arbiter::LockServer { ip, port } = pair.arbiter;
    let mut arbiter = Client::new(lock::Settings {
        vm: VmId::of(&pair.name),
        side,
        nonce: own,
        again_ns: lock::Settings::AGAIN_NS,
        give_up_ns: lock::Settings::GIVE_UP_NS,
    });
    let mut card = Card::open(pair, side, shared).map_err(Refused::Card)?;
    let generation = generation::next(&mut card, &mut arbiter, (ip, port), side);
    let keys = Keys::new(&pair.key.0, &pair.name, generation);
    let identity = Identity::new(request.profile, request.config, request.modules);
    let settings = ChannelSettings {
        role: if side == Side::A { End::Responder } else { End::Initiator },
        sealing: sealing::choose().ok_or(Refused::Cipher)?,
        keys: &keys,
        incarnation: own,
        facts: identity.facts(),
    };
    let channel = Channel::new(&settings, random).map_err(Refused::Facts)?;
    let wire = card.with(channel);
    let beats = Beats::new(pair, keys, side, own, request.guest_card);
    let role = if pair.first as usize == side.index() { Role::Primary } else { Role::Backup };
    let settings = Settings {
        role,
        generation,
        paths: [true, beats.has_guest_path()],
        heartbeat_ns: u64::from(pair.heartbeat) * MILLISECOND,
        timeout_ns: u64::from(pair.timeout) * MILLISECOND,
        stall_ns: u64::from(pair.stall) * MILLISECOND,
        retry_ns: Settings::RETRY_NS,
    };
    let peer = pair.hosts[side.other().index()];
    log::info!("host {side} of the pair {}, to be {role}; looks for host {}", pair.name, side.other());
    machine_line!("pair event=opened side={side} role={role} name={} card={}", pair.name, wire.address());
    Ok(Link::new(Parts {
        pair: Pair::new(settings, time::now_ns()),
        wire,
        beats,
        arbiter: (arbiter, (ip, port)),
        peer_at: (peer.log_address.ip, pair.beat_port),
        side,
        lag_ns: u64::from(pair.lag) * MILLISECOND,
    }))
}

impl Shared {
    /// The half, if it can be used beside the guest's.
    fn check(self, pair: &vm_config::Pair, side: Side) -> Result<Served, Refused> {
        if self.half.seat.mac() == self.guest {
            return Err(Refused::OneAddress(self.guest));
        }
        // By its configuration alone it cannot be told: a card has several names.
        if self.is_first && pair.hosts[side.index()].guest_address.is_some() {
            return Err(Refused::OnePath);
        }
        Ok(self.half)
    }
}

/// 32 random bytes.
pub(super) fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.as_chunks_mut().0.iter_mut().for_each(|word| *word = cpu::random().to_le_bytes());
    bytes
}
