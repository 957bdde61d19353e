//! `cargo xtask run`: a virtual machine on Lockstep, on the emulated host.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use vm_config::{Cpu, Memory};

use crate::emulator::{self, Knobs};
use crate::payload::{self, Payload, server};
use crate::setup::{self, Purpose};
use crate::switch::cable::CableConfig;
use crate::switch::station::{Client, Expect, Task};
use crate::vm::host::{Console, Host};
use crate::vm::outside::Outside;
use crate::vm::{Description, DiskSource, Start, Vm, terminal};
use crate::{paths, ui};

/// Run a virtual machine on Lockstep, on the emulated machine.
///
/// The machine is described by a lockstep.toml (docs/configuration.md has the keys; file names in it are relative to it), or
/// by flags: a guest of --guest that is made of this system's packages, or a kernel of yours. On a terminal, what you type
/// goes to the machine: Ctrl-] changes between the guest's console and Lockstep's own shell, Ctrl-\ then q ends the
/// machine. Without a terminal, or with --batch, the console is only shown.
///
/// The guest's network is joined to a world inside this tool: a host at 10.0.2.2 that answers ping, serves /fileN (N MiB) by
/// HTTP on 8000 and takes what comes on 8001. The guest's own address is 10.0.2.15 by convention.
///
/// The run ends when the guest switches itself off; exit status 0 then, 1 if it ended in another way.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask run
  cargo xtask run --load cpu,gzip --batch
  cargo xtask run --config lockstep.toml
  cargo xtask run --kernel bzImage --initrd rootfs.cpio --append console=ttyS0 --memory 512M
  cargo xtask run --load serve --fetch /index.html
  cargo xtask run --guest redis --client --size 1000 --batch
  cargo xtask run --guest i386 --load boot --dry-run    (prints the configuration and makes the boot medium)")]
pub struct Args {
    /// The virtual machine's configuration
    #[arg(long, value_name = "FILE", conflicts_with_all = ["guest", "load", "kernel", "initrd", "append", "memory", "disk",
        "profile"])]
    config: Option<PathBuf>,
    /// A guest that is ready to run
    #[arg(long, value_enum, default_value_t, conflicts_with = "kernel")]
    guest: Payload,
    /// What the guest shall do: loads of tests/workload/init, separated by commas [default: shell on a terminal, else boot]
    #[arg(long, value_name = "LOADS", conflicts_with = "kernel")]
    load: Option<String>,
    /// Size of a load, MB
    #[arg(long, value_name = "MB", default_value_t = 64)]
    size: u32,
    /// A Linux bzImage, or a Multiboot ELF file
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Its initial RAM disk
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<PathBuf>,
    /// The kernel's command line (with --guest: more words for it)
    #[arg(long, value_name = "WORDS", default_value = "")]
    append: String,
    /// The guest's memory [default: what the guest wants, 256M for a kernel of yours]
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    memory: Option<Memory>,
    /// A disk: a raw image, or a size for a blank one; may be given several times
    #[arg(long, value_name = "FILE|SIZE")]
    disk: Vec<String>,
    /// The processor that the guest sees: v2, v3 or v4
    #[arg(long, value_parser = profile, default_value = "v3")]
    profile: Cpu,
    /// What the guest's network is joined to: world, none, udp:PORT (frames come on PORT and go to PORT + 1), tap:INTERFACE
    #[arg(long, value_name = "WHAT", value_parser = Outside::parse, default_value = "world")]
    net: Outside,
    /// Write what passes on the world's network to this file (pcap)
    #[arg(long, value_name = "FILE")]
    capture: Option<PathBuf>,
    /// Let the world fetch this from the guest's HTTP server on port 80; may be given several times
    #[arg(long, value_name = "PATH")]
    fetch: Vec<String>,
    /// Join a second emulated machine to the guest's network instead of the world: a plain Debian, whose redis-benchmark or wrk
    /// measures the guest's server with --size requests of a kind, or for --size seconds (only --guest redis and nginx)
    #[arg(long, conflicts_with_all = ["net", "fetch", "bare"])]
    client: bool,
    /// The guest's address, for --fetch, --client and on the command line of --guest
    #[arg(long, value_name = "ADDRESS", default_value = "10.0.2.15")]
    address: std::net::Ipv4Addr,
    /// Run the guest's kernel without Lockstep, on the same emulated machine (no virtio there)
    #[arg(long, conflicts_with = "config")]
    bare: bool,
    /// Use this build of Lockstep instead of building it
    #[arg(long, value_name = "FILE")]
    hypervisor: Option<PathBuf>,
    /// More words for Lockstep's own command line, such as log=debug
    #[arg(long, value_name = "WORDS", default_value = "")]
    words: String,
    /// The emulated host's memory, MiB [default: what the virtual machine needs]
    #[arg(long, value_name = "MIB")]
    host_memory: Option<u32>,
    /// Processors of the emulated host
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    cpus: u32,
    /// Emulated instructions per emulated second [default: 50 million; on a terminal 150 million]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1_000_000..))]
    ips: Option<u64>,
    /// Only show the console: nobody types. Two such runs agree to the last tick
    #[arg(long)]
    batch: bool,
    /// Make the boot medium and print the configuration, but run nothing
    #[arg(long)]
    dry_run: bool,
    /// Stop after so many seconds of wall-clock time [default: 1800, on a terminal never]
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    #[command(flatten)]
    knobs: Knobs,
}

