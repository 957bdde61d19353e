//! One guest's memory: RAM at guest-physical 0 and, where the hole for devices splits it, at 4 GiB; firmware's ROM below
//! 4 GiB. Mapped by EPT with the largest pages that fit.

use super::tables::TablePool;
use crate::arch::physical::Pages;
use crate::arch::{paging, vmx as processor};
use crate::memory::{FRAME, OutOfFrames, Zone};
use core::fmt;
use machine::ram::{HIGH, Layout};
use vmx::caps::EptVpid;
use vmx::ept::{Attributes, Ept, EptError, Mapping, Permissions};

/// Frames for a guest's EPT tables: the root, two upper ones, and what splitting large pages takes.
const TABLE_FRAMES: u64 = 32;

/// RAM begins at a multiple of this, so that 2-MByte pages fit.
const ALIGNMENT: u64 = 2 << 20;

/// Why a guest cannot be made or its memory not changed.
#[derive(Clone, Copy, Debug)]
pub enum VmError {
    /// No memory.
    Memory(OutOfFrames),
    /// The paging structures.
    Ept(EptError),
    /// The range is not RAM of the guest.
    NotRam,
}

impl fmt::Display for VmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(error) => write!(f, "guest memory: {error}"),
            Self::Ept(error) => write!(f, "{error}"),
            Self::NotRam => f.write_str("the range is not RAM of the guest"),
        }
    }
}

impl From<OutOfFrames> for VmError {
    fn from(error: OutOfFrames) -> Self {
        Self::Memory(error)
    }
}

impl From<EptError> for VmError {
    fn from(error: EptError) -> Self {
        Self::Ept(error)
    }
}

/// A guest's memory. While a guest runs, the processor that runs it is the only one that changes the mappings.
pub struct Vm {
    ram: Pages,
    rom: Option<Pages>,
    ept: Ept,
    tables: TablePool,
}

impl Vm {
    /// A guest with `bytes` of RAM (a multiple of 4 KiB), zeroed, where [`Layout`] has it.
    ///
    /// # Errors
    /// No memory, or EPT that cannot map it.
    pub fn new(bytes: u64, caps: EptVpid) -> Result<Self, VmError> {
        let ram = Pages::take(bytes.div_ceil(FRAME), ALIGNMENT, Zone::Any)?;
        let mut tables = TablePool::take(TABLE_FRAMES)?;
        let mut ept = Ept::new(&mut tables, caps, paging::features().physical_bits)?;
        let layout = Layout::new(ram.range().len());
        let (low, high) = (layout.low(), layout.high());
        ept.map(&mut tables, 0, ram.address(), low.end, Attributes::RAM)?;
        if !high.is_empty() {
            ept.map(&mut tables, HIGH, ram.address() + low.end, high.end - HIGH, Attributes::RAM)?;
        }
        Ok(Self { ram, rom: None, ept, tables })
    }

    /// Puts firmware's ROM (a multiple of 4 KiB) right below 4 GiB: the guest may read and execute it.
    ///
    /// # Errors
    /// No memory, no tables, or a length that is no multiple.
    pub fn set_rom(&mut self, image: &[u8]) -> Result<(), VmError> {
        let bytes = image.len() as u64;
        let mut rom = Pages::take(bytes.div_ceil(FRAME), FRAME, Zone::Any)?;
        rom.bytes_mut()[..image.len()].copy_from_slice(image);
        let attributes = Attributes { permissions: Permissions::READ_EXECUTE, ..Attributes::RAM };
        self.ept.map(&mut self.tables, HIGH - bytes, rom.address(), bytes, attributes)?;
        self.rom = Some(rom);
        Ok(())
    }

    /// The ROM below 4 GiB; empty where there is none.
    pub fn rom(&self) -> &[u8] {
        self.rom.as_ref().map_or(&[], Pages::bytes)
    }

    /// All RAM; where it lies is [`Layout`]'s word.
    pub fn memory(&self) -> &[u8] {
        self.ram.bytes()
    }

    /// RAM, to be written. The guest is not running: it runs only inside a call of this processor.
    pub fn memory_mut(&mut self) -> &mut [u8] {
        self.ram.bytes_mut()
    }

    /// The EPT pointer for the VMCS.
    pub const fn ept_pointer(&self) -> u64 {
        self.ept.pointer()
    }

    /// Changes what the guest may do with a range; large pages are split as needed.
    ///
    /// # Errors
    /// See [`EptError`].
    pub fn protect(&mut self, guest: u64, bytes: u64, permissions: Permissions) -> Result<(), VmError> {
        let result = self.ept.protect(&mut self.tables, guest, bytes, permissions);
        processor::invalidate_ept(self.ept.pointer());
        Ok(result?)
    }

    /// Takes a range out of the guest's memory. The frames stay the guest's; [`Vm::map`] puts them back.
    ///
    /// # Errors
    /// See [`EptError`].
    pub fn unmap(&mut self, guest: u64, bytes: u64) -> Result<(), VmError> {
        let result = self.ept.unmap(&mut self.tables, guest, bytes);
        processor::invalidate_ept(self.ept.pointer());
        Ok(result?)
    }

    /// Puts a range of RAM that was unmapped back, with everything allowed. Nothing to invalidate: what was not present
    /// is not cached (SDM vol. 3C, "Information That May Be Cached").
    ///
    /// # Errors
    /// The range is not RAM, or mapped.
    pub fn map(&mut self, guest: u64, bytes: u64) -> Result<(), VmError> {
        let layout = Layout::new(self.ram.range().len());
        let place = usize::try_from(bytes).ok().and_then(|length| layout.place(guest, length));
        let host = self.ram.address() + place.ok_or(VmError::NotRam)?.start as u64;
        Ok(self.ept.map(&mut self.tables, guest, host, bytes, Attributes::RAM)?)
    }

    /// How a guest-physical address is mapped.
    pub fn translate(&self, guest: u64) -> Option<Mapping> {
        self.ept.translate(&self.tables, guest)
    }

    /// Frames that the EPT tables take.
    pub const fn tables_in_use(&self) -> usize {
        self.tables.in_use()
    }
}
