//! A guest's network device on a card of the host: frames pass both ways, so that the guest is a station of its own on the
//! host's network.

pub mod port;

#[cfg(target_os = "none")]
mod host;
#[cfg(target_os = "none")]
pub use crate::network::service::OpenError;
#[cfg(target_os = "none")]
pub use host::Bridge;
