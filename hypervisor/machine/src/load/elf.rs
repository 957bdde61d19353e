//! ELF files of kernels, 32 and 64 bits, by their program headers and physical addresses.

use core::fmt;

use object::elf::{ELFMAG, EM_386, EM_X86_64, ET_EXEC, FileHeader32, FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{FileKind, LittleEndian};

use super::map::EXTENDED;
use super::{LoadError, map};
use crate::ram::Ram;

/// Segments that a kernel can have.
pub const SEGMENTS: usize = 16;

/// What is wrong with an ELF file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElfError {
    /// A header that lies outside the file or contradicts itself.
    Malformed,
    /// Neither i386 nor x86-64: `e_machine`.
    Machine(u16),
    /// Not an executable with fixed addresses: `e_type`.
    Type(u16),
    /// No segment to load.
    Empty,
    /// More than [`SEGMENTS`] segments to load.
    TooManySegments,
    /// The bytes of the segment with this physical address lie outside the file, or are more than its memory.
    Contents(u64),
    /// A segment at this physical address is not within memory between 1 MiB and the hole for devices.
    Place(u64),
    /// The entry point lies in no segment.
    Entry(u64),
}

impl fmt::Display for ElfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("its headers are damaged"),
            Self::Machine(machine) => {
                write!(f, "it is for machine {machine}, not for i386 (3) or x86-64 (62)")
            }
            Self::Type(kind) => {
                write!(f, "its type is {kind}; only executables with fixed addresses (2) can be loaded")
            }
            Self::Empty => f.write_str("it has no segment to load"),
            Self::TooManySegments => write!(f, "it has more than {SEGMENTS} segments to load"),
            Self::Contents(at) => write!(f, "the contents of its segment at {at:#x} are cut off"),
            Self::Place(at) => {
                write!(
                    f,
                    "its segment at {at:#x} does not lie in the guest's memory from 1 MiB on; give more memory"
                )
            }
            Self::Entry(at) => write!(f, "its entry point {at:#x} lies in no segment"),
        }
    }
}

/// A kernel in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The entry point's physical address.
    pub entry: u64,
    /// Where the last segment ends.
    pub end: u64,
}

/// Is this an ELF file?
pub fn is(image: &[u8]) -> bool {
    image.starts_with(&ELFMAG)
}

/// Copies the segments to where they belong.
///
/// # Errors
/// See [`ElfError`].
pub fn load(ram: &mut Ram<'_>, image: &[u8], entry: Option<u64>) -> Result<Loaded, LoadError> {
    let loaded = match FileKind::parse(image) {
        Ok(FileKind::Elf32) => load_class::<FileHeader32<LittleEndian>>(ram, image, entry),
        Ok(FileKind::Elf64) => load_class::<FileHeader64<LittleEndian>>(ram, image, entry),
        _ => Err(ElfError::Malformed),
    };
    loaded.map_err(LoadError::Elf)
}

fn load_class<H: FileHeader<Endian = LittleEndian>>(
    ram: &mut Ram<'_>,
    image: &[u8],
    entry: Option<u64>,
) -> Result<Loaded, ElfError> {
    let header = H::parse(image).map_err(|_| ElfError::Malformed)?;
    let endian = header.endian().map_err(|_| ElfError::Malformed)?;
    let (machine, kind) = (header.e_machine(endian), header.e_type(endian));
    if ![EM_386, EM_X86_64].contains(&machine) {
        return Err(ElfError::Machine(machine.0));
    }
    if kind != ET_EXEC {
        return Err(ElfError::Type(kind.0));
    }
    let segments = header.program_headers(endian, image).map_err(|_| ElfError::Malformed)?;
    let wanted = segments.iter().filter(|segment| segment.p_type(endian) == PT_LOAD);
    let wanted = || wanted.clone().filter(|segment| segment.p_memsz(endian).into() != 0);
    if wanted().count() > SEGMENTS {
        return Err(ElfError::TooManySegments);
    }
    let virtual_entry = header.e_entry(endian).into();
    let (mut physical_entry, mut end) = (None, 0);
    for segment in wanted() {
        let (at, last) = place(ram, segment, image)?;
        end = last.max(end);
        // The entry point is a virtual address; loaders take the physical one beside it (Multiboot2, 3.3).
        let within = virtual_entry.wrapping_sub(segment.p_vaddr(endian).into());
        if within < last - at {
            physical_entry.get_or_insert(at + within);
        }
    }
    if end == 0 {
        return Err(ElfError::Empty);
    }
    let entry = entry.or(physical_entry).ok_or(ElfError::Entry(virtual_entry))?;
    if !(map::EXTENDED..end).contains(&entry) {
        return Err(ElfError::Entry(entry));
    }
    Ok(Loaded { entry, end })
}

/// Copies one segment; answers where it begins and ends.
fn place<P: ProgramHeader<Endian = LittleEndian>>(
    ram: &mut Ram<'_>,
    segment: &P,
    image: &[u8],
) -> Result<(u64, u64), ElfError> {
    let at: u64 = segment.p_paddr(LittleEndian).into();
    let bytes = segment.data(LittleEndian, image).map_err(|()| ElfError::Contents(at))?;
    let length: u64 = segment.p_memsz(LittleEndian).into();
    let end = at.checked_add(length).ok_or(ElfError::Place(at))?;
    if at < EXTENDED || end > ram.layout().low().end {
        return Err(ElfError::Place(at));
    }
    let memory = ram.slice_mut(at, length as usize).map_err(|_| ElfError::Place(at))?;
    let (contents, zeros) = memory.split_at_mut_checked(bytes.len()).ok_or(ElfError::Contents(at))?;
    contents.copy_from_slice(bytes);
    zeros.fill(0);
    Ok((at, end))
}
