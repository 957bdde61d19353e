//! What befalls a pair: hosts that die or hang, cables that are cut, an arbiter that is gone.

use std::fmt;

use anyhow::{Result, bail};
use vm_config::HostName;

use super::marks::Moment;
use crate::switch::config::{Partition, Pattern, PortName};
use crate::switch::time::{Ns, parse_duration};

/// The arbiter's name on the network.
pub const ARBITER: &str = "arbiter";

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A host's process ends, as if the plug were pulled.
    Kill(HostName),
    /// A host does not execute for so long; its own clock stands still (SIGSTOP, SIGCONT).
    Stop(HostName, Ns),
    /// Nothing passes on some cables for so long.
    Cut(Link, Ns),
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lasting = |f: &mut fmt::Formatter<'_>, length: Ns| match length {
            FOR_GOOD => f.write_str(" for good"),
            length => write!(f, " for {:.3} ms", length as f64 / 1e6),
        };
        match *self {
            What::Kill(host) => write!(f, "host {host} dies"),
            What::Stop(host, length) => {
                write!(f, "host {host} hangs")?;
                lasting(f, length)
            }
            What::Cut(link, length) => {
                match link {
                    Link::Log => {
                        f.write_str("the hosts are cut off from each other on the logging network")?
                    }
                    Link::Guest => {
                        f.write_str("the hosts are cut off from each other on the guest's network")?
                    }
                    Link::All => f.write_str("the hosts are cut off from each other on both networks")?,
                    Link::HostLog(host) => write!(f, "host {host}'s logging cable is cut")?,
                    Link::HostGuest(host) => write!(f, "host {host}'s cable to the guest's network is cut")?,
                    Link::Host(host) => write!(f, "all of host {host}'s cables are cut")?,
                    Link::Arbiter => f.write_str("the arbiter's cable is cut")?,
                }
                lasting(f, length)
            }
        }
    }
}

/// Which cables are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Between the two hosts, on the logging network. Both still reach the arbiter.
    Log,
    /// Between the two hosts, on the guest's network. Both still reach the outside.
    Guest,
    /// Between the two hosts, on both.
    All,
    /// One host's logging cable: it reaches neither the other host nor the arbiter on it.
    HostLog(HostName),
    /// One host's cable to the guest's network.
    HostGuest(HostName),
    /// All of one host's cables.
    Host(HostName),
    /// The arbiter's cable: nobody reaches it.
    Arbiter,
}

/// Something that happens at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incident {
    /// What.
    pub what: What,
    /// When.
    pub when: Moment,
}

impl Incident {
    /// Reads what stands behind `--kill`: `a@12s`, `b@armed+500ms`.
    ///
    /// # Errors
    /// When it is something else.
    pub fn kill(text: &str) -> Result<Self> {
        let (who, when, length) = parts(text)?;
        if length.is_some() {
            bail!("`{text}`: a killed host does not come back");
        }
        Ok(Incident { what: What::Kill(host(who)?), when })
    }

    /// Reads what stands behind `--stop`: `a@12s/2s` (for two seconds), `a@12s` (for good).
    ///
    /// # Errors
    /// When it is something else.
    pub fn stop(text: &str) -> Result<Self> {
        let (who, when, length) = parts(text)?;
        Ok(Incident { what: What::Stop(host(who)?, length.unwrap_or(FOR_GOOD)), when })
    }

    /// Reads what stands behind `--cut`: `log@12s`, `all@armed+1s/500ms`, `a:log@12s`, `arbiter@12s/1s`.
    ///
    /// # Errors
    /// When it is something else.
    pub fn cut(text: &str) -> Result<Self> {
        let (link, when, length) = parts(text)?;
        let link = match link.split_once(':') {
            None if link == "log" => Link::Log,
            None if link == "guest" => Link::Guest,
            None if link == "all" => Link::All,
            None if link == ARBITER => Link::Arbiter,
            None => Link::Host(host(link)?),
            Some((who, "log")) => Link::HostLog(host(who)?),
            Some((who, "guest")) => Link::HostGuest(host(who)?),
            Some(_) => {
                bail!("`{link}` is no cable: log, guest, all, a, b, a:log, a:guest, b:log, b:guest, arbiter")
            }
        };
        Ok(Incident { what: What::Cut(link, length.unwrap_or(FOR_GOOD)), when })
    }
}

/// A length that no run outlasts, and no sum with a moment overflows: a year.
pub const FOR_GOOD: Ns = 365 * 86_400 * 1_000_000_000;

fn parts(text: &str) -> Result<(&str, Moment, Option<Ns>)> {
    let Some((what, rest)) = text.split_once('@') else {
        bail!("`{text}` has no moment: write for instance a@12s");
    };
    let (when, length) = match rest.split_once('/') {
        Some((when, length)) => (when, Some(parse_duration(length)?)),
        None => (rest, None),
    };
    Ok((what, Moment::parse(when)?, length))
}

