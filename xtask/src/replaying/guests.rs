//! Guests to record and replay: those of `tests/guests` that try to execute differently the second time, and loads of Linux.

use anyhow::Result;
use vm_config::Memory;

use crate::diverging::{self, Diverging};
use crate::payload::Payload;
use crate::vm::outside::Outside;
use crate::vm::{Description, DiskSource, Vm};

/// A guest by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Its name: the one that [`diverging::ALL`] gives it, or `linux-LOADS`.
    pub name: &'static str,
    kind: Kind,
    /// More words for its command line.
    more: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// A test kernel.
    Program(Diverging),
    /// The standard Linux with these loads, their size in MB, the guest's memory in MiB.
    Linux { loads: &'static str, size: u32, memory: u64 },
}

/// The loads of Linux: name, loads, their size in MB, the guest's memory in MiB.
const LINUX: &[(&str, &str, u32, u64)] = &[
    ("linux-boot", "boot", 1, 128),
    ("linux-work", "cpu,gzip", 4, 128),
    ("linux-fork", "fork", 8, 128),
    ("linux-idle", "idle", 1, 128),
    ("linux-disk", "diskw,diskr", 4, 128),
    ("linux-net", "netrx,nettx", 2, 128),
];

/// All of them.
pub fn all() -> Vec<Guest> {
    let program =
        |guest: &Diverging| Guest { name: guest.name, kind: Kind::Program(*guest), more: String::new() };
    let linux = |&(name, loads, size, memory): &(&'static str, &'static str, u32, u64)| Guest {
        name,
        kind: Kind::Linux { loads, size, memory },
        more: String::new(),
    };
    diverging::ALL.iter().map(program).chain(LINUX.iter().map(linux)).collect()
}

impl Guest {
    /// Loops that are interrupted so many times, less than a tenth of it in tight ones.
    pub fn interrupted(times: u64) -> Guest {
        let program = diverging::alone("interrupts", "replay_loops", "rounds=20 wide=12 period=8000");
        Guest { name: program.name, kind: Kind::Program(program), more: format!("until={times}") }
    }

    /// Its virtual machine, whose clock follows the host's or counts its instructions alone.
    ///
    /// # Errors
    /// When it cannot be built, or a package cannot be had.
    pub fn vm(&self, follows_host: bool) -> Result<Vm> {
        let description = match &self.kind {
            Kind::Program(guest) => guest.describe(&self.more)?,
            Kind::Linux { loads, size, memory } => {
                let description = Payload::Cloud.describe(&format!("wl={loads} n={size} gip=10.0.2.15"))?;
                Description {
                    memory: Memory { bytes: memory << 20 },
                    disks: vec![DiskSource::Blank(Memory { bytes: u64::from(*size) << 21 })],
                    networks: usize::from(self.is_connected()),
                    ..description
                }
            }
        };
        Description { follows_host, ..description }.vm()
    }

    /// What its network is joined to while it is recorded.
    pub fn outside(&self, seed: u64) -> Outside {
        if self.is_connected() { Outside::world(seed) } else { Outside::Nothing }
    }

    fn is_connected(&self) -> bool {
        match &self.kind {
            Kind::Program(guest) => guest.network,
            Kind::Linux { loads, .. } => loads.contains("net"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = all().into_iter().map(|guest| guest.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!((names.len(), count), (count, LINUX.len() + diverging::ALL.len()));
    }

    #[test]
    fn only_loads_of_the_network_have_one() {
        let connected: Vec<&str> =
            all().into_iter().filter(Guest::is_connected).map(|guest| guest.name).collect();
        assert!(connected.contains(&"linux-net") && !connected.contains(&"linux-boot"), "{connected:?}");
        let boot = all().into_iter().find(|guest| guest.name == "linux-boot").unwrap();
        assert_eq!(boot.outside(1), Outside::Nothing);
    }
}
