//! The flags that describe a virtual machine and its emulated host: those of `run`, and of every verb that runs such a machine.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use vm_config::{Cpu, Memory};

use crate::emulator::{self, Knobs};
use crate::payload::{Payload, server};
use crate::switch::cable::CableConfig;
use crate::switch::station::{Client, Expect, Task};
use crate::vm::host::{Console, Host};
use crate::vm::outside::Outside;
use crate::vm::{Description, DiskSource, Start, Vm, terminal};

// No doc comment: it would become the help of every verb that has these flags.
#[allow(missing_docs)]
#[derive(Debug, clap::Args)]
pub struct MachineArgs {
    /// The virtual machine's configuration
    #[arg(long, value_name = "FILE", conflicts_with_all = ["guest", "load", "kernel", "initrd", "append", "memory", "disk",
        "profile"])]
    pub(super) config: Option<PathBuf>,
    /// A guest that is ready to run
    #[arg(long, value_enum, default_value_t, conflicts_with = "kernel")]
    pub(super) guest: Payload,
    /// What the guest shall do: loads of tests/workload/init, separated by commas [default: shell on a terminal, else boot]
    #[arg(long, value_name = "LOADS", conflicts_with = "kernel")]
    pub(super) load: Option<String>,
    /// Size of a load, MB
    #[arg(long, value_name = "MB", default_value_t = 64)]
    pub(super) size: u32,
    /// A Linux bzImage, or a Multiboot ELF file
    #[arg(long, value_name = "FILE")]
    pub(super) kernel: Option<PathBuf>,
    /// Its initial RAM disk
    #[arg(long, value_name = "FILE", requires = "kernel")]
    pub(super) initrd: Option<PathBuf>,
    /// The kernel's command line (with --guest: more words for it)
    #[arg(long, value_name = "WORDS", default_value = "")]
    pub(super) append: String,
    /// The guest's memory [default: what the guest wants, 256M for a kernel of yours]
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    pub(super) memory: Option<Memory>,
    /// A disk: a raw image, or a size for a blank one; may be given several times
    #[arg(long, value_name = "FILE|SIZE")]
    pub(super) disk: Vec<String>,
    /// The processor that the guest sees: v2, v3 or v4
    #[arg(long, value_parser = profile, default_value = "v3")]
    pub(super) profile: Cpu,
    /// What the guest's network is joined to: world, none, udp:PORT (frames come on PORT and go to PORT + 1), tap:INTERFACE
    #[arg(long, value_name = "WHAT", value_parser = Outside::parse, default_value = "world")]
    pub(super) net: Outside,
    /// Write what passes on the world's network to this file (pcap)
    #[arg(long, value_name = "FILE")]
    pub(super) capture: Option<PathBuf>,
    /// Let the world fetch this from the guest's HTTP server on port 80; may be given several times
    #[arg(long, value_name = "PATH")]
    pub(super) fetch: Vec<String>,
    /// Join a second emulated machine to the guest's network instead of the world: a plain Debian, whose redis-benchmark or wrk
    /// measures the guest's server with --size requests of a kind, or for --size seconds (only --guest redis and nginx)
    #[arg(long, conflicts_with_all = ["net", "fetch"])]
    pub(super) client: bool,
    /// The guest's address, for --fetch, --client and on the command line of --guest
    #[arg(long, value_name = "ADDRESS", default_value = "10.0.2.15")]
    pub(super) address: std::net::Ipv4Addr,
    /// Use this build of Lockstep instead of building it
    #[arg(long, value_name = "FILE")]
    pub(super) hypervisor: Option<PathBuf>,
    /// More words for Lockstep's own command line, such as log=debug
    #[arg(long, value_name = "WORDS", default_value = "")]
    pub(super) words: String,
    /// The emulated host's memory, MiB [default: what the virtual machine needs]
    #[arg(long, value_name = "MIB")]
    pub(super) host_memory: Option<u32>,
    /// Processors of the emulated host
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub(super) cpus: u32,
    /// Emulated instructions per emulated second [default: 50 million; on a terminal 150 million]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1_000_000..))]
    pub(super) ips: Option<u64>,
    /// Only show the console: nobody types. Two such runs agree to the last tick
    #[arg(long)]
    pub(super) batch: bool,
    /// Stop after so many seconds of wall-clock time [default: 1800, on a terminal never]
    #[arg(long, value_name = "SECONDS")]
    pub(super) timeout: Option<u64>,
    #[command(flatten)]
    pub(super) knobs: Knobs,
}

