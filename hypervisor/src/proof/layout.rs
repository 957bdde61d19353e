//! The proof guest's memory: page tables, descriptor tables, stacks, code, data. Pure.
//!
//! Guest-physical = guest-linear below 2 MiB, in pages of 4 KiB so that each can be taken away by itself.

use super::stubs::{CODE, DATA, HANDLERS, ORDER};
use replay::proof::Stub;

/// Bytes of guest memory.
pub const BYTES: usize = 0x30000;
/// CR3.
pub const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const DIRECTORY: u64 = 0x3000;
const PAGE_TABLE: u64 = 0x4000;
/// GDTR base; [`GDT_LIMIT`] its limit.
pub const GDT: u64 = 0x5000;
/// GDTR limit.
pub const GDT_LIMIT: u32 = 8 * 8 - 1;
/// IDTR base; its limit is 0xFFF.
pub const IDT: u64 = 0x6000;
/// Base of the task state.
pub const TSS: u64 = 0x7000;
/// Stack pointer on entry to ring 0 from ring 3.
const RING0_STACK: u64 = 0x9000;
/// Stack pointer at the start.
pub const STACK: u64 = 0xA000;
/// The guest-linear page that is not present; its page-table entry names the last data page.
const ABSENT: u64 = 0x1F_F000;

/// Pages that may be taken away: all that the guest touches.
pub const PAGES: [u64; 27] = {
    let mut pages = [0; 27];
    let mut i = 0;
    while i < 27 {
        pages[i] = match i {
            // Page tables, descriptor tables, task state, stacks.
            0..9 => 0x1000 + 0x1000 * i as u64,
            9 | 10 => CODE + 0x1000 * (i as u64 - 9),
            _ => DATA + 0x1000 * (i as u64 - 11),
        };
        i += 1;
    }
    pages
};

/// Present, writable, user, accessed, dirty: the walk has nothing to set.
const PTE: u64 = 0x67;
const PTE_ABSENT: u64 = PTE & !1;

/// SYSCALL's registers: ring 0 selectors from 0x08, ring 3 selectors from 0x10 (SS 0x18, CS 0x20).
pub const STAR: u64 = 0x10 << 48 | 0x08 << 32;

/// Selectors: 0x08 ring-0 code, 0x10 data, 0x18 ring-3 data, 0x20 ring-3 code, 0x28 task state (16 bytes), 0x38 ring-0
/// code again, for far transfers.
const DESCRIPTORS: [u64; 8] = [
    0,
    0x00AF_9B00_0000_FFFF,
    0x00CF_9300_0000_FFFF,
    0x00CF_F300_0000_FFFF,
    0x00AF_FB00_0000_FFFF,
    0x0000_8B00_0000_0067 | (TSS & 0xFF_FFFF) << 16,
    0,
    0x00AF_9B00_0000_FFFF,
];

fn word(image: &[u8], index: usize) -> u64 {
    let bytes = image[4 * index..][..4].try_into().expect("four bytes");
    CODE + u64::from(u32::from_le_bytes(bytes))
}

/// Where a stub starts.
pub fn entry(image: &[u8], stub: Stub) -> u64 {
    // Debug registers are the one stub after the table's named order.
    word(image, ORDER.iter().position(|s| *s == stub).unwrap_or(ORDER.len()))
}

/// Where SYSCALL goes.
pub fn system_call(image: &[u8]) -> u64 {
    word(image, ORDER.len() + 1 + HANDLERS.len())
}

fn put(memory: &mut [u8], at: u64, value: u64) {
    memory[at as usize..][..8].copy_from_slice(&value.to_le_bytes());
}

/// Fills fresh memory.
///
/// # Panics
/// When the image does not fit between code and data.
pub fn fill(memory: &mut [u8], image: &[u8]) {
    assert!(memory.len() == BYTES && image.len() as u64 <= DATA - CODE);
    put(memory, PML4, PDPT | PTE);
    put(memory, PDPT, DIRECTORY | PTE);
    put(memory, DIRECTORY, PAGE_TABLE | PTE);
    for page in 0..BYTES as u64 / 0x1000 {
        put(memory, PAGE_TABLE + 8 * page, (page * 0x1000) | PTE);
    }
    put(memory, PAGE_TABLE + 8 * (ABSENT / 0x1000), (DATA + 0xF000) | PTE_ABSENT);
    for (index, descriptor) in DESCRIPTORS.into_iter().enumerate() {
        put(memory, GDT + 8 * index as u64, descriptor);
    }
    put(memory, TSS + 4, RING0_STACK);
    for (index, vector) in HANDLERS.into_iter().enumerate() {
        let handler = word(image, ORDER.len() + 1 + index);
        // Present, 64-bit interrupt gate, selector 0x08.
        let gate = handler & 0xFFFF | 0x08 << 16 | 0x8E00 << 32 | (handler & 0xFFFF_0000) << 32;
        put(memory, IDT + 16 * u64::from(vector), gate);
    }
    memory[CODE as usize..][..image.len()].copy_from_slice(image);
}

#[cfg(test)]
mod tests {
    use super::*;
    use replay::proof::PROPERTIES;
    use std::vec;

    fn image() -> std::vec::Vec<u8> {
        let words = ORDER.len() + 1 + HANDLERS.len() + 1;
        (0..words as u32).flat_map(|i| (0x100 * i).to_le_bytes()).collect()
    }

    #[test]
    fn every_property_has_its_stub() {
        for property in PROPERTIES {
            let known = ORDER.contains(&property.stub) || property.stub == Stub::DebugRegisters;
            assert!(known, "{}", property.name);
        }
        assert_eq!(entry(&image(), Stub::Nothing), CODE);
        assert_eq!(entry(&image(), Stub::DebugRegisters), CODE + 0x1500);
        assert_eq!(system_call(&image()), CODE + 0x1E00);
    }

    #[test]
    fn memory_is_mapped_and_gated() {
        let mut memory = vec![0; BYTES];
        fill(&mut memory, &image());
        let at = |address: u64| u64::from_le_bytes(memory[address as usize..][..8].try_into().unwrap());
        assert_eq!(at(0x4000 + 8 * 0x10), 0x10067);
        assert_eq!(at(0x4FF8), 0x2F066);
        assert_eq!(at(IDT + 16 * 0x20), CODE << 48 >> 48 & 0xFFFF | 0x1C00 | 0x0001_8E00_0008_0000);
        assert_eq!(at(IDT + 16 * 0x21), 0, "other vectors end in a triple fault");
        assert!(PAGES.iter().all(|page| (*page as usize) < BYTES));
    }
}
