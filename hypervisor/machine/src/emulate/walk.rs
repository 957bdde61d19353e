//! The guest's page tables, walked as the processor walks them (SDM vol. 3A, chapter 4).
//!
//! Accessed bits are set when a translation succeeds, the dirty bit right before the write ([`Page::mark_dirty`]), so
//! an instruction that faults on another operand leaves no dirty bit.

use super::{Bus, BusError, Cpu};

const CR0_WP: u64 = 1 << 16;
const CR0_PG: u64 = 1 << 31;
const CR4_PSE: u64 = 1 << 4;
const CR4_PAE: u64 = 1 << 5;
const CR4_SMEP: u64 = 1 << 20;
const CR4_SMAP: u64 = 1 << 21;
const CR4_PKE: u64 = 1 << 22;
const EFER_LMA: u64 = 1 << 10;
const EFER_NXE: u64 = 1 << 11;
const RFLAGS_AC: u64 = 1 << 18;

/// Bits of paging-structure entries.
const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
/// Bits 51:12.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Bits of a page fault's error code (SDM vol. 3A, 4.7).
pub mod error {
    /// A protection violation, not a page that is not present.
    pub const PRESENT: u32 = 1 << 0;
    /// A write.
    pub const WRITE: u32 = 1 << 1;
    /// In user mode.
    pub const USER: u32 = 1 << 2;
    /// A reserved bit.
    pub const RESERVED: u32 = 1 << 3;
    /// An instruction fetch.
    pub const FETCH: u32 = 1 << 4;
    /// A protection key.
    pub const KEY: u32 = 1 << 5;
}

/// What an access is for. Who reads and writes wants [`Purpose::Write`]: what may be written may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Reading data.
    Read,
    /// Writing data.
    Write,
    /// Fetching instructions.
    Fetch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    None,
    Legacy,
    Pae,
    FourLevel,
}

/// The paging mode and what modifies access rights, as they are now.
#[derive(Clone, Copy, Debug)]
pub struct Paging {
    kind: Kind,
    cr3: u64,
    pdptes: [u64; 4],
    /// Address bits that no physical address has.
    beyond: u64,
    /// What is reserved in every entry.
    always_reserved: u64,
    page_size_extension: bool,
    gigabyte_pages: bool,
    write_protect: bool,
    no_execute: bool,
    smep: bool,
    /// SMAP that RFLAGS.AC does not suspend.
    smap: bool,
    user: bool,
    /// PKRU where protection keys are on.
    keys: Option<u32>,
}

/// A translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// The guest-physical address.
    pub physical: u64,
    /// The entry that maps it, when a write has to set its dirty bit.
    dirty: Option<u64>,
}

/// Why there is no translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPage {
    /// A page fault with this error code.
    Fault(u32),
    /// The paging structures cannot be reached.
    Bus(BusError),
}

impl From<BusError> for NoPage {
    fn from(error: BusError) -> Self {
        Self::Bus(error)
    }
}

impl Page {
    /// Sets the dirty bit if it is clear. Right before the first write.
    ///
    /// # Errors
    /// [`BusError`].
    pub fn mark_dirty<B: Bus + ?Sized>(&mut self, bus: &mut B) -> Result<(), BusError> {
        match self.dirty.take() {
            Some(entry) => set_bits(bus, entry, DIRTY as u8),
            None => Ok(()),
        }
    }
}

/// Sets bits of an entry's lowest byte, where accessed and dirty bits are.
fn set_bits<B: Bus + ?Sized>(bus: &mut B, entry: u64, bits: u8) -> Result<(), BusError> {
    let mut byte = [0];
    bus.read(entry, &mut byte)?;
    bus.write(entry, &[byte[0] | bits])
}

