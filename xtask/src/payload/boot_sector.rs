//! A disk whose boot sector is the whole system: it prints by the BIOS, reads and writes sectors by the BIOS, and switches the
//! machine off. The least that boots by firmware.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use vm_config::Memory;

use crate::paths;
use crate::vm::{Description, DiskSource, Start};

/// Where Debian's package `seabios` puts the BIOS.
pub const SEABIOS: &str = "/usr/share/seabios/bios-256k.bin";
/// What the boot sector says first.
pub const GREETING: &str = "Boot sector: here.";
/// What stands in the second sector; the boot sector prints it, writes it to the third, reads that and prints it again.
pub const SECOND_SECTOR: &str = "Second sector: read by INT 13h.";
/// What the boot sector says when the BIOS reports an error.
pub const FAILURE: &str = "Boot sector: INT 13h failed.";

/// Bytes of a sector.
const SECTOR: usize = 512;
/// Sectors of the disk: 1 MiB.
const SECTORS: usize = 2048;
/// Where the BIOS loads the boot sector.
const ORIGIN: u16 = 0x7c00;
/// Where the sectors go that it reads.
const FIRST_BUFFER: u16 = 0x7e00;
const SECOND_BUFFER: u16 = 0x8000;
/// Offsets in the boot sector: disk address packets and texts.
const PACKETS: u16 = 0x80;
const PACKET: u16 = 16;
const TEXTS: u16 = 0xc0;

/// The virtual machine that boots it by SeaBIOS.
///
/// # Errors
/// When the disk cannot be written.
pub fn describe() -> Result<Description> {
    let dir = paths::out_dir()?.join("payload");
    fs::create_dir_all(&dir)?;
    let file = dir.join("boot-sector.img");
    let disk = disk();
    // Others may be about to read it: never half of it.
    if fs::read(&file).ok().as_deref() != Some(&disk) {
        let partial =
            file.with_extension(format!("{}.{:?}", std::process::id(), std::thread::current().id()));
        fs::write(&partial, &disk)?;
        fs::rename(&partial, &file).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(Description {
        memory: Memory { bytes: 16 << 20 },
        disks: vec![DiskSource::Image(file)],
        ..Description::new("boot-sector", Start::Firmware(PathBuf::from(SEABIOS)))
    })
}

/// The disk's contents.
pub fn disk() -> Vec<u8> {
    let mut disk = vec![0; SECTORS * SECTOR];
    let mut put = |at: usize, bytes: &[u8]| disk[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &code());
    for (number, (sector, buffer)) in
        [(1, FIRST_BUFFER), (2, FIRST_BUFFER), (2, SECOND_BUFFER)].iter().enumerate()
    {
        put(usize::from(PACKETS + PACKET * number as u16), &packet(*sector, *buffer));
    }
    let failure = usize::from(TEXTS) + GREETING.len() + 3;
    put(usize::from(TEXTS), format!("{GREETING}\r\n").as_bytes());
    put(failure, format!("{FAILURE}\r\n").as_bytes());
    put(SECTOR - 2, &[0x55, 0xaa]);
    put(SECTOR, format!("{SECOND_SECTOR}\r\n").as_bytes());
    disk
}

/// What INT 13h is given: one sector and the place in memory that it goes to or comes from.
fn packet(sector: u64, buffer: u16) -> [u8; PACKET as usize] {
    let mut packet = [0; PACKET as usize];
    packet[0] = PACKET as u8;
    packet[2] = 1;
    packet[4..6].copy_from_slice(&buffer.to_le_bytes());
    packet[8..].copy_from_slice(&sector.to_le_bytes());
    packet
}

/// The boot sector's machine code. DL is the disk, as the BIOS has said.
fn code() -> Vec<u8> {
    let failure = TEXTS + GREETING.len() as u16 + 3;
    // xor ax, ax; mov ds, ax; mov es, ax; mov ss, ax; mov sp, ORIGIN; cld
    let mut code = vec![0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xbc];
    code.extend(ORIGIN.to_le_bytes());
    code.push(0xfc);
    let mut calls = Vec::new();
    let mut fails = Vec::new();
    let mut print = |code: &mut Vec<u8>, text: u16| {
        // mov si, text; call print
        code.push(0xbe);
        code.extend(text.to_le_bytes());
        code.extend([0xe8, 0, 0]);
        calls.push(code.len());
    };
    // AH of INT 13h: 42h reads, 43h writes.
    let mut transfer = |code: &mut Vec<u8>, function: u8, number: u16| {
        // mov si, packet; mov ax, function; int 13h; jc failed
        code.push(0xbe);
        code.extend((ORIGIN + PACKETS + PACKET * number).to_le_bytes());
        code.extend([0xb8, 0, function, 0xcd, 0x13, 0x72, 0]);
        fails.push(code.len());
    };
    print(&mut code, ORIGIN + TEXTS);
    transfer(&mut code, 0x42, 0);
    print(&mut code, FIRST_BUFFER);
    transfer(&mut code, 0x43, 1);
    transfer(&mut code, 0x42, 2);
    print(&mut code, SECOND_BUFFER);
    // sti; hlt; hlt: the BIOS sends its last characters when its clock ticks.
    code.extend([0xfb, 0xf4, 0xf4]);
    // mov dx, 604h; mov ax, 3400h; out dx, ax: the board's PM1a control register, SLP_EN with the type of S5.
    code.extend([0xba, 0x04, 0x06, 0xb8, 0x00, 0x34, 0xef]);
    let stop = code.len();
    // 1: hlt; jmp 1b
    code.extend([0xf4, 0xeb, 0xfd]);
    let failed = code.len();
    print(&mut code, ORIGIN + failure);
    code.extend([0xeb, (stop as i32 - (code.len() as i32 + 2)) as u8]);
    let routine = code.len();
    // 1: lodsb; test al, al; jz 2f; mov ah, 0eh; mov bx, 7; int 10h; jmp 1b; 2: ret
    code.extend([0xac, 0x84, 0xc0, 0x74, 0x09, 0xb4, 0x0e, 0xbb, 0x07, 0x00, 0xcd, 0x10, 0xeb, 0xf2, 0xc3]);
    for behind in calls {
        code[behind - 2..behind].copy_from_slice(&((routine - behind) as u16).to_le_bytes());
    }
    for behind in fails {
        code[behind - 1] = (failed - behind) as u8;
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_packets_and_texts_do_not_overlap() {
        assert!(code().len() <= usize::from(PACKETS), "{}", code().len());
        const { assert!(PACKETS + 3 * PACKET <= TEXTS) };
        assert!(usize::from(TEXTS) + GREETING.len() + FAILURE.len() + 6 < SECTOR - 2);
    }

    #[test]
    fn the_disk_is_bootable_and_has_its_texts() {
        let disk = disk();
        assert_eq!((disk.len() % SECTOR, &disk[510..512]), (0, &[0x55, 0xaa][..]));
        assert!(disk[usize::from(TEXTS)..].starts_with(GREETING.as_bytes()));
        assert!(disk[SECTOR..].starts_with(SECOND_SECTOR.as_bytes()));
        // The print routine ends with RET, behind the jump from its end to its beginning.
        let code = code();
        assert_eq!(&code[code.len() - 3..], [0xeb, 0xf2, 0xc3]);
    }
}
