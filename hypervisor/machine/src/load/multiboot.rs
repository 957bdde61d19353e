//! ELF kernels with a Multiboot2 header (specification 2.0) or a Multiboot header (0.6.96): entered in 32-bit protected
//! mode with a description of the machine.

use alloc::vec::Vec;
use core::fmt;

use super::bytes::{align_up, u16, u32};
use super::map::{Kind, low, memory_map};
use super::{Kernel, LoadError, Module, Segments, Start, elf, entry};
use crate::ram::{Layout, Ram};

/// A header of version 2 lies in so many bytes, at a multiple of 8.
const SEARCH_2: usize = 32768;
const HEADER_2: u32 = 0xe852_50d6;
const LOADER_2: u32 = 0x36d7_6289;
/// A header of version 1 lies in so many bytes, at a multiple of 4.
const SEARCH_1: usize = 8192;
const HEADER_1: u32 = 0x1bad_b002;
const LOADER_1: u32 = 0x2bad_b002;

/// Header tags of version 2: specification 3.1.
const END: u16 = 0;
const INFORMATION_REQUEST: u16 = 1;
const ENTRY_ADDRESS: u16 = 3;
const CONSOLE_FLAGS: u16 = 4;
const MODULE_ALIGNMENT: u16 = 6;
const OPTIONAL: u16 = 1;

/// Information tags of version 2: specification 3.6.
const TAG_END: u32 = 0;
const TAG_COMMAND_LINE: u32 = 1;
const TAG_LOADER: u32 = 2;
const TAG_MODULE: u32 = 3;
const TAG_BASIC_MEMORY: u32 = 4;
const TAG_MEMORY_MAP: u32 = 6;
const TAG_OLD_RSDP: u32 = 14;
const TAG_NEW_RSDP: u32 = 15;
/// What a kernel can be given when it insists.
const KNOWN_TAGS: [u32; 7] =
    [TAG_COMMAND_LINE, TAG_LOADER, TAG_MODULE, TAG_BASIC_MEMORY, TAG_MEMORY_MAP, TAG_OLD_RSDP, TAG_NEW_RSDP];

/// Flags of a header of version 1: align modules and give memory are kept; the rest of the lower half would be demands.
const KEPT_FLAGS_1: u32 = 0b11;
const DEMANDS_1: u32 = 0xffff;
/// Information flags of version 1: memory, command line, modules, memory map, loader's name.
const GIVEN_1: u32 = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9;

const LOADER_NAME: &str = "Lockstep";
/// Modules begin at a multiple of this.
const PAGE: u64 = 4096;
/// Bytes of an RSDP of ACPI 1.0, and of a later one.
const RSDP_OLD: usize = 20;
const RSDP_NEW: usize = 36;

/// Why a Multiboot kernel cannot be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MultibootError {
    /// No Multiboot header.
    NoHeader,
    /// The header is cut off or contradicts itself.
    Malformed,
    /// For another architecture than i386: its number.
    Architecture(u32),
    /// The header insists on a tag (version 2) that cannot be given.
    Tag(u16),
    /// The header insists on information of this type (version 2) that cannot be given.
    Information(u32),
    /// The header demands by these flags (version 1) what cannot be given.
    Flags(u32),
    /// The initial RAM disk is for Linux.
    Initrd,
    /// The module of this index does not fit into memory.
    NoRoom(usize),
    /// Strings and descriptions are longer than there is room below 640 KiB: their bytes.
    TooMuch(usize),
}

impl fmt::Display for MultibootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHeader => f.write_str("it has no Multiboot header"),
            Self::Malformed => f.write_str("its Multiboot header is damaged"),
            Self::Architecture(number) => {
                write!(f, "its Multiboot header is for architecture {number}, not i386 (0)")
            }
            Self::Tag(number) => {
                write!(f, "its Multiboot header insists on tag {number}, which is not supported")
            }
            Self::Information(number) => {
                write!(f, "its Multiboot header insists on information {number}, which does not exist here")
            }
            Self::Flags(flags) => {
                write!(f, "its Multiboot header demands {flags:#x}, which is not supported")
            }
            Self::Initrd => f.write_str("it takes modules; an initrd is for Linux"),
            Self::NoRoom(index) => {
                write!(f, "there is no room for module {index}; give the guest more memory")
            }
            Self::TooMuch(bytes) => write!(f, "command lines and names are too long: {bytes} bytes"),
        }
    }
}

impl From<MultibootError> for LoadError {
    fn from(error: MultibootError) -> Self {
        Self::Multiboot(error)
    }
}

/// Which specification a kernel follows.
enum Version {
    One,
    /// With an entry point that differs from the file's.
    Two(Option<u32>),
}