impl Paging {
    /// As the registers say.
    pub fn of<C: Cpu + ?Sized>(cpu: &C) -> Self {
        let (cr0, cr4, efer) = (cpu.cr0(), cpu.cr4(), cpu.efer());
        let kind = match () {
            () if cr0 & CR0_PG == 0 => Kind::None,
            () if efer & EFER_LMA != 0 => Kind::FourLevel,
            () if cr4 & CR4_PAE != 0 => Kind::Pae,
            () => Kind::Legacy,
        };
        let pdptes = if kind == Kind::Pae { [0, 1, 2, 3].map(|n| cpu.pdpte(n)) } else { [0; 4] };
        let beyond = ADDRESS & (u64::MAX << cpu.physical_bits().clamp(32, 52));
        let no_execute = efer & EFER_NXE != 0 && kind != Kind::Legacy;
        let wide = beyond | if no_execute { 0 } else { NO_EXECUTE };
        Self {
            always_reserved: match kind {
                Kind::None | Kind::Legacy => 0,
                // With PAE paging, bits 62:52 as well.
                Kind::Pae => wide | 0x7ff << 52,
                Kind::FourLevel => wide,
            },
            kind,
            cr3: cpu.cr3(),
            pdptes,
            beyond,
            page_size_extension: cr4 & CR4_PSE != 0,
            gigabyte_pages: cpu.gigabyte_pages(),
            write_protect: cr0 & CR0_WP != 0,
            no_execute,
            smep: cr4 & CR4_SMEP != 0,
            smap: cr4 & CR4_SMAP != 0 && cpu.rflags() & RFLAGS_AC == 0,
            user: cpu.cpl() == 3,
            keys: (cr4 & CR4_PKE != 0 && kind == Kind::FourLevel).then(|| cpu.pkru()),
        }
    }

    /// The same for an access that is made with a user's rights, or not, whatever the privilege level: tables of the system
    /// are accessed without.
    #[must_use]
    pub const fn with_user(self, user: bool) -> Self {
        Self { user, ..self }
    }

    /// Translates a linear address: checks the rights and sets the accessed bits. The caller has made sure that it is
    /// canonical.
    ///
    /// # Errors
    /// See [`NoPage`].
    pub fn translate<B: Bus + ?Sized>(
        &self,
        bus: &mut B,
        linear: u64,
        purpose: Purpose,
    ) -> Result<Page, NoPage> {
        match self.kind {
            Kind::None => Ok(Page { physical: linear & 0xffff_ffff, dirty: None }),
            Kind::Legacy => self.walk::<B, false, 2>(bus, linear, purpose, self.cr3 & 0xffff_f000),
            Kind::FourLevel => self.walk::<B, true, 4>(bus, linear, purpose, self.cr3 & ADDRESS),
            Kind::Pae => {
                let entry = self.pdptes[(linear >> 30 & 3) as usize];
                if entry & PRESENT == 0 {
                    return Err(NoPage::Fault(self.error(purpose, 0)));
                }
                self.walk::<B, true, 2>(bus, linear, purpose, entry & ADDRESS)
            }
        }
    }

    /// Walks tables of 512 wide or 1024 narrow entries, so many levels of them.
    fn walk<B: Bus + ?Sized, const WIDE: bool, const LEVELS: u32>(
        &self,
        bus: &mut B,
        linear: u64,
        purpose: Purpose,
        root: u64,
    ) -> Result<Page, NoPage> {
        let mut walked = Walked { entries: [0; 4], count: 0, stale: 0, all: u64::MAX, any: 0 };
        let mut table = root;
        for level in (0..LEVELS).rev() {
            // Constants, as the loop is unrolled.
            let shift = 12 + level * if WIDE { 9 } else { 10 };
            let address = if WIDE {
                table | (linear >> shift & 0x1ff) << 3
            } else {
                table | (linear >> shift & 0x3ff) << 2
            };
            let entry = read_entry::<B, WIDE>(bus, address)?;
            if entry & PRESENT == 0 {
                return Err(NoPage::Fault(self.error(purpose, 0)));
            }
            let large = level != 0 && entry & LARGE != 0;
            let leaf = level == 0 || large && self.may_be_large(shift);
            let reserved = if large { self.reserved(shift, leaf) } else { self.always_reserved };
            if entry & reserved != 0 {
                return Err(NoPage::Fault(self.error(purpose, error::PRESENT | error::RESERVED)));
            }
            walked.add(address, entry);
            if leaf {
                return self.finish(bus, linear, purpose, entry, shift, &walked);
            }
            table = entry & ADDRESS;
        }
        // Level 0 is always a leaf.
        Err(NoPage::Fault(self.error(purpose, 0)))
    }

    /// Whether an entry that translates bits from this one on may map a page.
    const fn may_be_large(&self, shift: u32) -> bool {
        match shift {
            21 => true,
            22 => self.page_size_extension,
            30 => self.gigabyte_pages,
            _ => false,
        }
    }

