//! `lockstep.toml`: what a virtual machine is made of. Parsed by the kernel, from a module, and by the tools, from a file.
//!
//! A file's name in it is a path for the tools, relative to the configuration's own place; for the kernel it is the name
//! of a module, and the two strings are the same. [`Config::files`] lists them. `docs/configuration.md` is the
//! reference for people.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod config;
mod emit;
mod error;
mod pair;
mod pair_section;
mod reader;
mod sections;
mod values;

pub use config::{
    Boot, Card, Clock, Config, Console, Cpu, Disk, File, Medium, Module, Network, Paging, PciAddress, Record,
    Role, RtcStart, Vm,
};
pub use error::{Error, Problem};
pub use pair::{Arbiter, HostAddress, HostName, Key, Pair, PairHost};
pub use values::{Mac, Memory};

/// Limits of what a configuration may ask for.
pub mod limits {
    /// Bytes of a configuration's text.
    pub const TEXT: usize = 64 * 1024;
    /// Brackets and braces within each other: the TOML parser takes stack for each, and the kernel's stack is small.
    pub const NESTING: usize = 8;
    /// Bytes of a virtual machine's name.
    pub const NAME: usize = 64;
    /// Bytes of a file's name.
    pub const FILE_NAME: usize = 255;
    /// Bytes of a command line, without its final zero: Linux reads 2048 with it.
    pub const COMMAND_LINE: usize = 2047;
    /// The least memory of a guest, bytes.
    pub const MEMORY_LEAST: u64 = 4 << 20;
    /// The most memory of a guest, bytes.
    pub const MEMORY_MOST: u64 = 64 << 30;
    /// Memory comes in units of so many bytes: one large page.
    pub const MEMORY_UNIT: u64 = 2 << 20;
    /// Disks of a guest.
    pub const DISKS: usize = 8;
    /// The most bytes of a blank disk.
    pub const DISK_MOST: u64 = 64 << 30;
    /// Bytes of a disk's serial number: virtio 1.2, 5.2.6.1 (VIRTIO_BLK_T_GET_ID).
    pub const DISK_SERIAL: usize = 20;
    /// Network devices of a guest.
    pub const NETWORKS: usize = 4;
    /// Modules for a Multiboot kernel.
    pub const MODULES: usize = 8;
    /// The most instructions per microsecond that a clock can be told.
    pub const CLOCK_RATE: u64 = 100_000;
    /// The most milliseconds between two checkpoints: an hour.
    pub const CHECKPOINT: u32 = 3_600_000;
    /// Milliseconds between two checkpoints, unless told otherwise.
    pub const CHECKPOINT_DEFAULT: u32 = 4_000;
    /// Milliseconds of silence after which a peer is suspected, unless told otherwise.
    pub const TIMEOUT_DEFAULT: u32 = 300;
    /// The least of those.
    pub const TIMEOUT_LEAST: u32 = 20;
    /// The most of those.
    pub const TIMEOUT_MOST: u32 = 60_000;
    /// Milliseconds between two heartbeats, unless told otherwise.
    pub const HEARTBEAT_DEFAULT: u32 = 50;
    /// The least of those.
    pub const HEARTBEAT_LEAST: u32 = 5;
    /// Milliseconds without progress after which a primary gives up its backup, unless told otherwise.
    pub const STALL_DEFAULT: u32 = 3_000;
    /// The most of those: an hour.
    pub const STALL_MOST: u32 = 3_600_000;
    /// Milliseconds that a backup may be behind, unless told otherwise.
    pub const LAG_DEFAULT: u32 = 100;
    /// The most of those.
    pub const LAG_MOST: u32 = 60_000;
    /// The TCP port of the logging channel, unless told otherwise.
    pub const LOG_PORT_DEFAULT: u16 = 5_407;
    /// The UDP port of the heartbeats, unless told otherwise.
    pub const BEAT_PORT_DEFAULT: u16 = 5_408;
    /// The last year that the guest's clock can be started in.
    pub const LAST_YEAR: u16 = 2099;
}