/// A module in memory.
struct Placed<'m> {
    start: u32,
    end: u32,
    string: &'m str,
}

/// Puts the kernel, its modules and a description of the machine into memory.
///
/// # Errors
/// See [`MultibootError`] and [`super::ElfError`].
pub fn load(ram: &mut Ram<'_>, kernel: &Kernel<'_>, rsdp: u64) -> Result<Start, LoadError> {
    let version = header(kernel.image)?;
    if kernel.initrd.is_some() {
        return Err(MultibootError::Initrd.into());
    }
    let entry = if let Version::Two(entry) = version { entry.map(u64::from) } else { None };
    let loaded = elf::load(ram, kernel.image, entry)?;
    let modules = put_modules(ram, kernel.modules, loaded.end)?;
    let (eax, information) = match version {
        Version::One => (LOADER_1, information_1(kernel, &modules, ram.layout())),
        Version::Two(_) => (LOADER_2, information_2(kernel, &modules, ram, rsdp)?),
    };
    if information.len() as u64 > low::END - low::INFORMATION {
        return Err(MultibootError::TooMuch(information.len()).into());
    }
    ram.write(low::INFORMATION, &information)?;
    let segments: Segments = entry::segments(ram, false)?;
    let (entry, ebx, esp) = (loaded.entry as u32, low::INFORMATION as u32, low::STACK_TOP as u32);
    Ok(Start::Protected { entry, eax, ebx, esi: 0, esp, segments })
}

/// Finds and checks the header; version 2 is looked for first.
fn header(image: &[u8]) -> Result<Version, MultibootError> {
    let places = |end: usize, step| (0..image.len().min(end)).step_by(step);
    let sums = |at: usize, numbers: usize| {
        let mut numbers = (0..numbers).map(|n| u32(image, at + n * 4));
        numbers.try_fold(0u32, |sum, number| number.map(|number| sum.wrapping_add(number))) == Some(0)
    };
    if let Some(at) = places(SEARCH_2, 8).find(|&at| u32(image, at) == Some(HEADER_2) && sums(at, 4)) {
        return header_2(image, at).map(Version::Two);
    }
    let found = places(SEARCH_1, 4).find(|&at| u32(image, at) == Some(HEADER_1) && sums(at, 3));
    let flags = found.and_then(|at| u32(image, at + 4)).ok_or(MultibootError::NoHeader)?;
    match flags & DEMANDS_1 & !KEPT_FLAGS_1 {
        0 => Ok(Version::One),
        demands => Err(MultibootError::Flags(demands)),
    }
}

/// Walks the tags of a header of version 2; answers the entry point that it names.
fn header_2(image: &[u8], at: usize) -> Result<Option<u32>, MultibootError> {
    use MultibootError::Malformed;
    match u32(image, at + 4) {
        Some(0) => {}
        other => return Err(other.map_or(Malformed, MultibootError::Architecture)),
    }
    let length = u32(image, at + 8).ok_or(Malformed)? as usize;
    let header = image.get(at..).and_then(|rest| rest.get(..length)).ok_or(Malformed)?;
    let (mut tag, mut entry) = (16, None);
    loop {
        let kind = u16(header, tag).ok_or(Malformed)?;
        let (flags, size) = (u16(header, tag + 2).ok_or(Malformed)?, u32(header, tag + 4).ok_or(Malformed)?);
        let body = header.get(tag + 8..).and_then(|rest| rest.get(..(size as usize).checked_sub(8)?));
        let (body, wanted) = (body.ok_or(Malformed)?, flags & OPTIONAL == 0);
        match kind {
            END => return Ok(entry),
            ENTRY_ADDRESS => entry = Some(u32(body, 0).ok_or(Malformed)?),
            INFORMATION_REQUEST if wanted => {
                let mut types = body.chunks_exact(4).filter_map(|number| u32(number, 0));
                if let Some(unknown) = types.find(|number| !KNOWN_TAGS.contains(number)) {
                    return Err(MultibootError::Information(unknown));
                }
            }
            // Modules are always aligned; the console is not ours to arrange.
            INFORMATION_REQUEST | CONSOLE_FLAGS | MODULE_ALIGNMENT => {}
            unknown if wanted => return Err(MultibootError::Tag(unknown)),
            _ => {}
        }
        tag = (tag + size as usize).next_multiple_of(8);
    }
}

