//! The guest's page tables as they are, walked without a trace: no accessed bit is set.

use replay::digest::Register;

/// The registers' values, by [`Register`].
pub type Registers = [u64; Register::COUNT];

const CR0_PG: u64 = 1 << 31;
const CR4_PSE: u64 = 1 << 4;
const CR4_PAE: u64 = 1 << 5;
const EFER_LMA: u64 = 1 << 10;

const PRESENT: u64 = 1;
const LARGE: u64 = 1 << 7;
/// Bits 51:12.
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;

/// An entry on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it is, in the SDM's words.
    pub name: &'static str,
    /// Its guest-physical address; None: it is in a register.
    pub at: Option<u64>,
    /// The entry.
    pub entry: u64,
}

/// Where a walk ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At this guest-physical address, in a page of so many bytes.
    Page(u64, u64),
    /// The last entry maps nothing.
    NotPresent,
    /// The last entry leads to where there is no memory.
    NoMemory,
    /// The address is none: bits 63:47 differ.
    NotCanonical,
}

/// How addresses are translated now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    None,
    Legacy,
    Pae,
    FourLevel,
}

fn mode(registers: &Registers) -> Mode {
    let has = |register: Register, bit: u64| registers[register as usize] & bit != 0;
    match () {
        () if !has(Register::Cr0, CR0_PG) => Mode::None,
        () if has(Register::Efer, EFER_LMA) => Mode::FourLevel,
        () if has(Register::Cr4, CR4_PAE) => Mode::Pae,
        () => Mode::Legacy,
    }
}

/// Whether linear addresses are translated.
pub fn is_on(registers: &Registers) -> bool {
    mode(registers) != Mode::None
}

/// Walks to a linear address. `read` reads guest-physical memory; `each` is called for every entry on the way.
pub fn walk(
    registers: &Registers,
    linear: u64,
    read: &mut dyn FnMut(u64, &mut [u8]) -> bool,
    each: &mut dyn FnMut(Step),
) -> End {
    let cr3 = registers[Register::Cr3 as usize];
    match mode(registers) {
        Mode::None => End::Page(linear, 1 << 12),
        Mode::Legacy => legacy(registers, linear & 0xFFFF_FFFF, read, each),
        Mode::Pae => {
            let linear = linear & 0xFFFF_FFFF;
            let entry = registers[Register::Pdpte0 as usize + (linear >> 30) as usize];
            each(Step { name: "PDPTE", at: None, entry });
            if entry & PRESENT == 0 {
                return End::NotPresent;
            }
            wide(entry & ADDRESS, &["PDE", "PTE"], linear, read, each)
        }
        Mode::FourLevel if (linear as i64) << 16 >> 16 != linear as i64 => End::NotCanonical,
        Mode::FourLevel => wide(cr3 & ADDRESS, &["PML4E", "PDPTE", "PDE", "PTE"], linear, read, each),
    }
}

/// Tables of 512 entries of 8 bytes.
fn wide(
    root: u64,
    names: &[&'static str],
    linear: u64,
    read: &mut dyn FnMut(u64, &mut [u8]) -> bool,
    each: &mut dyn FnMut(Step),
) -> End {
    let mut table = root;
    for (level, name) in (0..names.len()).rev().zip(names) {
        let shift = 12 + 9 * level;
        let at = table + (linear >> shift & 0x1FF) * 8;
        let mut bytes = [0; 8];
        if !read(at, &mut bytes) {
            return End::NoMemory;
        }
        let entry = u64::from_le_bytes(bytes);
        each(Step { name, at: Some(at), entry });
        if entry & PRESENT == 0 {
            return End::NotPresent;
        }
        // A PML4E has no such bit.
        if level == 0 || level < 3 && entry & LARGE != 0 {
            let inside = (1 << shift) - 1;
            return End::Page(entry & ADDRESS & !inside | linear & inside, 1 << shift);
        }
        table = entry & ADDRESS;
    }
    End::NotPresent
}

/// Two tables of 1024 entries of 4 bytes.
fn legacy(
    registers: &Registers,
    linear: u64,
    read: &mut dyn FnMut(u64, &mut [u8]) -> bool,
    each: &mut dyn FnMut(Step),
) -> End {
    let large_pages = registers[Register::Cr4 as usize] & CR4_PSE != 0;
    let mut table = registers[Register::Cr3 as usize] & 0xFFFF_F000;
    for (name, shift) in [("PDE", 22), ("PTE", 12)] {
        let at = table + (linear >> shift & 0x3FF) * 4;
        let mut bytes = [0; 4];
        if !read(at, &mut bytes) {
            return End::NoMemory;
        }
        let entry = u64::from(u32::from_le_bytes(bytes));
        each(Step { name, at: Some(at), entry });
        if entry & PRESENT == 0 {
            return End::NotPresent;
        }
        if shift == 22 && large_pages && entry & LARGE != 0 {
            // PSE-36: bits 20:13 are address bits 39:32.
            let base = entry & 0xFFC0_0000 | (entry >> 13 & 0xFF) << 32;
            return End::Page(base | linear & 0x3F_FFFF, 1 << 22);
        }
        table = entry & 0xFFFF_F000;
    }
    End::Page(table | linear & 0xFFF, 1 << 12)
}

/// Reads at a linear address, page by page. Returns the linear address that cannot be read, if any; what comes before it was
/// read.
pub fn read_linear(
    registers: &Registers,
    linear: u64,
    bytes: &mut [u8],
    read: &mut dyn FnMut(u64, &mut [u8]) -> bool,
) -> Option<u64> {
    let (mut at, mut rest) = (linear, bytes);
    while !rest.is_empty() {
        let End::Page(physical, size) = walk(registers, at, read, &mut |_| {}) else { return Some(at) };
        let here = (size - (at & (size - 1))).min(rest.len() as u64) as usize;
        let (now, later) = core::mem::take(&mut rest).split_at_mut(here);
        if !read(physical, now) {
            return Some(at);
        }
        (at, rest) = (at.wrapping_add(here as u64), later);
    }
    None
}
