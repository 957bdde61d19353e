//! What every kernel finds that starts without firmware: descriptor table, page tables, tables of the board.

use super::acpi::{Board, Tables};
use super::map::{BDA_BASE_MEMORY, BDA_EBDA_SEGMENT, BIOS, low};
use super::{LoadError, Segments};
use crate::ram::{NotRam, Ram};

/// Null, unused, code, data: Linux wants them at 10h and 18h (`Documentation/arch/x86/boot.rst`, "32-bit boot protocol").
const GDT_CODE: u16 = 0x10;
const GDT_DATA: u16 = 0x18;
/// Present, accessed, flat, 4-KiB granularity: SDM vol. 3A, 3.4.5.
const CODE_32: u64 = 0x00cf_9b00_0000_ffff;
const CODE_64: u64 = 0x00af_9b00_0000_ffff;
const DATA: u64 = 0x00cf_9300_0000_ffff;

/// Page-table entry bits: present, writable, accessed, dirty; and the page-size bit.
const TABLE: u64 = 0x23;
const PAGE: u64 = 0xe3;
const LARGE: u64 = 2 << 20;
const TABLE_BYTES: u64 = 4096;
const ENTRIES: u64 = 512;
/// GiB that are mapped.
const MAPPED: u64 = 4;

/// Writes the flat descriptor table.
pub fn segments(ram: &mut Ram<'_>, long: bool) -> Result<Segments, NotRam> {
    let table = [0, 0, if long { CODE_64 } else { CODE_32 }, DATA];
    for (at, descriptor) in (low::GDT..).step_by(8).zip(table) {
        ram.write(at, &u64::to_le_bytes(descriptor))?;
    }
    let limit = size_of_val(&table) as u16 - 1;
    Ok(Segments { gdt: low::GDT, limit, code: GDT_CODE, data: GDT_DATA })
}

/// Writes page tables that map the first 4 GiB one to one by 2-MByte pages; answers CR3.
pub fn page_tables(ram: &mut Ram<'_>) -> Result<u64, NotRam> {
    let (pml4, pdpt) = (low::PAGE_TABLES, low::PAGE_TABLES + TABLE_BYTES);
    let directories = pdpt + TABLE_BYTES;
    ram.slice_mut(pml4, ((2 + MAPPED) * TABLE_BYTES) as usize)?.fill(0);
    ram.write(pml4, &(pdpt | TABLE).to_le_bytes())?;
    for gib in 0..MAPPED {
        let directory = directories + gib * TABLE_BYTES;
        ram.write(pdpt + gib * 8, &(directory | TABLE).to_le_bytes())?;
        for entry in 0..ENTRIES {
            let page = (gib * ENTRIES + entry) * LARGE;
            ram.write(directory + entry * 8, &(page | PAGE).to_le_bytes())?;
        }
    }
    Ok(pml4)
}

/// Leaves behind what firmware would: the board's tables and the two words of the BIOS data area that say where memory
/// below 640 KiB ends. Answers the address of the RSDP.
pub fn firmware_left(ram: &mut Ram<'_>, board: &Board) -> Result<u64, LoadError> {
    ram.write(BDA_EBDA_SEGMENT, &((low::END >> 4) as u16).to_le_bytes())?;
    ram.write(BDA_BASE_MEMORY, &((low::END >> 10) as u16).to_le_bytes())?;
    // One KiB: the area's size, in its first byte.
    ram.write(low::END, &[1])?;
    let tables = Tables::new(board);
    let rsdp = tables.placed(BIOS);
    ram.write(BIOS, &rsdp.bytes)?;
    Ok(rsdp.rsdp)
}