    /// The reserved bits of an entry with PS set (SDM vol. 3A, 4.3 to 4.5).
    const fn reserved(&self, shift: u32, leaf: bool) -> u64 {
        self.always_reserved
            | match (self.kind, shift, leaf) {
                // A 4-MByte page: bit 21, and of bits 39:32 of the address, which are 20:13, those beyond MAXPHYADDR.
                (Kind::Legacy, 22, true) => 1 << 21 | self.beyond >> 19 & 0x1f_e000,
                (Kind::Legacy, ..) => 0,
                (_, 21, true) => 0x1f_e000,
                (_, 30, true) => 0x3fff_e000,
                // PS is reserved where no page can be.
                _ => LARGE,
            }
    }

    fn finish<B: Bus + ?Sized>(
        &self,
        bus: &mut B,
        linear: u64,
        purpose: Purpose,
        entry: u64,
        shift: u32,
        walked: &Walked,
    ) -> Result<Page, NoPage> {
        if let Err(bits) = self.check(purpose, entry, walked) {
            return Err(NoPage::Fault(self.error(purpose, bits)));
        }
        walked.mark_accessed(bus)?;
        let dirty = match purpose {
            Purpose::Write if entry & DIRTY == 0 => walked.entries.get(walked.count.wrapping_sub(1)).copied(),
            _ => None,
        };
        let offset = (1_u64 << shift) - 1;
        let base = match shift {
            // PSE-36: bits 20:13 are bits 39:32 of the address.
            22 => entry & 0xffc0_0000 | (entry >> 13 & 0xff) << 32,
            _ => entry & ADDRESS & !offset,
        };
        Ok(Page { physical: base | linear & offset, dirty })
    }

    /// The access rights (SDM vol. 3A, 4.6); Err: bits of the error code.
    const fn check(&self, purpose: Purpose, leaf: u64, walked: &Walked) -> Result<(), u32> {
        let (user_page, writable) = (walked.all & USER != 0, walked.all & WRITABLE != 0);
        let write = matches!(purpose, Purpose::Write);
        let fetch = matches!(purpose, Purpose::Fetch);
        let refused = match () {
            () if fetch && self.no_execute && walked.any & NO_EXECUTE != 0 => true,
            () if self.user => !user_page || write && !writable,
            () if user_page && fetch => self.smep,
            () if user_page && self.smap => true,
            () => write && !writable && self.write_protect,
        };
        if refused {
            return Err(error::PRESENT);
        }
        if let Some(pkru) = self.keys
            && user_page
            && !fetch
        {
            let rights = pkru >> (2 * (leaf >> 59 & 15));
            if rights & 1 != 0 || rights & 2 != 0 && write && (self.user || self.write_protect) {
                return Err(error::PRESENT | error::KEY);
            }
        }
        Ok(())
    }

    const fn error(&self, purpose: Purpose, bits: u32) -> u32 {
        let user = if self.user { error::USER } else { 0 };
        bits | user
            | match purpose {
                Purpose::Read => 0,
                Purpose::Write => error::WRITE,
                Purpose::Fetch if self.no_execute || self.smep => error::FETCH,
                Purpose::Fetch => 0,
            }
    }
}

fn read_entry<B: Bus + ?Sized, const WIDE: bool>(bus: &mut B, address: u64) -> Result<u64, BusError> {
    if WIDE {
        let mut bytes = [0; 8];
        bus.read(address, &mut bytes)?;
        return Ok(u64::from_le_bytes(bytes));
    }
    let mut bytes = [0; 4];
    bus.read(address, &mut bytes)?;
    Ok(u32::from_le_bytes(bytes).into())
}

/// The entries that a translation used.
struct Walked {
    entries: [u64; 4],
    count: usize,
    /// Bit n: entry n has no accessed bit yet.
    stale: u8,
    /// The entries' bits: set in all of them, set in any of them.
    all: u64,
    any: u64,
}

impl Walked {
    fn add(&mut self, address: u64, entry: u64) {
        if let Some(slot) = self.entries.get_mut(self.count) {
            *slot = address;
            self.stale |= u8::from(entry & ACCESSED == 0) << self.count;
            self.count += 1;
        }
        self.all &= entry;
        self.any |= entry;
    }

    fn mark_accessed<B: Bus + ?Sized>(&self, bus: &mut B) -> Result<(), BusError> {
        if self.stale == 0 {
            return Ok(());
        }
        for (n, entry) in self.entries.iter().enumerate().take(self.count) {
            if self.stale & 1 << n != 0 {
                set_bits(bus, *entry, ACCESSED as u8)?;
            }
        }
        Ok(())
    }
}
