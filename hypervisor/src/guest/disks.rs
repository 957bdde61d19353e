//! The guest's disks: whole in this host's memory, blank or filled from a module. Contents are part of the virtual
//! machine's state, so every request is answered at once and in order.

use crate::arch::physical::Pages;
use crate::memory::{FRAME, OutOfFrames, Zone};
use machine::output::{Disk, DiskError, SECTOR};
use replay::digest::memory::DiskSum;

/// A disk in memory.
pub struct MemoryDisk {
    contents: Contents,
    sectors: u64,
    /// What was written since the start.
    sum: DiskSum,
    /// The sum is kept up.
    tracked: bool,
}

enum Contents {
    /// Frames of its own.
    Own(Pages),
    /// The module itself, for a disk that is only read.
    Module(&'static [u8]),
}

impl MemoryDisk {
    /// A blank disk of at least so many bytes: whole sectors.
    ///
    /// # Errors
    /// No memory.
    pub fn blank(bytes: u64) -> Result<Self, OutOfFrames> {
        let sectors = bytes.div_ceil(SECTOR as u64);
        let frames = (sectors * SECTOR as u64).div_ceil(FRAME).max(1);
        let contents = Contents::Own(Pages::take(frames, FRAME, Zone::Any)?);
        Ok(Self { contents, sectors, sum: DiskSum::default(), tracked: false })
    }

    /// A disk with these contents, that may be written.
    ///
    /// # Errors
    /// No memory.
    pub fn copy_of(image: &[u8]) -> Result<Self, OutOfFrames> {
        let mut disk = Self::blank(image.len() as u64)?;
        if let Contents::Own(pages) = &mut disk.contents {
            pages.bytes_mut()[..image.len()].copy_from_slice(image);
        }
        Ok(disk)
    }

    /// A disk that is only read, with these contents; what follows the last whole sector is left out.
    pub fn read_only(image: &'static [u8]) -> Self {
        let sectors = (image.len() / SECTOR) as u64;
        Self { contents: Contents::Module(image), sectors, sum: DiskSum::default(), tracked: false }
    }

    /// Keeps a sum of what is written from now on.
    pub const fn track(&mut self) {
        self.tracked = true;
    }

    /// The sum of what was written.
    pub const fn sum(&self) -> DiskSum {
        self.sum
    }

    /// The contents, if they can change.
    pub fn changeable(&self) -> Option<&[u8]> {
        match &self.contents {
            Contents::Own(pages) => Some(pages.bytes()),
            Contents::Module(_) => None,
        }
    }

    /// Puts back what [`MemoryDisk::changeable`] and [`MemoryDisk::sum`] have said before.
    pub fn put_back(&mut self, contents: &[u8], sum: DiskSum) {
        if let Contents::Own(pages) = &mut self.contents {
            pages.bytes_mut().copy_from_slice(contents);
            self.sum = sum;
        }
    }

    /// Where these sectors lie in the contents.
    fn place(&self, sector: u64, bytes: usize) -> Result<core::ops::Range<usize>, DiskError> {
        let end = sector.checked_add((bytes / SECTOR) as u64).filter(|end| *end <= self.sectors);
        if end.is_none() || !bytes.is_multiple_of(SECTOR) {
            return Err(DiskError);
        }
        let start = sector as usize * SECTOR;
        Ok(start..start + bytes)
    }
}

impl Disk for MemoryDisk {
    fn sectors(&self) -> u64 {
        self.sectors
    }

    fn read(&mut self, sector: u64, out: &mut [u8]) -> Result<(), DiskError> {
        let place = self.place(sector, out.len())?;
        let bytes = match &self.contents {
            Contents::Own(pages) => pages.bytes(),
            Contents::Module(image) => image,
        };
        out.copy_from_slice(&bytes[place]);
        Ok(())
    }

    fn write(&mut self, sector: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let place = self.place(sector, bytes.len())?;
        match &mut self.contents {
            Contents::Own(pages) => {
                let old = &mut pages.bytes_mut()[place];
                if self.tracked {
                    let pieces = old.chunks_exact(SECTOR).zip(bytes.chunks_exact(SECTOR));
                    pieces.zip(sector..).for_each(|((old, new), sector)| self.sum.written(sector, old, new));
                }
                old.copy_from_slice(bytes);
            }
            Contents::Module(_) => return Err(DiskError),
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}
