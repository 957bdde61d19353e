//! What stands in guest memory before the first instruction: kernels, firmware, tables. And where that instruction is.
//!
//! All of it is a function of the configuration's files and of the amount of memory, so that two hosts begin alike. A
//! reset of the machine is another [`load`].

pub mod acpi;
mod aml;
mod bios;
mod bytes;
mod elf;
mod entry;
pub mod linker;
mod linux;
pub mod map;
mod multiboot;

use core::fmt;

pub use acpi::Board;
pub use bios::BiosError;
pub use elf::ElfError;
pub use linux::LinuxError;
pub use multiboot::MultibootError;

use crate::ram::{NotRam, Ram};

/// What the guest starts.
#[derive(Clone, Copy, Debug)]
pub enum Software<'a> {
    /// A Linux bzImage, or an ELF file with a Multiboot header.
    Kernel(Kernel<'a>),
    /// A PC BIOS image. The caller maps all of it read-only below 4 GiB.
    Firmware(&'a [u8]),
}

/// A kernel and what it is given.
#[derive(Clone, Copy, Debug)]
pub struct Kernel<'a> {
    /// The file.
    pub image: &'a [u8],
    /// A Linux kernel's initial RAM disk.
    pub initrd: Option<&'a [u8]>,
    /// The command line, without NUL.
    pub command_line: &'a str,
    /// A Multiboot kernel's modules.
    pub modules: &'a [Module<'a>],
    /// Given to a Linux kernel's random generator: `struct setup_data` of type `SETUP_RNG_SEED`.
    pub seed: Option<[u8; 32]>,
}

/// A Multiboot module.
#[derive(Clone, Copy, Debug)]
pub struct Module<'a> {
    /// The contents.
    pub bytes: &'a [u8],
    /// Its string, without NUL.
    pub string: &'a str,
}

/// The flat segments that an entry point finds loaded: base 0, limit 4 GiB, from a descriptor table in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments {
    /// Guest-physical and linear address of the descriptor table.
    pub gdt: u64,
    /// The table's limit: its bytes, less one.
    pub limit: u16,
    /// Selector of CS: execute/read; 64-bit code for [`Start::LongMode`], else 32-bit.
    pub code: u16,
    /// Selector of DS, ES, FS, GS and SS: read/write.
    pub data: u16,
}

/// The state in which the first virtual processor begins. What is not named is as after a reset; interrupts are off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// 64-bit mode, the first 4 GiB mapped one to one.
    LongMode {
        /// RIP.
        entry: u64,
        /// RSI.
        rsi: u64,
        /// RSP.
        rsp: u64,
        /// CR3.
        cr3: u64,
        /// The segments.
        segments: Segments,
    },
    /// 32-bit protected mode, paging off.
    Protected {
        /// EIP.
        entry: u32,
        /// EAX.
        eax: u32,
        /// EBX.
        ebx: u32,
        /// ESI.
        esi: u32,
        /// ESP.
        esp: u32,
        /// The segments.
        segments: Segments,
    },
    /// As a processor comes out of reset: real mode, CS base FFFF0000h, IP FFF0h.
    RealModeReset,
}

/// Why nothing can be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// The kernel is neither a bzImage nor ELF.
    UnknownKernel,
    /// The bzImage.
    Linux(LinuxError),
    /// The ELF file.
    Elf(ElfError),
    /// The Multiboot kernel.
    Multiboot(MultibootError),
    /// The firmware.
    Bios(BiosError),
    /// Something lies where the guest has no RAM.
    Memory(NotRam),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKernel => f.write_str(
                "the kernel is neither a Linux bzImage nor an ELF file; the guest needs one of these",
            ),
            Self::Linux(error) => write!(f, "the kernel, a Linux bzImage: {error}"),
            Self::Elf(error) => write!(f, "the kernel, an ELF file: {error}"),
            Self::Multiboot(error) => write!(f, "the kernel, an ELF file: {error}"),
            Self::Bios(error) => write!(f, "the firmware: {error}"),
            Self::Memory(error) => write!(f, "{error}; give the guest more memory"),
        }
    }
}

impl core::error::Error for LoadError {}

impl From<NotRam> for LoadError {
    fn from(error: NotRam) -> Self {
        Self::Memory(error)
    }
}

/// Puts everything into memory that has to be there, and says where the guest begins. Memory that is not written keeps
/// its contents.
///
/// # Errors
/// [`LoadError`].
pub fn load(ram: &mut Ram<'_>, software: &Software<'_>, board: &Board) -> Result<Start, LoadError> {
    let kernel = match software {
        Software::Firmware(image) => return bios::load(ram, image),
        Software::Kernel(kernel) => kernel,
    };
    let rsdp = entry::firmware_left(ram, board)?;
    if linux::is(kernel.image) {
        linux::load(ram, kernel, rsdp)
    } else if elf::is(kernel.image) {
        multiboot::load(ram, kernel, rsdp)
    } else {
        Err(LoadError::UnknownKernel)
    }
}

#[cfg(test)]
mod tests;
