//! The host's cards that a guest's network devices are on; the logging channel may be on one of them as well.

use super::build::BuildError;
use super::outside::MAX_NETWORKS;
use crate::bridge::Bridge;
use crate::network;
use ft::side::Side;
use hal::MacAddress;
use heapless::Vec;
use net::shared::Guard;
use vm_config::{Arbiter, Config, Pair};

/// Opens the cards that the guest's network devices are on, if these are `joined`: in a replay, frames come from the log, and what the
/// guest sends has been sent. `side`: which host this is, if it is one of a pair.
///
/// # Errors
/// [`BuildError::Network`].
pub fn bridges(
    config: &Config,
    side: Option<Side>,
    joined: bool,
) -> Result<Vec<Option<Bridge>, MAX_NETWORKS>, BuildError> {
    let mut bridges = Vec::new();
    let pair = config.pair.as_ref().zip(side);
    let log_card = pair.and_then(|(pair, side)| network::find(&pair.hosts[side.index()].log_card));
    for (number, network) in config.networks.iter().enumerate() {
        let bridge = match network.card.filter(|_| joined) {
            None => None,
            Some(card) => {
                let log =
                    log_card.filter(|log| network::find(&card).map(|card| card.address) == Some(log.address));
                let guard = log.and(pair).map(|(pair, _)| guard(pair));
                let opened = Bridge::open(&card, MacAddress(network.mac.0), network.promiscuous, guard);
                Some(opened.map_err(|error| BuildError::Network(number, error))?)
            }
        };
        // The configuration's own limit is no greater.
        let _ = bridges.push(bridge);
    }
    Ok(bridges)
}

/// The addresses on the logging network are the hosts' and the arbiter's.
fn guard(pair: &Pair) -> Guard {
    let Arbiter::LockServer { ip, .. } = pair.arbiter;
    let [a, b] = pair.hosts.map(|host| host.log_address.ip);
    Guard::new(&[a, b, ip])
}
