//! The proof guest's memory and the EPT over it.

use super::layout;
use crate::arch::physical::Pages;
use crate::arch::{paging, proof as cpu, vmx as processor};
use crate::memory::{FRAME, OutOfFrames, Zone};
use crate::vmm::tables::TablePool;
use core::fmt;
use vmx::caps::EptVpid;
use vmx::ept::{Attributes, Ept, EptError, PAGE, Permissions};

/// Frames for EPT tables: one per level for memory below 2 MiB.
const TABLES: u64 = 4;

/// The guest's VPID. Nothing else runs while the proof does.
pub const VPID: u16 = 1;

/// Why there is no guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoGuest {
    /// No frames.
    Frames(OutOfFrames),
    /// EPT tables cannot be built.
    Ept(EptError),
}

impl fmt::Display for NoGuest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frames(error) => error.fmt(f),
            Self::Ept(error) => error.fmt(f),
        }
    }
}

/// Guest memory, its pristine copy, and the EPT that maps it page by page.
pub struct Guest {
    memory: Pages,
    pristine: Pages,
    tables: TablePool,
    ept: Ept,
    image: &'static [u8],
    /// By [`layout::PAGES`]: taken away.
    taken: u32,
}

impl Guest {
    /// Memory from the frame pools, filled and mapped.
    ///
    /// # Errors
    /// See [`NoGuest`].
    pub fn new(caps: EptVpid) -> Result<Self, NoGuest> {
        let frames = layout::BYTES as u64 / FRAME;
        let take = |count| Pages::take(count, FRAME, Zone::Any).map_err(NoGuest::Frames);
        let (memory, mut pristine) = (take(frames)?, take(frames)?);
        let image = cpu::stub_image();
        layout::fill(pristine.bytes_mut(), image);
        let mut tables = TablePool::take(TABLES).map_err(NoGuest::Frames)?;
        let mut ept = Ept::new(&mut tables, caps, paging::features().physical_bits).map_err(NoGuest::Ept)?;
        for page in 0..frames {
            // One at a time, so that none is part of a large page.
            let guest = page * PAGE;
            ept.map(&mut tables, guest, memory.address() + guest, PAGE, Attributes::RAM)
                .map_err(NoGuest::Ept)?;
        }
        Ok(Self { memory, pristine, tables, ept, image, taken: 0 })
    }

    /// The stubs.
    pub const fn image(&self) -> &'static [u8] {
        self.image
    }

    /// EPTP.
    pub const fn ept_pointer(&self) -> u64 {
        self.ept.pointer()
    }

    /// Fresh memory, everything mapped.
    pub fn reset(&mut self) {
        self.memory.bytes_mut().copy_from_slice(self.pristine.bytes());
        for page in layout::PAGES {
            self.restore(page);
        }
        processor::invalidate_ept(self.ept.pointer());
        processor::invalidate_vpid(VPID);
    }

    /// Takes a page away.
    pub fn take(&mut self, page: u64) {
        self.protect(page, Permissions::NONE);
        self.taken |= bit(page);
        processor::invalidate_ept(self.ept.pointer());
    }

    /// Gives the page of an address back; false when it was not taken.
    pub fn restore(&mut self, address: u64) -> bool {
        let page = address & !(PAGE - 1);
        if self.taken & bit(page) == 0 {
            return false;
        }
        self.protect(page, Permissions::ALL);
        self.taken &= !bit(page);
        true
    }

    fn protect(&mut self, page: u64, permissions: Permissions) {
        self.ept
            .protect(&mut self.tables, page, PAGE, permissions)
            .expect("the page was mapped at the start");
    }
}

/// A page's bit; none for pages that are never taken.
fn bit(page: u64) -> u32 {
    layout::PAGES.iter().position(|p| *p == page).map_or(0, |index| 1 << index)
}