fn host(name: &str) -> Result<HostName> {
    HostName::parse(name).map_or_else(|| bail!("`{name}` is no host: a or b"), Ok)
}

impl Link {
    /// The cut from a moment on. `guest` and `log` are the numbers of the cards of each host; a guest without a network has none
    /// of the former.
    pub fn partition(self, from: Ns, length: Ns, guest: Option<[u8; 2]>, log: [u8; 2]) -> Partition {
        let port = |host: HostName, numbers: [u8; 2]| {
            Pattern::Port(PortName::new(host.name(), numbers[usize::from(host == HostName::B)]))
        };
        let both = |host: HostName| {
            let guest = guest.map(|numbers| port(host, numbers));
            guest.into_iter().chain([port(host, log)]).collect::<Vec<_>>()
        };
        let guest_of = |host| guest.map(|numbers| port(host, numbers)).into_iter().collect();
        let all = || vec![Pattern::All];
        let (a, b) = match self {
            Link::Log => (vec![port(HostName::A, log)], vec![port(HostName::B, log)]),
            Link::Guest => (guest_of(HostName::A), guest_of(HostName::B)),
            Link::All => (both(HostName::A), both(HostName::B)),
            Link::HostLog(host) => (vec![port(host, log)], all()),
            Link::HostGuest(host) => (guest_of(host), all()),
            Link::Host(host) => (vec![Pattern::Station(host.name().into())], all()),
            Link::Arbiter => (vec![Pattern::Station(ARBITER.into())], all()),
        };
        Partition { from, until: from.saturating_add(length), a, b, one_way: false }
    }
}

#[cfg(test)]
mod tests {
    use super::super::marks::Mark;
    use super::*;

    #[test]
    fn incidents_are_read() {
        let at = |seconds: u64| Moment::at(seconds * 1_000_000_000);
        let incident = |what, when| Incident { what, when };
        assert_eq!(Incident::kill("a@12s").unwrap(), incident(What::Kill(HostName::A), at(12)));
        let armed = Moment { mark: Mark::Armed, after: 500_000_000 };
        assert_eq!(Incident::kill("b@armed+500ms").unwrap(), incident(What::Kill(HostName::B), armed));
        let stop = What::Stop(HostName::A, 2_000_000_000);
        assert_eq!(Incident::stop("a@armed+500ms/2s").unwrap(), incident(stop, armed));
        assert_eq!(Incident::stop("a@1s").unwrap().what, What::Stop(HostName::A, FOR_GOOD));
        for (text, link) in [
            ("log", Link::Log),
            ("guest", Link::Guest),
            ("all", Link::All),
            ("arbiter", Link::Arbiter),
            ("b", Link::Host(HostName::B)),
            ("a:log", Link::HostLog(HostName::A)),
            ("b:guest", Link::HostGuest(HostName::B)),
        ] {
            let cut = Incident::cut(&format!("{text}@3s/1us")).unwrap();
            assert_eq!(cut, incident(What::Cut(link, 1_000), at(3)), "{text}");
        }
        for bad in ["a", "a@", "c@1s", "a@1s/1s", "@1s"] {
            assert!(Incident::kill(bad).is_err(), "{bad}");
        }
        for bad in ["log", "log@x", "c:log@1s", "a:x@1s", "log@1s/"] {
            assert!(Incident::cut(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cuts_are_between_the_right_ports() {
        let show = |link: Link| {
            let cut = link.partition(5, FOR_GOOD, Some([0, 0]), [1, 2]);
            assert!(cut.from == 5 && cut.until > 1 << 50 && !cut.one_way);
            let names = |side: &[Pattern]| {
                let name = |p: &Pattern| match p {
                    Pattern::All => "*".to_owned(),
                    Pattern::Station(name) => name.clone(),
                    Pattern::Port(port) => port.to_string(),
                };
                side.iter().map(name).collect::<Vec<_>>().join(",")
            };
            format!("{} | {}", names(&cut.a), names(&cut.b))
        };
        assert_eq!(show(Link::Log), "a:1 | b:2");
        assert_eq!(show(Link::Guest), "a:0 | b:0");
        assert_eq!(show(Link::All), "a:0,a:1 | b:0,b:2");
        assert_eq!(show(Link::HostLog(HostName::B)), "b:2 | *");
        assert_eq!(show(Link::HostGuest(HostName::A)), "a:0 | *");
        assert_eq!(show(Link::Host(HostName::B)), "b | *");
        assert_eq!(show(Link::Arbiter), "arbiter | *");
        let alone = Link::Guest.partition(0, 1, None, [0, 0]);
        assert!(alone.a.is_empty() && alone.b.is_empty());
    }
}
