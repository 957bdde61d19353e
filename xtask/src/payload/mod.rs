//! Guests that are ready to run: kernels, initial file systems and disks, made of packages of this machine's own archive.

use std::fs;

use anyhow::{Context, Result, bail};
use vm_config::Memory;

use crate::emulator::Machine;
use crate::linux::{self, Flavour};
use crate::packages::{Architecture, Archive};
use crate::paths;
use crate::vm::{Description, Start};

pub mod boot_sector;
pub mod clients;
pub mod disk;
pub mod programs;
pub mod server;
pub mod tiny;
pub mod workload;

/// A guest that is ready to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Payload {
    /// Debian's kernel for virtual machines, with the standard loads
    #[default]
    Cloud,
    /// Debian's kernel for any computer, with the standard loads
    Generic,
    /// Debian's 32-bit kernel, with the standard loads
    I386,
    /// redis-server on port 6379 (load redis; with `self=1` it is measured by redis-benchmark in the guest)
    Redis,
    /// nginx on port 80 (load nginx)
    Nginx,
    /// Dropbear's ssh server on port 22 (load ssh)
    Ssh,
    /// stress-ng for --size seconds (load stress)
    Stress,
    /// A kernel of our own that counts: INCR, SET, GET and PING on port 6379, as Redis has them
    Counter,
    /// memtest86+, which is no Linux and never ends
    Memtest,
    /// A disk with a boot sector and nothing else, started by SeaBIOS
    BootSector,
    /// An installed Debian, started by SeaBIOS and its own GRUB; it writes to its disk
    Disk,
}

impl Payload {
    /// The load that it does when nobody asks for another.
    pub const fn load(self) -> &'static str {
        match self {
            Payload::Cloud | Payload::Generic | Payload::I386 => "boot",
            Payload::Counter | Payload::Memtest | Payload::BootSector | Payload::Disk => "boot",
            Payload::Redis => server::REDIS.load,
            Payload::Nginx => server::NGINX.load,
            Payload::Ssh => server::SSH.load,
            Payload::Stress => server::STRESS.load,
        }
    }

    /// Its virtual machine; `words` are added to the kernel's command line.
    ///
    /// # Errors
    /// When a package cannot be had.
    pub fn describe(self, words: &str) -> Result<Description> {
        let linux = match self {
            Payload::Cloud => workload::linux(Flavour::Cloud)?,
            Payload::Generic => workload::linux(Flavour::Generic)?,
            Payload::I386 => workload::linux(Flavour::I386)?,
            Payload::Redis => server::linux(&server::REDIS)?,
            Payload::Nginx => server::linux(&server::NGINX)?,
            Payload::Ssh => server::linux(&server::SSH)?,
            Payload::Stress => server::linux(&server::STRESS)?,
            Payload::Counter => return counter(words),
            Payload::Memtest => return memtest(),
            Payload::BootSector => return boot_sector::describe(),
            Payload::Disk => return disk::describe(words),
        };
        let start = Start::Kernel {
            kernel: linux.kernel,
            initrd: Some(linux.initrd),
            command_line: format!("{} {words}", workload::COMMAND_LINE).trim().to_owned(),
        };
        Ok(Description { memory: Memory { bytes: 256 << 20 }, ..Description::new("linux", start) })
    }
}

/// The test kernel that counts. Of the words those for Linux mean nothing to it.
fn counter(words: &str) -> Result<Description> {
    let kernel = crate::guests::build("counter")?;
    let start = Start::Kernel { kernel, initrd: None, command_line: words.to_owned() };
    Ok(Description { memory: Memory { bytes: 32 << 20 }, ..Description::new("counter", start) })
}

/// memtest86+, with its screen on the serial port.
fn memtest() -> Result<Description> {
    let tree = Archive::open(Architecture::Own)?.unpacked("memtest86+")?;
    let kernel = tree.join("boot/memtest86+x64.bin");
    let start = Start::Kernel { kernel, initrd: None, command_line: "console=ttyS0,115200".into() };
    Ok(Description { memory: Memory { bytes: 64 << 20 }, ..Description::new("memtest", start) })
}

/// The emulated machine that boots a description's kernel without a hypervisor, with the memory that the guest would have.
///
/// # Errors
/// When it has none, or the medium cannot be made.
pub fn bare(description: &Description, name: &str) -> Result<Machine> {
    let Start::Kernel { kernel, initrd, command_line } = &description.start else {
        bail!("what boots by firmware is run by `cargo xtask bochs IMAGE`");
    };
    let dir = paths::out_dir()?.join("vm").join(name);
    fs::create_dir_all(&dir)?;
    let iso = dir.join("boot.iso");
    let linux = linux::Linux { package: String::new(), tree: dir, kernel: kernel.clone() };
    let initrd = initrd.as_ref().context("a kernel without an initial RAM disk has nothing to run")?;
    linux::iso(&iso, &linux, &fs::read(initrd)?, command_line)?;
    let memory_mib = u32::try_from(description.memory.bytes >> 20)?;
    Ok(Machine { memory_mib, ..Machine::from_iso(name, iso) })
}
