//! The script by which firmware places our tables: `etc/table-loader` of fw_cfg. Source: SeaBIOS,
//! `src/fw/romfile_loader.h`, and QEMU's `docs/specs/fw_cfg`.

use alloc::vec::Vec;

use super::acpi::{ALIGNMENT, File, Link, RSDP_ALIGNMENT, Tables};

/// The name of the file with the root pointer.
pub const RSDP_FILE: &str = "etc/acpi/rsdp";
/// The name of the file with the tables.
pub const TABLES_FILE: &str = "etc/acpi/tables";

/// Bytes of a command: its number and its operands, padded.
const COMMAND: usize = 128;
/// Bytes of a name in a command, its final zero included.
const NAME: usize = 56;

const ALLOCATE: u32 = 1;
const ADD_POINTER: u32 = 2;
const ADD_CHECKSUM: u32 = 3;

/// Zones of memory: anywhere, and where the root pointer is looked for.
const ZONE_HIGH: u8 = 1;
const ZONE_FSEG: u8 = 2;

/// The commands, in the order in which they are to be executed.
pub fn script(tables: &Tables) -> Vec<u8> {
    let mut script = Script(Vec::new());
    script.push(ALLOCATE, &[&name(File::Rsdp), &RSDP_ALIGNMENT.to_le_bytes(), &[ZONE_FSEG]]);
    script.push(ALLOCATE, &[&name(File::Tables), &ALIGNMENT.to_le_bytes(), &[ZONE_HIGH]]);
    for link in &tables.links {
        match *link {
            Link::Pointer { file, offset, size } => {
                script.push(ADD_POINTER, &[&name(file), &name(File::Tables), &offset.to_le_bytes(), &[size]]);
            }
            Link::Checksum { file, offset, start, length } => {
                let numbers = [offset, start, length].map(u32::to_le_bytes);
                script.push(ADD_CHECKSUM, &[&name(file), numbers.as_flattened()]);
            }
        }
    }
    script.0
}

/// A file's name as commands have it.
fn name(file: File) -> [u8; NAME] {
    let name = match file {
        File::Rsdp => RSDP_FILE,
        File::Tables => TABLES_FILE,
    };
    let mut bytes = [0; NAME];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    bytes
}

struct Script(Vec<u8>);

impl Script {
    fn push(&mut self, command: u32, operands: &[&[u8]]) {
        let end = self.0.len() + COMMAND;
        self.0.extend(command.to_le_bytes());
        operands.iter().for_each(|operand| self.0.extend_from_slice(operand));
        self.0.resize(end, 0);
    }
}
