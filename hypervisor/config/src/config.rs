//! The configuration as data: what the text says, checked.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::pair::Pair;
use crate::values::{Mac, Memory};

/// A virtual machine, as its `lockstep.toml` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `[vm]`: the machine itself.
    pub vm: Vm,
    /// `[boot]`: what it starts.
    pub boot: Boot,
    /// `[[disk]]`, in the order of the file: the guest's vda, vdb, ...
    pub disks: Vec<Disk>,
    /// `[[network]]`, in the order of the file.
    pub networks: Vec<Network>,
    /// `[console]`.
    pub console: Console,
    /// `[rtc]`: what the guest's battery-backed clock says at power-on.
    pub rtc: RtcStart,
    /// `[clock]`: how the guest's one virtual clock goes.
    pub clock: Clock,
    /// `[record]`: where its log goes; `None` records nothing.
    pub record: Option<Record>,
    /// `[pair]`: the two hosts that it runs on; `None` runs it on one.
    pub pair: Option<Pair>,
}

/// The machine itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vm {
    /// Its name: letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// Its memory.
    pub memory: Memory,
    /// Which processor it sees.
    pub cpu: Cpu,
    /// Seed of the guest's random generator; `None` takes one from the host, which makes each start different.
    pub seed: Option<u64>,
}

/// A processor profile: a microarchitecture level of the x86-64 psABI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cpu {
    /// SSE4.2, POPCNT, CMPXCHG16B.
    V2,
    /// AVX2, BMI1, BMI2, FMA, MOVBE.
    #[default]
    V3,
    /// AVX-512 F, BW, CD, DQ, VL.
    V4,
}

/// What the machine starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Boot {
    /// A kernel, put into memory without firmware.
    Kernel {
        /// A Linux bzImage or a Multiboot ELF file.
        kernel: String,
        /// The initial RAM disk of a Linux kernel.
        initrd: Option<String>,
        /// The kernel's command line.
        command_line: String,
        /// Modules of a Multiboot kernel, in order.
        modules: Vec<Module>,
    },
    /// Firmware, which starts from a disk.
    Firmware {
        /// A PC BIOS image.
        firmware: String,
        /// Index of the disk that it tries first.
        disk: usize,
    },
}

/// A module of a Multiboot kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its contents.
    pub file: String,
    /// The string that goes with it.
    pub command_line: String,
}

/// A disk of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// What it contains at power-on.
    pub medium: Medium,
    /// The guest may not write it.
    pub read_only: bool,
    /// The serial number that the guest reads; at most 20 bytes.
    pub serial: Option<String>,
}

/// What a disk contains at power-on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Medium {
    /// The bytes of a file. What the guest writes stays in memory.
    Image(String),
    /// Zeros, in memory: so many bytes, a multiple of 512.
    Blank(u64),
}

/// A network device of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// The guest's address.
    pub mac: Mac,
    /// The host's card that it is bridged to; `None` is a cable that nobody plugged in.
    pub card: Option<Card>,
    /// Everything that the host's card receives goes to the guest, not only what is for its address.
    pub promiscuous: bool,
}

/// Which card of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Card {
    /// The card at this place.
    Pci(PciAddress),
    /// The card with this permanent address.
    Mac(Mac),
    /// The n-th card in the order of PCI enumeration, from 0.
    Index(u8),
}

/// A function on PCI segment 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciAddress {
    /// Bus.
    pub bus: u8,
    /// Device, 0 to 31.
    pub device: u8,
    /// Function, 0 to 7.
    pub function: u8,
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{:x}", self.bus, self.device, self.function)
    }
}

/// How a person reaches the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Console {
    /// The guest has a serial port (COM1), on the host's console.
    pub serial: bool,
    /// The guest has a virtio console as well.
    pub virtio: bool,
    /// The byte that switches between the guest's console and the hypervisor's shell; `None` leaves all bytes to the guest.
    pub escape: Option<u8>,
}

impl Default for Console {
    fn default() -> Self {
        Self { serial: true, virtio: false, escape: Some(0x1d) }
    }
}

/// What the guest's battery-backed clock says at power-on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RtcStart {
    /// The host's time, UTC.
    #[default]
    Host,
    /// A fixed time: seconds since 1970-01-01T00:00:00Z.
    Fixed(u64),
}

/// How the guest's one virtual clock goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Corrections keep it with the host's clock. Without them it is a function of instructions alone: for tests.
    pub follows_host: bool,
    /// Guest instructions per microsecond before the first correction; `None` lets the hypervisor measure.
    pub rate: Option<u64>,
}

impl Default for Clock {
    fn default() -> Self {
        Self { follows_host: true, rate: None }
    }
}

/// Where the log of the machine's execution goes, and how exact the machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The host's card for the log; no guest's network device is bridged to it.
    pub card: Card,
    /// The host's IPv4 address on it.
    pub address: [u8; 4],
    /// Bits of that address that name the network, 1 to 30.
    pub prefix: u8,
    /// Who receives the log, in the same network: IPv4 address and TCP port.
    pub peer: ([u8; 4], u16),
    /// How the guest's page tables are treated.
    pub paging: Paging,
    /// Milliseconds of guest time between two checkpoints; 0 for none.
    pub checkpoint: u32,
}

/// Who sets accessed and dirty bits in the guest's page tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Paging {
    /// The hypervisor alone, at committed accesses: the same bits on two hosts.
    #[default]
    Strict,
    /// The processor, by what its TLB holds: a replay that differs for that is noticed, not prevented.
    Fast,
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// `boot.kernel`.
    Kernel,
    /// `boot.initrd`.
    Initrd,
    /// `boot.module[n].file`.
    Module(usize),
    /// `boot.firmware`.
    Firmware,
    /// `disk[n].image`.
    Disk(usize),
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel => f.write_str("boot.kernel"),
            Self::Initrd => f.write_str("boot.initrd"),
            Self::Module(n) => write!(f, "boot.module[{n}].file"),
            Self::Firmware => f.write_str("boot.firmware"),
            Self::Disk(n) => write!(f, "disk[{n}].image"),
        }
    }
}

/// A file that the configuration names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File<'c> {
    /// What it is for.
    pub role: Role,
    /// Its path for the tools, its module's name for the kernel.
    pub name: &'c str,
}

impl Config {
    /// The files that the configuration names, in the order of [`Role`]. A name that is used twice comes twice.
    pub fn files(&self) -> impl Iterator<Item = File<'_>> {
        let (first, second, modules) = match &self.boot {
            Boot::Kernel { kernel, initrd, modules, .. } => {
                let initrd = initrd.as_deref().map(|name| File { role: Role::Initrd, name });
                (File { role: Role::Kernel, name: kernel }, initrd, modules.as_slice())
            }
            Boot::Firmware { firmware, .. } => {
                (File { role: Role::Firmware, name: firmware }, None, [].as_slice())
            }
        };
        let modules =
            modules.iter().enumerate().map(|(n, module)| File { role: Role::Module(n), name: &module.file });
        let disks = self.disks.iter().enumerate().filter_map(|(n, disk)| match &disk.medium {
            Medium::Image(name) => Some(File { role: Role::Disk(n), name }),
            Medium::Blank(_) => None,
        });
        [Some(first), second].into_iter().flatten().chain(modules).chain(disks)
    }
}