fn memory(text: &str) -> Result<Memory> {
    Memory::parse(text)
        .with_context(|| format!("`{text}` is no amount of memory; write for instance 512M or 2G"))
}

fn profile(text: &str) -> Result<Cpu> {
    let name = if text.starts_with('v') { format!("x86-64-{text}") } else { text.to_owned() };
    Cpu::parse(&name).ok_or_else(|| anyhow!("there are the profiles v2, v3 and v4"))
}

impl MachineArgs {
    /// Whether a person sits at the console.
    pub(super) fn person(&self) -> bool {
        terminal::is_there() && !self.batch
    }

    /// The virtual machine; a person on the console gets a shell in the guest.
    pub(super) fn vm(&self, person: bool) -> Result<Vm> {
        match &self.config {
            Some(file) => Vm::read(file),
            None => self.description(person)?.vm(),
        }
    }

    pub(super) fn description(&self, person: bool) -> Result<Description> {
        let mut description = match &self.kernel {
            Some(kernel) => {
                let (kernel, initrd) = (kernel.clone(), self.initrd.clone());
                let start = Start::Kernel { kernel, initrd, command_line: self.append.trim().into() };
                Description::new("guest", start)
            }
            None => {
                let load = self.load.as_deref().unwrap_or(match self.guest {
                    Payload::Cloud | Payload::Generic | Payload::I386 | Payload::Disk if person => "shell",
                    guest => guest.load(),
                });
                let words = format!("wl={load} n={} gip={} {}", self.size, self.address, self.append);
                self.guest.describe(words.trim())?
            }
        };
        description.memory = self.memory.unwrap_or(description.memory);
        description.cpu = self.profile;
        description.networks = usize::from(self.net != Outside::Nothing);
        for disk in &self.disk {
            let source =
                Memory::parse(disk).map_or_else(|| DiskSource::Image(disk.into()), DiskSource::Blank);
            description.disks.push(source);
        }
        Ok(description)
    }

    pub(super) fn limit(&self, person: bool) -> Duration {
        let default = if person { u64::MAX / 4 } else { 1800 };
        Duration::from_secs(self.timeout.unwrap_or(default))
    }

    /// The machine whose programs measure the guest's server.
    fn client(&self) -> Result<Outside> {
        let programs = match self.guest {
            Payload::Redis => &server::REDIS_CLIENT,
            Payload::Nginx => &server::NGINX_CLIENT,
            _ => bail!("--client needs a server to measure: --guest redis or --guest nginx"),
        };
        let machine = server::client(programs, "run-client", self.address, self.size)?;
        let machine = emulator::Machine { limit: self.limit(false), ..machine };
        Ok(Outside::Machines {
            seed: 1,
            cable: CableConfig::default(),
            machines: vec![machine],
            capture: None,
        })
    }

    /// The emulated host, with the run's directory called `name`.
    pub(super) fn host(&self, name: &str, person: bool) -> Result<Host> {
        let outside = if self.client { self.client()? } else { self.net.clone() };
        self.host_in(outside, name, person)
    }

    /// The same with this network.
    pub(super) fn host_in(&self, mut outside: Outside, name: &str, person: bool) -> Result<Host> {
        match &mut outside {
            Outside::Machines { capture, .. } => capture.clone_from(&self.capture),
            Outside::Stations { stations, capture, .. } => {
                capture.clone_from(&self.capture);
                let fetch = |path: &String| Client {
                    at: 0,
                    to: self.address.octets(),
                    task: Task::Fetch { port: 80, path: path.clone(), expect: Expect::Anything },
                };
                for (_, station) in stations {
                    station.clients = self.fetch.iter().map(fetch).collect();
                }
            }
            _ if self.capture.is_some() || !self.fetch.is_empty() => {
                bail!("--capture and --fetch need the world: leave out --net")
            }
            _ => {}
        }
        let kernel = self.hypervisor.clone().map_or_else(super::build::kernel, Ok)?;
        let words = format!("proof=short {}", self.words);
        let plain = Host::new(name, kernel);
        Ok(Host {
            words: format!("{} {}", plain.words, words.trim()),
            memory_mib: self.host_memory,
            cpus: self.cpus,
            // On a terminal time passes as it does for the person, at about the speed that the emulator reaches.
            ips: self.ips.unwrap_or(if person { 150_000_000 } else { plain.ips }),
            paced: person,
            outside,
            console: if person { Console::Person } else { Console::Shown },
            knobs: self.knobs.clone(),
            limit: self.limit(person),
            ..plain
        })
    }
}
