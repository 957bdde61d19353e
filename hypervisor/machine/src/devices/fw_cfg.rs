//! QEMU's firmware configuration device: named files that firmware reads by port or by DMA. Source: QEMU,
//! `docs/specs/fw_cfg`; what SeaBIOS reads: its `src/fw/paravirt.c`.
//!
//! Nothing in it can be written by the guest. Its contents are made anew from the configuration; its state is only what is
//! selected.

use alloc::format;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::BadState;
use crate::load::acpi::{Board, Tables};
use crate::load::linker::{self, RSDP_FILE, TABLES_FILE};
use crate::load::map;
use crate::ram::{Layout, NotRam, Ram};

/// The device's ports: offset of the selector (16 bits, written).
pub const SELECTOR: u16 = 0;
/// Offset of the data port (8 bits, read).
pub const DATA: u16 = 1;
/// Offset of the DMA address's upper half (32 bits, big-endian).
pub const DMA_HIGH: u16 = 4;
/// Offset of the DMA address's lower half (32 bits, big-endian); writing it starts the transfer.
pub const DMA_LOW: u16 = 8;
/// Ports, from the first to behind the last.
pub const PORTS: u16 = 12;

/// The most bytes of one DMA transfer: more is an error. Files are far smaller.
pub const TRANSFER_MOST: u32 = 1 << 20;

/// What the DMA register reads as, and what the first item contains.
const DMA_SIGNATURE: [u8; 8] = *b"QEMU CFG";
const SIGNATURE: [u8; 4] = *b"QEMU";
/// The traditional interface, and DMA.
const FEATURES: u32 = 1 << 0 | 1 << 1;

/// Items that are no files.
const KEY_SIGNATURE: u16 = 0x00;
const KEY_FEATURES: u16 = 0x01;
const KEY_MEMORY: u16 = 0x03;
const KEY_NO_GRAPHICS: u16 = 0x04;
const KEY_PROCESSORS: u16 = 0x05;
const KEY_PROCESSORS_MOST: u16 = 0x0f;
const KEY_DIRECTORY: u16 = 0x19;
const KEY_FIRST_FILE: u16 = 0x20;
/// The PIT is at pin 2 of the I/O APIC.
const KEY_IRQ0_OVERRIDE: u16 = 0x8002;

/// Bytes of a file's name, its final zero included.
const NAME: usize = 56;

/// Control bits of a DMA transfer.
const CTL_ERROR: u32 = 1 << 0;
const CTL_READ: u32 = 1 << 1;
const CTL_SKIP: u32 = 1 << 2;
const CTL_SELECT: u32 = 1 << 3;
const CTL_WRITE: u32 = 1 << 4;

/// What the firmware is to know of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'b> {
    /// Where the guest has memory.
    pub layout: Layout,
    /// The board.
    pub board: &'b Board,
    /// The device on PCI bus 0 to start from; no other is tried.
    pub boot: Option<u8>,
}

/// All there is to save.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The selected item.
    pub selector: u16,
    /// The next byte of it.
    pub offset: u32,
    /// The upper half of the DMA address.
    pub dma_high: u32,
}

/// The device. By default it is empty, and firmware takes it for absent.
#[derive(Clone, Debug, Default)]
pub struct FwCfg {
    /// By key, in ascending order.
    items: Vec<(u16, Vec<u8>)>,
    state: State,
}

impl FwCfg {
    /// The device of a machine.
    pub fn new(setup: &Setup<'_>) -> Self {
        let memory = setup.layout.bytes().to_le_bytes();
        let mut items = alloc::vec![
            (KEY_SIGNATURE, SIGNATURE.to_vec()),
            (KEY_FEATURES, FEATURES.to_le_bytes().to_vec()),
            (KEY_MEMORY, memory.to_vec()),
            (KEY_NO_GRAPHICS, 1u16.to_le_bytes().to_vec()),
            (KEY_PROCESSORS, 1u16.to_le_bytes().to_vec()),
            (KEY_PROCESSORS_MOST, 1u16.to_le_bytes().to_vec()),
        ];
        let files = files(setup);
        items.push((KEY_DIRECTORY, directory(&files)));
        items.extend((KEY_FIRST_FILE..).zip(files.into_iter().map(|(_, contents)| contents)));
        items.push((KEY_IRQ0_OVERRIDE, alloc::vec![1]));
        Self { items, state: State::default() }
    }

    /// The state.
    pub fn save(&self) -> State {
        self.state.clone()
    }

    /// Puts a saved state into a device with the same contents.
    ///
    /// # Errors
    /// None: every state is valid.
    pub fn restore(&mut self, state: State) -> Result<(), BadState> {
        self.state = state;
        Ok(())
    }

    /// As after power-on.
    pub fn reset(&mut self) {
        self.state = State::default();
    }

