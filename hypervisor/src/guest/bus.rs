//! The guest's bus, as the instruction emulator reaches it: RAM, ROM, device memory, ports.

use super::board::MAX_DISKS;
use super::disks::MemoryDisk;
use super::outside::Outside;
use crate::vmm::vm::Vm;
use heapless::Vec;
use machine::computer::Computer;
use machine::context::{Context, Instant};
use machine::emulate::{Bus, BusError};
use machine::output::Disk;
use machine::ram::{HIGH, Layout};

/// The bus at one moment.
pub struct BoardBus<'b> {
    pub computer: &'b mut Computer,
    pub vm: &'b mut Vm,
    pub outside: &'b mut Outside,
    pub disks: &'b mut Vec<MemoryDisk, MAX_DISKS>,
    pub now: Instant,
}

impl BoardBus<'_> {
    /// The place in the ROM of a range that lies in it.
    fn rom_place(&self, address: u64, length: usize) -> Option<core::ops::Range<usize>> {
        let rom = self.vm.rom().len() as u64;
        let start = address.checked_sub(HIGH - rom)?;
        let end = start.checked_add(length as u64)?;
        (end <= rom).then_some(start as usize..end as usize)
    }

    fn in_ram(&self, address: u64, length: usize) -> bool {
        Layout::new(self.vm.memory().len() as u64).place(address, length).is_some()
    }

    /// Calls the computer with what an access needs besides it.
    #[inline]
    pub fn reach<R>(&mut self, act: impl FnOnce(&mut Computer, &mut Context<'_, '_>) -> R) -> R {
        let mut ram = self.vm.ram();
        let mut disks: Vec<&mut dyn Disk, MAX_DISKS> = Vec::new();
        for disk in self.disks.iter_mut() {
            // There are no more than fit.
            let _ = disks.push(disk);
        }
        let mut context =
            Context { ram: &mut ram, now: self.now, out: &mut *self.outside, disks: &mut disks };
        act(self.computer, &mut context)
    }
}

impl Bus for BoardBus<'_> {
    fn is_memory(&self, address: u64, length: usize) -> bool {
        self.in_ram(address, length) || self.rom_place(address, length).is_some()
    }

    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), BusError> {
        if self.vm.ram().read(address, bytes).is_ok() {
            return Ok(());
        }
        match self.rom_place(address, bytes.len()) {
            Some(place) => bytes.copy_from_slice(&self.vm.rom()[place]),
            None => self.reach(|computer, context| computer.read_memory(address, bytes, context)),
        }
        Ok(())
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), BusError> {
        if self.vm.ram().write(address, bytes).is_ok() {
            return Ok(());
        }
        if self.rom_place(address, bytes.len()).is_none() {
            self.reach(|computer, context| computer.write_memory(address, bytes, context));
        }
        Ok(())
    }

    fn read_port(&mut self, port: u16, size: u8) -> u32 {
        self.reach(|computer, context| computer.read_port(port, size, context))
    }

    fn write_port(&mut self, port: u16, size: u8, value: u32) {
        self.reach(|computer, context| computer.write_port(port, size, value, context));
    }
}