fn memory(text: &str) -> Result<Memory> {
    Memory::parse(text)
        .with_context(|| format!("`{text}` is no amount of memory; write for instance 512M or 2G"))
}

fn profile(text: &str) -> Result<Cpu> {
    let name = if text.starts_with('v') { format!("x86-64-{text}") } else { text.to_owned() };
    Cpu::parse(&name).ok_or_else(|| anyhow!("there are the profiles v2, v3 and v4"))
}

/// Runs the verb.
///
/// # Errors
/// When something is missing or wrong; how the machine ended is the exit status.
pub fn run(args: Args) -> Result<ExitCode> {
    setup::ensure(Purpose::Demo, false)?;
    let person = terminal::is_there() && !args.batch && !args.dry_run;
    if args.bare {
        return bare(&args);
    }
    let vm = args.vm(person)?;
    let host = args.host(person)?;
    if args.dry_run {
        host.machine(&vm)?;
        print!("{}", vm.text());
        let medium = paths::out_dir()?.join("vm").join(&host.name).join("boot.iso");
        ui::say(format!("The boot medium: {}", medium.display()));
        return Ok(ExitCode::SUCCESS);
    }
    emulator::binary()?;
    let started = host.start(&vm)?;
    let (outcome, told) = if person {
        ui::say(terminal::HINT);
        attend(started)?
    } else {
        started.wait()?
    };
    for line in told {
        ui::say(line);
    }
    Ok(super::bochs::conclude(&outcome))
}

/// A person at the console until the machine's end, or until the person leaves.
pub fn attend(started: crate::vm::host::Started) -> Result<(crate::emulator::Outcome, Vec<String>)> {
    let leaves = Arc::new(AtomicBool::new(false));
    let raw = terminal::Raw::enter()?;
    let flag = Arc::clone(&leaves);
    terminal::pass_keys(started.running.keyboard()?, move || flag.store(true, Ordering::Relaxed));
    let ended = started.wait_unless(|| leaves.load(Ordering::Relaxed));
    drop(raw);
    ended
}

/// The guest's kernel by itself on the emulated machine.
fn bare(args: &Args) -> Result<ExitCode> {
    let description = args.description(false)?;
    let machine = payload::bare(&description, &format!("bare-{}", description.name))?;
    let machine = emulator::Machine {
        live: true,
        cpus: args.cpus,
        ips: args.ips.unwrap_or(machine.ips),
        memory_mib: args.host_memory.unwrap_or(machine.memory_mib),
        knobs: args.knobs.clone(),
        limit: args.limit(false),
        ..machine
    };
    Ok(super::bochs::conclude(&machine.run()?))
}

impl Args {
    fn vm(&self, person: bool) -> Result<Vm> {
        match &self.config {
            Some(file) => Vm::read(file),
            None => self.description(person)?.vm(),
        }
    }

    fn description(&self, person: bool) -> Result<Description> {
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

    fn limit(&self, person: bool) -> Duration {
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

    fn host(&self, person: bool) -> Result<Host> {
        let mut outside = if self.client { self.client()? } else { self.net.clone() };
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
        let plain = Host::new("run", kernel);
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