/// Copies the modules behind the kernel.
fn put_modules<'m>(
    ram: &mut Ram<'_>,
    modules: &[Module<'m>],
    kernel_end: u64,
) -> Result<Vec<Placed<'m>>, MultibootError> {
    let mut free = kernel_end;
    let put = |(index, module): (usize, &Module<'m>)| {
        let full = MultibootError::NoRoom(index);
        let start = align_up(free, PAGE).ok_or(full)?;
        let end = start.checked_add(module.bytes.len() as u64).filter(|&end| end <= ram.layout().low().end);
        free = end.ok_or(full)?;
        ram.write(start, module.bytes).map_err(|_| full)?;
        Ok(Placed { start: start as u32, end: free as u32, string: module.string })
    };
    modules.iter().enumerate().map(put).collect()
}

/// KiB from 0 on, and KiB from 1 MiB on, without a hole.
fn basic_memory(layout: Layout) -> [u32; 2] {
    [(low::END >> 10) as u32, ((layout.low().end >> 10) as u32).saturating_sub(1024)]
}

/// The tags of version 2 as they are written one behind the other.
struct Tags(Vec<u8>);

impl Tags {
    /// Appends a tag: its type, its size, its parts, and what aligns the next one.
    fn push(&mut self, kind: u32, parts: &[&[u8]]) {
        let size = 8 + parts.iter().map(|part| part.len()).sum::<usize>();
        self.0.extend(kind.to_le_bytes());
        self.0.extend((size as u32).to_le_bytes());
        parts.iter().for_each(|part| self.0.extend_from_slice(part));
        self.0.resize(self.0.len().next_multiple_of(8), 0);
    }
}

/// The information of version 2.
fn information_2(
    kernel: &Kernel<'_>,
    modules: &[Placed<'_>],
    ram: &Ram<'_>,
    rsdp: u64,
) -> Result<Vec<u8>, LoadError> {
    let mut tags = Tags(alloc::vec![0; 8]);
    tags.push(TAG_COMMAND_LINE, &[kernel.command_line.as_bytes(), &[0]]);
    tags.push(TAG_LOADER, &[LOADER_NAME.as_bytes(), &[0]]);
    for module in modules {
        let string = module.string.as_bytes();
        tags.push(TAG_MODULE, &[&module.start.to_le_bytes(), &module.end.to_le_bytes(), string, &[0]]);
    }
    let [lower, upper] = basic_memory(ram.layout());
    tags.push(TAG_BASIC_MEMORY, &[&lower.to_le_bytes(), &upper.to_le_bytes()]);
    let mut map = Vec::new();
    for entry in memory_map(ram.layout()) {
        map.extend(entry.e820());
        map.extend([0; 4]);
    }
    tags.push(TAG_MEMORY_MAP, &[&24u32.to_le_bytes(), &0u32.to_le_bytes(), &map]);
    tags.push(TAG_OLD_RSDP, &[ram.slice(rsdp, RSDP_OLD)?]);
    tags.push(TAG_NEW_RSDP, &[ram.slice(rsdp, RSDP_NEW)?]);
    tags.push(TAG_END, &[]);
    let size = tags.0.len() as u32;
    tags.0[..4].copy_from_slice(&size.to_le_bytes());
    Ok(tags.0)
}

/// The information of version 1 (specification 3.3), and behind it what it points to.
fn information_1(kernel: &Kernel<'_>, modules: &[Placed<'_>], layout: Layout) -> Vec<u8> {
    const BYTES: usize = 120;
    let mut bytes = alloc::vec![0; BYTES];
    let here = |bytes: &Vec<u8>| low::INFORMATION as u32 + bytes.len() as u32;
    let string = |bytes: &mut Vec<u8>, string: &str| {
        let at = here(bytes);
        bytes.extend_from_slice(string.as_bytes());
        bytes.push(0);
        at
    };
    let command_line = string(&mut bytes, kernel.command_line);
    let loader = string(&mut bytes, LOADER_NAME);
    let strings: Vec<u32> = modules.iter().map(|module| string(&mut bytes, module.string)).collect();
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let list = here(&bytes);
    for (module, string) in modules.iter().zip(strings) {
        [module.start, module.end, string, 0].iter().for_each(|number| bytes.extend(number.to_le_bytes()));
    }
    let map = here(&bytes);
    for entry in memory_map(layout) {
        bytes.extend(20u32.to_le_bytes());
        bytes.extend(entry.e820());
    }
    let map_bytes = here(&bytes) - map;
    let [lower, upper] = basic_memory(layout);
    let fields = [
        (0, GIVEN_1),
        (4, lower),
        (8, upper),
        (16, command_line),
        (20, modules.len() as u32),
        (24, list),
        (44, map_bytes),
        (48, map),
        (64, loader),
    ];
    for (at, value) in fields {
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

/// The two kinds of memory have the numbers that both specifications give them.
const _: () = assert!(Kind::Ram as u32 == 1 && Kind::Reserved as u32 == 2);