    /// Reads a byte. A wider access is one of several bytes, in ascending order.
    pub fn read(&mut self, offset: u16) -> u8 {
        match offset {
            DATA => self.next(),
            DMA_HIGH..PORTS if !self.items.is_empty() => DMA_SIGNATURE[usize::from(offset - DMA_HIGH)],
            _ => 0,
        }
    }

    /// Writes 1, 2 or 4 bytes at once. Only whole registers can be written; anything else is ignored.
    pub fn write(&mut self, offset: u16, size: u8, value: u32, ram: &mut Ram<'_>) {
        match (offset, size) {
            (SELECTOR, 2) => self.select(value as u16),
            (DMA_HIGH, 4) => self.state.dma_high = value.swap_bytes(),
            (DMA_LOW, 4) => {
                let address = u64::from(self.state.dma_high) << 32 | u64::from(value.swap_bytes());
                self.state.dma_high = 0;
                // A description that is not in memory has no place for an error either.
                let _ = self.transfer(address, ram);
            }
            _ => {}
        }
    }

    fn select(&mut self, key: u16) {
        self.state.selector = key;
        self.state.offset = 0;
    }

    /// What is left of the selected item.
    fn rest(&self) -> &[u8] {
        let found = self.items.binary_search_by_key(&self.state.selector, |item| item.0);
        let item = found.ok().and_then(|index| self.items.get(index));
        item.and_then(|item| item.1.get(self.state.offset as usize..)).unwrap_or_default()
    }

    /// The next byte; 0 beyond the end.
    fn next(&mut self) -> u8 {
        let byte = self.rest().first().copied();
        self.state.offset += u32::from(byte.is_some());
        byte.unwrap_or(0)
    }

    /// Does what the description at this address says: control, length, address, all big-endian. When the control word is
    /// 0 or an error again, it is done.
    fn transfer(&mut self, at: u64, ram: &mut Ram<'_>) -> Result<(), NotRam> {
        let description: [u8; 16] = ram.read_array(at)?;
        let number = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|n| description[at + n]));
        let (control, length) = (number(0), number(4));
        let address = u64::from(number(8)) << 32 | u64::from(number(12));
        if control & CTL_SELECT != 0 {
            self.select((control >> 16) as u16);
        }
        let done = match control {
            _ if length > TRANSFER_MOST => CTL_ERROR,
            _ if control & CTL_READ != 0 => self.copy(address, length as usize, ram),
            _ if control & CTL_WRITE != 0 => CTL_ERROR,
            _ if control & CTL_SKIP != 0 => {
                self.skip(length as usize);
                0
            }
            _ => 0,
        };
        ram.write(at, &done.to_be_bytes())
    }

    /// Copies from the selected item, and zeros beyond its end; answers the control word.
    fn copy(&mut self, address: u64, length: usize, ram: &mut Ram<'_>) -> u32 {
        let Ok(memory) = ram.slice_mut(address, length) else { return CTL_ERROR };
        let rest = self.rest();
        let (contents, zeros) = memory.split_at_mut(rest.len().min(length));
        contents.copy_from_slice(&rest[..contents.len()]);
        zeros.fill(0);
        self.skip(length);
        0
    }

    /// Passes over bytes of the selected item, to its end at most.
    fn skip(&mut self, length: usize) {
        self.state.offset += self.rest().len().min(length) as u32;
    }
}

/// The files, by name.
fn files(setup: &Setup<'_>) -> Vec<(&'static str, Vec<u8>)> {
    let tables = Tables::new(setup.board);
    let script = linker::script(&tables);
    let memory = map::memory(setup.layout).iter().flat_map(map::Entry::e820).collect();
    let mut files = alloc::vec![
        (RSDP_FILE, tables.rsdp),
        (TABLES_FILE, tables.tables),
        // Without something to start from, say so and stop; do not reset for ever.
        ("etc/boot-fail-wait", u32::MAX.to_le_bytes().to_vec()),
        ("etc/e820", memory),
        ("etc/table-loader", script),
    ];
    if setup.board.serial {
        files.push(("etc/sercon-port", 0x3f8u64.to_le_bytes().to_vec()));
    }
    if let Some(device) = setup.boot {
        // As Open Firmware names them; HALT: nothing else.
        files.push(("bootorder", format!("/pci@i0cf8/scsi@{device:x}/disk@0,0\nHALT\n").into_bytes()));
    }
    files.sort_by_key(|file| file.0);
    files
}

/// The directory: count, then size, key, reserved, name of each; numbers big-endian.
fn directory(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = (files.len() as u32).to_be_bytes().to_vec();
    for ((name, contents), key) in files.iter().zip(KEY_FIRST_FILE..) {
        bytes.extend((contents.len() as u32).to_be_bytes());
        bytes.extend(key.to_be_bytes());
        bytes.extend([0; 2]);
        let mut padded = [0; NAME];
        padded[..name.len()].copy_from_slice(name.as_bytes());
        bytes.extend(padded);
    }
    bytes
}

#[cfg(test)]
mod tests;
